//! Replicas: several control planes on one database, and which of them drives a call.
//!
//! A replica lives while it renews its lease; what one that does not live owned may be claimed by any other. Times are the
//! database's own, so that clocks of replicas have no part in it. Who was frozen beyond its lease and wakes finds its calls
//! claimed, and its late writes refused: each claim grows the call's epoch, under which every write of its task is made.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use controlplane_core::{
    ids::{AttemptId, CallId, OrgId, ReplicaId},
    names::CarrierName,
};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    StoreError,
    audit::NewAuditRow,
    calls::{Account, Call},
};

/// A sign of life.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Whose.
    pub replica: ReplicaId,
    /// What operators call it: its host.
    pub name: String,
    /// Of each secret that replicas share, by the name of its file, what tells it from another one.
    pub secrets: BTreeMap<String, String>,
    /// How long it lives by this.
    pub lease: Duration,
}

/// What a sign of life brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// It leads, in this epoch.
    pub leads: Option<i64>,
    /// When it was written, by the database's clock.
    pub at: OffsetDateTime,
}

/// One run of a control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Its id.
    pub id: ReplicaId,
    /// What operators call it.
    pub name: String,
    /// As in [`Renewal::secrets`].
    pub secrets: BTreeMap<String, String>,
    /// Its first sign of life.
    pub started_at: OffsetDateTime,
    /// Whether its lease holds.
    pub is_living: bool,
    /// Whether it leads.
    pub leads: bool,
    /// What is left of its lease, in milliseconds; below zero: it ended so long ago.
    pub lease_left_ms: i64,
    /// Open calls that it owns.
    pub calls: u64,
}

/// An open call that a replica owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Which call.
    pub call: CallId,
    /// Whose.
    pub org: OrgId,
    /// Under which claim.
    pub epoch: i64,
}

/// What came of asking for a place on an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// It is held.
    Yes,
    /// All that the account may have is used.
    Full {
        /// Until a start is free; `None`: until something ends.
        wait: Option<Duration>,
        /// How long ago the account's starts of the last second left, the newest first; zero: they have not yet.
        ago: Vec<Duration>,
    },
}

/// What one replica has seen of trunks within a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Grows: a reader goes on after the last one that it has read.
    pub id: i64,
    /// How long ago it was told, by the database's clock.
    pub age: Duration,
    /// What was seen.
    pub seen: Value,
}

/// How often that was changed which every replica has in memory: another number, another state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingMarks {
    /// The declared fleet.
    pub fleet: i64,
    /// Operators' holds.
    pub holds: i64,
    /// Policies, limits and retentions.
    pub rules: i64,
}

/// Replicas, and what they own.
#[async_trait]
pub trait ReplicaStore {
    /// Which replica this store writes for; `None`: it has the database to itself.
    fn replica(&self) -> Option<&ReplicaId>;
    /// Lets a replica live on for its lease, and lead where nobody does.
    async fn renew_replica(&self, renewal: Renewal) -> Result<Renewed, StoreError>;
    /// Ends a replica's lease at once, and its leading.
    async fn give_up_replica(&self, replica: &ReplicaId) -> Result<(), StoreError>;
    /// Replicas that live, or have left open calls, or died within a day; oldest first.
    async fn replicas(&self) -> Result<Vec<Replica>, StoreError>;
    /// Claims open calls that no living replica owns, oldest first, at most so many. One that cannot be read is claimed,
    /// logged and left out.
    async fn claim_calls(&self, replica: &ReplicaId, limit: u16) -> Result<Vec<Call>, StoreError>;
    /// Every open call that a replica owns.
    async fn owned_calls(&self, replica: &ReplicaId) -> Result<Vec<Owned>, StoreError>;
    /// Those of them that shall end.
    async fn wished_ends(&self, replica: &ReplicaId) -> Result<Vec<CallId>, StoreError>;
    /// How often settings were changed.
    async fn setting_marks(&self) -> Result<SettingMarks, StoreError>;
    /// Takes a place on a carrier's account for what is no call, a canary, as [`crate::CallStore::begin_attempt`] does for a call's
    /// attempt. It is given back with [`ReplicaStore::free_account`]; what a replica that is dead for a minute held is free.
    async fn hold_account(
        &self,
        attempt: &AttemptId,
        carrier: &CarrierName,
        account: Account,
    ) -> Result<Held, StoreError>;
    /// Gives it back. Twice does no harm.
    async fn free_account(&self, attempt: &AttemptId) -> Result<(), StoreError>;
    /// Writes an audit row, if there is one, unless `what` was told within this time, by whichever replica. `true`: it is told
    /// now, and whoever asked is to tell of it elsewhere.
    async fn tell_once(
        &self,
        what: &str,
        within: Duration,
        row: Option<NewAuditRow>,
    ) -> Result<bool, StoreError>;
    /// Tells the others what this store's replica has seen.
    async fn tell_sighting(&self, seen: Value) -> Result<(), StoreError>;
    /// What others have told after this one, oldest first; after `None` nothing but where to go on from. Never what
    /// this store's replica told.
    async fn sightings(&self, after: Option<i64>) -> Result<(i64, Vec<Sighting>), StoreError>;
    /// Tells all replicas to look now: something was written that concerns another one. Only a nudge: what is not told is
    /// found by the next look.
    async fn nudge(&self);
    /// Changes when somebody was told so.
    fn nudges(&self) -> watch::Receiver<u64>;
}
