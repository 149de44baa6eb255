//! Destinations and caller ids that one trunk does not take: trunk × prefix, trunk × caller id.
//!
//! ```text
//!            fails          fails again             time is up
//!  (nothing) ─────▶ Noted ─────────────▶ Suspended ───────────▶ Due ──▶ one more failure: Suspended, twice
//!      ▲              │                                          │      as long
//!      └──────────────┴──────── a call gets through ─────────────┘
//! ```
//!
//! A customer's barred destinations are that customer's affair: his calls go elsewhere, everybody's other
//! calls go on. Which of the two a 403 is about is told by what else got through: the same caller id
//! elsewhere, or the same destination under another caller id.

use std::{fmt, time::Duration};

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Destination, Policy, moment::Moment, policy::back_off};
use crate::number::E164;

/// What of a trunk is suspended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Calls to a destination.
    Destination(Destination),
    /// Calls that present a caller id.
    CallerId(E164),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(destination) => write!(f, "calls to {destination}"),
            Self::CallerId(caller) => write!(f, "calls from {caller}"),
        }
    }
}

/// What is remembered of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    scope: Scope,
    /// Failures since it was first noted.
    failures: u32,
    /// How many times it was suspended.
    level: u32,
    last_failed: Moment,
    /// Others got through where it failed, so that its failures are known to be its own.
    told_apart: bool,
    /// The end of the suspension; past: it is due for another try.
    until: Option<Moment>,
}

/// A suspension in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce<'a> {
    pub(super) scope: &'a Scope,
    pub(super) failures: u32,
    pub(super) until: Moment,
}

/// The suspensions of one trunk. At most [`Policy::suspensions_max`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Suspensions(Vec<Entry>);

impl Suspensions {
    /// A call of this scope failed; returns for how long that suspends it, if it does.
    pub(super) fn failed(
        &mut self,
        now: Moment,
        scope: &Scope,
        policy: &Policy,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        self.forget(now, policy);
        let entry = self.entry(now, scope, policy);
        // Calls that were under way when it was suspended tell nothing new.
        if entry.until.is_some_and(|until| now < until) {
            return None;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last_failed = now;
        if entry.level == 0 && entry.failures < policy.suspend_after {
            return None;
        }
        entry.level = entry.level.saturating_add(1);
        let span = back_off(entry.level, policy.suspension_min, policy.suspension_max);
        let span = span.mul_f64(1.0 + policy.back_off_jitter * rng.random::<f64>());
        entry.until = Some(now.after(span));
        Some(span)
    }

    /// A call of this scope failed for a reason that is charged to the trunk.
    pub(super) fn note(&mut self, now: Moment, scope: &Scope, policy: &Policy) {
        self.forget(now, policy);
        self.entry(now, scope, policy).last_failed = now;
    }

    /// A call of this scope got through.
    pub(super) fn got_through(&mut self, scope: &Scope) {
        self.0.retain(|e| e.scope != *scope);
    }

    /// Whether this scope is suspended.
    #[cfg(test)]
    pub(super) fn holds(&self, now: Moment, scope: &Scope) -> bool {
        self.in_force(now).any(|s| s.scope == scope)
    }

    /// Whether a failure now is the scope's own, and not the trunk's: it has failed before, and others were
    /// `heard_since` then, or it was told apart before and others were heard recently.
    pub(super) fn is_own(
        &mut self,
        now: Moment,
        scope: &Scope,
        heard_since: impl Fn(Moment) -> bool,
        heard_recently: bool,
    ) -> bool {
        let Some(entry) = self.0.iter_mut().find(|e| e.scope == *scope) else { return false };
        // Under way when it was suspended: of the same kind as what suspended it.
        let suspended = entry.until.is_some_and(|until| now < until);
        entry.told_apart =
            heard_since(entry.last_failed) || (entry.told_apart && (heard_recently || suspended));
        entry.told_apart
    }

    /// Those in force, by scope.
    pub(super) fn in_force(&self, now: Moment) -> impl Iterator<Item = InForce<'_>> {
        self.0.iter().filter_map(move |e| {
            let until = e.until.filter(|until| now < *until)?;
            Some(InForce { scope: &e.scope, failures: e.failures, until })
        })
    }

    fn entry(&mut self, now: Moment, scope: &Scope, policy: &Policy) -> &mut Entry {
        let place = self.0.iter().position(|e| e.scope == *scope).unwrap_or_else(|| {
            if self.0.len() >= policy.suspensions_max.max(1) {
                // The one that is due first, and of those never suspended the one quiet the longest.
                let first = (0..self.0.len()).min_by_key(|i| (self.0[*i].until, self.0[*i].last_failed));
                self.0.remove(first.unwrap_or(0));
            }
            self.0.push(Entry {
                scope: scope.clone(),
                failures: 0,
                level: 0,
                last_failed: now,
                told_apart: false,
                until: None,
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// One failure now and one an hour ago are two accidents. What was suspended is remembered for as
    /// long again as the longest suspension, so that the next failure suspends it for longer.
    fn forget(&mut self, now: Moment, policy: &Policy) {
        self.0.retain(|e| match e.until {
            None => now.since(e.last_failed) < policy.suspension_max,
            Some(until) => now.since(until) < policy.suspension_max,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn at(s: u64) -> Moment {
        Moment::default().after(Duration::from_secs(s))
    }

    fn to(n: u32) -> Scope {
        let number: E164 = format!("+48{n:03}1234567").parse().unwrap();
        Scope::Destination(Destination::of(&number))
    }

    #[test]
    fn the_second_failure_suspends_and_each_further_trial_that_fails_for_longer() {
        let (p, rng) = (&Policy::default(), &mut StdRng::seed_from_u64(1));
        let mut s = Suspensions::default();
        assert_eq!(s.failed(at(0), &to(1), p, rng), None);
        assert!(!s.holds(at(0), &to(1)));
        let first = s.failed(at(1), &to(1), p, rng).unwrap().as_secs();
        assert!((60..=72).contains(&first));
        assert!(s.holds(at(60), &to(1)) && !s.holds(at(60), &to(2)) && !s.holds(at(74), &to(1)));
        assert_eq!(s.failed(at(30), &to(1), p, rng), None, "was under way");
        let second = s.failed(at(80), &to(1), p, rng).unwrap().as_secs();
        assert!((120..=144).contains(&second));
    }

    #[test]
    fn a_call_that_gets_through_ends_it() {
        let (p, rng) = (&Policy::default(), &mut StdRng::seed_from_u64(1));
        let mut s = Suspensions::default();
        s.failed(at(0), &to(1), p, rng);
        s.failed(at(0), &to(1), p, rng);
        s.got_through(&to(1));
        assert!(!s.holds(at(1), &to(1)));
        assert_eq!(s.failed(at(2), &to(1), p, rng), None);
    }

    proptest! {
        #[test]
        fn bounded_and_every_suspension_ends(events in prop::collection::vec((0u32..200, 0u64..100, any::<bool>()), 0..400)) {
            let (p, rng) = (&Policy { suspensions_max: 8, ..Policy::default() }, &mut StdRng::seed_from_u64(2));
            let (mut s, mut now) = (Suspensions::default(), 0);
            for (n, wait, fails) in events {
                now += wait;
                if fails { s.failed(at(now), &to(n), p, rng); } else { s.got_through(&to(n)); }
                prop_assert!(s.0.len() <= 8);
                let longest = p.suspension_max.mul_f64(1.0 + p.back_off_jitter);
                prop_assert!(s.in_force(at(now)).all(|i| i.until.since(at(now)) <= longest));
            }
        }
    }
}
