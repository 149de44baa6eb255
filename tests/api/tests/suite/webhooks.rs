//! Webhooks, to real receivers over HTTP: signed, in order, at least once, and one receiver's trouble is its own.

use std::time::Duration;

use controlplane::settings::{Settings, WebhookSettings};
use fake_pbx::{Ending, Plan, Said};
use reqwest::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;

use crate::fixture::{Answer, Fleet, Got, NUMBER, Receiver, Reply, eventually, slowly, talks};

/// Receivers of these tests are on this machine.
pub(crate) fn inner(settings: &mut Settings) {
    settings.webhooks = WebhookSettings {
        allow_http: true,
        allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
        ..WebhookSettings::default()
    };
}

async fn fleet() -> Fleet {
    Fleet::of(&["waw-1"], &["acme"]).settings(inner).start().await
}

/// An endpoint at a receiver, as its owner sees it.
async fn endpoint(fleet: &Fleet, url: &str, events: &[&str]) -> Value {
    fleet.api.post("/v1/webhook_endpoints", &json!({"url": url, "events": events})).await.is(201)
}

fn path(endpoint: &Value, rest: &str) -> String {
    format!("/v1/webhook_endpoints/{}{rest}", endpoint["id"].as_str().unwrap())
}

async fn deliveries(fleet: &Fleet, endpoint: &Value) -> Vec<Value> {
    let list = fleet.api.get(&path(endpoint, "/deliveries?limit=100")).await.is(200);
    list["data"].as_array().unwrap().clone()
}

/// The one delivery there is, once it has been tried so often.
async fn tried(fleet: &Fleet, endpoint: &Value, times: u64) -> Value {
    eventually(&format!("tried {times} times"), async || {
        deliveries(fleet, endpoint).await.first().is_some_and(|delivery| delivery["tries"] == times)
    })
    .await;
    deliveries(fleet, endpoint).await[0].clone()
}

fn steps(got: &[Got]) -> Vec<String> {
    got.iter().map(Got::step).collect()
}

const ANSWERED: [&str; 4] = ["2 call.initiated", "3 call.ringing", "4 call.answered", "5 call.finished"];

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

