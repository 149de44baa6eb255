//! Exports: the whole log, or what a filter lets pass, streamed page by page; memory is bounded by a page.
//!
//! NDJSON without a filter can be proved elsewhere: it has the rows in the chain's order, checkpoints for what is erased
//! or out of sight, and a last line. Rows that are not sealed yet, of the last second, are not in it.

use axum::{
    body::{Body, Bytes},
    extract::{Query, State as AxumState, rejection::QueryRejection},
    http::{HeaderValue, Response, header},
};
use controlplane_core::audit::{Checkpoint, Line};
use controlplane_store::{
    StoreError,
    audit::{AuditFilter, AuditRow},
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::AuditQuery;
use crate::{
    calls::chain,
    http::{
        State,
        auth::Operator,
        operators::moment,
        problem::{Code, Problem},
    },
};

/// Rows that are read at once.
const PAGE: u16 = 500;
/// Places of hidden rows that are read at once.
const RUNS_PAGE: u16 = 10_000;
/// The columns of a CSV.
const COLUMNS: [&str; 19] = [
    "seq",
    "id",
    "occurred_at",
    "org",
    "actor_type",
    "actor_id",
    "key_prefix",
    "auth_method",
    "action",
    "target_type",
    "target_id",
    "outcome",
    "reason",
    "ip",
    "user_agent",
    "request_id",
    "changes",
    "prev_hash",
    "hash",
];

/// What an export is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Format {
    /// A line of JSON for each row.
    #[default]
    Ndjson,
    /// RFC 4180, with cells that no spreadsheet takes for a formula.
    Csv,
}

enum Phase {
    Begin,
    Rows { after_seq: i64 },
    End,
    Done,
}

pub(super) struct Export {
    state: State,
    filter: AuditFilter,
    is_filtered: bool,
    format: Format,
    phase: Phase,
    rows: u64,
    _place: OwnedSemaphorePermit,
}

