//! `/v1/callback_secret`: what signs the events that go to calls' own callbacks.

use axum::{Json, extract::State as AxumState};
use controlplane_core::schema::Moment;
use controlplane_store::webhooks::{Holder, Secrets};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::{by, rotation};
use crate::{
    http::{State, auth::Customer, problem::Problem},
    webhooks::shown,
};

/// What signs the events that go to calls' own callbacks.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallbackSecret")]
pub(in crate::http) struct SecretView {
    #[schemars(extend("const" = "callback_secret"))]
    object: &'static str,
    secret: String,
    /// Until when the former secret signs too.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    previous_secret_until: Option<OffsetDateTime>,
}

fn view(state: &State, holder: &Holder, secrets: &Secrets) -> Result<Json<SecretView>, Problem> {
    let opened = state.webhooks.seals().opened(holder, secrets)?;
    Ok(Json(SecretView {
        object: "callback_secret",
        secret: shown(&opened.current),
        previous_secret_until: secrets.previous.as_ref().map(|(_, until)| *until),
    }))
}

pub(in crate::http) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<SecretView>, Problem> {
    let holder = Holder::Callback(customer.org.clone());
    let new = state.webhooks.seals().new_secret(&holder)?;
    view(&state, &holder, &state.store.callback_secrets(customer.org, new).await?)
}

pub(in crate::http) async fn rotate(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<SecretView>, Problem> {
    let now = state.clock.now();
    let holder = Holder::Callback(customer.org.clone());
    let rotation = rotation(&state, &holder, now)?;
    let rotated = state.store.rotate_callback(rotation, by(&state, &customer, now)).await?;
    view(&state, &holder, &rotated)
}
