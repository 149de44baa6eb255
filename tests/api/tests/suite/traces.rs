//! One trace from `POST /v1/calls` to hangup, at a real OTLP receiver: whole over failover, redial and restart, and of no concern
//! to calls when the collector is in trouble.

use std::{collections::BTreeSet, time::Duration};

use api::overheard;
use controlplane::settings::{Ratio, Settings, TraceSettings};
use fake_pbx::{Ending, Plan};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    fixture::{
        Builder, Call, Collector, Fleet, Got, NUMBER, Plane, Receiver, Span, all_spans, eventually, one_span,
        slowly, talks,
    },
    webhooks::inner,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn caller(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn traced(builder: Builder, collector: &Collector, change: impl FnOnce(&mut TraceSettings)) -> Builder {
    let mut traces = collector.settings();
    change(&mut traces);
    builder.settings(move |settings: &mut Settings| {
        inner(settings);
        settings.reconcile_timeout_ms = 4_000;
        settings.traces = traces;
    })
}

async fn pair(collector: &Collector) -> Fleet {
    let fleet = traced(Fleet::of(&["waw-1", "fra-1"], &["acme"]), collector, |_| ()).start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

/// Every span once, each within the trace, and hanging from one of it.
#[track_caller]
fn is_whole(spans: &[Span], from: &str) {
    let ids: BTreeSet<_> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "a span came twice: {spans:#?}");
    for span in spans {
        assert!(span.until >= span.from, "{span:#?}");
        assert!(span.parent == from || ids.contains(span.parent.as_str()), "of nobody: {span:#?}");
        assert_eq!(span.service, "ringward");
    }
}

async fn metric(fleet: &Fleet, name: &str) -> u64 {
    let text = fleet.metrics().await;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn one_trace_goes_from_the_request_over_two_nodes_to_the_hangup() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    overheard::remember("collector_secret_of_the_suite");
    std::fs::write(&file, "Bearer collector_secret_of_the_suite\n").unwrap();
    let square = Fleet::square().first_carrier_first();
    let fleet = traced(square, &collector, |traces| {
        traces.ratio = Ratio::try_from(0.0).unwrap();
        traces.header_files = [("authorization".to_owned(), file)].into();
    })
    .start()
    .await;
    fleet.carrier("acme", Ending::Sip(503));
    fleet.carrier("beta", Plan::pressing('1', Duration::from_millis(50)));
    for text in
        ["customersword_of_metadata", "customersword_of_dedup", "customersword_of_state", "48221110000"]
    {
        overheard::remember(text);
    }
    let call = fleet
        .call(NUMBER)
        .with("from", "+48221110000")
        .with("acknowledgement", json!({"keys": {"1": "acknowledge"}, "timeout_s": 5}))
        .with("callback", json!({"url": receiver.url(), "events": ["call.*"]}))
        .with("metadata", json!({"incident": "customersword_of_metadata"}))
        .with("dedup_key", "customersword_of_dedup")
        .header("traceparent", &caller("01"))
        .header("tracestate", "shop=customersword_of_state, other@dt=1")
        .place()
        .await;
    let ended = call.ends_as("completed", "acknowledged").await;
    let is_last = |got: &Got| got.body()["type"] == "call.finished";
    eventually("the last event", async || receiver.got().iter().any(is_last)).await;
    let events = receiver.got();
    let spans = collector.trace_of(&call.id, 7 + events.len()).await;
    is_whole(&spans, CALLER);
    assert!(spans.iter().all(|span| span.trace == TRACE));
    assert_eq!(spans[0].authorization.as_deref(), Some("Bearer collector_secret_of_the_suite"));

    let request = one_span(&spans, "POST /v1/calls");
    assert_eq!((request.kind, request.parent.as_str()), (SERVER, CALLER));
    request.says("http.request.method", "POST");
    request.says("http.route", "/v1/calls");
    request.says("http.response.status_code", 201);
    request.says("ringward.call.id", call.id.as_str());

    let whole = one_span(&spans, "call");
    assert_eq!(whole.parent, request.id);
    whole.says("ringward.call.reason", "acknowledged");
    whole.says("ringward.call.outcome", "acknowledged");
    whole.says("ringward.call.attempts", 2);
    assert!(!whole.is_error);

    let [first, second] = all_spans(&spans, "attempt")[..] else { panic!("two attempts: {spans:#?}") };
    for (span, attempt) in [first, second].into_iter().zip(ended.attempts()) {
        assert_eq!((span.parent.as_str(), span.kind), (whole.id.as_str(), CLIENT));
        assert!(whole.from <= span.from && span.until <= whole.until, "{span:#?} in {whole:#?}");
        for (name, field) in [
            ("ringward.attempt.id", "id"),
            ("ringward.node", "node"),
            ("ringward.trunk", "trunk"),
            ("ringward.carrier", "carrier"),
            ("ringward.attempt.ending", "reason"),
            ("ringward.attempt.rang", "rang"),
        ] {
            span.says(name, attempt[field].clone());
        }
    }
    first.says("ringward.sip.code", 503);
    first.says("ringward.attempt.follows", "other_trunk");
    second.says("ringward.attempt.follows", "end");
    assert!(first.is_error && !second.is_error);
    assert_ne!(first.attributes["ringward.node"], second.attributes["ringward.node"]);

    let waits = all_spans(&spans, "wait");
    let wanted: Vec<_> = waits.iter().map(|span| span.attributes["ringward.wait.for"].clone()).collect();
    assert_eq!(wanted, ["trunk", "other_trunk"]);
    assert_eq!((waits[0].from, waits[0].until), (whole.from, first.from));
    assert_eq!((waits[1].from, waits[1].until), (first.until, second.from));
    let (ringing, talk) = (one_span(&spans, "ringing"), one_span(&spans, "conversation"));
    assert_eq!((&ringing.parent, &talk.parent), (&second.id, &second.id));
    assert_eq!(talk.events[0].0, "key");
    assert_eq!(talk.events[0].1["ringward.key.action"], "acknowledge");

    // The customer's receiver is told where each event belongs.
    let deliveries = all_spans(&spans, "POST");
    assert_eq!(deliveries.len(), events.len());
    for (span, got) in deliveries.iter().zip(&events) {
        assert_eq!((span.parent.as_str(), span.kind), (whole.id.as_str(), CLIENT));
        span.says("http.response.status_code", 204);
        span.says("server.address", "127.0.0.1");
        span.says("ringward.event.id", got.id());
        assert_eq!(got.headers["traceparent"], format!("00-{TRACE}-{}-01", span.id));
        assert_eq!(got.headers["tracestate"], "shop=customersword_of_state,other@dt=1");
    }
}

#[tokio::test]
async fn a_call_whose_control_plane_is_killed_goes_on_in_its_trace() {
    let collector = Collector::start().await;
    let mut fleet = pair(&collector).await;
    slowly(&fleet, Duration::from_millis(600));
    fleet.callee(NUMBER, talks(600));
    let call = fleet.call(NUMBER).or_fail().header("traceparent", &caller("01")).place().await;
    call.becomes("ringing").await;
    let id = call.id.clone();
    // The request's span is told as it is answered.
    eventually("the request's span", async || !collector.got().is_empty()).await;
    fleet.kill().await;
    fleet.start_again().await;
    Call::again(&fleet, &id).ends_as("completed", "played").await;
    let spans = collector.trace_of(&id, 4).await;
    is_whole(&spans, CALLER);
    assert_eq!(one_span(&spans, "call").parent, one_span(&spans, "POST /v1/calls").id);
    assert_eq!(one_span(&spans, "call").trace, TRACE);
    assert_eq!(all_spans(&spans, "attempt").len(), 1);
}

/// What had ended and was not sent when the process died is sent by the next one, once.
#[tokio::test]
async fn what_a_killed_process_had_not_sent_the_next_one_does() {
    let collector = Collector::start().await;
    let mut fleet = pair(&collector).await;
    collector.replies(503, Duration::ZERO);
    let mut ids = Vec::new();
    for n in 0..5 {
        let call = fleet.call(&format!("+4822123450{n}")).place().await;
        call.ends_as("completed", "played").await;
        ids.push(call.id.clone());
    }
    eventually("a post was refused", async || collector.posts() > 0).await;
    fleet.kill().await;
    assert_eq!(collector.got(), []);
    collector.replies(200, Duration::ZERO);
    fleet.start_again().await;
    for id in &ids {
        let spans = collector.trace_of(id, 4).await;
        // Of the request nothing is durable: what hung from it shows that there was one.
        is_whole(&spans, &one_span(&spans, "call").parent);
    }
    // Once that is written, a third process finds nothing. (A kill before it sends the same spans once more, under the same ids.)
    eventually("that is written", async || {
        fleet.database.count("SELECT count(*) FROM trace WHERE sent_at IS NULL").await == 0
    })
    .await;
    fleet.kill().await;
    fleet.start_again().await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    sleep(Duration::from_millis(1_500)).await;
    for id in &ids {
        let spans = collector.trace_of(id, 4).await;
        one_span(&spans, "call");
    }
}

#[tokio::test]
async fn an_orderly_stop_sends_what_waits() {
    let collector = Collector::start().await;
    let mut fleet = pair(&collector).await;
    let call = fleet.call(NUMBER).place().await;
    call.ends_as("completed", "played").await;
    let id = call.id.clone();
    fleet.stop().await;
    let spans = collector.got();
    assert!(spans.iter().any(|span| span.name == "call"), "{spans:#?}");
    is_whole(&spans, "");
    one_span(&spans, "POST /v1/calls").says("ringward.call.id", id);
}

#[tokio::test]
async fn a_collector_in_trouble_is_of_no_concern_to_calls() {
    let collector = Collector::start().await;
    let mut fleet = pair(&collector).await;
    let calls = async |fleet: &Fleet, n: usize| {
        for n in 10 * n..10 * n + 4 {
            fleet.call(&format!("+482212346{n:02}")).place().await.ends_as("completed", "played").await;
        }
    };
    // It refuses for good: that is counted, and not sent again.
    collector.replies(400, Duration::ZERO);
    calls(&fleet, 0).await;
    for name in ["exports_failed", "calls_dropped", "spans_dropped"] {
        let name = format!("ringward_trace_{name}_total");
        eventually(&name, async || metric(&fleet, &name).await >= 1).await;
    }
    // It never answers: whatever waits, a stop does not wait for it for long.
    collector.replies(200, Duration::from_secs(3_600));
    let before = collector.posts();
    calls(&fleet, 1).await;
    eventually("it was posted to", async || collector.posts() > before).await;
    calls(&fleet, 2).await;
    let stopping = Instant::now();
    fleet.stop().await;
    // 3 s are for the collector; the rest is what a slow machine needs for everything else.
    assert!(stopping.elapsed() < Duration::from_secs(15), "{:?}", stopping.elapsed());
    assert_eq!(collector.got(), []);
    // It is away.
    drop(collector);
    fleet.start_again().await;
    fleet.all_trunks_are_usable(true).await;
    calls(&fleet, 3).await;
}

#[tokio::test]
async fn what_a_caller_sends_is_continued_where_it_is_well_formed() {
    let collector = Collector::start().await;
    let fleet = pair(&collector).await;
    let place = async |headers: &[(&str, &str)]| {
        let mut request = fleet.call(NUMBER);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let call = request.place().await;
        call.ends_as("completed", "played").await;
        call.id.clone()
    };
    for malformed in [
        "",
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ] {
        let id = place(&[("traceparent", malformed)]).await;
        let spans = collector.trace_of(&id, 5).await;
        is_whole(&spans, "");
        assert_ne!(spans[0].trace, TRACE, "{malformed}");
        assert_eq!(one_span(&spans, "POST /v1/calls").parent, "", "{malformed}");
    }
    // Two are none.
    let id = place(&[("traceparent", &caller("01")), ("traceparent", &caller("01"))]).await;
    assert_ne!(collector.trace_of(&id, 5).await[0].trace, TRACE);
    // The caller does not follow it: nor do we.
    let quiet = place(&[("traceparent", &caller("00"))]).await;
    let loud = place(&[("traceparent", &caller("01"))]).await;
    is_whole(&collector.trace_of(&loud, 5).await, CALLER);
    let of_quiet = |span: &Span| span.attributes.get("ringward.call.id") == Some(&json!(quiet));
    assert!(!collector.got().iter().any(of_quiet));
}

#[tokio::test]
async fn a_redial_is_in_the_same_trace() {
    let collector = Collector::start().await;
    let fleet = pair(&collector).await;
    fleet.callee(NUMBER, Ending::Busy486);
    let redial = json!({"on": ["busy"], "max": 1, "delay_s": 3});
    let call = fleet.call(NUMBER).with("redial", redial).place().await;
    eventually("it waits for its round", async || !call.now().await["redial_at"].is_null()).await;
    fleet.callee(NUMBER, talks(5));
    call.ends_as("completed", "played").await;
    let spans = collector.trace_of(&call.id, 7).await;
    is_whole(&spans, "");
    let [first, second] = all_spans(&spans, "attempt")[..] else { panic!("two attempts: {spans:#?}") };
    first.says("ringward.attempt.follows", "redial");
    second.says("ringward.call.round", 2);
    assert!(!first.is_error, "a callee who is busy is no fault");
    let wait = all_spans(&spans, "wait")[1];
    wait.says("ringward.wait.for", "redial");
    assert!(wait.until - wait.from > 2_500_000_000);
}

#[tokio::test]
async fn where_it_is_off_nothing_is_kept_or_told() {
    let receiver = Receiver::start().await;
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(inner).start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    let callback = json!({"url": receiver.url(), "events": ["call.*"]});
    let request = fleet.call(NUMBER).with("callback", callback).header("traceparent", &caller("01"));
    request.place().await.ends_as("completed", "played").await;
    for got in receiver.gets(4).await {
        assert!(!got.headers.contains_key("traceparent") && !got.headers.contains_key("tracestate"));
    }
    assert_eq!(fleet.database.count("SELECT count(*) FROM trace").await, 0);
    assert!(!fleet.metrics().await.contains("ringward_trace_"));
}

#[tokio::test]
async fn a_share_of_nothing_follows_only_who_asks_for_it() {
    let collector = Collector::start().await;
    let nothing = |traces: &mut TraceSettings| traces.ratio = Ratio::try_from(0.0).unwrap();
    let fleet = traced(Fleet::of(&["waw-1"], &["acme"]), &collector, nothing).start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    assert_eq!(fleet.database.count("SELECT count(*) FROM trace").await, 0);
    let call = fleet.call(NUMBER).header("traceparent", &caller("01")).place().await;
    call.ends_as("completed", "played").await;
    is_whole(&collector.trace_of(&call.id, 5).await, CALLER);
    assert!(collector.got().iter().all(|span| span.trace == TRACE));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = crate::fixture::settings(folder.path());
    settings.traces.endpoint = Some("https://collector.example/v1/traces".to_owned());
    settings.traces.header_files = [("authorization".to_owned(), folder.path().join("none"))].into();
    let url = format!("sqlite://{}", folder.path().join("ringward.db").display());
    let Err(error) = Plane::start(settings, url).await else { panic!("it started") };
    assert!(error.contains("traces.header_files.authorization") && error.contains("No such file"), "{error}");
}

/// Whoever goes on with a dead replica's call goes on with its trace.
#[cfg(feature = "postgres-tests")]
#[tokio::test]
async fn another_replica_goes_on_with_the_trace() {
    let collector = Collector::start().await;
    let traces = collector.settings();
    let mut fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(move |settings| {
            settings.replicas.enabled = true;
            settings.reconcile_timeout_ms = 2_000;
            settings.node_return_ms = 3_000;
            settings.traces = traces;
        })
        .start()
        .await;
    slowly(&fleet, Duration::from_millis(300));
    fleet.callee(NUMBER, talks(6_000));
    let beside = crate::fixture::Beside::start(&fleet).await;
    let call = fleet.call(NUMBER).or_fail().header("traceparent", &caller("01")).place().await;
    call.becomes("ringing").await;
    eventually("the request's span", async || !collector.got().is_empty()).await;
    let id = call.id.clone();
    fleet.kill().await;
    eventually("it ends at the other one", async || {
        let call = beside.api.get(&format!("/v1/calls/{id}")).await.is(200);
        call["reason"] == "played"
    })
    .await;
    let spans = collector.trace_of(&id, 4).await;
    is_whole(&spans, CALLER);
    assert_eq!(one_span(&spans, "call").parent, one_span(&spans, "POST /v1/calls").id);
}
