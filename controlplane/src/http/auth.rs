//! Who asks: a key from `Authorization: Bearer …`, for the door that it is of.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{header, request::Parts},
};
use controlplane_core::ids::{KeyId, OrgId};
use controlplane_store::{StoreError, calls::Actor, keys::Key};

use super::{
    RequestTag, State,
    problem::{Code, Problem},
};
use crate::keys;

/// What a customer's key may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    CallsWrite,
    CallsRead,
}

impl Scope {
    /// Every scope, as a new key gets them.
    pub(super) const ALL: [Self; 2] = [Self::CallsWrite, Self::CallsRead];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::CallsWrite => "calls:write",
            Self::CallsRead => "calls:read",
        }
    }
}

/// A customer.
pub(super) struct Customer {
    pub(super) org: OrgId,
    pub(super) actor: Actor,
    scopes: Vec<String>,
    secret_sha256: [u8; 32],
}

impl Customer {
    /// Whether the key may still do this, for answers that go on.
    pub(super) async fn may_still(&self, state: &State, scope: Scope) -> Result<bool, StoreError> {
        let key = state.store.key_by_hash(&self.secret_sha256).await?;
        Ok(key.is_some_and(|key| is_alive(&key, state) && key.scopes.iter().any(|s| s == scope.as_str())))
    }

    /// Refuses what the key may not do.
    pub(super) fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.iter().any(|s| s == scope.as_str()) {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, format!("The key lacks the scope {}.", scope.as_str())))
    }
}

/// An operator.
pub(super) struct Operator {
    pub(super) actor: Actor,
}

/// The scope that makes a key an operator's.
pub(super) const OPERATOR_SCOPE: &str = "operator";

impl FromRequestParts<State> for Customer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let key = key(parts, state).await?;
        // An operator's key at the customers' door is a wrong key there, not a stronger one.
        let org = key.org.ok_or_else(unauthenticated)?;
        Ok(Self {
            org,
            actor: actor(parts, Some(key.id)),
            scopes: key.scopes,
            secret_sha256: key.secret_sha256,
        })
    }
}

impl FromRequestParts<State> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let key = key(parts, state).await?;
        if key.org.is_some() || !key.scopes.iter().any(|s| s == OPERATOR_SCOPE) {
            return Err(unauthenticated());
        }
        Ok(Self { actor: actor(parts, Some(key.id)) })
    }
}

/// For the audit row.
pub(super) fn actor(parts: &Parts, key: Option<KeyId>) -> Actor {
    let ip = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
    Actor { key, request: parts.extensions.get::<RequestTag>().map(|tag| tag.0.clone()), ip }
}

fn unauthenticated() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        "Send `Authorization: Bearer KEY` with a key of this door that is neither revoked nor expired.",
    )
}

/// Neither revoked nor expired.
fn is_alive(key: &Key, state: &State) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > state.clock.now())
}

async fn key(parts: &Parts, state: &State) -> Result<Key, Problem> {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    // The scheme's case does not matter (RFC 9110 section 11.1).
    let (scheme, secret) = value.split_once(' ').unwrap_or((value, ""));
    let secret = Some(secret.trim())
        .filter(|secret| scheme.eq_ignore_ascii_case("bearer") && keys::is_well_formed(secret));
    let secret = secret.ok_or_else(unauthenticated)?;
    // Found by its hash: the comparison is the database's, of hashes, and tells nothing of the secret.
    let key = state.store.key_by_hash(&keys::hash(secret)).await?.ok_or_else(unauthenticated)?;
    if is_alive(&key, state) { Ok(key) } else { Err(unauthenticated()) }
}
