//! The stream of events: nothing is missed and nothing comes twice, over restarts too.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::fixture::{Door, Fleet, NUMBER, eventually, talks};

/// Longer than an event takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream, and what of it is not yet read.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(fleet: &Fleet, last: Option<&str>) -> Self {
        Self::open_at(&fleet.api, last).await
    }

    async fn open_at(door: &Door, last: Option<&str>) -> Self {
        let mut request = door.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event, or `None` at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        timeout(PATIENCE, async {
            loop {
                if let Some((block, rest)) = self.text.split_once("\n\n") {
                    let (block, rest) = (block.to_owned(), rest.to_owned());
                    self.text = rest;
                    if let Some(event) = event(&block) {
                        return Some(event);
                    }
                    continue;
                }
                let part = self.response.chunk().await.ok().flatten()?;
                self.text.push_str(std::str::from_utf8(&part).unwrap());
            }
        })
        .await
        .expect("no event came")
    }

    async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("the stream ended"));
        }
        events
    }
}

/// What a block of lines says; a comment says nothing.
fn event(block: &str) -> Option<Value> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let data: Value = serde_json::from_str(field("data:")?).unwrap();
    assert_eq!(field("id:"), data["id"].as_str(), "{block}");
    assert_eq!(field("event:"), data["type"].as_str(), "{block}");
    Some(data)
}

fn steps(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event["sequence"], event["type"].as_str().unwrap())).collect()
}

const ANSWERED: [&str; 4] = ["2 call.initiated", "3 call.ringing", "4 call.answered", "5 call.finished"];

#[tokio::test]
async fn a_stream_tells_what_happens_from_now_on() {
    let fleet = Fleet::small().await;
    fleet.call(NUMBER).place().await.ends().await;
    eventually("the first call's events are there", async || {
        fleet.api.get("/v1/events").await.is(200)["data"].as_array().unwrap().len() == 4
    })
    .await;
    let mut stream = Stream::open(&fleet, None).await;
    let call = fleet.call(NUMBER).place().await;
    let events = stream.take(4).await;
    assert_eq!(steps(&events), ANSWERED);
    assert!(events.iter().all(|event| event["data"]["id"] == call.id));
    let list = fleet.api.get("/v1/events?limit=100").await.is(200);
    assert_eq!(list["data"].as_array().unwrap()[4..], events);
}

#[tokio::test]
async fn pages_go_forward_from_the_oldest() {
    let fleet = Fleet::small().await;
    fleet.call(NUMBER).place().await.ends().await;
    let mut seen = Vec::new();
    eventually("four events", async || {
        fleet.api.get("/v1/events").await.is(200)["data"].as_array().unwrap().len() == 4
    })
    .await;
    let mut query = "/v1/events?limit=3".to_owned();
    loop {
        let page = fleet.api.get(&query).await.is(200);
        seen.extend(page["data"].as_array().unwrap().clone());
        if page["has_more"] == false {
            break;
        }
        query = format!("/v1/events?limit=3&starting_after={}", seen.last().unwrap()["id"].as_str().unwrap());
    }
    assert_eq!(steps(&seen), ANSWERED);
    let problem = fleet.api.get("/v1/events?starting_after=evt_00000000000000000000000000").await;
    assert_eq!(problem.is_problem(422, "invalid_field")["param"], "starting_after");
    fleet.api.get("/v1/events?limit=0").await.is_problem(422, "invalid_field");
    fleet.api.without_key().get("/v1/events").await.is_problem(401, "unauthenticated");
}

