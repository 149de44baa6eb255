//! Text that would be something else elsewhere: in AMI, in a dialplan, in SQL. Refused, or kept as it came.

use fake_pbx::Packet;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fleet, NUMBER};

/// Headers that an Originate of ours has; any other is a stranger's.
const OURS: &[&str] = &[
    "Action",
    "ActionID",
    "Channel",
    "ChannelId",
    "Context",
    "Exten",
    "Priority",
    "Timeout",
    "CallerID",
    "Async",
    "Variable",
];
/// Actions that the control plane sends.
const ACTIONS: &[&str] = &[
    "Login",
    "Ping",
    "CoreStatus",
    "Getvar",
    "Originate",
    "Status",
    "Hangup",
    "DBGet",
    "Logoff",
    "PJSIPShowRegistrationsOutbound",
];

/// Each of these, whole and around a good value.
fn hostile(good: &str) -> Vec<String> {
    let pieces = [
        "\r\n",
        "\n",
        "\r",
        "\0",
        ",",
        ")",
        "@",
        "&",
        "/",
        ";",
        "${SHELL(id)}",
        "$[1+1]",
        "\"",
        "'",
        "`id`",
        "\\",
        "<",
        ">",
        "%0d%0a",
        "\u{2028}",
        "\u{85}",
        "٣",
        "４",
        "\u{202e}",
        "\r\nApplication: System\r\nData: id",
        "\r\n\r\nAction: Originate\r\nChannel: Local/1@evil\r\nApplication: System\r\nData: id\r\n\r\n",
        "')); DROP TABLE call; --",
    ];
    pieces
        .iter()
        .flat_map(|piece| [format!("{good}{piece}"), format!("{piece}{good}"), (*piece).to_owned()])
        .collect()
}

/// No node heard anything but what the control plane says of itself.
#[track_caller]
fn nothing_foreign(fleet: &Fleet) {
    for action in fleet.pbxes().flat_map(|pbx| pbx.actions()) {
        let name = action.get("Action").unwrap_or("");
        assert!(ACTIONS.contains(&name), "{action:?}");
        if name == "Originate" {
            only_ours(&action);
        }
    }
}

#[track_caller]
fn only_ours(originate: &Packet) {
    for (name, value) in &originate.headers {
        assert!(OURS.contains(&name.as_str()), "{name}: {value}");
    }
    let channel = originate.get("Channel").unwrap();
    let (number, endpoint) = channel.strip_prefix("PJSIP/").unwrap().split_once('@').unwrap();
    assert!(number.strip_prefix('+').unwrap().bytes().all(|b| b.is_ascii_digit()), "{channel}");
    assert_eq!(endpoint, "acme");
    assert_eq!(originate.get("Context"), Some("ringward-call"));
}

#[tokio::test]
async fn hostile_text_is_refused_where_it_would_reach_a_pbx() {
    let fleet = Fleet::small().await;
    let fields: [(&str, &str); 5] = [
        ("/to", NUMBER),
        ("/from", NUMBER),
        ("/message/audio_id", "builtin:beep"),
        ("/on_unknown", "fail"),
        ("/deadline_at", "2026-12-01T00:00:00Z"),
    ];
    for (pointer, good) in fields {
        for text in hostile(good) {
            let mut body = json!({
                "to": NUMBER, "from": NUMBER, "on_unknown": "fail", "deadline_at": null,
                "message": {"audio_id": "builtin:beep"},
            });
            *body.pointer_mut(pointer).unwrap() = text.clone().into();
            let answer = fleet.api.post("/v1/calls", &body).await;
            assert_eq!(answer.status, 422, "{pointer} {text:?}: {}", answer.text);
            let code = if matches!(pointer, "/to" | "/from") { "invalid_number" } else { "invalid_field" };
            answer.is_problem(422, code);
        }
    }
    // As a field's name.
    for text in hostile("to") {
        let mut body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
        body[&text] = "x".into();
        fleet.api.post("/v1/calls", &body).await.is_problem(422, "invalid_field");
    }
    assert_eq!(fleet.pbx("waw-1").count_actions("Originate"), 0);
    nothing_foreign(&fleet);
}

/// The customer's own words come back as they were, and go nowhere else.
#[tokio::test]
async fn the_customers_own_words_are_kept_as_they_came() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("cps_max = 1000").start().await;
    let mut placed = 0;
    for text in hostile("words") {
        let request = fleet.call(NUMBER).with("dedup_key", text.clone()).with("metadata", json!({"k": text}));
        let answer = request.answer().await;
        let keyed: String = text.chars().filter(|c| c.len_utf8() < 4).take(10).collect();
        if text.contains('\0') {
            answer.is_problem(422, "invalid_field");
            continue;
        }
        let call = answer.is(201);
        assert_eq!(call["metadata"], json!({"k": text}));
        let at = format!("/v1/calls/{}", call["id"].as_str().unwrap());
        assert_eq!(fleet.api.get(&at).await.is(200)["metadata"], json!({"k": text}));
        let keyed_request = fleet.call(NUMBER).with("metadata", json!({keyed.clone(): "v"}));
        assert_eq!(keyed_request.answer().await.is(201)["metadata"], json!({keyed: "v"}));
        placed += 2;
    }
    crate::fixture::eventually("all are sent", async || {
        fleet.pbx("waw-1").count_actions("Originate") == placed
    })
    .await;
    nothing_foreign(&fleet);
    let seen: Vec<_> = fleet.pbx("waw-1").actions();
    let told = |value: &str| value.contains("words") || value.contains("System") || value.contains("evil");
    assert!(seen.iter().flat_map(|action| &action.headers).all(|(_, value)| !told(value)));
}

