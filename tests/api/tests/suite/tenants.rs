//! Two organisations: what one of them has is to the other as what there is not, on every route of the table.

use controlplane::http::routes::{Door as At, Id, Needs, Owner, Route, table};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Door, Fleet, NUMBER, Receiver, eventually};

/// An organisation with one of everything that an id can name.
struct Tenant {
    door: Door,
    call: String,
    recording: String,
    endpoint: String,
    event: String,
    hook: String,
    incident: String,
    key: String,
}

/// A quarter of a second of silence, as a WAV of 8 kHz, mono, 16 bits.
fn silence() -> Vec<u8> {
    let data = vec![0_u8; 4_000];
    let mut wav = b"RIFF".to_vec();
    wav.extend(u32::try_from(36 + data.len()).unwrap().to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    wav.extend(data);
    wav
}

async fn tenant(fleet: &Fleet, slug: &str, receiver: &Receiver) -> Tenant {
    let id = |body: Value| body["id"].as_str().unwrap().to_owned();
    let org = id(fleet.operator.post("/admin/v1/orgs", &json!({"slug": slug})).await.is(201));
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": slug, "org": org})).await.is(201);
    let door = fleet.api.with_key(made["secret"].as_str().unwrap());
    let body = json!({"url": receiver.url(), "events": ["call.*"]});
    let endpoint = id(door.post("/v1/webhook_endpoints", &body).await.is(201));
    let upload = door.request(Method::POST, "/v1/audio").header("content-type", "audio/wav").body(silence());
    let recording = id(Answer::to(upload).await.is(201));
    let call = id(door
        .post("/v1/calls", &json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}}))
        .await
        .is(201));
    let deliveries = format!("/v1/webhook_endpoints/{endpoint}/deliveries");
    eventually("an event is to be delivered", async || {
        !door.get(&deliveries).await.is(200)["data"].as_array().unwrap().is_empty()
    })
    .await;
    let event = door.get(&deliveries).await.is(200)["data"][0]["event"].as_str().unwrap().to_owned();
    let body = json!({"name": slug, "kind": "alertmanager", "to": [NUMBER]});
    let made_hook = door.post("/v1/hooks", &body).await.is(201);
    let alerts = json!([{"status": "firing", "labels": {"alertname": slug}}]);
    let told = json!({"version": "4", "groupKey": slug, "status": "firing", "alerts": alerts});
    let receipt = door.post(made_hook["path"].as_str().unwrap(), &told).await.is(202);
    let incident = receipt["incidents"][0]["incident"].as_str().unwrap().to_owned();
    Tenant { door, call, recording, endpoint, event, hook: id(made_hook), incident, key: id(made) }
}

impl Tenant {
    fn id(&self, of: Id) -> &str {
        match of {
            Id::Call => &self.call,
            Id::Recording => &self.recording,
            Id::Endpoint | Id::Receiver => &self.endpoint,
            Id::Event => &self.event,
            Id::Hook => &self.hook,
            Id::Incident => &self.incident,
            Id::Key => &self.key,
            Id::Notice | Id::Org | Id::Node | Id::Trunk | Id::Stream | Id::Sound => {
                panic!("{of:?} is no organisation's")
            }
        }
    }
}

/// A well-formed id of nothing.
const fn nothing(of: Id) -> &'static str {
    match of {
        Id::Call => "call_00000000000000000000000000",
        Id::Recording => "audio_00000000000000000000000000",
        Id::Endpoint | Id::Receiver => "we_00000000000000000000000000",
        Id::Event => "evt_00000000000000000000000000",
        Id::Hook => "hook_00000000000000000000000000",
        Id::Incident => "inc_00000000000000000000000000",
        Id::Notice => "ntc_00000000000000000000000000",
        Id::Key => "key_00000000000000000000000000",
        Id::Org => "org_7zzzzzzzzzzzzzzzzzzzzzzzz0",
        Id::Node | Id::Trunk | Id::Stream | Id::Sound => "nothing",
    }
}

