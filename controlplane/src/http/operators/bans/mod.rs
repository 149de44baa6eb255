//! Operators on the fleet's bans and allowances: listed, added, removed, and why an address is or is not banned.

pub(in crate::http) mod lists;

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State as AxumState, rejection::QueryRejection},
    http::StatusCode,
};
use controlplane_store::bans::{Entry, EntryPage, KeptRefusal, ListKind, NewEntry, Put};
use ipnet::IpNet;
use node_agent_core::{bans::counted, protected::canonical};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment;
use crate::{
    agents::{CONTROL_PLANE, Order},
    http::{
        State,
        auth::Operator,
        body::JsonBody,
        problem::{Code, Problem},
        shape::ListView,
    },
};

/// Entries of a page where none is asked, and the most.
const LIMITS: (u16, u16) = (20, 100);
/// Longest reason and longest source, in bytes.
const TEXT_MAX: usize = 256;
/// Refusals that are shown of one answer.
const REFUSALS_SHOWN: u16 = 500;
/// The widest networks that may be allowed, as in fleet.toml: what is allowed passes before every ban.
const ALLOWED_WIDEST: (u8, u8) = (8, 16);

fn view(entry: &Entry, refusals: &[KeptRefusal]) -> Value {
    let Entry { kind, entry: of, created_at, revision, .. } = entry;
    let mut shown = json!({
        "object": kind.as_str(), "net": of.net, "origin": of.origin, "author": of.author, "reason": of.reason,
        "source": of.source, "created_at": moment(*created_at), "expires_at": of.expires_at.and_then(moment),
        "revision": revision,
    });
    if *kind == ListKind::Ban {
        shown["jail"] = of.jail.as_deref().into();
        shown["evidence"] = of.evidence.as_deref().into();
        let by = refusals.iter().filter(|refusal| refusal.net == of.net);
        shown["refused_by"] =
            by.map(|refusal| json!({"node": refusal.node, "reason": refusal.reason})).collect();
    }
    shown
}

/// A text of an operator.
fn text(param: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control) => {
            let rule = "1 to 256 bytes without control characters.";
            Err(Problem::new(Code::InvalidField, rule).param(param))
        }
        text => Ok(text),
    }
}

/// An address, or a network as in 192.0.2.0/24.
pub(in crate::http) fn net(text: &str) -> Result<IpNet, Problem> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let rule = "An address, or a network as in 192.0.2.0/24 or 2001:db8::/48.";
    net.map_err(|_| Problem::new(Code::InvalidField, rule).param("net"))
}

impl Operator {
    fn order(&self, state: &State) -> Order {
        Order { actor: self.actor.clone(), at: state.clock.now() }
    }

    fn entry(&self, net: IpNet, reason: Option<String>, seconds: Option<u32>, order: &Order) -> NewEntry {
        let key = self.actor.key.as_ref().map_or("unknown", |key| key.as_str());
        NewEntry {
            net,
            origin: CONTROL_PLANE.to_owned(),
            author: format!("operator {key}"),
            reason: reason.unwrap_or_default(),
            jail: None,
            evidence: None,
            source: None,
            expires_at: seconds.map(|seconds| order.at + time::Duration::seconds(i64::from(seconds))),
        }
    }
}

/// `?limit=&starting_after=&origin=&source=`; `starting_after`: a revision.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    limit: Option<u16>,
    starting_after: Option<i64>,
    origin: Option<String>,
    source: Option<String>,
}

async fn list(
    state: &State,
    kind: ListKind,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<Value>>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    let (origin, source) = (query.origin, query.source);
    let page = EntryPage { origin, source, before: query.starting_after, limit: limit + 1 };
    let mut entries = state.store.entries(kind, page, state.clock.now()).await?;
    let has_more = entries.len() > usize::from(limit);
    entries.truncate(usize::from(limit));
    let nets: Vec<IpNet> = entries.iter().map(|entry| entry.entry.net).collect();
    let refusals = match kind {
        ListKind::Ban => state.store.ban_refusals(Some(&nets), REFUSALS_SHOWN).await?,
        ListKind::Allow => Vec::new(),
    };
    let data = entries.iter().map(|entry| view(entry, &refusals)).collect();
    Ok(Json(ListView { object: "list", data, has_more }))
}

