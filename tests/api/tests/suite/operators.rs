//! The first key, further keys, the audit log, and what machines ask.

use std::collections::BTreeMap;

use fake_pbx::Ending;
use serde_json::json;

use crate::fixture::{Door, Fleet, NUMBER, Plane, proof, settings};

#[tokio::test]
async fn the_first_operator_key_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::fixture::Database::fresh(folder.path()).await;
    let plane = Plane::start(settings(folder.path()), database.url.clone()).await.unwrap();
    let door = Door::at(plane.operator);
    door.get("/admin/v1/nodes").await.is_problem(401, "unauthenticated");
    let token = proof(folder.path());
    let asks = futures_util::future::join_all(
        (0..10).map(|_| async { door.post("/admin/v1/bootstrap", &token).await }),
    );
    let answers = asks.await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.len(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        // A token is for one use.
        answer.is_problem(403, "forbidden");
        assert!(!answer.text.contains("rw_op_"));
    }
    door.post("/admin/v1/bootstrap", &proof(folder.path())).await.is_problem(409, "already_bootstrapped");
    let secret = made[0].is(201)["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("rw_op_"));
    door.with_key(&secret).get("/admin/v1/nodes").await.is(200);
    // Not at the customers' door, and not again after a restart.
    Door::at(plane.api).post("/admin/v1/bootstrap", &json!({})).await.is_problem(404, "not_found");
    plane.kill().await;
    let plane = Plane::start(settings(folder.path()), database.url.clone()).await.unwrap();
    Door::at(plane.operator)
        .post("/admin/v1/bootstrap", &proof(folder.path()))
        .await
        .is_problem(409, "already_bootstrapped");
}

/// An address proves nothing behind a proxy: who asks shows that they hold the data directory.
#[tokio::test]
async fn a_key_without_a_key_takes_the_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::fixture::Database::fresh(folder.path()).await;
    let plane = Plane::start(settings(folder.path()), database.url.clone()).await.unwrap();
    let door = Door::at(plane.operator);
    let right = proof(folder.path());
    for body in
        [json!({}), json!({"force": true}), json!({"token": "", "force": true}), json!({"token": "x"})]
    {
        door.post("/admin/v1/bootstrap", &body).await.is_problem(403, "forbidden");
    }
    for header in ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "via"] {
        let request = door.request(reqwest::Method::POST, "/admin/v1/bootstrap").header(header, "127.0.0.1");
        crate::fixture::Answer::to(request.json(&right)).await.is_problem(403, "forbidden");
    }
    door.post("/admin/v1/bootstrap", &right).await.is(201);
    // The key is lost: by force, which is in the audit log.
    let mut force = proof(folder.path());
    force["force"] = true.into();
    let answer = door.post("/admin/v1/bootstrap", &force).await;
    let made = answer.is(201);
    door.post("/admin/v1/bootstrap", &force).await.is_problem(403, "forbidden");
    let door = door.with_key(made["secret"].as_str().unwrap());
    let rows = door.get("/admin/v1/audit").await.is(200);
    let row =
        rows["data"].as_array().unwrap().iter().find(|row| row["target_id"] == made["id"]).unwrap().clone();
    assert_eq!((&row["action"], &row["ip"]), (&json!("key.create"), &json!("127.0.0.1")), "{row}");
    assert_eq!(row["request_id"], answer.header("x-request-id"));
    assert!(row["changes"].to_string().contains("force"), "{row}");
}

/// Whoever reaches the door from elsewhere must not be the first to ask.
#[tokio::test]
async fn the_first_operator_key_is_for_this_machine_alone() {
    // An address of this machine that is not loopback; without one there is nothing to show.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let here = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()).map(|address| address.ip());
    let Some(here) = here.ok().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let database = crate::fixture::Database::fresh(folder.path()).await;
    let mut settings = settings(folder.path());
    settings.operator.listen = (here, 0).into();
    let plane = Plane::start(settings, database.url.clone()).await.unwrap();
    let door = Door::at(plane.operator);
    door.post("/admin/v1/bootstrap", &proof(folder.path())).await.is_problem(403, "forbidden");
    // Nor by what a proxy could say of itself.
    let request = door.request(reqwest::Method::POST, "/admin/v1/bootstrap");
    let request = request.header("x-forwarded-for", "127.0.0.1").header("forwarded", "for=127.0.0.1");
    crate::fixture::Answer::to(request).await.is_problem(403, "forbidden");
}

