//! `/v1/api_keys`: an organisation's keys, for whoever has one with the scope `keys`. Shared with the operators' door:
//! how a key is shown, and what may be asked of one.
//!
//! Nobody makes a key that may do more than their own: no further scope, no longer life, and by a test key only test
//! keys. A rotation shows a secret, so it is bound by the same. A key with limits of its own makes none.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
};
use controlplane_core::{
    access::{Mode, Role, Scope},
    ids::{KeyId, OrgId},
    limits::KeyLimits,
    schema::Moment,
};
use controlplane_store::{
    calls::Actor,
    keys::{KEYS_MAX, Key, KeyPage, Made, Rotation, Whose},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{
    State,
    answer::Created,
    auth::Customer,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};
use crate::keys::{self, KeyKind, NewKey, Wanted};

/// Longest name of a key.
const NAME_MAX: usize = 100;
/// Keys of a page where none is asked, and the most.
const LIMITS: (u16, u16) = (20, 100);
/// How long a key that was rotated opens on where nothing is asked, and the longest, in seconds.
const OVERLAP_S: (u32, u32) = (86_400, 7 * 86_400);

fn field(param: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidField, detail).param(param)
}

/// A key.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ApiKey")]
pub(super) struct KeyView {
    id: KeyId,
    #[schemars(extend("const" = "key"))]
    object: &'static str,
    name: String,
    /// The first characters of the secret, by which people recognise it.
    prefix: String,
    /// Whether what it asks for is done, or only rehearsed.
    livemode: bool,
    /// An operator's.
    role: Option<Role>,
    /// A customer's: what it may do.
    scopes: Vec<String>,
    org: Option<OrgId>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
    /// When it ends by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    expires_at: Option<OffsetDateTime>,
    /// About when it was used last.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    last_used_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    revoked_at: Option<OffsetDateTime>,
    /// The key that it takes the place of.
    rotated_from: Option<KeyId>,
    /// Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// A key that opens nothing any more.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RevokedApiKey")]
pub(super) struct RevokedView {
    id: KeyId,
    #[schemars(extend("const" = "key"))]
    object: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    revoked_at: OffsetDateTime,
}

impl KeyView {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What is shown this once, which is then no more in it.
    pub(super) fn take_secret(&mut self) -> Option<String> {
        self.secret.take()
    }
}

/// A key as shown.
pub(super) fn view(key: &Key) -> KeyView {
    // An operator's words are his role's.
    let (role, scopes) = match key.org {
        None => (Role::of(&key.scopes), Vec::new()),
        Some(_) => (None, key.scopes.clone()),
    };
    KeyView {
        id: key.id.clone(),
        object: "key",
        name: key.name.clone(),
        prefix: key.prefix.clone(),
        livemode: key.mode == Mode::Live,
        role,
        scopes,
        org: key.org.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
        revoked_at: key.revoked_at,
        rotated_from: key.rotated_from.clone(),
        secret: None,
    }
}

/// With what is shown this once.
pub(super) fn with_secret(new: &NewKey) -> Created<KeyView> {
    Created(KeyView { secret: Some(new.secret.clone()), ..view(&new.key) })
}

pub(super) fn name(name: String) -> Result<String, Problem> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(field("name", "1 to 100 bytes without control characters."));
    }
    Ok(name)
}

pub(super) fn scopes(scopes: Option<Vec<String>>) -> Result<Vec<String>, Problem> {
    let all = || Scope::ALL.iter().map(|scope| scope.as_str().to_owned()).collect();
    let scopes: Vec<String> = scopes.unwrap_or_else(all);
    let of = |scope: &Scope| scopes.iter().any(|word| word == scope.as_str());
    let known: Vec<String> = Scope::ALL.iter().filter(|s| of(s)).map(|s| s.as_str().to_owned()).collect();
    if scopes.is_empty() || known.len() != scopes.len() {
        let words: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        return Err(field("scopes", format!("Some of {}.", words.join(", "))));
    }
    Ok(known)
}

