//! `/v1/hooks/alertmanager/{id}` and `/v1/hooks/json/{id}`: what hooks are told.

use std::sync::Arc;

use axum::extract::{Path, State as AxumState, rejection::PathRejection};
use controlplane_core::{
    ids::{HookId, IncidentId},
    oncall::{
        self, InvalidSignal, Signal,
        alertmanager::{Payload, signals},
        hook::HookKind,
    },
};
use controlplane_store::oncall::Hook;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    http::{
        State,
        answer::Accepted,
        auth::Customer,
        body::Told,
        problem::{Code, Problem},
    },
    oncall::{Heard, Receipt, TakeError},
};

/// What was made of what a hook was told.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookReceipt")]
pub(in crate::http) struct ReceiptView {
    #[schemars(extend("const" = "hook_receipt"))]
    object: &'static str,
    /// One for each group; none, where the hook wants none of the alerts.
    incidents: Vec<HeardView>,
}

/// What was made of one group.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookReceiptIncident")]
struct HeardView {
    /// Null where there was nothing to end.
    incident: Option<IncidentId>,
    /// `opened`: somebody is phoned. `noted`: it was open, and nobody is phoned anew. `resolved`: it is over. `ignored`: it is
    /// over, and was not open.
    #[schemars(extend("enum" = ["opened", "noted", "resolved", "ignored"]))]
    result: &'static str,
}

impl From<Receipt> for HeardView {
    fn from(receipt: Receipt) -> Self {
        let result = match receipt.heard {
            Heard::Opened => "opened",
            Heard::Noted => "noted",
            Heard::Resolved => "resolved",
            Heard::Ignored => "ignored",
        };
        Self { incident: receipt.incident, result }
    }
}

/// JSON of any shape, but with parts.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::http) struct AnyJson(Value);

impl JsonSchema for AnyJson {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyJson".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["object", "array"], "description": "Whatever the hook can read."})
    }
}

/// The hook of this address, of this kind.
async fn find(
    state: &State,
    customer: &Customer,
    id: Result<Path<HookId>, PathRejection>,
    kind: HookKind,
) -> Result<Hook, Problem> {
    let Path(id) = id?;
    let hook = state.store.hook(&customer.org, &id).await?.ok_or_else(Problem::not_found)?;
    if hook.settings.kind == kind {
        return Ok(hook);
    }
    let other = hook.settings.kind;
    Err(Problem::new(
        Code::NotFound,
        format!("This hook is of the kind {other}: post to /v1/hooks/{other}/{id}."),
    ))
}

fn wrong(error: InvalidSignal) -> Problem {
    Problem::new(Code::InvalidField, error.rule).param(error.param)
}

async fn take(
    state: &State,
    customer: Customer,
    hook: Hook,
    signals: Vec<Signal>,
) -> Result<Accepted<ReceiptView>, Problem> {
    let oncall = Arc::clone(&state.oncall);
    // In a task of its own: a client that hangs up now must not leave a call that rings for what is over.
    let taking = tokio::spawn(oncall.take(hook, customer.mode, customer.actor, signals));
    let taken = taking.await.map_err(|error| {
        tracing::error!(%error, "taking alerts broke");
        Problem::new(Code::Unavailable, "The log tells more under this request_id. Tell it again.")
    })?;
    let receipts = taken.map_err(|error| match error {
        TakeError::Store(error) => error.into(),
        TakeError::Full => Problem::new(
            Code::Unavailable,
            "Too many incidents are open: resolve some. What did not fit was not accepted; tell it again.",
        ),
    })?;
    let incidents = receipts.into_iter().map(HeardView::from).collect();
    Ok(Accepted(ReceiptView { object: "hook_receipt", incidents }))
}

pub(in crate::http) async fn alertmanager(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
    told: Told<Payload>,
) -> Result<Accepted<ReceiptView>, Problem> {
    let hook = find(&state, &customer, id, HookKind::Alertmanager).await?;
    let signals = signals(&hook.settings, &told.object()?).map_err(wrong)?;
    take(&state, customer, hook, signals).await
}

pub(in crate::http) async fn json(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
    told: Told<AnyJson>,
) -> Result<Accepted<ReceiptView>, Problem> {
    let hook = find(&state, &customer, id, HookKind::Json).await?;
    let AnyJson(document) = told.read()?;
    let signal = oncall::json::signal(&hook.settings, &document).map_err(wrong)?;
    take(&state, customer, hook, signal.into_iter().collect()).await
}
