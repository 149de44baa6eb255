//! The ways between a trunk's states: what each change sets, so that none is made by halves.

use std::time::Duration;

use rand::Rng;

use super::{
    CanaryPlan, TrunkHealth, TrunkState,
    evidence::{Cause, Evidence, Kept, back_off_over},
    facts::Contact,
    moment::{Moment, millis},
    policy::back_off,
    probation::Probation,
    state::{Proof, State},
};

pub(super) type Change = Option<Kept<TrunkState, Evidence>>;

impl TrunkHealth {
    pub(super) fn trip(
        &mut self,
        at: Moment,
        cause: Cause,
        evidence: Evidence,
        rng: &mut impl Rng,
    ) -> Change {
        self.inner.level = self.inner.level.saturating_add(1);
        self.inner.proof = self.inner.proof.max(Proof::against(cause));
        // No channel for the second time in a row, and OPTIONS are answered: they are not to be believed.
        if cause == Cause::ContactDown && self.inner.level > 1 && self.inner.facts.down().is_none() {
            self.inner.proof = Proof::Call;
        }
        self.back_off(at, cause, evidence, rng)
    }

    fn back_off(&mut self, at: Moment, cause: Cause, evidence: Evidence, rng: &mut impl Rng) -> Change {
        self.inner.forgiven_by = 0;
        self.inner.last_trip = Some(at);
        self.inner.facts.tripped();
        let until = self.back_off_until(at, rng);
        self.enter(at, State::Tripped { cause, until, failed_again: false }, evidence)
    }

    /// The back-off without its jitter.
    pub(super) fn back_off_span(&self) -> Duration {
        back_off(self.inner.level, self.policy.back_off_min, self.policy.back_off_max)
    }

    fn back_off_until(&self, at: Moment, rng: &mut impl Rng) -> Moment {
        at.after(self.back_off_span().mul_f64(1.0 + self.policy.back_off_jitter * rng.random::<f64>()))
    }

    pub(super) fn back_off_ends(&mut self, at: Moment, rng: &mut impl Rng) -> Change {
        let State::Tripped { cause, failed_again, .. } = self.inner.state else { return None };
        if failed_again {
            self.inner.level = self.inner.level.saturating_add(1);
            let until = self.back_off_until(at, rng);
            let evidence = Evidence::FellAgain { back_off_ms: millis(self.back_off_span()) };
            return self.enter(at, State::Tripped { cause, until, failed_again: false }, evidence);
        }
        let steady = if self.inner.level > 1 { self.policy.steady_min } else { Duration::ZERO };
        let not_before = match self.inner.facts.good_since() {
            // Still down, and no news: the same back-off again, no longer.
            None => self.back_off_until(at, rng),
            Some(good) => good.after(steady),
        };
        if at < not_before {
            self.inner.state = State::Tripped { cause, until: not_before, failed_again };
            return None;
        }
        self.probe(at, back_off_over(self.back_off_span()))
    }

    pub(super) fn probe(&mut self, at: Moment, evidence: Evidence) -> Change {
        let canary_first = self.inner.proof == Proof::Call && self.canary() == CanaryPlan::Configured;
        self.enter(at, State::Probation(Probation::new(at, canary_first, &self.policy)), evidence)
    }

    pub(super) fn tried(&mut self, at: Moment) -> Change {
        let State::Probation(probation) = &self.inner.state else { return None };
        let calls = probation.successes;
        (calls >= self.policy.probation_successes)
            .then(|| self.serve(at, Evidence::TrialsGotThrough { calls }))
            .flatten()
    }

    pub(super) fn probation_due(&mut self, at: Moment) -> Change {
        let held = self.inner.facts.good_since().is_some_and(|g| at.since(g) >= self.policy.probation_steady);
        if held && self.inner.proof == Proof::Facts {
            return self.serve(at, Evidence::HeldThroughProbation);
        }
        if let State::Probation(probation) = &mut self.inner.state {
            probation.until = at.after(self.policy.probation_steady);
        }
        None
    }

    /// What it is after an operator's hand: never better than what is known of it.
    pub(super) fn enable(&mut self, at: Moment, rng: &mut impl Rng) -> Change {
        if let Some((cause, evidence)) = self.inner.facts.down() {
            self.inner.level = self.inner.level.max(1);
            return self.back_off(at, cause, evidence, rng);
        }
        if self.inner.level > 0 {
            return self.probe(at, Evidence::Operator);
        }
        match self.inner.facts.contact {
            Some(Contact::Reachable) => self.serve(at, Evidence::Operator),
            Some(Contact::Unreachable) | None => self.enter(at, State::Unknown, Evidence::Operator),
        }
    }

    pub(super) fn forgive(&mut self) {
        self.inner.forgiven_by += 1;
        if self.inner.forgiven_by >= self.policy.forgive_after {
            self.inner.forgiven_by = 0;
            self.inner.level = self.inner.level.saturating_sub(1);
        }
    }

    /// Into service: Healthy or Degraded.
    pub(super) fn serve(&mut self, at: Moment, evidence: Evidence) -> Change {
        self.inner.proof = Proof::Facts;
        let state = if self.inner.facts.strains.any() { State::Degraded } else { State::Healthy };
        if self.inner.state == state {
            return None;
        }
        self.enter(at, state, evidence)
    }

    /// Between Healthy and Degraded.
    pub(super) fn weigh(&mut self, at: Moment) -> Change {
        let facts = &self.inner.facts;
        if facts.strains.any() == (self.state() == TrunkState::Degraded) {
            return None;
        }
        let calls = facts.outcomes.effectiveness();
        self.serve(at, Evidence::Strains { strains: facts.strains.list(), calls })
    }

    pub(super) fn enter(&mut self, at: Moment, state: State, evidence: Evidence) -> Change {
        let from = self.state();
        self.inner.state = state;
        let kept = Kept { from, to: self.state(), at, evidence };
        if kept.from != kept.to {
            self.inner.since = at;
        }
        self.inner.history.push(kept.clone(), self.policy.history_max);
        Some(kept)
    }
}
