//! `/v1/callback_secret`: what signs the events that go to calls' own callbacks.

use axum::{Json, extract::State as AxumState};
use controlplane_store::webhooks::Secrets;
use serde_json::{Value, json};

use super::{by, moment, new_secret, rotation};
use crate::{
    http::{State, auth::Customer, problem::Problem},
    webhooks::shown,
};

fn view(secrets: &Secrets) -> Json<Value> {
    Json(json!({
        "object": "callback_secret",
        "secret": shown(&secrets.current),
        "previous_secret_until": secrets.previous.as_ref().and_then(|(_, until)| moment(*until)),
    }))
}

pub(in crate::http) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    Ok(view(&state.store.callback_secrets(customer.org, new_secret(&state)).await?))
}

pub(in crate::http) async fn rotate(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let now = state.clock.now();
    let rotated = state.store.rotate_callback(rotation(&state, now), by(&state, &customer, now)).await?;
    Ok(view(&rotated))
}
