//! The fleet's bans and allowances: listed, looked up, added and removed.

use askama::Template;
use axum::{
    Form, Json,
    extract::{
        Query, State as AxumState,
        rejection::{FormRejection, QueryRejection},
    },
    response::Redirect,
};
use controlplane_store::bans::{Entry, EntryPage, ListKind};
use serde::Deserialize;

use super::{
    confirm::{Confirm, Consequence},
    page::{Page, Part, Shell, may_act},
    session::{Visitor, unreadable},
};
use crate::http::{
    State,
    body::JsonBody,
    operators::bans::{self, AddBody, RemoveBody, WhyQuery},
    problem::{Code, Problem},
};

/// Entries of each list.
const LIMIT: u16 = 50;

/// What holds for an address.
struct Verdict {
    word: String,
    by: Option<String>,
}

struct List {
    word: &'static str,
    title: &'static str,
    entries: Vec<Entry>,
    next: Option<i64>,
}

#[derive(Template)]
#[template(path = "bans.html")]
struct BansPage {
    shell: Shell,
    address: String,
    verdict: Option<Verdict>,
    origin: String,
    lists: Vec<List>,
    can_act: bool,
}

/// `?address=&origin=&bans_after=&allows_after=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct BansQuery {
    address: Option<String>,
    origin: Option<String>,
    bans_after: Option<i64>,
    allows_after: Option<i64>,
}

async fn verdict(state: &State, visitor: &Visitor, address: &str) -> Result<Option<Verdict>, Problem> {
    if address.is_empty() {
        return Ok(None);
    }
    let wrong =
        |_| Problem::new(Code::InvalidField, "An address as 192.0.2.7 or 2001:db8::7.").param("address");
    let query = WhyQuery { address: address.parse().map_err(wrong)? };
    let operator = visitor.operator.clone();
    let Json(why) = bans::why(operator, AxumState(state.clone()), Ok(Query(query))).await?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let by = |protected: &serde_json::Value| {
        let (net, group) = (text(&protected["net"])?, text(&protected["group"])?);
        Some(format!("{net} of {group} protects it"))
    };
    let entry =
        |list: &str| text(&why[list][0]["net"]).map(|net| format!("by {net}, {}", why[list][0]["reason"]));
    let by = by(&why["protected_by"]).or_else(|| entry("allows")).or_else(|| entry("bans"));
    Ok(Some(Verdict { word: text(&why["verdict"]).unwrap_or_default(), by }))
}

async fn list(
    state: &State,
    kind: ListKind,
    title: &'static str,
    origin: &str,
    before: Option<i64>,
) -> Result<List, Problem> {
    let origin = Some(origin.to_owned()).filter(|origin| !origin.is_empty());
    let page = EntryPage { origin, source: None, before, limit: LIMIT + 1 };
    let mut entries = state.store.entries(kind, page, state.clock.now()).await?;
    let has_more = entries.len() > usize::from(LIMIT);
    entries.truncate(LIMIT.into());
    let next = entries.last().filter(|_| has_more).map(|entry| entry.revision);
    Ok(List { word: kind.as_str(), title, entries, next })
}

/// `GET /bans`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<BansQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(query) = query?;
    let origin = query.origin.unwrap_or_default();
    if origin.contains('\0') {
        return Err(Problem::new(Code::InvalidField, "It must not contain NUL.").param("origin"));
    }
    let address = query.address.map(|address| address.trim().to_owned()).unwrap_or_default();
    let verdict = verdict(&state, &visitor, &address).await?;
    let banned = list(&state, ListKind::Ban, "Banned", &origin, query.bans_after).await?;
    let allowed = list(&state, ListKind::Allow, "Never banned", &origin, query.allows_after).await?;
    let shell = Shell::of(&visitor, Part::Bans, "Bans");
    Page::of(&BansPage {
        shell,
        address,
        verdict,
        origin,
        lists: vec![banned, allowed],
        can_act: may_act(&visitor),
    })
}

/// `?net=&hours=`, and what a confirmation sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Order {
    net: String,
    hours: Option<String>,
    reason: Option<String>,
}

impl Order {
    fn seconds(&self) -> Result<Option<u32>, Problem> {
        let wrong = || Problem::new(Code::InvalidField, "Whole hours, at least 1.").param("hours");
        let Some(text) = self.hours.as_deref().map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let hours: u32 = text.parse().map_err(|_| wrong())?;
        hours.checked_mul(3_600).filter(|seconds| *seconds > 0).map(Some).ok_or_else(wrong)
    }

