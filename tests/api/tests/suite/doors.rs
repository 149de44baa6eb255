//! How the doors are reached: by TLS, through proxies, from pages of other origins, by too many at a time.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use controlplane::settings::TlsFiles;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Method};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::fixture::{Door, Fleet, NUMBER, Plane, eventually, settings};

const HSTS: &str = "strict-transport-security";
const ALLOWED: &str = "access-control-allow-origin";

fn call() -> Value {
    json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}})
}

/// A certificate for `localhost` in files.
fn certificate(folder: &Path) -> (TlsFiles, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = TlsFiles { certificate_file: folder.join("c.pem"), key_file: folder.join("k.pem") };
    std::fs::write(&files.certificate_file, certificate.pem()).unwrap();
    std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
    (files, certificate.der().clone())
}

/// The status of an answer by HTTP/2, and what it tells of the next visits.
async fn by_http2(at: SocketAddr, root: CertificateDer<'static>) -> (u16, String) {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(at).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config));
    let tls = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/v1/calls").body(String::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let told = answer.headers().get(HSTS).map_or("", |told| told.to_str().unwrap()).to_owned();
    connection.abort();
    (answer.status().as_u16(), told)
}

#[tokio::test]
async fn a_door_speaks_tls_by_files_and_tells_browsers_to_keep_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = certificate(folder.path());
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(move |to| to.api.tls = Some(files)).start().await;
    let at = fleet.api_at();

    let client = Client::builder()
        .no_proxy()
        .add_root_certificate(Certificate::from_der(&root).unwrap())
        .resolve("localhost", at)
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/v1/calls", at.port());
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()[HSTS], "max-age=31536000", "on errors too");
    let key = fleet.api.key.as_deref().unwrap();
    let created = client.post(&url).bearer_auth(key).json(&call()).send().await.unwrap();
    assert_eq!(created.status(), 201);
    assert_eq!(by_http2(at, root).await, (401, "max-age=31536000".to_owned()));

    // In the clear there is nothing, and the other door is as it was.
    let plain = Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://{at}/v1/calls")).send().await.is_err());
    assert_eq!(fleet.operator.get("/admin/v1/keys").await.header(HSTS), "");
    let metrics = fleet.metrics().await;
    assert!(
        metrics.contains("ringward_door_refused_connections_total{door=\"customers\",reason=\"tls\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("ringward_door_certificate_expiry_timestamp_seconds{door=\"customers\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_certificate_that_cannot_be_shown_keeps_it_from_starting_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut to = settings(folder.path());
    to.operator.tls = Some(TlsFiles {
        certificate_file: folder.path().join("no.pem"),
        key_file: folder.path().join("no.key"),
    });
    let url = format!("sqlite://{}", folder.path().join("r.db").display());
    let error = Plane::start(to, url).await.err().unwrap();
    assert!(error.contains("operators") && error.contains("no.pem"), "{error}");
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_audited_and_what_a_stranger_says_is_not() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|to| to.api.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()])
        .start()
        .await;
    let said = async |door: &Door, method: Method, path: &str, body: Value| {
        let request = door.request(method, path).json(&body);
        let request = request.header("x-forwarded-for", "203.0.113.7, 198.51.100.7");
        let answer = request.header("x-forwarded-proto", "https").send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key(HSTS))
    };
    assert_eq!(said(&fleet.api, Method::POST, "/v1/calls", call()).await, (201, true));
    assert_eq!(said(&fleet.api, Method::POST, "/v1/calls", json!({})).await, (422, true));
    let key = json!({"name": "other"});
    assert_eq!(said(&fleet.operator, Method::POST, "/admin/v1/keys", key).await, (201, false));

    let ip = async |action: &str, outcome: &str| {
        let rows =
            fleet.operator.get(&format!("/admin/v1/audit?action={action}&outcome={outcome}")).await.is(200);
        rows["data"][0]["ip"].clone()
    };
    assert_eq!(ip("call.create", "success").await, "198.51.100.7");
    eventually("the refusal is written", async || ip("call.create", "denied").await == "198.51.100.7").await;
    assert_eq!(ip("key.create", "success").await, "127.0.0.1", "nobody is trusted at this door");
}

#[tokio::test]
async fn pages_of_named_origins_may_ask_and_no_others() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|to| to.cors.origins = vec!["https://app.example".to_owned().try_into().unwrap()])
        .start()
        .await;
    let ask = async |door: &Door, method: Method, origin: &str| {
        let request = door.request(method, "/v1/calls").header("origin", origin);
        request.header("access-control-request-method", "POST").send().await.unwrap()
    };
    let preflight = ask(&fleet.api.without_key(), Method::OPTIONS, "https://app.example").await;
    assert_eq!(preflight.status(), 200);
    let headers = preflight.headers();
    assert_eq!(headers[ALLOWED], "https://app.example");
    assert!(headers["access-control-allow-headers"].to_str().unwrap().contains("idempotency-key"));
    assert!(headers["vary"].to_str().unwrap().contains("origin"));
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert_eq!(headers["x-content-type-options"], "nosniff");

    let refused = ask(&fleet.api.without_key(), Method::GET, "https://app.example").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[ALLOWED]),
        (401, &"https://app.example".parse().unwrap())
    );
    for (door, origin) in [
        (&fleet.api, "https://evil.example"),
        (&fleet.api, "https://app.example.evil.example"),
        (&fleet.api, "http://app.example"),
        (&fleet.api, "null"),
        (&fleet.operator, "https://app.example"),
    ] {
        for method in [Method::OPTIONS, Method::GET] {
            let answer = ask(door, method, origin).await;
            assert!(!answer.headers().contains_key(ALLOWED), "{origin}: {:?}", answer.headers());
        }
    }

    let closed = Fleet::small().await;
    let answer = ask(&closed.api, Method::OPTIONS, "https://app.example").await;
    assert_eq!(answer.status(), 405);
    assert!(!answer.headers().contains_key(ALLOWED));
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_and_a_place_that_is_free_is_used() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(|to| to.api.connections_max = 8).start().await;
    let at = fleet.api_at();
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(at).await.unwrap());
    }
    let taken = "ringward_door_connections{door=\"customers\"} 8";
    eventually("all places are taken", async || fleet.metrics().await.contains(taken)).await;
    let mut byte = [0];
    let mut further = TcpStream::connect(at).await.unwrap();
    let closed = timeout(Duration::from_secs(5), further.read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(fleet.metrics().await.contains("{door=\"customers\",reason=\"all\"} 1"), "and it is counted");

    // The other door has places of its own; those who wait are served.
    fleet.operator.get("/admin/v1/keys").await.is(200);
    held[0].write_all(b"GET /v1/calls HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    held[0].read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    eventually("a place is free again", async || !fleet.metrics().await.contains(taken)).await;
    fleet.api.get("/v1/calls").await.is(200);
}
