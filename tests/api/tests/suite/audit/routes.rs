//! Every state-changing route of the table leaves a row: where it is refused, and where it succeeds.

use std::collections::BTreeSet;

use controlplane::{
    audit::actions::ACTIONS,
    http::routes::{Needs, Role, table},
};
use node_agent_protocol::{JOIN_PATH, RENEW_PATH};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    audio::tone,
    fixture::{Answer, Browser, Fleet, NUMBER, Receiver, eventually, proof, talks},
    webhooks::inner,
};

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

/// A second address of this machine.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Of the console.
fn is_page(path: &str) -> bool {
    !["/v1/", "/admin/", "/agents/"].iter().any(|door| path.starts_with(door))
}

/// The agents' door asks for certificates: its refusals are in `tests/agents`.
#[tokio::test]
async fn every_state_changing_route_leaves_a_row_where_it_is_refused() {
    let fleet = Fleet::small().await;
    let mut asked = Vec::new();
    for (method, path, action, target) in ACTIONS.iter().filter(|(_, path, ..)| !path.starts_with("/agents/"))
    {
        let door = if path.starts_with("/v1/") { &fleet.api } else { &fleet.operator };
        let request = if is_page(path) {
            // What somebody is refused again of the same kind is counted, and not told again.
            Browser::on(door, ELSEWHERE).request(method.parse().unwrap(), &filled(path))
        } else {
            door.without_key().request(method.parse().unwrap(), &filled(path)).json(&json!({}))
        };
        let answer = Answer::to(request.header("user-agent", "probe/1")).await;
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.text);
        let ip = if is_page(path) { std::net::Ipv4Addr::from(ELSEWHERE) } else { [127, 0, 0, 1].into() };
        asked.push((
            answer.header("x-request-id").to_owned(),
            *action,
            *target,
            answer.status,
            ip.to_string(),
        ));
    }
    eventually("all rows", async || {
        fleet.audit().await.iter().filter(|r| r["outcome"] == "denied").count() >= asked.len()
    })
    .await;
    let rows = fleet.audit().await;
    for (request, action, target, status, ip) in asked {
        let row = rows.iter().find(|row| row["request_id"] == request.as_str());
        let row = row.unwrap_or_else(|| panic!("{action}: no row: {rows:?}"));
        assert_eq!((&row["action"], &row["target_type"]), (&json!(action), &json!(target)));
        assert_eq!((&row["ip"], &row["user_agent"]), (&json!(ip), &json!("probe/1")));
        if status == 401 {
            assert_eq!(row["reason"], "unauthenticated");
        }
    }
}

/// Whoever has a key that may less is refused, and the row names the key.
#[tokio::test]
async fn every_route_leaves_a_row_that_names_the_key_that_may_not() {
    let fleet = Fleet::small().await;
    let key = async |body: Value| fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let viewer = key(json!({"name": "looks", "operator": true, "role": "viewer"})).await;
    let visitor = key(json!({"name": "visits", "operator": true, "role": "viewer"})).await;
    let reader = key(json!({"name": "reads", "scopes": ["calls:read"]})).await;
    let mut asked = Vec::new();
    for route in table().iter().filter(|route| route.method != Method::GET) {
        let (door, key) = match route.needs {
            Needs::AnyOf(_) => (&fleet.api, &reader),
            Needs::Role(_) => (&fleet.operator, &viewer),
            Needs::Page(needs) if needs > Role::Viewer => {
                let browser = Browser::of(&fleet.operator, visitor["secret"].as_str().unwrap()).await;
                let answer = browser.post(&filled(route.path), &[]).await;
                assert_eq!(answer.status, 403, "{}: {}", route.path, answer.text);
                asked.push((answer.header("x-request-id").to_owned(), visitor["id"].clone(), route.path));
                continue;
            }
            Needs::Nothing | Needs::Certificate | Needs::Token | Needs::Page(_) | Needs::SignIn => continue,
        };
        let door = door.with_key(key["secret"].as_str().unwrap());
        let answer = Answer::to(door.request(route.method.clone(), &filled(route.path))).await;
        answer.is_problem(403, "forbidden");
        asked.push((answer.header("x-request-id").to_owned(), key["id"].clone(), route.path));
    }
    let rows = async || {
        let rows = fleet.operator.get("/admin/v1/audit?outcome=denied").await.is(200);
        rows["data"].as_array().unwrap().clone()
    };
    eventually("all rows", async || rows().await.len() >= asked.len()).await;
    let rows = rows().await;
    for (request, key, path) in asked {
        let row = rows.iter().find(|row| row["request_id"] == request.as_str());
        let row = row.unwrap_or_else(|| panic!("{path}: no row: {rows:?}"));
        assert_eq!((&row["actor"], &row["reason"]), (&key, &json!("forbidden")), "{path}");
        assert_eq!(row["org"].is_string(), path.starts_with("/v1/"), "{row}");
    }
}

