//! The public status: what strangers see at its own door, and what they do not.

use std::{collections::BTreeSet, time::Duration};

use controlplane::http::routes::{Door as At, Needs, table};
use fake_pbx::Ending;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fixture::{Answer, Door, Fleet, NUMBER, eventually, talks};

/// A region's name that holds none of a node's.
const REGION: &str = "eu-east";

/// A fleet of one region with a public status, and that door.
async fn open() -> (Fleet, Door) {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| {
            settings.status.listen = Some(([127, 0, 0, 1], 0).into());
            settings.status.name = "Calls & <more>".to_owned();
        })
        .start()
        .await;
    fleet.apply(&fleet.toml().replace("r-waw-1", REGION), "").await.is(200);
    fleet.all_trunks_are_usable(true).await;
    let door = fleet.public();
    (fleet, door)
}

async fn json(door: &Door) -> Value {
    let answer = Answer::of_another_door(door.request(Method::GET, "/status.json")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// What lies ready is made anew when something is said.
async fn say(fleet: &Fleet, title: &str) -> String {
    let body = json!({"title": title, "text": "We look into it.\nMore soon."});
    let made = fleet.operator.post("/admin/v1/notices", &body).await.is(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn strangers_see_days_and_notices_and_nothing_of_what_is_inside() {
    let (fleet, door) = open().await;
    fleet.callee(NUMBER, talks(5));
    let call = fleet.call(NUMBER).place().await.ends().await;
    let key = fleet.api.key.clone().unwrap();
    fleet.later(90);
    let id = say(&fleet, "Calls to <b>Poland</b> are slow").await;
    eventually("the notice and the call are shown", async || {
        let shown = json(&door).await;
        shown["notices"][0]["id"] == id.as_str() && shown["delivery"]["ratio"] == 1.0
    })
    .await;
    let mut seen = 0;
    for route in table().iter().filter(|route| route.door == At::Public) {
        assert_eq!((route.needs, &route.method), (Needs::Nothing, &Method::GET), "{}", route.path);
        let answer = Answer::of_another_door(door.request(Method::GET, route.path)).await;
        assert_eq!(answer.status, 200, "{}", route.path);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(answer.header("cache-control").starts_with("public, max-age="));
        let address = fleet.pbx("waw-1").address().to_string();
        let inside = [
            "waw-1",
            "acme",
            NUMBER.trim_start_matches('+'),
            "org_",
            "default",
            "key_",
            &key,
            &address,
            "192.0.2.",
            "trunk",
            "node",
            call.0["id"].as_str().unwrap(),
            "call_",
            "127.0.0.1",
            "r-waw",
        ];
        for word in inside {
            assert!(!answer.text.contains(word), "{} tells {word}: {}", route.path, answer.text);
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
    let page = Answer::of_another_door(door.request(Method::GET, "/")).await;
    let policy = page.header("content-security-policy");
    assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    let text = &page.text;
    for inline in ["<script", " style=", "<style", " onload", "javascript:", "http://", "https://"] {
        assert!(!text.contains(inline), "{inline}: {text}");
    }
    assert!(text.contains(REGION) && text.contains("Call delivery") && text.contains("100 %"), "{text}");
    assert!(text.contains("Poland") && !text.contains("<b>"), "{text}");
    assert!(!text.contains("<more>"), "{text}");
}

#[tokio::test]
async fn a_region_that_is_down_and_calls_that_were_missed_are_told() {
    let (mut fleet, door) = open().await;
    eventually("it is up", async || json(&door).await["regions"][0]["state"] == "available").await;
    fleet.carrier("acme", Ending::Answer { talk: std::time::Duration::from_millis(5) });
    fleet.call(NUMBER).place().await.ends().await;
    fleet.later(61);
    say(&fleet, "One").await;
    eventually("the call is counted", async || json(&door).await["delivery"]["ratio"] == 1.0).await;
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    eventually("it is down", async || json(&door).await["state"] == "unavailable").await;
    let waits = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let missed = fleet.api.post("/v1/calls", &waits).await.is(201);
    let path = format!("/v1/calls/{}", missed["id"].as_str().unwrap());
    eventually("nobody could carry it", async || fleet.api.get(&path).await.is(200)["status"] == "failed")
        .await;
    fleet.later(61);
    say(&fleet, "Two").await;
    eventually("it is counted", async || json(&door).await["delivery"]["ratio"] == 0.5).await;
    let shown = json(&door).await;
    let (region, today) = (&shown["regions"][0], &shown["regions"][0]["days"][89]);
    assert_eq!((&region["name"], &region["state"]), (&json!(REGION), &json!("unavailable")));
    assert_eq!(region["days"].as_array().unwrap().len(), 90);
    let ratio = today["ratio"].as_f64().unwrap();
    assert!(ratio < 1.0, "{today}");
    assert!(region["days"][88]["ratio"].is_null());
    // Another process goes on from there, and what was away counts as down.
    fleet.stop().await;
    fleet.pbx("waw-1").open_port().await.unwrap();
    fleet.later(3_600);
    fleet.start_again().await;
    let door = fleet.public();
    eventually("the hour without a control plane is down", async || {
        say(&fleet, "Three").await;
        let shown = json(&door).await;
        shown["regions"][0]["days"][89]["ratio"].as_f64().is_some_and(|now| now < ratio / 2.0)
            && shown["delivery"]["ratio"] == 0.5
    })
    .await;
}

#[tokio::test]
async fn a_stranger_who_hammers_is_served_what_lies_ready_and_changes_nothing() {
    let (fleet, door) = open().await;
    // What it shows changes while the fleet comes up, and then every 30 s.
    const MADE_EVERY: Duration = Duration::from_secs(30);
    eventually("the region is up", async || json(&door).await["state"] == "available").await;
    let page = Answer::of_another_door(door.request(Method::GET, "/")).await;
    eventually("who has it already gets nothing", async || {
        let last = Answer::of_another_door(door.request(Method::GET, "/")).await;
        let tag = last.header("etag");
        let again = door.request(Method::GET, "/").header("if-none-match", tag);
        let again = Answer::of_another_door(again).await;
        (again.status, again.text.as_str(), again.header("etag")) == (304, "", tag)
    })
    .await;
    let (busy, began) = (fleet.busy(), Instant::now());
    const ASKED: u32 = 500;
    let mut served = BTreeSet::new();
    for _ in 0..ASKED {
        let answer = Answer::of_another_door(door.request(Method::GET, "/")).await;
        assert_eq!(answer.status, 200);
        served.insert((answer.header("etag").to_owned(), answer.text));
    }
    let made = began.elapsed().as_secs() / MADE_EVERY.as_secs() + 2;
    assert!(served.len() as u64 <= made, "{} pages in {:?}", served.len(), began.elapsed());
    println!(
        "{ASKED} pages of {} bytes: {:?} of the control plane's worker each, in {:?}",
        page.text.len(),
        (fleet.busy() - busy) / ASKED,
        began.elapsed()
    );
    let rows = fleet.audit().await.len();
    for (method, path, status) in [
        (Method::POST, "/", 405),
        (Method::DELETE, "/status.json", 405),
        (Method::POST, "/admin/v1/notices", 404),
        (Method::GET, "/admin/v1/nodes", 404),
        (Method::GET, "/metrics", 404),
        (Method::GET, "/v1/calls", 404),
        (Method::GET, "/healthz", 404),
        (Method::GET, "/sign-in", 404),
    ] {
        let request = door.request(method.clone(), path).bearer_auth(fleet.operator.key.as_deref().unwrap());
        let answer = Answer::of_another_door(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
    }
    assert_eq!(fleet.audit().await.len(), rows);
}

#[tokio::test]
async fn a_notice_is_said_told_more_of_and_ended() {
    let (fleet, door) = open().await;
    let id = say(&fleet, "Calls are slow").await;
    let updates = format!("/admin/v1/notices/{id}/updates");
    fleet.operator.post(&updates, &json!({"text": "Better now."})).await.is(200);
    let told = fleet.operator.post(&updates, &json!({"text": "It was a cable.", "ends": true})).await.is(200);
    assert!(told["ended_at"].is_string() && told["updates"].as_array().unwrap().len() == 3, "{told}");
    fleet.operator.post(&updates, &json!({"text": "x"})).await.is_problem(409, "limit_reached");
    eventually("everybody reads the end", async || {
        let shown = json(&door).await;
        shown["notices"][0]["updates"][0]["text"] == "It was a cable."
            && shown["notices"][0]["ended_at"].is_string()
    })
    .await;
    let page = Answer::of_another_door(door.request(Method::GET, "/")).await.text;
    assert!(page.find("Past notices") < page.find("Calls are slow"), "{page}");
    for (body, param) in
        [(json!({"title": "two\nlines", "text": "x"}), "title"), (json!({"title": "x", "text": " "}), "text")]
    {
        let problem = fleet.operator.post("/admin/v1/notices", &body).await.is_problem(422, "invalid_field");
        assert_eq!(problem["param"], param);
    }
    let none = "/admin/v1/notices/ntc_00000000000000000000000000/updates";
    fleet.operator.post(none, &json!({"text": "x"})).await.is_problem(404, "not_found");
    let gone = fleet.operator.request(Method::DELETE, &format!("/admin/v1/notices/{id}"));
    assert_eq!(Answer::to(gone).await.status, 204);
    eventually("nobody reads it", async || json(&door).await["notices"] == json!([])).await;
}
