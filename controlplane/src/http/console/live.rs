//! The one feed of changes for all open pages, as Server-Sent Events.
//!
//! While somebody looks, the fleet is looked at every [`LOOK_EVERY`]; what changed since the last look is rendered once,
//! numbered, and kept for a little while. A stream holds nothing but the number that it has told: it sends what is kept
//! behind it, and where that is no more, one word (`stale`) upon which the page is asked for anew. So a slow reader costs
//! no memory, and nobody misses a change. `data` is HTML: elements that take the place of those with the same id.
//!
//! A stream ends with its session: at once where a key is revoked here, within [`SESSION_EVERY`] otherwise.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State as AxumState, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, Response, header},
};
use futures_util::stream;
use rand::Rng;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{fleet, session::Visitor};
use crate::{
    clock::Chance,
    http::{
        State,
        console::session,
        problem::{Code, Problem},
    },
    registry::{Registry, Sight},
};

/// Its address.
pub(super) const PATH: &str = "/live";
/// Between two looks at the fleet.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the fleet is looked at after a page was sent whose stream does not come.
const WANTED_FOR: Duration = Duration::from_secs(30);
/// Changes that are kept, each of [`fleet::CHANGED_MAX`] elements at most.
const KEPT_MAX: usize = 16;
/// Open streams.
const STREAMS_MAX: usize = 200;
/// A comment is sent after this much silence, so that nobody in between takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two looks at whether the session still opens the stream.
const SESSION_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Live {
    registry: Arc<Registry>,
    /// Of this run: numbers of another run or replica mean nothing here.
    run: u32,
    inner: Mutex<Inner>,
    /// The latest number.
    told: watch::Sender<u64>,
    streams: AtomicUsize,
    wanted: Notify,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    sight: Option<Sight>,
    taken: Option<Instant>,
    wanted_at: Option<Instant>,
    number: u64,
    /// The latest changes, as they are sent.
    kept: VecDeque<(u64, Bytes)>,
}

