//! What operators allow customers, what customers have used of it, and what was refused.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, KeyId, OrgId};
use controlplane_core::{guard::Rule, number::E164};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Whose rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An organisation's.
    Org(OrgId),
    /// One key's.
    Key(KeyId),
}

impl Subject {
    /// As in the column `subject`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Org(org) => org.as_str(),
            Self::Key(key) => key.as_str(),
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Org(_) => "org",
            Self::Key(_) => "key",
        }
    }
}

/// What is ruled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// What may be phoned.
    Policy,
    /// How much.
    Limits,
    /// How long what is of it is kept.
    Retention,
}

impl RuleKind {
    /// As in the column `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Limits => "limits",
            Self::Retention => "retention",
        }
    }

    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::Policy => "policy.set",
            Self::Limits => "limits.set",
            Self::Retention => "retention.set",
        }
    }
}

/// Rules to be put in force.
#[derive(Debug, Clone)]
pub struct SetRules {
    /// Whose.
    pub subject: Subject,
    /// Of what.
    pub kind: RuleKind,
    /// All of them; what it lacks is not in force any more.
    pub document: serde_json::Value,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// Rules as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRules {
    /// An organisation's id or a key's.
    pub subject: String,
    /// `policy`, `limits` or `retention`.
    pub kind: String,
    /// As they were set.
    pub document: serde_json::Value,
}

/// A call that was refused by a rule, for the audit log.
#[derive(Debug, Clone)]
pub struct DeniedCall {
    /// Whose.
    pub org: OrgId,
    /// Whom it was to phone.
    pub to: E164,
    /// Which rule.
    pub rule: Rule,
    /// Where it was taken to lead, in words.
    pub destination: String,
    /// Now.
    pub at: OffsetDateTime,
    /// Who asked.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What an organisation has used on one day.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DayUsage {
    /// The day, counted from 1970-01-01 in UTC.
    pub day: i64,
    /// Calls accepted.
    pub calls: i64,
    /// Attempts begun.
    pub attempts: i64,
    /// From answers to ends, in µs, by the day of the end.
    pub talk_us: i64,
}

/// What is in use now, beside the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct InUse {
    /// Calls of the organisation that are open.
    pub open: i64,
    /// Calls of the organisation that were accepted on the day.
    pub org_today: i64,
    /// Calls of the key that were accepted on the day.
    pub key_today: i64,
}

/// The day of a moment, counted from 1970-01-01 in UTC.
#[must_use]
pub const fn day_of(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(86_400)
}

/// Rules for customers, and what they have used.
#[async_trait]
pub trait GuardStore {
    /// All rules of all.
    async fn rules(&self) -> Result<Vec<StoredRules>, StoreError>;
    /// Puts rules in force, with an audit row. `false`: there is no such organisation or key.
    async fn set_rules(&self, set: SetRules) -> Result<bool, StoreError>;
    /// Writes down that a call was refused.
    async fn deny_call(&self, denied: DeniedCall) -> Result<(), StoreError>;
    /// What an organisation has used, by day, oldest first; days without anything are left out.
    async fn usage(&self, org: &OrgId, from: i64, to: i64) -> Result<Vec<DayUsage>, StoreError>;
    /// What an organisation and a key have in use on a day.
    async fn in_use(&self, org: &OrgId, key: Option<&KeyId>, day: i64) -> Result<InUse, StoreError>;
}
