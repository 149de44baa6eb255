//! A session: one connection to one Asterisk, logged in. It never reconnects; [`crate::Supervisor`] does.
//!
//! Handles are cheap to clone; the connection ends with the last of them. Every future here may be
//! dropped at any point: an action that has not left is then taken back, one that has left is forgotten.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::action::Action;
use crate::answer::{ActionError, List, ListEnd, ListError, NotSent, Response, Unresolved};
use crate::link::{CloseReason, Departure, Frame, Shared};
use crate::mailbox::Mailbox;
use crate::names::ChannelId;
use crate::originate::{Originate, OriginateOutcome};
use crate::pending::{ListStop, Reply, Want};
use crate::tamper::TamperCounters;
use crate::watch::{AlreadyWatched, Watch};

pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: String,
    pub(crate) action_timeout: Duration,
    pub(crate) watch_events_max: usize,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(CloseReason::ClosedHere);
    }
}

/// A handle to one connection. See the module for what dropping does.
#[derive(Clone)]
pub struct Session {
    pub(crate) handle: Arc<Handle>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.handle.address)
    }
}

impl Session {
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
    /// yields [`crate::WatchItem::LinkLost`].
    pub fn watch(&self, id: ChannelId) -> Result<Watch, AlreadyWatched> {
        let shared = self.handle.shared.clone();
        let mailbox = Arc::new(Mailbox::new(self.handle.watch_events_max));
        let watching = shared.router().watch(id.as_str(), mailbox.clone());
        match watching {
            Some(()) => Ok(Watch { id, mailbox, shared }),
            None => Err(AlreadyWatched { id }),
        }
    }

    /// Sends an Originate whose channel `watch` watches. A caller that drops this future has to take the
    /// outcome for [`OriginateOutcome::Unresolved`].
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

    pub(crate) async fn ask(
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
pub(crate) async fn ping(shared: Arc<Shared>, interval: Duration, limit: Duration) {
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