impl Live {
    pub(super) fn new(registry: Arc<Registry>, chance: &Chance) -> Arc<Self> {
        Arc::new(Self {
            registry,
            run: chance.fork().random(),
            inner: Mutex::default(),
            told: watch::Sender::new(0),
            streams: AtomicUsize::new(0),
            wanted: Notify::new(),
            stop: watch::Sender::new(false),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, number: u64) -> String {
        format!("{:08x}-{number}", self.run)
    }

    /// A page is being made: what it is to say it is up to, and the fleet as it is now. Whatever changes later is told
    /// under a later number.
    pub(super) fn page(&self) -> (String, Sight) {
        let is_fresh = {
            let mut inner = self.inner();
            inner.wanted_at = Some(Instant::now());
            inner.taken.is_some_and(|taken| taken.elapsed() < 3 * LOOK_EVERY)
        };
        if !is_fresh {
            self.look();
        }
        self.wanted.notify_one();
        let mark = self.mark(self.inner().number);
        (mark, self.registry.sight())
    }

    /// Looks at the fleet for as long as somebody looks at it here.
    pub(super) async fn keep(self: Arc<Self>) {
        loop {
            let wanted_at = self.inner().wanted_at;
            let lately = wanted_at.is_some_and(|at| at.elapsed() < WANTED_FOR);
            if self.streams.load(Ordering::Relaxed) == 0 && !lately {
                self.wanted.notified().await;
                continue;
            }
            self.look();
            sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Looks at the fleet once, and tells what changed.
    fn look(&self) {
        // Within the lock: an older look must not follow a newer one.
        let mut inner = self.inner();
        let now = self.registry.sight();
        inner.taken = Some(Instant::now());
        let Some(before) = inner.sight.replace(now) else { return };
        let Some(sight) = &inner.sight else { return };
        if before == *sight {
            return;
        }
        let changes = fleet::changes(&self.registry, &before, sight);
        let number = inner.number + 1;
        inner.number = number;
        match changes {
            fleet::Changes::Parts(html) => {
                let event = self.event(number, "parts", &html);
                inner.kept.push_back((number, event));
                while inner.kept.len() > KEPT_MAX {
                    inner.kept.pop_front();
                }
            }
            // Everybody is behind the first of what is kept, then.
            fleet::Changes::All => inner.kept.clear(),
        }
        drop(inner);
        self.told.send_replace(number);
    }

    /// One event, as it goes over the wire.
    fn event(&self, number: u64, kind: &str, data: &str) -> Bytes {
        let mut text = format!("id: {}\nevent: {kind}\n", self.mark(number));
        // A carriage return would end a line too.
        for line in data.replace('\r', " ").lines().map(str::trim).filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "data: {line}");
        }
        if data.is_empty() {
            text.push_str("data:\n");
        }
        text.push('\n');
        text.into()
    }

    /// What is to be sent to who was told up to `number`, and up to which one that is.
    fn since(&self, number: u64) -> Option<(u64, Vec<Bytes>)> {
        let inner = self.inner();
        if number == inner.number {
            return None;
        }
        let first = inner.kept.front().map(|(first, _)| *first);
        let missing = inner.kept.iter().filter(|(kept, _)| *kept > number);
        let whole = number < inner.number && first.is_some_and(|first| first <= number + 1);
        let events = if whole {
            missing.map(|(_, event)| event.clone()).collect()
        } else {
            vec![self.event(inner.number, "stale", "")]
        };
        Some((inner.number, events))
    }

    /// The number that a page or a stream was told up to; one of another run is behind everything.
    fn read(&self, mark: &str) -> Option<u64> {
        let (run, number) = mark.split_once('-')?;
        let of_this_run = u32::from_str_radix(run, 16).is_ok_and(|run| run == self.run);
        number.parse().ok().filter(|_| of_this_run)
    }
}

/// A place among the streams, given back when it is dropped.
struct Place(Arc<Live>);

impl Place {
    fn take(live: &Arc<Live>) -> Option<Self> {
        let taken = live
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < STREAMS_MAX).then_some(n + 1));
        taken.ok().map(|_| Self(Arc::clone(live)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `?since=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct LiveQuery {
    since: String,
}

/// One open stream.
struct Stream {
    state: State,
    token_sha256: [u8; 32],
    place: Place,
    told: u64,
    waiting: VecDeque<Bytes>,
    numbers: watch::Receiver<u64>,
    keys: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    session_seen: Instant,
    sent: Instant,
}

pub(in crate::http) async fn stream(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    query: Result<Query<LiveQuery>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let Query(LiveQuery { since }) = query?;
    let live = &state.console.live;
    let full = || Problem::new(Code::TooManyStreams, "Too many consoles are open: close one.");
    let place = Place::take(live).ok_or_else(full)?;
    // What a reconnecting reader sends is newer than what its address says.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).unwrap_or(&since);
    // A mark of another run is behind: `stale` is the first that it hears.
    let (told, is_known) = live.read(last).map_or((0, false), |number| (number, true));
    let mut waiting = VecDeque::from([Bytes::from_static(b"retry: 2000\n: looking\n\n")]);
    let mut numbers = live.told.subscribe();
    numbers.mark_changed();
    if !is_known {
        waiting.push_back(live.event(live.inner().number, "stale", ""));
    }
    let told = if is_known { told } else { live.inner().number };
    let (keys, stop) = (state.webhooks.streams.key_news(), live.stop.subscribe());
    live.wanted.notify_one();
    let now = Instant::now();
    let token_sha256 = visitor.token_sha256;
    let stream = Stream {
        state: state.clone(),
        token_sha256,
        place,
        told,
        waiting,
        numbers,
        keys,
        stop,
        session_seen: now,
        sent: now,
    };
    let body = stream::unfold(stream, |mut stream| async {
        stream.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), stream))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // What stands in between is not to gather events before it hands them on.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Stream {
    /// What is sent next; `None`: the stream is over. Asked for only when the reader has taken what was before.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                self.sent = Instant::now();
                return Some(bytes);
            }
            if *self.stop.borrow_and_update() || !self.look_at_session().await {
                return None;
            }
            self.numbers.mark_unchanged();
            if let Some((told, events)) = self.place.0.since(self.told) {
                self.told = told;
                self.waiting.extend(events);
                continue;
            }
            let silence = HEARTBEAT.saturating_sub(self.sent.elapsed());
            let session = SESSION_EVERY.saturating_sub(self.session_seen.elapsed());
            tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return None,
                changed = self.numbers.changed() => if changed.is_err() { return None },
                _ = self.keys.changed() => self.session_seen -= SESSION_EVERY,
                () = sleep(session) => {}
                () = sleep(silence) => self.waiting.push_back(Bytes::from_static(b": still here\n\n")),
            }
        }
    }

    /// Whether the session still opens the stream.
    async fn look_at_session(&mut self) -> bool {
        if self.session_seen.elapsed() < SESSION_EVERY {
            return true;
        }
        self.session_seen = Instant::now();
        match session::living(&self.state, &self.token_sha256).await {
            Ok(Some(_)) => true,
            Ok(None) => false,
            Err(error) => {
                // The page goes on with what it has: the next look tells.
                tracing::warn!(%error, "a console's session could not be looked at");
                true
            }
        }
    }
}
