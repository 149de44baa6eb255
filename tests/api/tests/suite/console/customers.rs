//! Customers in the console: made, limited, suspended; their keys made, rotated, revoked, the secret shown once; by admins.

use api::overheard;
use serde_json::{Value, json};

use crate::fixture::{Browser, Fleet};

async fn browser(fleet: &Fleet) -> Browser {
    Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await
}

/// The secret that a page shows.
fn secret(page: &str) -> &str {
    let secret = page.split("<code class=\"secret\">").nth(1).unwrap_or_else(|| panic!("no secret: {page}"));
    let secret = secret.split('<').next().unwrap();
    overheard::remember(secret);
    secret
}

async fn keys(fleet: &Fleet, org: &str) -> Vec<Value> {
    let list = fleet.operator.get(&format!("/admin/v1/keys?org={org}")).await.is(200);
    list["data"].as_array().unwrap().clone()
}

async fn latest(fleet: &Fleet, action: &str) -> Value {
    fleet.audit().await.into_iter().find(|row| row["action"] == action).unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_customer_is_made_with_a_key_that_is_shown_once() {
    let fleet = Fleet::small().await;
    let browser = browser(&fleet).await;
    assert!(browser.page("/customers").await.contains("href=\"/customers/new\""));
    assert!(browser.page("/customers/new").await.contains("name=\"slug\""));
    let question = browser.page("/customers/new?slug=acme&name=Acme+%3Cb%3E").await;
    assert!(
        question.contains("Make the customer acme?") && question.contains("phone nothing until"),
        "{question}"
    );
    assert_eq!(fleet.operator.get("/admin/v1/orgs").await.is(200)["data"].as_array().unwrap().len(), 1);
    let answer = browser.post("/customers/new", &[("slug", "acme"), ("name", "Acme <b>")]).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let place = answer.header("location").to_owned();
    let org = place.rsplit('/').next().unwrap();
    assert!(browser.page(&place).await.contains("Acme &#60;b&#62;"));
    assert_eq!(latest(&fleet, "org.create").await["outcome"], "success");
    // What cannot be is said, by a page.
    for (form, text) in [
        ([("slug", "acme"), ("name", "")], "An organisation is called acme already"),
        ([("slug", "No Slug"), ("name", "")], "<code>slug</code>"),
    ] {
        let answer = browser.post("/customers/new", &form).await;
        assert!(matches!(answer.status, 409 | 422) && answer.text.contains(text), "{}", answer.text);
    }
    // A key: the form, the question, and the one page with its secret.
    let path = format!("{place}/keys");
    assert!(browser.page(&path).await.contains("name=\"calls:write\""));
    let question = browser.page(&format!("{path}?name=pager&mode=live&calls%3Awrite=on")).await;
    assert!(question.contains("It may: calls:write.") && question.contains("phones people"), "{question}");
    assert_eq!(keys(&fleet, org).await, Vec::<Value>::new(), "a question makes nothing");
    let form = [("name", "pager"), ("mode", "live"), ("calls:write", "on"), ("calls:read", "on")];
    let answer = browser.post(&path, &form).await;
    assert_eq!((answer.status, answer.header("location")), (200, ""), "{}", answer.text);
    assert_eq!(answer.header("cache-control"), "no-store");
    let first = secret(&answer.text).to_owned();
    let made = &keys(&fleet, org).await[0];
    assert_eq!(
        (&made["scopes"], &made["livemode"]),
        (&json!(["calls:write", "calls:read"]), &json!(true)),
        "{made}"
    );
    fleet.api.with_key(&first).get("/v1/calls").await.is(200);
    let row = latest(&fleet, "key.create").await;
    assert!(row["target_id"] == made["id"] && !row.to_string().contains(&first), "{row}");
    for page in [&place, &path, "/audit"] {
        assert!(!browser.page(page).await.contains(&first), "{page} has the secret");
    }
    // None for nothing, and none of another kind.
    for form in [&[("name", "x"), ("mode", "live")][..], &[("name", "x"), ("mode", "dead"), ("audio", "on")]]
    {
        assert_eq!(browser.post(&path, form).await.status, 422);
    }
    // Rotated: the next opens, the former one for a while; revoked: neither.
    let id = made["id"].as_str().unwrap();
    assert!(browser.page(&format!("/keys/{id}/rotate")).await.contains("opens for one day more"));
    let answer = browser.post(&format!("/keys/{id}/rotate"), &[]).await;
    let second = secret(&answer.text).to_owned();
    for key in [&first, &second] {
        fleet.api.with_key(key).get("/v1/calls").await.is(200);
    }
    assert!(browser.page(&format!("/keys/{id}/revoke")).await.contains("opens nothing from then on"));
    let answer = browser.post(&format!("/keys/{id}/revoke"), &[]).await;
    assert_eq!((answer.status, answer.header("location")), (303, place.as_str()));
    fleet.api.with_key(&first).get("/v1/calls").await.is_problem(401, "unauthenticated");
    fleet.api.with_key(&second).get("/v1/calls").await.is(200);
    assert_eq!(latest(&fleet, "key.revoke").await["target_id"], id);
    // An operator's key is not reached from here.
    let operators = fleet.operator.get("/admin/v1/keys").await.is(200);
    let own = operators["data"].as_array().unwrap().iter().find(|key| key["role"] == "admin").unwrap();
    let id = own["id"].as_str().unwrap();
    for path in [format!("/keys/{id}/revoke"), format!("/keys/{id}/rotate")] {
        assert_eq!(browser.get(&path).await.status, 404);
        assert_eq!(browser.post(&path, &[]).await.status, 404);
    }
}

#[tokio::test]
async fn limits_are_changed_after_a_question_and_what_the_form_lacks_stays() {
    let fleet = Fleet::small().await;
    let browser = browser(&fleet).await;
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme"})).await.is(201);
    let place = format!("/customers/{}", org["id"].as_str().unwrap());
    let api = format!("/admin/v1/orgs/{}/limits", org["id"].as_str().unwrap());
    let set = json!({"calls_per_day": 500, "throttle": [{"calls": 3, "per_s": 60}]});
    let kept = fleet.operator.request(reqwest::Method::PUT, &api).json(&set);
    let kept = crate::fixture::Answer::to(kept).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    let throttle = fleet.operator.get(&api).await.is(200)["throttle"].clone();
    let path = format!("{place}/limits");
    assert!(
        browser
            .page(&path)
            .await
            .contains("name=\"calls_per_day\" type=\"number\" min=\"1\" inputmode=\"numeric\" value=\"500\"")
    );
    let empty = "requests_per_s=&open_calls_max=&number_open_calls_max=&channels_max=&weight=";
    let question = browser.page(&format!("{path}?ask=yes&{empty}&calls_per_day=1000&cps_max=7")).await;
    assert!(question.contains("Calls per day (UTC): 500 → 1000."), "{question}");
    assert!(question.contains("Calls per second: no limit set → 7."), "{question}");
    assert!(!question.contains("Weight"), "what stays is not told: {question}");
    assert_eq!(fleet.operator.get(&api).await.is(200)["calls_per_day"], 500, "a question changes nothing");
    let answer = browser.post(&path, &[("calls_per_day", "1000"), ("cps_max", "7")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, place.as_str()), "{}", answer.text);
    let now = fleet.operator.get(&api).await.is(200);
    assert_eq!(now, json!({"calls_per_day": 1_000, "cps_max": 7, "throttle": throttle}));
    assert_eq!(latest(&fleet, "limits.set").await["outcome"], "success");
    for (wrong, param) in
        [("cps_max=0", "cps_max"), ("weight=x", "weight"), ("calls_per_day=1.5", "calls_per_day")]
    {
        let answer = browser.get(&format!("{path}?ask=yes&{wrong}")).await;
        assert!(
            answer.status == 422 && answer.text.contains(&format!("<code>{param}</code>")),
            "{}",
            answer.text
        );
    }
    // Suspended, and resumed.
    for (word, held) in [("suspend", true), ("resume", false)] {
        let path = format!("{place}/{word}");
        assert!(!browser.page(&path).await.contains("changes nothing"));
        assert_eq!(browser.post(&path, &[]).await.header("location"), place);
        assert!(browser.page(&path).await.contains("changes nothing"));
        assert_eq!(browser.page(&place).await.contains("It is suspended"), held);
        assert_eq!(latest(&fleet, &format!("org.{word}")).await["target_id"], org["id"]);
    }
}

/// Operators see customers and change none; and what another page sends changes nothing for an admin.
#[tokio::test]
async fn only_admins_change_customers_and_only_from_the_console() {
    let fleet = Fleet::small().await;
    let body = json!({"name": "acts", "operator": true, "role": "operator"});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let operator = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    let admin = browser(&fleet).await;
    let org = controlplane_core::ids::OrgId::first();
    let page = operator.page(&format!("/customers/{org}")).await;
    for word in ["/suspend", "/limits", "/keys\"", "/revoke", "/rotate"] {
        assert!(!page.contains(word), "{word}: {page}");
    }
    let before = fleet.operator.get("/admin/v1/keys").await.is(200);
    for path in [
        format!("/customers/{org}/keys"),
        format!("/customers/{org}/limits"),
        format!("/customers/{org}/suspend"),
    ] {
        assert_eq!(operator.get(&path).await.status, 403);
        let form = [("name", "x"), ("mode", "live"), ("audio", "on")];
        assert_eq!(operator.post(&path, &form[..0]).await.status, 403);
        let forged =
            admin.request(reqwest::Method::POST, &path).header("sec-fetch-site", "cross-site").form(&form);
        assert_eq!(crate::fixture::Answer::to(forged).await.status, 403);
    }
    assert_eq!(fleet.operator.get("/admin/v1/keys").await.is(200)["data"], before["data"]);
}

/// A browser that loads the page with the secret anew sends its form again.
#[tokio::test]
async fn a_form_that_is_sent_again_makes_no_second_key() {
    let fleet = Fleet::small().await;
    let browser = browser(&fleet).await;
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme"})).await.is(201);
    let org = org["id"].as_str().unwrap();
    let path = format!("/customers/{org}/keys");
    let until = "2031-02-28";
    let asked = format!("{path}?name=pager&mode=live&until={until}&calls%3Awrite=on");
    let question = browser.page(&asked).await;
    assert!(question.contains("It opens for the last time on 2031-02-28 (UTC)."), "{question}");
    let once = |page: &str| {
        let rest = page.split("name=\"once\" value=\"").nth(1).expect("it is for one time");
        rest.split('"').next().unwrap().to_owned()
    };
    let id = once(&question);
    let form = [("name", "pager"), ("mode", "live"), ("until", until), ("calls:write", "on"), ("once", &id)];
    let first = secret(&browser.post(&path, &form).await.text).to_owned();
    let again = browser.post(&path, &form).await;
    assert_eq!(again.status, 409, "{}", again.text);
    assert!(again.text.contains("This form has made its key") && !again.text.contains(&first));
    let made = keys(&fleet, org).await;
    assert_eq!(made.len(), 1);
    assert_eq!((&made[0]["id"], &made[0]["expires_at"]), (&json!(id), &json!("2031-03-01T00:00:00Z")));
    // A rotation's too.
    let path = format!("/keys/{id}/rotate");
    let next = once(&browser.page(&path).await);
    assert_eq!(browser.post(&path, &[("once", &next)]).await.status, 200);
    assert_eq!(browser.post(&path, &[("once", &next)]).await.status, 409);
    assert_eq!(keys(&fleet, org).await.len(), 2);
    for wrong in ["2031-02-30", "tomorrow", "1999-01-01"] {
        let form = [("name", "x"), ("mode", "live"), ("until", wrong), ("audio", "on")];
        assert_eq!(browser.post(&format!("/customers/{org}/keys"), &form).await.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn a_country_and_a_prefix_are_opened_and_closed_after_a_question() {
    let fleet = Fleet::small().await;
    let browser = browser(&fleet).await;
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme"})).await.is(201);
    let org = org["id"].as_str().unwrap();
    let (path, api) = (format!("/customers/{org}/destinations"), format!("/admin/v1/orgs/{org}/policy"));
    let before = json!({"countries": {}, "caller_ids": ["+48221110000"]});
    let set = fleet.operator.request(reqwest::Method::PUT, &api).json(&before);
    crate::fixture::Answer::to(set).await.is(200);
    assert!(browser.page(&path).await.contains("each of its calls is refused"));
    let question = browser.page(&format!("{path}?place=pl&access=open")).await;
    assert!(question.contains("Landlines and mobiles of PL may be phoned."), "{question}");
    assert_eq!(fleet.operator.get(&api).await.is(200)["countries"], json!({}), "a question changes nothing");
    for (place, access) in [("pl", "open"), ("+48701", "closed"), ("+44", "open"), ("+44", "unsaid")] {
        let answer = browser.post(&path, &[("place", place), ("access", access)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, path.as_str()), "{}", answer.text);
    }
    let now = fleet.operator.get(&api).await.is(200);
    assert_eq!(now["countries"], json!({"PL": ["fixed", "mobile"]}));
    assert_eq!((&now["prefixes"], &now["caller_ids"]), (&json!({"+48701": "deny"}), &before["caller_ids"]));
    let page = browser.page(&path).await;
    assert!(
        page.contains(">PL</th><td>fixed, mobile</td>") && page.contains(">+48701</th><td>closed</td>"),
        "{page}"
    );
    let question = browser.page(&format!("{path}?place=PL&access=closed")).await;
    assert!(question.contains("Nothing at all is open then"), "{question}");
    assert_eq!(latest(&fleet, "policy.set").await["target_id"], org);
    for (place, access) in [("Poland", "open"), ("PL", "ajar"), ("+", "x"), ("+48x", "open")] {
        let answer = browser.post(&path, &[("place", place), ("access", access)]).await;
        assert_eq!(answer.status, 422, "{place} {access}: {}", answer.text);
    }
}
