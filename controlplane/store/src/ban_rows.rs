//! Rows of the bans' tables, as both databases give them, and what both adapters prepare alike.

use std::collections::HashMap;

use controlplane_core::names::NodeName;
use ipnet::IpNet;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::{
    bans::{Entry, KeptRefusal, ListKind, NewEntry, PutEntries},
    columns::{Micros, Word},
    rows::moment,
};

/// Networks that an audit row names; of more it tells the number.
const AUDITED_NETS: usize = 20;

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_entries {
    ($rest:literal) => {
        concat!(
            "SELECT kind, net, origin, author, reason, jail, evidence, source, created_at, changed_at, \
             expires_at, lifted_at, revision, lift_revision FROM ban_list ",
            $rest
        )
    };
}
pub(crate) use select_entries;

/// An entry is made anew where the old one is over, and otherwise only made longer.
macro_rules! or_longer {
    () => {
        " ON CONFLICT (kind, net) DO UPDATE SET
             origin = excluded.origin, author = excluded.author, reason = excluded.reason, jail = excluded.jail,
             evidence = excluded.evidence, source = excluded.source,
             created_at = CASE WHEN ban_list.lifted_at IS NOT NULL OR ban_list.expires_at <= excluded.changed_at
                 THEN excluded.created_at ELSE ban_list.created_at END,
             changed_at = excluded.changed_at, expires_at = excluded.expires_at, lifted_at = NULL,
             revision = excluded.revision
         WHERE ban_list.lifted_at IS NOT NULL OR (ban_list.expires_at IS NOT NULL AND (
             ban_list.expires_at <= excluded.changed_at OR excluded.expires_at IS NULL
             OR excluded.expires_at > ban_list.expires_at))"
    };
}
pub(crate) use or_longer;

#[derive(Debug, FromRow)]
pub(crate) struct EntryRow {
    kind: String,
    net: Word<IpNet>,
    origin: String,
    author: String,
    reason: String,
    jail: Option<String>,
    evidence: Option<String>,
    source: Option<String>,
    created_at: Micros,
    changed_at: Micros,
    expires_at: Option<Micros>,
    lifted_at: Option<Micros>,
    revision: i64,
    lift_revision: Option<i64>,
}

pub(crate) fn kind(word: &str) -> Result<ListKind, sqlx::Error> {
    let known = ListKind::ALL.into_iter().find(|kind| kind.as_str() == word);
    known.ok_or_else(|| sqlx::Error::Decode(format!("{word:?} is no kind of list").into()))
}

impl TryFrom<EntryRow> for Entry {
    type Error = sqlx::Error;

    fn try_from(row: EntryRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kind: kind(&row.kind)?,
            entry: NewEntry {
                net: row.net.0,
                origin: row.origin,
                author: row.author,
                reason: row.reason,
                jail: row.jail,
                evidence: row.evidence,
                source: row.source,
                expires_at: moment(row.expires_at),
            },
            created_at: row.created_at.0,
            changed_at: row.changed_at.0,
            lifted_at: moment(row.lifted_at),
            revision: row.revision,
            lift_revision: row.lift_revision,
        })
    }
}

pub(crate) fn entries(rows: Vec<EntryRow>) -> Result<Vec<Entry>, sqlx::Error> {
    rows.into_iter().map(Entry::try_from).collect()
}

#[derive(Debug, FromRow)]
pub(crate) struct HeadRow {
    pub(crate) list: String,
    pub(crate) revision: i64,
    pub(crate) lifts_known_from: i64,
}

#[derive(Debug, FromRow)]
pub(crate) struct RefusalRow {
    node: Word<NodeName>,
    net: Word<IpNet>,
    reason: String,
    refused_at: Micros,
}

impl From<RefusalRow> for KeptRefusal {
    fn from(row: RefusalRow) -> Self {
        Self { node: row.node.0, net: row.net.0, reason: row.reason, refused_at: row.refused_at.0 }
    }
}

/// Each network once: the entry that lasts longest, in the order of their first mention.
pub(crate) fn once_each(entries: &[NewEntry]) -> Vec<&NewEntry> {
    let mut at: HashMap<IpNet, usize> = HashMap::new();
    let mut kept: Vec<&NewEntry> = Vec::new();
    for entry in entries {
        match at.get(&entry.net).and_then(|at| kept.get_mut(*at)) {
            None => {
                at.insert(entry.net, kept.len());
                kept.push(entry);
            }
            Some(held) => {
                let is_longer = match (held.expires_at, entry.expires_at) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(old), Some(new)) => new > old,
                };
                if is_longer {
                    *held = entry;
                }
            }
        }
    }
    kept
}

/// What the audit row tells of them.
pub(crate) fn audited(put: &PutEntries, changed: u64, lifted: u64) -> Value {
    let first = put.entries.first();
    let nets: Vec<String> =
        put.entries.iter().take(AUDITED_NETS).map(|entry| entry.net.to_string()).collect();
    json!({
        "nets": nets, "count": put.entries.len(), "changed": changed, "bans_lifted": lifted,
        "reason": first.map(|entry| &entry.reason), "source": first.and_then(|entry| entry.source.as_ref()),
        "expires_at": first.and_then(|entry| entry.expires_at).map(time::OffsetDateTime::unix_timestamp),
    })
}

/// What the audit row tells of a node's own bans and lifts.
pub(crate) fn reported(bans: &[&NewEntry], lifts: &[IpNet], changed: u64) -> Value {
    let nets: Vec<String> = bans.iter().take(AUDITED_NETS).map(|entry| entry.net.to_string()).collect();
    let lifted: Vec<String> = lifts.iter().take(AUDITED_NETS).map(ToString::to_string).collect();
    json!({"nets": nets, "count": bans.len(), "lifted": lifted, "lifts": lifts.len(), "changed": changed})
}

/// The action and the target that the audit row names.
pub(crate) fn action(put: &PutEntries) -> (&'static str, String) {
    let one = match put.entries.as_slice() {
        [one] if one.source.is_none() => Some(one.net.to_string()),
        _ => None,
    };
    match (put.kind, one) {
        (ListKind::Ban, Some(net)) => ("ban.add", net),
        (ListKind::Ban, None) => {
            let source = put.entries.first().and_then(|entry| entry.source.clone());
            ("ban.import", source.unwrap_or_else(|| "list".to_owned()))
        }
        (ListKind::Allow, one) => ("allow.add", one.unwrap_or_else(|| "list".to_owned())),
    }
}

/// Whether two networks have an address in common.
pub(crate) fn touch(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