#[tokio::test]
async fn a_call_s_events_arrive_signed_and_in_order() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    let endpoint = endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    let secret = endpoint["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{endpoint}");
    let call = fleet.call(NUMBER).with("metadata", json!({"incident": "991"})).place().await;
    call.ends_as("completed", "played").await;
    let got = receiver.gets(4).await;
    assert_eq!(steps(&got), ANSWERED);
    let statuses: Vec<_> = got.iter().map(|got| got.body()["data"]["status"].clone()).collect();
    assert_eq!(statuses, ["initiated", "ringing", "in_progress", "completed"]);
    for one in &got {
        let body = one.body();
        assert!(one.is_signed_with(secret) && !one.is_signed_with("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        assert_eq!((&body["id"], body["data"]["id"].as_str()), (&json!(one.id()), Some(call.id.as_str())));
        assert_eq!(
            (&body["data"]["sequence"], &body["data"]["metadata"]["incident"]),
            (&body["sequence"], &json!("991"))
        );
        let timestamp: i64 = one.headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        assert!((one.at.unix_timestamp() - timestamp).abs() <= 5);
        assert_eq!(one.headers["content-type"], "application/json");
    }
    // The end, as the call is shown; and before it, nothing of the end.
    assert_eq!(got[3].body()["data"], call.now().await);
    for (one, status) in got[..3].iter().zip(["sending", "ringing", "in_progress"]) {
        let data = one.body()["data"].clone();
        let attempt = &data["attempts"][0];
        assert_eq!(attempt["status"], status);
        for absent in [&data["outcome"], &data["ended_at"], &attempt["ended_at"], &attempt["reason"]] {
            assert!(absent.is_null(), "{data}");
        }
    }
    assert!(got[0].body()["data"]["attempts"][0]["ringing_at"].is_null());
    // The list says the same.
    let list = fleet.api.get("/v1/events").await.is(200);
    let bodies: Vec<_> = got.iter().map(Got::body).collect();
    assert_eq!(list["data"], json!(bodies));
    eventually("all are delivered", async || {
        deliveries(&fleet, &endpoint).await.iter().all(|delivery| delivery["state"] == "delivered")
    })
    .await;
    assert_eq!(receiver.got().len(), 4, "once each");
}

#[tokio::test]
async fn an_endpoint_gets_what_it_asked_for_and_a_callback_its_own_call() {
    let (fleet, ends, own) = (fleet().await, Receiver::start().await, Receiver::start().await);
    endpoint(&fleet, &ends.url(), &["call.finished"]).await;
    let secret = fleet.api.get("/v1/callback_secret").await.is(200)["secret"].as_str().unwrap().to_owned();
    let callback = json!({"url": own.url(), "events": ["call.ringing", "call.finished"]});
    let call = fleet.call(NUMBER).with("callback", callback).place().await;
    call.ends().await;
    fleet.call("+48221234568").place().await.ends().await;
    assert_eq!(steps(&ends.gets(2).await), ["5 call.finished", "5 call.finished"]);
    let got = own.gets(2).await;
    assert_eq!(steps(&got), ["3 call.ringing", "5 call.finished"]);
    assert!(got.iter().all(|got| got.is_signed_with(&secret) && got.body()["data"]["id"] == call.id));
    let list = fleet.api.get("/v1/webhook_endpoints/callback/deliveries").await.is(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert_eq!(list["data"][0]["endpoint"], "callback");
}

/// Failover is told, each attempt as it was.
#[tokio::test]
async fn an_attempt_that_failed_is_told_as_it_ended() {
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"]).first_carrier_first().settings(inner).start().await;
    let receiver = Receiver::start().await;
    endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    fleet.carrier("acme", Ending::Sip(503));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let got = receiver.gets(6).await;
    let expected = [
        "2 call.initiated",
        "3 call.attempt_failed",
        "4 call.initiated",
        "5 call.ringing",
        "6 call.answered",
        "7 call.finished",
    ];
    assert_eq!(steps(&got), expected);
    let attempts = |n: usize| got[n].body()["data"]["attempts"].as_array().unwrap().clone();
    assert_eq!((attempts(0).len(), &attempts(0)[0]["sip_code"]), (1, &Value::Null));
    assert_eq!((attempts(1).len(), &attempts(1)[0]["sip_code"]), (1, &json!(503)));
    assert_eq!((attempts(2).len(), &attempts(2)[1]["status"]), (2, &json!("sending")));
}

/// Two rounds and a key: each event knows what was known then.
#[tokio::test]
async fn rounds_and_keys_are_told_when_they_come() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    let soon = Duration::from_millis(50);
    fleet.callee(NUMBER, Ending::AnswerThenBye { talk: soon });
    let redial = json!({"on": ["answered_no_ack"], "max": 1, "delay_s": 1});
    let request = fleet.call(NUMBER).with("acknowledgement", json!({})).with("redial", redial);
    let call = request.place().await;
    let got = receiver.gets(4).await;
    let waiting = got[3].body()["data"].clone();
    assert_eq!((&waiting["status"], waiting["redial_at"].is_string()), (&json!("queued"), true), "{waiting}");
    fleet.callee(NUMBER, Plan::of(talks(300)).saying(soon, Said::Key('1')));
    let ended = call.ends_as("completed", "acknowledged").await;
    let got = receiver.gets(9).await;
    let expected = [
        "2 call.initiated",
        "3 call.ringing",
        "4 call.answered",
        "5 call.attempt_failed",
        "6 call.initiated",
        "7 call.ringing",
        "8 call.answered",
        "9 call.acknowledged",
        "10 call.finished",
    ];
    assert_eq!(steps(&got), expected);
    let data: Vec<_> = got.iter().map(|got| got.body()["data"].clone()).collect();
    assert!(data[..7].iter().all(|data| data["acknowledgement"].is_null()), "{data:?}");
    assert!(data[4..].iter().all(|data| data["redial_at"].is_null()), "{data:?}");
    assert!(data[..7].iter().all(|data| data["attempts"][1]["key"].is_null()), "{data:?}");
    assert_eq!((&data[7]["status"], &data[7]["attempts"][1]["key"]), (&json!("in_progress"), &json!("1")));
    assert_eq!(data[7]["acknowledgement"], ended.0["acknowledgement"]);
    assert_eq!(data[8], ended.0);
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_for_a_day_and_then_by_hand() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    receiver.replies(Reply::status(500));
    let endpoint = endpoint(&fleet, &receiver.url(), &["call.finished"]).await;
    fleet.call(NUMBER).place().await.ends().await;
    // Longest waits of the schedule, in seconds.
    for (tries, wait) in (1..).zip([5, 300, 1_800, 7_200, 18_000, 25_200, 32_400]) {
        let delivery = tried(&fleet, &endpoint, tries).await;
        assert_eq!((&delivery["state"], &delivery["last_status"]), (&json!("pending"), &json!(500)));
        let last = moment(&delivery["log"].as_array().unwrap().last().unwrap()["at"]);
        let waits = (moment(&delivery["next_try_at"]) - last).as_seconds_f64();
        assert!((0.79 * f64::from(wait)..=f64::from(wait)).contains(&waits), "{tries}: {waits}");
        assert_eq!(receiver.got().len() as u64, tries);
        fleet.later(i64::from(wait));
    }
    let delivery = tried(&fleet, &endpoint, 8).await;
    assert_eq!((&delivery["state"], &delivery["next_try_at"]), (&json!("dead"), &Value::Null));
    assert_eq!(delivery["log"].as_array().unwrap().len(), 8);
    fleet.later(86_400);
    sleep(Duration::from_secs(2)).await;
    let got = receiver.got();
    assert_eq!(got.len(), 8);
    let id = got[0].id();
    assert!(got.iter().all(|one| one.id() == id && one.bytes == got[0].bytes));
    receiver.replies(Reply::status(200));
    let replay = path(&endpoint, &format!("/deliveries/{id}/replay"));
    fleet.api.post(&replay, &json!({})).await.is(202);
    let delivery = tried(&fleet, &endpoint, 1).await;
    assert_eq!(delivery["state"], "delivered");
    assert_eq!(receiver.got().last().unwrap().id(), id);
    // An operator may too.
    let path = format!("/admin/v1/webhooks/deliveries/{id}/replay");
    fleet.operator.post(&path, &json!({"endpoint": endpoint["id"]})).await.is(202);
    receiver.gets(10).await;
    eventually("operators see it delivered", async || {
        let all = fleet.operator.get("/admin/v1/webhooks/deliveries?state=delivered").await.is(200);
        all["data"][0]["event"] == json!(id)
    })
    .await;
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_webhook_failures_total{class=\"status\"} 8"), "{metrics}");
    assert!(metrics.contains("ringward_webhook_dead_total 1"), "{metrics}");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    receiver.replies(Reply::status(429).header("retry-after", "120"));
    let endpoint = endpoint(&fleet, &receiver.url(), &["call.finished"]).await;
    fleet.call(NUMBER).place().await.ends().await;
    let delivery = tried(&fleet, &endpoint, 1).await;
    let waits = moment(&delivery["next_try_at"]) - moment(&delivery["log"][0]["at"]);
    assert!((waits.whole_seconds() - 120).abs() <= 1, "{waits}");
}