pub(super) fn expiry(
    at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, Problem> {
    if at.is_some_and(|at| at <= now) {
        return Err(field("expires_at", "A moment to come."));
    }
    Ok(at)
}

/// What came of making a key, as an answer.
pub(super) fn made(made: Made, new: &NewKey) -> Result<Created<KeyView>, Problem> {
    match made {
        Made::Yes => Ok(with_secret(new)),
        Made::NotFound => Err(Problem::not_found()),
        Made::Full => Err(Problem::new(
            Code::LimitReached,
            format!("There are {KEYS_MAX} keys that are neither revoked nor expired: revoke one of them."),
        )),
    }
}

/// `?limit=&starting_after=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Most keys of the page.
    #[schemars(range(min = 1, max = LIMITS.1), extend("default" = LIMITS.0))]
    pub(super) limit: Option<u16>,
    /// Keys older than this one.
    pub(super) starting_after: Option<KeyId>,
}

/// A page of somebody's keys.
pub(super) async fn page(
    state: &State,
    whose: Whose,
    ListQuery { limit, starting_after }: ListQuery,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let limit = limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(field("limit", "limit: 1 to 100."));
    }
    let (keys, has_more) = state.store.keys(KeyPage { whose, limit, starting_after }).await?;
    Ok(Json(ListView { object: "list", data: keys.iter().map(view).collect(), has_more }))
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    /// How long the former key opens on, in seconds; absent: a day.
    #[schemars(range(max = OVERLAP_S.1), extend("default" = OVERLAP_S.0))]
    overlap_s: Option<u32>,
    /// A form's, that makes one key however often it is sent.
    #[serde(skip)]
    id: Option<KeyId>,
}

impl RotateBody {
    /// As where nothing is said, under an id that a form brings.
    pub(super) fn under(id: Option<KeyId>) -> Self {
        Self { overlap_s: None, id }
    }

    /// The key that follows `old`, with all that it may do, and the rotation that makes it.
    pub(super) fn rotation(
        &self,
        state: &State,
        whose: Whose,
        old: Key,
    ) -> Result<(NewKey, Rotation), Problem> {
        let overlap_s = self.overlap_s.unwrap_or(OVERLAP_S.0);
        if overlap_s > OVERLAP_S.1 {
            return Err(field("overlap_s", "0 to 604800."));
        }
        let now = state.clock.now();
        let wanted = Wanted {
            kind: KeyKind::of(&old),
            org: old.org,
            name: old.name,
            scopes: old.scopes,
            expires_at: old.expires_at,
            rotated_from: Some(old.id.clone()),
        };
        let mut new = keys::make(wanted, now, &state.chance);
        new.key.id = self.id.clone().unwrap_or(new.key.id);
        let until = now + Duration::seconds(overlap_s.into());
        let rotation = Rotation { id: old.id, whose, until, new: new.key.clone() };
        Ok((new, rotation))
    }
}

/// A key as asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewApiKey")]
pub(super) struct NewKeyBody {
    /// Without control characters.
    #[schemars(length(min = 1, max = NAME_MAX), example = "on-call pager")]
    name: String,
    /// Absent: those of the key that asks.
    #[schemars(with = "Option<Vec<Scope>>", extend("minItems" = 1, "uniqueItems" = true))]
    scopes: Option<Vec<String>>,
    /// Whether it is a live key; absent: as the key that asks.
    livemode: Option<bool>,
    /// Absent: as the key that asks.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    expires_at: Option<OffsetDateTime>,
}

