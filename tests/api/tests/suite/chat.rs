//! What operators' chat is told: gathered, signed, tried again, and with nothing of customers in it.

use std::time::Duration;

use controlplane::settings::{Destination, Settings};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    fixture::{Fleet, NUMBER, Receiver, Reply, eventually, talks},
    webhooks::inner,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Tells this receiver, with the secret of a file.
fn telling(url: String) -> impl FnOnce(&mut Settings) + 'static {
    move |settings: &mut Settings| {
        inner(settings);
        let secret_file = settings.data_dir.join("chat.secret");
        std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
        settings.chat.destinations = vec![Destination { url, secret_file: Some(secret_file) }];
        (settings.chat.bans_max, settings.chat.bans_every_s) = (2, 1);
    }
}

#[tokio::test]
async fn what_happens_together_is_one_message_with_why_and_the_next_command() {
    api::overheard::remember(SECRET);
    let receiver = Receiver::start().await;
    receiver.replies(Reply::status(500));
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"]).settings(telling(receiver.url())).start().await;
    // So that the pace of bans is looked at from here on.
    sleep(Duration::from_millis(1_500)).await;
    for trunk in ["acme-waw-1", "acme-fra-1"] {
        let reason = json!({"reason": "the carrier asked for it"});
        fleet.operator.post(&format!("/admin/v1/trunks/{trunk}/disable"), &reason).await.is(200);
    }
    for n in 1..=3 {
        let ban = json!({"net": format!("203.0.113.{n}"), "reason": "x"});
        fleet.operator.post("/admin/v1/bans", &ban).await.is(201);
    }
    fleet.callee(NUMBER, talks(5));
    let hook =
        json!({"name": "<!channel> Night", "kind": "json", "to": [NUMBER], "speech": {"alert": "{{/text}}"}});
    let hook = fleet.api.post("/v1/hooks", &hook).await.is(201);
    let receipt =
        fleet.api.post(hook["path"].as_str().unwrap(), &json!({"text": "the roof is on fire"})).await.is(202);
    let incident = receipt["incidents"][0]["incident"].as_str().unwrap();
    eventually("it is told", async || !receiver.got().is_empty()).await;
    receiver.replies(Reply::status(204));
    let got = receiver.gets(2).await;
    assert_eq!(got[0].id(), got[1].id(), "tried again, as the same");
    assert_eq!(got[0].bytes, got[1].bytes);
    assert!(got[1].is_signed_with(SECRET));
    let body = got[1].body();
    assert_eq!(
        (&body["type"], &body["id"], &body["more"]),
        (&json!("fleet.changed"), &json!(got[0].id()), &json!(0))
    );
    let text = body["text"].as_str().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let phoned = format!(
        "✕ incident {incident} escalating: somebody is being phoned. Next: ringward incident show {incident}"
    );
    assert!(lines.contains(&phoned.as_str()), "{text}");
    let disabled = "– 2 trunks disabled (acme-fra-1, acme-waw-1): an operator said so. Next: ringward status";
    assert!(lines.contains(&disabled), "{text}");
    assert!(
        lines.contains(&"– bans of the fleet come fast: more than 2 in 1 s. Next: ringward ban list"),
        "{text}"
    );
    let groups = body["changes"].as_array().unwrap();
    let trunks = groups.iter().find(|group| group["kind"] == "trunk").unwrap();
    assert_eq!((&trunks["count"], &trunks["state"]), (&json!(2), &json!("disabled")));
    for inside in [NUMBER.trim_start_matches('+'), "org_", "roof", "203.0.113", "the carrier asked", "Night"]
    {
        assert!(
            !got[1].bytes.windows(inside.len()).any(|part| part == inside.as_bytes()),
            "{inside}: {text}"
        );
    }
}

#[tokio::test]
async fn an_inner_address_is_told_nothing_unless_that_is_allowed() {
    let receiver = Receiver::start().await;
    let url = receiver.url();
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(move |settings| {
            settings.chat.destinations = vec![Destination { url, secret_file: None }];
        })
        .start()
        .await;
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &json!({})).await.is(200);
    sleep(Duration::from_secs(7)).await;
    assert!(receiver.got().is_empty());
}