/// What fails first holds up what comes after it in the same call, and nothing of another call.
#[tokio::test]
async fn events_of_a_call_wait_for_the_one_before() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    receiver.replies(Reply::status(500));
    endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    let first = fleet.call(NUMBER).place().await;
    first.ends().await;
    receiver.gets(1).await;
    receiver.replies(Reply::status(200));
    let second = fleet.call("+48221234568").place().await;
    second.ends().await;
    let got = receiver.gets(5).await;
    assert_eq!(steps(&got[1..]), ANSWERED);
    assert!(got[1..].iter().all(|got| got.body()["data"]["id"] == second.id));
    fleet.later(5);
    let got = receiver.gets(9).await;
    assert_eq!(steps(&got[5..]), ANSWERED);
    assert_eq!(got[5].id(), got[0].id(), "the same id again");
}

#[tokio::test]
async fn what_was_sent_and_not_written_down_is_sent_again_after_a_kill() {
    let (mut fleet, receiver) = (fleet().await, Receiver::start().await);
    let endpoint = endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    // It has the event, and the control plane dies before it hears so.
    receiver.replies(Reply::status(200).after(Duration::from_secs(3)));
    slowly(&fleet, Duration::from_millis(100));
    let call = fleet.call(NUMBER).place().await.id;
    let first = receiver.gets(1).await;
    fleet.kill().await;
    receiver.replies(Reply::status(200));
    fleet.start_again().await;
    crate::fixture::Call::again(&fleet, &call).ends().await;
    // The dead process's claim is over.
    fleet.later(31);
    eventually("the end arrives", async || {
        receiver.got().last().is_some_and(|got| got.body()["type"] == "call.finished")
    })
    .await;
    let got = receiver.got();
    assert_eq!(got[1].id(), first[0].id(), "the same id again");
    let sequences: Vec<_> = got[1..].iter().map(|got| got.body()["sequence"].as_i64().unwrap()).collect();
    assert!(
        sequences.iter().copied().eq(2..2 + sequences.len() as i64),
        "in order, without a gap: {sequences:?}"
    );
    let finished = got.iter().filter(|got| got.body()["type"] == "call.finished").count();
    assert_eq!(finished, 1);
    eventually("all are delivered", async || {
        deliveries(&fleet, &endpoint).await.iter().all(|delivery| delivery["state"] == "delivered")
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_itself_alone() {
    const CALLS: usize = 20;
    let fleet = Fleet::square().settings(inner).start().await;
    let (healthy, hung) = (Receiver::start().await, Receiver::start().await);
    hung.replies(Reply::status(200).after(Duration::from_secs(60)));
    for _ in 0..10 {
        endpoint(&fleet, &hung.url(), &["call.*"]).await;
    }
    endpoint(&fleet, &healthy.url(), &["call.*"]).await;
    let mut ids = Vec::new();
    for n in 0..CALLS {
        ids.push(fleet.call(&format!("+4822123{n:04}")).place().await);
    }
    for call in &ids {
        call.ends().await;
    }
    let got = healthy.gets(CALLS * 4).await;
    assert!(!hung.got().is_empty());
    let late = |got: &Got| got.at - moment(&got.body()["created_at"]);
    let mut waits: Vec<_> = got.iter().map(late).collect();
    waits.sort();
    println!("healthy receiver: median {}, slowest {}", waits[waits.len() / 2], waits[waits.len() - 1]);
    assert!(waits[waits.len() - 1] < time::Duration::seconds(5), "{waits:?}");
    for call in &ids {
        let of: Vec<_> = got.iter().filter(|got| got.body()["data"]["id"] == call.id).cloned().collect();
        assert_eq!(steps(&of), ANSWERED);
    }
}

#[tokio::test]
async fn a_rotated_secret_and_the_former_one_sign_for_a_day() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    let before = endpoint(&fleet, &receiver.url(), &["call.finished"]).await;
    let after = fleet.api.post(&path(&before, "/rotate_secret"), &json!({})).await.is(200);
    let [old, new] = [&before, &after].map(|endpoint| endpoint["secret"].as_str().unwrap());
    assert_ne!(old, new);
    assert!(after["previous_secret_until"].is_string(), "{after}");
    fleet.call(NUMBER).place().await.ends().await;
    let got = receiver.gets(1).await;
    assert!(got[0].is_signed_with(old) && got[0].is_signed_with(new));
    fleet.later(86_400);
    fleet.call(NUMBER).place().await.ends().await;
    let got = receiver.gets(2).await;
    assert!(!got[1].is_signed_with(old) && got[1].is_signed_with(new));
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_disabled_until_its_owner_enables_it() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    receiver.replies(Reply::status(410));
    let endpoint = endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    fleet.call(NUMBER).place().await.ends().await;
    let now = async || fleet.api.get(&path(&endpoint, "")).await.is(200);
    eventually("it is disabled", async || now().await["enabled"] == false).await;
    let disabled = now().await;
    assert_eq!(disabled["disabled_reason"], "gone");
    assert!(disabled["disabled_at"].is_string());
    fleet.call(NUMBER).place().await.ends().await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.got().len(), 1);
    assert!(deliveries(&fleet, &endpoint).await.iter().all(|delivery| delivery["state"] == "dead"));
    assert!(fleet.audit().await.iter().any(|row| row["action"] == "webhook_endpoint.disable"));
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_webhook_disabled_total{reason=\"gone\"} 1"), "{metrics}");
    receiver.replies(Reply::status(200));
    let request = fleet.api.request(Method::PATCH, &path(&endpoint, ""));
    let enabled = Answer::to(request.json(&json!({"enabled": true}))).await.is(200);
    assert_eq!((&enabled["enabled"], &enabled["disabled_reason"]), (&json!(true), &Value::Null));
    fleet.call(NUMBER).place().await.ends().await;
    assert_eq!(steps(&receiver.gets(5).await[1..]), ANSWERED);
}

