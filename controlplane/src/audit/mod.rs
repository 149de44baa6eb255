//! The audit log's keeper: rows are sealed into a chain within a second, heads are signed and kept outside of the
//! database, and what is old is erased.
//!
//! ```text
//! a change ──▶ its row, unsealed ──▶ number and hash ──▶ head, signed ──▶ audit-heads.ndjson, log
//!  (one transaction)        (one leased sealer)      └──▶ 90 days ──▶ out of sight ──▶ checkpoint, signed ──▶ erased
//! ```
//!
//! One process at a time seals and erases, by a lease in the database. Killed anywhere, the next look goes on: rows are
//! sealed by one transaction, and erased with their checkpoint by one transaction. See docs/adr/0030.

pub mod actions;
pub(crate) mod denials;
mod heads;
mod metrics;
pub mod signing;

use std::{path::Path, sync::Arc, time::Duration};

use controlplane_core::audit::{Checkpoint, Head, Hex, Signed};
use controlplane_store::{
    Store, StoreError,
    audit::{ActorType, AuditErased, AuditLease, AuditOutcome, AuditSealed, EraseAudit, NewAuditRow},
    calls::Actor,
};
use rand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

pub(crate) use self::metrics::AuditMetrics;
use self::{
    denials::Denials,
    heads::Heads,
    signing::{KeyError, Signer},
};
use crate::{
    calls::chain,
    clock::{Chance, Clock},
    metrics::Metrics,
};

/// Between two looks for unsealed rows that nobody nudged for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What comes within this time is sealed together: a row waits for half a second at most.
const GATHER: Duration = Duration::from_millis(250);
/// Rows that are sealed in one transaction: calls wait no longer than for that.
const SEAL_MAX: u16 = 250;
/// How long a process that stopped in the middle keeps others from going on.
const LEASE: time::Duration = time::Duration::seconds(10);
/// Between two looks for old rows.
const ERASE_EVERY: Duration = Duration::from_secs(10);
/// Rows may stay so long after they are out of sight: then all of them go at once, with one row that tells of it.
const ERASE_SLACK: time::Duration = time::Duration::hours(1);
/// Rows that are erased in one transaction.
const ERASE_MAX: u16 = 500;
/// Between two such transactions.
const ERASE_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at what operators are told.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How often refusals are written down.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Exports under way at a time.
const EXPORTS_MAX: usize = 4;

/// See the module.
pub struct Audit {
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Chance,
    metrics: Arc<Metrics>,
    signer: Signer,
    heads: Heads,
    owner: String,
    retention: time::Duration,
    /// Refusals, until they are written.
    pub(crate) denials: Denials,
    /// Places for exports.
    pub(crate) exports: Arc<Semaphore>,
}

