//! `GET /v1/events`: a list, or with `Accept: text/event-stream` a stream of Server-Sent Events.
//!
//! Both go by position, which is given in the order of commits: whoever has read up to one has missed
//! nothing. A stream reads from the database as its reader takes, so that a slow one costs no memory; one that
//! takes nothing for [`SLOW_MAX`] is ended, and resumes with `Last-Event-ID` where it was. Its connection is ended
//! where it is written to (`doors`). A key that is revoked here ends its streams at
//! once; one that expires, or is revoked at another replica, within [`KEY_EVERY`].

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State as AxumState, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use controlplane_core::ids::{EventId, OrgId};
use controlplane_store::{StoreError, events::Event};
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    State,
    auth::Customer,
    openapi::signature::{Answers, JSON, Sketch},
    problem::{Code, Problem},
    shape::ListView,
};
use crate::webhooks::{EventView, Place};

/// The media type of a stream.
const STREAM: &str = "text/event-stream";
/// Events of a page where none is asked.
const LIMIT_DEFAULT: u16 = 20;
/// Most events of a page, and of one look of a stream.
const LIMIT_MAX: u16 = 100;
/// Events that wait for a stream's reader.
const AHEAD: usize = 16;
/// A comment is sent after this much silence, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A reader that takes nothing for this long is cut off.
const SLOW_MAX: Duration = Duration::from_secs(30);
/// Between two looks that nobody nudged for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Between two looks at whether the key still opens the stream.
const KEY_EVERY: Duration = Duration::from_secs(5);

/// `?limit=&starting_after=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Most events of the page; a stream has none.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<u16>,
    /// Events that came after this one.
    starting_after: Option<EventId>,
}

/// A page of events, or a stream of them.
pub(super) struct Events(Response);

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        self.0
    }
}

impl Answers for Events {
    fn answer(sketch: &mut Sketch) {
        let page = sketch.answered::<ListView<EventView>>();
        sketch.answer(StatusCode::OK, JSON, page);
        let text = "`id` is the event's, `event` its type, `data` the event as in the list.";
        sketch.answer(StatusCode::OK, STREAM, json!({"type": "string", "description": text}));
    }
}

pub(super) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Events, Problem> {
    let Query(query) = query?;
    if wants_stream(&headers) {
        return follow(&state, customer, &headers, query).await.map(Events);
    }
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    let after = match &query.starting_after {
        Some(id) => position(&state, &customer.org, id, "starting_after").await?,
        None => 0,
    };
    let page = state.store.events(&customer.org, after, limit).await?;
    state.webhooks.passed_over(page.passed_over);
    let (data, has_more) = (page.events.into_iter().map(EventView::from).collect(), page.has_more);
    Ok(Events(Json(ListView { object: "list", data, has_more }).into_response()))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts
        .flat_map(|value| value.split(','))
        .any(|media| media.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(STREAM))
}

async fn position(state: &State, org: &OrgId, id: &EventId, param: &'static str) -> Result<i64, Problem> {
    let gone = || {
        Problem::new(
            Code::InvalidField,
            "There is no such event, or it is older than 7 days and erased: begin anew without it.",
        )
        .param(param)
    };
    state.store.event_position(org, id).await?.ok_or_else(gone)
}

/// A stream of what comes after an event, or from now on.
async fn follow(
    state: &State,
    customer: Customer,
    headers: &HeaderMap,
    query: EventsQuery,
) -> Result<Response, Problem> {
    if query.limit.is_some() {
        return Err(Problem::new(Code::InvalidField, "A stream has no limit.").param("limit"));
    }
    // What a reconnecting reader sends is newer than what its address says.
    let last = match headers.get("last-event-id") {
        Some(value) => {
            let wrong = || Problem::new(Code::InvalidField, "An event's id.").param("Last-Event-ID");
            let id = value.to_str().ok().and_then(|text| text.parse::<EventId>().ok()).ok_or_else(wrong)?;
            Some((id, "Last-Event-ID"))
        }
        None => query.starting_after.map(|id| (id, "starting_after")),
    };
    let org = &customer.org;
    let place = state.webhooks.streams.open(org).ok_or_else(|| {
        Problem::new(Code::TooManyStreams, "Too many event streams are open: close one, or ask again later.")
    })?;
    let after = match last {
        Some((id, param)) => position(state, org, &id, param).await?,
        None => state.store.last_position().await?,
    };
    let (events, mut taken) = mpsc::channel(AHEAD);
    tokio::spawn(feed(state.clone(), customer, after, place, events));
    let stream = stream::poll_fn(move |context| taken.poll_recv(context));
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("still here");
    Ok(Sse::new(stream).keep_alive(heartbeat).into_response())
}

