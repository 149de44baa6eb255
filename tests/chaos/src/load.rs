//! The calls of a run. Each has a number of its own, so that what rings is known to belong to it.
use std::time::Duration;

use controlplane_core::call::OnUnknown;
use lab::numbers;
use rand::{Rng as _, rngs::StdRng};

/// Most calls of a run: the plan of numbers tells so many apart.
pub const CALLS_MAX: usize = 10_000;
/// Share of calls that are canceled.
const CANCELED: f64 = 0.05;

/// What a carrier does with a call's number while nothing else is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Rings and answers.
    Answers,
    /// Rings, answers, and the callee presses 1 after 3 s, which acknowledges.
    Presses,
    /// Rings, answers, and the callee presses nothing, though he is asked to.
    SaysNothing,
    /// Rings, answers, and the callee hangs up.
    HangsUp,
    /// Rings and is not picked up.
    RingsOut,
    /// Rings, and the callee declines.
    Declines,
    /// Busy.
    Busy,
    /// The carrier has no capacity.
    Refused,
}

impl Kind {
    const ALL: [(Kind, u32); 8] = [
        (Kind::Answers, 20),
        (Kind::Presses, 20),
        (Kind::SaysNothing, 5),
        (Kind::HangsUp, 5),
        (Kind::RingsOut, 20),
        (Kind::Declines, 10),
        (Kind::Busy, 15),
        (Kind::Refused, 5),
    ];

    fn behaviour(self) -> u16 {
        match self {
            Kind::Answers => numbers::ANSWER,
            Kind::Presses => numbers::PRESS,
            Kind::SaysNothing => numbers::MUTE,
            Kind::HangsUp => numbers::ANSWER_AND_HANG_UP,
            Kind::RingsOut => numbers::RING,
            Kind::Declines => numbers::RING_THEN_486,
            Kind::Busy => numbers::BUSY,
            Kind::Refused => numbers::UNAVAILABLE,
        }
    }

    /// Whether it rings wherever a carrier takes it.
    #[must_use]
    pub fn rings(self) -> bool {
        match self {
            Kind::Answers
            | Kind::Presses
            | Kind::SaysNothing
            | Kind::HangsUp
            | Kind::RingsOut
            | Kind::Declines => true,
            Kind::Busy | Kind::Refused => false,
        }
    }

    /// Whether its callee is asked to press a key.
    #[must_use]
    pub fn is_to_press(self) -> bool {
        matches!(self, Kind::Presses | Kind::SaysNothing)
    }
}

/// A call to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its own number.
    pub number: String,
    /// What its number means.
    pub kind: Kind,
    /// The customer's choice.
    pub on_unknown: OnUnknown,
    /// Seconds that it may ring.
    pub ring_timeout_s: u32,
    /// The customer changes his mind, so long after it was accepted.
    pub canceled_after: Option<Duration>,
}

/// The calls of a run, in the order of their asking.
#[must_use]
pub fn plan(calls: usize, chance: &mut StdRng) -> Vec<Wanted> {
    let sum: u32 = Kind::ALL.iter().map(|(_, weight)| weight).sum();
    let pick = |mut at: u32| {
        let found = Kind::ALL.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        found.map_or(Kind::Answers, |(kind, _)| *kind)
    };
    let call = |n: usize| {
        let kind = pick(chance.random_range(0..sum));
        Wanted {
            number: numbers::number(kind.behaviour(), u16::try_from(n % CALLS_MAX).unwrap_or(0)),
            kind,
            on_unknown: if chance.random_bool(0.5) { OnUnknown::Retry } else { OnUnknown::Fail },
            ring_timeout_s: chance.random_range(3..=6),
            canceled_after: chance
                .random_bool(CANCELED)
                .then(|| Duration::from_millis(chance.random_range(0..3_000))),
        }
    };
    (0..calls).map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn a_seed_plans_the_same_calls_and_each_has_its_own_number() {
        let of = |seed| plan(2_000, &mut StdRng::seed_from_u64(seed));
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let numbers: HashSet<_> = of(7).into_iter().map(|call| call.number).collect();
        assert_eq!(numbers.len(), 2_000);
        let kinds: BTreeSet<_> = of(7).into_iter().map(|call| call.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }
}
