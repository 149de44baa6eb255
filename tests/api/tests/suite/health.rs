//! What a trunk's calls do to it, what operators do to it, and what survives a restart.

use std::time::Duration;

use fake_pbx::Ending;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::fixture::{Fleet, NUMBER, eventually, talks};

/// Numbers of destinations of their own.
fn destination(n: usize) -> String {
    format!("+48{:03}123456", 220 + n)
}

async fn why(fleet: &Fleet, trunk: &str) -> Value {
    fleet.operator.get(&format!("/admin/v1/trunks/{trunk}/why")).await.is(200)
}

async fn hold(fleet: &Fleet, noun: &str, name: &str, word: &str, reason: &str) -> Value {
    let path = format!("/admin/v1/{noun}/{name}/{word}");
    fleet.operator.post(&path, &json!({"reason": reason})).await.is(200)
}

/// The value of a series.
async fn metric(fleet: &Fleet, series: &str) -> Option<f64> {
    let text = fleet.operator.get("/metrics").await.text;
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
}

/// Acme before beta, one node: calls meet acme's trunk for as long as it is held to work.
async fn acme_first() -> Fleet {
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"])
        .first_carrier_first()
        .trunks_have("cps_max = 1000")
        .nodes_have("timer_b_ms = 500")
        .script(|script| script.timer_b = Duration::from_millis(500))
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(1)));
    fleet
}