#[tokio::test]
async fn hostile_headers_do_nothing() {
    let fleet = Fleet::small().await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let keys: [&[u8]; 6] = [b"\xc3\xa9", b"\xff", b"a\tb\xe2\x80\xa8", b"", &[b'k'; 256], b"\x80"];
    for key in keys {
        let value = reqwest::header::HeaderValue::from_bytes(key).unwrap();
        let request =
            fleet.api.request(Method::POST, "/v1/calls").header("idempotency-key", value).json(&body);
        let problem = Answer::to(request).await.is_problem(422, "invalid_field");
        assert_eq!(problem["param"], "Idempotency-Key", "{key:?}");
    }
    let two = fleet.api.request(Method::POST, "/v1/calls").header("idempotency-key", "a");
    let two = two.header("idempotency-key", "b").json(&body);
    Answer::to(two).await.is_problem(422, "invalid_field");
    assert_eq!(fleet.pbx("waw-1").count_actions("Originate"), 0);
    for key in ["a,b)@&/;${X}\"'`\\", "')); DROP TABLE idempotency; --"] {
        let call = fleet.call(NUMBER).idempotency_key(key).answer().await.is(201);
        let again = fleet.call(NUMBER).idempotency_key(key).answer().await;
        assert_eq!(again.is(201)["id"], call["id"]);
    }
    nothing_foreign(&fleet);
}

/// Every text of a fleet file that goes to a PBX, into a metric or onto a terminal.
#[tokio::test]
async fn hostile_text_in_a_fleet_file_is_refused() {
    let fleet = Fleet::small().await;
    let before = fleet.operator.get("/admin/v1/fleet").await.is(200);
    let toml = fleet.toml();
    let fields = [
        ("name = \"acme\"", "name = ", "acme"),
        ("name = \"waw-1\"", "name = ", "waw-1"),
        ("region = \"r-waw-1\"", "region = ", "r-waw-1"),
        ("username = \"ringward\"", "username = ", "ringward"),
        ("name = \"acme-waw-1\"", "name = ", "acme-waw-1"),
        ("endpoint = \"acme\"", "endpoint = ", "acme"),
        ("prefix = \"+\"", "prefix = ", "+48"),
        ("tiers = [[\"acme-waw-1\"]]", "tiers = ", "acme-waw-1"),
    ];
    for (line, key, good) in fields {
        assert!(toml.contains(line), "{line}");
        for text in hostile(good) {
            // Visible ASCII is a user's name in manager.conf, and can end no line.
            let harmless = key == "username = " && text.bytes().all(|b| b.is_ascii_graphic());
            if harmless {
                continue;
            }
            let value = toml_string(&text);
            let value = if key == "tiers = " { format!("[[{value}]]") } else { value };
            let broken = toml.replacen(line, &format!("{key}{value}"), 1);
            let answer = fleet.apply(&broken, "").await;
            assert_eq!(answer.status, 422, "{key}{text:?}: {}", answer.text);
            let problem = answer.is_problem(422, "invalid_fleet");
            let clean = |text: &Value| !text.to_string().contains(['\u{202e}', '\u{85}']);
            assert!(problem["problems"][0]["line"].is_number(), "{problem}");
            assert!(clean(&problem["problems"]), "{text:?} goes to a terminal raw: {problem}");
        }
    }
    let address = fleet.pbx("waw-1").address().to_string();
    for text in hostile(&address) {
        let broken = toml.replacen(&format!("\"{address}\""), &toml_string(&text), 1);
        fleet.apply(&broken, "").await.is_problem(422, "invalid_fleet");
    }
    assert_eq!(fleet.operator.get("/admin/v1/fleet").await.is(200), before, "nothing changed");
    nothing_foreign(&fleet);
}

fn toml_string(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// Names of keys, and what is asked for in a query.
#[tokio::test]
async fn hostile_text_at_the_operators_door() {
    let fleet = Fleet::small().await;
    for text in hostile("name") {
        let answer = fleet.operator.post("/admin/v1/keys", &json!({"name": text})).await;
        if text.chars().any(char::is_control) {
            answer.is_problem(422, "invalid_field");
        } else {
            assert_eq!(answer.is(201)["name"], text.as_str());
        }
        let request = fleet.operator.request(Method::GET, "/admin/v1/routes/explain").query(&[("to", &text)]);
        Answer::to(request).await.is_problem(400, "malformed");
    }
    nothing_foreign(&fleet);
}
