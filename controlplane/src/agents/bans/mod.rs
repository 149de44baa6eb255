//! The fleet's bans: operators' orders and nodes' own bans into one list, and from there to every linked node.
//!
//! ```text
//! operators ──▶ guard ──▶ store (next revision) ──▶ feed of each link ──▶ node: checks again, answers what it holds
//! nodes' facts ─▶ guard ──▶   ▲                          │
//!                             └──── BanRefused ◀─────────┘
//! ```
//!
//! `guard` refuses what may never be banned; `intake` reads nodes' facts; `feed` tells one node what changed. The list
//! is in the database alone: a change by another replica is seen by its revision, which is looked at every
//! [`LOOK_EVERY`].

mod feed;
mod guard;
mod intake;
mod metrics;

use std::{net::IpAddr, sync::Arc, time::Duration};

use controlplane_core::{fleet::Fleet, ids::AuditId};
use controlplane_store::{
    Store, StoreError,
    bans::{LiftEntry, ListKind, NewEntry, Put, PutEntries},
    calls::Actor,
};
use ipnet::IpNet;
use node_agent_core::{
    bans::{Refusal, Widths},
    protected::{Group, Protected, Protection},
};
use node_agent_protocol::PlaneUrl;
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

pub use self::metrics::BanMetrics;
pub(super) use self::{feed::feed, intake::is_about_bans};
use super::links::Links;
use crate::clock::{Chance, Clock};

/// The origin of what operators order. No node can have this name.
pub const CONTROL_PLANE: &str = "control_plane";
/// Between two looks at the revision, for changes by other replicas.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two times that gauges are read and what is over is pruned, in looks.
const COUNT_EVERY: u32 = 20;
/// Lifts are known for so long: who was cut off for longer gets the whole list.
const LIFTS_KEPT: time::Duration = time::Duration::days(7);
/// Entries of one transaction: others write in between.
const ENTRIES_AT_ONCE: usize = 2_000;

/// Who ordered it, when, and how it goes into the audit log.
#[derive(Debug, Clone)]
pub struct Order {
    /// The operator.
    pub actor: Actor,
    /// Now.
    pub at: OffsetDateTime,
}

/// See the module.
pub struct Bans {
    store: Arc<dyn Store>,
    links: Arc<Links>,
    /// Replicas that are given by address.
    replicas: Vec<IpAddr>,
    widths: Widths,
    revision: watch::Sender<i64>,
    metrics: BanMetrics,
    clock: Clock,
    chance: Chance,
}

impl Bans {
    pub(super) fn new(
        store: Arc<dyn Store>,
        links: Arc<Links>,
        urls: &[PlaneUrl],
        clock: Clock,
        chance: Chance,
    ) -> Self {
        let replicas = urls.iter().filter_map(|url| url.host().parse().ok()).collect();
        let (widths, revision) = (Widths::default(), watch::Sender::new(0));
        let metrics = BanMetrics::default();
        Self { store, links, replicas, widths, revision, metrics, clock, chance }
    }

    /// What Prometheus learns of them.
    pub(crate) fn metrics(&self) -> &BanMetrics {
        &self.metrics
    }

    /// Replicas that are given by address, as networks.
    pub(super) fn replicas(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.replicas.iter().map(|address| IpNet::from(address.to_canonical()))
    }

    /// Who is never banned anywhere, whoever asks. What operators allow comes on top.
    #[must_use]
    pub fn protected(&self) -> Protected {
        let declared = self.links.declared().borrow().clone();
        let fleet: &Fleet = &declared.fleet;
        let carriers = fleet.carriers().flat_map(|carrier| carrier.signalling.iter().chain(&carrier.media));
        let carriers = carriers.map(|net| Protection { net: *net, group: Group::Carrier });
        let management = fleet.managements().flat_map(|of| &of.networks);
        let management = management.map(|net| Protection { net: *net, group: Group::Management });
        let replicas = self.replicas().map(|net| Protection { net, group: Group::ControlPlane });
        Protected::new(carriers.chain(management).chain(replicas))
    }

    /// What may be banned of these, as it is counted, and why not the others.
    ///
    /// # Errors
    /// [`StoreError`]: allowances cannot be read.
    pub async fn admit(&self, nets: &[IpNet]) -> Result<Vec<Result<IpNet, Refusal>>, StoreError> {
        let allowed = self.store.entry_nets(ListKind::Allow, self.clock.now()).await?;
        let protected = self.protected();
        let guard = guard::Guard { widths: self.widths, protected: &protected, allowed: &allowed };
        Ok(nets.iter().map(|net| guard.admit(*net)).collect())
    }

    /// Makes entries; every one was admitted. What was written stays if a later part fails.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(
        &self,
        kind: ListKind,
        entries: Vec<NewEntry>,
        order: &Order,
    ) -> Result<Put, StoreError> {
        let (mut changed, mut lifted) = (0, 0);
        for part in entries.chunks(ENTRIES_AT_ONCE) {
            let put = PutEntries {
                kind,
                entries: part.to_vec(),
                at: order.at,
                actor: order.actor.clone(),
                audit_id: self.audit_id(),
            };
            let done = self.store.put_entries(put).await?;
            self.look().await;
            match done {
                Put::Full => return Ok(Put::Full),
                Put::Done { changed: of_part, lifted: by_part } => {
                    changed += of_part;
                    lifted += by_part;
                }
            }
        }
        Ok(Put::Done { changed, lifted })
    }

    /// Lifts an entry; `false`: there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lift(
        &self,
        kind: ListKind,
        net: IpNet,
        reason: Option<String>,
        order: &Order,
    ) -> Result<bool, StoreError> {
        let actor = order.actor.clone();
        let lift = LiftEntry { kind, net, at: order.at, reason, actor, audit_id: self.audit_id() };
        let lifted = self.store.lift_entry(lift).await?;
        self.look().await;
        Ok(lifted)
    }

    fn audit_id(&self) -> AuditId {
        self.chance.audit_id(self.clock.now())
    }

    /// Wakes the feeds if there is something new.
    async fn look(&self) {
        match self.store.ban_revision().await {
            Ok(now) => {
                self.revision.send_if_modified(|known| std::mem::replace(known, now) != now);
            }
            Err(error) => {
                tracing::warn!(error = %crate::calls::chain(&error), "the bans' revision could not be read");
            }
        }
    }

    /// Looks for changes by other replicas, and after what is over, for as long as the program runs.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        loop {
            tick.tick().await;
            self.look().await;
            if ticks.is_multiple_of(COUNT_EVERY)
                && let Err(error) = self.count().await
            {
                tracing::warn!(error = %crate::calls::chain(&error), "bans could not be looked after");
            }
            ticks = ticks.wrapping_add(1);
        }
    }

    async fn count(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.store.prune_bans(now, now - LIFTS_KEPT).await?;
        self.metrics.counted(&self.store.entry_counts(now).await?);
        Ok(())
    }
}
