//! The agents' door: TLS, with or without a client certificate, and bounds on strangers.
//!
//! A connection without a certificate can only join: it lives for seconds, and there are few of them at a time.
//! One address may hold a few handshakes at a time, so that a stranger who stalls keeps nobody else out.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use node_agent_protocol::tls;
use rustls::{
    RootCertStore, ServerConfig, crypto::ring, pki_types::UnixTime, server::WebPkiClientVerifier,
    time_provider::TimeProvider,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::authority::{Authority, AuthorityError};
use crate::{
    clock::Clock,
    doors::{ACCEPT_PAUSE, HANDSHAKE_MAX, Place, Places, ServerCertificate},
};

/// A connection without a certificate is closed after this: enough for one request from far away.
const STRANGER_MAX: Duration = Duration::from_secs(15);
/// Connections at a time of one address that have shown no certificate.
const STRANGERS_PER_ADDRESS: usize = 8;
/// The same of all addresses.
const STRANGERS_MAX: usize = 256;
/// Connections that wait to be served; they are at once.
const READY_MAX: usize = 16;
/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// SHA-256 of the certificate that it proved to hold: of our CA and in its time, perhaps revoked.
    pub certificate: Option<[u8; 32]>,
}

/// Certificates are judged by the program's clock.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let now = u64::try_from(self.0.now().unix_timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

/// The TLS of the door.
pub(super) fn server_config(
    authority: &Authority,
    certificate: Arc<ServerCertificate>,
    clock: Clock,
) -> Result<ServerConfig, AuthorityError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in authority.trusted() {
        roots.add(ca.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(ByClock(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A connection after its handshake. One without a certificate ends by itself.
pub struct Connection {
    tls: TlsStream<TcpStream>,
    stranger: Option<(Pin<Box<Sleep>>, Place)>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((end, _)) = &mut self.stranger
            && end.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tls).poll_write(cx, buf));
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Accepts, shakes hands aside, and gives what is ready.
pub struct Door {
    ready: mpsc::Receiver<(Connection, Peer)>,
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Door {
    pub(super) fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        let accepting = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), sender));
        Ok(Self { ready, address, accepting: accepting.abort_handle() })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends with this door only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer { address: self.address, certificate: None })
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<(Connection, Peer)>) {
    let strangers = Places::new(STRANGERS_PER_ADDRESS, STRANGERS_MAX);
    loop {
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the agents' door cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Too many of this address already: closed without a word, which costs least.
        let Ok(place) = strangers.take(address.ip()) else { continue };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            // Small messages that somebody waits for.
            let _ = tcp.set_nodelay(true);
            match timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
                Ok(Ok(tls)) => {
                    let certificate = tls.get_ref().1.peer_certificates().and_then(|c| c.first());
                    let certificate = certificate.map(tls::fingerprint);
                    let stranger = certificate.is_none().then(|| (Box::pin(sleep(STRANGER_MAX)), place));
                    let peer = Peer { address, certificate };
                    // The door is gone: so is the connection.
                    let _ = ready.send((Connection { tls, stranger }, peer)).await;
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "no TLS at the agents' door"),
                Err(_) => tracing::info!(%address, "a handshake at the agents' door took too long"),
            }
        });
    }
}
