//! Bans in bulk: plain text, one address or network a line, in and out.

use std::{fmt::Write, sync::Arc};

use axum::{
    Json,
    extract::{Query, Request, State as AxumState, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use controlplane_store::bans::{EntryPage, ListKind, NewEntry, Put};
use ipnet::IpNet;
use node_agent_core::bans::list::{COMPLAINTS_MAX, Complaint, Problem as Fault, line_of, net_of};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{full, text};
use crate::{
    agents::CONTROL_PLANE,
    http::{
        State,
        auth::Operator,
        body,
        problem::{Code, Problem},
    },
};

/// Largest list, in bytes: as many lines as the fleet has places for bans.
const LIST_MAX: usize = 4 * 1024 * 1024;
/// Entries that are read at once for an export.
const EXPORT_AT_ONCE: u16 = 10_000;

/// `?source=&reason=&seconds=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ImportQuery {
    /// What the list is called.
    source: String,
    reason: Option<String>,
    /// For how long; absent: until it is removed.
    seconds: Option<u32>,
}

/// The lines that hold a network, by line from 1, and those that hold none.
fn read(list: &str) -> (Vec<(usize, IpNet)>, Vec<Complaint>) {
    let (mut nets, mut complaints) = (Vec::new(), Vec::new());
    for (line, found) in (1..).zip(list.lines().map(net_of)) {
        match found {
            None => {}
            Some(Ok(net)) => nets.push((line, net)),
            Some(Err(problem)) => complaints.push(Complaint { line, problem }),
        }
    }
    (nets, complaints)
}

pub(in crate::http) async fn import(
    operator: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query?;
    if query.seconds == Some(0) {
        return Err(Problem::new(Code::InvalidField, "At least 1.").param("seconds"));
    }
    let (source, reason) = (text("source", Some(query.source))?, text("reason", query.reason)?);
    let list = body::read_up_to(request, LIST_MAX, "At most 4 MiB.").await?;
    let list =
        std::str::from_utf8(&list).map_err(|_| Problem::new(Code::Malformed, "The list is not UTF-8."))?;
    let (nets, mut complaints) = read(list);
    let order = operator.order(&state);
    let wanted: Vec<IpNet> = nets.iter().map(|(_, net)| *net).collect();
    let admitted = state.agents.bans.admit(&wanted).await?;
    let mut entries: Vec<NewEntry> = Vec::with_capacity(nets.len());
    for ((line, _), admitted) in nets.into_iter().zip(admitted) {
        match admitted {
            Ok(net) => {
                let entry = operator.entry(net, reason.clone(), query.seconds, &order);
                entries.push(NewEntry { source: source.clone(), ..entry });
            }
            Err(refusal) => complaints.push(Complaint { line, problem: Fault::Refused(refusal) }),
        }
    }
    complaints.sort_by_key(|complaint| complaint.line);
    let refused =
        complaints.iter().filter(|complaint| matches!(complaint.problem, Fault::Refused(_))).count();
    state.agents.bans.metrics().refused(CONTROL_PLANE, u64::try_from(refused).unwrap_or(u64::MAX));
    let taken = entries.len();
    let bans = Arc::clone(&state.agents.bans);
    let put = tokio::spawn(async move { bans.put(ListKind::Ban, entries, &order).await });
    match put.await.map_err(|_| Problem::new(Code::Internal, "The log tells more."))?? {
        Put::Full => Err(full(ListKind::Ban)),
        Put::Done { changed, .. } => {
            tracing::warn!(source, taken, changed, "an operator imported bans");
            let told: Vec<Value> = complaints
                .iter()
                .take(COMPLAINTS_MAX)
                .map(|complaint| json!({"line": complaint.line, "problem": complaint.problem.to_string()}))
                .collect();
            Ok(Json(json!({
                "object": "ban_import", "source": source, "taken": taken, "changed": changed,
                "not_taken": complaints.len(), "complaints": told,
            })))
        }
    }
}

/// `?origin=&source=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExportQuery {
    origin: Option<String>,
    source: Option<String>,
}

pub(in crate::http) async fn export(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ExportQuery { origin, source }) = query?;
    let now = state.clock.now();
    let mut page = EntryPage { origin, source, before: None, limit: EXPORT_AT_ONCE };
    let mut nets = Vec::new();
    loop {
        let entries = state.store.entries(ListKind::Ban, page.clone(), now).await?;
        page.before = entries.last().map(|entry| entry.revision);
        nets.extend(entries.iter().map(|entry| entry.entry.net));
        if entries.len() < usize::from(EXPORT_AT_ONCE) {
            break;
        }
    }
    nets.sort_unstable();
    nets.dedup();
    let list = nets.iter().fold(String::new(), |mut list, net| {
        // Writing to a String cannot fail.
        let _ = list.write_str(&line_of(net));
        list
    });
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], list).into_response())
}
