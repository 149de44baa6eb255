//! How connections come in at the customers' and the operators' door: bounded, in time, by TLS or not.
//!
//! A stranger can hold a place for 75 s without asking anything, and one address can hold a quarter of them. What
//! is asked is the business of `http`; how long a body may take is its handlers'. The agents' door is one of its own
//! (`agents::door`), with a certificate for each node.

mod client;
mod metrics;
mod patient;
mod places;
mod tls;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

pub use self::tls::CertificateError;
pub(crate) use self::{
    client::{Client, came_by_proxy},
    metrics::DoorMetrics,
    places::{Place, Places, holder},
    tls::{FileTls, ServerCertificate},
};
use self::{patient::Connection, places::NoPlace};
use crate::settings;

/// From the first byte to the end of a handshake.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// A request's head must be there within this after the connection, or after the answer before. Longer than the pools
/// of clients keep what they do not use (some 60 s), so that it is rarely this end that closes.
const HEAD_MAX: Duration = Duration::from_secs(75);
/// An HTTP/2 connection is asked whether it lives after this time without a frame, and has as long to answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Largest head of a request, and what is read ahead of a body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// After an error of the system (no file descriptors): it will not be better at once.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A door that is about to be opened.
pub(crate) struct Door {
    /// As metrics and logs call it.
    pub(crate) name: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) settings: settings::Door,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) metrics: DoorMetrics,
}

/// What every connection of a door works with.
struct Within {
    name: &'static str,
    settings: settings::Door,
    router: Router,
    metrics: DoorMetrics,
}

impl Door {
    /// Opens it: serves the router until the stop, then ends each connection after the answer that is under way. Its
    /// connections end with the task.
    pub(crate) fn open(self, router: Router, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(self.serve(router, stopping))
    }

