//! Traces of calls: one from `POST /v1/calls` to hangup, for a collector that takes OTLP. Off, and costing nothing, unless one is set.
//!
//! ```text
//! POST ─ place in a trace ─▶ `trace` row, with the call ────────── the call ends ─▶ its rows as spans ─▶ collector
//!   └─▶ the request's span ─▶ queue ─▶ collector                    (spans.rs)          (sending.rs)
//! ```
//!
//! Nothing is begun, carried along or kept open while a call runs: its spans are made of durable rows when it has ended, with ids that
//! follow from those rows. So a restart, a failover to another node, a redial or another replica goes on with the same trace,
//! and what a process that died had not sent the next one does. Only the spans of requests and of deliveries are told as
//! they happen, through a queue that is full rather than slow. See docs/adr/0045.

mod metrics;
mod posting;
mod sending;
mod spans;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use axum::http::{HeaderMap, StatusCode};
use controlplane_core::{
    ids::{CallId, EventId},
    request::EventKind,
    trace::{Place, SpanId, TraceId, TraceParent, TraceState, traceparent},
};
use controlplane_store::{Store, calls::Call, events::Event, events::Subject, webhooks::Claimed};
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;
use rand::{Rng, rngs::StdRng};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

pub use self::posting::TraceError;
use self::{
    metrics::TraceMetrics,
    posting::Collector,
    sending::Sending,
    spans::{Sketch, call_span, pair, span_id},
};
use crate::{
    calls::chain,
    clock::{Chance, Clock},
    metrics::Metrics,
    replicas::Membership,
    settings::TraceSettings,
};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Spans of requests and deliveries that wait; more are dropped and counted.
const SPANS_MAX: usize = 2_048;
/// Calls that have ended and wait; more are found by the next look at the database.
const ENDED_MAX: usize = 8_192;

/// See the module.
pub struct Traces(Option<Arc<On>>);

/// What there is where traces are on.
struct On {
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Mutex<StdRng>,
    ratio: f64,
    spans: mpsc::Sender<SpanData>,
    ended: mpsc::Sender<CallId>,
    /// A call has ended for which the queue had no place.
    missed: AtomicBool,
    metrics: TraceMetrics,
    stop: watch::Sender<bool>,
    /// Until it is started.
    sending: Mutex<Option<Sending>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A request for a call that is followed.
pub(crate) struct Asking {
    /// Where the call will stand: below the request.
    pub(crate) place: Place,
    request: SpanId,
    caller: Option<SpanId>,
    from: OffsetDateTime,
}

/// A try to deliver an event of a call that is followed.
pub(crate) struct Hop {
    place: Place,
    span: SpanId,
    call: CallId,
    event: EventId,
    kind: EventKind,
    from: OffsetDateTime,
}

impl Hop {
    /// What the receiver is told of it.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let state = self.place.state.as_ref().map(|state| (TRACESTATE, state.as_str().to_owned()));
        std::iter::once((TRACEPARENT, traceparent(self.place.trace, self.span))).chain(state)
    }
}

/// Whether traces can be sent as it is set, as far as this host tells.
///
/// # Errors
/// A secret or a CA that cannot be used.
pub fn check(settings: &TraceSettings) -> Result<(), TraceError> {
    Collector::of(settings).map(drop)
}

impl Traces {
    /// Reads the secrets and makes the client. Nothing is sent yet; [`Traces::keep`] does that.
    ///
    /// # Errors
    /// A secret or a CA that cannot be used.
    pub(crate) fn new(
        settings: &TraceSettings,
        store: Arc<dyn Store>,
        clock: Clock,
        chance: &Chance,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, TraceError> {
        let Some(collector) = Collector::of(settings)? else { return Ok(Arc::new(Self(None))) };
        let ((spans, waiting_spans), (ended, waiting_calls)) =
            (mpsc::channel(SPANS_MAX), mpsc::channel(ENDED_MAX));
        Ok(Arc::new(Self(Some(Arc::new(On {
            store,
            clock,
            chance: Mutex::new(chance.fork()),
            ratio: settings.ratio.into(),
            spans,
            ended,
            missed: AtomicBool::new(false),
            metrics: metrics.add_with(TraceMetrics::new)?,
            stop: watch::Sender::new(false),
            sending: Mutex::new(Some(Sending::new(collector, waiting_spans, waiting_calls))),
            task: Mutex::default(),
        })))))
    }

    /// Sends for as long as the program runs.
    pub(crate) fn keep(&self, membership: Arc<Membership>) {
        let Some(on) = &self.0 else { return };
        let sending = on.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sending) = sending else { return };
        let task = tokio::spawn(sending.run(Arc::clone(on), membership));
        *on.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Sends what waits, within a bound, and ends.
    pub(crate) async fn stop(&self) {
        let Some(on) = &self.0 else { return };
        on.stop.send_replace(true);
        let task = on.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        let abort = task.abort_handle();
        match timeout(sending::FLUSH_MAX * 2, task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "sending traces broke"),
            Err(_) => abort.abort(),
        }
    }

