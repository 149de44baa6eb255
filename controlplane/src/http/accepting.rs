//! How a call is accepted, at whichever door it is asked for: checked, admitted by the guard, made durable, started.

use axum::{
    Json,
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use controlplane_core::{access::Mode, ids::OrgId, rehearsal, request::CallRequest, trace};
use controlplane_store::{
    StoreError,
    calls::{Actor, Call, Created, DayMax, Full, Idempotency, NewCall},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{
    State,
    body::JsonBody,
    guard,
    openapi::{
        signature::{Answers, JSON, Sketch},
        words::IDEMPOTENCY_KEY_MAX,
    },
    problem::{Code, Problem},
    shape::CallView,
};
use crate::audio::Refusal;

/// The header by which a request that is sent again is known.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Marks the answer to a request that was sent again.
pub(super) const REPLAYED: &str = "idempotent-replayed";

/// What came of asking for a call.
pub(super) struct Taken(Response);

impl IntoResponse for Taken {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answers for Taken {
    fn answer(sketch: &mut Sketch) {
        let (call, preview) = (sketch.answered::<CallView>(), sketch.answered::<guard::PreviewView>());
        sketch.answer(StatusCode::CREATED, JSON, call.clone());
        let text = "It was accepted before, under the same `Idempotency-Key`.";
        sketch.header(
            StatusCode::CREATED,
            "Idempotent-Replayed",
            text,
            json!({"type": "string", "enum": ["true"]}),
        );
        sketch.answer(StatusCode::OK, JSON, json!({"anyOf": [call, preview]}));
    }
}

/// Who asks for a call.
pub(super) struct Asker {
    pub(super) org: OrgId,
    pub(super) actor: Actor,
    pub(super) mode: Mode,
    /// Where the call stands in a trace, if it is followed by one.
    pub(super) trace: Option<trace::Place>,
}

/// What came of asking for a call.
pub(super) enum Placed {
    /// Nothing was written: it was only asked what would be done.
    Preview(Box<guard::PreviewView>),
    /// A new call.
    New(Box<Call>),
    /// It was accepted before, under the same idempotency key.
    Replayed(Box<Call>),
    /// A call with its `dedup_key` is open: that one.
    Deduplicated(Box<Call>),
}

impl Placed {
    /// The call, where there is one.
    pub(super) fn call(&self) -> Option<&Call> {
        match self {
            Self::Preview(_) => None,
            Self::New(call) | Self::Replayed(call) | Self::Deduplicated(call) => Some(call),
        }
    }
}

/// Accepts a call for an organisation, and answers; shared with the operators' door. `route` is what was asked at.
pub(super) async fn accept(
    state: &State,
    route: &'static str,
    mut asker: Asker,
    headers: &HeaderMap,
    body: JsonBody<CallRequest>,
) -> Result<Taken, Problem> {
    let asking = state.traces.begin(headers);
    asker.trace = asking.as_ref().map(|asking| asking.place.clone());
    Ok(Taken(match place(state, asker, headers, body).await? {
        Placed::Preview(preview) => Json(preview).into_response(),
        Placed::New(call) => {
            if let Some(asking) = asking {
                state.traces.answered(asking, route, StatusCode::CREATED, &call);
            }
            (StatusCode::CREATED, Json(CallView::from(*call))).into_response()
        }
        Placed::Replayed(call) => {
            let mut response = (StatusCode::CREATED, Json(CallView::from(*call))).into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            response
        }
        Placed::Deduplicated(call) => Json(CallView::from(*call)).into_response(),
    }))
}

/// Accepts a call for an organisation; shared with the console.
pub(super) async fn place(
    state: &State,
    asker: Asker,
    headers: &HeaderMap,
    JsonBody { value: request, bytes }: JsonBody<CallRequest>,
) -> Result<Placed, Problem> {
    place_known(state, asker, || idempotency(headers, &bytes), request).await
}

/// As [`place`], known again by what `known` gives; shared with what phones by itself.
pub(super) async fn place_known(
    state: &State,
    Asker { org, actor, mode, trace }: Asker,
    known: impl FnOnce() -> Result<Option<Idempotency>, Problem>,
    request: CallRequest,
) -> Result<Placed, Problem> {
    let now = state.clock.now();
    request
        .validate(now)
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
    if let Some(callback) = &request.callback {
        state.webhooks.may_send_to(&callback.url).map_err(|blocked| {
            Problem::new(Code::InvalidField, format!("{blocked}.")).param("callback.url")
        })?;
    }
    if mode == Mode::Test && !rehearsal::knows(&request.to) {
        let detail = "A test key phones nobody: it takes the numbers +12025550100 to +12025550118, each with an outcome of its own.";
        return Err(Problem::new(Code::InvalidField, detail).param("to"));
    }
    let idempotency = known()?;
    if request.dry_run {
        return Ok(Placed::Preview(Box::new(guard::preview(state, &org, mode, &request))));
    }
    // What a test key asks for phones nobody, and takes no policy.
    let admitted = match mode {
        Mode::Live => {
            let says = || guard::verdict(state, &org, &request.to, request.from.as_ref());
            let mut verdict = says();
            // What was accepted is answered as before, whatever was closed since, and neither refused nor counted again.
            if guard::minds(state, &org, &verdict) {
                if let Some(before) = asked_before(state, &org, mode, idempotency.as_ref()).await? {
                    return answer(before, now);
                }
                verdict = says();
            }
            Some(guard::admit(state, &org, &actor, &request, verdict).await?)
        }
        Mode::Test => None,
    };
    let is_not_placed = |org: &OrgId| admitted.iter().for_each(|admitted| admitted.is_not_placed(state, org));
    if let Err(refused) = has_room(state, &org, &request).await {
        is_not_placed(&org);
        return match asked_before(state, &org, mode, idempotency.as_ref()).await? {
            Some(before) => answer(before, now),
            None => Err(refused),
        };
    }
    let whose = org.clone();
    let new = NewCall {
        id: state.chance.call_id(now),
        deadline_at: request.deadline(now),
        open_max: state.rules.open_max(&org),
        day_max: match mode {
            Mode::Live => state.rules.day_max(&org, actor.key.as_ref()),
            Mode::Test => DayMax::default(),
        },
        org,
        mode,
        request,
        at: now,
        idempotency,
        actor,
        audit_id: state.chance.audit_id(now),
        event_id: state.chance.event_id(now),
        trace,
    };
    let created = state.accepting.accept(new).await.ok_or_else(|| {
        Problem::new(Code::Internal, "The log tells more. Ask again with the same Idempotency-Key.")
    })??;
    if !matches!(created, Created::New(_)) {
        is_not_placed(&whose);
    }
    answer(created, now)
}

/// The answer that a request with this key had.
async fn asked_before(
    state: &State,
    org: &OrgId,
    mode: Mode,
    asked: Option<&Idempotency>,
) -> Result<Option<Created>, StoreError> {
    let Some(asked) = asked else { return Ok(None) };
    let before = state.store.asked_before(org, mode, asked, state.clock.now()).await?;
    if let Some(Created::Replayed(call)) = &before {
        // Whoever asked first may have been cut off before its task began.
        state.calls.ensure(call.clone());
    }
    Ok(before)
}

/// Whether there is room for the call and for what it says.
async fn has_room(state: &State, org: &OrgId, request: &CallRequest) -> Result<(), Problem> {
    if !state.calls.has_room() {
        return Err(Problem::new(
            Code::Unavailable,
            "Too many calls are under way. Nothing was accepted; ask again.",
        ));
    }
    let Err(refusal) = state.audio.check(org, &request.message.content).await? else { return Ok(()) };
    let (code, text) = match refusal {
        Refusal::Field(param, text) => return Err(Problem::new(Code::InvalidField, text).param(param)),
        Refusal::Busy => {
            (Code::Unavailable, "Too many texts wait to be spoken. Nothing was accepted; ask again.")
        }
        Refusal::OrgBusy => (
            Code::TooManyTexts,
            "Too many of your texts wait to be spoken. Nothing was accepted; ask again later.",
        ),
        Refusal::Full => (
            Code::Unavailable,
            "There is no room for texts that were not spoken before. Nothing was accepted; ask again.",
        ),
        Refusal::OrgFull => (
            Code::SpeechFull,
            "Your open calls need all the room that your spoken texts may take. Nothing was accepted.",
        ),
    };
    Err(Problem::new(code, text))
}

/// What came of it, as it is told.
fn answer(created: Created, now: OffsetDateTime) -> Result<Placed, Problem> {
    match created {
        Created::New(call) => Ok(Placed::New(Box::new(call))),
        Created::Replayed(call) => Ok(Placed::Replayed(Box::new(call))),
        Created::Deduplicated(call) => Ok(Placed::Deduplicated(Box::new(call))),
        Created::KeyReused => Err(Problem::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key came before with another body. Nothing was done.",
        )),
        Created::Full(Full::Org) => Err(Problem::new(
            Code::TooManyOpenCalls,
            "As many calls as may be are open. Nothing was accepted; ask again when some have ended.",
        )),
        Created::Full(Full::Number) => Err(Problem::new(
            Code::TooManyOpenCalls,
            "As many calls to this number as may be are open. Nothing was accepted; ask again when some have ended.",
        )
        .param("to")),
        Created::Full(full @ (Full::OrgDay | Full::KeyDay)) => {
            let whose = if full == Full::KeyDay { "this key" } else { "the organisation" };
            let text = format!("As many calls as {whose} may ask for in a day were accepted. Nothing was accepted.");
            Err(Problem::new(Code::DailyLimit, text).retry_after(until_tomorrow(now)))
        }
    }
}

/// Seconds until the day (UTC) is over, at least 1.
fn until_tomorrow(now: OffsetDateTime) -> u32 {
    let left = 86_400 - now.unix_timestamp().rem_euclid(86_400);
    u32::try_from(left).unwrap_or(86_400)
}

fn idempotency(headers: &HeaderMap, body: &Bytes) -> Result<Option<Idempotency>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let invalid = || {
        Problem::new(Code::InvalidField, "One Idempotency-Key of 1 to 255 visible ASCII characters.")
            .param("Idempotency-Key")
    };
    let key = value.to_str().map_err(|_| invalid())?;
    if values.next().is_some() || key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX {
        return Err(invalid());
    }
    Ok(Some(Idempotency { key: key.to_owned(), body_sha256: Sha256::digest(body).into() }))
}