/// The first call finds out, pays with one attempt, and no later call is sent there.
#[tokio::test]
async fn a_silent_carrier_is_left_after_its_first_call() {
    let fleet = acme_first().await;
    fleet.carrier("acme", Ending::Silent);
    let first = fleet.call(&destination(0)).place().await.ends_as("completed", "played").await;
    assert_eq!(first.endings(), ["carrier_silent", "answered"]);
    for n in 1..10 {
        let next = fleet.call(&destination(n)).place().await.ends_as("completed", "played").await;
        assert_eq!(next.each("trunk"), ["beta-waw-1"], "{}", next.text());
    }
    let why = why(&fleet, "acme-waw-1").await;
    assert_eq!((&why["state"], &why["cause"]), (&json!("tripped"), &json!("carrier_silent")), "{why}");
    assert_eq!((&why["standing"], &why["back_off_level"]), (&json!("tripped"), &json!(1)), "{why}");
    assert!(why["next"]["in_ms"].is_u64(), "it says what comes next: {why}");
    assert!(why["history"][0]["sentence"].as_str().unwrap().contains("carrier_silent"), "{why}");
    let explained = fleet.operator.get("/admin/v1/routes/explain?to=%2B48221234567").await.is(200);
    assert_eq!(explained["considered"][0]["verdict"], "trunk_tripped", "{explained}");
    let state = |state: &str| {
        format!(r#"ringward_trunk_state{{carrier="acme",node="waw-1",state="{state}",trunk="acme-waw-1"}}"#)
    };
    assert_eq!(metric(&fleet, &state("tripped")).await, Some(1.0));
    assert_eq!(metric(&fleet, &state("healthy")).await, Some(0.0));
    eventually("the trip is in the audit log", async || {
        let rows = fleet.audit().await;
        rows.iter().any(|row| {
            row["action"] == "trunk.trip" && row["target_id"] == "acme-waw-1" && row["actor_type"] == "system"
        })
    })
    .await;
}

/// Failures of several destinations trip it; a few among many answered calls do not.
#[tokio::test]
async fn failures_trip_a_trunk_once_several_destinations_agree() {
    let fleet = acme_first().await;
    fleet.carrier("acme", Ending::Sip(500));
    for n in 0..6 {
        fleet.call(&destination(n)).place().await.ends_as("completed", "played").await;
    }
    let why = why(&fleet, "acme-waw-1").await;
    assert_eq!((&why["state"], &why["cause"]), (&json!("tripped"), &json!("calls_fail")), "{why}");
    assert!(fleet.originates("waw-1", "acme") < 6, "it was left before the last call");
}

/// A customer's barred destination: the trunk is spared for it, and serves every other number.
#[tokio::test]
async fn a_barred_destination_is_suspended_and_the_trunk_is_not() {
    let fleet = acme_first().await;
    fleet.carrier("acme", Ending::Sip(403));
    let mut asked = Vec::new();
    for n in 0..4 {
        let number = format!("+4890012345{n}");
        let ended = fleet.call(&number).place().await.ends_as("completed", "played").await;
        asked.push(ended.each("trunk").join(" "));
    }
    fleet.carrier("acme", talks(1));
    assert!(asked[0].contains("acme") && !asked[3].contains("acme"), "{asked:?}");
    let why = why(&fleet, "acme-waw-1").await;
    assert!(why["state"] != "tripped", "{why}");
    assert_eq!(why["suspensions"][0]["scope"], json!({"destination": "+48900"}), "{why}");
    let other = fleet.call(&destination(0)).place().await.ends_as("completed", "played").await;
    assert_eq!(other.each("trunk"), ["acme-waw-1"]);
    let explained = fleet.operator.get("/admin/v1/routes/explain?to=%2B48900123459").await.is(200);
    assert_eq!(explained["considered"][0]["verdict"], "trunk_suspended_for_prefix", "{explained}");
    let trunk = fleet.trunk("acme-waw-1").await;
    assert_eq!((&trunk["usable"], &trunk["suspensions"]), (&json!(true), &json!(1)), "{trunk}");
}

/// Of two customers, one calls nothing but what the carrier bars, and far more often than the other: for the other, the
/// trunk works as ever.
#[tokio::test]
async fn one_customers_barred_numbers_take_no_trunk_from_another() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("cps_max = 1000").start().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "other"})).await.is(201);
    let other = fleet.api.with_key(made["secret"].as_str().unwrap());
    fleet.kill().await;
    let org = "INSERT INTO org (org_id, slug, name, created_at) SELECT 'org_00000000000000000000000004', 'other', \
               'other', created_at FROM org; \
               UPDATE api_key SET org_id = 'org_00000000000000000000000004' WHERE name = 'other'";
    fleet.database.run(org).await;
    fleet.start_again().await;
    let other = fleet.api.with_key(other.key.as_deref().unwrap());
    for (n, code) in [403, 503, 500, 403, 503, 500, 503, 500].into_iter().enumerate() {
        fleet.callee(&destination(n), Ending::Sip(code));
        for _ in 0..2 {
            fleet.call(&destination(n)).attempts_max(1).place().await.ends().await;
        }
    }
    let body = json!({"to": destination(50), "message": {"audio_id": "builtin:beep"}});
    fleet.callee(&destination(50), talks(1));
    for _ in 0..3 {
        let call = other.post("/v1/calls", &body).await.is(201);
        let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
        eventually("the other's call ends", async || !other.get(&path).await.is(200)["ended_at"].is_null())
            .await;
        let call = other.get(&path).await.is(200);
        assert_eq!(
            (&call["reason"], call["attempts"].as_array().unwrap().len()),
            (&json!("played"), 1),
            "{call}"
        );
    }
    let why = why(&fleet, "acme-waw-1").await;
    assert!(
        why["state"] != "tripped" && why["history"].as_array().unwrap().iter().all(|c| c["to"] != "tripped"),
        "{why}"
    );
    assert!(!why["suspensions"].as_array().unwrap().is_empty(), "shown as spared: {why}");
}

