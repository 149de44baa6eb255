//! JSON bodies whose errors name the field.

use std::{marker::PhantomData, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::header,
};
use controlplane_core::object::Object;
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::{Instant, timeout_at};

use super::problem::{Code, Problem};

/// Most bytes of a body.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// Most bytes beyond [`BODY_MAX`] that are read only to be thrown away.
const THROWN_AWAY_MAX: usize = 1024 * 1024;

/// A JSON body, and its bytes (an idempotency key promises that they are the same).
pub(super) struct JsonBody<T> {
    pub(super) value: T,
    pub(super) bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        must_be_json(&request)?;
        let bytes = read(request).await?;
        let Object(value) = parse(&bytes)?;
        Ok(Self { value, bytes })
    }
}

fn must_be_json(request: &Request) -> Result<(), Problem> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "Send `Content-Type: application/json`."))
}

/// Reads JSON, or says where it is wrong.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| explain(&error, bytes))?;
    json.end().map_err(|error| Problem::new(Code::Malformed, error.to_string()))?;
    Ok(value)
}

/// Most bytes of what a hook is told: an outage has many alerts, and one that is told of them all must not be refused.
pub(super) const TOLD_MAX: usize = 1024 * 1024;

/// What a hook is told. It is read as a `T` once it is known whose hook that is: to others there is none.
pub(super) struct Told<T> {
    bytes: Bytes,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Told<T> {
    /// As what it must be.
    pub(super) fn read(&self) -> Result<T, Problem> {
        parse(&self.bytes)
    }

    /// As what it must be, which is an object.
    pub(super) fn object(&self) -> Result<T, Problem> {
        let Object(value) = parse(&self.bytes)?;
        Ok(value)
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        must_be_json(&request)?;
        Ok(Self { bytes: read_up_to(request, TOLD_MAX, "At most 1 MiB.").await?, of: PhantomData })
    }
}

/// A body within bounds. One that is too large is read on for a while and thrown away: an answer to a client
/// that still sends is lost with the connection.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    read_up_to(request, BODY_MAX, "At most 64 KiB.").await
}

/// As [`read`], within another bound, which `too_large` tells.
pub(super) async fn read_up_to(
    request: Request,
    max: usize,
    too_large: &'static str,
) -> Result<Bytes, Problem> {
    read_by(request, max, too_large, None).await
}

/// How fast a body has to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// All of it within.
    pub(super) within: Duration,
    /// So late it may be, however little has come.
    pub(super) grace: Duration,
    /// And no slower than that.
    pub(super) bytes_per_s_min: u32,
}

impl Pace {
    /// When the next part has to be there after `length` bytes.
    fn due(&self, began: Instant, length: usize) -> Instant {
        let earned = Duration::from_millis(length as u64 * 1_000 / u64::from(self.bytes_per_s_min.max(1)));
        began + (self.grace + earned).min(self.within)
    }
}

/// As [`read_up_to`], and no slower than `pace`.
pub(super) async fn read_paced(
    request: Request,
    max: usize,
    too_large: &'static str,
    pace: Pace,
) -> Result<Bytes, Problem> {
    read_by(request, max, too_large, Some(pace)).await
}

async fn read_by(
    request: Request,
    max: usize,
    too_large: &'static str,
    pace: Option<Pace>,
) -> Result<Bytes, Problem> {
    let mut parts = request.into_body().into_data_stream();
    let (mut whole, mut length) = (Vec::new(), 0);
    let began = Instant::now();
    loop {
        let part = match pace {
            Some(pace) => timeout_at(pace.due(began, length), parts.next()).await.map_err(|_| {
                Problem::new(Code::Malformed, "The body came too slowly. Nothing was kept; send it faster.")
            })?,
            None => parts.next().await,
        };
        let Some(part) = part else { break };
        let part = part.map_err(|_| Problem::new(Code::Malformed, "The body did not arrive whole."))?;
        length += part.len();
        if length <= max {
            whole.extend_from_slice(&part);
        } else if length > max + THROWN_AWAY_MAX {
            break;
        }
    }
    if length > max {
        return Err(Problem::new(Code::TooLarge, too_large));
    }
    Ok(whole.into())
}

fn explain(error: &serde_path_to_error::Error<serde_json::Error>, body: &[u8]) -> Problem {
    let inner = error.inner();
    let path = missing(&error.path().to_string(), &inner.to_string());
    // Of a number in a word's place serde_json says "expected value", as if the text were broken.
    let is_text_broken = inner.is_syntax() || inner.is_eof();
    let is_json = || std::str::from_utf8(body).is_ok_and(|t| serde_json::from_str::<IgnoredAny>(t).is_ok());
    if is_text_broken && !is_json() {
        return Problem::new(Code::Malformed, format!("Not JSON: {inner}."));
    }
    let code = if matches!(path.as_str(), "to" | "from") { Code::InvalidNumber } else { Code::InvalidField };
    let problem = Problem::new(code, format!("{inner}."));
    if path == "." { problem } else { problem.param(path) }
}

/// The path of a field that is not there: serde gives its parent's, and names it in the message.
fn missing(parent: &str, message: &str) -> String {
    let name = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (name, parent) {
        (Some(name), ".") => name.to_owned(),
        (Some(name), parent) => format!("{parent}.{name}"),
        (None, parent) => parent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::stream;

    use super::*;

    const PACE: Pace =
        Pace { within: Duration::from_secs(60), grace: Duration::from_secs(5), bytes_per_s_min: 1_000 };

    /// Parts of so many bytes, each so long after the last.
    async fn came(parts: usize, bytes: usize, apart: Duration) -> (Result<usize, String>, Duration) {
        let parts = stream::iter(0..parts).then(move |_| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![1; bytes]))
        });
        let began = Instant::now();
        let read = read_paced(Request::new(Body::from_stream(parts)), 1_000_000, "much", PACE).await;
        (read.map(|bytes| bytes.len()).map_err(|problem| problem.detail().to_owned()), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_comes_fast_enough_or_is_let_go() {
        let second = Duration::from_secs(1);
        assert_eq!(came(20, 1_000, second).await.0, Ok(20_000));
        // A byte a second for ever.
        let (read, took) = came(usize::MAX, 1, second).await;
        assert!(read.unwrap_err().contains("slowly") && took < 6 * second, "{took:?}");
        // Nothing at all.
        let (read, took) = came(1, 1, 3_600 * second).await;
        assert!(read.is_err() && took == 5 * second, "{took:?}");
        // Just fast enough, and without an end.
        let (read, took) = came(usize::MAX, 1_001, second).await;
        assert!(read.is_err() && took == 60 * second, "{took:?}");
    }
}
