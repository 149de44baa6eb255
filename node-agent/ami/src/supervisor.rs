//! Keeps one session up: connects, reports, waits, connects again.
//!
//! ```text
//!            connected                link lost
//! Connecting ──────────▶ Up ─────────────────────▶ Waiting(back-off, from its minimum if Up lasted)
//!     ▲ │ unreachable: Waiting(back-off doubles up to its maximum, with jitter)
//!     │ │ login refused: Waiting(`refused`): asking faster with a wrong secret helps nobody and gets banned
//!     └─┴───────────────────────────────────────── the wait is over
//! ```

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::{ConnectConfig, Purpose};
use crate::connect::ConnectError;
use crate::link::CloseReason;
use crate::session::Session;
use crate::watch::Events;

/// Waits between attempts to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
    /// The wait after a refused login.
    pub refused: Duration,
}

impl Default for BackOff {
    /// 100 ms to 5 s; 30 s after a refused login.
    fn default() -> Self {
        Self {
            min: Duration::from_millis(100),
            max: Duration::from_secs(5),
            refused: Duration::from_secs(30),
        }
    }
}

impl BackOff {
    /// The wait after `failures` failures in a row, spread over its upper half so that a fleet that lost
    /// its PBX does not come back in step.
    fn wait(&self, failures: u32, rng: &mut StdRng) -> Duration {
        let full = self.min.saturating_mul(1 << failures.min(20)).min(self.max);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }
}

/// Why there is no session now.
#[derive(Debug, thiserror::Error)]
pub enum DownReason {
    /// It was up and was lost.
    #[error("the session was lost: {0}")]
    Lost(CloseReason),
    /// It cannot be set up.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// The login was refused: user, secret or permitted addresses are wrong, here or there.
    #[error(transparent)]
    WrongSecret(ConnectError),
}

/// A change of the link.
#[derive(Debug)]
pub enum LinkChange {
    /// A session is up. Drop the one before.
    Up {
        /// The handle.
        session: Session,
        /// Its events.
        events: Events,
    },
    /// No session until at least `next_try`.
    Down {
        /// Why.
        reason: DownReason,
        /// When the next attempt starts.
        next_try: Instant,
    },
}

/// A way to a session: by TCP, or through something that leads to it.
pub trait Connect: Send + 'static {
    /// One attempt.
    fn connect(&mut self) -> impl Future<Output = Result<(Session, Events), ConnectError>> + Send;
    /// Where to, for logs.
    fn address(&self) -> &str;
    /// What for, for logs.
    fn purpose(&self) -> Purpose;
}

impl Connect for ConnectConfig {
    fn connect(&mut self) -> impl Future<Output = Result<(Session, Events), ConnectError>> + Send {
        Session::connect(self)
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// Changes that wait for their reader; the supervisor waits when it is full, the sessions do not.
const CHANGES_MAX: usize = 4;

/// The reconnecting owner of one session. Dropping it stops connecting; a session that is up stays up as
/// long as its handles do.
#[derive(Debug)]
pub struct Supervisor {
    changes: mpsc::Receiver<LinkChange>,
}

impl Supervisor {
    /// Starts connecting at once. The generator spreads the waits.
    #[must_use]
    pub fn start(way: impl Connect, back_off: BackOff, rng: StdRng) -> Self {
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(keep_up(way, back_off, rng, sender));
        Self { changes }
    }

    /// The next change. Cancel-safe. `None` only while the runtime shuts down.
    pub async fn next(&mut self) -> Option<LinkChange> {
        self.changes.recv().await
    }
}

async fn keep_up(
    mut way: impl Connect,
    back_off: BackOff,
    mut rng: StdRng,
    changes: mpsc::Sender<LinkChange>,
) {
    let mut failures: u32 = 0;
    loop {
        let connected = tokio::select! {
            connected = way.connect() => connected,
            () = changes.closed() => return,
        };
        let (reason, wait) = match connected {
            Ok((session, events)) => {
                let up_since = Instant::now();
                // A weak eye on it: the session must end when its user drops it, not when this task does.
                let closed = session.watch_closed();
                if changes.send(LinkChange::Up { session, events }).await.is_err() {
                    return;
                }
                let reason = tokio::select! {
                    reason = closed => reason,
                    () = changes.closed() => return,
                };
                // A PBX that lets us in only to throw us out must not be asked ten times a second.
                let lasted = up_since.elapsed() >= back_off.max;
                failures = if lasted { 0 } else { failures.saturating_add(1) };
                (DownReason::Lost(reason), back_off.wait(failures, &mut rng))
            }
            Err(error @ ConnectError::AuthenticationRefused { .. }) => {
                (DownReason::WrongSecret(error), back_off.refused)
            }
            Err(error) => {
                let wait = back_off.wait(failures, &mut rng);
                failures = failures.saturating_add(1);
                (DownReason::Unreachable(error), wait)
            }
        };
        tracing::warn!(address = way.address(), purpose = way.purpose().as_str(), %reason, "no AMI session");
        let next_try = Instant::now() + wait;
        if changes.send(LinkChange::Down { reason, next_try }).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep_until(next_try) => {}
            () = changes.closed() => return,
        }
    }
}
