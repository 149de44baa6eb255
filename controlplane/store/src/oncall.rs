//! Hooks, where customers' alerts come in, and incidents, which say who is phoned about them.

use async_trait::async_trait;
use controlplane_core::{
    access::Mode,
    ids::{AuditId, CallId, HookId, IncidentId, KeyId, OrgId},
    oncall::{Alert, IncidentStatus, escalation::Escalation, hook::HookSettings},
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor, webhooks::Change};

/// Most hooks of an organisation.
pub const HOOKS_MAX: u16 = 50;
/// Most incidents of an organisation that are not resolved.
pub const INCIDENTS_OPEN_MAX: u16 = 1_000;

/// Where alerts come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its id.
    pub id: HookId,
    /// Whose it is.
    pub org: OrgId,
    /// What it does.
    pub settings: HookSettings,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What alerts of one group have become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// Whose it is.
    pub org: OrgId,
    /// Where it came in; it may be gone.
    pub hook: HookId,
    /// Whether its calls are placed, or only rehearsed.
    pub mode: Mode,
    /// What its group is known by.
    pub key: String,
    /// The hook as it was when it began.
    pub plan: HookSettings,
    /// Who was phoned, and who is next.
    pub escalation: Escalation,
    /// Its alerts, of which the first are kept.
    pub alerts: Vec<Alert>,
    /// How many there were.
    pub alerts_seen: i64,
    /// Whose key told of it first.
    pub opened_by: Option<KeyId>,
    /// When.
    pub opened_at: OffsetDateTime,
    /// When somebody took note first.
    pub acknowledged_at: Option<OffsetDateTime>,
    /// Who: a call's id, or a key's.
    pub acknowledged_by: Option<String>,
    /// When nobody was left to phone.
    pub unanswered_at: Option<OffsetDateTime>,
    /// When it was over.
    pub resolved_at: Option<OffsetDateTime>,
    /// By whom: the hook's id, or a key's.
    pub resolved_by: Option<String>,
    /// Which one this is; the first is 1.
    pub version: i64,
}

impl Incident {
    /// Where it is.
    #[must_use]
    pub const fn status(&self) -> IncidentStatus {
        self.escalation.status
    }
}

/// A change of an incident: one transaction.
#[derive(Debug, Clone)]
pub struct SaveIncident {
    /// As it shall be. Its version is the one that was read.
    pub incident: Incident,
    /// This call is asked to end.
    pub cancel: Option<CallId>,
    /// What is told of it in the audit log, where it is more than a step on the way.
    pub told: Option<Told>,
    /// Now.
    pub at: OffsetDateTime,
}

/// An audit row.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its id.
    pub id: AuditId,
    /// Who.
    pub actor: Actor,
    /// What, as `incident.acknowledge`.
    pub action: &'static str,
    /// What changed.
    pub changes: Value,
}

/// What came of [`OnCallStore::open_incident`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Opened {
    /// It is there.
    Yes,
    /// Another one of the group is open. Nothing was written.
    Exists,
    /// The organisation has [`INCIDENTS_OPEN_MAX`]. Nothing was written.
    Full,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, Default)]
pub struct IncidentPage {
    /// Of one organisation; `None`: of all, for operators.
    pub org: Option<OrgId>,
    /// Of one hook.
    pub hook: Option<HookId>,
    /// Only these.
    pub status: Option<IncidentStatus>,
    /// Only those that are not resolved, or only those that are.
    pub open: Option<bool>,
    /// Only what is older than this id.
    pub starting_after: Option<IncidentId>,
    /// At most this many.
    pub limit: u16,
}

/// Hooks and incidents.
#[async_trait]
pub trait OnCallStore {
    /// A new hook with its audit row. `false`: the organisation has [`HOOKS_MAX`].
    async fn create_hook(&self, hook: Hook, change: Change) -> Result<bool, StoreError>;
    /// Hooks, oldest first, of one organisation.
    async fn hooks(&self, org: &OrgId) -> Result<Vec<Hook>, StoreError>;
    /// One of them.
    async fn hook(&self, org: &OrgId, id: &HookId) -> Result<Option<Hook>, StoreError>;
    /// Replaces what a hook does, with its audit row. Incidents under way go on as they began.
    async fn change_hook(
        &self,
        id: HookId,
        settings: HookSettings,
        change: Change,
    ) -> Result<Option<Hook>, StoreError>;
    /// Removes a hook and resolves what came in by it, with one audit row: the calls that are to be ended. `None`: there is
    /// no such hook.
    async fn delete_hook(&self, id: HookId, change: Change) -> Result<Option<Vec<CallId>>, StoreError>;
    /// A group's incident that is not resolved.
    async fn open_of_group(
        &self,
        hook: &HookId,
        mode: Mode,
        key: &str,
    ) -> Result<Option<Incident>, StoreError>;
    /// A new incident with its audit row.
    async fn open_incident(&self, incident: Incident, told: Told) -> Result<Opened, StoreError>;
    /// Writes an incident. `false`: it has changed since it was read, or is gone. Nothing was written.
    async fn save_incident(&self, save: SaveIncident) -> Result<bool, StoreError>;
    /// One incident; `org` is `None` for operators.
    async fn incident(&self, org: Option<&OrgId>, id: &IncidentId) -> Result<Option<Incident>, StoreError>;
    /// A part of a list, and whether more follow. A row that cannot be read is logged and passed over.
    async fn incidents(&self, page: IncidentPage) -> Result<(Vec<Incident>, bool), StoreError>;
    /// Incidents for which something is to be done: their time has come, or their call has ended. The longest due first. A
    /// row that cannot be read is logged and passed over.
    async fn due_incidents(&self, now: OffsetDateTime, limit: u16) -> Result<Vec<Incident>, StoreError>;
    /// Incidents that nobody has taken note of, of which a call that ended otherwise has had a key: heard late, behind a cut.
    /// What the key means is the call's to say. The oldest first; a row that cannot be read is logged and passed over.
    async fn heard_incidents(&self, limit: u16) -> Result<Vec<Incident>, StoreError>;
    /// Erases an organisation's incidents that were resolved at this moment or before. How many, at most `limit`.
    async fn erase_incidents(
        &self,
        org: &OrgId,
        resolved_by: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError>;
}
