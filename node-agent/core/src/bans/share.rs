//! What others are told: differences by revision, everything only to those who ask too late.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Ban, Bans, Change, Refusal, book::lasts_as_long, counted};
use crate::moment::UnixMs;

/// What changed up to `revision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Difference {
    /// Since the revision that was asked for. What ended by time is not told: all know when.
    Since {
        /// To ask with next time.
        revision: u64,
        /// Made or made longer, after the lifts.
        bans: Vec<Ban>,
        /// Lifted.
        lifts: Vec<IpNet>,
    },
    /// Everything: what is not in it is lifted.
    Full {
        /// To ask with next time.
        revision: u64,
        /// All of them.
        bans: Vec<Ban>,
    },
}

/// What came of taking a difference in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// For the kernel's sets.
    pub change: Change,
    /// What this node refuses; to be reported.
    pub refused: Vec<Refusal>,
}

impl Bans {
    /// The count of changes.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What changed since somebody was at `revision`. Everything, if lifts since then are no longer known or
    /// that revision is none of ours.
    #[must_use]
    pub fn since(&self, revision: u64) -> Difference {
        let of_now = self.revision;
        if revision < self.lifts_known_from || revision > of_now {
            return Difference::Full { revision: of_now, bans: self.all().cloned().collect() };
        }
        let newer = revision.saturating_add(1)..;
        let bans = self.by_revision.range(newer.clone()).filter_map(|(_, net)| self.get(net).cloned());
        // Lifted and banned again: both are told, since the new ban may be the shorter one.
        let lifts = self.lifts.range(newer).map(|(_, net)| *net);
        Difference::Since { revision: of_now, bans: bans.collect(), lifts: lifts.collect() }
    }

    /// Takes in what others have. Each ban goes through this node's own checks. Of a full list, what this node
    /// made itself stays although it is not in it: the others may not have heard of it yet.
    pub fn merge(&mut self, difference: Difference, now: UnixMs) -> Merged {
        let mut merged = Merged::default();
        let (bans, lifts) = match difference {
            Difference::Since { bans, lifts, .. } => (bans, lifts),
            Difference::Full { bans, .. } => {
                let listed: BTreeMap<_, _> = bans.iter().map(|ban| (counted(ban.net), ban.ends)).collect();
                let others = self.all().filter(|ban| ban.by.origin != self.node);
                let is_over =
                    |ban: &&Ban| listed.get(&ban.net).is_none_or(|ends| !lasts_as_long(*ends, ban.ends));
                let lifts = others.filter(is_over).map(|ban| ban.net).collect();
                (bans, lifts)
            }
        };
        for net in lifts.into_iter().map(counted) {
            if self.take(net).is_some() {
                merged.change.lifts.push(net);
            }
        }
        for ban in bans.into_iter().filter(|ban| ban.ends.is_none_or(|ends| ends > now)) {
            match self.put(Ban { net: counted(ban.net), by: ban.by.tidy(), ..ban }) {
                Ok(change) => merged.change.join(change),
                // Here a wider ban does the same.
                Err(Refusal::Covered { .. }) => {}
                Err(refused) => merged.refused.push(refused),
            }
        }
        merged
    }
}