fn address(route: &Route, ids: &[&str]) -> String {
    let mut ids = ids.iter();
    let part = |part: &str| {
        if part.starts_with('{') { (*ids.next().unwrap()).to_owned() } else { part.to_owned() }
    };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The answer without what differs between any two.
async fn ask(door: &Door, route: &Route, ids: &[&str]) -> (u16, Value) {
    let mut request = door.request(route.method.clone(), &address(route, ids));
    if route.method != Method::GET {
        request = request.json(&json!({}));
    }
    let answer = Answer::to(request).await;
    let mut body: Value = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
    for own in ["instance", "request_id"] {
        body.as_object_mut().map(|body| body.remove(own));
    }
    (answer.status, body)
}

async fn fleet() -> (Fleet, Receiver) {
    let receiver = Receiver::start().await;
    (Fleet::of(&["waw-1"], &["acme"]).settings(crate::webhooks::inner).start().await, receiver)
}

#[tokio::test]
async fn what_another_organisation_has_is_as_what_there_is_not() {
    let (fleet, receiver) = fleet().await;
    let acme = tenant(&fleet, "acme", &receiver).await;
    let beta = tenant(&fleet, "beta", &receiver).await;
    let mut asked = 0;
    for route in table().iter().filter(|route| route.door == At::Customers && !route.ids.is_empty()) {
        let name = format!("{} {}", route.method, route.path);
        assert!(matches!(route.needs, Needs::AnyOf(_)), "{name} names something and takes no key");
        assert!(route.ids.iter().all(|id| id.owner() == Owner::Org), "{name} names what is nobody's");
        // Each id of the path in turn is the other's, and the rest one's own; then all of them.
        let own: Vec<&str> = route.ids.iter().map(|id| acme.id(*id)).collect();
        let masks = (0..route.ids.len()).map(|n| 1_usize << n).chain([(1 << route.ids.len()) - 1]);
        for mask in masks {
            let mixed = |other: fn(&Tenant, Id) -> &str| -> Vec<&str> {
                let pick =
                    |(n, id): (usize, &Id)| if mask & (1 << n) == 0 { own[n] } else { other(&beta, *id) };
                route.ids.iter().enumerate().map(pick).collect()
            };
            let (foreign, missing) = (mixed(Tenant::id), mixed(|_, id| nothing(id)));
            let of_other = ask(&acme.door, route, &foreign).await;
            let of_none = ask(&acme.door, route, &missing).await;
            assert_eq!(of_other, of_none, "{name}: {foreign:?}");
            assert_eq!((of_none.0, &of_none.1["code"]), (404, &json!("not_found")), "{name}: {missing:?}");
            asked += 1;
        }
    }
    assert!(asked >= 17, "{asked}");
    // All of it is still there, as it was: its owner gets something else than 404 for each of its ids.
    for (path, id) in [
        ("calls", &beta.call),
        ("audio", &beta.recording),
        ("webhook_endpoints", &beta.endpoint),
        ("hooks", &beta.hook),
        ("incidents", &beta.incident),
        ("api_keys", &beta.key),
    ] {
        let kept = beta.door.get(&format!("/v1/{path}/{id}")).await.is(200);
        assert!(
            kept["revoked_at"].is_null() && kept["disabled_at"].is_null() && kept["resolved_at"].is_null(),
            "{kept}"
        );
    }
}

/// Lists, cursors and references in bodies.
#[tokio::test]
async fn no_list_or_cursor_or_body_reaches_over() {
    let (fleet, receiver) = fleet().await;
    let acme = tenant(&fleet, "acme", &receiver).await;
    let beta = tenant(&fleet, "beta", &receiver).await;
    let others =
        [&beta.call, &beta.recording, &beta.endpoint, &beta.event, &beta.hook, &beta.incident, &beta.key];
    for route in table().iter().filter(|route| {
        route.door == At::Customers && route.method == Method::GET && matches!(route.needs, Needs::AnyOf(_))
    }) {
        let ids: Vec<&str> = route.ids.iter().map(|id| acme.id(*id)).collect();
        let answer = acme.door.get(&address(route, &ids)).await;
        assert_eq!(answer.status, 200, "{}: {}", route.path, answer.text);
        for other in others {
            assert!(!answer.text.contains(other.as_str()), "{} shows {other}", route.path);
        }
    }
    for (list, cursor) in [
        ("calls", &beta.call),
        ("audio", &beta.recording),
        ("events", &beta.event),
        ("incidents", &beta.incident),
        ("api_keys", &beta.key),
    ] {
        let answer = acme.door.get(&format!("/v1/{list}?starting_after={cursor}")).await;
        assert!(matches!(answer.status, 200 | 422), "{}", answer.text);
        assert!(!answer.text.contains("\"id\":\"evt_") || answer.status == 200, "{}", answer.text);
        for other in others.iter().filter(|other| **other != cursor) {
            assert!(!answer.text.contains(other.as_str()), "{list}: {}", answer.text);
        }
    }
    let foreign = json!({"to": NUMBER, "message": {"audio_id": beta.recording}});
    let missing = json!({"to": NUMBER, "message": {"audio_id": nothing(Id::Recording)}});
    let bodies = [acme.door.post("/v1/calls", &foreign).await, acme.door.post("/v1/calls", &missing).await];
    let text = |answer: &Answer, id: &str| {
        let body = answer.is_problem(422, "invalid_field");
        body["detail"].as_str().unwrap().replace(id, "ID")
    };
    assert_eq!(text(&bodies[0], &beta.recording), text(&bodies[1], nothing(Id::Recording)));
}
