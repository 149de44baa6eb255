//! Several control planes on one PostgreSQL database, any of which is killed or frozen: nothing is lost, nothing doubled.

mod accounts;
mod away;
mod clocks;
mod listing;
mod seen;

use std::time::Duration;

use controlplane::settings::Settings;
use fake_pbx::Ending;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::fixture::{Beside, Call, Door, Fleet, NUMBER, eventually, slowly, talks};

/// Longer than a lease.
const BEYOND_THE_LEASE: Duration = Duration::from_secs(4);

fn shares(settings: &mut Settings) {
    settings.replicas.enabled = true;
    settings.reconcile_timeout_ms = 2_000;
    settings.node_return_ms = 3_000;
}

async fn first(nodes: &[&str]) -> Fleet {
    let fleet = Fleet::of(nodes, &["acme", "beta"])
        .trunks_have("cps_max = 1000\nchannels_max = 1000")
        .settings(shares)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

/// Its replica beside sees all trunks, too.
async fn beside(fleet: &Fleet) -> Beside {
    let beside = Beside::start(fleet).await;
    eventually("the trunks are usable there", async || {
        let trunks = beside.operator.get("/admin/v1/trunks").await.is(200);
        trunks["data"].as_array().unwrap().iter().all(|trunk| trunk["usable"] == true)
    })
    .await;
    beside
}

async fn metric(door: &Door, name: &str) -> u64 {
    let text = door.without_key().get("/metrics").await.text;
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
    line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("no {name} in {text}"))
}

async fn read(door: &Door, id: &str) -> Value {
    door.get(&format!("/v1/calls/{id}")).await.is(200)
}

async fn ends(door: &Door, id: &str) -> Value {
    eventually(&format!("call {id} ends"), async || !read(door, id).await["ended_at"].is_null()).await;
    read(door, id).await
}

async fn becomes(door: &Door, id: &str, status: &str) {
    eventually(&format!("call {id} becomes {status}"), async || read(door, id).await["status"] == status)
        .await;
}

/// Ended, as all its attempts have.
async fn is_sound(door: &Door, id: &str) -> Value {
    let ended = ends(door, id).await;
    assert!(ended["outcome"].is_string(), "{ended}");
    for attempt in ended["attempts"].as_array().unwrap() {
        assert_eq!(attempt["status"], "ended", "{ended}");
    }
    ended
}

#[tokio::test]
async fn calls_of_a_killed_replica_go_on_at_another() {
    let mut fleet = first(&["waw-1", "fra-1"]).await;
    slowly(&fleet, Duration::from_millis(300));
    let beside = beside(&fleet).await;
    let mut placed = Vec::new();
    for (n, on_unknown) in ["fail", "retry"].into_iter().cycle().take(6).enumerate() {
        let number = format!("+4822000{n}000");
        fleet.callee(&number, talks(6_000));
        let call = fleet.call(&number).with("on_unknown", on_unknown).place().await;
        placed.push((number, call.id.clone()));
        // So that they are at several stages.
        sleep(Duration::from_millis(120)).await;
    }
    fleet.kill().await;
    let killed = Instant::now();
    eventually("they are claimed", async || {
        metric(&beside.operator, "ringward_calls_claimed_total").await == 6
    })
    .await;
    println!("claimed {} ms after the kill", killed.elapsed().as_millis());
    for (number, id) in &placed {
        let ended = is_sound(&beside.api, id).await;
        assert_eq!(ended["reason"], "played", "{ended}");
        let seen = fleet.seen(number);
        assert_eq!((ended["attempts"].as_array().unwrap().len(), seen.invites), (1, 1), "{ended}");
    }
    assert_eq!(metric(&beside.operator, "ringward_replica_leads").await, 1, "it leads now");
}

