//! A small control plane of the test's own: a CA, a door with TLS, and the other end of links and AMI streams.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Bytes, body::Incoming, header, server::conn::http1,
    service::service_fn, upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use node_agent::settings::Settings;
use node_agent_protocol::{
    Capabilities, Capability, Decoded, Down, JOIN_PATH, JoinRequest, JoinResponse, JoinToken, LINK_PATH,
    PROTOCOL, RENEW_PATH, RenewRequest, SERVER_NAME, Text, TokenSecret, Up, Welcome, decode, encode, tls,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Frame, handshake::derive_accept_key, protocol::Role},
};

pub(crate) const NODE: &str = "waw-1";
const SECRET: [u8; 32] = [9; 32];
pub(crate) const DAY: i64 = 86_400;

pub(crate) type Ws = WebSocketStream<TokioIo<Upgraded>>;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }
}

/// What the door has been asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) joins: u32,
    pub(crate) renewals: u32,
    pub(crate) csrs: Vec<String>,
    /// What is answered for a sound, by its address.
    pub(crate) sounds: HashMap<String, Vec<u8>>,
    /// Sounds that were fetched, each time.
    pub(crate) fetched: Vec<String>,
}

pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    ca: Arc<Ca>,
    pub(crate) asked: Arc<Mutex<Asked>>,
    pub(crate) now_unix_s: Arc<Mutex<i64>>,
    sockets: mpsc::Receiver<(String, Ws)>,
}

impl ControlPlane {
    pub(crate) async fn start(now_unix_s: i64) -> Self {
        Self::of(Arc::new(Ca::new()), now_unix_s).await
    }

    /// Another replica.
    pub(crate) async fn replica(&self) -> Self {
        let now = *self.now_unix_s.lock().unwrap();
        Self::of(Arc::clone(&self.ca), now).await
    }

    async fn of(ca: Arc<Ca>, now_unix_s: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca.issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone(), ca.der.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, sockets) = mpsc::channel(16);
        let asked = Arc::new(Mutex::new(Asked::default()));
        let now_unix_s = Arc::new(Mutex::new(now_unix_s));
        let door =
            Door { ca: Arc::clone(&ca), asked: Arc::clone(&asked), now: Arc::clone(&now_unix_s), sender };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, door) = (acceptor.clone(), door.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_known = stream.get_ref().1.peer_certificates().is_some();
                    let service = service_fn(move |request| {
                        let door = door.clone();
                        async move { Ok::<_, Infallible>(door.answer(request, is_known).await) }
                    });
                    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = serving.with_upgrades().await;
                });
            }
        });
        Self { address, ca, asked, now_unix_s, sockets }
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken {
            urls: vec![format!("https://{}", self.address).parse().unwrap()],
            ca_sha256: tls::fingerprint(&self.ca.der),
            secret: TokenSecret::new(SECRET),
            node: NODE.parse().unwrap(),
        }
    }

    /// The next WebSocket that an agent opens.
    pub(crate) async fn socket(&mut self) -> (String, Ws) {
        timeout(Duration::from_secs(10), self.sockets.recv()).await.expect("nobody dials").unwrap()
    }

    /// The next link, its hello read and answered.
    pub(crate) async fn link(&mut self) -> Link {
        self.link_of(Capabilities::of([Capability::Records])).await
    }

    /// The next link, of a control plane that can do this.
    pub(crate) async fn link_of(&mut self, capabilities: Capabilities) -> Link {
        let (path, socket) = self.socket().await;
        assert_eq!(path, LINK_PATH);
        let mut link = Link { socket };
        let Up::Hello(hello) = link.next().await else { panic!("the first message is no hello") };
        assert_eq!(hello.node.to_string(), NODE);
        let control_plane_version = Text::cut("0.1.0");
        link.send(&Down::Welcome(Welcome {
            protocol: PROTOCOL,
            control_plane_version,
            lacking: Default::default(),
            capabilities,
        }))
        .await;
        link
    }
}

#[derive(Clone)]
struct Door {
    ca: Arc<Ca>,
    asked: Arc<Mutex<Asked>>,
    now: Arc<Mutex<i64>>,
    sender: mpsc::Sender<(String, Ws)>,
}