#[tokio::test]
async fn endpoints_belong_to_who_made_them_and_are_told_with_problems() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    let made = endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    let list = fleet.api.get("/v1/webhook_endpoints").await.is(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert!(list["data"][0]["secret"].is_null(), "a list shows no secret");
    let reader =
        fleet.operator.post("/admin/v1/keys", &json!({"name": "r", "scopes": ["calls:read"]})).await.is(201);
    let reader = fleet.api.with_key(reader["secret"].as_str().unwrap());
    assert!(reader.get(&path(&made, "")).await.is(200)["secret"].is_null());
    reader.get("/v1/callback_secret").await.is_problem(403, "forbidden");
    reader.post(&path(&made, "/rotate_secret"), &json!({})).await.is_problem(403, "forbidden");
    fleet.api.without_key().get("/v1/webhook_endpoints").await.is_problem(401, "unauthenticated");
    for (body, param) in [
        (json!({"url": "nonsense"}), "url"),
        (json!({"url": "https://example.com", "events": []}), "events"),
        (json!({"url": "https://example.com", "events": ["call.ringin"]}), "events[0]"),
        (json!({"url": "https://example.com", "description": "x".repeat(501)}), "description"),
        (json!({"url": "https://example.com", "secret": "mine"}), "secret"),
    ] {
        let problem = fleet.api.post("/v1/webhook_endpoints", &body).await.is_problem(422, "invalid_field");
        assert_eq!(problem["param"], param, "{problem}");
    }
    for at in ["we_00000000000000000000000000", "nonsense"] {
        fleet.api.get(&format!("/v1/webhook_endpoints/{at}")).await.is_problem(404, "not_found");
        fleet.api.get(&format!("/v1/webhook_endpoints/{at}/deliveries")).await.is_problem(404, "not_found");
    }
    let test = fleet.api.post(&path(&made, "/test"), &json!({})).await.is(200);
    assert_eq!((&test["delivered"], &test["status"]), (&json!(true), &json!(204)));
    let got = receiver.gets(1).await;
    assert!(
        got[0].is_signed_with(made["secret"].as_str().unwrap()) && got[0].body()["type"] == "endpoint.test"
    );
    let gone = fleet.api.request(Method::DELETE, &path(&made, "")).send().await.unwrap();
    assert_eq!(gone.status(), 204);
    fleet.api.get(&path(&made, "")).await.is_problem(404, "not_found");
}