/// Nine calls that are sent slowly: the number, id and reason of each that a control plane follows to its end.
async fn nine(fleet: &Fleet) -> Vec<(String, String, &'static str)> {
    slowly(fleet, Duration::from_millis(50));
    // Long enough that a slow machine has begun all of them before the first one ends.
    let endings =
        [(talks(6_000), "played"), (Ending::NoAnswer, "ring_timeout"), (Ending::Busy486, "user_busy")];
    let mut placed = Vec::new();
    for (n, (ending, reason)) in endings.into_iter().cycle().take(9).enumerate() {
        let number = format!("+482200010{n:02}");
        fleet.callee(&number, ending);
        let call = fleet.call(&number).or_fail().with("ring_timeout_s", 6).place().await;
        placed.push((number, call.id.clone(), reason));
    }
    placed
}

/// What a frozen replica does when it wakes comes to nothing: its calls are another's.
#[tokio::test]
async fn a_replica_that_was_frozen_beyond_its_lease_changes_nothing() {
    let fleet = first(&["waw-1", "fra-1"]).await;
    let beside = beside(&fleet).await;
    let placed = nine(&fleet).await;
    // One that rings on; and none is still to be sent, or nobody but the frozen one could say how it ended.
    becomes(&beside.api, &placed[1].1, "ringing").await;
    eventually("all are sent", async || placed.iter().all(|(number, ..)| fleet.seen(number).invites == 1))
        .await;
    fleet.freeze(BEYOND_THE_LEASE).await;
    for (number, id, reason) in &placed {
        let ended = is_sound(&beside.api, id).await;
        assert_eq!(ended["reason"], *reason, "{ended}");
        assert_eq!(fleet.seen(number).invites, 1, "{ended}");
    }
    assert!(metric(&beside.operator, "ringward_calls_claimed_total").await >= 6);
    assert!(metric(&fleet.operator, "ringward_replica_lapses_total").await >= 1);
    eventually("it drives none any more", async || metric(&fleet.operator, "ringward_calls_open").await == 0)
        .await;
    // And it is of use again.
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    assert_eq!(metric(&fleet.operator, "ringward_replica_lives").await, 1);
}

/// It stands still with calls that are written as sent and may not be: nobody else can know, which `on_unknown` decides;
/// and what it had not sent it does not send when it wakes, to a phone whose call has ended.
#[tokio::test]
async fn what_a_frozen_replica_had_not_sent_it_does_not_send() {
    let fleet = first(&["waw-1", "fra-1"]).await;
    let beside = beside(&fleet).await;
    let placed = nine(&fleet).await;
    fleet.freeze(BEYOND_THE_LEASE).await;
    eventually("it drives none any more", async || metric(&fleet.operator, "ringward_calls_open").await == 0)
        .await;
    for (number, id, reason) in &placed {
        let ended = is_sound(&beside.api, id).await;
        let invites = fleet.seen(number).invites;
        println!("{invites} {}", ended["reason"]);
        match ended["reason"].as_str().unwrap() {
            "outcome_unknown" => assert_eq!(invites, 0, "{ended}"),
            told => assert_eq!((told, invites), (*reason, 1), "{ended}"),
        }
    }
}

#[tokio::test]
async fn what_a_replica_owns_at_its_stop_goes_on_without_a_wait() {
    let fleet = first(&["waw-1"]).await;
    let mut beside = beside(&fleet).await;
    fleet.callee(NUMBER, talks(5_000));
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "on_unknown": "fail"});
    let id = beside.api.post("/v1/calls", &body).await.is(201)["id"].as_str().unwrap().to_owned();
    becomes(&fleet.api, &id, "in_progress").await;
    let stopping = Instant::now();
    let claimed = async {
        eventually("it is claimed", async || {
            metric(&fleet.operator, "ringward_calls_claimed_total").await == 1
        })
        .await;
        stopping.elapsed()
    };
    let (claimed, ()) = tokio::join!(claimed, beside.stop());
    println!("claimed {} ms after the stop began", claimed.as_millis());
    let ended = Call::again(&fleet, &id).ends_as("completed", "played").await;
    assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1));
}

