//! What is refused, and how it is told: one form for every refusal, and nothing done.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fleet, NUMBER};

const UNKNOWN_CALL: &str = "call_00000000000000000000000000";

async fn no_call_was_made(fleet: &Fleet) {
    let list = fleet.api.get("/v1/calls").await.is(200);
    assert_eq!(list["data"], json!([]));
    assert!(fleet.pbxes().all(|pbx| pbx.count_actions("Originate") == 0));
}

/// Posts the shortest call with one member changed.
async fn changed(fleet: &Fleet, path: &str, value: Value) -> Answer {
    let mut body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let mut at = &mut body;
    for member in path.split('.') {
        at = &mut at[member];
    }
    *at = value;
    fleet.api.post("/v1/calls", &body).await
}

#[tokio::test]
async fn what_is_not_e164_is_no_number() {
    let fleet = Fleet::small().await;
    let numbers = [
        "",
        "+",
        "0",
        "112",
        "+112",
        "48221234567",
        "0048221234567",
        "+0481234567",
        "+48221",
        "+1234567890123456",
        "+48 22 123 45 67",
        "+48-22-123-45-67",
        "+48(22)1234567",
        "++48221234567",
        "+48221234567+",
        " +48221234567",
        "+48221234567 ",
        "+4822123456a",
        "+48221234567\r\n",
        "+48221234567\0",
        "+48221234567@evil",
        "+48221234567,1",
        "+48221234567;ext=1",
        "tel:+48221234567",
        "sip:+48221234567@192.0.2.1",
        "+４８２２１２３４５６７",
        "+٤٨٢٢١٢٣٤٥٦٧",
        "\u{2b}\u{200b}48221234567",
        "＋48221234567",
    ];
    for number in numbers {
        for field in ["to", "from"] {
            let body = changed(&fleet, field, number.into()).await.is_problem(422, "invalid_number");
            assert_eq!(body["param"], field, "{number:?}");
        }
    }
    no_call_was_made(&fleet).await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_and_named() {
    let fleet = Fleet::small().await;
    for (path, named) in [
        ("on_unknwon", "on_unknwon"),
        ("Variable", "Variable"),
        ("message.txt", "message.txt"),
        ("failover.attempt_max", "failover.attempt_max"),
        ("__proto__", "__proto__"),
    ] {
        let body = changed(&fleet, path, json!("x")).await.is_problem(422, "invalid_field");
        let told = format!("{} {}", body["param"], body["detail"]);
        let field = named.rsplit('.').next().unwrap();
        assert!(told.contains(field), "{path}: {body}");
        if let Some((parent, _)) = named.split_once('.') {
            assert!(body["param"].as_str().is_some_and(|param| param.starts_with(parent)), "{path}: {body}");
        }
    }
    no_call_was_made(&fleet).await;
}

#[tokio::test]
async fn a_wrong_type_or_value_is_refused_with_its_path() {
    let fleet = Fleet::small().await;
    let wrong = [
        ("to", json!(48_221_234_567_u64), "invalid_number"),
        ("to", json!(null), "invalid_number"),
        ("to", json!([NUMBER]), "invalid_number"),
        ("to", json!({"number": NUMBER}), "invalid_number"),
        ("from", json!(true), "invalid_number"),
        ("message", json!("builtin:beep"), "invalid_field"),
        ("message", json!(null), "invalid_field"),
        ("message.audio_id", json!("builtin:none"), "invalid_field"),
        ("message.audio_id", json!("../../etc/passwd"), "invalid_field"),
        ("message.audio_id", json!(1), "invalid_field"),
        ("message.text", json!("two contents"), "invalid_field"),
        ("message.language", json!("en"), "invalid_field"),
        ("message.repeat", json!(0), "invalid_field"),
        ("message.repeat", json!(11), "invalid_field"),
        ("message.repeat", json!(256), "invalid_field"),
        ("message.repeat", json!(-1), "invalid_field"),
        ("message.repeat", json!(1.5), "invalid_field"),
        ("message.repeat", json!("2"), "invalid_field"),
        ("progress_timeout_s", json!(0), "invalid_field"),
        ("progress_timeout_s", json!(61), "invalid_field"),
        ("progress_timeout_s", json!(1e99), "invalid_field"),
        ("ring_timeout_s", json!(0), "invalid_field"),
        ("ring_timeout_s", json!(121), "invalid_field"),
        ("ring_timeout_s", json!("25"), "invalid_field"),
        ("time_limit_s", json!(0), "invalid_field"),
        ("time_limit_s", json!(3_601), "invalid_field"),
        ("time_limit_s", json!(65_536), "invalid_field"),
        ("failover", json!(3), "invalid_field"),
        ("failover.attempts_max", json!(0), "invalid_field"),
        ("failover.attempts_max", json!(11), "invalid_field"),
        ("failover.attempts_max", json!(null), "invalid_field"),
        ("acknowledgement", json!({"keys": {"2": "escalate"}}), "invalid_field"),
        ("acknowledgement.timeout_s", json!(0), "invalid_field"),
        ("acknowledgement.keys", json!({"x": "acknowledge"}), "invalid_field"),
        ("machine_detection.mode", json!("on"), "invalid_field"),
        ("machine_detection.on_machine", json!("explode"), "invalid_field"),
        ("redial", json!({"on": []}), "invalid_field"),
        ("redial", json!({"on": ["declined"]}), "invalid_field"),
        ("redial", json!({"on": ["busy"], "max": 11}), "invalid_field"),
        ("redial", json!({"on": ["busy"], "delay_s": 0}), "invalid_field"),
        ("callback", json!({"url": ""}), "invalid_field"),
        ("callback", json!({"url": "https://example.com/", "events": ["call.exploded"]}), "invalid_field"),
        ("on_unknown", json!("maybe"), "invalid_field"),
        ("on_unknown", json!("RETRY"), "invalid_field"),
        ("on_unknown", json!(null), "invalid_field"),
        ("deadline_at", json!("tomorrow"), "invalid_field"),
        ("deadline_at", json!(1_800_000_000), "invalid_field"),
        ("deadline_at", json!("2020-01-01T00:00:00Z"), "invalid_field"),
        ("deadline_at", json!("2099-01-01T00:00:00Z"), "invalid_field"),
        ("dedup_key", json!(""), "invalid_field"),
        ("dedup_key", json!("k".repeat(256)), "invalid_field"),
        ("dedup_key", json!(7), "invalid_field"),
        ("metadata", json!([]), "invalid_field"),
        ("metadata.incident", json!(991), "invalid_field"),
        ("metadata.incident", json!({"deep": "er"}), "invalid_field"),
        ("metadata.incident", json!("v".repeat(501)), "invalid_field"),
    ];
    for (path, value, code) in wrong {
        let body = changed(&fleet, path, value.clone()).await.is_problem(422, code);
        let param = body["param"].as_str().unwrap_or("");
        let top = path.split('.').next().unwrap();
        assert!(
            param == path || param == top || param.starts_with(&format!("{path}.")),
            "{path} = {value}: {body}"
        );
    }
    let long_key = changed(&fleet, "metadata", json!({"k".repeat(41): "v"})).await;
    assert_eq!(long_key.is_problem(422, "invalid_field")["param"], "metadata");
    let many: serde_json::Map<_, _> = (0..21).map(|n| (n.to_string(), json!("v"))).collect();
    let many = changed(&fleet, "metadata", many.into()).await;
    assert_eq!(many.is_problem(422, "invalid_field")["param"], "metadata");
    let beep = json!({"audio_id": "builtin:beep"});
    for (body, missing, code) in [
        (json!({"message": beep}), "to", "invalid_number"),
        (json!({"to": NUMBER}), "message", "invalid_field"),
        (json!({"to": NUMBER, "message": {}}), "message", "invalid_field"),
    ] {
        let problem = fleet.api.post("/v1/calls", &body).await.is_problem(422, code);
        assert_eq!(problem["param"], missing);
    }
    no_call_was_made(&fleet).await;
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let fleet = Fleet::small().await;
    let good = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}}).to_string();
    let malformed: [Vec<u8>; 9] = [
        b"".to_vec(),
        b"{".to_vec(),
        b"to=%2B48221234567".to_vec(),
        format!("{good}{good}").into_bytes(),
        format!("{good},").into_bytes(),
        b"{\"to\": \"\xff\xfe\"}".to_vec(),
        b"\0\0\0\0".to_vec(),
        "[".repeat(20_000).into_bytes(),
        format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000)).into_bytes(),
    ];
    for body in malformed {
        let shown = String::from_utf8_lossy(&body).chars().take(40).collect::<String>();
        let answer = fleet.api.post_raw("/v1/calls", body).await;
        assert!(matches!(answer.status, 400 | 422), "{shown}: {}", answer.text);
        let code = if answer.status == 400 { "malformed" } else { "invalid_field" };
        answer.is_problem(answer.status, code);
    }
    for body in ["[]", "null", "7", "\"text\""] {
        let answer = fleet.api.post_raw("/v1/calls", body).await;
        answer.is_problem(422, "invalid_field");
    }
    let twice = format!("{{\"to\":\"+48220000000\",{}", &good[1..]);
    let body = fleet.api.post_raw("/v1/calls", twice).await.is_problem(422, "invalid_field");
    assert!(body["detail"].as_str().unwrap().contains("duplicate"), "{body}");
    no_call_was_made(&fleet).await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    let fleet = Fleet::small().await;
    let padded = |bytes: usize| {
        let good = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}}).to_string();
        format!("{good}{}", " ".repeat(bytes - good.len()))
    };
    // The answer arrives whatever is still under way.
    for bytes in [64 * 1024 + 1, 200 * 1024, 1000 * 1024] {
        for _ in 0..20 {
            fleet.api.post_raw("/v1/calls", padded(bytes)).await.is_problem(413, "too_large");
        }
    }
    no_call_was_made(&fleet).await;
    fleet.api.post_raw("/v1/calls", padded(64 * 1024)).await.is(201);
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let fleet = Fleet::small().await;
    let good = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}}).to_string();
    let post = |media: Option<&str>| {
        let request = fleet.api.request(Method::POST, "/v1/calls").body(good.clone());
        match media {
            Some(media) => request.header("content-type", media),
            None => request,
        }
    };
    let wrong = ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", "text/json"];
    for media in wrong.map(Some).into_iter().chain([None]) {
        Answer::to(post(media)).await.is_problem(415, "unsupported_media_type");
    }
    no_call_was_made(&fleet).await;
    for media in ["application/json", "Application/JSON; charset=utf-8"] {
        Answer::to(post(Some(media))).await.is(201);
    }
}

