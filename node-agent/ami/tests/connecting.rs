//! Getting in and staying in: refusals by name, TLS, reconnecting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use fake_pbx::{FakePbx, Script};
use node_agent_ami::{
    ActionIds, BackOff, CloseReason, ConnectConfig, ConnectError, DownReason, LinkChange, Secret, Session,
    Supervisor, Tls,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpListener;

fn config(address: impl ToString, secret: &str) -> ConnectConfig {
    let mut config =
        ConnectConfig::new(address.to_string(), "ringward", Secret::new(secret), ActionIds::seeded(1));
    config.connect_timeout = Duration::from_secs(2);
    config
}

#[tokio::test]
async fn a_wrong_secret_is_named_and_never_shown() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let config = config(pbx.address(), "hunter2");
    let refused = Session::connect(&config).await.unwrap_err();
    assert!(matches!(refused, ConnectError::AuthenticationRefused { .. }), "{refused:?}");
    let shown = format!("{refused} {refused:?} {config:?}");
    assert!(shown.contains("ringward") && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_closed_port_and_another_protocol_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await;
            std::future::pending::<()>().await;
        }
    });
    let other = Session::connect(&config(address, "s")).await.unwrap_err();
    assert!(
        matches!(&other, ConnectError::Closed { reason: CloseReason::NotAsterisk { banner }, .. } if banner.starts_with("SSH-2.0")),
        "{other:?}"
    );
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.close_port();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let closed = Session::connect(&config(pbx.address(), "secret")).await.unwrap_err();
    assert!(matches!(closed, ConnectError::Unreachable { .. }), "{closed:?}");
}

#[tokio::test]
async fn a_slow_banner_is_waited_for_within_the_time_out() {
    let script = Script { banner_delay: Duration::from_millis(100), ..Script::default() };
    let pbx = FakePbx::start(script).await.unwrap();
    assert!(Session::connect(&config(pbx.address(), "secret")).await.is_ok());
    let mut hasty = config(pbx.address(), "secret");
    hasty.connect_timeout = Duration::from_millis(30);
    let late = Session::connect(&hasty).await.unwrap_err();
    assert!(matches!(late, ConnectError::TimedOut { stage: "banner", .. }), "{late:?}");
    assert_eq!(pbx.count_actions("Login"), 1, "no secret goes to who has not said that he is an Asterisk");
}

#[tokio::test]
async fn a_secret_that_ami_cannot_carry_is_refused_before_anything_is_sent() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    for secret in ["a\r\nAction: Originate", "a\nb", "a\0b"] {
        let refused = Session::connect(&config(pbx.address(), secret)).await.unwrap_err();
        assert!(matches!(refused, ConnectError::InvalidLogin(_)), "{refused:?}");
    }
    assert_eq!(pbx.actions().len(), 0);
}

#[tokio::test]
async fn tls_checks_the_name_and_carries_a_session() {
    let key = rcgen::generate_simple_self_signed(["pbx.example.com".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let pbx = Arc::new(FakePbx::start(Script::default()).await.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let serving = pbx.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serving.serve(stream);
            }
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);
    let tls =
        |name: &'static str| Tls { config: client.clone(), server_name: ServerName::try_from(name).unwrap() };
    let mut config = config(address, "secret");
    config.tls = Some(tls("pbx.example.com"));
    let (session, _events) = Session::connect(&config).await.unwrap();
    assert!(session.core_status().await.is_ok());
    config.tls = Some(tls("other.example.com"));
    let refused = Session::connect(&config).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Tls { .. }), "{refused:?}");
}

fn quick() -> BackOff {
    BackOff {
        min: Duration::from_millis(10),
        max: Duration::from_millis(40),
        refused: Duration::from_millis(300),
    }
}

#[tokio::test]
async fn the_supervisor_comes_back_after_a_cut_and_a_closed_port() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let mut supervisor =
        Supervisor::start(config(pbx.address(), "secret"), quick(), StdRng::seed_from_u64(1));
    let Some(LinkChange::Up { session, .. }) = supervisor.next().await else { panic!("not up") };
    pbx.close_port();
    tokio::time::sleep(Duration::from_millis(20)).await;
    pbx.cut_links();
    let down = supervisor.next().await;
    assert!(matches!(down, Some(LinkChange::Down { reason: DownReason::Lost(_), .. })), "{down:?}");
    assert!(session.close_reason().is_some());
    for _ in 0..3 {
        let down = supervisor.next().await;
        assert!(
            matches!(down, Some(LinkChange::Down { reason: DownReason::Unreachable(_), .. })),
            "{down:?}"
        );
    }
    pbx.open_port().await.unwrap();
    loop {
        match supervisor.next().await {
            Some(LinkChange::Up { session, .. }) => {
                assert!(session.core_status().await.is_ok());
                break;
            }
            Some(LinkChange::Down { .. }) => {}
            None => panic!("the supervisor gave up"),
        }
    }
    assert_eq!(pbx.logins(), 2);
}

#[tokio::test]
async fn a_refused_login_is_named_and_tried_again_slowly() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.refuse_login(true);
    let started = tokio::time::Instant::now();
    let mut supervisor =
        Supervisor::start(config(pbx.address(), "secret"), quick(), StdRng::seed_from_u64(2));
    let down = supervisor.next().await;
    assert!(matches!(down, Some(LinkChange::Down { reason: DownReason::WrongSecret(_), .. })), "{down:?}");
    pbx.refuse_login(false);
    assert!(matches!(supervisor.next().await, Some(LinkChange::Up { .. })));
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_dropped_session_closes_its_connection() {
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    let (session, _events) = Session::connect(&config(pbx.address(), "secret")).await.unwrap();
    let other = session.clone();
    drop(session);
    assert!(other.core_status().await.is_ok());
    drop(other);
    for _ in 0..100 {
        if pbx.sessions() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the connection lives on");
}
