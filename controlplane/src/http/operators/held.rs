//! What is held since a backup was restored, and the word to go on.

use axum::{Json, extract::State as AxumState};
use controlplane_store::restoring::{HeldWork, Release};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{
    State,
    auth::Operator,
    body::JsonBody,
    problem::{Code, Problem},
};

/// Most ids of one request.
const IDS_MAX: usize = 1_000;

/// What to let go on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Asked {
    /// Which calls and incidents; absent, all.
    ids: Option<Vec<String>>,
}

/// `GET /admin/v1/held`
pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let held: Vec<HeldWork> = state.store.held().await?;
    Ok(Json(json!({"data": held})))
}

/// `POST /admin/v1/held/release`
pub(in crate::http) async fn release(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: asked, .. }: JsonBody<Asked>,
) -> Result<Json<Value>, Problem> {
    if asked.ids.as_ref().is_some_and(|ids| ids.len() > IDS_MAX) {
        let detail = format!("At most {IDS_MAX} ids at a time; without `ids` all are released.");
        return Err(Problem::new(Code::InvalidField, detail).param("ids"));
    }
    let at = state.clock.now();
    let audit_id = state.chance.audit_id(at);
    let release = Release { ids: asked.ids, at, actor: operator.actor, audit_id };
    let released = state.store.release(release).await?;
    state.calls.read_held().await?;
    Ok(Json(json!({"released": released})))
}