    async fn serve(self, router: Router, mut stopping: watch::Receiver<bool>) {
        let Self { name, listener, settings, tls, metrics } = self;
        let most = usize::try_from(settings.connections_max).unwrap_or(usize::MAX);
        let places = Places::new(most / 4, most);
        let acceptor = tls.map(TlsAcceptor::from);
        let within = Arc::new(Within { name, settings, router, metrics });
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                // An error means that the sender is gone, which is a stop too.
                _ = stopping.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next() => {
                    within.metrics.connections(name, places.held());
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(door = name, %error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Closed without a word, which costs least.
            let place = match within.place(&places, peer.ip().to_canonical()) {
                Ok(place) => place,
                Err(reason) => {
                    within.metrics.refused(name, reason);
                    continue;
                }
            };
            // Small answers that somebody waits for.
            let _ = tcp.set_nodelay(true);
            let (within, acceptor, watcher) = (Arc::clone(&within), acceptor.clone(), graceful.watcher());
            within.metrics.connections(name, places.held());
            connections.spawn(async move {
                let _place = place;
                within.connection(tcp, peer, acceptor, watcher).await;
            });
        }
        drop(listener);
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    }
}

impl Within {
    fn place(&self, places: &Places, address: IpAddr) -> Result<Place, &'static str> {
        let stands_for_many = address.is_loopback() || self.settings.trusts(address);
        let place = if stands_for_many { places.take_for_many(address) } else { places.take(address) };
        place.map_err(|none| match none {
            NoPlace::Address => "address",
            NoPlace::All => "all",
        })
    }

    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        acceptor: Option<TlsAcceptor>,
        watcher: Watcher,
    ) {
        let Some(acceptor) = acceptor else { return self.http1(tcp, peer, false, watcher).await };
        let tls = match timeout(HANDSHAKE_MAX, acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => tls,
            failed => {
                let error = failed
                    .map_or_else(|_| "took too long".to_owned(), |failed| format!("{:?}", failed.err()));
                tracing::debug!(door = self.name, %peer, error, "no TLS");
                return self.metrics.refused(self.name, "tls");
            }
        };
        if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(tls, peer, watcher).await;
        } else {
            self.http1(tls, peer, true, watcher).await;
        }
    }

    async fn http1(
        self: Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
        by_tls: bool,
        watcher: Watcher,
    ) {
        let service = service_fn(move |request| Arc::clone(&self).answer(request, peer, by_tls));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Connection::new(io)), service);
        // What went wrong on a connection is its other end's to know.
        let _ = watcher.watch(connection).await;
    }

    async fn http2(
        self: Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        let service = service_fn(move |request| Arc::clone(&self).answer(request, peer, true));
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_EVERY)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
            .serve_connection(TokioIo::new(Connection::talking(io, HEAD_MAX)), service);
        let _ = watcher.watch(connection).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        peer: SocketAddr,
        by_tls: bool,
    ) -> Result<axum::response::Response, Infallible> {
        let mut request = request.map(Body::new);
        let client = Client::of(&self.settings, peer, by_tls, request.headers());
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().oneshot(request).await
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;

    /// A connection to a router that tells who asks, and what ends with it.
    fn connected(door: &settings::Door) -> (DuplexStream, JoinHandle<()>, GracefulShutdown) {
        let metrics = DoorMetrics::new(&prometheus::Registry::new()).unwrap();
        let who = |axum::Extension(client): axum::Extension<Client>| async move { client.ip.to_string() };
        let router = Router::new().route("/", get(who));
        let within = Arc::new(Within { name: "customers", settings: door.clone(), router, metrics });
        let (near, far) = duplex(4_096);
        let graceful = GracefulShutdown::new();
        let peer = SocketAddr::from(([192, 0, 2, 1], 5));
        let task = tokio::spawn(within.http1(near, peer, false, graceful.watcher()));
        (far, task, graceful)
    }

    async fn answer(far: &mut DuplexStream) -> String {
        let mut answer = vec![0; 4_096];
        let read = far.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_ends_a_head_or_asks_no_more_is_hung_up_on() {
        let door = settings::Settings::default().api;
        let mut byte = [0];
        for said in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\nx-a: "] {
            let (mut far, task, _graceful) = connected(&door);
            far.write_all(said.as_bytes()).await.unwrap();
            let began = Instant::now();
            // A drop now and then gains nothing.
            let dripping = async {
                loop {
                    sleep(Duration::from_secs(10)).await;
                    if said.is_empty() || far.write_all(b"x").await.is_err() {
                        break;
                    }
                }
            };
            let _ = timeout(HEAD_MAX * 2, dripping).await;
            task.await.unwrap();
            let took = began.elapsed();
            assert!(took <= HEAD_MAX * 2 && took >= HEAD_MAX, "{said:?}: {took:?}");
        }

        let (mut far, task, _graceful) = connected(&door);
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(answer(&mut far).await.ends_with("192.0.2.1"));
        let began = Instant::now();
        assert_eq!(far.read(&mut byte).await.unwrap(), 0);
        task.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), HEAD_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_connection_after_its_answer() {
        let (mut far, task, graceful) = connected(&settings::Settings::default().api);
        far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        let stopping = tokio::spawn(graceful.shutdown());
        sleep(Duration::from_secs(1)).await;
        far.write_all(b"\r\n").await.unwrap();
        assert!(answer(&mut far).await.starts_with("HTTP/1.1 200"));
        timeout(Duration::from_secs(1), async { (task.await.unwrap(), stopping.await.unwrap()) })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn one_address_holds_a_quarter_and_a_proxy_all() {
        let registry = prometheus::Registry::new();
        let trusted = settings::Door {
            connections_max: 8,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..settings::Settings::default().api
        };
        let metrics = DoorMetrics::new(&registry).unwrap();
        let within = Within { name: "customers", settings: trusted, router: Router::new(), metrics };
        let places = Places::new(2, 8);
        let take = |address: &str| within.place(&places, address.parse().unwrap());
        let mut held = vec![take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap()];
        assert_eq!(take("192.0.2.1").err(), Some("address"));
        held.extend((0..4).map(|_| take("10.0.0.1").unwrap()));
        held.extend((0..2).map(|_| take("127.0.0.1").unwrap()));
        assert_eq!(take("10.0.0.1").err(), Some("all"));
    }
}
