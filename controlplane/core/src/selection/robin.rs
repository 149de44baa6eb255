//! Smooth weighted round robin: whose turn it is, per tier of each route.
//!
//! nginx's algorithm (`ngx_http_upstream_get_peer`): at each choice every candidate's credit grows by its
//! weight, the one with most credit is chosen and pays the sum of the weights. Over a cycle each gets
//! exactly its share, spread out. Only candidates of the moment earn, so that a trunk that comes back after
//! an outage is owed nothing and is not flooded.

use std::collections::{BTreeMap, HashMap};

use super::Candidate;
use crate::{
    fleet::{Fleet, Route, RoutePrefix, Trunk},
    names::TrunkName,
};

/// Credits of the trunks of each tier.
#[derive(Debug, Clone, Default)]
pub(super) struct Robin {
    routes: BTreeMap<RoutePrefix, Vec<HashMap<TrunkName, i64>>>,
}

impl Robin {
    fn credit(&self, route: &Route, tier: usize, trunk: &TrunkName) -> i64 {
        let tiers = self.routes.get(&route.prefix);
        tiers.and_then(|t| t.get(tier)?.get(trunk)).copied().unwrap_or(0)
    }

    /// Whose turn it is among candidates of one tier; the first of equals in the route's order.
    pub(super) fn next<'c, 'f>(
        &self,
        route: &Route,
        equals: &'c [Candidate<'f>],
    ) -> Option<&'c Candidate<'f>> {
        let credit =
            |c: &Candidate<'_>| self.credit(route, c.rank.tier, &c.trunk.name) + i64::from(c.trunk.weight);
        // `max_by_key` gives the last of equals.
        equals.iter().rev().max_by_key(|c| credit(c))
    }

    /// `chosen` had its turn among `candidates`.
    pub(super) fn pass_turn<'f>(
        &mut self,
        fleet: &Fleet,
        route: &Route,
        tier: usize,
        candidates: impl Iterator<Item = &'f Trunk>,
        chosen: &TrunkName,
    ) {
        let tiers = self.routes.entry(route.prefix.clone()).or_default();
        if tiers.len() <= tier {
            tiers.resize_with(tier + 1, HashMap::new);
        }
        let Some(credits) = tiers.get_mut(tier) else { return };
        let mut sum = 0;
        for trunk in candidates {
            sum += i64::from(trunk.weight);
            *credits.entry(trunk.name.clone()).or_default() += i64::from(trunk.weight);
        }
        if let Some(credit) = credits.get_mut(chosen) {
            *credit -= sum;
        }
        self.forget_vanished(fleet, route, tier);
    }

    /// Drops what the fleet no longer has. The sizes tell: what vanished makes them exceed the fleet's as
    /// soon as something new has its turn, so the maps never outgrow the fleet.
    fn forget_vanished(&mut self, fleet: &Fleet, route: &Route, tier: usize) {
        if let (Some(tiers), Some(names)) = (self.routes.get_mut(&route.prefix), route.tiers.get(tier)) {
            tiers.truncate(route.tiers.len());
            if let Some(credits) = tiers.get_mut(tier).filter(|c| c.len() > names.len()) {
                credits.retain(|name, _| names.contains(name));
            }
        }
        if self.routes.len() > fleet.routes().len() {
            self.routes.retain(|prefix, _| fleet.routes().any(|r| r.prefix == *prefix));
        }
    }

    /// Credits kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.routes.values().flatten().map(HashMap::len).sum()
    }
}
