//! The feed of changes: what dies is told within two seconds, and the feed ends with its session.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::escaping::{HOSTILE, is_escaped};
use crate::fixture::{Browser, Fleet};

/// A stream of a page's changes.
struct Stream {
    answer: Response,
    text: String,
}

impl Stream {
    async fn of(browser: &Browser, since: &str) -> Self {
        let answer = browser.request(Method::GET, &format!("/live?since={since}")).send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["content-type"].to_str().unwrap()),
            (reqwest::StatusCode::OK, "text/event-stream")
        );
        Self { answer, text: String::new() }
    }

    /// From the moment of a page.
    async fn from_page(browser: &Browser) -> Self {
        let page = browser.page("/").await;
        let since = page.split("data-live=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        Self::of(browser, &since).await
    }

    /// Reads on until this is there; what came until then.
    async fn until(&mut self, what: &str) -> &str {
        self.until_it(what, |text| text.contains(what)).await
    }

    /// Reads on until what came is so.
    async fn until_it(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> &str {
        let reading = async {
            while !is_so(&self.text) {
                let part =
                    self.answer.chunk().await.unwrap().unwrap_or_else(|| panic!("over: {}", self.text));
                self.text.push_str(std::str::from_utf8(&part).unwrap());
            }
        };
        assert!(timeout(Duration::from_secs(10), reading).await.is_ok(), "no {what}");
        &self.text
    }

    async fn ends(&mut self) {
        let reading = async { while let Ok(Some(_)) = self.answer.chunk().await {} };
        timeout(Duration::from_secs(10), reading).await.unwrap();
    }
}

#[tokio::test]
async fn what_dies_is_told_to_every_open_page_within_two_seconds() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(Stream::from_page(&browser).await);
    }
    for stream in &mut streams {
        stream.until(": looking").await;
    }
    let began = Instant::now();
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    for stream in &mut streams {
        let text = stream.until("out of use").await;
        assert!(text.contains("event: parts") && text.contains("id=\"n-waw-1\"") && !text.contains("stale"));
        stream.until("id=\"troubles\"").await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("a lost session was in five open pages after {took:?}");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_or_says_that_it_cannot() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let mut first = Stream::from_page(&browser).await;
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &json!({"reason": HOSTILE})).await.is(200);
    let text = first.until("disabled by an operator").await.to_owned();
    is_escaped(&text, true);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let is_field = ["id: ", "event: ", "data: ", "retry: ", ": "].iter().any(|f| line.starts_with(f));
        assert!(is_field || line == "data:", "{line:?}");
    }
    let id = text.split("id: ").nth(1).unwrap().lines().next().unwrap();
    let (run, number) = id.split_once('-').unwrap();
    // Who was told less is told the rest; whose mark is another process's asks for the page anew.
    let before = number.parse::<u64>().unwrap() - 1;
    let mut second = Stream::of(&browser, &format!("{run}-{before}")).await;
    assert!(!second.until("disabled by an operator").await.contains("stale"));
    for mark in [format!("00000000-{number}"), "nonsense".to_owned(), format!("{run}-99999")] {
        Stream::of(&browser, &mark).await.until("event: stale").await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_key_and_at_once_when_the_program_stops() {
    let mut fleet = Fleet::small().await;
    let body = json!({"name": "short", "operator": true, "role": "viewer"});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let viewer = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    let admin = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let (mut short, mut long) = (Stream::from_page(&viewer).await, Stream::from_page(&admin).await);
    short.until(": looking").await;
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    let began = Instant::now();
    fleet.operator.post(&revoke, &json!({})).await.is(200);
    short.ends().await;
    assert!(began.elapsed() < Duration::from_secs(2));
    long.until(": looking").await;
    let began = Instant::now();
    fleet.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    long.ends().await;
}

/// Whoever reads nothing holds nothing up, and is asked to look anew when it reads again.
#[tokio::test]
async fn a_reader_that_does_not_read_costs_nobody_anything() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let slow = Stream::from_page(&browser).await;
    let mut reads = Stream::from_page(&browser).await;
    for n in 0..20 {
        let action = if n % 2 == 0 { "disable" } else { "enable" };
        fleet.operator.post(&format!("/admin/v1/trunks/acme-waw-1/{action}"), &json!({})).await.is(200);
        // What follows within one look is one change: the next only when this one was told.
        let is_told =
            |text: &str| text.contains("acme-waw-1") && text.contains("<i>disabled</i>") == (n % 2 == 0);
        reads.until_it(action, is_told).await;
        reads.text.clear();
    }
    drop(slow);
}