impl Audit {
    /// Everything but its tasks, which [`Audit::keep`] starts.
    ///
    /// # Errors
    /// The key's file, named.
    pub fn open(
        data_dir: &Path,
        retention_days: u16,
        store: Arc<dyn Store>,
        clock: Clock,
        chance: Chance,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, KeyError> {
        let signer = Signer::open(data_dir)?;
        let owner = format!("{:016x}", chance.fork().random::<u64>());
        let retention = time::Duration::days(i64::from(retention_days));
        metrics.audit.retention.set(retention.whole_seconds());
        Ok(Arc::new(Self {
            store,
            clock,
            chance,
            metrics,
            signer,
            heads: Heads::new(data_dir),
            owner,
            retention,
            denials: Denials::default(),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
        }))
    }

    /// Rows of this moment and before are out of sight.
    pub(crate) fn horizon(&self) -> OffsetDateTime {
        self.clock.now() - self.retention
    }

    /// The key that heads and checkpoints are signed with.
    pub(crate) fn public_key(&self) -> Hex {
        self.signer.public()
    }

    /// What numbers are hashed with where they are told of.
    pub(crate) fn numbers_salt(&self) -> [u8; 32] {
        crate::privacy::salt(self.signer.secret())
    }

    /// Signs what an export leaves out because it is out of sight.
    pub(crate) fn sign(&self, statement: Checkpoint) -> Signed<Checkpoint> {
        self.signer.sign(statement)
    }

    /// The heads that were told, as lines of JSON; at most some 64 MiB.
    pub(crate) async fn heads(&self) -> std::io::Result<String> {
        let heads = self.heads.clone();
        spawn_blocking(move || heads.read()).await.map_err(std::io::Error::other)?
    }

    /// Starts sealing, erasing, counting, and writing refusals down.
    #[must_use]
    pub fn keep(self: &Arc<Self>) -> [AbortHandle; 4] {
        [
            tokio::spawn(Arc::clone(self).seal()).abort_handle(),
            tokio::spawn(Arc::clone(self).erase()).abort_handle(),
            tokio::spawn(Arc::clone(self).count()).abort_handle(),
            tokio::spawn(Arc::clone(self).tell_refusals()).abort_handle(),
        ]
    }

    /// Writes down and seals what waits, as far as the database takes it, and tells the last head.
    pub async fn close(&self) {
        self.tell().await;
        if let Err(error) = self.seal_all().await {
            tracing::warn!(error = %chain(&error), "audit rows wait unsealed for the next start");
        }
        let heads = self.heads.clone();
        let _ = spawn_blocking(move || heads.close()).await;
    }

    fn lease(&self) -> AuditLease {
        let at = self.clock.now();
        AuditLease { owner: self.owner.clone(), at, until: at + LEASE }
    }

    async fn seal(self: Arc<Self>) {
        self.compare().await;
        let mut written = self.store.written();
        loop {
            match self.seal_all().await {
                Ok(()) => {
                    // An error means that the store is gone, and this task soon too.
                    let _ = timeout(LOOK_EVERY, written.changed()).await;
                    sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "audit rows could not be sealed, trying again");
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// At start: whether the database is behind what was told of it outside.
    async fn compare(&self) {
        let heads = self.heads.clone();
        let told = spawn_blocking(move || heads.last()).await.ok().flatten();
        let (Some(told), Ok((seq, _))) = (told, self.store.audit_head().await) else { return };
        if told.statement.seq > seq {
            tracing::error!(
                rows = seq,
                told = told.statement.seq,
                "the audit log is shorter than the head that was signed: it was cut, or the database is a restored \
                 backup. `ringward audit verify` tells more; see docs/runbooks/audit.md"
            );
        }
    }

    async fn seal_all(&self) -> Result<(), StoreError> {
        while self.store.is_audit_unsealed().await? {
            let lease = self.lease();
            let at = lease.at;
            match self.store.seal_audit(lease, SEAL_MAX).await? {
                AuditSealed::NotLeader => return Ok(()),
                AuditSealed::Done { rows: 0, .. } => return Ok(()),
                AuditSealed::Done { rows, seq, hash } => {
                    self.metrics.audit.sealed.inc_by(rows);
                    let at_us = i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
                    let head = self.signer.sign(Head { seq, hash, at_us });
                    let heads = self.heads.clone();
                    let told = spawn_blocking(move || heads.tell(&head)).await;
                    if let Err(error) = told.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                        self.metrics.audit.head_failures.inc();
                        tracing::error!(%error, "the audit log's head could not be written outside of the database");
                    }
                }
            }
        }
        Ok(())
    }

    async fn erase(self: Arc<Self>) {
        let mut every = interval(ERASE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = self.erase_all().await {
                tracing::error!(error = %chain(&error), "old audit rows could not be erased, trying again");
            }
        }
    }

    async fn erase_all(&self) -> Result<(), StoreError> {
        let before = self.horizon();
        let counts = self.store.audit_counts(before).await?;
        if counts.oldest.is_none_or(|oldest| oldest > before - ERASE_SLACK) {
            return Ok(());
        }
        let mut erased = 0;
        loop {
            let runs = self.store.audit_runs(before, 0, ERASE_MAX).await?;
            if runs.is_empty() {
                break;
            }
            for run in runs {
                match self.erase_run(run, before).await? {
                    AuditErased::NotLeader => return Ok(()),
                    AuditErased::Done(rows) => erased += rows,
                }
            }
            sleep(ERASE_PAUSE).await;
        }
        if erased == 0 {
            return Ok(());
        }
        self.metrics.audit.erased.inc_by(erased);
        tracing::info!(rows = erased, "audit rows were erased by age");
        let changes = json!({"rows": erased, "retention_days": self.retention.whole_days()});
        let row = self.row("audit.erase", "audit_log", controlplane_core::audit::CHAIN.to_owned(), changes);
        self.store.record_audit(vec![row]).await
    }

    /// A row of the system's own.
    pub(crate) fn row(
        &self,
        action: &str,
        target_type: &str,
        target_id: String,
        changes: Value,
    ) -> NewAuditRow {
        let at = self.clock.now();
        NewAuditRow {
            id: self.chance.audit_id(at),
            org: None,
            at,
            actor_type: ActorType::System,
            actor: Actor::default(),
            action: action.to_owned(),
            target_type: target_type.to_owned(),
            target_id,
            outcome: AuditOutcome::Success,
            reason: None,
            changes,
        }
    }

    /// Puts what the system itself did on its way into the log; written within a second.
    pub(crate) fn keep_rows(&self, rows: Vec<NewAuditRow>) {
        self.denials.keep(rows);
    }

    async fn erase_run(&self, run: Checkpoint, before: OffsetDateTime) -> Result<AuditErased, StoreError> {
        let (from_seq, to_seq) = (run.from_seq, run.to_seq);
        // What another key signed is not said again with this one.
        let known = self.store.audit_checkpoints().await?;
        let own: Vec<_> = known
            .into_iter()
            .filter(|known| self.signer.is_own(known))
            .map(|known| known.statement)
            .collect();
        let (joined, replaces) = run.joined(&own);
        let checkpoint = self.signer.sign(joined);
        self.store
            .erase_audit(self.lease(), EraseAudit { from_seq, to_seq, before, checkpoint, replaces })
            .await
    }

    async fn count(self: Arc<Self>) {
        let mut every = interval(COUNT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            match self.store.audit_counts(self.horizon()).await {
                Ok(counts) => self.metrics.audit.counts(&counts, self.clock.now()),
                Err(error) => tracing::warn!(error = %chain(&error), "audit rows could not be counted"),
            }
        }
    }

    async fn tell_refusals(self: Arc<Self>) {
        let mut every = interval(TELL_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.tell().await;
        }
    }

    /// Writes refusals down.
    async fn tell(&self) {
        let now = self.clock.now();
        let rows = self.denials.due(now, || self.chance.audit_id(now));
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_audit(rows.clone()).await {
            tracing::error!(error = %chain(&error), "refusals are not in the audit log yet, trying again");
            self.denials.keep(rows);
        }
    }
}
