//! The fleet's bans and allowances: who is banned on every node, who never is, and which node refuses what.
//!
//! Every change of the list gets the next revision, in the order of commits. Who holds the list up to a revision asks
//! for what is newer ([`BanStore::ban_changes`]).

use async_trait::async_trait;
use controlplane_core::{ids::AuditId, names::NodeName};
use ipnet::IpNet;
use time::OffsetDateTime;

use crate::{StoreError, agents::AgentFact, calls::Actor};

/// Bans of the fleet at a time, as many as a node can hold.
pub const BANS_MAX: u64 = 200_000;
/// Bans at a time that one node has made: no node fills the list of all.
pub const BANS_OF_NODE_MAX: u64 = 50_000;
/// Allowances at a time.
pub const ALLOWS_MAX: u64 = 10_000;
/// Refusals that are kept of one node; further ones are in its facts alone.
pub const REFUSALS_OF_NODE_MAX: u64 = 1_000;

/// Which list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListKind {
    /// Banned on every node that does not refuse it.
    Ban,
    /// Never banned.
    Allow,
}

impl ListKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ban, Self::Allow];

    /// As it is written in the database, in answers and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Allow => "allow",
        }
    }

    /// Most entries at a time.
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            Self::Ban => BANS_MAX,
            Self::Allow => ALLOWS_MAX,
        }
    }
}

/// An entry that is wanted. Texts are bounded by whoever made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The network, without bits behind its prefix.
    pub net: IpNet,
    /// The node that saw the evidence, or `control_plane`.
    pub origin: String,
    /// A jail, or an operator.
    pub author: String,
    /// Why, for people.
    pub reason: String,
    /// The jail, where rules made it.
    pub jail: Option<String>,
    /// What was seen.
    pub evidence: Option<String>,
    /// The list that it was imported from.
    pub source: Option<String>,
    /// Until when; `None`: until it is lifted.
    pub expires_at: Option<OffsetDateTime>,
}

/// An entry as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of which list.
    pub kind: ListKind,
    /// What it says.
    pub entry: NewEntry,
    /// Since when.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub changed_at: OffsetDateTime,
    /// When it was lifted.
    pub lifted_at: Option<OffsetDateTime>,
    /// Of its last change. Also the list's cursor.
    pub revision: i64,
    /// Of its last lift.
    pub lift_revision: Option<i64>,
}

impl Entry {
    /// Whether it holds at `at`.
    #[must_use]
    pub fn holds(&self, at: OffsetDateTime) -> bool {
        self.lifted_at.is_none() && self.entry.expires_at.is_none_or(|end| end > at)
    }
}

/// Entries to be made, or made longer.
#[derive(Debug, Clone)]
pub struct PutEntries {
    /// Of which list.
    pub kind: ListKind,
    /// All of them or none.
    pub entries: Vec<NewEntry>,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What came of [`BanStore::put_entries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Done.
    Done {
        /// Entries that are new or longer; the others held for as long already.
        changed: u64,
        /// Bans that a new allowance touches, and lifted.
        lifted: u64,
    },
    /// There would be too many: nothing was written.
    Full,
}

/// An entry to be lifted.
#[derive(Debug, Clone)]
pub struct LiftEntry {
    /// Of which list.
    pub kind: ListKind,
    /// Exactly this one.
    pub net: IpNet,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub reason: Option<String>,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What a node did with bans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BanReport {
    /// It banned.
    Made(NewEntry),
    /// An operator lifted a ban on it: in the fleet too, where the node made it.
    Lifted(IpNet),
    /// It does not take a ban of the fleet.
    Refused {
        /// The ban's.
        net: IpNet,
        /// Why not.
        reason: String,
    },
}

/// A fact about bans.
#[derive(Debug, Clone)]
pub struct BanFact {
    /// As any fact.
    pub fact: AgentFact,
    /// What it means; `None`: nothing that the fleet shall follow.
    pub report: Option<BanReport>,
}

/// What came of [`BanStore::take_ban_facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Facts that were new.
    pub new: u64,
    /// Entries that changed.
    pub changed: u64,
    /// Bans that found no place.
    pub full: u64,
}

/// What changed since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Which list.
    pub list: String,
    /// The revision of the last change of all.
    pub head: i64,
    /// Lifts up to this revision are forgotten: who holds less needs the whole list.
    pub lifts_known_from: i64,
    /// The first of them, by revision.
    pub entries: Vec<Entry>,
}

/// A page of a list, newest change first.
#[derive(Debug, Clone, Default)]
pub struct EntryPage {
    /// Only those whose origin is this.
    pub origin: Option<String>,
    /// Only those that came from this source.
    pub source: Option<String>,
    /// Only those whose revision is lower.
    pub before: Option<i64>,
    /// Most entries.
    pub limit: u16,
}

/// A refusal as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRefusal {
    /// Who refuses.
    pub node: NodeName,
    /// Which ban.
    pub net: IpNet,
    /// Why.
    pub reason: String,
    /// Since when.
    pub refused_at: OffsetDateTime,
}

/// The fleet's bans and allowances.
#[async_trait]
pub trait BanStore {
    /// Makes entries, or makes those that hold shorter ones longer, with one audit row. A new allowance lifts the bans
    /// that touch it.
    async fn put_entries(&self, put: PutEntries) -> Result<Put, StoreError>;
    /// Lifts an entry, with its audit row. `false`: there is none that holds, and nothing was written.
    async fn lift_entry(&self, lift: LiftEntry) -> Result<bool, StoreError>;
    /// Keeps a node's facts about bans and does what they mean, each once however often it comes; with one audit row
    /// for all that changed.
    async fn take_ban_facts(
        &self,
        node: &NodeName,
        facts: Vec<BanFact>,
        received_at: OffsetDateTime,
        audit_id: AuditId,
    ) -> Result<Taken, StoreError>;
    /// What is newer than a revision, by revision: also what was lifted, and what has ended and is not pruned yet.
    async fn ban_changes(&self, after: i64, limit: u16) -> Result<Changes, StoreError>;
    /// The revision of the last change.
    async fn ban_revision(&self) -> Result<i64, StoreError>;
    /// Entries that hold.
    async fn entries(
        &self,
        kind: ListKind,
        page: EntryPage,
        at: OffsetDateTime,
    ) -> Result<Vec<Entry>, StoreError>;
    /// The entries of exactly these networks that hold, of both lists.
    async fn entries_of(&self, nets: &[IpNet], at: OffsetDateTime) -> Result<Vec<Entry>, StoreError>;
    /// The networks of a list that hold, in no order.
    async fn entry_nets(&self, kind: ListKind, at: OffsetDateTime) -> Result<Vec<IpNet>, StoreError>;
    /// How many entries hold, by origin.
    async fn entry_counts(&self, at: OffsetDateTime) -> Result<Vec<(ListKind, String, u64)>, StoreError>;
    /// Who refuses bans, the latest first: of one of these networks, or of all.
    async fn ban_refusals(&self, nets: Option<&[IpNet]>, limit: u16) -> Result<Vec<KeptRefusal>, StoreError>;
    /// Forgets entries that ended before `at`, lifts from before `lifted_before`, and refusals of what does not hold any
    /// more. How many rows.
    async fn prune_bans(&self, at: OffsetDateTime, lifted_before: OffsetDateTime) -> Result<u64, StoreError>;
}
