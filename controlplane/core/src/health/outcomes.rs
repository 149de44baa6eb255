//! The latest outcomes of a trunk's calls, and what may be concluded from them.
//!
//! One rule against being misled: **the evidence must stand without its worst witness.** A conclusion
//! about the trunk is drawn only if it still follows when the destination with most failures is left out,
//! and, where there are several customers, when the customer with most failures is left out. So neither a
//! customer's barred numbers nor a list of dead ones nor one broken network behind the carrier takes a
//! trunk from the others, however many of the calls they make up.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Charge, Customers, Destination, Party, Policy, evidence::Tally, moment::Moment};
use crate::number::E164;

/// One call's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) at: Moment,
    pub(super) party: Party,
    pub(super) destination: Destination,
    pub(super) caller: Option<E164>,
    pub(super) charge: Charge,
}

/// The latest ones, oldest first; bounded by number and age.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Outcomes(VecDeque<Outcome>);

/// A side of the question: of these calls, so many went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    bad: usize,
    all: usize,
}

impl Count {
    #[allow(clippy::cast_precision_loss, reason = "a window has at most some hundred outcomes")]
    fn ratio(self) -> Option<f64> {
        (self.all > 0).then(|| self.bad as f64 / self.all as f64)
    }

    fn at_least(self, ratio: f64) -> bool {
        self.ratio().is_some_and(|r| r >= ratio)
    }
}

/// How an outcome enters a count: not at all, as a bad one or as a good one.
type Reading = fn(&Outcome) -> Option<bool>;

/// For tripping: the carrier's failures against what it delivered. What is about pace or about the number
/// says neither.
fn trunk_fails(outcome: &Outcome) -> Option<bool> {
    match outcome.charge {
        Charge::Success | Charge::Delivered => Some(false),
        Charge::Trunk | Charge::TrunkSilent => Some(true),
        Charge::DestinationOrCaller
        | Charge::None
        | Charge::TrunkAtOnce
        | Charge::Credentials
        | Charge::Pace
        | Charge::Rate
        | Charge::Node => None,
    }
}

/// As [`trunk_fails`], and refusals: believed only where several customers meet them.
fn trunk_refuses(outcome: &Outcome) -> Option<bool> {
    if outcome.charge == Charge::DestinationOrCaller { Some(true) } else { trunk_fails(outcome) }
}

/// Calls that the carrier did not carry as far as the callee.
fn ineffective(outcome: &Outcome) -> Option<bool> {
    match outcome.charge {
        Charge::Success | Charge::Delivered => Some(false),
        Charge::Trunk | Charge::TrunkSilent | Charge::DestinationOrCaller | Charge::Pace | Charge::Rate => {
            Some(true)
        }
        Charge::None | Charge::TrunkAtOnce | Charge::Credentials | Charge::Node => None,
    }
}

/// Customers' calls that nobody answered, of those that could be. (A canary as expected need not be answered.)
fn unanswered(outcome: &Outcome) -> Option<bool> {
    let bad = ineffective(outcome).filter(|_| outcome.party != Party::Canary)?;
    Some(bad || outcome.charge == Charge::Delivered)
}

