//! How fast customers ask: counted with the key, told in the headers of every answer
//! (draft-ietf-httpapi-ratelimit-headers-10: fields `RateLimit-Policy` and `RateLimit`).

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, request::Parts};
use controlplane_core::ids::{KeyId, OrgId};
use tokio::time::Instant;

use super::{
    State,
    problem::{Code, Problem},
};
use crate::rules::Pace;

/// From where the key is read to where the answer is framed.
#[derive(Debug, Clone, Default)]
pub(super) struct Told(Arc<Mutex<Option<Pace>>>);

/// Counts a request. `Err`: it is one too many.
pub(super) fn count(parts: &Parts, state: &State, org: &OrgId, key: &KeyId) -> Result<(), Problem> {
    let Some(pace) = state.rules.request(org, key, Instant::now().into_std()) else { return Ok(()) };
    if let Some(told) = parts.extensions.get::<Told>() {
        *told.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pace);
    }
    if pace.admitted {
        return Ok(());
    }
    state.metrics.request_refused();
    let text = format!("More than {} requests in one second. Nothing was done; ask again.", pace.max);
    Err(Problem::new(Code::TooManyRequests, text))
}

/// Tells the limit and what is left of it. A second has a second to go.
pub(super) fn tell(told: &Told, headers: &mut HeaderMap) {
    let Some(pace) = *told.0.lock().unwrap_or_else(PoisonError::into_inner) else { return };
    let fields = [
        ("ratelimit-policy", format!("\"requests\";q={};w=1", pace.max)),
        ("ratelimit", format!("\"requests\";r={};t=1", pace.left)),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
