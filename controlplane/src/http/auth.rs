//! Who asks: a key from `Authorization: Bearer …`, for the door that it is of.

use axum::{
    extract::{FromRequestParts, Request, State as AxumState},
    http::{header, request::Parts},
    middleware::Next,
    response::Response,
};
use controlplane_core::{
    access::{Mode, Role, Scope},
    ids::{KeyId, OrgId},
};
use controlplane_store::{StoreError, calls::Actor, keys::Key};
use time::OffsetDateTime;

use super::{
    RequestTag, State,
    audit::{Caller, user_agent},
    console::session,
    pace,
    problem::{Code, Problem},
    routes::Needs,
};
use crate::{doors::Client, keys};

/// A customer.
#[derive(Clone)]
pub(super) struct Customer {
    pub(super) org: OrgId,
    pub(super) actor: Actor,
    /// Whether what it asks for is done, or only rehearsed.
    pub(super) mode: Mode,
    pub(super) scopes: Vec<String>,
    pub(super) expires_at: Option<OffsetDateTime>,
    secret_sha256: [u8; 32],
    /// What the route asked for.
    any_of: &'static [Scope],
}

impl Customer {
    /// Whether the key may still do what the route asks for, for answers that go on.
    pub(super) async fn may_still(&self, state: &State) -> Result<bool, StoreError> {
        let key = state.keys.find(self.secret_sha256).await?;
        Ok(key.is_some_and(|key| {
            is_alive(&key, state) && key.suspended_at.is_none() && has_any(&key.scopes, self.any_of)
        }))
    }

    /// Whether the key has this scope too.
    pub(super) fn has(&self, scope: Scope) -> bool {
        has_any(&self.scopes, &[scope])
    }
}

fn has_any(scopes: &[String], any_of: &[Scope]) -> bool {
    scopes.iter().any(|has| any_of.iter().any(|scope| scope.as_str() == has))
}

/// An operator.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) actor: Actor,
    pub(super) role: Role,
}

/// Lets a request through to a route that asks for this, or answers why not. Handlers take who it is from here:
/// nothing else makes a [`Customer`] or an [`Operator`].
pub(super) async fn admit(
    AxumState((state, needs)): AxumState<(State, Needs)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    match needs {
        Needs::Nothing | Needs::Certificate | Needs::Token => {}
        Needs::SignIn => return Ok(session::admit(&state, None, parts, body, next).await),
        Needs::Page(role) => return Ok(session::admit(&state, Some(role), parts, body, next).await),
        Needs::AnyOf(any_of) => {
            let customer = customer(&parts, &state, any_of).await?;
            parts.extensions.insert(customer);
        }
        Needs::Role(role) => {
            let operator = operator(&parts, &state, role).await?;
            parts.extensions.insert(operator);
        }
    }
    Ok(next.run(Request::from_parts(parts, body)).await)
}

async fn customer(parts: &Parts, state: &State, any_of: &'static [Scope]) -> Result<Customer, Problem> {
    let (key, actor) = key(parts, state).await?;
    // An operator's key at the customers' door is a wrong key there, not a stronger one.
    let org = key.org.ok_or_else(unauthenticated)?;
    pace::count(parts, state, &org, &key.id)?;
    if key.suspended_at.is_some() {
        let detail =
            "The organisation is suspended: nothing of it is answered. Ask who runs this control plane.";
        return Err(Problem::new(Code::OrgSuspended, detail));
    }
    if !has_any(&key.scopes, any_of) {
        let wanted = any_of.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" or ");
        return Err(Problem::new(Code::Forbidden, format!("The key lacks the scope {wanted}.")));
    }
    let Key { mode, scopes, expires_at, secret_sha256, .. } = key;
    Ok(Customer { org, actor, mode, scopes, expires_at, secret_sha256, any_of })
}

async fn operator(parts: &Parts, state: &State, needs: Role) -> Result<Operator, Problem> {
    let (key, actor) = key(parts, state).await?;
    let role = Role::of(&key.scopes).filter(|_| key.org.is_none()).ok_or_else(unauthenticated)?;
    if role < needs {
        let detail = format!("This takes the role {needs} or a higher one; the key's is {role}.");
        return Err(Problem::new(Code::Forbidden, detail));
    }
    Ok(Operator { actor, role })
}

impl FromRequestParts<State> for Customer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(not_admitted)
    }
}

impl FromRequestParts<State> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(not_admitted)
    }
}

/// A handler wants to know who asks, and its row in the table asks for no key: nobody gets in.
pub(super) fn not_admitted() -> Problem {
    tracing::error!("a route's handler takes a key that its row does not ask for");
    Problem::new(Code::Internal, "A fault of ours.")
}

/// Who has shown no key yet, for the audit row: the handler looks for one.
pub(super) struct Stranger(pub(super) Actor);

impl FromRequestParts<State> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        Ok(Self(asker(parts, None)))
    }
}

fn asker(parts: &Parts, key: Option<KeyId>) -> Actor {
    let ip = parts.extensions.get::<Client>().map(|client| client.ip.to_string());
    let request = parts.extensions.get::<RequestTag>().map(|tag| tag.0.clone());
    Actor { key, node: None, request, ip, user_agent: user_agent(&parts.headers) }
}

/// For the audit row.
pub(super) fn actor(parts: &Parts, key: Option<KeyId>) -> Actor {
    let actor = asker(parts, key);
    if let Some(caller) = parts.extensions.get::<Caller>() {
        caller.is(&actor);
    }
    actor
}

fn unauthenticated() -> Problem {
    Problem::new(
        Code::Unauthenticated,
        "Send `Authorization: Bearer KEY` with a key of this door that is neither revoked nor expired.",
    )
}

/// Neither revoked nor expired.
pub(super) fn is_alive(key: &Key, state: &State) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > state.clock.now())
}

/// The key, and who that is for the audit log, also where it is refused from here on.
async fn key(parts: &Parts, state: &State) -> Result<(Key, Actor), Problem> {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    // The scheme's case does not matter (RFC 9110 section 11.1).
    let (scheme, secret) = value.split_once(' ').unwrap_or((value, ""));
    let secret = Some(secret.trim())
        .filter(|secret| scheme.eq_ignore_ascii_case("bearer") && keys::is_well_formed(secret));
    let secret = secret.ok_or_else(unauthenticated)?;
    // Found by its hash: the comparison is the database's, of hashes, and tells nothing of the secret.
    let key = state.keys.find(keys::hash(secret)).await?.ok_or_else(unauthenticated)?;
    let actor = actor(parts, Some(key.id.clone()));
    if !is_alive(&key, state) {
        return Err(unauthenticated());
    }
    state.uses.note(&key.id, state.clock.now());
    Ok((key, actor))
}
