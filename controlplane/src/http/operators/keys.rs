//! Keys: the first operator's, and everybody's after it.

use std::net::SocketAddr;

use axum::{
    Extension, Json,
    extract::{
        ConnectInfo, Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
};
use controlplane_core::{
    access::{Mode, Role, Scope},
    ids::{KeyId, OrgId},
};
use controlplane_store::{calls::Actor, keys::Whose};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{
    doors::came_by_proxy,
    http::{
        RequestTag, State,
        answer::Created,
        api_keys::{
            self, KeyView, RevokedView, RotateBody, ended, expiry, made, name, page, scopes, with_secret,
        },
        auth::Operator,
        body::JsonBody,
        problem::{Code, Problem},
        shape::ListView,
    },
    keys::{self, KeyKind, Wanted},
};

/// Body of `POST /admin/v1/bootstrap`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BootstrapBody {
    /// What `bootstrap.token` in the data directory holds.
    #[serde(default)]
    token: String,
    /// Although an operator key exists.
    #[serde(default)]
    force: bool,
}

/// The first operator key, or with `force` another one, for whoever is on this machine and holds its data
/// directory.
pub(in crate::http) async fn bootstrap(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(request): Extension<RequestTag>,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    body: Result<JsonBody<BootstrapBody>, Problem>,
) -> Result<Created<KeyView>, Problem> {
    if !peer.ip().to_canonical().is_loopback() || came_by_proxy(&headers) {
        return Err(Problem::new(
            Code::Forbidden,
            "Only from the machine itself, and through no proxy: run `ringward bootstrap` there.",
        ));
    }
    let JsonBody { value: body, .. } = body?;
    // Spent before the key is made: whoever fails after this reads the next token.
    let redeemed = state.bootstrap.redeem(&body.token).await.map_err(|error| {
        tracing::error!(%error, "a bootstrap failed");
        Problem::new(Code::Internal, "The bootstrap token cannot be read or written; the log tells more.")
    })?;
    if !redeemed {
        return Err(Problem::new(
            Code::Forbidden,
            "Send the token from bootstrap.token in the data directory: `ringward bootstrap --data-dir DIR` does. Each \
             is for one use.",
        ));
    }
    let now = state.clock.now();
    let wanted = Wanted {
        kind: KeyKind::Operator,
        org: None,
        name: if body.force { "bootstrap --force" } else { "bootstrap" }.to_owned(),
        scopes: Role::Admin.words(),
        expires_at: None,
        rotated_from: None,
    };
    let new = keys::make(wanted, now, &state.chance);
    let audit_id = state.chance.audit_id(now);
    if body.force {
        let actor = Actor { request: Some(request.0), ip: Some(peer.ip().to_string()), ..Actor::default() };
        let answer = made(state.store.create_key(new.key.clone(), actor, audit_id).await?, &new)?;
        tracing::warn!(key = %new.key.id, "an operator key was made by force of the data directory");
        return Ok(answer);
    }
    if !state.store.bootstrap_operator(new.key.clone(), audit_id).await? {
        return Err(Problem::new(
            Code::AlreadyBootstrapped,
            "An operator key exists. Make further keys with it: `ringward key create --operator --name NAME`. If it \
             is lost: `ringward bootstrap --force`.",
        ));
    }
    tracing::info!(key = %new.key.id, "the first operator key was made");
    Ok(with_secret(&new))
}

/// Body of `POST /admin/v1/keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewKeyBody {
    name: String,
    /// An operator's key instead of a customer's.
    #[serde(default)]
    operator: bool,
    /// An operator's role; absent: operator.
    #[serde(default)]
    role: Option<Role>,
    /// A customer's organisation; absent: the first.
    #[serde(default)]
    org: Option<OrgId>,
    /// A customer's scopes; absent: all.
    #[serde(default)]
    scopes: Option<Vec<String>>,
    /// Whether a customer's key is a live one; absent: yes.
    #[serde(default)]
    livemode: Option<bool>,
    /// When it ends by itself; absent: never.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// A form's, that makes one key however often it is sent.
    #[serde(skip)]
    id: Option<KeyId>,
}

impl NewKeyBody {
    /// A customer's, under an id that a form brings.
    pub(in crate::http) fn of_customer(
        name: String,
        org: OrgId,
        scopes: &[Scope],
        mode: Mode,
        expires_at: Option<OffsetDateTime>,
        id: Option<KeyId>,
    ) -> Self {
        let scopes = scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
        Self {
            name,
            operator: false,
            role: None,
            org: Some(org),
            scopes: Some(scopes),
            livemode: Some(mode == Mode::Live),
            expires_at,
            id,
        }
    }
}

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<NewKeyBody>,
) -> Result<Created<KeyView>, Problem> {
    let field = |param: &'static str, detail: &str| Problem::new(Code::InvalidField, detail).param(param);
    let now = state.clock.now();
    let (name, expires_at) = (name(body.name)?, expiry(body.expires_at, now)?);
    let (kind, org, scopes) = if body.operator {
        for (param, is_given) in [
            ("scopes", body.scopes.is_some()),
            ("org", body.org.is_some()),
            ("livemode", body.livemode.is_some()),
        ] {
            if is_given {
                return Err(field(param, "An operator's key has a role, and nothing else of this kind."));
            }
        }
        (KeyKind::Operator, None, body.role.unwrap_or(Role::Operator).words())
    } else {
        if body.role.is_some() {
            return Err(field("role", "A customer's key has scopes and no role."));
        }
        let org = body.org.unwrap_or_else(OrgId::first);
        if state.store.org(&org).await?.is_none() {
            return Err(field("org", "There is no such organisation."));
        }
        let mode = if body.livemode == Some(false) { Mode::Test } else { Mode::Live };
        (KeyKind::Customer(mode), Some(org), scopes(body.scopes)?)
    };
    let mut new =
        keys::make(Wanted { kind, org, name, scopes, expires_at, rotated_from: None }, now, &state.chance);
    new.key.id = body.id.unwrap_or(new.key.id);
    let audit_id = state.chance.audit_id(now);
    made(state.store.create_key(new.key.clone(), operator.actor, audit_id).await?, &new)
}

/// `?limit=&starting_after=&org=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    limit: Option<u16>,
    starting_after: Option<KeyId>,
    /// Only this organisation's.
    org: Option<OrgId>,
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let Query(ListQuery { limit, starting_after, org }) = query?;
    let whose = org.map_or(Whose::All, Whose::Org);
    page(&state, whose, api_keys::ListQuery { limit, starting_after }).await
}

pub(in crate::http) async fn rotate(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<RotateBody>,
) -> Result<Created<KeyView>, Problem> {
    let Path(id) = id?;
    let old = state.store.key(&Whose::All, &id).await?.ok_or_else(Problem::not_found)?;
    let (new, rotation) = body.rotation(&state, Whose::All, old)?;
    let audit_id = state.chance.audit_id(new.key.created_at);
    made(state.rules.rotate_key(rotation, operator.actor, audit_id).await?, &new)
}

pub(in crate::http) async fn revoke(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Json<RevokedView>, Problem> {
    let Path(id) = id?;
    ended(&state, &Whose::All, &id, operator.actor).await
}
