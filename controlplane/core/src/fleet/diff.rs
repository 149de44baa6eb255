//! What one fleet changes in another.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Fleet, Noun};
use crate::call::{UnknownWord, words};

words! {
    /// What happens to an entry.
    ChangeKind {
        /// It is new.
        Added = "added",
        /// Some of its fields are others.
        Changed = "changed",
        /// It is gone.
        Removed = "removed",
    }
}

/// What happens to one entry of the fleet. Displays as one line: `~ trunk acme-waw-1: weight 1 → 2`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What happens.
    pub kind: ChangeKind,
    /// To which kind of entry.
    pub noun: Noun,
    /// The entry's name; a route's prefix.
    pub name: String,
    /// What is other, by field; empty unless changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

impl Change {
    /// Whether this takes something away: done by `apply --prune` alone.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        self.kind == ChangeKind::Removed
    }
}

/// One field that is other than before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name in the file.
    pub field: String,
    /// What it was; none where it was absent.
    pub from: Option<Value>,
    /// What it is; none where it is absent.
    pub to: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Added => '+',
            ChangeKind::Changed => '~',
            ChangeKind::Removed => '-',
        };
        write!(f, "{sign} {} {}", self.noun, self.name)?;
        for (at, field) in self.fields.iter().enumerate() {
            write!(f, "{} {field}", if at == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

/// `weight 1 → 2`
impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |v: &Option<Value>| v.as_ref().map_or("none".to_owned(), ToString::to_string);
        write!(f, "{} {} → {}", self.field, side(&self.from), side(&self.to))
    }
}

pub(super) fn diff(old: &Fleet, new: &Fleet) -> Vec<Change> {
    let mut changes = Vec::new();
    table(Noun::Carrier, &old.carriers, &new.carriers, &mut changes);
    table(Noun::Node, &old.nodes, &new.nodes, &mut changes);
    table(Noun::Trunk, &old.trunks, &new.trunks, &mut changes);
    table(Noun::Route, &old.routes, &new.routes, &mut changes);
    table(Noun::Management, &old.managements, &new.managements, &mut changes);
    changes.sort_by_key(Change::is_removal);
    changes
}

fn table<N: Ord + fmt::Display, T: Serialize + PartialEq>(
    noun: Noun,
    old: &BTreeMap<N, T>,
    new: &BTreeMap<N, T>,
    changes: &mut Vec<Change>,
) {
    let change = |kind, name: &N, fields| Change { kind, noun, name: name.to_string(), fields };
    for (name, entry) in new {
        match old.get(name) {
            None => changes.push(change(ChangeKind::Added, name, Vec::new())),
            Some(before) if before != entry => {
                changes.push(change(ChangeKind::Changed, name, fields(before, entry)));
            }
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|name| !new.contains_key(name));
    changes.extend(gone.map(|name| change(ChangeKind::Removed, name, Vec::new())));
}

fn fields<T: Serialize>(old: &T, new: &T) -> Vec<FieldChange> {
    // Every entry came from TOML, so it is written as TOML too.
    let written = |entry: &T| Table::try_from(entry).unwrap_or_default();
    let (mut old, new) = (written(old), written(new));
    let mut fields = Vec::new();
    for (field, to) in new {
        let from = old.remove(&field);
        if from.as_ref() != Some(&to) {
            fields.push(FieldChange { field, from, to: Some(to) });
        }
    }
    fields.extend(old.into_iter().map(|(field, from)| FieldChange { field, from: Some(from), to: None }));
    fields
}
