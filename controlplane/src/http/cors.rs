//! What browsers are told of pages of other origins that ask here (Fetch standard, "CORS protocol"): closed, but for
//! the origins that an operator names.
//!
//! A key goes with each request and no cookie is believed at this door, so that a page can do what its key can do, and
//! nothing for who only looks at it.

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::accepting::{IDEMPOTENCY_KEY, REPLAYED};
use crate::settings::WebOrigin;

/// How long a browser need not ask again. Of what a preflight says only the origins change, and those not often.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

/// Lets pages of these origins ask.
pub(super) fn open<S: Clone + Send + Sync + 'static>(routes: Router<S>, origins: &[WebOrigin]) -> Router<S> {
    if origins.is_empty() {
        return routes;
    }
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(&origin.to_string()).ok());
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static(IDEMPOTENCY_KEY),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static(REPLAYED),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
        ])
        .max_age(PREFLIGHT_MAX_AGE);
    routes.layer(cors)
}
