//! `/v1/audio`: recordings that calls play as `message.audio_id`.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{
        FromRequest, Path, Query, Request, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, NoContent, Response},
};
use controlplane_core::{ids::RecordingId, schema::Moment, sound::SoundHash};
use controlplane_store::audio::{NewRecording, Recorded, Recording, RecordingsPage, Sound};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use super::{
    State,
    answer::Created,
    auth::Customer,
    body,
    openapi::signature::{Answers, Asks, Sketch},
    problem::{Code, Problem},
    shape::ListView,
    uploads,
};
use crate::audio::{Format, LENGTH_MAX_S, convert, format_of};

/// Most bytes of an upload.
const UPLOAD_MAX: usize = 10 * 1024 * 1024;
/// Recordings of a page where none is asked.
const LIMIT_DEFAULT: u16 = 20;
/// Most recordings of a page.
const LIMIT_MAX: u16 = 100;

/// A recording.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Recording")]
pub(super) struct RecordingView {
    id: RecordingId,
    #[schemars(extend("const" = "audio"))]
    object: &'static str,
    /// Of the file as it is kept.
    sha256: SoundHash,
    bytes: u64,
    length_ms: u32,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
}

impl From<Recording> for RecordingView {
    fn from(recording: Recording) -> Self {
        let Recording { id, sha256, bytes, length_ms, created_at, .. } = recording;
        Self { id, object: "audio", sha256, bytes, length_ms, created_at }
    }
}

/// A file on its way, of the type that its sender says it is.
pub(super) struct Upload {
    claimed: Format,
    request: Request,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        Ok(Self { claimed: claimed(&request)?, request })
    }
}

impl Asks for Upload {
    fn ask(sketch: &mut Sketch) {
        let file = json!({"schema": {"type": "string", "format": "binary"}});
        sketch.body(json!({"audio/wav": file, "audio/mpeg": file}));
    }
}

/// `POST /v1/audio`: a WAV or MP3 as the body.
pub(super) async fn create(
    customer: Customer,
    AxumState(state): AxumState<State>,
    Upload { claimed, request }: Upload,
) -> Result<Created<RecordingView>, Problem> {
    let _place = state.uploads.begin(&customer.org)?;
    let file = body::read_paced(request, UPLOAD_MAX, "At most 10 MiB.", uploads::PACE).await?;
    if let Some(found) = format_of(&file)
        && found != claimed
    {
        return Err(Problem::new(Code::InvalidAudio, "The file is not of the type that Content-Type names."));
    }
    let sound = converted(file).await?;
    let at = state.clock.now();
    let new = NewRecording {
        id: state.chance.recording_id(at),
        org: customer.org,
        sound,
        at,
        org_bytes_max: state.audio.org_bytes_max(),
        bytes_max: state.audio.bytes_max(),
        actor: customer.actor,
        audit_id: state.chance.audit_id(at),
    };
    match state.store.create_recording(new).await? {
        Recorded::Done(recording) => Ok(Created(recording.into())),
        Recorded::Full => {
            let max = state.audio.org_bytes_max();
            let text = format!(
                "All recordings together may take {max} bytes as they are kept. Delete some first: what is \
                         deleted counts until no call can need it, some minutes at least."
            );
            Err(Problem::new(Code::AudioFull, text))
        }
        Recorded::AllFull => {
            let text = "There is no room for recordings. Nothing was kept; ask the operators for more.";
            Err(Problem::new(Code::Unavailable, text))
        }
    }
}

/// What the sender says it is.
fn claimed(request: &Request) -> Result<Format, Problem> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media.as_str() {
        "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Ok(Format::Wav),
        "audio/mpeg" | "audio/mp3" => Ok(Format::Mp3),
        _ => Err(Problem::new(
            Code::UnsupportedMediaType,
            "Send `Content-Type: audio/wav` or `Content-Type: audio/mpeg`.",
        )),
    }
}

async fn converted(file: Bytes) -> Result<Sound, Problem> {
    let converting = spawn_blocking(move || convert(&file, LENGTH_MAX_S)).await;
    // A decoder that panics over a stranger's file has judged that file, and nothing else.
    let converted = converting.map_err(|error| {
        tracing::error!(%error, "a file broke the decoder");
        Problem::new(Code::InvalidAudio, "The file cannot be decoded.")
    })?;
    let converted = converted.map_err(|error| Problem::new(Code::InvalidAudio, format!("{error}.")))?;
    Ok(converted.sound)
}

pub(super) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<RecordingId>, PathRejection>,
) -> Result<Json<RecordingView>, Problem> {
    let Path(id) = id?;
    Ok(Json(one(&state, &customer, &id).await?.into()))
}

/// `GET /v1/audio/{id}/content`: as it is played, a WAV of 8 kHz, mono, 16 bits.
pub(super) async fn content(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<RecordingId>, PathRejection>,
) -> Result<Wav, Problem> {
    let Path(id) = id?;
    let recording = one(&state, &customer, &id).await?;
    let sound = state.store.sound(&recording.sha256).await?.ok_or_else(Problem::not_found)?;
    Ok(Wav(sound.wav))
}

/// The media type of [`Wav`].
const WAV: &str = "audio/wav";

/// A sound as a response.
pub(super) struct Wav(pub(super) Arc<[u8]>);

impl IntoResponse for Wav {
    fn into_response(self) -> Response {
        let mut response = Body::from(Bytes::from_owner(self.0)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(WAV));
        response
    }
}

impl Answers for Wav {
    fn answer(sketch: &mut Sketch) {
        sketch.answer(StatusCode::OK, WAV, json!({"type": "string", "format": "binary"}));
    }
}

async fn one(state: &State, customer: &Customer, id: &RecordingId) -> Result<Recording, Problem> {
    let found = state.store.recording(&customer.org, id).await?;
    found.filter(|recording| recording.deleted_at.is_none()).ok_or_else(Problem::not_found)
}

/// `DELETE /v1/audio/{id}`. Calls that were accepted before still play it; no further call is taken with it.
pub(super) async fn delete(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<RecordingId>, PathRejection>,
) -> Result<NoContent, Problem> {
    let Path(id) = id?;
    let at = state.clock.now();
    let audit_id = state.chance.audit_id(at);
    let deleted = state.store.delete_recording(&customer.org, &id, at, customer.actor, audit_id).await?;
    if deleted { Ok(NoContent) } else { Err(Problem::not_found()) }
}

/// `?limit=&starting_after=&ending_before=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Most recordings of the page.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<u16>,
    /// Recordings older than this one.
    starting_after: Option<RecordingId>,
    /// Recordings newer than this one.
    ending_before: Option<RecordingId>,
}

pub(super) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<RecordingView>>, Problem> {
    let Query(ListQuery { limit, starting_after, ending_before }) = query?;
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    if starting_after.is_some() && ending_before.is_some() {
        return Err(Problem::new(Code::InvalidField, "Only one of starting_after and ending_before.")
            .param("ending_before"));
    }
    let page = RecordingsPage { limit, starting_after, ending_before };
    let (recordings, has_more) = state.store.recordings(&customer.org, page).await?;
    let data = recordings.into_iter().map(RecordingView::from).collect();
    Ok(Json(ListView { object: "list", data, has_more }))
}
