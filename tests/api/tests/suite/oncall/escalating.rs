//! Who is phoned, in which order, and when that ends.

use std::time::Duration;

use fake_pbx::{Plan, Said};
use serde_json::json;

use super::{
    FIRST, SECOND, alert, becomes, calls, each, fires, group, hook, incident, is_over, never_answers,
    night_shift, presses, rows, speaking, tell, told,
};
use crate::{
    audio::{folder, tones},
    fixture::{Fleet, eventually, talks},
};

#[tokio::test]
async fn the_list_is_phoned_in_its_order_until_somebody_acknowledges() {
    let (fleet, _folder) = speaking().await;
    never_answers(&fleet, FIRST);
    fleet.callee(SECOND, presses('1'));
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!(each(&incident, "to"), [FIRST, SECOND], "{incident}");
    assert_eq!(each(&incident, "result"), ["not_reached", "acknowledged"], "{incident}");
    assert_eq!(incident["acknowledged_by"], incident["steps"][1]["call"]);
    assert_eq!(incident["alerts"][0]["text"], "Trunk acme-waw-1 is out of service");
    let said = incident["steps"][1]["said"].as_str().unwrap();
    assert!(said.starts_with("Alert. Trunk acme-waw-1 is out of service. Press 1 "), "{said}");
    assert_eq!((&incident["hook"], &incident["name"]), (&hook["id"], &json!("Night shift")));
    // Calls as any other: accepted, told, in the audit log.
    let calls = calls(&fleet.api).await;
    assert_eq!(calls.len(), 2);
    for call in &calls {
        assert_eq!(call["metadata"]["incident"], id.as_str(), "{call}");
    }
    assert_eq!(rows(&fleet, "call.create").await.len(), 2);
    // It stays open until it is over, and nobody is phoned for what is known.
    let again = tell(&fleet.api, &hook, &fires()).await.is(202);
    assert_eq!(again["incidents"], json!([{"incident": id, "result": "noted"}]));
    let over = tell(&fleet.api, &hook, &is_over()).await.is(202);
    assert_eq!(over["incidents"], json!([{"incident": id, "result": "resolved"}]));
    let over = super::incident(&fleet.api, &id).await;
    assert_eq!((&over["status"], &over["resolved_by"]), (&json!("resolved"), &hook["id"]));
    assert_eq!((fleet.seen(FIRST).invites, fleet.seen(SECOND).invites), (1, 1));
    let told: Vec<_> = rows(&fleet, "incident.").await;
    let actions: Vec<_> = told.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["incident.open", "incident.acknowledge", "incident.resolve"]);
    assert_eq!((&told[1]["actor_type"], &told[1]["changes"]["to"]), (&json!("system"), &json!("+4822…02")));
    // What fires again then is another incident.
    let next = super::told(&fleet.api, &hook, &fires()).await;
    assert_ne!(next, id);
    becomes(&fleet.api, &next, "acknowledged").await;
}

#[tokio::test]
async fn fifty_posts_at_once_are_one_incident_and_one_call() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let hook = hook(&fleet.api, night_shift()).await;
    let posts = (0..50).map(|_| {
        let (door, hook) = (fleet.api.clone(), hook.clone());
        tokio::spawn(async move { told(&door, &hook, &fires()).await })
    });
    let mut ids = Vec::new();
    for post in posts.collect::<Vec<_>>() {
        ids.push(post.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    becomes(&fleet.api, &ids[0], "acknowledged").await;
    assert_eq!((fleet.seen(FIRST).invites, calls(&fleet.api).await.len()), (1, 1));
    assert_eq!(rows(&fleet, "incident.open").await.len(), 1);
}

#[tokio::test]
async fn an_alert_that_joins_is_noted_and_said_to_whoever_is_phoned_next() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, talks(1_500));
    fleet.callee(SECOND, presses('1'));
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    eventually("the first is phoned", async || fleet.seen(FIRST).answers == 1).await;
    let both = group("firing", &[alert("acme-waw-1", "resolved"), alert("beta-waw-1", "firing")]);
    assert_eq!(tell(&fleet.api, &hook, &both).await.is(202)["incidents"][0]["result"], "noted");
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    let shown: Vec<_> =
        incident["alerts"].as_array().unwrap().iter().map(|alert| alert["firing"].clone()).collect();
    assert_eq!((shown, &incident["alerts_seen"]), (vec![json!(false), json!(true)], &json!(2)));
    assert_eq!((fleet.seen(FIRST).invites, fleet.seen(SECOND).invites), (1, 1));
    assert_eq!(rows(&fleet, "incident.note").await.len(), 1);
}

#[tokio::test]
async fn what_rings_is_ended_when_it_is_over_or_taken() {
    for how in ["the hook is told", "acknowledge", "resolve", "delete"] {
        let (fleet, _folder) = speaking().await;
        never_answers(&fleet, FIRST);
        let mut body = night_shift();
        body["ring_timeout_s"] = json!(60);
        let hook = hook(&fleet.api, body).await;
        let id = told(&fleet.api, &hook, &fires()).await;
        eventually("it rings", async || fleet.seen(FIRST).rings == 1).await;
        let status = match how {
            "the hook is told" => {
                tell(&fleet.api, &hook, &is_over()).await.is(202);
                "resolved"
            }
            "delete" => {
                let path = format!("/v1/hooks/{}", hook["id"].as_str().unwrap());
                let gone = fleet.api.request(reqwest::Method::DELETE, &path);
                assert_eq!(crate::fixture::Answer::to(gone).await.status, 204);
                "resolved"
            }
            act => {
                fleet.api.post(&format!("/v1/incidents/{id}/{act}"), &json!({})).await.is(200);
                if act == "acknowledge" { "acknowledged" } else { "resolved" }
            }
        };
        let incident = incident(&fleet.api, &id).await;
        assert_eq!(
            (&incident["status"], each(&incident, "result")),
            (&json!(status), vec!["canceled"]),
            "{how}"
        );
        let call = incident["steps"][0]["call"].as_str().unwrap();
        let ended = crate::fixture::Call::again(&fleet, call).ends_as("canceled", "api").await;
        assert_eq!(fleet.seen(FIRST).answers, 0, "{}", ended.text());
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        assert!(fleet.pbxes().all(|pbx| pbx.live_channels().is_empty()), "{how}: something rings on");
        assert_eq!((fleet.seen(FIRST).invites, fleet.seen(SECOND).invites), (1, 0), "{how}");
    }
}