/// A cancel and a repeated request reach a replica that does not drive the call.
#[tokio::test]
async fn any_replica_hears_what_concerns_a_call_of_another() {
    let fleet = first(&["waw-1"]).await;
    let beside = beside(&fleet).await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let request = || fleet.call(NUMBER).idempotency_key("once");
    let call = request().place().await;
    call.becomes("ringing").await;
    let again = |door: &Door| {
        let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
        let request =
            door.request(reqwest::Method::POST, "/v1/calls").header("idempotency-key", "once").json(&body);
        crate::fixture::Answer::to(request)
    };
    for _ in 0..3 {
        assert_eq!(again(&beside.api).await.is(201)["id"], *call.id);
    }
    assert_eq!(metric(&beside.operator, "ringward_calls_open").await, 0, "it is not driven twice");
    let asked = Instant::now();
    beside.api.post(&format!("/v1/calls/{}/cancel", call.id), &json!({})).await.is(202);
    let ended = call.ends_as("canceled", "api").await;
    println!("canceled by the other replica in {} ms", asked.elapsed().as_millis());
    assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1));

    // Fifty equal requests at both doors are one call.
    fleet.callee(NUMBER, talks(300));
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "dedup_key": "alert-1"});
    let posts = (0..50).map(|n| {
        let door = if n % 2 == 0 { &fleet.api } else { &beside.api };
        let body = body.clone();
        async move { door.post("/v1/calls", &body).await }
    });
    let id =
        |answer: &crate::fixture::Answer| serde_json::from_str::<Value>(&answer.text).unwrap()["id"].clone();
    let ids: Vec<_> = join_all(posts).await.iter().map(id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    Call::again(&fleet, ids[0].as_str().unwrap()).ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 2);
}

#[tokio::test]
async fn what_one_replica_is_told_all_know_within_a_second() {
    let fleet = first(&["waw-1"]).await;
    let beside = beside(&fleet).await;
    // A hold.
    beside.operator.post("/admin/v1/trunks/acme-waw-1/disable", &json!({})).await.is(200);
    let asked = Instant::now();
    eventually("the hold is known", async || fleet.trunk("acme-waw-1").await["state"] == "disabled").await;
    println!("a hold is known after {} ms", asked.elapsed().as_millis());
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/enable", &json!({})).await.is(200);
    eventually("it is lifted there", async || {
        let trunks = beside.operator.get("/admin/v1/trunks").await.is(200);
        trunks["data"].as_array().unwrap().iter().all(|trunk| trunk["state"] != "disabled")
    })
    .await;
    // A fleet.
    let more = fleet.toml().replace("channels_max = 1000", "channels_max = 7");
    fleet.apply(&more, "").await.is(200);
    let asked = Instant::now();
    eventually("the fleet is known", async || {
        beside.operator.get("/admin/v1/fleet").await.text.contains("channels_max = 7")
            || beside.operator.get("/admin/v1/fleet").await.text.contains("\"channels_max\":7")
    })
    .await;
    println!("a fleet is known after {} ms", asked.elapsed().as_millis());
    // What a customer may phone.
    let closed = json!({"prefixes": {}, "caller_ids": []});
    let set = beside.operator.request(reqwest::Method::PUT, "/admin/v1/orgs/default/policy").json(&closed);
    crate::fixture::Answer::to(set).await.is(200);
    let asked = Instant::now();
    eventually("the policy is known", async || fleet.call(NUMBER).answer().await.status == 403).await;
    println!("a policy is known after {} ms", asked.elapsed().as_millis());
}