#[tokio::test]
async fn a_door_opens_to_its_own_keys_only() {
    let fleet = Fleet::small().await;
    let (customer, operator) = (fleet.api.key.clone().unwrap(), fleet.operator.key.clone().unwrap());
    let mistyped =
        format!("{}{}", &customer[..customer.len() - 1], if customer.ends_with('a') { "b" } else { "a" });
    let other = customer.replace("rw_live_", "rw_op_");
    let wrong = ["x", "rw_live_", "'; DROP TABLE key; --", &mistyped, &other];
    let expects = |answer: Answer| {
        answer.is_problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    };
    for key in wrong.iter().copied().chain([operator.as_str()]) {
        expects(fleet.api.with_key(key).get("/v1/calls").await);
        let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
        expects(fleet.api.with_key(key).post("/v1/calls", &body).await);
    }
    for key in wrong.iter().copied().chain([customer.as_str()]) {
        for path in ["calls", "nodes", "trunks", "fleet", "keys", "audit", "routes/explain?to=%2B48221234567"]
        {
            expects(fleet.operator.with_key(key).get(&format!("/admin/v1/{path}")).await);
        }
        let body = json!({"name": "mine", "operator": true});
        expects(fleet.operator.with_key(key).post("/admin/v1/keys", &body).await);
    }
    expects(fleet.api.without_key().get("/v1/calls").await);
    expects(fleet.operator.without_key().get("/admin/v1/nodes").await);
    for header in
        ["Basic dXNlcjpwYXNz".to_owned(), customer.clone(), format!("bearer{customer}"), "Bearer".to_owned()]
    {
        let request = fleet.api.without_key().request(Method::GET, "/v1/calls");
        expects(Answer::to(request.header("authorization", header)).await);
    }
    no_call_was_made(&fleet).await;
    let request = fleet.api.without_key().request(Method::GET, "/v1/calls");
    Answer::to(request.header("authorization", format!("bearer {customer}"))).await.is(200);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing() {
    let fleet = Fleet::small().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "soon gone"})).await.is(201);
    let door = fleet.api.with_key(made["secret"].as_str().unwrap());
    door.get("/v1/calls").await.is(200);
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    fleet.operator.post(&revoke, &json!({})).await.is(200);
    door.get("/v1/calls").await.is_problem(401, "unauthenticated");
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    door.post("/v1/calls", &body).await.is_problem(401, "unauthenticated");
    // An operator's key as well.
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "op", "operator": true})).await.is(201);
    let door = fleet.operator.with_key(made["secret"].as_str().unwrap());
    door.get("/admin/v1/nodes").await.is(200);
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    fleet.operator.post(&revoke, &json!({})).await.is(200);
    door.get("/admin/v1/nodes").await.is_problem(401, "unauthenticated");
    no_call_was_made(&fleet).await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let fleet = Fleet::small().await;
    let door = async |scope: &str| {
        let body = json!({"name": scope, "scopes": [scope]});
        let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
        fleet.api.with_key(made["secret"].as_str().unwrap())
    };
    let (reads, writes) = (door("calls:read").await, door("calls:write").await);
    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    reads.post("/v1/calls", &call).await.is_problem(403, "forbidden");
    no_call_was_made(&fleet).await;
    let made = writes.post("/v1/calls", &call).await.is(201);
    let at = format!("/v1/calls/{}", made["id"].as_str().unwrap());
    writes.get(&at).await.is_problem(403, "forbidden");
    writes.get("/v1/calls").await.is_problem(403, "forbidden");
    reads.post(&format!("{at}/cancel"), &json!({})).await.is_problem(403, "forbidden");
    reads.get(&at).await.is(200);
    for body in [json!({"name": "x", "scopes": ["operator"]}), json!({"name": "x", "scopes": []})] {
        fleet.operator.post("/admin/v1/keys", &body).await.is_problem(422, "invalid_field");
    }
    let body = json!({"name": "x", "operator": true, "scopes": ["calls:read"]});
    fleet.operator.post("/admin/v1/keys", &body).await.is_problem(422, "invalid_field");
}