#[tokio::test]
async fn who_passes_it_on_or_presses_nothing_is_followed_by_the_next_and_nobody_is_an_alarm() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('2'));
    fleet.callee(SECOND, talks(10));
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    let incident = becomes(&fleet.api, &id, "unanswered").await;
    assert_eq!(each(&incident, "to"), [FIRST, SECOND, FIRST, SECOND]);
    assert_eq!(each(&incident, "result"), ["passed_on", "not_acknowledged", "passed_on", "not_acknowledged"]);
    let rounds: Vec<_> =
        incident["steps"].as_array().unwrap().iter().map(|step| step["round"].clone()).collect();
    assert_eq!(rounds, [1, 1, 2, 2]);
    assert!(incident["unanswered_at"].is_string() && incident["acknowledged_at"].is_null());
    assert!(fleet.metrics().await.contains("ringward_incidents_total{status=\"unanswered\"} 1\n"));
    assert_eq!(rows(&fleet, "incident.unanswered").await.len(), 1);
    // Somebody may still take it.
    let taken = fleet.api.post(&format!("/v1/incidents/{id}/acknowledge"), &json!({})).await.is(200);
    assert_eq!(taken["status"], "acknowledged");
    assert!(taken["acknowledged_by"].as_str().unwrap().starts_with("key_"));
}

/// What may not be phoned is passed over; the reason stands in the incident.
#[tokio::test]
async fn a_number_that_may_not_be_phoned_is_passed_over() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(SECOND, presses('1'));
    let mut body = night_shift();
    body["to"] = json!(["+12125550123", SECOND]);
    let hook = hook(&fleet.api, body).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!(each(&incident, "result"), ["refused", "acknowledged"], "{incident}");
    assert_eq!(incident["steps"][0]["problem"], "not_permitted");
    assert!(fleet.metrics().await.contains("ringward_incident_calls_refused_total 1\n"));
}

/// A test key goes through all of it, and phones nobody.
#[tokio::test]
async fn a_test_key_rehearses_the_whole_of_it() {
    let (fleet, _folder) = speaking().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "t", "livemode": false})).await.is(201);
    let door = fleet.api.with_key(made["secret"].as_str().unwrap());
    let mut body = night_shift();
    // Of these the first is busy, and the second presses 1.
    body["to"] = json!(["+12025550104", "+12025550100"]);
    let hook = hook(&door, body).await;
    let id = told(&door, &hook, &fires()).await;
    let incident = becomes(&door, &id, "acknowledged").await;
    assert_eq!(
        (&incident["livemode"], each(&incident, "result")),
        (&json!(false), vec!["not_reached", "acknowledged"])
    );
    assert!(fleet.pbxes().all(|pbx| pbx.count_actions("Originate") == 0));
    // The same group told by a live key is another incident, and no test key's to end.
    let live = told(&fleet.api, &hook, &fires()).await;
    assert_ne!(live, id);
    door.post(&format!("/v1/incidents/{live}/resolve"), &json!({})).await.is_problem(403, "forbidden");
    fleet.api.post(&format!("/v1/incidents/{live}/resolve"), &json!({})).await.is(200);
}

/// The callee pressed 1 while his node was cut off, for longer than the call could wait. Nobody else is phoned once that is heard.
#[tokio::test]
async fn a_key_that_was_pressed_behind_a_cut_takes_note_when_it_is_heard() {
    let (_folder, line) = folder();
    let settings = |settings: &mut controlplane::settings::Settings| {
        tones(settings);
        (settings.reconcile_timeout_ms, settings.node_return_ms, settings.patience_ms) = (300, 1_000, 1_000);
    };
    let fleet = Fleet::of(&["waw-1"], &["acme"]).nodes_have(&line).settings(settings).start().await;
    let pressed = Duration::from_millis(600);
    fleet.callee(FIRST, Plan::of(talks(5_000)).saying(pressed, Said::Key('1')));
    never_answers(&fleet, SECOND);
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    eventually("the first has answered", async || fleet.seen(FIRST).answers == 1).await;
    let pbx = fleet.pbx("waw-1");
    pbx.close_port();
    pbx.cut_links();
    eventually("its call has ended", async || {
        incident(&fleet.api, &id).await["steps"][0]["result"].is_string()
    })
    .await;
    tokio::time::sleep(pressed).await;
    assert_ne!(incident(&fleet.api, &id).await["status"], "acknowledged");
    pbx.open_port().await.unwrap();
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!(incident["acknowledged_by"], incident["steps"][0]["call"], "{incident}");
    assert_ne!(incident["steps"][0]["result"], "acknowledged", "{incident}");
    let rows = rows(&fleet, "incident.acknowledge").await;
    assert_eq!((rows.len(), &rows[0]["changes"]["heard_late"]), (1, &json!(true)), "{rows:?}");
}