pub(in crate::http) async fn bans(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<Value>>, Problem> {
    list(&state, ListKind::Ban, query).await
}

pub(in crate::http) async fn allows(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<Value>>, Problem> {
    list(&state, ListKind::Allow, query).await
}

/// Body of an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AddBody {
    /// An address or a network.
    pub(in crate::http) net: String,
    /// Why, for the audit log and for whoever asks.
    #[serde(default)]
    pub(in crate::http) reason: Option<String>,
    /// For how long; absent: until it is removed.
    #[serde(default)]
    pub(in crate::http) seconds: Option<u32>,
}

async fn add(
    state: State,
    operator: Operator,
    kind: ListKind,
    net: IpNet,
    AddBody { reason, seconds, .. }: AddBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if seconds == Some(0) {
        return Err(Problem::new(Code::InvalidField, "At least 1.").param("seconds"));
    }
    let reason = text("reason", reason)?;
    let order = operator.order(&state);
    let entry = operator.entry(net, reason, seconds, &order);
    let bans = std::sync::Arc::clone(&state.agents.bans);
    // In a task of its own: an asker who leaves must not part what the database took from whom it is told.
    let put = tokio::spawn(async move { bans.put(kind, vec![entry], &order).await });
    match put.await.map_err(|_| Problem::new(Code::Internal, "The log tells more."))?? {
        Put::Full => Err(full(kind)),
        Put::Done { changed, lifted } => {
            tracing::warn!(%net, kind = kind.as_str(), changed, lifted, "an operator's order");
            let status = if changed > 0 { StatusCode::CREATED } else { StatusCode::OK };
            let mut answer =
                json!({"object": format!("{}_order", kind.as_str()), "net": net, "changed": changed > 0});
            if kind == ListKind::Allow {
                answer["bans_lifted"] = lifted.into();
            }
            Ok((status, Json(answer)))
        }
    }
}

fn full(kind: ListKind) -> Problem {
    let detail = format!("The fleet has {} of these at most. Remove some, or let them end.", kind.max());
    Problem::new(Code::LimitReached, detail)
}

pub(in crate::http) async fn ban(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<AddBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wanted = net(&body.net)?;
    let admitted = state.agents.bans.admit(&[wanted]).await?.pop();
    let admitted = admitted.unwrap_or(Ok(wanted)).map_err(|refusal| {
        state.agents.bans.metrics().refused(CONTROL_PLANE, 1);
        Problem::new(Code::BanRefused, format!("{refusal}.")).param("net")
    })?;
    add(state, operator, ListKind::Ban, admitted, body).await
}

pub(in crate::http) async fn allow(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<AddBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let wanted = canonical(net(&body.net)?);
    let widest = match wanted {
        IpNet::V4(_) => ALLOWED_WIDEST.0,
        IpNet::V6(_) => ALLOWED_WIDEST.1,
    };
    if wanted.prefix_len() < widest {
        let detail = format!("{wanted} is wider than /{widest}: what is allowed passes before every ban.");
        return Err(Problem::new(Code::BanRefused, detail).param("net"));
    }
    add(state, operator, ListKind::Allow, wanted, body).await
}

/// Body of a removal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RemoveBody {
    /// Exactly this entry.
    pub(in crate::http) net: String,
    /// Why, for the audit log.
    #[serde(default)]
    pub(in crate::http) reason: Option<String>,
}

async fn remove(
    state: State,
    operator: Operator,
    kind: ListKind,
    net: IpNet,
    reason: Option<String>,
) -> Result<Json<Value>, Problem> {
    let reason = text("reason", reason)?;
    let order = operator.order(&state);
    let bans = std::sync::Arc::clone(&state.agents.bans);
    let lifted = tokio::spawn(async move { bans.lift(kind, net, reason, &order).await });
    if !lifted.await.map_err(|_| Problem::new(Code::Internal, "The log tells more."))?? {
        let word = kind.as_str();
        return Err(Problem::new(
            Code::NotFound,
            format!(
                "The fleet has no {word} of exactly {net}: see `ringward {word} list` or `ringward ban why`."
            ),
        ));
    }
    tracing::warn!(%net, kind = kind.as_str(), "an operator removed it");
    Ok(Json(json!({"object": format!("{}_removal", kind.as_str()), "net": net})))
}

pub(in crate::http) async fn unban(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<RemoveBody>,
) -> Result<Json<Value>, Problem> {
    let net = counted(net(&body.net)?);
    remove(state, operator, ListKind::Ban, net, body.reason).await
}

pub(in crate::http) async fn disallow(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<RemoveBody>,
) -> Result<Json<Value>, Problem> {
    let net = canonical(net(&body.net)?);
    remove(state, operator, ListKind::Allow, net, body.reason).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct WhyQuery {
    pub(in crate::http) address: IpAddr,
}

/// Every network that holds this address.
fn around(address: IpAddr) -> Vec<IpNet> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (0..=longest).filter_map(|length| IpNet::new(address, length).ok()).map(|net| net.trunc()).collect()
}

pub(in crate::http) async fn why(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(WhyQuery { address }) = query?;
    let address = address.to_canonical();
    let nets = around(address);
    let entries = state.store.entries_of(&nets, state.clock.now()).await?;
    let refusals = state.store.ban_refusals(Some(&nets), REFUSALS_SHOWN).await?;
    let protected = state.agents.bans.protected();
    let protection = protected.of(address);
    let of = |kind: ListKind| -> Vec<Value> {
        entries.iter().filter(|entry| entry.kind == kind).map(|entry| view(entry, &refusals)).collect()
    };
    let (bans, allows) = (of(ListKind::Ban), of(ListKind::Allow));
    let verdict = match (&protection, allows.is_empty(), bans.is_empty()) {
        (Some(_), ..) => "protected",
        (None, false, _) => "allowed",
        (None, true, false) => "banned",
        (None, true, true) => "free",
    };
    Ok(Json(json!({
        "object": "ban_why", "address": address, "verdict": verdict, "bans": bans, "allows": allows,
        "protected_by": protection.map(|by| json!({"net": by.net, "group": by.group.as_str()})),
    })))
}