impl Door {
    async fn answer(&self, mut request: Request<Incoming>, is_known: bool) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        if path == JOIN_PATH {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let join: JoinRequest = serde_json::from_slice(&body).unwrap();
            self.asked.lock().unwrap().joins += 1;
            if join.secret != TokenSecret::new(SECRET) {
                return problem(StatusCode::FORBIDDEN, "token_unknown");
            }
            return self.issue(&join.csr_pem);
        }
        if !is_known {
            return problem(StatusCode::UNAUTHORIZED, "certificate_needed");
        }
        if path == RENEW_PATH {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let renew: RenewRequest = serde_json::from_slice(&body).unwrap();
            self.asked.lock().unwrap().renewals += 1;
            return self.issue(&renew.csr_pem);
        }
        if path.starts_with("/agents/v1/audio/") {
            let mut asked = self.asked.lock().unwrap();
            asked.fetched.push(path.clone());
            return match asked.sounds.get(&path) {
                Some(sound) => Response::new(Full::new(Bytes::from(sound.clone()))),
                None => problem(StatusCode::NOT_FOUND, "not_found"),
            };
        }
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY).unwrap().clone();
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let _ = sender.send((path, socket)).await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
            .body(Full::default())
            .unwrap()
    }

    fn issue(&self, csr_pem: &str) -> Response<Full<Bytes>> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let certificate = request.signed_by(&self.ca.issuer).unwrap();
        self.asked.lock().unwrap().csrs.push(csr_pem.to_owned());
        let now = *self.now.lock().unwrap();
        let answer = JoinResponse {
            node: NODE.parse().unwrap(),
            certificate_pem: certificate.pem(),
            ca_pem: self.ca.pem.clone(),
            not_before_unix_s: now,
            expires_unix_s: now + 30 * DAY,
            fingerprint: Text::cut("aa"),
        };
        Response::new(Full::new(Bytes::from(serde_json::to_vec(&answer).unwrap())))
    }
}

fn problem(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"code": code, "detail": "no"}).to_string();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

pub(crate) struct Link {
    socket: Ws,
}

impl Link {
    pub(crate) async fn next(&mut self) -> Up {
        loop {
            let frame =
                timeout(Duration::from_secs(10), self.socket.next()).await.expect("the agent is silent");
            match frame.unwrap().unwrap() {
                Frame::Text(text) => match decode::<Up>(&text).unwrap() {
                    Decoded::Message(message) => return message,
                    Decoded::Unknown => panic!("unknown: {text}"),
                },
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next message that `wanted` takes; others are skipped.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Up) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn raw(&mut self, text: &str) {
        self.socket.send(Frame::text(text.to_owned())).await.unwrap();
    }

    /// Whether it could be sent: the agent may be gone.
    pub(crate) async fn tell(&mut self, text: &str) -> bool {
        self.socket.send(Frame::text(text.to_owned())).await.is_ok()
    }

    pub(crate) async fn send(&mut self, message: &Down) {
        self.socket.send(Frame::text(encode(message).unwrap())).await.unwrap();
    }
}

/// The control plane's end of an AMI stream, as the bytes that its AMI client reads and writes.
pub(crate) fn as_bytes(socket: Ws) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (mut sink, mut frames) = socket.split();
    let (mut from_client, mut to_client) = tokio::io::split(far);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = frames.next().await {
            if let Frame::Binary(bytes) = frame
                && to_client.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
        let _ = to_client.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if sink.send(Frame::binary(buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    });
    near
}

/// What the agent's own door says at `path`.
pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Settings of an agent in `dir` beside the Asterisk at `ami`.
pub(crate) fn settings(dir: &Path, ami: SocketAddr) -> Settings {
    let secret = dir.join("ami.secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let mut settings = Settings { state_dir: dir.join("state"), ..Settings::default() };
    for login in [&mut settings.ami, &mut settings.observer, &mut settings.security] {
        login.address = ami;
        login.username = "ringward".to_owned();
        login.secret_file.clone_from(&secret);
    }
    settings.audio.folder = dir.join("sounds");
    // Of the host that runs the tests nothing is read.
    settings.jails.clear();
    settings.metrics.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    settings
}
