//! Which trunk is tried now, and why the others were passed over.
//!
//! The route with the longest prefix of the number has tiers of trunks. Of the trunks that are ready and
//! that this call has not tried, one is chosen by, in this order (the fields of `Rank`):
//!
//! 1. one that is not held to be broken: those are tried in panic alone, after everything in every tier;
//! 2. a node that this call has not tried: a PBX that failed a call comes after every other PBX of every
//!    tier;
//! 3. a carrier that this call has not tried: tiers are about money, and a call that has failed once is not;
//! 4. the higher tier. A call does not wait for a limit of a higher tier when a lower one is ready;
//! 5. one that works, before one that works less well or of which nothing is known;
//! 6. a region that this call has not tried;
//! 7. among equals, smooth weighted round robin: as nginx does it, so that a trunk of weight 3 beside one
//!    of weight 1 is chosen as A A B A and not A A A B.
//!
//! A trunk that was tried is never chosen again in the same call. Nothing here waits: when no trunk is
//! ready, the decision says until when it is worth waiting.

mod availability;
mod robin;

use std::time::Instant;

pub use self::availability::{
    Availability, Choice, Considered, Decision, Outranked, PassedOver, Tried, Verdict,
};
use self::robin::Robin;
use crate::{
    fleet::{Fleet, Route, Trunk},
    health::Standing,
    number::E164,
};

/// Chooses trunks and remembers whose turn it is. One per control plane.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    robin: Robin,
}

impl Selector {
    /// A selector with nobody's turn passed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides, and passes the turn on. `availability` is asked once for each trunk that was not tried.
    pub fn choose(
        &mut self,
        fleet: &Fleet,
        to: &E164,
        tried: &Tried,
        availability: impl FnMut(&Trunk) -> Availability,
    ) -> Decision {
        let Some(route) = fleet.route_for(to) else { return Decision::no_route() };
        let (decision, equals) = self.decide(fleet, route, tried, availability);
        if let (Choice::Trunk(chosen), Some(first)) = (&decision.choice, equals.first()) {
            self.robin.pass_turn(fleet, route, first.rank.tier, equals.iter().map(|c| c.trunk), chosen);
        }
        decision
    }

    /// What [`Selector::choose`] would decide now; nothing changes.
    pub fn explain(
        &self,
        fleet: &Fleet,
        to: &E164,
        tried: &Tried,
        availability: impl FnMut(&Trunk) -> Availability,
    ) -> Decision {
        match fleet.route_for(to) {
            Some(route) => self.decide(fleet, route, tried, availability).0,
            None => Decision::no_route(),
        }
    }

    /// The decision, and the candidates among which it was a matter of turn.
    fn decide<'f>(
        &self,
        fleet: &'f Fleet,
        route: &'f Route,
        tried: &Tried,
        mut availability: impl FnMut(&Trunk) -> Availability,
    ) -> (Decision, Vec<Candidate<'f>>) {
        let mut considered = Vec::new();
        let mut ready = Vec::new();
        for (tier, trunk) in trunks(fleet, route) {
            let verdict = if tried.has(trunk) {
                Verdict::PassedOver(PassedOver::Tried)
            } else {
                match availability(trunk) {
                    Availability::Ready(standing) => {
                        ready.push(Candidate {
                            place: considered.len(),
                            rank: Rank::of(fleet, trunk, standing, tier, tried),
                            trunk,
                        });
                        // Until it is known who is chosen.
                        Verdict::Outranked(Outranked::Turn)
                    }
                    Availability::Later { until, why } => Verdict::Later { until, why },
                    Availability::Unusable(why) => Verdict::PassedOver(why),
                }
            };
            considered.push(Considered { tier, trunk: trunk.name.clone(), verdict });
        }
        let best = ready.iter().map(|c| c.rank).min();
        let equals: Vec<_> = ready.iter().filter(|c| Some(c.rank) == best).copied().collect();
        let choice = match self.robin.next(route, &equals) {
            None => without_ready(&considered),
            Some(chosen) => {
                for c in &ready {
                    considered[c.place].verdict = if c.place == chosen.place {
                        Verdict::Chosen
                    } else {
                        Verdict::Outranked(c.rank.behind(chosen.rank))
                    };
                }
                Choice::Trunk(chosen.trunk.name.clone())
            }
        };
        (Decision { choice, route: Some(route.prefix.clone()), considered }, equals)
    }
}

/// The trunks of a route with their tiers. (A stored fleet can name trunks that it lacks: these are not there.)
fn trunks<'f>(fleet: &'f Fleet, route: &'f Route) -> impl Iterator<Item = (usize, &'f Trunk)> {
    let names = route.tiers.iter().enumerate().flat_map(|(tier, names)| names.iter().map(move |n| (tier, n)));
    names.filter_map(|(tier, name)| Some((tier, fleet.trunk(name)?)))
}

/// What to do when no trunk is ready.
fn without_ready(considered: &[Considered]) -> Choice {
    let mut waits = false;
    let mut first: Option<Instant> = None;
    let mut for_good = true;
    for c in considered {
        match &c.verdict {
            Verdict::Later { until, why: _ } => {
                waits = true;
                first = [first, *until].into_iter().flatten().min();
            }
            Verdict::PassedOver(why) => for_good &= why.holds_for_the_call(),
            Verdict::Chosen | Verdict::Outranked(_) => {}
        }
    }
    match (waits, for_good) {
        (true, _) => Choice::Wait { until: first },
        (false, true) => Choice::NothingLeft,
        (false, false) => Choice::NothingUsable,
    }
}

/// A trunk that is ready.
#[derive(Debug, Clone, Copy)]
struct Candidate<'f> {
    /// Its place among the considered.
    place: usize,
    rank: Rank,
    trunk: &'f Trunk,
}

/// The policy: of two candidates the lesser is tried. The order of the fields is the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    last_resort: bool,
    same_node: bool,
    same_carrier: bool,
    tier: usize,
    reserve: bool,
    same_region: bool,
}

impl Rank {
    fn of(fleet: &Fleet, trunk: &Trunk, standing: Standing, tier: usize, tried: &Tried) -> Self {
        Self {
            last_resort: standing == Standing::LastResort,
            same_node: tried.has_node(&trunk.node),
            same_carrier: tried.has_carrier(&trunk.carrier),
            tier,
            reserve: standing == Standing::Reserve,
            same_region: fleet.node(&trunk.node).is_some_and(|n| tried.has_region(&n.region)),
        }
    }

    /// By which rule this one came behind the chosen one.
    fn behind(self, chosen: Self) -> Outranked {
        if self.last_resort != chosen.last_resort {
            Outranked::LastResort
        } else if self.same_node != chosen.same_node {
            Outranked::SameNode
        } else if self.same_carrier != chosen.same_carrier {
            Outranked::SameCarrier
        } else if self.tier != chosen.tier {
            Outranked::LowerTier
        } else if self.reserve != chosen.reserve {
            Outranked::Reserve
        } else if self.same_region != chosen.same_region {
            Outranked::SameRegion
        } else {
            Outranked::Turn
        }
    }
}

#[cfg(test)]
mod tests;