impl Outcomes {
    pub(super) fn push(&mut self, outcome: Outcome, policy: &Policy) {
        self.forget_before(outcome.at, policy);
        if self.0.len() >= policy.outcomes_max {
            self.0.pop_front();
        }
        self.0.push_back(outcome);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn forget_before(&mut self, now: Moment, policy: &Policy) {
        while self.0.front().is_some_and(|o| now.since(o.at) >= policy.window) {
            self.0.pop_front();
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Outcome> {
        self.0.iter()
    }

    /// Whether the outcomes trip the trunk.
    pub(super) fn trip(&self, customers: Customers, policy: &Policy) -> Option<Tally> {
        self.fails(trunk_fails, customers, policy)
            .or_else(|| self.fails(trunk_refuses, Customers::Several, policy))
    }

    fn fails(&self, reading: Reading, customers: Customers, policy: &Policy) -> Option<Tally> {
        let tally = self.tally(reading);
        (tally.destinations >= policy.destinations_min
            && self.stands(reading, customers, 1, policy.trip_ratio))
        .then_some(tally)
    }

    /// Whether too few calls get through: below `enter` (`Some(true)`), or again at `leave` and above
    /// (`Some(false)`).
    pub(super) fn effectiveness_low(&self, customers: Customers, policy: &Policy) -> Option<bool> {
        let band = (policy.effectiveness_enter, policy.effectiveness_leave);
        self.low(ineffective, customers, band, policy.effectiveness_calls_min)
    }

    /// The same for calls answered.
    pub(super) fn asr_low(&self, customers: Customers, policy: &Policy) -> Option<bool> {
        self.low(unanswered, customers, (policy.asr_enter, policy.asr_leave), policy.asr_calls_min)
    }

    fn low(
        &self,
        reading: Reading,
        customers: Customers,
        (enter, leave): (f64, f64),
        calls_min: usize,
    ) -> Option<bool> {
        // Strictly below `enter`: a share of bad ones strictly above its complement.
        let bad_above = (1.0 - enter) + f64::EPSILON;
        let all = self.count(reading, |_| true);
        if all.all < calls_min {
            return None;
        }
        if self.stands(reading, customers, calls_min / 2, bad_above) {
            return Some(true);
        }
        (!all.at_least((1.0 - leave) + f64::EPSILON)).then_some(false)
    }

    /// Whether the share of bad ones reaches `ratio`, with all, without the worst destination and without
    /// the worst customer, each time with at least `rest_min` outcomes left.
    fn stands(&self, reading: Reading, customers: Customers, rest_min: usize, ratio: f64) -> bool {
        let holds = |count: Count| count.all >= rest_min.max(1) && count.at_least(ratio);
        holds(self.count(reading, |_| true))
            && self
                .worst(reading, |o| &o.destination)
                .is_some_and(|worst| holds(self.count(reading, |o| o.destination != *worst)))
            && match customers {
                Customers::One => true,
                Customers::Several => self
                    .worst(reading, |o| &o.party)
                    .is_some_and(|worst| holds(self.count(reading, |o| o.party != *worst))),
            }
    }

    fn count(&self, reading: Reading, among: impl Fn(&Outcome) -> bool) -> Count {
        let mut count = Count::default();
        for bad in self.0.iter().filter(|o| among(o)).filter_map(reading) {
            count.all += 1;
            count.bad += usize::from(bad);
        }
        count
    }

    /// Whose bad outcomes are the most.
    fn worst<'a, T: Eq>(&'a self, reading: Reading, key: impl Fn(&'a Outcome) -> &'a T) -> Option<&'a T> {
        let mut counts: Vec<(&T, usize)> = Vec::new();
        for outcome in self.0.iter().filter(|o| reading(o) == Some(true)) {
            let key = key(outcome);
            match counts.iter_mut().find(|(k, _)| *k == key) {
                Some((_, n)) => *n += 1,
                None => counts.push((key, 1)),
            }
        }
        counts.into_iter().max_by_key(|(_, n)| *n).map(|(key, _)| key)
    }

    fn tally(&self, reading: Reading) -> Tally {
        let count = self.count(reading, |_| true);
        let bad = || self.0.iter().filter(|o| reading(o) == Some(true));
        Tally {
            failed: count.bad,
            calls: count.all,
            destinations: distinct(bad().map(|o| &o.destination)),
            customers: distinct(bad().map(|o| &o.party)),
        }
    }

    /// What the outcomes say of calls that got through.
    pub(super) fn effectiveness(&self) -> Tally {
        self.tally(ineffective)
    }

    /// What the outcomes say of calls that were answered.
    pub(super) fn answers(&self) -> Tally {
        self.tally(unanswered)
    }
}

fn distinct<'a, T: Eq + 'a>(items: impl Iterator<Item = &'a T>) -> usize {
    let mut seen: Vec<&T> = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen.len()
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
