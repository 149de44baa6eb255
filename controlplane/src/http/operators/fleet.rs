//! The declared fleet: shown, and replaced by `ringward apply`.

use axum::{
    Json,
    extract::{Query, Request, State as AxumState, rejection::QueryRejection},
};
use controlplane_core::fleet::{Change, Fleet};
use controlplane_store::fleet::{Applied, ApplyFleet};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{
    State,
    auth::Operator,
    body,
    problem::{Code, Problem},
};

/// Largest fleet.toml, in bytes: 20,000 trunks take 2.5 MB, and some people comment.
const FLEET_MAX: usize = 16 * 1024 * 1024;

pub(in crate::http) async fn show(_: Operator, AxumState(state): AxumState<State>) -> Json<Value> {
    let (fleet, revision) = state.registry.fleet();
    Json(json!({"object": "fleet", "revision": revision, "fleet": &*fleet}))
}

/// `?expected_revision=&prune=&dry_run=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ApplyQuery {
    /// The revision that the operator looked at; absent: whatever is in force.
    expected_revision: Option<i64>,
    /// Remove what the file lacks.
    #[serde(default)]
    prune: bool,
    /// Only tell what would change.
    #[serde(default)]
    dry_run: bool,
}

/// The body is fleet.toml's text.
pub(in crate::http) async fn apply(
    operator: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query?;
    let text = body::read_up_to(request, FLEET_MAX, "At most 16 MiB.").await?;
    let text =
        std::str::from_utf8(&text).map_err(|_| Problem::new(Code::Malformed, "The file is not UTF-8."))?;
    let wanted = Fleet::parse(text).map_err(|error| invalid(&error))?;
    let (current, revision) = state.registry.fleet();
    if let Some(expected) = query.expected_revision
        && expected != revision
    {
        return Err(stale(revision));
    }
    let lacking: Vec<Change> =
        Fleet::diff(&current, &wanted).into_iter().filter(Change::is_removal).collect();
    let wanted = if query.prune { wanted } else { Fleet::merge_without_prune(&current, &wanted) };
    wanted.check().map_err(|error| invalid(&error))?;
    let changes = Fleet::diff(&current, &wanted);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let kept: Vec<String> =
        if query.prune { Vec::new() } else { lacking.iter().map(ToString::to_string).collect() };
    let answer = |revision: i64, applied: bool| {
        Json(
            json!({"object": "fleet_apply", "revision": revision, "applied": applied, "changes": lines, "kept": kept}),
        )
    };
    if query.dry_run || changes.is_empty() {
        return Ok(answer(revision, false));
    }
    let now = state.clock.now();
    let document = serde_json::to_value(&wanted)
        .map_err(|error| Problem::new(Code::Internal, format!("The fleet cannot be stored: {error}.")))?;
    let apply = ApplyFleet {
        expected_revision: revision,
        document,
        at: now,
        actor: operator.actor,
        audit_id: state.chance.audit_id(now),
        changes: json!(lines),
    };
    // In a task of its own: an asker who leaves must not part what the database took from what is in force.
    let count = lines.len();
    let whole = tokio::spawn(async move { put(&state, apply, wanted, count).await });
    match whole
        .await
        .map_err(|_| Problem::new(Code::Internal, "The log tells more; look at what is in force."))??
    {
        Applied::Revision(revision) => Ok(answer(revision, true)),
        Applied::Stale(revision) => Err(stale(revision)),
    }
}

/// Stores a fleet and puts it in force; where the database has another one by now, that one.
async fn put(state: &State, apply: ApplyFleet, wanted: Fleet, changes: usize) -> Result<Applied, Problem> {
    let applied = state.store.apply_fleet(apply).await?;
    match applied {
        Applied::Revision(revision) => {
            state.nodes.put_in_force(wanted, revision);
            state.store.nudge().await;
            tracing::info!(revision, changes, "a fleet was applied");
        }
        Applied::Stale(revision) => {
            if let Err(error) = state.nodes.take_up(&*state.store).await {
                tracing::error!(revision, %error, "the stored fleet could not be taken up");
            }
        }
    }
    Ok(applied)
}

fn invalid(error: &controlplane_core::fleet::FleetError) -> Problem {
    Problem::new(Code::InvalidFleet, error.to_string()).with("problems", json!(error.problems))
}

fn stale(revision: i64) -> Problem {
    Problem::new(
        Code::StaleRevision,
        format!("Somebody applied revision {revision} in between. Look at `ringward diff -f FILE` again, then apply."),
    )
    .with("revision", revision.into())
}