    /// Where a call would stand for which a request with these headers asks; `None`: it is not followed.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Asking> {
        let on = self.0.as_ref()?;
        let caller = one(headers, TRACEPARENT).and_then(|text| text.parse::<TraceParent>().ok());
        let trace = on.follow(caller)?;
        let state = caller.and_then(|_| TraceState::read(&all(headers, TRACESTATE)?));
        let request = on.span();
        Some(Asking {
            place: Place { trace, parent: Some(request), state },
            request,
            caller: caller.map(|caller| caller.span),
            from: on.clock.now(),
        })
    }

    /// Where a call stands that no program asks for: at the beginning of a trace.
    pub(crate) fn begin_alone(&self) -> Option<Place> {
        let trace = self.0.as_ref()?.follow(None)?;
        Some(Place { trace, parent: None, state: None })
    }

    /// A request was answered with a new call.
    pub(crate) fn answered(&self, asked: Asking, route: &'static str, status: StatusCode, call: &Call) {
        let Some(on) = &self.0 else { return };
        on.tell(Sketch {
            trace: asked.place.trace,
            id: asked.request,
            parent: asked.caller,
            is_remote: asked.caller.is_some(),
            kind: SpanKind::Server,
            name: format!("POST {route}").into(),
            from: asked.from,
            until: on.clock.now(),
            attributes: vec![
                pair("http.request.method", "POST"),
                pair("http.route", route),
                pair("url.path", route),
                pair("http.response.status_code", i64::from(status.as_u16())),
                pair("ringward.call.id", call.id.to_string()),
            ],
            events: Vec::new(),
            status: Status::Unset,
        });
    }

    /// A call has ended, followed or not.
    pub(crate) fn ended(&self, call: &CallId) {
        let Some(on) = &self.0 else { return };
        if on.ended.try_send(call.clone()).is_err() {
            on.missed.store(true, Ordering::Relaxed);
        }
    }

    /// The next try to deliver an event, if it is of a call that is followed.
    pub(crate) async fn hop(&self, event: &Event, claimed: &Claimed) -> Option<Hop> {
        let on = self.0.as_ref()?;
        let Subject::Call(call, _) = &event.subject else { return None };
        let place = match on.store.trace(&call.id).await {
            Ok(place) => place?,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "a call's trace could not be read: an event goes without it");
                return None;
            }
        };
        let of = format!("{}\n{}\n{}", event.id, claimed.target, claimed.epoch);
        let (span, call) = (span_id("delivery", &of), call.id.clone());
        Some(Hop { place, span, call, event: event.id.clone(), kind: event.kind, from: on.clock.now() })
    }

    /// What came of that try: the receiver's status, or how it failed.
    pub(crate) fn delivered(&self, hop: Hop, claimed: &Claimed, status: Option<u16>, failure: Option<&str>) {
        let Some(on) = &self.0 else { return };
        let mut attributes = vec![
            pair("http.request.method", "POST"),
            pair("ringward.call.id", hop.call.to_string()),
            pair("ringward.event.id", hop.event.to_string()),
            pair("ringward.event.type", hop.kind.as_str()),
        ];
        // Of the address its host alone: what follows may be a secret.
        if let Ok(url) = reqwest::Url::parse(&claimed.url) {
            attributes.extend(url.host_str().map(|host| pair("server.address", host.to_owned())));
            attributes.extend(url.port_or_known_default().map(|port| pair("server.port", i64::from(port))));
        }
        if claimed.tries > 0 {
            attributes.push(pair("http.request.resend_count", i64::from(claimed.tries)));
        }
        attributes.extend(status.map(|status| pair("http.response.status_code", i64::from(status))));
        if let Some(failure) = failure {
            let kind = status.map_or_else(|| failure.to_owned(), |status| status.to_string());
            attributes.push(pair("error.type", kind));
        }
        on.tell(Sketch {
            trace: hop.place.trace,
            id: hop.span,
            parent: Some(call_span(hop.call.as_str())),
            is_remote: false,
            kind: SpanKind::Client,
            name: "POST".into(),
            from: hop.from,
            until: on.clock.now(),
            attributes,
            events: Vec::new(),
            status: failure.map_or(Status::Unset, |failure| Status::error(failure.to_owned())),
        });
    }
}

impl On {
    /// The caller's trace where it is followed there; a new one, of a share, where no caller speaks of one.
    fn follow(&self, caller: Option<TraceParent>) -> Option<TraceId> {
        match caller {
            Some(TraceParent { trace, is_sampled, .. }) => is_sampled.then_some(trace),
            None => {
                let new = self.draw(TraceId::new);
                new.is_within(self.ratio).then_some(new)
            }
        }
    }

    fn span(&self) -> SpanId {
        self.draw(SpanId::new)
    }

    /// Random bytes, until they make an id.
    fn draw<const N: usize, T>(&self, id: impl Fn([u8; N]) -> Option<T>) -> T {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut bytes = [0; N];
            chance.fill(&mut bytes[..]);
            if let Some(id) = id(bytes) {
                return id;
            }
        }
    }

    fn tell(&self, span: Sketch) {
        if self.spans.try_send(span.data()).is_err() {
            self.metrics.spans_dropped.inc();
        }
    }
}

/// The value of a header that comes once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(())?;
    value.to_str().ok()
}

/// All lines of a header, as one.
fn all(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Result<Vec<_>, _> = headers.get_all(name).iter().map(|line| line.to_str()).collect();
    lines.ok().map(|lines| lines.join(","))
}