/// An id that was never given, one of another form, and one of another kind are told alike.
#[tokio::test]
async fn unknown_and_malformed_ids_are_told_alike() {
    let fleet = Fleet::small().await;
    let long = format!("call_{}", "0".repeat(500));
    let ids = [
        UNKNOWN_CALL,
        "call_",
        "x",
        "att_00000000000000000000000000",
        "%00",
        "..%2f..%2fetc",
        "%0d%0a",
        "%ff",
        &long,
    ];
    let mut bodies = Vec::new();
    for id in ids {
        for answer in [
            fleet.api.get(&format!("/v1/calls/{id}")).await,
            fleet.api.post(&format!("/v1/calls/{id}/cancel"), &json!({})).await,
            fleet.operator.get(&format!("/admin/v1/calls/{id}")).await,
            fleet.operator.post(&format!("/admin/v1/calls/{id}/cancel"), &json!({})).await,
            fleet.operator.post(&format!("/admin/v1/keys/{id}/revoke"), &json!({})).await,
        ] {
            let mut body = answer.is_problem(404, "not_found");
            let members = body.as_object_mut().unwrap();
            members.remove("request_id");
            members.remove("instance");
            bodies.push(body);
        }
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_refused_in_the_same_form() {
    let fleet = Fleet::small().await;
    for path in [
        "/",
        "/v1",
        "/v1/call",
        "/v2/calls",
        "/v1/calls/",
        "/admin/v1/nodes",
        "/metrics",
        "/readyz",
        "//v1/calls",
    ] {
        fleet.api.get(path).await.is_problem(404, "not_found");
    }
    for path in ["/v1/calls", "/admin/v1", "/admin/v1/node"] {
        let answer = Answer::of_another_door(fleet.operator.request(Method::GET, path)).await;
        answer.is_problem(404, "not_found");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let answer = Answer::to(fleet.api.request(method.clone(), "/v1/calls")).await;
        answer.is_problem(405, "method_not_allowed");
        assert!(answer.header("allow").contains("POST"), "{method}: {:?}", answer.headers);
        let answer = Answer::to(fleet.operator.request(method, "/admin/v1/nodes")).await;
        answer.is_problem(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn a_list_is_asked_for_within_bounds() {
    let fleet = Fleet::small().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(fleet.call(&format!("+4822000000{n}")).place().await.id);
    }
    for query in ["limit=0", "limit=101"] {
        let body = fleet.api.get(&format!("/v1/calls?{query}")).await.is_problem(422, "invalid_field");
        assert_eq!(body["param"], "limit");
    }
    for query in
        ["limit=x", "limit=-1", "limit=70000", "page=2", "starting_after=x", "status=dead", "limit=1&limit=2"]
    {
        fleet.api.get(&format!("/v1/calls?{query}")).await.is_problem(400, "malformed");
    }
    let both = format!("starting_after={}&ending_before={}", ids[0], ids[1]);
    fleet.api.get(&format!("/v1/calls?{both}")).await.is_problem(422, "invalid_field");
    // Newest first, page by page, to the last.
    let mut shown = Vec::new();
    let mut after = String::new();
    loop {
        let page = fleet.api.get(&format!("/v1/calls?limit=2{after}")).await.is(200);
        let data = page["data"].as_array().unwrap();
        shown.extend(data.iter().map(|call| call["id"].as_str().unwrap().to_owned()));
        if page["has_more"] == false {
            break;
        }
        after = format!("&starting_after={}", shown.last().unwrap());
    }
    ids.sort_unstable();
    ids.reverse();
    assert_eq!(shown, ids);
    let page = fleet.api.get(&format!("/v1/calls?limit=2&ending_before={}", ids[2])).await.is(200);
    assert_eq!(page["data"][0]["id"], ids[0].as_str());
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(false)));
}
