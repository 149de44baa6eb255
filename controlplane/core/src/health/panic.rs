//! Bounds on what evidence may take away: the largest ejected share, and panic.
//!
//! When calls fail everywhere at once, the likeliest culprit is what all calls share: a number, a network,
//! ourselves. So outcomes of calls may eject at most a share of the trunks; one that would be ejected beyond
//! it is degraded instead, and used after the others. And when too few of a route's trunks are left, the
//! route fails open: calls are still tried over trunks that are held to be broken, after all that work.
//! An alert that is tried in vain costs seconds; one that is not tried is lost.
//!
//! Never in panic: a trunk that an operator has disabled, on a node that is lost or draining.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Ejection, Policy, Standing, Withheld};
use crate::fleet::{Fleet, RoutePrefix};

/// Whether one more of `trunks` (those that no operator has disabled) may be ejected, where `ejected` are.
///
/// One may always be, in a fleet of two or of three as well: panic covers what that leaves.
#[must_use]
pub fn ejection(ejected: usize, trunks: usize, policy: &Policy) -> Ejection {
    if ejected < share(trunks, policy.ejected_max).max(1) { Ejection::Allowed } else { Ejection::CapReached }
}

/// A share of a number of trunks, rounded down.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a fleet has thousands of trunks; a negative share saturates to none"
)]
fn share(trunks: usize, share: f64) -> usize {
    (trunks as f64 * share) as usize
}

/// How many trunks of a route stand how, for one call or for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteCount {
    /// Usable.
    pub usable: usize,
    /// Withheld by evidence: panic may use them.
    pub withheld: usize,
}

impl RouteCount {
    /// Counts one trunk. Operators' wishes and lost nodes are no matter of panic.
    pub fn add(&mut self, standing: Result<Standing, Withheld>) {
        match standing {
            Ok(_) => self.usable += 1,
            Err(withheld) if withheld.why.yields_to_panic() => self.withheld += 1,
            Err(_) => {}
        }
    }

    /// Whether the route fails open.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a route has at most some hundred trunks")]
    pub fn fails_open(self, policy: &Policy) -> bool {
        let all = self.usable + self.withheld;
        self.withheld > 0 && (self.usable as f64) < all as f64 * policy.panic_below
    }
}

/// How a trunk stands when its route fails open.
///
/// # Errors
/// Why it is withheld even so.
pub const fn in_panic(standing: Result<Standing, Withheld>) -> Result<Standing, Withheld> {
    match standing {
        Err(withheld) if withheld.why.yields_to_panic() => Ok(Standing::LastResort),
        Ok(_) | Err(_) => standing,
    }
}

/// A route's panic began or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PanicChange {
    /// Too few of its trunks are usable: calls are tried over the rest as well.
    Began(RouteCount),
    /// Enough are again.
    Ended {
        /// How long it lasted.
        lasted: Duration,
    },
}

/// Which routes fail open, since when: for log, metrics and alarm.
#[derive(Debug, Clone, Default)]
pub struct Panics(BTreeMap<RoutePrefix, Instant>);

impl Panics {
    /// Looks at a route; says what changed.
    pub fn look(
        &mut self,
        now: Instant,
        route: &RoutePrefix,
        count: RouteCount,
        policy: &Policy,
    ) -> Option<PanicChange> {
        match (self.0.get(route).copied(), count.fails_open(policy)) {
            (None, true) => {
                self.0.insert(route.clone(), now);
                Some(PanicChange::Began(count))
            }
            (Some(since), false) => {
                self.0.remove(route);
                Some(PanicChange::Ended { lasted: now.saturating_duration_since(since) })
            }
            (None, false) | (Some(_), true) => None,
        }
    }

    /// Forgets routes that the fleet no longer has.
    pub fn sync(&mut self, fleet: &Fleet) {
        self.0.retain(|prefix, _| fleet.routes().any(|r| r.prefix == *prefix));
    }

    /// The routes that fail open, and since when.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&RoutePrefix, Instant)> {
        self.0.iter().map(|(prefix, since)| (prefix, *since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::Refusal;

    fn count(usable: usize, withheld: usize) -> bool {
        RouteCount { usable, withheld }.fails_open(&Policy::default())
    }

    #[test]
    fn fewer_than_half_of_a_route_is_panic() {
        assert!(count(0, 1) && count(0, 4) && count(1, 2));
        assert!(!count(1, 1) && !count(2, 2) && !count(1, 0));
        assert!(!count(0, 0), "no trunk that could be tried");
    }

    #[test]
    fn operators_wishes_and_lost_nodes_are_not_overridden() {
        for why in Refusal::ALL {
            let standing = Err(Withheld { why: *why, until: None });
            let never = matches!(why, Refusal::Disabled | Refusal::NodeLost | Refusal::NodeDraining);
            assert_eq!(in_panic(standing).is_err(), never, "{why}");
            let mut route = RouteCount::default();
            route.add(standing);
            assert_eq!(route.withheld == 0, never, "{why}");
        }
        assert_eq!(in_panic(Ok(Standing::Preferred)), Ok(Standing::Preferred));
    }

    #[test]
    fn panic_is_told_once_when_it_begins_and_once_when_it_ends() {
        #[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
        let now = Instant::now();
        let (p, route) = (&Policy::default(), "+".parse::<RoutePrefix>().unwrap());
        let mut panics = Panics::default();
        let (bad, good) = (RouteCount { usable: 0, withheld: 2 }, RouteCount { usable: 2, withheld: 0 });
        assert_eq!(panics.look(now, &route, good, p), None);
        assert_eq!(panics.look(now, &route, bad, p), Some(PanicChange::Began(bad)));
        assert_eq!(panics.look(now, &route, bad, p), None);
        assert_eq!(panics.iter().len(), 1);
        let later = now + Duration::from_secs(9);
        let ended = PanicChange::Ended { lasted: Duration::from_secs(9) };
        assert_eq!(panics.look(later, &route, good, p), Some(ended));
        panics.look(later, &route, bad, p);
        panics.sync(&Fleet::default());
        assert_eq!(panics.iter().len(), 0);
    }

    proptest! {
        #[test]
        fn the_cap_leaves_half_and_always_admits_one(trunks in 1usize..500) {
            let mut ejected = 0;
            while ejection(ejected, trunks, &Policy::default()) == Ejection::Allowed {
                ejected += 1;
            }
            prop_assert!(ejected == 1 || ejected * 2 <= trunks);
        }
    }
}
