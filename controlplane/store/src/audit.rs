//! The audit log: rows that commit with their change, sealed into a chain soon after, out of sight and erased when old.

use async_trait::async_trait;
use controlplane_core::{
    audit::{Checkpoint, Hash, Link, Record, Signed},
    ids::{AuditId, KeyId, OrgId},
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor, error::Failure};

/// Who did it, where no key tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorType {
    /// At the customers' door.
    Customer,
    /// At the operators' door.
    Operator,
    /// At the agents' door.
    Agent,
    /// The control plane itself.
    System,
}

impl ActorType {
    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Operator => "operator",
            Self::Agent => "agent",
            Self::System => "system",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOutcome {
    /// It was done.
    Success,
    /// It was refused.
    Denied,
    /// It should have been done and was not.
    Failure,
}

impl AuditOutcome {
    /// As it is stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failure => "failure",
        }
    }
}

/// A row of its own: of something that changed nothing else in the database.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAuditRow {
    /// Its id.
    pub id: AuditId,
    /// Whose; `None`: that of the actor's key, or the fleet's own.
    pub org: Option<OrgId>,
    /// When.
    pub at: OffsetDateTime,
    /// Who did it, where `actor` has no key.
    pub actor_type: ActorType,
    /// Who did it.
    pub actor: Actor,
    /// What was to be done.
    pub action: String,
    /// What kind of thing it was to be done to.
    pub target_type: String,
    /// Which one.
    pub target_id: String,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// Why.
    pub reason: Option<String>,
    /// More about it, redacted.
    pub changes: Value,
}

/// One row, as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// When.
    pub occurred_at: OffsetDateTime,
    /// Whose; `None` for the fleet's own.
    pub org: Option<OrgId>,
    /// By whom.
    pub actor: Actor,
    /// `call.create`, `fleet.apply`, `key.create`, …
    pub action: String,
    /// `success`, `denied` or `failure`.
    pub outcome: String,
    /// What changed, redacted.
    pub changes: Value,
    /// All of it, as its hash covers it.
    pub record: Record,
    /// Its place in the chain, once it is sealed.
    pub link: Option<Link>,
}

/// Which rows are asked for. Everything that is `None` lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// One organisation's.
    pub org: Option<OrgId>,
    /// Later than this.
    pub after: Option<OffsetDateTime>,
    /// Not later than this.
    pub until: Option<OffsetDateTime>,
    /// Of this key or node.
    pub actor: Option<String>,
    /// This action, or with a `*` at the end all that begin so.
    pub action: Option<String>,
    /// To this.
    pub target: Option<String>,
    /// `success`, `denied` or `failure`.
    pub outcome: Option<String>,
}

impl AuditFilter {
    /// The action as a pattern of LIKE.
    pub(crate) fn action_like(&self) -> Option<String> {
        let action = self.action.as_deref()?;
        let (text, tail) = action.strip_suffix('*').map_or((action, ""), |text| (text, "%"));
        let mut pattern = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        Some(pattern + tail)
    }
}

/// Who works on the chain, and for how long nobody else may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLease {
    /// A process's own word.
    pub owner: String,
    /// Now.
    pub at: OffsetDateTime,
    /// Until then, renewed with each work.
    pub until: OffsetDateTime,
}

/// What one sealing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditSealed {
    /// Another process has the lease: nothing was written.
    NotLeader,
    /// The chain's end by now.
    Done {
        /// Rows that were sealed.
        rows: u64,
        /// The last row's number.
        seq: i64,
        /// Its hash.
        hash: Hash,
    },
}

/// What one erasing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditErased {
    /// Another process has the lease: nothing was written.
    NotLeader,
    /// So many rows.
    Done(u64),
}

/// Rows to be erased: what is signed by now, and what it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseAudit {
    /// The first of these rows.
    pub from_seq: i64,
    /// The last.
    pub to_seq: i64,
    /// All of them are older.
    pub before: OffsetDateTime,
    /// Tells of them, and maybe of rows that were erased before.
    pub checkpoint: Signed<Checkpoint>,
    /// Checkpoints, by their first row, that it replaces.
    pub replaces: Vec<i64>,
}

