//! Every state-changing route of the table leaves a row: where it is refused, and where it succeeds.

use std::collections::BTreeSet;

use controlplane::{audit::actions::ACTIONS, http::routes::table};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fleet, NUMBER, eventually};

/// Every route of every door that changes something, as method and path.
fn changing_routes() -> BTreeSet<(String, String)> {
    let changes = table().into_iter().filter(|route| route.method != Method::GET);
    changes.map(|route| (route.method.to_string(), route.path.to_owned())).collect()
}

fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "x1" } else { part }).collect::<Vec<_>>().join("/")
}

#[test]
fn every_state_changing_route_has_its_action() {
    let known: BTreeSet<_> =
        ACTIONS.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(changing_routes(), known);
}

/// The agents' door asks for certificates: its refusals are in `tests/agents`.
#[tokio::test]
async fn every_state_changing_route_leaves_a_row_where_it_is_refused() {
    let fleet = Fleet::small().await;
    let mut asked = Vec::new();
    for (method, path, action, target) in ACTIONS.iter().filter(|(_, path, ..)| !path.starts_with("/agents/"))
    {
        let door = if path.starts_with("/admin/") { &fleet.operator } else { &fleet.api };
        let request = door.without_key().request(method.parse().unwrap(), &filled(path)).json(&json!({}));
        let answer = Answer::to(request.header("user-agent", "probe/1")).await;
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.text);
        asked.push((answer.header("x-request-id").to_owned(), *action, *target, answer.status));
    }
    eventually("all rows", async || {
        fleet.audit().await.iter().filter(|r| r["outcome"] == "denied").count() >= asked.len()
    })
    .await;
    let rows = fleet.audit().await;
    for (request, action, target, status) in asked {
        let row = rows.iter().find(|row| row["request_id"] == request.as_str());
        let row = row.unwrap_or_else(|| panic!("{action}: no row: {rows:?}"));
        assert_eq!((&row["action"], &row["target_type"]), (&json!(action), &json!(target)));
        assert_eq!((&row["ip"], &row["user_agent"]), (&json!("127.0.0.1"), &json!("probe/1")));
        if status == 401 {
            assert_eq!(row["reason"], "unauthenticated");
        }
    }
}

/// What each route does, so that it succeeds: its row is the success's.
#[tokio::test]
async fn every_state_changing_route_leaves_a_row_where_it_succeeds() {
    let fleet = Fleet::small().await;
    let mut done = BTreeSet::new();
    let mut ask = async |operator: bool, method: &str, route: &'static str, path: String, body: Value| {
        let door = if operator { &fleet.operator } else { &fleet.api };
        let method: Method = method.parse().unwrap();
        let request = door.request(method.clone(), &path);
        let request = match &body {
            Value::String(text) => request.body(text.clone()),
            body => request.json(body),
        };
        let answer = Answer::to(request).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text);
        let action = ACTIONS.iter().find(|(m, p, ..)| *m == method.as_str() && *p == route).unwrap().2;
        let request = answer.header("x-request-id").to_owned();
        eventually(action, async || {
            fleet.audit().await.iter().any(|row| {
                row["request_id"] == request.as_str()
                    && row["action"] == action
                    && row["outcome"] == "success"
            })
        })
        .await;
        done.insert((method.to_string(), route.to_owned()));
        serde_json::from_str::<Value>(&answer.text).unwrap_or(Value::Null)
    };
    let nothing = || json!({});
    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    for (operator, base) in [(false, "/v1/calls"), (true, "/admin/v1/calls")] {
        fleet.callee(NUMBER, crate::fixture::talks(20_000));
        let made = ask(operator, "POST", base, base.to_owned(), call.clone()).await;
        let path = format!("{base}/{}/cancel", made["id"].as_str().unwrap());
        let route = if operator { "/admin/v1/calls/{id}/cancel" } else { "/v1/calls/{id}/cancel" };
        ask(operator, "POST", route, path, nothing()).await;
    }
    let hooks = "/v1/webhook_endpoints";
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["call.finished"]});
    let made = ask(false, "POST", hooks, hooks.to_owned(), hook).await;
    let one = format!("{hooks}/{}", made["id"].as_str().unwrap());
    ask(false, "PATCH", "/v1/webhook_endpoints/{id}", one.clone(), json!({"description": "x"})).await;
    let rotate = "/v1/webhook_endpoints/{id}/rotate_secret";
    ask(false, "POST", rotate, format!("{one}/rotate_secret"), nothing()).await;
    ask(false, "DELETE", "/v1/webhook_endpoints/{id}", one, nothing()).await;
    let rotate = "/v1/callback_secret/rotate";
    ask(false, "POST", rotate, rotate.to_owned(), nothing()).await;
    let keys = "/admin/v1/keys";
    let made = ask(true, "POST", keys, keys.to_owned(), json!({"name": "x"})).await;
    let revoke = format!("{keys}/{}/revoke", made["id"].as_str().unwrap());
    ask(true, "POST", "/admin/v1/keys/{id}/revoke", revoke, nothing()).await;
    for (route, name) in [
        ("/admin/v1/nodes/{name}/drain", "waw-1"),
        ("/admin/v1/nodes/{name}/undrain", "waw-1"),
        ("/admin/v1/trunks/{name}/disable", "acme-waw-1"),
        ("/admin/v1/trunks/{name}/enable", "acme-waw-1"),
        ("/admin/v1/nodes/{name}/revoke", "waw-1"),
    ] {
        ask(true, "POST", route, route.replace("{name}", name), nothing()).await;
    }
    let urls = json!({"urls": ["https://plane.example:8443"]});
    ask(true, "POST", "/admin/v1/nodes/{name}/token", "/admin/v1/nodes/waw-1/token".to_owned(), urls).await;
    for (route, net) in [
        ("/admin/v1/bans", "203.0.113.9"),
        ("/admin/v1/bans/remove", "203.0.113.9"),
        ("/admin/v1/allows", "203.0.113.10"),
        ("/admin/v1/allows/remove", "203.0.113.10"),
    ] {
        ask(true, "POST", route, route.to_owned(), json!({"net": net})).await;
    }
    let import = "/admin/v1/bans/import";
    ask(true, "POST", import, format!("{import}?source=a"), json!("203.0.113.11\n")).await;
    let erasure = json!({"number": NUMBER});
    ask(true, "POST", "/admin/v1/erasures", "/admin/v1/erasures".to_owned(), erasure).await;
    let toml = fleet.toml().replace("endpoint =", "weight = 2\nendpoint =");
    ask(true, "POST", "/admin/v1/fleet", "/admin/v1/fleet".to_owned(), json!(toml)).await;
    // Those that need more than a request: in the tests of their own.
    let elsewhere = [
        ("POST", "/v1/audio"),
        ("DELETE", "/v1/audio/{id}"),
        ("POST", "/v1/webhook_endpoints/{id}/test"),
        ("POST", "/v1/webhook_endpoints/{id}/deliveries/{event}/replay"),
        ("POST", "/admin/v1/webhooks/deliveries/{event}/replay"),
        ("POST", "/admin/v1/bootstrap"),
        ("POST", "/agents/v1/join"),
        ("POST", "/agents/v1/renew"),
    ];
    done.extend(elsewhere.map(|(method, path)| (method.to_owned(), path.to_owned())));
    assert_eq!(done, changing_routes());
}
