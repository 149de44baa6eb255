//! The public status, at its own door: a page, its JSON and its style, as they lie ready.

use axum::{
    extract::State as AxumState,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::State;
use crate::status::{self, Written};

/// How long a browser or a cache may show it without asking again.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=15");

/// `GET /`
pub(super) async fn page(AxumState(state): AxumState<State>, headers: HeaderMap) -> Response {
    let mut response = answer(&state.status.shown().page, &headers, "text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, status::POLICY);
    response
}

/// `GET /status.json`
pub(super) async fn json(AxumState(state): AxumState<State>, headers: HeaderMap) -> Response {
    let mut response = answer(&state.status.shown().json, &headers, "application/json");
    // Pages of others may show it: it is everybody's, and there is nothing to be signed in to.
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// `GET /assets/status-….css`
pub(super) async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    (headers, status::style().1).into_response()
}

/// What lies ready, or that the asker has it already (RFC 9110 section 13.1.2).
fn answer(written: &Written, headers: &HeaderMap, media: &'static str) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == written.tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, media)], written.body.clone()).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, FRESH);
    if let Ok(tag) = HeaderValue::from_str(&written.tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
