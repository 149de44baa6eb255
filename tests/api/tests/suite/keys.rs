//! Keys of customers: what they may make, how they are rotated, and that a revoked one opens nothing any more.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fixture::{Answer, Door, Fleet, NUMBER};

fn secret(door: &Door, made: &Value) -> Door {
    door.with_key(made["secret"].as_str().unwrap())
}

async fn key(fleet: &Fleet, body: Value) -> (Value, Door) {
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let door = secret(&fleet.api, &made);
    (made, door)
}

fn at(made: &Value, verb: &str) -> String {
    format!("/v1/api_keys/{}{verb}", made["id"].as_str().unwrap())
}

#[tokio::test]
async fn nobody_makes_a_key_that_may_do_more_than_their_own() {
    let fleet = Fleet::small().await;
    let ends = crate::fixture::in_seconds(3_600);
    let body = json!({"name": "k", "scopes": ["keys", "calls:read"], "expires_at": ends});
    let (_, door) = key(&fleet, body).await;
    let made = door.post("/v1/api_keys", &json!({"name": "less", "scopes": ["calls:read"]})).await.is(201);
    assert_eq!(made["scopes"], json!(["calls:read"]));
    assert!(
        made["expires_at"].as_str().is_some_and(|at| !at.is_empty()),
        "it ends with the one that made it"
    );
    secret(&fleet.api, &made).get("/v1/calls").await.is(200);
    secret(&fleet.api, &made).get("/v1/api_keys").await.is_problem(403, "forbidden");
    let same = door.post("/v1/api_keys", &json!({"name": "same"})).await.is(201);
    assert_eq!(same["scopes"], json!(["calls:read", "keys"]));
    for body in [
        json!({"name": "more", "scopes": ["calls:read", "calls:write"]}),
        json!({"name": "longer", "scopes": ["calls:read"], "expires_at": crate::fixture::in_seconds(7_200)}),
    ] {
        door.post("/v1/api_keys", &body).await.is_problem(403, "forbidden");
    }
    for body in [
        json!({"name": "", "scopes": ["calls:read"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["calls:read", "calls:read"]}),
        json!({"name": "x", "scopes": ["operator"]}),
        json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "admin"}),
        json!({"name": "x", "org": "org_00000000000000000000000000"}),
    ] {
        door.post("/v1/api_keys", &body).await.is_problem(422, "invalid_field");
    }
    // A rotation shows a secret: of a key that may do more it is refused, its revocation is not.
    let (strong, _) = key(&fleet, json!({"name": "strong"})).await;
    door.post(&at(&strong, "/rotate"), &json!({})).await.is_problem(403, "forbidden");
    door.post(&at(&strong, "/revoke"), &json!({})).await.is(200);
    // A test key has no part in live ones.
    let (_, test) = key(&fleet, json!({"name": "t", "livemode": false})).await;
    let made = test.post("/v1/api_keys", &json!({"name": "t2"})).await.is(201);
    assert!(made["livemode"] == false && made["secret"].as_str().unwrap().starts_with("rw_test_"), "{made}");
    test.post("/v1/api_keys", &json!({"name": "l", "livemode": true})).await.is_problem(403, "forbidden");
    test.post(&at(&same, "/rotate"), &json!({})).await.is_problem(403, "forbidden");
    test.post(&at(&same, "/revoke"), &json!({})).await.is_problem(403, "forbidden");
    secret(&fleet.api, &same).get("/v1/calls").await.is(200);
}

#[tokio::test]
async fn a_rotated_key_opens_until_its_overlap_is_over() {
    let fleet = Fleet::small().await;
    let (old, former) = key(&fleet, json!({"name": "pager", "scopes": ["calls:read"]})).await;
    let id = old["id"].as_str().unwrap();
    let rotate = format!("/admin/v1/keys/{id}/rotate");
    fleet.operator.post(&rotate, &json!({"overlap_s": 604_801})).await.is_problem(422, "invalid_field");
    let new = fleet.operator.post(&rotate, &json!({"overlap_s": 60})).await.is(201);
    assert_eq!((&new["name"], &new["scopes"]), (&old["name"], &old["scopes"]));
    assert_eq!((&new["rotated_from"], &new["expires_at"]), (&old["id"], &Value::Null));
    let next = secret(&fleet.api, &new);
    former.get("/v1/calls").await.is(200);
    next.get("/v1/calls").await.is(200);
    fleet.later(61);
    former.get("/v1/calls").await.is_problem(401, "unauthenticated");
    next.get("/v1/calls").await.is(200);
    fleet.operator.post(&rotate, &json!({})).await.is_problem(404, "not_found");
    // At once, where nothing is to overlap.
    let rotate = rotate.replace(id, new["id"].as_str().unwrap());
    let last = secret(&fleet.api, &fleet.operator.post(&rotate, &json!({"overlap_s": 0})).await.is(201));
    next.get("/v1/calls").await.is_problem(401, "unauthenticated");
    last.get("/v1/calls").await.is(200);
    let rows = fleet.operator.get("/admin/v1/audit?action=key.rotate&outcome=success").await.is(200);
    assert_eq!(rows["data"].as_array().unwrap().len(), 2, "{rows}");
}