/// Whether `customer` may hold a key that can do this.
fn within(
    customer: &Customer,
    mode: Mode,
    scopes: &[String],
    expires_at: Option<OffsetDateTime>,
) -> Result<(), Problem> {
    let refused = |text: String| Err(Problem::new(Code::Forbidden, text));
    if mode == Mode::Live && customer.mode == Mode::Test {
        return refused("A test key makes, rotates and revokes test keys only.".to_owned());
    }
    if let Some(scope) = scopes.iter().find(|scope| !customer.scopes.contains(scope)) {
        return refused(format!("The key lacks the scope {scope} itself."));
    }
    if let Some(own) = customer.expires_at
        && expires_at.is_none_or(|at| at > own)
    {
        return refused("The key ends before that itself.".to_owned());
    }
    Ok(())
}

/// Limits of a key would be none if it made itself further ones.
fn has_no_limits(customer: &Customer, state: &State) -> Result<(), Problem> {
    let limits = customer.actor.key.as_ref().map(|key| state.rules.key_limits(key)).unwrap_or_default();
    if limits == KeyLimits::default() {
        return Ok(());
    }
    Err(Problem::new(
        Code::Forbidden,
        "An operator has set limits for this key: it makes and rotates no keys.",
    ))
}

pub(super) async fn create(
    customer: Customer,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<NewKeyBody>,
) -> Result<Created<KeyView>, Problem> {
    has_no_limits(&customer, &state)?;
    let now = state.clock.now();
    let name = name(body.name)?;
    let scopes = match body.scopes {
        Some(wanted) => scopes(Some(wanted))?,
        None => customer.scopes.clone(),
    };
    let expires_at = expiry(body.expires_at, now)?.or(customer.expires_at);
    let mode = match body.livemode {
        Some(true) => Mode::Live,
        Some(false) => Mode::Test,
        None => customer.mode,
    };
    within(&customer, mode, &scopes, expires_at)?;
    let kind = KeyKind::Customer(mode);
    let org = Some(customer.org.clone());
    let new =
        keys::make(Wanted { kind, org, name, scopes, expires_at, rotated_from: None }, now, &state.chance);
    let audit_id = state.chance.audit_id(now);
    made(state.store.create_key(new.key.clone(), customer.actor, audit_id).await?, &new)
}

pub(super) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let Query(query) = query?;
    page(&state, Whose::Org(customer.org), query).await
}

async fn find(state: &State, org: &OrgId, id: &KeyId) -> Result<Key, Problem> {
    state.store.key(&Whose::Org(org.clone()), id).await?.ok_or_else(Problem::not_found)
}

pub(super) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Json<KeyView>, Problem> {
    let Path(id) = id?;
    Ok(Json(view(&find(&state, &customer.org, &id).await?)))
}

pub(super) async fn rotate(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<RotateBody>,
) -> Result<Created<KeyView>, Problem> {
    let Path(id) = id?;
    has_no_limits(&customer, &state)?;
    let old = find(&state, &customer.org, &id).await?;
    within(&customer, old.mode, &old.scopes, old.expires_at)?;
    let (new, rotation) = body.rotation(&state, Whose::Org(customer.org), old)?;
    let audit_id = state.chance.audit_id(new.key.created_at);
    made(state.rules.rotate_key(rotation, customer.actor, audit_id).await?, &new)
}

pub(super) async fn revoke(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Json<RevokedView>, Problem> {
    let Path(id) = id?;
    // A key of any scope may be ended: a leak is more urgent than who may do what.
    let key = find(&state, &customer.org, &id).await?;
    within(&customer, key.mode, &[], customer.expires_at)?;
    ended(&state, &Whose::Org(customer.org), &id, customer.actor).await
}

/// Revokes a key, and ends its event streams.
pub(super) async fn ended(
    state: &State,
    whose: &Whose,
    id: &KeyId,
    actor: Actor,
) -> Result<Json<RevokedView>, Problem> {
    let now = state.clock.now();
    if !state.store.revoke_key(whose, id, now, actor, state.chance.audit_id(now)).await? {
        return Err(Problem::not_found());
    }
    state.webhooks.streams.keys_changed();
    Ok(Json(RevokedView { id: id.clone(), object: "key", revoked_at: now }))
}
