//! This process among several control planes on one database: whether it lives in their eyes, and whether it leads.
//!
//! ```text
//!             renewed in time                          late, by its own clock
//! Living ───────────────────────▶ Living        Living ─────────────────────▶ Lapsed: nothing leaves, nothing is led
//!                                               Lapsed ──renewed, and what it owns was read──▶ Living
//! ```
//!
//! A sign of life is written every `RENEW_EVERY` and lasts `LEASE`, counted by the database from when it was written, and
//! here from before it was sent, by the steady clock: what others may do to its calls begins after this process knows that they
//! may. A process that was frozen finds itself lapsed when it wakes. What it then still writes is refused by the epoch of each
//! call's claim; what it still sends is refused by the gates of nodes, since whoever claimed the call had its attempt barred.
//! Its tasks that lost their call are ended once it has read what it still owns.
//!
//! Moments that are stored go by the database's clock: each sign of life brings back what this machine's own is off by.
//!
//! Everything is looked for every `LOOK_EVERY`, and at once when another replica nudges: calls whose owner is dead, calls that
//! shall end, settings that another one has changed. See docs/adr/0042.

mod metrics;
mod others;
mod sightings;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::ids::ReplicaId;
use controlplane_store::{
    Store, StoreError,
    calls::Call,
    replicas::{Renewal, Renewed, Replica, SettingMarks},
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::sightings::Untold;
pub(crate) use self::{metrics::ReplicaMetrics, others::Others, sightings::Ended};
use crate::{
    calls::{Calls, chain},
    clock::{Clock, Offset},
    registry::Registry,
};

/// How long a replica is taken for living after a sign of life. Calls of one that died wait for it.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// Between two signs of life: four may be lost.
const RENEW_EVERY: Duration = Duration::from_millis(400);
/// How long this process trusts a sign of life: two steady clocks may differ by a hundredth in their pace, and much less is usual.
const TRUSTED: Duration = Duration::from_millis(1_900);
/// For the database's answer to one.
const RENEW_MAX: Duration = Duration::from_millis(1_200);
/// Between two looks that nobody nudged for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For giving the lease up at an orderly stop.
const GIVE_UP_MAX: Duration = Duration::from_secs(2);

/// A second replica that would do harm.
#[derive(Debug, thiserror::Error)]
#[error(
    "the replica {name} ({id}) on the same database has another {file}. All replicas share agents-ca.pem, audit-key.der and the \
     keys of secrets: copy them from its data directory to {data_dir} before the start, with mode 0600"
)]
pub struct Stranger {
    /// Which file.
    file: String,
    /// Whose.
    name: String,
    /// Whose, exactly.
    id: ReplicaId,
    /// Where it is to be copied to.
    data_dir: String,
}

/// Machines whose clocks are further apart than this are told of.
const APART_MAX: time::Duration = time::Duration::seconds(1);

/// See the module. A control plane that has the database to itself always lives, and leads.
pub struct Membership {
    store: Arc<dyn Store>,
    me: Option<ReplicaId>,
    name: String,
    secrets: BTreeMap<String, String>,
    metrics: ReplicaMetrics,
    /// This machine's clock as it is, and what it is off by.
    own: Clock,
    offset: Offset,
    state: Mutex<State>,
    /// How calls ended here, for the others.
    untold: Untold,
}

#[derive(Default)]
struct State {
    /// Until when it lives.
    until: Option<Instant>,
    /// Until when it leads.
    leads_until: Option<Instant>,
    /// It stops.
    is_over: bool,
}