/// Opens an event stream, and says when it has ended.
async fn stream(door: &Door) -> reqwest::Response {
    let request = door.request(Method::GET, "/v1/events").header("accept", "text/event-stream");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

async fn ends(mut response: reqwest::Response) {
    // Well below the look that a stream takes at its key by itself.
    let read = timeout(Duration::from_secs(3), async { while let Ok(Some(_)) = response.chunk().await {} });
    read.await.expect("the stream goes on");
}

#[tokio::test]
async fn a_revoked_key_s_streams_end_at_once_and_a_suspended_organisation_s_too() {
    let fleet = Fleet::small().await;
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme", "name": "Acme"})).await.is(201);
    let org = org["id"].as_str().unwrap();
    let (revoked, first) = key(&fleet, json!({"name": "a", "org": org})).await;
    let (_, second) = key(&fleet, json!({"name": "b", "org": org})).await;
    let (ending, going_on) = (stream(&first).await, stream(&second).await);
    second.post(&at(&revoked, "/revoke"), &json!({})).await.is(200);
    ends(ending).await;
    first.get("/v1/calls").await.is_problem(401, "unauthenticated");
    second.get("/v1/calls").await.is(200);
    fleet.operator.post(&format!("/admin/v1/orgs/{org}/suspend"), &json!({})).await.is(200);
    ends(going_on).await;
    second.get("/v1/calls").await.is_problem(403, "org_suspended");
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    second.post("/v1/calls", &body).await.is_problem(403, "org_suspended");
    // Others are not.
    fleet.api.get("/v1/calls").await.is(200);
    fleet.operator.post(&format!("/admin/v1/orgs/{org}/resume"), &json!({})).await.is(200);
    second.get("/v1/calls").await.is(200);
}

#[tokio::test]
async fn organisations_are_made_named_and_found() {
    let fleet = Fleet::small().await;
    let made = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme"})).await.is(201);
    assert_eq!((&made["name"], &made["suspended_at"]), (&json!("acme"), &Value::Null));
    let twin = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme", "name": "Other"})).await;
    twin.is_problem(409, "slug_taken");
    for body in
        [json!({}), json!({"slug": "A"}), json!({"slug": "b", "name": " "}), json!({"slug": "b", "id": 1})]
    {
        fleet.operator.post("/admin/v1/orgs", &body).await.is_problem(422, "invalid_field");
    }
    let path = format!("/admin/v1/orgs/{}", made["id"].as_str().unwrap());
    let rename = fleet.operator.request(Method::PATCH, &path).json(&json!({"name": "Acme GmbH"}));
    assert_eq!(Answer::to(rename).await.is(200)["name"], "Acme GmbH");
    assert_eq!(fleet.operator.get(&path).await.is(200)["slug"], "acme");
    let list = fleet.operator.get("/admin/v1/orgs?limit=1").await.is(200);
    assert_eq!((&list["data"][0]["name"], &list["has_more"]), (&json!("Acme GmbH"), &json!(true)));
    let missing = fleet.operator.get("/admin/v1/orgs/org_7zzzzzzzzzzzzzzzzzzzzzzzz0").await;
    missing.is_problem(404, "not_found");
    let body = json!({"name": "k", "org": "org_7zzzzzzzzzzzzzzzzzzzzzzzz0"});
    fleet.operator.post("/admin/v1/keys", &body).await.is_problem(422, "invalid_field");
}

#[tokio::test]
async fn a_list_of_keys_goes_page_by_page() {
    let fleet = Fleet::small().await;
    let (_, door) = key(&fleet, json!({"name": "k", "scopes": ["keys"]})).await;
    for n in 0..3 {
        door.post("/v1/api_keys", &json!({"name": format!("n{n}")})).await.is(201);
    }
    let mut names = Vec::new();
    let mut path = "/v1/api_keys?limit=2".to_owned();
    loop {
        let page = door.get(&path).await.is(200);
        let data = page["data"].as_array().unwrap().clone();
        names.extend(data.iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        assert!(!page.to_string().contains("secret"), "{page}");
        if page["has_more"] == false {
            break;
        }
        path =
            format!("/v1/api_keys?limit=2&starting_after={}", data.last().unwrap()["id"].as_str().unwrap());
    }
    assert_eq!(names, ["n2", "n1", "n0", "k", "customer"]);
}
