//! Customers: organisations, their keys, what they may have and what they have used. Admins make, suspend and resume
//! them ([`orgs`]), make and end their keys ([`keys`]) and set their limits ([`limits`]), each after a question.

pub(in crate::http) mod destinations;
pub(in crate::http) mod keys;
pub(in crate::http) mod limits;
pub(in crate::http) mod orgs;

use std::sync::Arc;

use askama::Template;
use axum::extract::{
    Path, Query, State as AxumState,
    rejection::{PathRejection, QueryRejection},
};
use controlplane_core::{access::Role, ids::OrgId, limits::OrgLimits};
use controlplane_store::{
    guard::{DayUsage, InUse, day_of},
    keys::{Key, KeyPage, Whose},
    orgs::Org,
};
use serde::Deserialize;
use time::{Date, Duration, macros::date};

use super::{
    page::{Page, Part, Shell},
    session::Visitor,
};
use crate::http::{State, problem::Problem};

/// Organisations of a page, and keys that are shown of one.
const LIMIT: u16 = 100;
/// Days of usage that are shown.
const DAYS: i64 = 14;
/// What is counted begins here.
const EPOCH: Date = date!(1970 - 01 - 01);

#[derive(Template)]
#[template(path = "customers/list.html")]
struct CustomersPage {
    shell: Shell,
    orgs: Vec<Org>,
    next: Option<OrgId>,
    can_change: bool,
}

/// Customers are admins' to change, as at the operators' API.
fn may_change(visitor: &Visitor) -> bool {
    visitor.role >= Role::Admin
}

/// An organisation that there is.
async fn find(state: &State, id: Result<Path<OrgId>, PathRejection>) -> Result<Org, Problem> {
    let Path(id) = id?;
    state.store.org(&id).await?.ok_or_else(Problem::not_found)
}

/// `?after=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    after: Option<OrgId>,
}

/// `GET /customers`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(ListQuery { after }) = query?;
    let (orgs, has_more) = state.store.list_orgs(LIMIT, after.as_ref()).await?;
    let next = orgs.last().filter(|_| has_more).map(|org| org.id.clone());
    let shell = Shell::of(&visitor, Part::Customers, "Customers");
    Page::of(&CustomersPage { shell, orgs, next, can_change: may_change(&visitor) })
}

/// What was used on one day.
struct Used {
    day: String,
    calls: i64,
    attempts: i64,
    /// Begun minutes of talk.
    minutes: i64,
}

impl From<DayUsage> for Used {
    fn from(used: DayUsage) -> Self {
        let day = EPOCH.checked_add(Duration::days(used.day)).map(|day| day.to_string()).unwrap_or_default();
        let minutes = (used.talk_us.div_euclid(1_000_000) + 59) / 60;
        Self { day, calls: used.calls, attempts: used.attempts, minutes }
    }
}

#[derive(Template)]
#[template(path = "customers/one.html")]
struct CustomerPage {
    shell: Shell,
    org: Org,
    limits: Arc<OrgLimits>,
    /// Further bounds, by their names.
    bounds: [(&'static str, Option<u32>); 4],
    open_max: u32,
    in_use: InUse,
    channels: usize,
    keys: Vec<Key>,
    more_keys: bool,
    days: i64,
    usage: Vec<Used>,
    can_change: bool,
}

/// `GET /customers/{id}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Page, Problem> {
    let org = find(&state, id).await?;
    let id = org.id.clone();
    let today = day_of(state.clock.now());
    let page = KeyPage { whose: Whose::Org(id.clone()), limit: LIMIT, starting_after: None };
    let (keys, more_keys) = state.store.keys(page).await?;
    let usage = state.store.usage(&id, today - DAYS + 1, today).await?;
    let (limits, open) = (state.rules.limits(&id), state.rules.open_max(&id));
    Page::of(&CustomerPage {
        shell: Shell::of(&visitor, Part::Customers, format!("Customer {}", org.slug)),
        bounds: [
            ("Requests per second", limits.requests_per_s),
            ("Calls per second", limits.cps_max),
            ("Open calls to one number", Some(open.number)),
            ("Weight where trunks are full", limits.weight),
        ],
        open_max: open.org,
        in_use: state.store.in_use(&id, None, today).await?,
        channels: state.calls.gate.channels(&id),
        limits,
        keys,
        more_keys,
        days: DAYS,
        usage: usage.into_iter().rev().map(Used::from).collect(),
        can_change: may_change(&visitor),
        org,
    })
}
