//! A session: one connection to one Asterisk, logged in. It never reconnects; [`crate::Supervisor`] does.
//!
//! Handles are cheap to clone; the connection ends with the last of them. Every future here may be
//! dropped at any point: an action that has not left is then taken back, one that has left is forgotten.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use crate::action::{Action, InvalidValue};
use crate::config::ConnectConfig;
use crate::event::Event;
use crate::link::{CloseReason, Departure, FRAMES_MAX, Frame, Shared, read_link, write_link};
use crate::mailbox::{Mailbox, Slot};
use crate::message::Message;
use crate::names::ChannelId;
use crate::originate::{Originate, OriginateOutcome};
use crate::router::{EventBox, ListStop, Reply, Router, Want, WatchBox};
use crate::tamper::{TamperCounters, Tampering};

/// Why it is certain that no byte of an action left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The connection was over before it could leave.
    #[error("not sent: {0}")]
    LinkDown(CloseReason),
    /// Too many actions in flight, or the connection took no bytes, until the time-out.
    #[error("not sent: the session was too busy until the time-out")]
    Busy,
    /// A header that AMI cannot carry.
    #[error("not sent: {0}")]
    Invalid(#[from] InvalidValue),
    /// The watch is of another channel, of another session, or was used for an Originate already.
    #[error("not sent: the watch is not one for this originate")]
    WrongWatch,
}

/// Why an action that may have left has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The connection was lost.
    #[error("no answer: {0}")]
    LinkLost(CloseReason),
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
}

/// An action without an answer; the two cases allow different things to follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Proven that nothing left.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// It may have left.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

/// Asterisk's answer to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    message: Message,
}

impl Response {
    /// `Response: Success` or anything but `Error`.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.message.get("Response").is_some_and(|word| word != b"Error")
    }

    /// `Message:`, empty if there is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.message.text("Message").unwrap_or_default().into_owned()
    }

    /// All headers.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Its items in order.
    pub items: Vec<Message>,
    /// How it ended.
    pub end: ListEnd,
}

/// How a list ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListEnd {
    /// All items are there: as many as the list's end says.
    Complete,
    /// Asterisk broke it off and said so.
    Cancelled,
}

/// Why there is no whole list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Proven that nothing left.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// Asterisk answered with an error, or with something that is no list.
    #[error("the PBX refused: {}", .0.text())]
    Refused(Response),
    /// The link was lost or the time ran out in the middle.
    #[error("the list was cut after {} items: {cause}", items.len())]
    Cut {
        /// What had come.
        items: Vec<Message>,
        /// Why no more came.
        cause: Unresolved,
    },
    /// The list's end came, but items are missing, tampered with, or more than the bound.
    #[error("the list is not whole: {} items came", items.len())]
    Short {
        /// What had come.
        items: Vec<Message>,
    },
}

/// What [`Watch::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// An event of the watched channel.
    Event(Event),
    /// A block with the watched id that is not as Asterisk writes it: ask for facts.
    Tampered(Tampering),
    /// So many items came while the watch was full: ask for facts.
    Overflowed {
        /// How many were not kept.
        lost: u64,
    },
    /// The session is over; yielded for ever after.
    LinkLost(CloseReason),
}

/// What [`Events::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// An event of no watch.
    Event(Event),
    /// Strangers' text, of whatever channel.
    Tampered(Tampering),
    /// So many items came at this place while the reader was slow.
    Lost(u64),
    /// The session is over; yielded for ever after.
    Closed(CloseReason),
}

/// All events of one channel of ours, from before its Originate on. Dropping it ends the watching.
pub struct Watch {
    id: ChannelId,
    mailbox: Arc<WatchBox>,
    shared: Arc<Shared>,
}

impl Watch {
    /// The next item. Cancel-safe. Takes `&self`, so that one may read while an originate still runs: an event
    /// may come before the answer to its action.
    pub async fn next(&self) -> WatchItem {
        match self.mailbox.take().await {
            Ok(Slot::Item(item)) => item,
            Ok(Slot::Lost(lost)) => WatchItem::Overflowed { lost },
            Err(reason) => WatchItem::LinkLost(reason),
        }
    }

    /// The channel that is watched.
    #[must_use]
    pub fn id(&self) -> &ChannelId {
        &self.id
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.router().unwatch(self.id.as_str());
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.id)
    }
}

/// Everything that no watch claims, in order.
#[derive(Debug)]
pub struct Events {
    mailbox: Arc<EventBox>,
}

