//! `/v1/callback_secret`: what signs the events that go to calls' own callbacks.

use axum::{Json, extract::State as AxumState};
use controlplane_store::webhooks::{Holder, Secrets};
use serde_json::{Value, json};

use super::{by, moment, rotation};
use crate::{
    http::{State, auth::Customer, problem::Problem},
    webhooks::shown,
};

fn view(state: &State, holder: &Holder, secrets: &Secrets) -> Result<Json<Value>, Problem> {
    let opened = state.webhooks.seals().opened(holder, secrets)?;
    Ok(Json(json!({
        "object": "callback_secret",
        "secret": shown(&opened.current),
        "previous_secret_until": secrets.previous.as_ref().and_then(|(_, until)| moment(*until)),
    })))
}

pub(in crate::http) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let holder = Holder::Callback(customer.org.clone());
    let new = state.webhooks.seals().new_secret(&holder)?;
    view(&state, &holder, &state.store.callback_secrets(customer.org, new).await?)
}

pub(in crate::http) async fn rotate(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<Value>, Problem> {
    let now = state.clock.now();
    let holder = Holder::Callback(customer.org.clone());
    let rotation = rotation(&state, &holder, now)?;
    let rotated = state.store.rotate_callback(rotation, by(&state, &customer, now)).await?;
    view(&state, &holder, &rotated)
}