    fn reason(&self) -> Option<String> {
        self.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()).map(str::to_owned)
    }

    fn add(&self) -> Result<JsonBody<AddBody>, Problem> {
        let (net, reason, seconds) = (self.net.trim().to_owned(), self.reason(), self.seconds()?);
        Ok(JsonBody { value: AddBody { net, reason, seconds }, bytes: axum::body::Bytes::new() })
    }

    fn remove(&self) -> JsonBody<RemoveBody> {
        let value = RemoveBody { net: self.net.trim().to_owned(), reason: self.reason() };
        JsonBody { value, bytes: axum::body::Bytes::new() }
    }
}

async fn confirm(
    state: &State,
    visitor: &Visitor,
    query: Result<Query<Order>, QueryRejection>,
    kind: ListKind,
    adds: bool,
) -> Result<Page, Problem> {
    let Query(order) = query?;
    let net = bans::net(order.net.trim())?;
    let seconds = order.seconds()?;
    let (verb, question, what) = match (kind, adds) {
        (ListKind::Ban, true) => (
            "Ban",
            format!("Ban {net}?"),
            "Every node drops what comes from there, within a second or two, unless it protects the address.",
        ),
        (ListKind::Ban, false) => (
            "Remove the ban",
            format!("Remove the ban of {net}?"),
            "Every node lets in again what comes from there, until it offends anew.",
        ),
        (ListKind::Allow, true) => (
            "Allow",
            format!("Never ban {net}?"),
            "No node bans it any more, whatever it does, and bans of it are lifted.",
        ),
        (ListKind::Allow, false) => {
            ("Remove", format!("Allow {net} no more?"), "From then on nodes may ban it.")
        }
    };
    let shell = Shell::of(visitor, Part::Bans, question.clone());
    let mut page = Confirm::new(shell, question, verb, "/bans".to_owned());
    page.is_dangerous = (kind == ListKind::Ban) == adds;
    page.consequences = vec![Consequence::new(what)];
    if adds {
        page.consequences.push(Consequence::new(match seconds {
            Some(seconds) => format!("It ends by itself after {} hours.", seconds / 3_600),
            None => "It lasts until it is removed.".to_owned(),
        }));
    }
    let address = net.addr().to_string();
    if let Some(Verdict { word, by }) = verdict(state, visitor, &address).await? {
        let by = by.map(|by| format!(": {by}")).unwrap_or_default();
        page.consequences.push(Consequence::new(format!("Now {address} is {word}{by}.")));
    }
    page.hidden = vec![("net", net.to_string())];
    page.hidden.extend(order.hours.filter(|_| adds).map(|hours| ("hours", hours)));
    let word = if adds { "add" } else { "remove" };
    page.command = Some(format!("ringward {} {word} {net}", kind.as_str()));
    page.page()
}

macro_rules! orders {
    ($(#[$doc:meta] $ask:ident, $act:ident, $kind:expr, $adds:literal, $order:ident => $done:expr;)+) => {$(
        pub(in crate::http) async fn $ask(
            visitor: Visitor,
            AxumState(state): AxumState<State>,
            query: Result<Query<Order>, QueryRejection>,
        ) -> Result<Page, Problem> {
            confirm(&state, &visitor, query, $kind, $adds).await
        }

        #[$doc]
        pub(in crate::http) async fn $act(
            visitor: Visitor,
            state: AxumState<State>,
            form: Result<Form<Order>, FormRejection>,
        ) -> Result<Redirect, Problem> {
            let Form($order) = form.map_err(unreadable)?;
            let done = $done;
            done(visitor.operator, state, $order).await?;
            Ok(Redirect::to("/bans"))
        }
    )+};
}

orders! {
    /// `POST /bans/add`
    confirm_ban, ban, ListKind::Ban, true, order => async |operator, state, order: Order| {
        bans::ban(operator, state, order.add()?).await.map(drop)
    };
    /// `POST /bans/remove`
    confirm_unban, unban, ListKind::Ban, false, order => async |operator, state, order: Order| {
        bans::unban(operator, state, order.remove()).await.map(drop)
    };
    /// `POST /allows/add`
    confirm_allow, allow, ListKind::Allow, true, order => async |operator, state, order: Order| {
        bans::allow(operator, state, order.add()?).await.map(drop)
    };
    /// `POST /allows/remove`
    confirm_disallow, disallow, ListKind::Allow, false, order => async |operator, state, order: Order| {
        bans::disallow(operator, state, order.remove()).await.map(drop)
    };
}