/// Asks routes so that they do what they are for, and looks for the row of each.
struct Doing<'f> {
    fleet: &'f Fleet,
    done: BTreeSet<(String, String)>,
}

impl Doing<'_> {
    async fn ask(&mut self, method: &str, route: &'static str, path: &str, body: Value) -> Value {
        let door = if route.starts_with("/admin/") { &self.fleet.operator } else { &self.fleet.api };
        let request = door.request(method.parse().unwrap(), path);
        let request = match body.as_str() {
            Some(text) => request.body(text.to_owned()),
            None => request.json(&body),
        };
        self.sent(method, route, request).await
    }

    /// At the route's own address, which names nothing.
    async fn post(&mut self, route: &'static str, body: Value) -> Value {
        self.ask("POST", route, route, body).await
    }

    /// Of the thing that a former answer gave.
    async fn of(&mut self, method: &str, route: &'static str, made: &Value, body: Value) -> Value {
        let path = route.replace("{id}", made["id"].as_str().unwrap());
        self.ask(method, route, &path, body).await
    }

    async fn sent(&mut self, method: &str, route: &'static str, request: RequestBuilder) -> Value {
        let answer = self.answered(method, route, request).await;
        serde_json::from_str(&answer.text).unwrap_or(Value::Null)
    }

    async fn answered(&mut self, method: &str, route: &'static str, request: RequestBuilder) -> Answer {
        let answer = Answer::to(request).await;
        // A form leads to a page.
        assert!((200..=303).contains(&answer.status), "{method} {route}: {}", answer.text);
        let action = ACTIONS.iter().find(|(m, p, ..)| *m == method && *p == route).unwrap().2;
        let request = answer.header("x-request-id").to_owned();
        eventually(&format!("{method} {route}: {action}"), async || {
            self.fleet.audit().await.iter().any(|row| {
                row["request_id"] == request.as_str()
                    && row["action"] == action
                    && row["outcome"] == "success"
            })
        })
        .await;
        self.done.insert((method.to_owned(), route.to_owned()));
        answer
    }

    async fn calls(&mut self) {
        let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
        for (create, cancel) in
            [("/v1/calls", "/v1/calls/{id}/cancel"), ("/admin/v1/calls", "/admin/v1/calls/{id}/cancel")]
        {
            self.fleet.callee(NUMBER, talks(20_000));
            let made = self.post(create, call.clone()).await;
            self.of("POST", cancel, &made, json!({})).await;
        }
        self.post("/admin/v1/erasures", json!({"number": NUMBER})).await;
        self.post("/admin/v1/held/release", json!({})).await;
        let upload = self.fleet.api.request(Method::POST, "/v1/audio").header("content-type", "audio/wav");
        let made = self.sent("POST", "/v1/audio", upload.body(tone(440.0))).await;
        self.of("DELETE", "/v1/audio/{id}", &made, json!({})).await;
    }

    async fn hooks(&mut self) {
        let receiver = Receiver::start().await;
        let hook = json!({"url": receiver.url(), "events": ["call.finished"]});
        let made = self.post("/v1/webhook_endpoints", hook).await;
        self.of("PATCH", "/v1/webhook_endpoints/{id}", &made, json!({"description": "x"})).await;
        self.of("POST", "/v1/webhook_endpoints/{id}/rotate_secret", &made, json!({})).await;
        self.fleet.callee(NUMBER, talks(10));
        self.fleet.call(NUMBER).place().await.ends().await;
        let event = receiver.gets(1).await[0].id();
        self.of("POST", "/v1/webhook_endpoints/{id}/test", &made, json!({})).await;
        let replay = "/v1/webhook_endpoints/{id}/deliveries/{event}/replay";
        let path = replay.replace("{id}", made["id"].as_str().unwrap()).replace("{event}", &event);
        self.ask("POST", replay, &path, json!({})).await;
        let replay = "/admin/v1/webhooks/deliveries/{event}/replay";
        let endpoint = json!({"endpoint": made["id"]});
        self.ask("POST", replay, &replay.replace("{event}", &event), endpoint).await;
        let browser = Browser::of(&self.fleet.operator, &self.fleet.operator.key.clone().unwrap()).await;
        let (replay, endpoint) = ("/webhooks/{event}/replay", made["id"].as_str().unwrap());
        self.sent_form(&browser, replay, &replay.replace("{event}", &event), &[("endpoint", endpoint)]).await;
        self.of("DELETE", "/v1/webhook_endpoints/{id}", &made, json!({})).await;
        self.post("/v1/callback_secret/rotate", json!({})).await;
    }

    async fn on_call(&mut self) {
        let alertmanager = json!({"name": "x", "kind": "alertmanager", "to": [NUMBER]});
        let other = json!({"name": "x", "kind": "json", "to": [NUMBER], "speech": {"alert": "{{/text}}"}});
        let first = self.post("/v1/hooks", alertmanager.clone()).await;
        let second = self.post("/v1/hooks", other).await;
        self.of("PATCH", "/v1/hooks/{id}", &first, json!({"rounds": 1})).await;
        let alerts = json!([{"status": "firing", "labels": {"alertname": "x"}}]);
        let told = json!({"version": "4", "groupKey": "x", "status": "firing", "alerts": alerts});
        self.fleet.callee(NUMBER, talks(20_000));
        for (route, hook, told) in [
            ("/v1/hooks/alertmanager/{id}", &first, told),
            ("/v1/hooks/json/{id}", &second, json!({"text": "x"})),
        ] {
            let receipt = self.of("POST", route, hook, told).await;
            let incident = json!({"id": receipt["incidents"][0]["incident"]});
            self.of("POST", "/v1/incidents/{id}/acknowledge", &incident, json!({})).await;
            self.of("POST", "/v1/incidents/{id}/resolve", &incident, json!({})).await;
        }
        let again = async || {
            let receipt =
                self.fleet.api.post(second["path"].as_str().unwrap(), &json!({"text": "x"})).await.is(202);
            json!({"id": receipt["incidents"][0]["incident"]})
        };
        let (of_operators, path) = (again().await, "/admin/v1/incidents/{id}/acknowledge");
        self.of("POST", path, &of_operators, json!({})).await;
        self.of("POST", "/admin/v1/incidents/{id}/resolve", &of_operators, json!({})).await;
        let receipt =
            self.fleet.api.post(second["path"].as_str().unwrap(), &json!({"text": "x"})).await.is(202);
        let id = receipt["incidents"][0]["incident"].as_str().unwrap().to_owned();
        let browser = Browser::of(&self.fleet.operator, &self.fleet.operator.key.clone().unwrap()).await;
        for route in ["/incidents/{id}/acknowledge", "/incidents/{id}/resolve"] {
            self.sent_form(&browser, route, &route.replace("{id}", &id), &[]).await;
        }
        self.of("DELETE", "/v1/hooks/{id}", &first, json!({})).await;
        let made = self.post("/admin/v1/hooks", alertmanager).await;
        self.of("DELETE", "/admin/v1/hooks/{id}", &made, json!({})).await;
    }

    async fn keys_and_organisations(&mut self) {
        for (create, rotate, revoke) in [
            ("/v1/api_keys", "/v1/api_keys/{id}/rotate", "/v1/api_keys/{id}/revoke"),
            ("/admin/v1/keys", "/admin/v1/keys/{id}/rotate", "/admin/v1/keys/{id}/revoke"),
        ] {
            let made = self.post(create, json!({"name": "x"})).await;
            if create == "/admin/v1/keys" {
                let limits = json!({"calls_per_day": 1_000});
                self.of("PUT", "/admin/v1/keys/{id}/limits", &made, limits).await;
            }
            let next = self.of("POST", rotate, &made, json!({})).await;
            self.of("POST", revoke, &next, json!({})).await;
        }
        let org = self.post("/admin/v1/orgs", json!({"slug": "x-1"})).await;
        self.of("PATCH", "/admin/v1/orgs/{id}", &org, json!({"name": "X"})).await;
        self.of("PUT", "/admin/v1/orgs/{id}/policy", &org, json!({"countries": {"PL": ["mobile"]}})).await;
        self.of("PUT", "/admin/v1/orgs/{id}/limits", &org, json!({"calls_per_day": 1_000})).await;
        self.of("PUT", "/admin/v1/orgs/{id}/retention", &org, json!({"calls_days": 30})).await;
        self.of("POST", "/admin/v1/orgs/{id}/suspend", &org, json!({})).await;
        self.of("POST", "/admin/v1/orgs/{id}/resume", &org, json!({})).await;
        let mut force = proof(&self.fleet.settings.data_dir);
        force["force"] = true.into();
        self.post("/admin/v1/bootstrap", force).await;
    }

    /// As a page's form does it; where it leads.
    async fn sent_form(
        &mut self,
        browser: &Browser,
        route: &'static str,
        path: &str,
        form: &[(&str, &str)],
    ) -> String {
        let answer = self.answered("POST", route, browser.sends(path, form)).await;
        answer.header("location").to_owned()
    }

    /// As the pages' forms do it.
    async fn console(&mut self) {
        let key = self.fleet.operator.key.clone().unwrap();
        let browser = Browser::of(&self.fleet.operator, &key).await;
        self.sent("POST", "/sign-in", browser.sends("/sign-in", &[("key", &key)])).await;
        for (route, name) in [
            ("/nodes/{name}/drain", "waw-1"),
            ("/nodes/{name}/undrain", "waw-1"),
            ("/trunks/{name}/disable", "acme-waw-1"),
            ("/trunks/{name}/enable", "acme-waw-1"),
        ] {
            self.sent_form(&browser, route, &route.replace("{name}", name), &[("reason", "x")]).await;
        }
        let canary = "/trunks/{name}/canary";
        self.sent_form(&browser, canary, "/trunks/acme-waw-1/canary", &[]).await;
        self.fleet.callee(NUMBER, talks(20_000));
        let placed = self.sent_form(&browser, "/calls/new", "/calls/new", &[("to", NUMBER)]).await;
        self.sent_form(&browser, "/calls/{id}/cancel", &format!("{placed}/cancel"), &[]).await;
        let org = self.sent_form(&browser, "/customers/new", "/customers/new", &[("slug", "x-2")]).await;
        let key = [("name", "x"), ("mode", "live"), ("audio", "on")];
        let of = |verb: &str| format!("{org}/{verb}");
        self.sent_form(&browser, "/customers/{id}/limits", &of("limits"), &[("cps_max", "5")]).await;
        let place = [("place", "PL"), ("access", "open")];
        self.sent_form(&browser, "/customers/{id}/destinations", &of("destinations"), &place).await;
        self.answered("POST", "/customers/{id}/keys", browser.sends(&of("keys"), &key)).await;
        for (route, verb) in [("/customers/{id}/suspend", "suspend"), ("/customers/{id}/resume", "resume")] {
            self.sent_form(&browser, route, &of(verb), &[]).await;
        }
        let keys = format!("/admin/v1/keys?org={}", org.rsplit('/').next().unwrap());
        let made = self.fleet.operator.get(&keys).await.is(200)["data"][0]["id"].as_str().unwrap().to_owned();
        for (route, verb) in [("/keys/{id}/rotate", "rotate"), ("/keys/{id}/revoke", "revoke")] {
            self.answered("POST", route, browser.sends(&format!("/keys/{made}/{verb}"), &[])).await;
        }
        let said = [("title", "x"), ("text", "x")];
        self.sent_form(&browser, "/notices/new", "/notices/new", &said).await;
        let notices = self.fleet.operator.get("/admin/v1/notices").await.is(200);
        let notice = format!("/notices/{}", notices["data"][0]["id"].as_str().unwrap());
        self.sent_form(&browser, "/notices/{id}/more", &format!("{notice}/more"), &[("text", "x")]).await;
        self.sent_form(&browser, "/notices/{id}/remove", &format!("{notice}/remove"), &[]).await;
        for route in ["/bans/add", "/bans/remove", "/allows/add", "/allows/remove"] {
            self.sent_form(&browser, route, route, &[("net", "203.0.113.77"), ("reason", "x")]).await;
        }
        self.sent("POST", "/sign-out", browser.sends("/sign-out", &[])).await;
    }

    async fn nodes_and_bans(&mut self) {
        for (route, name) in [
            ("/admin/v1/nodes/{name}/drain", "waw-1"),
            ("/admin/v1/nodes/{name}/undrain", "waw-1"),
            ("/admin/v1/trunks/{name}/disable", "acme-waw-1"),
            ("/admin/v1/trunks/{name}/enable", "acme-waw-1"),
            ("/admin/v1/trunks/{name}/canary", "beta-waw-1"),
            ("/admin/v1/nodes/{name}/revoke", "waw-1"),
        ] {
            self.ask("POST", route, &route.replace("{name}", name), json!({})).await;
        }
        let urls = json!({"urls": ["https://plane.example:8443"]});
        self.ask("POST", "/admin/v1/nodes/{name}/token", "/admin/v1/nodes/waw-1/token", urls).await;
        for (route, net) in [
            ("/admin/v1/bans", "203.0.113.9"),
            ("/admin/v1/bans/remove", "203.0.113.9"),
            ("/admin/v1/allows", "203.0.113.10"),
            ("/admin/v1/allows/remove", "203.0.113.10"),
        ] {
            self.post(route, json!({"net": net})).await;
        }
        let notice = self.post("/admin/v1/notices", json!({"title": "x", "text": "x"})).await;
        let updates = "/admin/v1/notices/{id}/updates";
        self.of("POST", updates, &notice, json!({"text": "x", "ends": true})).await;
        self.of("DELETE", "/admin/v1/notices/{id}", &notice, json!({})).await;
        let import = "/admin/v1/bans/import";
        self.ask("POST", import, &format!("{import}?source=a"), json!("203.0.113.11\n")).await;
        let toml = self.fleet.toml().replace("endpoint =", "weight = 2\nendpoint =");
        self.post("/admin/v1/fleet", json!(toml)).await;
    }
}

#[tokio::test]
async fn every_state_changing_route_leaves_a_row_where_it_succeeds() {
    let canary = "canary = { number = \"+48229999999\", interval_s = 86400 }";
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"]).trunks_have(canary).settings(inner).start().await;
    let mut doing = Doing { fleet: &fleet, done: BTreeSet::new() };
    doing.calls().await;
    doing.hooks().await;
    doing.on_call().await;
    doing.keys_and_organisations().await;
    doing.console().await;
    doing.nodes_and_bans().await;
    // At the agents' door: in tests/agents, where certificates are.
    let left: Vec<_> = changing_routes().difference(&doing.done).map(|(_, path)| path.clone()).collect();
    assert_eq!(left, [JOIN_PATH, RENEW_PATH]);
}
