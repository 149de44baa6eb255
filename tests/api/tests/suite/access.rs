//! Every route of the customers' and the operators' door, as the table has them, against every kind of key.

use std::collections::BTreeMap;

use controlplane::http::routes::{Door as At, Needs, Role, Route, Scope, table};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Browser, Door, Fleet};

/// An address of the route that names nothing there is.
fn address(route: &Route) -> String {
    let part = |part: &str| if part.starts_with('{') { "nothing".to_owned() } else { part.to_owned() };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn ask(door: &Door, route: &Route) -> Answer {
    Answer::to(door.request(route.method.clone(), &address(route))).await
}

/// Whether who asks was let through to the handler, whatever that says of an empty body.
fn is_let_through(answer: &Answer) -> bool {
    let code =
        serde_json::from_str::<Value>(&answer.text).map(|body| body["code"].clone()).unwrap_or_default();
    let is_refused = [json!("unauthenticated"), json!("forbidden")].contains(&code);
    assert_eq!(is_refused, matches!(answer.status, 401 | 403) && code != "node_not_declared", "{answer:?}");
    !is_refused
}

/// A key of each kind, by its word.
async fn doors(fleet: &Fleet) -> BTreeMap<&'static str, Door> {
    let make = async |body: Value, door: &Door| {
        let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
        door.with_key(made["secret"].as_str().unwrap())
    };
    let mut doors = BTreeMap::new();
    for scope in Scope::ALL {
        let word = scope.as_str();
        doors.insert(word, make(json!({"name": word, "scopes": [word]}), &fleet.api).await);
    }
    for role in Role::ALL {
        let word = role.as_str();
        let body = json!({"name": word, "operator": true, "role": word});
        doors.insert(word, make(body, &fleet.operator).await);
    }
    doors
}

#[tokio::test]
async fn every_route_takes_the_keys_that_its_row_names_and_no_other() {
    let fleet = Fleet::small().await;
    let doors = doors(&fleet).await;
    let mut seen = 0;
    for route in table().iter().filter(|route| !matches!(route.door, At::Agents | At::Public)) {
        let door = if route.door == At::Customers { &fleet.api } else { &fleet.operator };
        let name = format!("{} {}", route.method, route.path);
        let no_key = ask(&door.without_key(), route).await;
        match route.needs {
            Needs::Nothing => assert_eq!(no_key.status, 200, "{name}: {no_key:?}"),
            // The handler's own test has it.
            Needs::Token => assert_eq!(no_key.status, 415, "{name}: {no_key:?}"),
            // No browser says that it comes from a page of ours.
            Needs::SignIn => assert_eq!(no_key.status, 403, "{name}: {no_key:?}"),
            Needs::Page(needs) => {
                let stranger = || Browser::at(&fleet.operator).request(route.method.clone(), &address(route));
                let leads_to_sign_in = route.method == Method::GET && route.path != "/live";
                let refused = if leads_to_sign_in { 303 } else { 401 };
                assert_eq!(Answer::to(stranger()).await.status, refused, "{name}");
                for (word, other) in &doors {
                    // A key is no session.
                    let key = other.key.as_deref().unwrap();
                    let answer = Answer::to(stranger().bearer_auth(key)).await;
                    assert_eq!(answer.status, refused, "{name} with the key {word}");
                    let Ok(role) = word.parse::<Role>() else { continue };
                    // Of its own: one of the routes ends it.
                    let browser = Browser::of(&fleet.operator, key).await;
                    let request = browser.request(route.method.clone(), &address(route));
                    let answer = Answer::to(request.header("sec-fetch-site", "same-origin")).await;
                    let may = !matches!(answer.status, 401 | 403);
                    assert_eq!(may, role >= needs, "{name} with {word}: {answer:?}");
                    assert!(answer.header("location") != "/sign-in" || route.path == "/sign-out", "{name}");
                    seen += 1;
                }
            }
            Needs::AnyOf(_) | Needs::Role(_) => {
                no_key.is_problem(401, "unauthenticated");
                for (word, other) in &doors {
                    let answer = ask(&door.with_key(other.key.as_deref().unwrap()), route).await;
                    let may = match (route.needs, word.parse::<Scope>(), word.parse::<Role>()) {
                        (Needs::AnyOf(scopes), Ok(scope), _) => scopes.contains(&scope),
                        (Needs::Role(needs), _, Ok(role)) => role >= needs,
                        // The other door's key is no key here.
                        _ => {
                            answer.is_problem(401, "unauthenticated");
                            continue;
                        }
                    };
                    assert_eq!(is_let_through(&answer), may, "{name} with {word}: {answer:?}");
                    seen += 1;
                }
            }
            Needs::Certificate => unreachable!("not at this door"),
        }
    }
    assert!(seen > 200, "{seen}");
}

/// What a viewer sees changes nothing, and an operator makes no keys.
#[tokio::test]
async fn a_new_operator_key_is_no_admin_unless_that_is_said() {
    let fleet = Fleet::small().await;
    let made =
        fleet.operator.post("/admin/v1/keys", &json!({"name": "on call", "operator": true})).await.is(201);
    assert_eq!((&made["role"], &made["scopes"]), (&json!("operator"), &json!([])));
    let door = fleet.operator.with_key(made["secret"].as_str().unwrap());
    door.get("/admin/v1/keys").await.is(200);
    door.post("/admin/v1/keys", &json!({"name": "x", "operator": true})).await.is_problem(403, "forbidden");
    for body in [
        json!({"name": "x", "role": "admin"}),
        json!({"name": "x", "operator": true, "role": "root"}),
        json!({"name": "x", "operator": true, "scopes": ["calls:read"]}),
    ] {
        fleet.operator.post("/admin/v1/keys", &body).await.is_problem(422, "invalid_field");
    }
}
