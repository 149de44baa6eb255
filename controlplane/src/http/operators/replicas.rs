//! The control planes that share this one's database.

use axum::{Json, extract::State as AxumState};
use controlplane_store::replicas::Replica;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    http::{State, auth::Operator, problem::Problem},
    replicas::LEASE,
};

/// How long ago its last sign of life was written, in milliseconds; of one that was stopped in order, up to a lease more.
pub(in crate::http) fn sign_age_ms(replica: &Replica) -> i64 {
    i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX).saturating_sub(replica.lease_left_ms).max(0)
}

/// `GET /admin/v1/replicas`
pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let membership = &state.calls.membership;
    let shown = |replica: &Replica| {
        json!({
            "object": "replica",
            "id": replica.id,
            "name": replica.name,
            "is_this": Some(&replica.id) == membership.me(),
            "started_at": replica.started_at.format(&Rfc3339).unwrap_or_default(),
            "alive": replica.is_living,
            "leads": replica.leads,
            "sign_age_ms": sign_age_ms(replica),
            "calls": replica.calls,
        })
    };
    let all = membership.all().await?;
    let data: Vec<Value> = all.iter().map(shown).collect();
    Ok(Json(json!({"enabled": membership.me().is_some(), "lease_ms": LEASE.as_millis(), "data": data})))
}
