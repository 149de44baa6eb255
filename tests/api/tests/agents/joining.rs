//! Joining and renewing: single-use tokens, the pinned CA, certificates in their time.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use node_agent_protocol::{JOIN_PATH, RENEW_PATH, RefusalCode, TokenSecret, tls};
use rcgen::KeyPair;

use crate::{
    identity::{ask, csr, dial, join, post},
    link::{Link, hello, upgrade},
    plane::{Plane, node},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_its_token_once_and_is_welcome() {
    let plane = Plane::start().await;
    let token = plane.token("waw-1").await;
    let identity = join(&token).await.unwrap();
    assert_eq!(identity.response.node, node("waw-1"));
    let lasts = identity.response.expires_unix_s - identity.response.not_before_unix_s;
    assert_eq!(lasts, 30 * 24 * 3600 + 3600, "30 days, and an hour before for clocks that are behind");
    let (_link, welcome, policy) = Link::open(&identity, hello("waw-1")).await;
    assert_eq!((welcome.protocol, policy.node), (1, node("waw-1")));
    assert_eq!(policy.trunks[0].endpoint.as_str(), "acme");
    assert_eq!(join(&token).await.err(), Some(refusal(403, "token_used")), "replayed");
    assert_eq!(plane.audited("waw-1").await, ["node.token", "node.join"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_and_requests_let_nobody_in() {
    let plane = Plane::start().await;
    let token = plane.token("waw-1").await;
    let mut guessed = token.clone();
    guessed.secret = TokenSecret::new([7; 32]);
    assert_eq!(join(&guessed).await.err(), Some(refusal(403, "token_unknown")));
    let mut other = token.clone();
    other.node = node("fra-1");
    assert_eq!(join(&other).await.err(), Some(refusal(403, "token_of_another_node")));
    for bad in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert_eq!(ask(&token, bad.to_owned()).await.err(), Some(refusal(422, "csr_refused")));
    }
    let foreign = csr(&KeyPair::generate().unwrap()).replacen('M', "N", 1);
    assert_eq!(ask(&token, foreign).await.err(), Some(refusal(422, "csr_refused")));
    plane.move_clock(Duration::from_secs(3601));
    assert_eq!(join(&token).await.err(), Some(refusal(403, "token_expired")));
    let (status, answer) = plane.post("/admin/v1/nodes/ber-1/token", &serde_json::json!({})).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")), "not declared");
    assert_eq!(plane.audited("waw-1").await, ["node.token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_told_to_nobody_but_the_ca_of_the_token() {
    let (plane, impostor) = (Plane::start().await, Plane::start().await);
    let token = plane.token("waw-1").await;
    let mut led_astray = token.clone();
    led_astray.urls = impostor.token("waw-1").await.urls;
    let refused = dial(&led_astray.urls[0], tls::joining(token.ca_sha256).unwrap()).await;
    assert!(refused.is_err(), "another CA");
    let identity = join(&token).await.unwrap();
    assert!(dial(&led_astray.urls[0], identity.config()).await.is_err(), "another CA for the link");
    // The certificate of a node, of the right CA, is none of a control plane.
    assert!(dial(&token.urls[0], tls::joining(token.ca_sha256).unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_can_only_join() {
    let plane = Plane::start().await;
    let token = plane.token("waw-1").await;
    let stranger = || tls::joining(token.ca_sha256).unwrap();
    let (status, body) = post(&token.urls[0], stranger(), RENEW_PATH, r#"{"csr_pem":""}"#).await.unwrap();
    assert_eq!((status, body["code"].as_str()), (401, Some("certificate_required")));
    for path in
        ["/agents/v1/link", "/agents/v1/ami/ami_00000000000000000000000000", "/admin/v1/nodes", "/v1/calls"]
    {
        let (status, _) = post(&token.urls[0], stranger(), path, "{}").await.unwrap();
        assert!([401, 404, 405].contains(&status), "{path}: {status}");
    }
    let (status, _) = post(&token.urls[0], stranger(), JOIN_PATH, "{}").await.unwrap();
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_its_time_and_worth_nothing_after_it() {
    let plane = Plane::start().await;
    let first = join(&plane.token("waw-1").await).await.unwrap();
    plane.move_clock(20 * DAY);
    let second = first.renew().await.unwrap();
    let (_link, ..) = Link::open(&second, hello("waw-1")).await;
    let (mut link, ..) = Link::open(&first, hello("waw-1")).await;
    plane.move_clock(11 * DAY);
    assert_eq!(link.refused().await, RefusalCode::CertificateExpired, "a link outlives no certificate");
    assert!(upgrade(&first, "/agents/v1/link").await.is_err(), "it ended a day ago");
    assert_eq!(first.renew().await.err(), Some(None), "TLS itself refuses it");
    let (_link, ..) = Link::open(&second, hello("waw-1")).await;
    assert_eq!(plane.audited("waw-1").await, ["node.token", "node.join", "node.renew"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_is_made_once_and_read_by_its_owner_alone() {
    let plane = Plane::start().await;
    let file = plane.folder.path().join("agents-ca.pem");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = plane.token("waw-1").await;
    let mut identity = join(&token).await.unwrap();
    let plane = plane.restart().await;
    let again = plane.token("waw-1").await;
    assert_eq!(again.ca_sha256, token.ca_sha256);
    identity.url = again.urls[0].clone();
    let (_link, ..) = Link::open(&identity, hello("waw-1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_can_be_changed_without_a_node_noticing() {
    let plane = Plane::start().await;
    let mut old = join(&plane.token("waw-1").await).await.unwrap();
    // The new CA is made aside, and believed before it signs.
    let made = Plane::start().await;
    let new_ca = fs::read_to_string(made.folder.path().join("agents-ca.pem")).unwrap();
    let certificate = &new_ca[new_ca.find("-----BEGIN CERTIFICATE").unwrap()..];
    let own = plane.folder.path().join("agents-ca.pem");
    let trusted = plane.folder.path().join("agents-ca-trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let plane = plane.restart().await;
    old.url = format!("https://{}", plane.app.agents).parse().unwrap();
    let mut knows_both = old.renew().await.unwrap();
    // Then it signs, and the old one is believed.
    let old_ca = fs::read_to_string(&own).unwrap();
    fs::write(&trusted, &old_ca[old_ca.find("-----BEGIN CERTIFICATE").unwrap()..]).unwrap();
    fs::write(&own, &new_ca).unwrap();
    let plane = plane.restart().await;
    knows_both.url = format!("https://{}", plane.app.agents).parse().unwrap();
    let (_link, ..) = Link::open(&knows_both, hello("waw-1")).await;
    let renewed = knows_both.renew().await.unwrap();
    let (_link, ..) = Link::open(&renewed, hello("waw-1")).await;
}

/// Who is not let in is in the audit log.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_join_leaves_a_row() {
    let plane = Plane::start().await;
    let mut guessed = plane.token("waw-1").await;
    guessed.secret = TokenSecret::new([7; 32]);
    assert_eq!(join(&guessed).await.err(), Some(refusal(403, "token_unknown")));
    let mut rows = Vec::new();
    for _ in 0..100 {
        let audit = plane.get("/admin/v1/audit").await;
        rows = audit["data"].as_array().unwrap().clone();
        if let Some(row) = rows.iter().find(|row| row["outcome"] == "denied") {
            assert_eq!(
                (row["action"].as_str(), row["reason"].as_str()),
                (Some("node.join"), Some("token_unknown"))
            );
            assert_eq!((row["actor_type"].as_str(), row["ip"].as_str()), (Some("agent"), Some("127.0.0.1")));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no row: {rows:?}");
}