/// What trips a trunk is known to the next process, with its history.
#[tokio::test]
async fn health_survives_a_restart() {
    let mut fleet = acme_first().await;
    fleet.carrier("acme", Ending::Silent);
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let before = why(&fleet, "acme-waw-1").await;
    // It is written within moments; until then it is this process' knowledge alone.
    sleep(Duration::from_millis(400)).await;
    fleet.kill().await;
    fleet.start_again().await;
    fleet.carrier("acme", talks(1));
    let after = why(&fleet, "acme-waw-1").await;
    for member in ["state", "cause", "back_off_level"] {
        assert_eq!(after[member], before[member], "{member}: {after}");
    }
    assert_eq!(after["history"][0]["evidence"], before["history"][0]["evidence"], "{after}");
    let next = fleet.call(&destination(1)).place().await.ends_as("completed", "played").await;
    assert_eq!(next.each("trunk"), ["beta-waw-1"]);
    // And it comes back by probation, without anybody's hand.
    let begun = Instant::now();
    eventually("the trunk serves again", async || {
        fleet.call(&destination(2)).place().await.ends_as("completed", "played").await;
        fleet.trunk("acme-waw-1").await["state"] == "healthy"
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// An operator's word is kept over a restart, audited, and stronger than anything that calls show.
#[tokio::test]
async fn a_disabled_trunk_and_a_draining_node_take_no_call() {
    let mut fleet = Fleet::square().start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(1)));
    fleet.operator.post("/admin/v1/trunks/nobody/disable", &json!({})).await.is_problem(404, "not_found");
    let long = json!({"reason": "r".repeat(301)});
    let refused = fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &long).await;
    refused.is_problem(422, "invalid_field");
    assert_eq!(hold(&fleet, "trunks", "acme-waw-1", "disable", "contract ended").await["changed"], true);
    assert_eq!(hold(&fleet, "trunks", "acme-waw-1", "disable", "again").await["changed"], false);
    assert_eq!(hold(&fleet, "nodes", "fra-1", "drain", "kernel update").await["changed"], true);
    let only_beta_waw = async |fleet: &Fleet| {
        for n in 0..4 {
            let ended = fleet.call(&destination(n)).place().await.ends_as("completed", "played").await;
            assert_eq!(ended.each("trunk"), ["beta-waw-1"], "{}", ended.text());
        }
    };
    only_beta_waw(&fleet).await;
    fleet.kill().await;
    fleet.start_again().await;
    only_beta_waw(&fleet).await;
    let (trunk, node) = (fleet.trunk("acme-waw-1").await, fleet.node("fra-1").await);
    assert_eq!((&trunk["state"], &trunk["usable"]), (&json!("disabled"), &json!(false)), "{trunk}");
    assert_eq!((&node["draining"], &node["up"]), (&json!(true), &json!(true)), "{node}");
    assert_eq!(why(&fleet, "acme-waw-1").await["hold"]["reason"], "contract ended");
    let drained = fleet.operator.get("/admin/v1/nodes/fra-1/why").await.is(200);
    assert_eq!(drained["hold"]["reason"], "kernel update", "{drained}");
    assert!(drained["hold"]["since"].is_string(), "{drained}");
    let rows = fleet.operator.get("/admin/v1/audit?outcome=success").await.is(200);
    let row = |action: &str| {
        let rows = rows["data"].as_array().unwrap();
        rows.iter().filter(|row| row["action"] == action).cloned().collect::<Vec<_>>()
    };
    assert_eq!((row("trunk.disable").len(), row("node.drain").len()), (1, 1), "{rows}");
    assert!(row("node.drain")[0]["changes"].to_string().contains("kernel update"), "{rows}");
    // Nothing is left: a call waits, and fails as unusable routes do, panic or not.
    hold(&fleet, "trunks", "beta-waw-1", "disable", "all").await;
    let call = fleet.call(NUMBER).place().await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(call.now().await["status"], "queued");
    // And goes on at once when an operator gives one back.
    hold(&fleet, "trunks", "acme-waw-1", "enable", "contract renewed").await;
    let ended = call.ends_as("completed", "played").await;
    assert_eq!(ended.each("trunk"), ["acme-waw-1"]);
    hold(&fleet, "nodes", "fra-1", "undrain", "done").await;
    eventually("the node is used again", async || {
        let ended = fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
        ended.each("node") == ["fra-1"]
    })
    .await;
}

/// All are held to be broken: calls are tried all the same, an alarm is raised, and it ends by itself.
#[tokio::test]
async fn when_every_trunk_is_held_to_be_broken_calls_are_still_tried() {
    let fleet = Fleet::square().settings(|settings| settings.patience_ms = 400).start().await;
    for carrier in ["acme", "beta"] {
        fleet.carrier(carrier, Ending::ContactDown);
    }
    let panics = r#"ringward_route_panic{route="+"}"#;
    assert_eq!(metric(&fleet, panics).await, Some(0.0));
    fleet.call(&destination(0)).with("failover", json!({"attempts_max": 4})).place().await.ends().await;
    let trunks = fleet.operator.get("/admin/v1/trunks").await.is(200);
    let tripped = trunks["data"].as_array().unwrap().iter().filter(|t| t["state"] == "tripped").count();
    assert_eq!((tripped, metric(&fleet, panics).await), (4, Some(1.0)), "{trunks}");
    let explained = fleet.operator.get("/admin/v1/routes/explain?to=%2B48221234567").await.is(200);
    assert_eq!((&explained["choice"], &explained["panic"]), (&json!("trunk"), &json!(true)), "{explained}");
    // Everything was judged wrongly: the next call gets through at once.
    for carrier in ["acme", "beta"] {
        fleet.carrier(carrier, talks(1));
    }
    let ended = fleet.call(&destination(1)).place().await.ends_as("completed", "played").await;
    assert_eq!(ended.attempts().len(), 1, "{}", ended.text());
    eventually("panic ends", async || {
        fleet.call(&destination(2)).place().await.ends_as("completed", "played").await;
        metric(&fleet, panics).await == Some(0.0)
    })
    .await;
}