impl Events {
    /// The next item. Cancel-safe.
    pub async fn next(&mut self) -> EventItem {
        match self.mailbox.take().await {
            Ok(Slot::Item(item)) => item,
            Ok(Slot::Lost(lost)) => EventItem::Lost(lost),
            Err(reason) => EventItem::Closed(reason),
        }
    }
}

/// Why there is no watch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {id} is watched already")]
pub struct AlreadyWatched {
    /// The channel.
    pub id: ChannelId,
}

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

struct Handle {
    shared: Arc<Shared>,
    address: String,
    action_timeout: Duration,
    watch_events_max: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(CloseReason::ClosedHere);
    }
}

/// A handle to one connection. See the module for what dropping does.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.handle.address)
    }
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

    /// Sends an action and waits for its response, `action_timeout` in all.
    ///
    /// # Errors
    /// [`ActionError`]; `Response: Error` is a [`Response`], not an error.
    pub async fn action(&self, action: Action) -> Result<Response, ActionError> {
        let deadline = Instant::now() + self.handle.action_timeout;
        match self.ask(action, Want::One, None, deadline).await? {
            Reply::One(message) => Ok(Response { message }),
            Reply::Lost { reason, .. } => Err(Unresolved::LinkLost(reason).into()),
            // The router answers `Want::One` with one message.
            Reply::List { .. } => Err(Unresolved::Timeout.into()),
        }
    }

    /// Sends an action that is answered by a list, and waits for its end, `action_timeout` in all.
    ///
    /// # Errors
    /// [`ListError`]; a list that is not whole is always an error.
    pub async fn list(&self, action: Action) -> Result<List, ListError> {
        let deadline = Instant::now() + self.handle.action_timeout;
        match self.ask(action, Want::List, None, deadline).await {
            Ok(Reply::List { items, end: ListStop::Complete }) => Ok(List { items, end: ListEnd::Complete }),
            Ok(Reply::List { items, end: ListStop::Cancelled }) => {
                Ok(List { items, end: ListEnd::Cancelled })
            }
            Ok(Reply::List { items, end: ListStop::Short }) => Err(ListError::Short { items }),
            Ok(Reply::List { items, end: ListStop::TimedOut }) => {
                Err(ListError::Cut { items, cause: Unresolved::Timeout })
            }
            Ok(Reply::One(message)) => Err(ListError::Refused(Response { message })),
            Ok(Reply::Lost { reason, items }) => {
                Err(ListError::Cut { items, cause: Unresolved::LinkLost(reason) })
            }
            Err(ActionError::NotSent(why)) => Err(why.into()),
            Err(ActionError::Unresolved(cause)) => Err(ListError::Cut { items: Vec::new(), cause }),
        }
    }

    /// Watches a channel of ours; call this before originating it, so that no event is missed.
    ///
    /// # Errors
    /// [`AlreadyWatched`] while another watch of the same id lives. On a session that is over the watch
    /// yields [`WatchItem::LinkLost`].
    pub fn watch(&self, id: ChannelId) -> Result<Watch, AlreadyWatched> {
        let shared = self.handle.shared.clone();
        let mailbox = Arc::new(Mailbox::new(self.handle.watch_events_max));
        let watching = shared.router().watch(id.as_str(), mailbox.clone());
        match watching {
            Some(()) => Ok(Watch { id, mailbox, shared }),
            None => Err(AlreadyWatched { id }),
        }
    }

    /// Sends an Originate whose channel `watch` watches.
    pub async fn originate(&self, originate: &Originate, watch: &Watch) -> OriginateOutcome {
        if watch.id != originate.channel_id || !Arc::ptr_eq(&watch.shared, &self.handle.shared) {
            return OriginateOutcome::NotSent(NotSent::WrongWatch);
        }
        let action = match originate.to_action() {
            Ok(action) => action,
            Err(invalid) => return OriginateOutcome::NotSent(invalid.into()),
        };
        let deadline = Instant::now() + self.handle.action_timeout;
        match self.ask(action, Want::One, Some(watch.id.as_str()), deadline).await {
            Ok(Reply::One(message)) => {
                let response = Response { message };
                if response.is_success() {
                    OriginateOutcome::Accepted
                } else {
                    OriginateOutcome::Rejected { message: response.text() }
                }
            }
            Ok(Reply::Lost { reason, .. }) => OriginateOutcome::Unresolved(Unresolved::LinkLost(reason)),
            Ok(Reply::List { .. }) => OriginateOutcome::Unresolved(Unresolved::Timeout),
            Err(ActionError::NotSent(why)) => OriginateOutcome::NotSent(why),
            Err(ActionError::Unresolved(why)) => OriginateOutcome::Unresolved(why),
        }
    }

    /// Waits until the session is over.
    pub async fn closed(&self) -> CloseReason {
        self.handle.shared.until_closed().await
    }

    /// As [`Session::closed`], without keeping the session alive.
    pub(crate) fn watch_closed(&self) -> impl Future<Output = CloseReason> + Send + 'static {
        let shared = self.handle.shared.clone();
        async move { shared.until_closed().await }
    }

    /// Why the session is over, or `None` while it lives.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.handle.shared.closed.borrow().clone()
    }

    /// Ends the session for all handles.
    pub fn close(&self) {
        self.handle.shared.close(CloseReason::ClosedHere);
    }

    /// How much of strangers' text was noticed, by kind.
    #[must_use]
    pub fn tampering(&self) -> Arc<TamperCounters> {
        self.handle.shared.counters.clone()
    }

    /// Round trip of the last answered ping, `None` before the first.
    #[must_use]
    pub fn ping_rtt(&self) -> Option<Duration> {
        let micros = self.handle.shared.ping_rtt_us.load(Ordering::Relaxed);
        (micros != u64::MAX).then(|| Duration::from_micros(micros))
    }

    async fn ask(
        &self,
        action: Action,
        want: Want,
        originate: Option<&str>,
        deadline: Instant,
    ) -> Result<Reply, ActionError> {
        ask(&self.handle.shared, action, want, originate, deadline).await
    }
}

