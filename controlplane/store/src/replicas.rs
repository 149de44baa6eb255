//! Replicas: several control planes on one database, and which of them drives a call.
//!
//! A replica lives while it renews its lease; what one that does not live owned may be claimed by any other. Times are the
//! database's own, so that clocks of replicas have no part in it. Who was frozen beyond its lease and wakes finds its calls
//! claimed, and its late writes refused: each claim grows the call's epoch, under which every write of its task is made.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use controlplane_core::ids::{CallId, OrgId, ReplicaId};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{StoreError, calls::Call};

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
    /// Lets a replica live on for its lease, and lead where nobody does. `Some`: it leads, in this epoch.
    async fn renew_replica(&self, renewal: Renewal) -> Result<Option<i64>, StoreError>;
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
