//! Hooks as they are made, changed and told; and what is refused.

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    FIRST, SECOND, alert, becomes, fires, group, hook, is_over, night_shift, presses, speaking, tell, told,
};
use crate::fixture::{Answer, Door, Fleet};

async fn patch(door: &Door, hook: &Value, change: &Value) -> Answer {
    let path = format!("/v1/hooks/{}", hook["id"].as_str().unwrap());
    Answer::to(door.request(Method::PATCH, &path).json(change)).await
}

#[tokio::test]
async fn a_hook_is_made_changed_listed_and_removed() {
    let fleet = Fleet::small().await;
    let made = hook(&fleet.api, night_shift()).await;
    assert_eq!(
        (&made["object"], &made["group_by"], &made["from"]),
        (&json!("hook"), &json!("group"), &Value::Null)
    );
    assert_eq!(made["path"], format!("/v1/hooks/alertmanager/{}", made["id"].as_str().unwrap()));
    assert!(made["speech"]["closing"].as_str().unwrap().contains("Press 1"));
    let change =
        json!({"name": "Day shift", "to": [SECOND], "from": "+48221110000", "only": {"severity": ["page"]}});
    let changed = patch(&fleet.api, &made, &change).await.is(200);
    assert_eq!((&changed["to"], &changed["from"]), (&json!([SECOND]), &json!("+48221110000")));
    assert_eq!((&changed["rounds"], &changed["id"]), (&json!(2), &made["id"]));
    assert_eq!(patch(&fleet.api, &made, &json!({"from": null})).await.is(200)["from"], Value::Null);
    patch(&fleet.api, &made, &json!({"kind": "json"})).await.is_problem(422, "invalid_field");
    patch(&fleet.api, &made, &json!({"rounds": 9})).await.is_problem(422, "invalid_field");
    assert_eq!(fleet.api.get("/v1/hooks").await.is(200)["data"].as_array().unwrap().len(), 1);
    let path = format!("/v1/hooks/{}", made["id"].as_str().unwrap());
    assert_eq!(fleet.api.get(&path).await.is(200)["name"], "Day shift");
    assert_eq!(Answer::to(fleet.api.request(Method::DELETE, &path)).await.status, 204);
    fleet.api.get(&path).await.is_problem(404, "not_found");
    let rows = super::rows(&fleet, "hook.").await;
    let actions: Vec<_> = rows.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions[..2], ["hook.create", "hook.update"]);
    assert!(!json!(rows).to_string().contains(&FIRST[1..]), "no number whole: {rows:?}");
}

#[tokio::test]
async fn a_hook_that_could_not_work_is_refused_with_its_field() {
    let fleet = Fleet::small().await;
    for (change, param) in [
        (json!({"to": []}), "to"),
        (json!({"speech": {"alert": "{{/nonsense/a}}"}}), "speech.alert"),
        (json!({"speech": {"alert": "{{nonsense}}"}}), "speech.alert"),
        (json!({"speech": {"voice": "x"}}), "speech.voice"),
        (json!({"kind": "json"}), "speech.alert"),
        (json!({"only": {"severity": []}}), "only"),
        (json!({"group_by": "hook"}), "group_by"),
        (json!({"step_timeout_s": 1}), "step_timeout_s"),
    ] {
        let mut body = night_shift();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let problem = fleet.api.post("/v1/hooks", &body).await.is_problem(422, "invalid_field");
        assert_eq!(problem["param"], param, "{problem}");
    }
    for _ in 0..50 {
        hook(&fleet.api, night_shift()).await;
    }
    fleet.api.post("/v1/hooks", &night_shift()).await.is_problem(409, "limit_reached");
}

#[tokio::test]
async fn alertmanager_s_key_does_nothing_else() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let body = json!({"name": "alertmanager", "scopes": ["hooks:send"]});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let sends = fleet.api.with_key(made["secret"].as_str().unwrap());
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&sends, &hook, &fires()).await;
    sends.get(&format!("/v1/incidents/{id}")).await.is_problem(403, "forbidden");
    sends.post("/v1/hooks", &night_shift()).await.is_problem(403, "forbidden");
    let call = json!({"to": FIRST, "message": {"audio_id": "builtin:beep"}});
    sends.post("/v1/calls", &call).await.is_problem(403, "forbidden");
    becomes(&fleet.api, &id, "acknowledged").await;
}