/// Why a stream ends before its reader does.
enum End {
    /// The program stops, or the reader is gone.
    Quiet,
    /// The key opens it no more.
    Key,
    /// The reader does not keep up.
    Slow,
    /// The database is away: the reader resumes.
    Store(StoreError),
}

/// What one stream's task holds.
struct Feed {
    state: State,
    customer: Customer,
    place: Place,
    events: mpsc::Sender<Result<SseEvent, Infallible>>,
    key_seen: Instant,
    /// Some key may open nothing any more.
    is_told: bool,
}

/// Reads events for one stream until its reader is gone, too slow or not allowed, or the program stops.
async fn feed(
    state: State,
    customer: Customer,
    after: i64,
    place: Place,
    events: mpsc::Sender<Result<SseEvent, Infallible>>,
) {
    let mut feed = Feed { state, customer, place, events, key_seen: Instant::now(), is_told: false };
    match feed.run(after).await {
        End::Quiet => {}
        End::Key => tracing::info!(org = %feed.customer.org, "a stream ends: its key is not valid any more"),
        End::Slow => feed.state.webhooks.reader_was_slow(),
        End::Store(error) => tracing::error!(%error, "a stream of events cannot go on; its reader resumes"),
    }
}

impl Feed {
    async fn run(&mut self, mut after: i64) -> End {
        let store = Arc::clone(&self.state.store);
        loop {
            self.place.news.mark_unchanged();
            if let Err(end) = self.look_at_key().await {
                return end;
            }
            let page = match store.events(&self.customer.org, after, LIMIT_MAX).await {
                Ok(page) => page,
                Err(error) => return End::Store(error),
            };
            self.state.webhooks.passed_over(page.passed_over);
            for event in page.events {
                if let Err(end) = self.send(event).await {
                    return end;
                }
            }
            after = page.through;
            if page.has_more {
                continue;
            }
            tokio::select! {
                biased;
                _ = self.place.stop.wait_for(|stop| *stop) => return End::Quiet,
                () = self.events.closed() => return End::Quiet,
                _ = self.place.news.changed() => {}
                _ = self.place.keys.changed() => self.is_told = true,
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn send(&mut self, event: Event) -> Result<(), End> {
        self.look_at_key().await?;
        let (id, kind) = (event.id.to_string(), event.kind.as_str());
        let Ok(shown) = SseEvent::default().id(id).event(kind).json_data(EventView::from(event)) else {
            tracing::error!("an event could not be written as JSON");
            return Err(End::Quiet);
        };
        tokio::select! {
            biased;
            _ = self.place.stop.wait_for(|stop| *stop) => Err(End::Quiet),
            sent = timeout(SLOW_MAX, self.events.send(Ok(shown))) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Quiet),
                Err(_) => Err(End::Slow),
            },
        }
    }

    async fn look_at_key(&mut self) -> Result<(), End> {
        let is_told = self.is_told || self.place.keys.has_changed().unwrap_or(false);
        if self.key_seen.elapsed() < KEY_EVERY && !is_told {
            return Ok(());
        }
        self.is_told = false;
        self.place.keys.mark_unchanged();
        let may = self.customer.may_still(&self.state).await.map_err(End::Store)?;
        self.key_seen = Instant::now();
        if may { Ok(()) } else { Err(End::Key) }
    }
}