/// Without a word of the operator's, nothing inside can be reached, however it is written.
#[tokio::test]
async fn inner_addresses_are_refused_wherever_they_are_given() {
    let fleet = Fleet::small().await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1:8443/",
        "https://localhost.:8443/",
        "https://2130706433:8443/",
        "https://[::ffff:127.0.0.1]:8443/",
        "https://169.254.169.254/latest/meta-data",
        "https://user@example.com/",
    ] {
        let answer = fleet.api.post("/v1/webhook_endpoints", &json!({"url": url})).await;
        assert_eq!(answer.is_problem(422, "invalid_field")["param"], "url", "{url}");
        let answer = fleet.call(NUMBER).with("callback", json!({"url": url})).answer().await;
        assert_eq!(answer.is_problem(422, "invalid_field")["param"], "callback.url", "{url}");
    }
    // A name is looked at when it is connected to.
    let receiver = Receiver::start().await;
    let url = format!("https://localhost:{}/", receiver.address.port());
    let made = endpoint(&fleet, &url, &["call.finished"]).await;
    fleet.call(NUMBER).place().await.ends().await;
    let delivery = tried(&fleet, &made, 1).await;
    let error = delivery["last_error"].as_str().unwrap();
    assert!(error.contains("not an address of the public Internet (loopback)"), "{error}");
    assert!(fleet.metrics().await.contains("ringward_webhook_failures_total{class=\"refused\"} 1"));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (fleet, receiver, inner) = (fleet().await, Receiver::start().await, Receiver::start().await);
    let made = endpoint(&fleet, &receiver.url(), &["call.finished"]).await;
    for status in [301, 302, 303, 307, 308] {
        receiver.replies(Reply::status(status).header("location", inner.url()));
        let test = fleet.api.post(&path(&made, "/test"), &json!({})).await.is(200);
        assert_eq!((&test["delivered"], &test["status"]), (&json!(false), &json!(status)));
    }
    assert_eq!(inner.got().len(), 0);
}