#[tokio::test]
async fn a_keys_secret_is_shown_once() {
    let fleet = Fleet::small().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "pager"})).await.is(201);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with(made["prefix"].as_str().unwrap()));
    let list = fleet.operator.get("/admin/v1/keys").await;
    assert!(!list.text.contains(secret) && !list.text.contains("secret"), "{}", list.text);
    let list = list.is(200);
    let shown: Vec<_> = list["data"].as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert!(shown.contains(&json!("pager")) && shown.contains(&json!("bootstrap")), "{shown:?}");
    let audit = fleet.operator.get("/admin/v1/audit").await;
    assert!(!audit.text.contains(secret));
    // Twice revoked is not found the second time, and an unknown key neither.
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    fleet.operator.post(&revoke, &json!({})).await.is(200);
    let again = fleet.operator.post(&revoke, &json!({})).await;
    assert!(matches!(again.status, 200 | 404), "{}", again.text);
    for body in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "n".repeat(101)}),
        json!({"name": "a\nb"}),
        json!({"name": "x", "scope": []}),
    ] {
        fleet.operator.post("/admin/v1/keys", &body).await.is_problem(422, "invalid_field");
    }
}

/// Each change has its row: who, from where, by which request, what.
#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let fleet = Fleet::small().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "pager"})).await;
    let key = made.is(201)["id"].as_str().unwrap().to_owned();
    let placed =
        fleet.api.post("/v1/calls", &json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}})).await;
    let call = placed.is(201)["id"].as_str().unwrap().to_owned();
    let toml = fleet.toml().replace("endpoint =", "weight = 2\nendpoint =");
    let applied = fleet.apply(&toml, "").await;
    let revoked = fleet.operator.post(&format!("/admin/v1/keys/{key}/revoke"), &json!({})).await;
    let rows = fleet.audit().await;
    for (answer, action, target) in [
        (&made, "key.create", Some(&key)),
        (&placed, "call.create", Some(&call)),
        (&applied, "fleet.apply", None),
        (&revoked, "key.revoke", Some(&key)),
    ] {
        let request = answer.header("x-request-id");
        let of: Vec<_> = rows.iter().filter(|row| row["request_id"] == request).collect();
        assert_eq!(of.len(), 1, "{action}: {rows:?}");
        assert_eq!(of[0]["action"], action);
        assert_eq!(of[0]["ip"], "127.0.0.1");
        assert_eq!(of[0]["outcome"], "success");
        assert!(of[0]["key"].as_str().is_some_and(|key| key.starts_with("key_")), "{}", of[0]);
        if let Some(target) = target {
            assert_eq!(of[0]["target_id"], **target);
        }
    }
    let changes = rows.iter().find(|row| row["request_id"] == applied.header("x-request-id")).unwrap();
    assert!(changes["changes"].to_string().contains("weight"), "{changes}");
    // What changed nothing has no row of a success.
    let succeeded = async || fleet.audit().await.iter().filter(|row| row["outcome"] == "success").count();
    let count = succeeded().await;
    fleet.apply(&toml, "").await.is(200);
    fleet.apply("[[", "").await.is_problem(422, "invalid_fleet");
    fleet.api.post("/v1/calls", &json!({"to": "112"})).await;
    fleet.api.get("/v1/calls").await.is(200);
    assert_eq!(succeeded().await, count);
}

/// Every moment is written as in calls: RFC 3339.
#[tokio::test]
async fn moments_are_rfc_3339() {
    let fleet = Fleet::small().await;
    let is_moment = |value: &serde_json::Value| {
        let read = |text: &str| {
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).is_ok()
        };
        assert!(value.as_str().is_some_and(read), "{value}");
    };
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "pager"})).await.is(201);
    is_moment(&made["created_at"]);
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    is_moment(&fleet.operator.post(&revoke, &json!({})).await.is(200)["revoked_at"]);
    let keys = fleet.operator.get("/admin/v1/keys").await.is(200);
    let key = keys["data"].as_array().unwrap().iter().find(|key| key["id"] == made["id"]).unwrap();
    is_moment(&key["revoked_at"]);
    fleet.audit().await.iter().for_each(|row| is_moment(&row["occurred_at"]));
    let urls = json!({"urls": ["https://plane.example:8443"]});
    let token = fleet.operator.post("/admin/v1/nodes/waw-1/token", &urls).await.is(201);
    is_moment(&token["expires_at"]);
    is_moment(&fleet.operator.post("/admin/v1/nodes/waw-1/revoke", &json!({})).await.is(200)["revoked_at"]);
}

/// Series by name and labels.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let mut typed = std::collections::BTreeSet::new();
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()), "{line} twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(bare.starts_with("ringward_"), "{line}");
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| bare.strip_suffix(end)).unwrap_or(bare);
            assert!(typed.contains(family) || typed.contains(bare), "{line} has no TYPE before it");
            assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    series
}

