//! A call as spans: made of its durable rows alone, once it has ended.
//!
//! ```text
//! POST /v1/calls            server     told when it was answered (`mod.rs`)
//! └─ call                   internal   accepted → ended
//!    ├─ wait                internal   for the first trunk, for another one, for a redial
//!    ├─ attempt             client     one Originate: node, trunk, how it ended, what followed
//!    │  ├─ ringing          internal   180 → answer or end
//!    │  └─ conversation     internal   answer → end; an event `key` where one was heard
//!    └─ POST                client     each try to deliver an event of it (`mod.rs`)
//! ```
//!
//! A span's id is a hash of what it tells of: whoever sends a call's spans again, after a kill or in another replica, sends the same
//! ones. Nothing of a number, a text or a customer's own words is in them.

use std::{borrow::Cow, time::SystemTime};

use controlplane_core::{
    call::CallStatus,
    ending::EndingClass,
    request::Content,
    trace::{SpanId, TraceId},
};
use controlplane_store::{
    calls::{Attempt, Call, Pressed},
    traces::Traced,
};
use opentelemetry::{
    InstrumentationScope, KeyValue, Value,
    trace::{Event, SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// What a span tells of, and the id that follows from it.
pub(super) fn span_id(what: &str, of: &str) -> SpanId {
    let hash = Sha256::digest(format!("ringward span\n{what}\n{of}"));
    let bytes = std::array::from_fn(|n| hash.get(n).copied().unwrap_or_default());
    // Zero is no id; it comes once in 2^64.
    SpanId::new(bytes).unwrap_or_else(|| span_id("again", what))
}

/// A span without what its kind adds.
pub(super) struct Sketch {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    /// Its parent is another program's.
    pub(super) is_remote: bool,
    pub(super) kind: SpanKind,
    pub(super) name: Cow<'static, str>,
    pub(super) from: OffsetDateTime,
    pub(super) until: OffsetDateTime,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) events: Vec<Event>,
    pub(super) status: Status,
}

impl Sketch {
    pub(super) fn data(self) -> SpanData {
        let mut events = SpanEvents::default();
        events.events = self.events;
        let (trace, id) = (otel_trace(self.trace), otel_span(self.id));
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: self.parent.map_or(opentelemetry::trace::SpanId::INVALID, otel_span),
            parent_span_is_remote: self.is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time: SystemTime::from(self.from),
            // Clocks are set: a span does not end before it begins.
            end_time: SystemTime::from(self.until.max(self.from)),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: self.status,
            instrumentation_scope: InstrumentationScope::builder("ringward")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn otel_trace(id: TraceId) -> opentelemetry::trace::TraceId {
    opentelemetry::trace::TraceId::from_bytes(id.bytes())
}

fn otel_span(id: SpanId) -> opentelemetry::trace::SpanId {
    opentelemetry::trace::SpanId::from_bytes(id.bytes())
}

pub(super) fn pair(name: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(name, value)
}

/// The id of a call's own span.
pub(super) fn call_span(call: &str) -> SpanId {
    span_id("call", call)
}

/// All spans of a call that has ended.
pub(super) fn of_call(Traced { place, call }: &Traced) -> Vec<SpanData> {
    let until = call.ended_at.unwrap_or(call.created_at);
    let spans = Spans { trace: place.trace, call, root: call_span(call.id.as_str()), until };
    let mut all = vec![spans.call(place.parent)];
    let mut before: Option<&Attempt> = None;
    for attempt in &call.attempts {
        all.push(spans.wait(before, Some(attempt)));
        spans.attempt(attempt, &mut all);
        before = Some(attempt);
    }
    // What it waited for without getting it.
    if before.is_none_or(|last| last.ended_at.is_some_and(|ended| ended < until)) {
        all.push(spans.wait(before, None));
    }
    all.into_iter().map(Sketch::data).collect()
}

struct Spans<'a> {
    trace: TraceId,
    call: &'a Call,
    root: SpanId,
    until: OffsetDateTime,
}

impl Spans<'_> {
    fn internal(
        &self,
        parent: SpanId,
        id: SpanId,
        name: &'static str,
        from: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Sketch {
        Sketch {
            trace: self.trace,
            id,
            parent: Some(parent),
            is_remote: false,
            kind: SpanKind::Internal,
            name: name.into(),
            from,
            until,
            attributes: Vec::new(),
            events: Vec::new(),
            status: Status::Unset,
        }
    }

    fn call(&self, parent: Option<SpanId>) -> Sketch {
        let (call, request) = (self.call, &self.call.request);
        let mut attributes = vec![
            pair("ringward.call.id", call.id.to_string()),
            pair("ringward.org.id", call.org.to_string()),
            pair("ringward.call.mode", call.mode.as_str()),
            pair("ringward.call.status", call.status.as_str()),
            pair("ringward.call.on_unknown", request.on_unknown.as_str()),
            pair("ringward.call.priority", request.priority.as_str()),
            pair("ringward.call.rounds", i64::from(call.round)),
            pair("ringward.call.attempts", i64::try_from(call.attempts.len()).unwrap_or(i64::MAX)),
            pair(
                "ringward.message.kind",
                match &request.message.content {
                    Content::Text { .. } => "text",
                    Content::Audio(_) => "audio",
                },
            ),
        ];
        attributes.extend(call.reason.map(|reason| pair("ringward.call.reason", reason.as_str())));
        attributes.extend(call.outcome.map(|outcome| pair("ringward.call.outcome", outcome.as_str())));
        let mut events = Vec::new();
        if let Some(at) = call.cancel_requested_at {
            events.push(event("cancel requested", at, Vec::new()));
        }
        let status = match (call.status, call.reason) {
            (CallStatus::Failed, reason) => {
                Status::error(reason.map_or_else(String::new, |reason| reason.as_str().to_owned()))
            }
            (
                CallStatus::Queued
                | CallStatus::Initiated
                | CallStatus::Ringing
                | CallStatus::InProgress
                | CallStatus::Completed
                | CallStatus::Busy
                | CallStatus::NoAnswer
                | CallStatus::Canceled,
                _,
            ) => Status::Unset,
        };
        Sketch {
            trace: self.trace,
            id: self.root,
            parent,
            is_remote: false,
            kind: SpanKind::Internal,
            name: "call".into(),
            from: call.created_at,
            until: self.until,
            attributes,
            events,
            status,
        }
    }

    /// From the attempt before to the next one, or to the call's end.
    fn wait(&self, before: Option<&Attempt>, next: Option<&Attempt>) -> Sketch {
        let from = before.map_or(self.call.created_at, |attempt| attempt.ended_at.unwrap_or(self.until));
        let round = next.map_or(self.call.round, |attempt| attempt.round);
        let wanted = match before {
            None => "trunk",
            Some(before) if before.round == round => "other_trunk",
            Some(_) => "redial",
        };
        let id = span_id("wait", next.map_or(self.call.id.as_str(), |attempt| attempt.id.as_str()));
        let until = next.map_or(self.until, |attempt| attempt.started_at);
        let mut span = self.internal(self.root, id, "wait", from, until);
        span.attributes =
            vec![pair("ringward.wait.for", wanted), pair("ringward.call.round", i64::from(round))];
        span
    }

    fn attempt(&self, attempt: &Attempt, all: &mut Vec<Sketch>) {
        let id = span_id("attempt", attempt.id.as_str());
        let until = attempt.ended_at.unwrap_or(self.until);
        let mut span = self.internal(self.root, id, "attempt", attempt.started_at, until);
        span.kind = SpanKind::Client;
        span.attributes = vec![
            pair("ringward.attempt.id", attempt.id.to_string()),
            pair("ringward.attempt.ordinal", i64::from(attempt.ordinal)),
            pair("ringward.call.round", i64::from(attempt.round)),
            pair("ringward.node", attempt.node.to_string()),
            pair("ringward.trunk", attempt.trunk.to_string()),
            pair("ringward.carrier", attempt.carrier.to_string()),
            pair("ringward.attempt.rang", attempt.rang.as_str()),
            pair("ringward.attempt.follows", self.follows(attempt)),
        ];
        let code = |name, code: Option<u16>| code.map(|code| pair(name, i64::from(code)));
        span.attributes.extend(code("ringward.sip.code", attempt.sip_code));
        span.attributes.extend(code("ringward.q850.cause", attempt.q850));
        span.attributes.extend(attempt.machine.map(|who| pair("ringward.attempt.answered_by", who.as_str())));
        if let Some(class) = attempt.ending {
            span.attributes.push(pair("ringward.attempt.ending", class.as_str()));
            if is_fault(class) {
                span.status = Status::error(class.as_str());
                span.attributes.push(pair("error.type", class.as_str()));
            }
        }
        all.push(span);
        if let Some(rang) = attempt.ringing_at {
            let until = attempt.answered_at.unwrap_or(until);
            let ringing = span_id("ringing", attempt.id.as_str());
            all.push(self.internal(id, ringing, "ringing", rang, until));
        }
        if let Some(answered) = attempt.answered_at {
            let conversation = span_id("conversation", attempt.id.as_str());
            let mut span = self.internal(id, conversation, "conversation", answered, until);
            let pressed = self.call.acknowledgement.filter(|pressed| attempt.key == Some(pressed.key));
            span.events.extend(pressed.map(|Pressed { action, at, .. }| {
                event("key", at, vec![pair("ringward.key.action", action.as_str())])
            }));
            all.push(span);
        }
    }

    /// What was decided when it had ended.
    fn follows(&self, attempt: &Attempt) -> &'static str {
        let later = |other: &&Attempt| other.ordinal > attempt.ordinal;
        match self.call.attempts.iter().find(later) {
            Some(next) if next.round == attempt.round => "other_trunk",
            Some(_) => "redial",
            // The round that it waited for did not begin.
            None if self.call.round > attempt.round => "redial",
            None => "end",
        }
    }
}

fn event(name: &'static str, at: OffsetDateTime, attributes: Vec<KeyValue>) -> Event {
    Event::new(name, SystemTime::from(at), attributes, 0)
}

/// Whether an ending speaks of a fault of trunk, carrier or node, and not of the callee or the customer.
const fn is_fault(class: EndingClass) -> bool {
    match class {
        EndingClass::Answered
        | EndingClass::UserBusy
        | EndingClass::Declined
        | EndingClass::RingTimeout
        | EndingClass::EndedAfterRinging
        | EndingClass::Unreachable
        | EndingClass::InvalidNumber
        | EndingClass::Canceled => false,
        EndingClass::NoMedia
        | EndingClass::NoKeys
        | EndingClass::EndedAfterProgress
        | EndingClass::Forbidden
        | EndingClass::Unauthorized
        | EndingClass::NotAcceptable
        | EndingClass::Redirected
        | EndingClass::Congestion
        | EndingClass::CarrierError
        | EndingClass::CarrierTimeout
        | EndingClass::CarrierSilent
        | EndingClass::NoProgress
        | EndingClass::ContactDown
        | EndingClass::NodeFault
        | EndingClass::NotSent
        | EndingClass::Rejected
        | EndingClass::Interrupted
        | EndingClass::Unknown => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use controlplane_core::{
        access::Mode,
        call::{AttemptStatus, Outcome, Rang, Reason},
        ids::{AttemptId, CallId, OrgId},
        trace::Place,
    };
    use controlplane_store::calls::Claim;
    use rand::{SeedableRng, rngs::StdRng};
    use time::{Duration, macros::datetime};

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn at(s: i64) -> OffsetDateTime {
        NOON + Duration::seconds(s)
    }

    fn attempt(n: u64, round: u16, from: i64, until: i64, ending: EndingClass) -> Attempt {
        Attempt {
            id: AttemptId::new(&mut StdRng::seed_from_u64(n)),
            ordinal: i32::try_from(n).unwrap(),
            round,
            node: "waw-1".parse().unwrap(),
            trunk: "acme-waw-1".parse().unwrap(),
            carrier: "acme".parse().unwrap(),
            status: AttemptStatus::Ended,
            ending: Some(ending),
            sip_code: None,
            q850: None,
            rang: Rang::No,
            key: None,
            machine: None,
            incarnation: None,
            started_at: at(from),
            ringing_at: None,
            answered_at: None,
            ended_at: Some(at(until)),
        }
    }

    fn traced(reason: Reason, round: u16, until: i64, attempts: Vec<Attempt>) -> Traced {
        let request = r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"}}"#;
        let call = Call {
            id: CallId::new(NOON, &mut StdRng::seed_from_u64(7)),
            org: OrgId::first(),
            mode: Mode::Live,
            request: serde_json::from_str(request).unwrap(),
            status: reason.status(),
            reason: Some(reason),
            outcome: Some(Outcome::NotTried),
            sequence: 9,
            created_at: NOON,
            deadline_at: at(60),
            cancel_requested_at: None,
            ended_at: Some(at(until)),
            round,
            redial_at: None,
            acknowledgement: None,
            claim: Claim::default(),
            attempts,
        };
        let place = Place { trace: TraceId::new([1; 16]).unwrap(), parent: None, state: None };
        Traced { place, call }
    }

    /// `name from-until what`, of each.
    fn told(traced: &Traced) -> Vec<String> {
        let spans = of_call(traced);
        let ids: BTreeSet<_> = spans.iter().map(|span| span.span_context.span_id().to_string()).collect();
        assert_eq!(ids.len(), spans.len());
        assert_eq!(spans, of_call(traced), "whoever makes them");
        let s = |time: SystemTime| (OffsetDateTime::from(time) - NOON).whole_seconds();
        let what = |span: &SpanData| {
            let of = ["ringward.wait.for", "ringward.attempt.follows", "ringward.call.reason"];
            let found = span.attributes.iter().find(|pair| of.contains(&pair.key.as_str()));
            found.map_or_else(String::new, |pair| pair.value.to_string())
        };
        spans
            .iter()
            .map(|span| format!("{} {}-{} {}", span.name, s(span.start_time), s(span.end_time), what(span)))
            .collect()
    }

    #[test]
    fn what_was_waited_for_is_told_also_where_it_did_not_come() {
        use EndingClass as C;
        let nothing = traced(Reason::NoHealthyRoute, 1, 10, vec![]);
        assert_eq!(told(&nothing), ["call 0-10 no_healthy_route", "wait 0-10 trunk"]);
        let attempts = vec![
            attempt(1, 1, 1, 2, C::Congestion),
            attempt(2, 1, 3, 5, C::UserBusy),
            attempt(3, 2, 20, 21, C::UserBusy),
        ];
        let redialled = traced(Reason::UserBusy, 2, 21, attempts.clone());
        assert_eq!(
            told(&redialled),
            [
                "call 0-21 user_busy",
                "wait 0-1 trunk",
                "attempt 1-2 other_trunk",
                "wait 2-3 other_trunk",
                "attempt 3-5 redial",
                "wait 5-20 redial",
                "attempt 20-21 end",
            ]
        );
        // Canceled while it waited for the round after that.
        let canceled = traced(Reason::Api, 3, 30, attempts);
        let told = told(&canceled);
        assert_eq!(told[6..], ["attempt 20-21 redial", "wait 21-30 redial"]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_span_that_ends_before_it_begins() {
        let back = traced(Reason::Played, 1, -5, vec![attempt(1, 1, -1, -4, EndingClass::Answered)]);
        for span in of_call(&back) {
            assert!(span.start_time <= span.end_time, "{span:?}");
        }
    }
}