/// Over TLS with a certificate of a CA that the operator named, to a name that resolves to an allowed address.
#[tokio::test]
async fn a_receiver_behind_tls_is_verified_and_served() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let receiver = Receiver::start_tls(&ca_file).await;
    let trusting = Some(ca_file);
    for ca_file in [None, trusting] {
        let is_trusted = ca_file.is_some();
        let fleet = Fleet::of(&["waw-1"], &["acme"])
            .settings(move |settings| {
                settings.webhooks.allow_hosts = vec!["localhost".to_owned()];
                settings.webhooks.ca_file = ca_file;
            })
            .start()
            .await;
        let url = format!("https://localhost:{}/hook", receiver.address.port());
        let made = endpoint(&fleet, &url, &["call.*"]).await;
        fleet.call(NUMBER).place().await.ends().await;
        if is_trusted {
            let got = receiver.gets(4).await;
            assert_eq!(steps(&got), ANSWERED);
            assert!(got[0].is_signed_with(made["secret"].as_str().unwrap()));
        } else {
            eventually("it is tried", async || {
                deliveries(&fleet, &made).await.iter().any(|delivery| delivery["tries"] == 1)
            })
            .await;
            let metrics = fleet.metrics().await;
            assert!(metrics.contains("ringward_webhook_failures_total{class=\"connect\"} 1"), "{metrics}");
            assert_eq!(receiver.got().len(), 0);
        }
    }
}

/// Talks for longer than its receiver needs: events are told while the call is up.
#[tokio::test]
async fn events_are_told_as_they_happen() {
    let (fleet, receiver) = (fleet().await, Receiver::start().await);
    endpoint(&fleet, &receiver.url(), &["call.*"]).await;
    fleet.callee(NUMBER, talks(2_000));
    let call = fleet.call(NUMBER).place().await;
    let got = receiver.gets(3).await;
    assert_eq!(call.now().await["status"], "in_progress");
    assert_eq!(steps(&got), ANSWERED[..3]);
}