#[tokio::test]
async fn what_is_no_payload_is_refused_with_its_place() {
    let fleet = Fleet::small().await;
    let hook = hook(&fleet.api, night_shift()).await;
    let without = |field: &str| {
        let mut body = fires();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let with = |field: &str, value: Value| {
        let mut body = fires();
        body[field] = value;
        body
    };
    for (body, param) in [
        (without("groupKey"), "groupKey"),
        (without("alerts"), "alerts"),
        (with("version", json!("3")), "version"),
        (with("groupKey", json!("")), "groupKey"),
        (with("status", json!("burning")), "status"),
        (with("alerts", json!([{"status": "firing", "labels": {"a": 1}}])), "alerts[0].labels.a"),
        (with("alerts", json!(vec![alert("a", "firing"); 1_001])), "alerts"),
        // An array in an object's place has its fields by their order.
        (with("alerts", json!([["firing", {}, {}, "", "", "", ""]])), "alerts[0]"),
    ] {
        let problem = tell(&fleet.api, &hook, &body).await.is_problem(422, "invalid_field");
        assert_eq!(problem["param"], param, "{problem}");
    }
    let path = hook["path"].as_str().unwrap();
    fleet.api.post(path, &json!(["4", "g", "firing", 0, []])).await.is_problem(422, "invalid_field");
    fleet.api.post_raw(path, "{").await.is_problem(400, "malformed");
    fleet.api.post_raw(path, " ".repeat(1024 * 1024 + 1)).await.is_problem(413, "too_large");
    let text = fleet.api.request(Method::POST, path).header("content-type", "text/plain").body("{}");
    Answer::to(text).await.is_problem(415, "unsupported_media_type");
    // The other kind's address says where to go.
    let other = path.replace("alertmanager", "json");
    let problem = fleet.api.post(&other, &fires()).await.is_problem(404, "not_found");
    assert!(problem["detail"].as_str().unwrap().contains(path), "{problem}");
    assert_eq!(fleet.api.get("/v1/incidents").await.is(200)["data"], json!([]));
}

/// An outage has many alerts: what Alertmanager posts then is larger than other bodies may be.
#[tokio::test]
async fn a_payload_of_a_great_outage_is_taken() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let hook = hook(&fleet.api, night_shift()).await;
    let alerts: Vec<Value> = (0..800).map(|n| alert(&format!("trunk-{n}"), "firing")).collect();
    let body = group("firing", &alerts);
    assert!(body.to_string().len() > 200_000);
    let id = told(&fleet.api, &hook, &body).await;
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!((incident["alerts"].as_array().unwrap().len(), &incident["alerts_seen"]), (50, &json!(800)));
}

#[tokio::test]
async fn alerts_that_are_not_wanted_phone_nobody() {
    let (fleet, _folder) = speaking().await;
    let mut body = night_shift();
    body["only"] = json!({"severity": ["page"]});
    let hook = hook(&fleet.api, body).await;
    let mut ticket = alert("acme-waw-1", "firing");
    ticket["labels"]["severity"] = json!("ticket");
    let answer = tell(&fleet.api, &hook, &group("firing", &[ticket])).await.is(202);
    assert_eq!(answer["incidents"], json!([]));
    // What is over and was not known is nothing either.
    let answer = tell(&fleet.api, &hook, &is_over()).await.is(202);
    assert_eq!(answer["incidents"], json!([{"incident": null, "result": "ignored"}]));
    assert_eq!(fleet.api.get("/v1/incidents").await.is(200)["data"], json!([]));
}

