//! `POST /admin/v1/erasures`: one number's calls become nobody's.

use axum::{Json, extract::State as AxumState};
use controlplane_core::{ids::OrgId, number::E164};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{State, auth::Operator, body::JsonBody, problem::Problem};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ErasureBody {
    number: E164,
    /// Only this organisation's calls.
    org: Option<OrgId>,
}

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<ErasureBody>,
) -> Result<Json<Value>, Problem> {
    let erased = state.privacy.forget(body.org, &body.number, operator.actor).await?;
    Ok(Json(json!({
        "object": "erasure", "reference": erased.reference, "calls": erased.calls, "open_calls": erased.open,
    })))
}
