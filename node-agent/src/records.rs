//! Clears away what settled attempts have left on the node, over the agent's own session, which alone may: its
//! user has class `system`.
//!
//! Every few seconds the flight records are listed and the next link asks the control plane about them; what is
//! settled is deleted, one after the other. At 100 calls a second that is a list of some 1,000 records in 5 ms
//! and 1,000 deletions of 0.04 ms each per turn (measured on Asterisk 22.10.1 and 16.28): half a percent of
//! one core. The readings of trunks share the session and wait for no more than one of these.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::ids::AttemptId as Id;
use node_agent_ami::{AskError, DbFamily, DbKey, FLIGHT_RECORD_FAMILY, FlightRecord, Session};
use node_agent_core::{attempt_id::AttemptId, records};
use node_agent_protocol::{ATTEMPTS_PER_MESSAGE, List, Up};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{clock::Clock, gate::Gate};

/// Between two listings.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// The same where Asterisk refuses: the manager user may be given its classes meanwhile.
const REFUSED_AGAIN: Duration = Duration::from_secs(300);
/// A channel is asked about when it has lived so long, and then every [`records::ASK_AGAIN`].
const CHANNEL_ASKED_AFTER: Duration = Duration::from_secs(10);

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Records {
    inner: Arc<Mutex<records::Records>>,
    /// There is something to be removed.
    wake: Arc<Notify>,
    gate: Gate,
    clock: Clock,
}

fn bits(ids: &[Id]) -> Vec<AttemptId> {
    ids.iter().filter_map(|id| id.as_str().parse().ok()).collect()
}

fn words(attempts: Vec<AttemptId>) -> List<Id, ATTEMPTS_PER_MESSAGE> {
    List::first(attempts.into_iter().filter_map(|attempt| attempt.to_string().parse().ok()))
}

impl Records {
    pub(crate) fn new(gate: Gate, clock: Clock) -> Self {
        Self { inner: Arc::default(), wake: Arc::default(), gate, clock }
    }

    fn lock(&self) -> MutexGuard<'_, records::Records> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a control plane is to be asked now. Each link asks for others: together they ask for all.
    pub(crate) fn question(&self) -> Option<Up> {
        let living = self.gate.living_for(CHANNEL_ASKED_AFTER);
        let now = Instant::now().into_std();
        let mut inner = self.lock();
        let records = inner.ask(ATTEMPTS_PER_MESSAGE, now, |attempt| self.gate.is_live(attempt));
        let channels = inner.ask_channels(&living, ATTEMPTS_PER_MESSAGE, now);
        let is_nothing = records.is_empty() && channels.is_empty();
        (!is_nothing).then(|| Up::Attempts { records: words(records), channels: words(channels) })
    }

    /// A control plane's answer.
    pub(crate) fn told(&self, settled: &[Id], unknown: &[Id]) {
        let now_s = u64::try_from(self.clock.now().unix_timestamp()).unwrap_or(0);
        self.lock().told(&bits(settled), &bits(unknown), now_s);
        self.wake.notify_one();
    }

    /// Lists and removes for as long as it is polled.
    pub(crate) async fn clear_away(&self, session: Session) -> Infallible {
        let mut next = Instant::now();
        loop {
            let turn = tokio::select! {
                () = sleep_until(next) => {
                    next = Instant::now() + LIST_EVERY;
                    self.list(&session).await
                }
                () = self.wake.notified() => self.remove(&session).await,
            };
            match turn {
                Ok(()) => {}
                Err(error @ AskError::Refused { .. }) => {
                    tracing::warn!(%error, "flight records stay: the observer's user needs write=system,reporting");
                    next = Instant::now() + REFUSED_AGAIN;
                }
                // They are listed again.
                Err(error) => tracing::debug!(%error, "flight records stay for now"),
            }
        }
    }

    async fn list(&self, session: &Session) -> Result<(), AskError> {
        let Ok(family) = DbFamily::parse(FLIGHT_RECORD_FAMILY) else { return Ok(()) };
        let found = session.db_tree(&family).await?;
        let read = |(key, value): &(String, String)| {
            let attempt = key.parse().ok()?;
            Some((attempt, FlightRecord::parse(value).ok().map(|record| record.written_at_epoch_s)))
        };
        self.lock().list(found.iter().filter_map(read));
        Ok(())
    }

    async fn remove(&self, session: &Session) -> Result<(), AskError> {
        let Ok(family) = DbFamily::parse(FLIGHT_RECORD_FAMILY) else { return Ok(()) };
        loop {
            let Some(attempt) = self.lock().next_removal() else { return Ok(()) };
            let Ok(key) = DbKey::parse(attempt.to_string()) else { continue };
            if session.db_del(&family, &key).await? {
                self.gate.metrics().record_removed();
            }
        }
    }
}