/// Calls go on while the reader, and the control plane, come and go.
#[tokio::test]
async fn a_stream_is_resumed_over_restarts_without_a_gap_or_a_repeat() {
    let mut fleet = Fleet::square().start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(150)));
    let mut stream = Stream::open(&fleet, None).await;
    let (mut seen, mut ids) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for n in 0..6 {
            ids.push(fleet.call(&format!("+4822123{round}{n:03}")).place().await.id);
        }
        // Some are read before it dies.
        seen.extend(stream.take(5).await);
        if round == 1 {
            fleet.stop().await;
            while let Some(event) = stream.next().await {
                seen.push(event);
            }
        } else {
            fleet.kill().await;
        }
        fleet.start_again().await;
        let last = seen.last().unwrap()["id"].as_str().unwrap().to_owned();
        stream = Stream::open(&fleet, Some(&last)).await;
    }
    let finished = |seen: &[Value]| seen.iter().filter(|event| event["type"] == "call.finished").count();
    while finished(&seen) < ids.len() {
        seen.extend(stream.take(1).await);
    }
    for id in &ids {
        let of: Vec<_> = seen.iter().filter(|event| event["data"]["id"] == id.as_str()).collect();
        let sequences: Vec<_> = of.iter().map(|event| event["sequence"].as_i64().unwrap()).collect();
        assert!(sequences.iter().copied().eq(2..2 + sequences.len() as i64), "{id}: {sequences:?}");
        assert_eq!(of.last().unwrap()["type"], "call.finished");
    }
}

#[tokio::test]
async fn an_event_reaches_an_open_stream_at_once() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, talks(300));
    let mut stream = Stream::open(&fleet, None).await;
    let mut waits = Vec::new();
    for _ in 0..5 {
        let call = fleet.call(NUMBER).place().await;
        let answered = stream.take(3).await.pop().unwrap();
        let at = answered["created_at"].as_str().unwrap();
        let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).unwrap();
        #[allow(clippy::disallowed_methods, reason = "the reader has a clock of its own")]
        waits.push(time::OffsetDateTime::now_utc() - at);
        stream.take(1).await;
        call.ends().await;
    }
    waits.sort();
    println!("from the event to its reader: median {}, slowest {}", waits[2], waits[4]);
    assert!(waits[2] < time::Duration::milliseconds(300), "{waits:?}");
}

#[tokio::test]
async fn a_stop_ends_streams_and_there_are_only_so_many() {
    let mut fleet = Fleet::small().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&fleet, None).await);
    }
    let request = fleet.api.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
    let refused = crate::fixture::Answer::to(request).await;
    refused.is_problem(429, "too_many_streams");
    drop(streams.pop());
    eventually("a place is free again", async || fleet.metrics().await.contains("ringward_event_streams 19"))
        .await;
    streams.push(Stream::open(&fleet, None).await);
    let before = Instant::now();
    fleet.stop().await;
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    assert!(streams[0].next().await.is_none());
    assert_eq!(json!(streams.len()), 20);
}

/// So that nobody in between takes the connection for dead.
#[tokio::test]
async fn silence_is_broken_by_a_comment_every_fifteen_seconds() {
    let fleet = Fleet::small().await;
    let mut stream = Stream::open(&fleet, None).await;
    let start = Instant::now();
    for nth in 1..=2 {
        let part = timeout(PATIENCE, stream.response.chunk()).await.expect("silence").unwrap().unwrap();
        assert!(part.starts_with(b":"), "{part:?}");
        let after = start.elapsed().as_secs_f64() / f64::from(nth);
        assert!((14.0..17.0).contains(&after), "{after}");
    }
}

#[tokio::test]
async fn a_revoked_key_s_stream_ends_within_seconds_and_no_other() {
    let fleet = Fleet::small().await;
    let second = fleet.operator.post("/admin/v1/keys", &json!({"name": "second"})).await.is(201);
    let mut revoked = Stream::open_at(&fleet.api.with_key(second["secret"].as_str().unwrap()), None).await;
    let mut other = Stream::open(&fleet, None).await;
    fleet.call(NUMBER).place().await.ends().await;
    assert_eq!(steps(&revoked.take(4).await), ANSWERED);
    let path = format!("/admin/v1/keys/{}/revoke", second["id"].as_str().unwrap());
    fleet.operator.post(&path, &json!({})).await.is(200);
    let ended = timeout(Duration::from_secs(9), revoked.next()).await.expect("it goes on");
    assert!(ended.is_none(), "{ended:?}");
    fleet.call(NUMBER).place().await.ends().await;
    assert_eq!(other.take(8).await.len(), 8);
}