#[tokio::test]
async fn a_replica_that_would_do_harm_is_refused() {
    let mut fleet = first(&["waw-1"]).await;
    for missing in ["agents-ca.pem", "audit-key.der", "secrets.key"] {
        let shared: Vec<_> = ["agents-ca.pem", "audit-key.der", "secrets.key"]
            .into_iter()
            .filter(|file| *file != missing)
            .collect();
        let refused = Beside::start_with(&fleet, &shared).await.err().expect("it is refused");
        assert!(
            refused.contains(&format!("another {missing}")) && refused.contains("copy them"),
            "{refused}"
        );
    }
    // One that does not know of others.
    fleet.settings.replicas.enabled = false;
    let refused = Beside::start_with(&fleet, &["secrets.key"]).await.err().expect("it is refused");
    assert!(refused.contains("in use by another control plane"), "{refused}");
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// It stands still in the middle of a transaction, which has locked its call: others wait a second for that, not for the freeze.
#[tokio::test]
async fn what_a_frozen_replica_has_locked_is_freed() {
    const FROZEN: Duration = Duration::from_secs(12);
    let fleet = first(&["waw-1"]).await;
    let beside = beside(&fleet).await;
    let held = fleet.database.hold().await;
    let id = fleet.call(NUMBER).or_fail().place().await.id.clone();
    // By now its task waits for the server to begin its attempt.
    sleep(Duration::from_millis(500)).await;
    let frozen = Instant::now();
    let going_on = async {
        sleep(Duration::from_millis(200)).await;
        held.let_go().await;
        let ended = is_sound(&beside.api, &id).await;
        (ended, frozen.elapsed())
    };
    let ((ended, took), ()) = tokio::join!(going_on, fleet.freeze(FROZEN));
    println!("it ended {} ms after the freeze began", took.as_millis());
    assert!(took < FROZEN, "{took:?}");
    assert_eq!((&ended["reason"], fleet.seen(NUMBER).invites), (&json!("played"), 1), "{ended}");
}

/// Three replicas under load; one is killed, one is frozen beyond its lease, one only works.
#[tokio::test]
async fn under_load_nothing_is_lost_and_nothing_doubled() {
    let fleet = first(&["waw-1", "fra-1"]).await;
    slowly(&fleet, Duration::from_millis(20));
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(400)));
    let (mut killed, steady) = (beside(&fleet).await, beside(&fleet).await);
    let post = async |door: &Door, n: usize| {
        let body = json!({
            "to": format!("+48221{n:06}"), "message": {"audio_id": "builtin:beep"}, "on_unknown": "fail",
        });
        let request = door.request(reqwest::Method::POST, "/v1/calls").json(&body);
        let request = request.header("idempotency-key", format!("call-{n}"));
        request.timeout(Duration::from_secs(2)).send().await.ok()?.json::<Value>().await.ok()
    };
    let (mut accepted, mut refused) = (Vec::new(), 0);
    let freezing = async {
        sleep(Duration::from_secs(1)).await;
        fleet.freeze(BEYOND_THE_LEASE).await;
    };
    let killing = async {
        sleep(Duration::from_secs(2)).await;
        killed.kill().await;
    };
    let doors = [fleet.api.clone(), steady.api.clone()];
    let working = async {
        for n in 0..240 {
            // As a customer does: who gets no answer asks another one, with the same key.
            let mut answer = post(&doors[n % 2], n).await;
            for door in doors.iter().cycle().take(4) {
                if answer.as_ref().is_some_and(|call| call["id"].is_string()) {
                    break;
                }
                refused += 1;
                answer = post(door, n).await;
            }
            accepted.push((n, answer.expect("it is accepted")["id"].as_str().unwrap().to_owned()));
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(freezing, killing, working);
    let mut doubled = Vec::new();
    for (n, id) in &accepted {
        let ended = is_sound(&steady.api, id).await;
        let seen = fleet.seen(&format!("+48221{n:06}"));
        if seen.invites > 1 || (ended["reason"] == "played" && seen.invites != 1) {
            doubled.push(format!("{seen:?} {ended}"));
        }
    }
    println!("{} accepted, {refused} asked for again, {} doubled", accepted.len(), doubled.len());
    assert!(doubled.is_empty(), "{doubled:#?}");
    assert!(metric(&steady.operator, "ringward_calls_claimed_total").await > 0);
}