/// Takes an action back, or forgets it, when its future is dropped.
struct InFlight<'a> {
    shared: &'a Shared,
    id: String,
    departure: Arc<Departure>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.departure.withdraw();
        self.shared.router().abandon(&self.id);
    }
}

async fn ask(
    shared: &Shared,
    action: Action,
    want: Want,
    originate: Option<&str>,
    deadline: Instant,
) -> Result<Reply, ActionError> {
    let Ok(permit) = timeout_at(deadline, shared.in_flight.acquire()).await else {
        return Err(NotSent::Busy.into());
    };
    let id = shared.ids.next_id();
    let answer = shared.router().expect(&id, want, originate).map_err(NotSent::LinkDown)?;
    let bytes = action.encode(&id);
    let departure = Arc::new(Departure::default());
    let waiting = InFlight { shared, id, departure: departure.clone() };
    let frame = Frame { bytes, departure };
    match timeout_at(deadline, shared.frames.send(frame)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(NotSent::LinkDown(shared.until_closed().await).into()),
        Err(_) => return Err(NotSent::Busy.into()),
    }
    let reply = timeout_at(deadline, answer).await;
    let withdrawn =
        !matches!(reply, Ok(Ok(Reply::One(_) | Reply::List { .. }))) && waiting.departure.withdraw();
    drop(permit);
    match reply {
        Ok(Ok(Reply::Lost { reason, .. })) if withdrawn => Err(NotSent::LinkDown(reason).into()),
        Ok(Ok(reply)) => Ok(reply),
        // The router drops a sender only with itself.
        Ok(Err(_)) | Err(_) if withdrawn => Err(NotSent::Busy.into()),
        Ok(Err(_)) | Err(_) if want == Want::List => {
            let items = shared.router().abandon(&waiting.id);
            Ok(Reply::List { items, end: ListStop::TimedOut })
        }
        Ok(Err(_)) | Err(_) => Err(Unresolved::Timeout.into()),
    }
}

/// Keeps the session honest: a PBX that answers no ping is gone, whatever TCP says.
async fn ping(shared: Arc<Shared>, interval: Duration, limit: Duration) {
    loop {
        tokio::select! {
            _ = shared.until_closed() => return,
            () = sleep(interval) => {}
        }
        let sent_at = Instant::now();
        match ask(&shared, Action::fixed("Ping"), Want::One, None, sent_at + limit).await {
            Ok(Reply::One(_)) => {
                let micros = u64::try_from(sent_at.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
                shared.ping_rtt_us.store(micros, Ordering::Relaxed);
            }
            Ok(Reply::Lost { .. } | Reply::List { .. }) | Err(_) => {
                return shared.close(CloseReason::PingTimeout);
            }
        }
    }
}