const CANARY: &str = "+48229999999";

/// OPTIONS are answered and INVITEs dropped: only a canary can know before a customer does, and its number is
/// nobody's call.
#[tokio::test]
async fn a_canary_finds_out_before_a_customer_does() {
    let lines =
        format!("canary = {{ number = \"{CANARY}\", interval_s = 10, expects = \"rings\" }}\ncps_max = 1000");
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"])
        .trunks_have(&lines)
        .nodes_have("timer_b_ms = 500")
        .script(|script| script.timer_b = Duration::from_millis(520))
        .start()
        .await;
    fleet.carrier("acme", Ending::Silent);
    fleet.carrier("beta", Ending::NoAnswer);
    eventually("the broken trunk is tripped", async || fleet.trunk("acme-waw-1").await["state"] == "tripped")
        .await;
    let history = why(&fleet, "acme-waw-1").await["history"].clone();
    let trip = history.as_array().unwrap().iter().find(|change| change["to"] == "tripped").cloned();
    let evidence = trip.unwrap()["evidence"].clone();
    assert!(evidence["canary"] == true || evidence["kind"] == "canaries", "{history}");
    eventually("the other trunk is healthy", async || fleet.trunk("beta-waw-1").await["state"] == "healthy")
        .await;
    // Probation waits for a canary, and customers' calls for its result.
    fleet.carrier("acme", Ending::NoAnswer);
    eventually("the trunk is back", async || {
        let state = fleet.trunk("acme-waw-1").await["state"].clone();
        state == "healthy"
            || state == "probation"
                && why(&fleet, "acme-waw-1").await["next"]["what"]
                    .as_str()
                    .is_some_and(|what| what.contains("1 of"))
    })
    .await;
    let calls = fleet.operator.get("/admin/v1/calls").await.is(200);
    assert_eq!(calls["data"], json!([]), "no canary is a customer's call");
    let met = |carrier: &str, met: &str| {
        format!(
            r#"ringward_canaries_ended_total{{carrier="{carrier}",met="{met}",node="waw-1",trunk="{carrier}-waw-1"}}"#
        )
    };
    assert!(metric(&fleet, &met("acme", "otherwise")).await >= Some(1.0));
    assert!(metric(&fleet, &met("beta", "as_expected")).await >= Some(1.0));
    let customers = r#"ringward_attempts_ended_total{carrier="acme",class="carrier_silent",node="waw-1",trunk="acme-waw-1"}"#;
    assert_eq!(metric(&fleet, customers).await, Some(0.0));
}

/// Series are of the fleet: none comes with a number, a call or a customer.
#[tokio::test]
async fn the_number_of_series_is_the_fleets() {
    let fleet = Fleet::square().start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(1)));
    let series = async || {
        let text = fleet.operator.get("/metrics").await.text;
        assert!(!text.contains("+48"), "a number in a label");
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    fleet.call(&destination(0)).place().await.ends().await;
    sleep(Duration::from_millis(50)).await;
    let before = series().await;
    for n in 1..40 {
        let ending = [Ending::Sip(403), Ending::Sip(404), Ending::Busy486, talks(1)][n % 4].clone();
        fleet.callee(&destination(n), ending);
        fleet.call(&destination(n)).place().await.ends().await;
    }
    // Two gauges per trunk and one per node exist only once there is a figure.
    assert!(series().await <= before + 4 + 2, "{before} became {}", series().await);
}