/// What operators are told of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// When the oldest row in the table was written.
    pub oldest: Option<OffsetDateTime>,
    /// When the oldest row that can be seen was written.
    pub oldest_visible: Option<OffsetDateTime>,
    /// Rows that wait for their number, counted up to 10,000.
    pub unsealed: i64,
    /// When rows were sealed last.
    pub sealed_at: Option<OffsetDateTime>,
}

/// The audit log.
#[async_trait]
pub trait AuditStore {
    /// Writes rows that belong to no other change.
    async fn record_audit(&self, rows: Vec<NewAuditRow>) -> Result<(), StoreError>;
    /// Whether a row waits for its number.
    async fn is_audit_unsealed(&self) -> Result<bool, StoreError>;
    /// Numbers and chains at most `limit` rows.
    async fn seal_audit(&self, lease: AuditLease, limit: u16) -> Result<AuditSealed, StoreError>;
    /// The chain's end: its last number and hash.
    async fn audit_head(&self) -> Result<(i64, Hash), StoreError>;
    /// Rows, newest first; behind the row `cursor` if one is given. Nothing is behind a row that is erased.
    async fn audit_rows(
        &self,
        filter: &AuditFilter,
        cursor: Option<&AuditId>,
        limit: u16,
    ) -> Result<Vec<AuditRow>, StoreError>;
    /// Sealed rows in the order of the chain, behind a number.
    async fn audit_chain(
        &self,
        filter: &AuditFilter,
        after_seq: i64,
        limit: u16,
    ) -> Result<Vec<AuditRow>, StoreError>;
    /// Of the sealed rows behind a number that are not later than `before`, the first at most `limit`, as runs without
    /// gaps.
    async fn audit_runs(
        &self,
        before: OffsetDateTime,
        after_seq: i64,
        limit: u16,
    ) -> Result<Vec<Checkpoint>, StoreError>;
    /// What of the past is erased.
    async fn audit_checkpoints(&self) -> Result<Vec<Signed<Checkpoint>>, StoreError>;
    /// Erases rows and keeps their checkpoint, in one transaction.
    async fn erase_audit(&self, lease: AuditLease, erase: EraseAudit) -> Result<AuditErased, StoreError>;
    /// Figures; `after` is since when rows can be seen.
    async fn audit_counts(&self, after: OffsetDateTime) -> Result<AuditCounts, StoreError>;
    /// Every row, newest first.
    async fn audit(&self, limit: u16) -> Result<Vec<AuditRow>, StoreError> {
        self.audit_rows(&AuditFilter::default(), None, limit).await
    }
}

/// How an actor has proved who it is.
pub(crate) fn auth_method(actor: &Actor, action: &str) -> Option<&'static str> {
    if actor.key.is_some() {
        Some("api_key")
    } else if actor.node.is_some() {
        Some(if action == "node.join" { "token" } else { "certificate" })
    } else {
        // Without a key, a request changes something by a bootstrap token alone.
        actor.request.as_ref().filter(|_| action == "key.create").map(|_| "token")
    }
}

/// Who it is where no key tells.
pub(crate) fn actor_type(actor: &Actor) -> ActorType {
    match (&actor.node, &actor.request) {
        (Some(_), _) => ActorType::Agent,
        (None, Some(_)) => ActorType::Operator,
        (None, None) => ActorType::System,
    }
}

/// The key's id, or the node's name.
pub(crate) fn actor_id(actor: &Actor) -> Option<&str> {
    actor.key.as_ref().map(KeyId::as_str).or(actor.node.as_ref().map(|node| node.as_str()))
}

/// A checkpoint tells of all of its rows: where others are there than were looked at, nothing is erased.
pub(crate) fn told(erase: &EraseAudit, erased: u64) -> Result<AuditErased, Failure> {
    let of_run = erase.to_seq - erase.from_seq + 1;
    if i64::try_from(erased).is_ok_and(|erased| erased == of_run) {
        return Ok(AuditErased::Done(erased));
    }
    Err(Failure::Unexpected(format!("{erased} of {of_run} audit rows to be erased were there")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_a_pattern_of_nothing_but_its_own_star() {
        let like = |action: &str| {
            AuditFilter { action: Some(action.to_owned()), ..AuditFilter::default() }.action_like().unwrap()
        };
        assert_eq!(like("key.create"), "key.create");
        assert_eq!(like("webhook_endpoint.*"), "webhook\\_endpoint.%");
        assert_eq!(like("%"), "\\%");
    }
}
