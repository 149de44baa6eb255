//! Answers whose status their type says, so that the handler's signature tells it.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// 201: it was made.
#[derive(Debug)]
pub(super) struct Created<T>(pub(super) T);

/// 202: it is durable, and done soon.
#[derive(Debug)]
pub(super) struct Accepted<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}
