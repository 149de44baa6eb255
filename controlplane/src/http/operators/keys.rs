//! Keys: the first operator's, and everybody's after it.

use std::net::SocketAddr;

use axum::{
    Json,
    extract::{ConnectInfo, Path, State as AxumState, rejection::PathRejection},
    http::StatusCode,
};
use controlplane_core::ids::{KeyId, OrgId};
use controlplane_store::{calls::Actor, keys::Key};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment;
use crate::{
    http::{
        State,
        auth::{OPERATOR_SCOPE, Operator, Scope},
        body::JsonBody,
        problem::{Code, Problem},
        shape::ListView,
    },
    keys::{self, KeyKind, NewKey},
};

/// Longest name of a key.
const NAME_MAX: usize = 100;

fn view(key: &Key) -> Value {
    json!({
        "id": key.id, "object": "key", "name": key.name, "prefix": key.prefix, "scopes": key.scopes,
        "org": key.org, "created_at": moment(key.created_at),
        "revoked_at": key.revoked_at.and_then(moment),
    })
}

fn with_secret(new: &NewKey) -> Value {
    let mut shown = view(&new.key);
    shown["secret"] = new.secret.as_str().into();
    shown
}

/// The first operator key, once, and only for somebody on this machine: whoever can reach the door from
/// elsewhere must not be the first to ask.
pub(in crate::http) async fn bootstrap(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    AxumState(state): AxumState<State>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Problem::new(
            Code::Forbidden,
            "Only from the machine itself: run `ringward bootstrap` there.",
        ));
    }
    let now = state.clock.now();
    let scopes = vec![OPERATOR_SCOPE.to_owned()];
    let new = keys::make(KeyKind::Operator, None, "bootstrap".to_owned(), scopes, now, &state.chance);
    if state.store.bootstrap_operator(new.key.clone(), state.chance.audit_id(now)).await? {
        tracing::info!(key = %new.key.id, "the first operator key was made");
        return Ok((StatusCode::CREATED, Json(with_secret(&new))));
    }
    Err(Problem::new(
        Code::AlreadyBootstrapped,
        "An operator key exists. Make further keys with it: `ringward key create --operator --name NAME`.",
    ))
}

/// Body of `POST /admin/v1/keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewKeyBody {
    name: String,
    /// An operator's key instead of a customer's.
    #[serde(default)]
    operator: bool,
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
            return Err(field("scopes", "An operator's key has no scopes."));
        }
        keys::make(KeyKind::Operator, None, body.name, vec![OPERATOR_SCOPE.to_owned()], now, &state.chance)
    } else {
        let all = || Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
        let scopes: Vec<String> = body.scopes.unwrap_or_else(all);
        if scopes.is_empty() || !scopes.iter().all(|s| Scope::ALL.iter().any(|scope| scope.as_str() == s)) {
            return Err(field("scopes", "Some of calls:write, calls:read."));
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