#[tokio::test]
async fn metrics_begin_at_zero_count_what_happened_and_tell_of_nobody() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"]).start().await;
    let answer = fleet.operator.without_key().get("/metrics").await;
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let before = parsed(&answer.text);
    for zero in [
        "ringward_calls_accepted_total",
        "ringward_calls_open",
        "ringward_store_failures_total",
        "ringward_calls_ended_total{reason=\"played\",status=\"completed\"}",
        "ringward_calls_ended_total{reason=\"throttled\",status=\"failed\"}",
        "ringward_calls_ended_total{reason=\"user_busy\",status=\"busy\"}",
        "ringward_trunk_channels{carrier=\"acme\",node=\"waw-1\",trunk=\"acme-waw-1\"}",
        "ringward_attempts_ended_total{carrier=\"acme\",class=\"answered\",node=\"waw-1\",trunk=\"acme-waw-1\"}",
        "ringward_ami_tampering_total{kind=\"foreign_head\",node=\"fra-1\",session=\"originate\"}",
    ] {
        assert_eq!(before.get(zero), Some(&0.0), "{zero}: {before:?}");
    }
    for one in [
        "ringward_node_up{node=\"waw-1\"}",
        "ringward_trunk_usable{carrier=\"acme\",node=\"fra-1\",trunk=\"acme-fra-1\"}",
    ] {
        assert_eq!(before.get(one), Some(&1.0), "{one}: {before:?}");
    }
    let number = "+48221230987";
    fleet.callee(number, Ending::Busy486);
    let busy = fleet.call(number).with("metadata", json!({"who": "somebody"})).place().await;
    busy.ends_as("busy", "user_busy").await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    fleet.callee(number, Ending::NoAnswer);
    let open = fleet.call(number).place().await;
    open.becomes("ringing").await;
    let text = fleet.metrics().await;
    let after = parsed(&text);
    assert_eq!(after["ringward_calls_accepted_total"], 3.0);
    assert_eq!(after["ringward_calls_open"], 1.0);
    assert_eq!(after["ringward_calls_ended_total{reason=\"user_busy\",status=\"busy\"}"], 1.0);
    assert_eq!(after["ringward_calls_ended_total{reason=\"played\",status=\"completed\"}"], 1.0);
    assert_eq!(after["ringward_call_setup_seconds_count"], 3.0);
    let attempts: f64 = after
        .iter()
        .filter(|(name, _)| name.starts_with("ringward_attempts_ended_total"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(attempts, 2.0);
    let channels: f64 =
        after.iter().filter(|(name, _)| name.starts_with("ringward_trunk_channels")).map(|(_, n)| n).sum();
    assert_eq!(channels, 1.0);
    let labels: String =
        after.keys().filter_map(|name| name.split_once('{')).map(|(_, labels)| labels).collect();
    for private in ["4822", "0987", "call_", "att_", "org_", "key_", "req_", "127.0.0.1", "somebody"] {
        assert!(!labels.contains(private), "{private}: {labels}");
    }
    // A node that is no longer declared leaves nothing behind.
    fleet.apply("", "?prune=true").await.is(200);
    assert!(!fleet.metrics().await.contains("ringward_node_up{"));
}

#[tokio::test]
async fn health_and_readiness_need_no_key() {
    let fleet = Fleet::small().await;
    for (door, path, text) in [
        (&fleet.api, "/healthz", "ok\n"),
        (&fleet.operator, "/healthz", "ok\n"),
        (&fleet.operator, "/readyz", "ready\n"),
    ] {
        let answer = door.without_key().get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, text), "{path}");
    }
    // Nodes may be down: that is for metrics to tell.
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    crate::fixture::eventually("the node is down", async || {
        fleet.metrics().await.contains("ringward_node_up{node=\"waw-1\"} 0")
    })
    .await;
    assert_eq!(fleet.operator.without_key().get("/readyz").await.status, 200);
}

/// A port that is taken and a file that cannot be a database: each says what to do.
#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::fixture::Database::fresh(folder.path()).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = settings(folder.path());
    busy.api.listen = taken.local_addr().unwrap();
    let error = Plane::start(busy, database.url.clone()).await.err().unwrap();
    assert!(error.contains("customers") && error.contains("RINGWARD_API__LISTEN"), "{error}");
    let error = Plane::start(settings(folder.path()), "sqlite:///proc/nothing/ringward.db".to_owned())
        .await
        .err()
        .unwrap();
    assert!(error.contains("/proc/nothing") && error.contains("RINGWARD_DATABASE_URL"), "{error}");
    let error = Plane::start(settings(folder.path()), "mysql://x".to_owned()).await.err().unwrap();
    assert!(error.contains("mysql://"), "{error}");
    // Nothing was left running: the same database serves.
    Plane::start(settings(folder.path()), database.url.clone()).await.unwrap();
}
