//! From an address to a session that is logged in, and the words for where it failed.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::action::{Action, InvalidValue};
use crate::answer::{ActionError, NotSent, Response, Unresolved};
use crate::config::ConnectConfig;
use crate::link::{CloseReason, FRAMES_MAX, Shared, read_link, write_link};
use crate::mailbox::Mailbox;
use crate::pending::{Reply, Want};
use crate::router::Router;
use crate::session::{Handle, Session, ping};
use crate::tamper::TamperCounters;
use crate::watch::Events;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// As configured.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// No TLS on it.
    #[error("TLS with {address} failed: {source}")]
    Tls {
        /// As configured.
        address: String,
        /// rustls' error within.
        source: std::io::Error,
    },
    /// Not done within `connect_timeout`.
    #[error("{address} did not complete {stage} in time")]
    TimedOut {
        /// As configured.
        address: String,
        /// `connect`, `TLS`, `banner` or `login`.
        stage: &'static str,
    },
    /// `Response: Error` to the login: wrong user or secret, or an address that the user may not come from.
    #[error("{address} refused manager user {username:?}: {message}")]
    AuthenticationRefused {
        /// As configured.
        address: String,
        /// As configured.
        username: String,
        /// Asterisk's words.
        message: String,
    },
    /// A username, secret or event mask that AMI cannot carry.
    #[error("the login cannot be sent: {0}")]
    InvalidLogin(#[from] InvalidValue),
    /// The connection ended before the login was done.
    #[error("{address} ended the session before it began: {reason}")]
    Closed {
        /// As configured.
        address: String,
        /// Why.
        reason: CloseReason,
    },
}

impl Session {
    /// Connects by TCP (and TLS, if configured) and logs in, within `connect_timeout` in all.
    ///
    /// # Errors
    /// [`ConnectError`] tells a refused login from a host that cannot be reached.
    pub async fn connect(config: &ConnectConfig) -> Result<(Self, Events), ConnectError> {
        let deadline = Instant::now() + config.connect_timeout;
        let address = || config.address.clone();
        let late = |stage| ConnectError::TimedOut { address: address(), stage };
        let connect = async {
            let stream = TcpStream::connect(&config.address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = timeout_at(deadline, connect)
            .await
            .map_err(|_| late("connect"))?
            .map_err(|source| ConnectError::Unreachable { address: address(), source })?;
        let Some(tls) = &config.tls else { return Self::login(stream, config, deadline).await };
        let connecting = TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), stream);
        let stream = timeout_at(deadline, connecting)
            .await
            .map_err(|_| late("TLS"))?
            .map_err(|source| ConnectError::Tls { address: address(), source })?;
        Self::login(stream, config, deadline).await
    }

    /// Logs in over a stream that exists already; `config.address` serves in errors only.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub async fn over<S>(stream: S, config: &ConnectConfig) -> Result<(Self, Events), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::login(stream, config, Instant::now() + config.connect_timeout).await
    }

    async fn login<S>(
        stream: S,
        config: &ConnectConfig,
        deadline: Instant,
    ) -> Result<(Self, Events), ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let login = Action::fixed("Login")
            .header("Username", &config.username)?
            .header("Secret", config.secret.expose())?
            .header("Events", &config.events)?;
        let (session, events) = Self::start(stream, config);
        let address = || config.address.clone();
        let shared = &session.handle.shared;
        let mut banner = shared.banner.subscribe();
        let greeted = async {
            tokio::select! {
                reason = shared.until_closed() => Err(reason),
                _ = banner.wait_for(Option::is_some) => Ok(()),
            }
        };
        timeout_at(deadline, greeted)
            .await
            .map_err(|_| ConnectError::TimedOut { address: address(), stage: "banner" })?
            .map_err(|reason| ConnectError::Closed { address: address(), reason })?;
        match session.ask(login, Want::One, None, deadline).await {
            Ok(Reply::One(message)) => {
                let response = Response { message };
                if !response.is_success() {
                    shared.close(CloseReason::LoginRefused);
                    let (username, message) = (config.username.clone(), response.text());
                    return Err(ConnectError::AuthenticationRefused {
                        address: address(),
                        username,
                        message,
                    });
                }
            }
            Ok(Reply::Lost { reason, .. })
            | Err(ActionError::NotSent(NotSent::LinkDown(reason)))
            | Err(ActionError::Unresolved(Unresolved::LinkLost(reason))) => {
                return Err(ConnectError::Closed { address: address(), reason });
            }
            Ok(Reply::List { .. })
            | Err(ActionError::Unresolved(Unresolved::Timeout))
            | Err(ActionError::NotSent(NotSent::Busy | NotSent::Invalid(_) | NotSent::WrongWatch)) => {
                return Err(ConnectError::TimedOut { address: address(), stage: "login" });
            }
        }
        tracing::info!(address = config.address, purpose = config.purpose.as_str(), "AMI session is up");
        let pinging = ping(shared.clone(), config.ping_interval, config.ping_timeout);
        tokio::spawn(pinging);
        Ok((session, events))
    }

    fn start<S>(stream: S, config: &ConnectConfig) -> (Self, Events)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let counters = Arc::new(TamperCounters::default());
        let mailbox = Arc::new(Mailbox::new(config.events_max));
        let router = Router::new(mailbox.clone(), counters.clone(), config.list_items_max);
        let (frames, outbox) = mpsc::channel(FRAMES_MAX);
        let shared =
            Arc::new(Shared::new(router, frames, counters, config.in_flight_max, config.ids.clone()));
        let (reading, writing) = tokio::io::split(stream);
        tokio::spawn(read_link(shared.clone(), reading, config.limits, config.quiet));
        tokio::spawn(write_link(shared.clone(), writing, outbox));
        let handle = Handle {
            shared,
            address: config.address.clone(),
            action_timeout: config.action_timeout,
            watch_events_max: config.watch_events_max,
        };
        (Self { handle: Arc::new(handle) }, Events { mailbox })
    }
}
