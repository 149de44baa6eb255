//! The calls of a run. Each has a number of its own, so that what rings is known to belong to it.
use std::time::Duration;

use controlplane_core::{
    call::OnUnknown,
    request::{Redial, RedialOn},
};
use lab::numbers;
use rand::{Rng as _, rngs::StdRng};

/// Most calls of a run: the plan of numbers tells so many apart.
pub const CALLS_MAX: usize = numbers::CALLS_MAX as usize;
/// Share of calls that are canceled.
const CANCELED: f64 = 0.05;
/// Longest time until a call is canceled, in ms; of one that may be dialled again, so that it is met in any round and
/// between two.
const CANCELED_WITHIN_MS: u64 = 3_000;
const REDIAL_CANCELED_WITHIN_MS: u64 = 12_000;
/// Share of calls whose customer asks for redials.
const REDIALLED: f64 = 0.3;
/// The words of it that carriers of the lab bring about.
const REDIAL_ON: [RedialOn; 4] =
    [RedialOn::NoAnswer, RedialOn::Busy, RedialOn::AnsweredNoAck, RedialOn::Interrupted];
/// Most rounds after the first, and their delay: the least that the API takes, and little more.
const REDIAL_MAX: std::ops::RangeInclusive<u8> = 1..=2;
const REDIAL_DELAY_S: std::ops::RangeInclusive<u16> = 1..=3;
/// Share of calls with redials that have more of them than their deadline leaves room for.
const HURRIED: f64 = 0.1;
/// Redials of such a call.
const HURRIED_REDIAL: (u8, u16) = (10, 3);
/// From its asking to its deadline: longer than the control plane is ever away, shorter than ten delays.
const HURRIED_S: std::ops::RangeInclusive<u64> = 20..=28;

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
    /// When the callee is to be dialled again.
    pub redial: Option<Redial>,
    /// The call's deadline, so long after it is first asked for.
    pub deadline_after: Option<Duration>,
}

impl Wanted {
    /// One that nobody cancels, hurries or wants dialled again.
    #[must_use]
    pub fn plain(n: u32, kind: Kind, on_unknown: OnUnknown, ring_timeout_s: u32) -> Self {
        Wanted {
            number: numbers::number_of_many(kind.behaviour(), n),
            kind,
            on_unknown,
            ring_timeout_s,
            canceled_after: None,
            redial: None,
            deadline_after: None,
        }
    }
}

/// After what, how often and how soon a callee is dialled again.
fn redial(chance: &mut StdRng) -> Redial {
    let first = REDIAL_ON[chance.random_range(0..REDIAL_ON.len())];
    let more = REDIAL_ON.into_iter().filter(|_| chance.random_bool(0.5));
    let on = more.chain([first]).collect();
    Redial { on, max: chance.random_range(REDIAL_MAX), delay_s: chance.random_range(REDIAL_DELAY_S) }
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
        let n = u32::try_from(n % CALLS_MAX).unwrap_or(0);
        let on_unknown = if chance.random_bool(0.5) { OnUnknown::Retry } else { OnUnknown::Fail };
        let mut wanted = Wanted::plain(n, kind, on_unknown, chance.random_range(3..=6));
        wanted.redial = chance.random_bool(REDIALLED).then(|| redial(chance));
        if let Some(redial) = wanted.redial.as_mut().filter(|_| chance.random_bool(HURRIED)) {
            (redial.max, redial.delay_s) = HURRIED_REDIAL;
            wanted.deadline_after = Some(Duration::from_secs(chance.random_range(HURRIED_S)));
        }
        let within = if wanted.redial.is_some() { REDIAL_CANCELED_WITHIN_MS } else { CANCELED_WITHIN_MS };
        let canceled = chance.random_bool(CANCELED);
        wanted.canceled_after = canceled.then(|| Duration::from_millis(chance.random_range(0..within)));
        wanted
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

    #[test]
    fn each_word_of_redial_is_asked_for_and_some_calls_are_in_a_hurry_or_canceled() {
        let calls = plan(2_000, &mut StdRng::seed_from_u64(4));
        let redials: Vec<_> = calls.iter().filter_map(|call| call.redial.as_ref()).collect();
        let words: BTreeSet<_> = redials.iter().flat_map(|redial| redial.on.clone()).collect();
        assert_eq!(words, REDIAL_ON.into_iter().collect());
        assert!((400..800).contains(&redials.len()), "{}", redials.len());
        assert!(redials.iter().all(|redial| !redial.on.is_empty() && redial.delay_s >= 1));
        let hurried = calls.iter().filter(|call| call.deadline_after.is_some());
        assert!((20..150).contains(&hurried.clone().count()), "{}", hurried.clone().count());
        assert!(hurried.clone().all(|call| call.redial.is_some()));
        assert!(calls.iter().any(|call| call.canceled_after.is_some() && call.redial.is_some()));
    }
}
