//! Keys: the first operator's, and everybody's after it.

use std::net::SocketAddr;

use axum::{
    Extension, Json,
    extract::{ConnectInfo, Path, State as AxumState, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use controlplane_core::{
    access::{Role, Scope},
    ids::{KeyId, OrgId},
};
use controlplane_store::{calls::Actor, keys::Key};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment;
use crate::{
    http::{
        RequestTag, State,
        auth::Operator,
        body::JsonBody,
        problem::{Code, Problem},
        shape::ListView,
    },
    keys::{self, KeyKind, NewKey},
};

/// Longest name of a key.
const NAME_MAX: usize = 100;

fn view(key: &Key) -> Value {
    // An operator's words are his role's.
    let (role, scopes) = match key.org {
        None => (Role::of(&key.scopes), &[][..]),
        Some(_) => (None, key.scopes.as_slice()),
    };
    json!({
        "id": key.id, "object": "key", "name": key.name, "prefix": key.prefix, "role": role, "scopes": scopes,
        "org": key.org, "created_at": moment(key.created_at),
        "revoked_at": key.revoked_at.and_then(moment),
    })
}

fn with_secret(new: &NewKey) -> Value {
    let mut shown = view(&new.key);
    shown["secret"] = new.secret.as_str().into();
    shown
}

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

/// Headers that tell of a proxy in between, behind which a peer's address is the proxy's.
fn came_by_proxy(headers: &HeaderMap) -> bool {
    let tells =
        |name: &str| matches!(name, "forwarded" | "via" | "x-real-ip") || name.starts_with("x-forwarded-");
    headers.keys().any(|name| tells(name.as_str()))
}

/// The first operator key, or with `force` another one, for whoever is on this machine and holds its data
/// directory.
pub(in crate::http) async fn bootstrap(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(request): Extension<RequestTag>,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    body: Result<JsonBody<BootstrapBody>, Problem>,
) -> Result<(StatusCode, Json<Value>), Problem> {
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
    let scopes = Role::Admin.words();
    let name = if body.force { "bootstrap --force" } else { "bootstrap" };
    let new = keys::make(KeyKind::Operator, None, name.to_owned(), scopes, now, &state.chance);
    let audit_id = state.chance.audit_id(now);
    if body.force {
        let actor = Actor { key: None, request: Some(request.0), ip: Some(peer.ip().to_string()) };
        state.store.create_key(new.key.clone(), actor, audit_id).await?;
        tracing::warn!(key = %new.key.id, "an operator key was made by force of the data directory");
    } else if state.store.bootstrap_operator(new.key.clone(), audit_id).await? {
        tracing::info!(key = %new.key.id, "the first operator key was made");
    } else {
        return Err(Problem::new(
            Code::AlreadyBootstrapped,
            "An operator key exists. Make further keys with it: `ringward key create --operator --name NAME`. If it \
             is lost: `ringward bootstrap --force`.",
        ));
    }
    Ok((StatusCode::CREATED, Json(with_secret(&new))))
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
    /// A customer's scopes; absent: all.
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<NewKeyBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let field = |param: &'static str, detail: &str| Problem::new(Code::InvalidField, detail).param(param);
    if body.name.is_empty() || body.name.len() > NAME_MAX || body.name.chars().any(char::is_control) {
        return Err(field("name", "1 to 100 bytes without control characters."));
    }
    let now = state.clock.now();
    let new = if body.operator {
        if body.scopes.is_some() {
            return Err(field("scopes", "An operator's key has a role and no scopes."));
        }
        let role = body.role.unwrap_or(Role::Operator);
        keys::make(KeyKind::Operator, None, body.name, role.words(), now, &state.chance)
    } else {
        if body.role.is_some() {
            return Err(field("role", "A customer's key has scopes and no role."));
        }
        let all = || Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
        let scopes: Vec<String> = body.scopes.unwrap_or_else(all);
        if scopes.is_empty() || !scopes.iter().all(|scope| scope.parse::<Scope>().is_ok()) {
            return Err(field(
                "scopes",
                "Some of calls:write, calls:read, audio, webhooks, keys, audit:read.",
            ));
        }
        keys::make(KeyKind::Customer, Some(OrgId::first()), body.name, scopes, now, &state.chance)
    };
    state.store.create_key(new.key.clone(), operator.actor, state.chance.audit_id(now)).await?;
    Ok((StatusCode::CREATED, Json(with_secret(&new))))
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Json<ListView<Value>>, Problem> {
    let mut all = state.store.keys(None).await?;
    all.extend(state.store.keys(Some(&OrgId::first())).await?);
    Ok(Json(ListView::whole(all.iter().map(view).collect())))
}

pub(in crate::http) async fn revoke(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id?;
    let now = state.clock.now();
    let actor: Actor = operator.actor;
    if state.store.revoke_key(&id, now, actor, state.chance.audit_id(now)).await? {
        Ok(Json(json!({"id": id, "object": "key", "revoked_at": moment(now)})))
    } else {
        Err(Problem::not_found())
    }
}