/// What another receiver of the organisation, and its stream, are told of an endpoint's end.
#[tokio::test]
async fn an_endpoint_that_is_disabled_is_told_to_the_others() {
    let (fleet, gone, other) = (fleet().await, Receiver::start().await, Receiver::start().await);
    gone.replies(Reply::status(410));
    let ended = endpoint(&fleet, &gone.url(), &["call.finished"]).await;
    let made = endpoint(&fleet, &other.url(), &["call.acknowledged"]).await;
    fleet.call(NUMBER).place().await.ends().await;
    let got = other.gets(1).await;
    let body = got[0].body();
    assert!(got[0].is_signed_with(made["secret"].as_str().unwrap()));
    assert_eq!((&body["type"], &body["sequence"]), (&json!("endpoint.disabled"), &json!(1)));
    let data = &body["data"];
    for (field, value) in
        [("id", ended["id"].clone()), ("disabled_reason", json!("gone")), ("last_status", json!(410))]
    {
        assert_eq!(data[field], value, "{data}");
    }
    assert!(data["disabled_at"].is_string() && data["secret"].is_null(), "{data}");
    let list = fleet.api.get("/v1/events").await.is(200);
    assert_eq!(list["data"].as_array().unwrap().last(), Some(&body));
    let delivery = &deliveries(&fleet, &made).await[0];
    assert_eq!((&delivery["type"], &delivery["call"]), (&json!("endpoint.disabled"), &Value::Null));
    assert_eq!(gone.got().len(), 1);
}

#[tokio::test]
async fn tests_by_hand_are_bounded() {
    let (fleet, slow) = (fleet().await, Receiver::start().await);
    slow.replies(Reply::status(200).after(Duration::from_secs(4)));
    let made = endpoint(&fleet, &slow.url(), &["call.*"]).await;
    let (at, body) = (path(&made, "/test"), json!({}));
    let test = || fleet.api.post(&at, &body);
    let third = async {
        slow.gets(2).await;
        test().await
    };
    let (first, second, third) = tokio::join!(test(), test(), third);
    third.is_problem(429, "too_many_tests");
    assert_eq!(third.header("retry-after"), "1");
    for answer in [first, second] {
        assert_eq!(answer.is(200)["delivered"], true);
    }
    assert_eq!(slow.got().len(), 2);
    slow.replies(Reply::status(200));
    test().await.is(200);
}

/// Fifty receivers that take each event after 14 s, and another organisation's that takes it at once.
#[tokio::test]
async fn one_organisation_s_slow_receivers_do_not_delay_another_s() {
    let fleet = Fleet::square().settings(inner).start().await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    let second = fleet.operator.post("/admin/v1/keys", &json!({"name": "second"})).await.is(201);
    fleet
        .database
        .run(
            "INSERT INTO org (org_id, slug, name, created_at)
                 SELECT 'org_00000000000000000000000010', 'second', 'Second', created_at FROM org;
             UPDATE api_key SET org_id = 'org_00000000000000000000000010' WHERE name = 'second';",
        )
        .await;
    let second = fleet.api.with_key(second["secret"].as_str().unwrap());
    second.post("/v1/webhook_endpoints", &json!({"url": quick.url()})).await.is(201);
    let calls = async |count: usize, before: usize| {
        for n in 0..count {
            let to = format!("+4822124{:04}", before + n);
            let call = json!({"to": to, "message": {"audio_id": "builtin:beep"}});
            second.post("/v1/calls", &call).await.is(201);
        }
        quick.gets((before + count) * 4).await
    };
    calls(2, 0).await;
    slow.replies(Reply::status(200).after(Duration::from_secs(14)));
    for _ in 0..50 {
        endpoint(&fleet, &slow.url(), &["call.*"]).await;
    }
    for n in 0..20 {
        fleet.call(&format!("+4822123{n:04}")).place().await;
    }
    // The first have answered, 2xx, and whoever answers gets more side by side.
    sleep(Duration::from_secs(16)).await;
    assert!(slow.got().len() > 16, "some have answered and got another");
    let got = calls(5, 2).await;
    let late = got[8..].iter().map(|got| got.at - moment(&got.body()["created_at"])).max().unwrap();
    println!("slowest of the other organisation's: {late}");
    assert!(late < time::Duration::seconds(3), "{late}");
}