/// Any JSON: where to look is the hook's to say.
#[tokio::test]
async fn a_json_hook_reads_what_anything_posts() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let mut body = night_shift();
    body["kind"] = json!("json");
    body["speech"] = json!({"opening": "Uptime.", "alert": "{{/monitor/name|/monitor/id}} is {{/state}}."});
    body["json"] = json!({"key": "/monitor/id", "status": "/state", "resolved": ["up"]});
    body["only"] = json!({"/monitor/team": ["core"]});
    let hook = hook(&fleet.api, body).await;
    assert_eq!(hook["path"], format!("/v1/hooks/json/{}", hook["id"].as_str().unwrap()));
    let post = |id: u32, state: &str, team: &str| json!({"monitor": {"id": id, "name": "db <1>", "team": team}, "state": state});
    let id = told(&fleet.api, &hook, &post(7, "down", "core")).await;
    let incident = becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!((&incident["key"], &incident["alerts"][0]["text"]), (&json!("7"), &json!("db 1 is down.")));
    let again = tell(&fleet.api, &hook, &post(7, "down", "core")).await.is(202);
    assert_eq!(again["incidents"][0]["result"], "noted");
    assert_eq!(tell(&fleet.api, &hook, &post(8, "down", "web")).await.is(202)["incidents"], json!([]));
    let over = tell(&fleet.api, &hook, &post(7, "up", "core")).await.is(202);
    assert_eq!(over["incidents"][0], json!({"incident": id, "result": "resolved"}));
    let problem = tell(&fleet.api, &hook, &json!({"monitor": {"team": "core"}})).await;
    assert_eq!(problem.is_problem(422, "invalid_field")["param"], "/monitor/id");
    tell(&fleet.api, &hook, &json!("text")).await.is_problem(422, "invalid_field");
}

#[tokio::test]
async fn incidents_are_listed_newest_first_in_pages() {
    let (fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let mut body = night_shift();
    body["group_by"] = json!("alert");
    let hook = hook(&fleet.api, body).await;
    let alerts: Vec<Value> = ["a", "b", "c"].map(|trunk| alert(trunk, "firing")).into();
    let answer = tell(&fleet.api, &hook, &group("firing", &alerts)).await.is(202);
    assert_eq!(answer["incidents"].as_array().unwrap().len(), 3);
    let page = fleet.api.get("/v1/incidents?limit=2").await.is(200);
    let ids: Vec<&str> = page["data"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), &page["has_more"]), (2, &json!(true)));
    let rest = fleet.api.get(&format!("/v1/incidents?limit=2&starting_after={}", ids[1])).await.is(200);
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (1, &json!(false)));
    // One alert's end is one incident's.
    tell(&fleet.api, &hook, &group("firing", &[alert("b", "resolved")])).await.is(202);
    for (query, count) in [("open=true", 2), ("open=false", 1), ("status=resolved", 1), ("limit=100", 3)] {
        let list = fleet.api.get(&format!("/v1/incidents?{query}")).await.is(200);
        assert_eq!(list["data"].as_array().unwrap().len(), count, "{query}");
    }
    fleet.api.get("/v1/incidents?limit=101").await.is_problem(422, "invalid_field");
}

/// What strangers wrote is text in the console; operators take and close there, and by the command line's door.
#[tokio::test]
async fn operators_see_and_take_incidents_of_all_organisations() {
    let (fleet, _folder) = speaking().await;
    super::never_answers(&fleet, FIRST);
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme"})).await.is(201);
    let body = json!({"name": "acme", "org": org["id"]});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let door = fleet.api.with_key(made["secret"].as_str().unwrap());
    let mut body = night_shift();
    body["name"] = json!("<script>alert(1)</script>");
    let hook = hook(&door, body).await;
    let mut alert = alert("a", "firing");
    alert["labels"]["<b>"] = json!("<script>alert(1)</script>");
    let id = told(&door, &hook, &group("firing", &[alert])).await;
    let browser = crate::fixture::Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    for path in ["/incidents".to_owned(), format!("/incidents/{id}")] {
        let page = browser.page(&path).await;
        assert!(
            page.contains(&format!("/incidents/{id}")) && page.contains("Trunk a is out of service"),
            "{page}"
        );
        assert!(page.contains("&#60;script&#62;alert(1)") && !page.contains("<script>alert"), "{page}");
        assert!(page.contains("data-refresh=\"2\""), "{page}");
    }
    let list = fleet.operator.get("/admin/v1/incidents?open=true").await.is(200);
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["org"]), (&json!(id), &org["id"]));
    assert_eq!(browser.post(&format!("/incidents/{id}/acknowledge"), &[]).await.status, 303);
    let taken = super::incident(&door, &id).await;
    // Of operators customers are told no more than that it was one.
    assert_eq!((&taken["status"], &taken["acknowledged_by"]), (&json!("acknowledged"), &json!("operator")));
    assert!(browser.page(&format!("/incidents/{id}")).await.contains("operator has taken note"));
    fleet.operator.post(&format!("/admin/v1/incidents/{id}/resolve"), &json!({})).await.is(200);
    let page = browser.page("/incidents").await;
    assert!(page.contains("Nothing is open") && page.contains(&id), "{page}");
}