/// `GET /admin/v1/audit/export?format=ndjson|csv`, with the filters of the list.
pub(in crate::http) async fn export(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let Query(query) = query?;
    if query.limit.is_some() || query.starting_after.is_some() {
        return Err(Problem::new(Code::InvalidField, "An export has neither limit nor starting_after."));
    }
    let format = query.format.unwrap_or_default();
    let export = Export::begun(state, &query)?;
    let body = Body::from_stream(stream::unfold(export, async |mut export| {
        match export.next().await {
            Ok(Some(text)) => Some((Ok(Bytes::from(text)), export)),
            Ok(None) => None,
            Err(error) => {
                tracing::error!(error = %chain(&error), "an export of the audit log broke off");
                export.phase = Phase::Done;
                // The connection is cut: nobody takes the half of it for the whole.
                Some((Err(error), export))
            }
        }
    }));
    let mut response = Response::new(body);
    let media = match format {
        Format::Ndjson => "application/x-ndjson",
        Format::Csv => "text/csv; charset=utf-8; header=present",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

impl Export {
    /// One that has its place among those that may be under way, and has told nothing yet.
    pub(super) fn begun(state: State, query: &AuditQuery) -> Result<Self, Problem> {
        let place = std::sync::Arc::clone(&state.audit.exports).try_acquire_owned();
        let place = place.map_err(|_| {
            Problem::new(Code::TooManyStreams, "As many exports as may be are under way: ask again later.")
        })?;
        Ok(Self {
            filter: query.filter(&state)?,
            is_filtered: query.is_filtered(),
            state,
            format: query.format.unwrap_or_default(),
            phase: Phase::Begin,
            rows: 0,
            _place: place,
        })
    }

    /// The next part; never an empty one.
    pub(super) async fn next(&mut self) -> Result<Option<String>, StoreError> {
        let mut text = String::new();
        while text.is_empty() {
            match self.phase {
                Phase::Begin => {
                    self.begin(&mut text).await?;
                    self.phase = Phase::Rows { after_seq: 0 };
                }
                Phase::Rows { after_seq } => {
                    let rows = self.state.store.audit_chain(&self.filter, after_seq, PAGE).await?;
                    let last = rows.last().and_then(|row| row.link).map(|link| link.seq);
                    for row in &rows {
                        self.row(row, &mut text);
                    }
                    self.phase = match last {
                        Some(after_seq) if rows.len() == usize::from(PAGE) => Phase::Rows { after_seq },
                        Some(_) | None => Phase::End,
                    };
                }
                Phase::End => {
                    self.phase = Phase::Done;
                    if self.format == Format::Ndjson {
                        // Again: what was erased while rows were read is told.
                        self.checkpoints(&mut text).await?;
                        push(&mut text, &Line::AuditEnd { rows: self.rows });
                    }
                }
                Phase::Done => return Ok(None),
            }
        }
        Ok(Some(text))
    }

    async fn begin(&self, text: &mut String) -> Result<(), StoreError> {
        if self.format == Format::Csv {
            *text = csv(COLUMNS.map(str::to_owned));
            return Ok(());
        }
        let after = self.filter.after.unwrap_or_else(|| self.state.audit.horizon());
        let after_us = i64::try_from(after.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        push(text, &Line::AuditExport { filtered: self.is_filtered, after_us });
        self.checkpoints(text).await?;
        if self.is_filtered {
            return Ok(());
        }
        // What is out of sight and not yet erased.
        let (mut hidden, mut after_seq): (Vec<Checkpoint>, i64) = (Vec::new(), 0);
        loop {
            let runs = self.state.store.audit_runs(after, after_seq, RUNS_PAGE).await?;
            let Some(last) = runs.last() else { break };
            after_seq = last.to_seq;
            for run in runs {
                let (joined, replaced) = run.joined(&hidden);
                hidden.retain(|old| !replaced.contains(&old.from_seq));
                hidden.push(joined);
            }
        }
        for run in hidden {
            push(text, &Line::AuditCheckpoint(self.state.audit.sign(run)));
        }
        Ok(())
    }

    async fn checkpoints(&self, text: &mut String) -> Result<(), StoreError> {
        for checkpoint in self.state.store.audit_checkpoints().await? {
            push(text, &Line::AuditCheckpoint(checkpoint));
        }
        Ok(())
    }

    fn row(&mut self, row: &AuditRow, text: &mut String) {
        let Some(link) = row.link else { return };
        self.rows += 1;
        match self.format {
            Format::Ndjson => push(text, &Line::AuditRow { link, record: Box::new(row.record.clone()) }),
            Format::Csv => {
                let r = row.record.clone();
                let some = Option::unwrap_or_default;
                text.push_str(&csv([
                    link.seq.to_string(),
                    r.id,
                    some(moment(row.occurred_at)),
                    some(r.org),
                    r.actor_type,
                    some(r.actor_id),
                    some(r.key_prefix),
                    some(r.auth_method),
                    r.action,
                    r.target_type,
                    r.target_id,
                    r.outcome,
                    some(r.reason),
                    some(r.ip),
                    some(r.user_agent),
                    some(r.request_id),
                    r.changes.to_string(),
                    link.prev_hash.to_string(),
                    link.hash.to_string(),
                ]));
            }
        }
    }
}

fn push(text: &mut String, line: &Line) {
    match serde_json::to_string(line) {
        Ok(line) => {
            text.push_str(&line);
            text.push('\n');
        }
        Err(error) => tracing::error!(%error, "a line of an export cannot be written"),
    }
}

/// A record of RFC 4180. A cell that a spreadsheet would take for a formula begins with an apostrophe.
fn csv<const N: usize>(cells: [String; N]) -> String {
    let cell = |cell: &String| {
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
        format!("\"{}{}\"", if is_formula { "'" } else { "" }, cell.replace('"', "\"\""))
    };
    cells.iter().map(cell).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula() {
        let cells = ["=HYPERLINK(\"x\")", "+1", "-1", "@a", "\tx", "a,b", "é\n"].map(str::to_owned);
        assert_eq!(
            csv(cells),
            "\"'=HYPERLINK(\"\"x\"\")\",\"'+1\",\"'-1\",\"'@a\",\"'\tx\",\"a,b\",\"é\n\"\r\n"
        );
    }
}
