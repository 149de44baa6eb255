//! Rows of health's tables, as both databases give them. One that cannot be read is logged and left out: a
//! machine without its snapshot starts anew, and the others must not.

use std::collections::BTreeMap;

use controlplane_core::names::InvalidName;
use sqlx::FromRow;

use crate::{
    columns::Micros,
    health::{Hold, HoldTarget, SaveHealth, StoredHealth},
};

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("the snapshot is no JSON: {0}")]
    Snapshot(#[from] serde_json::Error),
    #[error("{0:?} is neither a trunk nor a node")]
    Kind(String),
}

fn target(kind: String, name: &str) -> Result<HoldTarget, Unreadable> {
    match kind.as_str() {
        "trunk" => Ok(HoldTarget::Trunk(name.parse()?)),
        "node" => Ok(HoldTarget::Node(name.parse()?)),
        _ => Err(Unreadable::Kind(kind)),
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct HealthRow {
    kind: String,
    name: String,
    snapshot: String,
}

pub(crate) fn health(rows: Vec<HealthRow>) -> StoredHealth {
    let mut health = StoredHealth::default();
    for HealthRow { kind, name, snapshot } in rows {
        let read = target(kind, &name).and_then(|target| Ok((target, serde_json::from_str(&snapshot)?)));
        match read {
            Ok((HoldTarget::Trunk(trunk), snapshot)) => health.trunks.push((trunk, snapshot)),
            Ok((HoldTarget::Node(node), snapshot)) => health.nodes.push((node, snapshot)),
            Err(error) => tracing::error!(name, %error, "this health is passed over: its row cannot be read"),
        }
    }
    health
}

/// Kind, name and document of each machine that is saved, once: the last one counts.
pub(crate) fn machines(save: &SaveHealth) -> Vec<(&'static str, &str, String)> {
    let trunks = save.trunks.iter().map(|(name, snapshot)| (("trunk", name.as_str()), snapshot));
    let nodes = save.nodes.iter().map(|(name, snapshot)| (("node", name.as_str()), snapshot));
    let machines: BTreeMap<_, _> = trunks.chain(nodes).collect();
    machines.into_iter().map(|((kind, name), snapshot)| (kind, name, snapshot.to_string())).collect()
}

#[derive(Debug, FromRow)]
pub(crate) struct HoldRow {
    kind: String,
    name: String,
    since: Micros,
    reason: Option<String>,
}

pub(crate) fn holds(rows: Vec<HoldRow>) -> Vec<Hold> {
    let read = |HoldRow { kind, name, since, reason }| match target(kind, &name) {
        Ok(target) => Some(Hold { target, since: since.0, reason }),
        Err(error) => {
            tracing::error!(name, %error, "this hold is passed over: its row cannot be read");
            None
        }
    };
    rows.into_iter().filter_map(read).collect()
}