impl Membership {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        secrets: BTreeMap<String, String>,
        metrics: ReplicaMetrics,
        (own, offset): (Clock, Offset),
    ) -> Arc<Self> {
        let me = store.replica().cloned();
        if me.is_none() {
            metrics.lives.set(1);
            metrics.leads.set(1);
        }
        Arc::new(Self {
            store,
            me,
            name: host(),
            secrets,
            metrics,
            own,
            offset,
            state: Mutex::default(),
            untold: Untold::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether calls may leave: nobody else takes this process for dead.
    #[must_use]
    pub fn lives(&self) -> bool {
        let state = self.state();
        self.me.is_none() || (!state.is_over && state.until.is_some_and(|until| Instant::now() < until))
    }

    /// Returns when calls may leave.
    pub(crate) async fn living(&self) {
        while !self.lives() {
            sleep(LOOK_EVERY / 10).await;
        }
    }

    /// Whether it does what only one may do.
    #[must_use]
    pub fn leads(&self) -> bool {
        let state = self.state();
        self.me.is_none() || (!state.is_over && state.leads_until.is_some_and(|until| Instant::now() < until))
    }

    /// Whether a call is this process's to drive.
    #[must_use]
    pub fn owns(&self, call: &Call) -> bool {
        self.me.is_none() || (call.claim.owner == self.me && !self.state().is_over)
    }

    /// Its id among the replicas; `None`: it has the database to itself.
    #[must_use]
    pub fn me(&self) -> Option<&ReplicaId> {
        self.me.as_ref()
    }

    /// The first sign of life. Before anything else is done for calls.
    ///
    /// # Errors
    /// The database, or a replica with other secrets: both would harm each other.
    pub(crate) async fn join(&self, data_dir: &Path) -> Result<Result<(), Stranger>, StoreError> {
        let Some(me) = &self.me else { return Ok(Ok(())) };
        let asked = Instant::now();
        let leads = self.sign(me).await?;
        // Seen by whoever comes after it: of two that start at once, at least one sees the other.
        let stranger =
            self.store.replicas().await?.into_iter().find_map(|other| self.stranger(me, other, data_dir));
        if let Some(stranger) = stranger {
            self.store.give_up_replica(me).await?;
            return Ok(Err(stranger));
        }
        self.renewed(asked, leads);
        tracing::info!(replica = %me, leads = leads.is_some(), "one of several control planes on this database");
        Ok(Ok(()))
    }

    fn stranger(&self, me: &ReplicaId, other: Replica, data_dir: &Path) -> Option<Stranger> {
        if other.id == *me || !other.is_living {
            return None;
        }
        let file = self.secrets.iter().find_map(|(file, own)| {
            let theirs = other.secrets.get(file)?;
            (!knows(own, theirs) || !knows(theirs, own)).then(|| file.clone())
        })?;
        Some(Stranger { file, name: other.name, id: other.id, data_dir: data_dir.display().to_string() })
    }

    /// Writes a sign of life, and sees what the database's clock says.
    async fn sign(&self, me: &ReplicaId) -> Result<Option<i64>, StoreError> {
        let before = self.own.now();
        let Renewed { leads, at } = self.store.renew_replica(self.renewal(me)).await?;
        if self.offset.compare(before, at, self.own.now()) && self.offset.get().abs() > APART_MAX {
            tracing::warn!(
                off_by_s = self.offset.get().whole_seconds(),
                "this machine's clock is off the database's, by which all replicas go: is time kept on both?"
            );
        }
        Ok(leads)
    }

    fn renewal(&self, me: &ReplicaId) -> Renewal {
        Renewal { replica: me.clone(), name: self.name.clone(), secrets: self.secrets.clone(), lease: LEASE }
    }

    fn renewed(&self, asked: Instant, leads: Option<i64>) {
        let mut state = self.state();
        state.until = Some(asked + TRUSTED);
        let did_lead = state.leads_until.is_some();
        state.leads_until = leads.map(|_| asked + TRUSTED);
        drop(state);
        if did_lead != leads.is_some() {
            tracing::info!(epoch = leads, leads = leads.is_some(), "whether this replica leads");
        }
        self.metrics.lives.set(1);
        self.metrics.leads.set(i64::from(leads.is_some()));
    }

    /// Renews for ever.
    async fn renew(self: Arc<Self>, me: ReplicaId, calls: Arc<Calls>) {
        // Told once for each time that the database is away.
        let mut told = false;
        loop {
            let asked = Instant::now();
            let was_late = !self.lives();
            if was_late {
                self.metrics.lives.set(0);
                self.metrics.leads.set(0);
            }
            match timeout(RENEW_MAX, self.sign(&me)).await {
                // An answer that came late is worth what is left of it. One that was asked for in time may have reached the
                // database when the lease was over there; then it is over here too, which trusts it for less.
                Ok(Ok(leads)) if was_late || !self.lives() => {
                    self.metrics.lapses.inc();
                    // Nobody takes more from now on; what was taken before this is known then.
                    match calls.keep_owned(&me).await {
                        Ok(lost) => {
                            tracing::warn!(
                                lost,
                                "this replica was taken for dead for a while, and lives again"
                            );
                            self.renewed(asked, leads);
                        }
                        Err(error) => {
                            tracing::warn!(error = %chain(&error), "what this replica still owns could not be read");
                        }
                    }
                }
                Ok(Ok(leads)) => self.renewed(asked, leads),
                Ok(Err(error)) if !told => {
                    told = true;
                    tracing::warn!(error = %chain(&error), "no sign of life can be written");
                }
                Err(_) if !told => {
                    told = true;
                    tracing::warn!("no sign of life can be written in time");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            told &= !self.lives();
            sleep_until(asked + RENEW_EVERY).await;
        }
    }

    /// Starts signs of life, where there are others.
    pub(crate) fn keep_alive(self: &Arc<Self>, calls: &Arc<Calls>) -> Option<AbortHandle> {
        let renewing = Arc::clone(self).renew(self.me.clone()?, Arc::clone(calls));
        Some(tokio::spawn(renewing).abort_handle())
    }

    /// Starts looks for what concerns this replica, where there are others.
    pub(crate) fn keep_looking(self: &Arc<Self>, calls: &Arc<Calls>, others: Others) -> Option<AbortHandle> {
        let looking = Arc::clone(self).look(self.me.clone()?, Arc::clone(calls), others);
        Some(tokio::spawn(looking).abort_handle())
    }

    /// Looks for ever for what concerns this replica.
    async fn look(self: Arc<Self>, me: ReplicaId, calls: Arc<Calls>, others: Others) {
        let (mut nudges, mut seen, mut heard) = (self.store.nudges(), None, None);
        loop {
            let looked = Instant::now();
            if self.lives()
                && let Err(error) = self.look_once(&me, &calls, &others, &mut seen, &mut heard).await
            {
                tracing::warn!(error = %chain(&error), "what other replicas have left or changed could not be read");
            }
            // Not again and again where many nudge.
            sleep(LOOK_EVERY / 10).await;
            tokio::select! {
                () = sleep_until(looked + LOOK_EVERY) => {}
                changed = nudges.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn look_once(
        &self,
        me: &ReplicaId,
        calls: &Arc<Calls>,
        others: &Others,
        seen: &mut Option<SettingMarks>,
        heard: &mut Option<i64>,
    ) -> Result<(), StoreError> {
        let claimed = calls.claim(me).await?;
        if claimed > 0 {
            self.metrics.claimed.inc_by(u64::try_from(claimed).unwrap_or(u64::MAX));
            tracing::warn!(calls = claimed, "goes on with calls whose replica is dead");
        }
        calls.end_wished(&self.store.wished_ends(me).await?);
        let marks = self.store.setting_marks().await?;
        if *seen != Some(marks) {
            others.read(marks, *seen).await?;
            *seen = Some(marks);
        }
        self.share_sightings(&others.registry, heard).await
    }

    /// Every replica, as the database knows it.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn all(&self) -> Result<Vec<Replica>, StoreError> {
        match self.me {
            Some(_) => self.store.replicas().await,
            None => Ok(Vec::new()),
        }
    }

    /// A call has ended here: the others are to know within a moment.
    pub(crate) fn saw(&self, ended: impl FnOnce() -> Ended) {
        if self.me.is_some() {
            self.untold.add(ended());
        }
    }

    /// Tells what was seen here, and hears what was seen elsewhere.
    async fn share_sightings(&self, registry: &Registry, heard: &mut Option<i64>) -> Result<(), StoreError> {
        if let Some(seen) = self.untold.take(Instant::now().into_std()) {
            self.store.tell_sighting(seen).await?;
        }
        let (last, others) = self.store.sightings(*heard).await?;
        let now = Instant::now().into_std();
        for ended in others.into_iter().flat_map(|sighting| sightings::heard(sighting, now)) {
            registry.ended_elsewhere(now, &ended.trunk, &ended.node, ended.call);
        }
        *heard = Some(last);
        Ok(())
    }

    /// From now on nothing leaves, and no call is this process's.
    pub(crate) fn end(&self) {
        self.state().is_over = true;
    }

    /// Lets the others go on at once with what this process owned.
    pub(crate) async fn give_up(&self) {
        let Some(me) = &self.me else { return };
        match timeout(GIVE_UP_MAX, self.store.give_up_replica(me)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), "the lease could not be given up: it ends by itself");
            }
            Err(_) => tracing::warn!("the lease could not be given up in time: it ends by itself"),
        }
    }
}

/// Whether who has `all` (the one in use first) can read what the other one makes.
fn knows(all: &str, other: &str) -> bool {
    let in_use = other.split(',').next().unwrap_or_default();
    all.split(',').any(|one| one == in_use)
}

/// What operators call this machine.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_may_be_changed_while_replicas_run() {
        // A new key is first one that all can read with, and then the one in use.
        for (first, second, fits) in [
            ("a", "a", true),
            ("a,b", "a", true),
            ("b,a", "a,b", true),
            ("b,a", "a", false),
            ("a", "b", false),
        ] {
            assert_eq!(knows(first, second) && knows(second, first), fits, "{first} {second}");
        }
    }
}
