//! A trunk's health.
//!
//! ```text
//!            good news            strain                 contact, registration, credentials, no channel: at
//!  Unknown ───────────▶ Healthy ◀───────▶ Degraded       once; calls: when the evidence stands (see Facts)
//!     │                    ▲ ▲                │              │
//!     │     5 calls got    │ │ trial calls    │              │
//!     │     through, or    │ └──────────┐     │              │
//!     │     facts held     │            │     ▼              ▼
//!     └────────────────────┼────────────┼──▶ Tripped ◀───────┘
//!                      Probation ◀──────┴───────┘   ▲
//!                          │    back-off is over    │
//!                          └────────────────────────┘ a trial fails: a longer back-off
//!  any ⇄ Disabled, by an operator
//! ```
//!
//! - **What a call has shown, only a call disproves.** A carrier can answer OPTIONS and drop every INVITE:
//!   a trunk that tripped by calls leaves probation by calls (or canaries) that got through, and OPTIONS
//!   only decide when probation may begin.
//! - **Back-off grows on evidence and shrinks on evidence**, never by time. Failures during a back-off
//!   count once, when it ends: the next is longer. Ten calls that got through forgive one step.
//! - **From the second trip on the contact must have held for a while** before probation: a carrier that
//!   flaps faster than that stays out.
//! - **Calls eject at most a share of the fleet's trunks** ([`Around`]): at the cap a trunk that works so far
//!   is degraded instead, and one in probation begins its ramp anew.
//! - An ending of a call that began before the last trip says nothing: it is the old evidence again.
//! - `Tripped` and `Probation` always have a next deadline.

use std::time::Instant;

use rand::Rng;

use super::{
    Around, Call, CanaryPlan, Charge, Ejection, Event, Handled, Met, Policy, TrunkState,
    evidence::{Evidence, History, Transition, rtt_us},
    facts::{Contact, Facts, Registration, Sign, Stage},
    moment::{Clock, Moment},
    probation::Probation,
    state::{Inner, Proof, State},
};
use crate::call::Rang;

/// The machine.
#[derive(Debug, Clone)]
pub struct TrunkHealth {
    pub(super) clock: Clock,
    pub(super) policy: Policy,
    canary: CanaryPlan,
    pub(super) inner: Inner,
}

impl TrunkHealth {
    /// A trunk of which nothing is known.
    #[must_use]
    pub fn new(now: Instant, canary: CanaryPlan, policy: Policy) -> Self {
        let clock = Clock::new(now);
        let since = clock.moment(now);
        let inner = Inner {
            state: State::Unknown,
            since,
            level: 0,
            forgiven_by: 0,
            proof: Proof::Facts,
            last_trip: None,
            facts: Facts::new(since),
            history: History::default(),
        };
        Self { clock, policy, canary, inner }
    }

    pub(super) const fn resumed(clock: Clock, canary: CanaryPlan, policy: Policy, inner: Inner) -> Self {
        Self { clock, policy, canary, inner }
    }

    /// The operator has changed the canary.
    pub fn set_canary(&mut self, canary: CanaryPlan) {
        self.canary = canary;
    }

    /// Whether it has one.
    #[must_use]
    pub const fn canary(&self) -> CanaryPlan {
        self.canary
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> TrunkState {
        match self.inner.state {
            State::Unknown => TrunkState::Unknown,
            State::Healthy => TrunkState::Healthy,
            State::Degraded => TrunkState::Degraded,
            State::Tripped { .. } => TrunkState::Tripped,
            State::Probation(_) => TrunkState::Probation,
            State::Disabled => TrunkState::Disabled,
        }
    }

    /// When [`Self::on_deadline`] wants to be called: always known in `Tripped` and `Probation`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due().map(|due| self.clock.instant(due))
    }

    fn due(&self) -> Option<Moment> {
        match &self.inner.state {
            State::Unknown | State::Healthy | State::Disabled => None,
            State::Degraded if self.inner.facts.strains.by_calls() => {
                let quiet_since =
                    self.inner.facts.last_call.map_or(self.inner.since, |c| c.max(self.inner.since));
                Some(quiet_since.after(self.policy.degraded_rest))
            }
            State::Degraded => None,
            State::Tripped { until, .. } => Some(*until),
            State::Probation(probation) => Some(probation.until),
        }
    }

    /// A deadline has come (calling it early does nothing).
    pub fn on_deadline(&mut self, now: Instant, around: Around, rng: &mut impl Rng) -> Handled {
        let moment = self.clock.moment(now);
        let sign = if self.due().is_some_and(|due| due <= moment) { Sign::Due } else { Sign::Nothing };
        self.step(now, sign, Charge::None, around, rng)
    }

    /// An attempt leaves over this trunk: in probation it takes a place.
    pub fn sent(&mut self, now: Instant) {
        let moment = self.clock.moment(now);
        if let State::Probation(probation) = &mut self.inner.state {
            probation.sent(moment, &self.policy);
        }
    }

    /// What was taken for leaving did not, and will not.
    pub fn not_sent(&mut self) {
        if let State::Probation(probation) = &mut self.inner.state {
            probation.not_sent();
        }
    }

    /// Whether a canary is due now, besides those at its interval: probation waits for one.
    #[must_use]
    pub fn wants_canary(&self, now: Instant) -> bool {
        match &self.inner.state {
            State::Probation(probation) => probation.wants_canary(self.clock.moment(now)),
            State::Unknown | State::Healthy | State::Degraded | State::Tripped { .. } | State::Disabled => {
                false
            }
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Instant, event: &Event, around: Around, rng: &mut impl Rng) -> Handled {
        let at = self.clock.moment(now);
        let facts = &mut self.inner.facts;
        let (charge, sign) = match event {
            Event::Reachable(rtt) => {
                rtt.iter().for_each(|rtt| facts.strains.round_trip(*rtt, &self.policy));
                let evidence = Evidence::ContactReachable { rtt_us: rtt.map(rtt_us) };
                (Charge::None, facts.contact(at, Contact::Reachable, evidence))
            }
            Event::Unreachable => {
                (Charge::None, facts.contact(at, Contact::Unreachable, Evidence::ContactUnreachable))
            }
            Event::NotQualified => (Charge::None, facts.not_qualified(at)),
            Event::NotRegistering => (Charge::None, facts.not_registering(at)),
            Event::Registered => (Charge::None, facts.registration(at, Registration::Registered)),
            Event::RegistrationLost => (Charge::None, facts.registration(at, Registration::Lost)),
            Event::RegistrationRejected => (Charge::None, facts.registration(at, Registration::Rejected)),
            Event::Rang { destination, began } => {
                let sign = facts.rang(at, destination);
                (Charge::None, if self.is_old(*began) { Sign::Nothing } else { sign })
            }
            Event::Ended(call) => self.call(now, call, None, around, rng),
            Event::Canary(call, met) => self.call(now, call, Some(*met), around, rng),
            Event::Disable => (Charge::None, Sign::Disable),
            Event::Enable => (Charge::None, Sign::Enable),
        };
        self.step(now, sign, charge, around, rng)
    }

    /// Whether something began before the last trip.
    fn is_old(&self, began: Instant) -> bool {
        self.inner.last_trip.is_some_and(|trip| self.clock.moment(began) < trip)
    }

    fn call(
        &mut self,
        now: Instant,
        call: &Call,
        met: Option<Met>,
        around: Around,
        rng: &mut impl Rng,
    ) -> (Charge, Sign) {
        if self.is_old(call.began) {
            return (
                super::charge::charge(&call.ending, call.load, call.waited, &self.policy),
                Sign::Nothing,
            );
        }
        let mut counted = false;
        let stage = match &mut self.inner.state {
            State::Probation(probation) => {
                counted = probation.ended(call.ending.rang == Rang::Yes);
                Stage::Trial
            }
            // Sent in panic: it tries the trunk, and its destination is not to blame.
            State::Tripped { .. } => Stage::Trial,
            State::Unknown | State::Healthy | State::Degraded | State::Disabled => Stage::Service,
        };
        let (clock, policy) = (self.clock, self.policy);
        let at = clock.moment(now);
        let (charge, sign) =
            self.inner.facts.call(at, clock, call, met, stage, around.customers, &policy, rng);
        (charge, if counted && charge.delivered() { Sign::Nothing } else { sign })
    }

    /// The one match: what each sign means in each state.
    fn step(
        &mut self,
        now: Instant,
        sign: Sign,
        charge: Charge,
        around: Around,
        rng: &mut impl Rng,
    ) -> Handled {
        let at = self.clock.moment(now);
        let capped = around.ejection == Ejection::CapReached;
        let proof = self.inner.proof;
        let transition = match (&mut self.inner.state, sign) {
            (State::Disabled, Sign::Enable) => self.enable(at, rng),
            (
                State::Disabled,
                Sign::Good(_)
                | Sign::Down(..)
                | Sign::Rings(_)
                | Sign::Works(_)
                | Sign::Fails(..)
                | Sign::Nothing
                | Sign::Disable
                | Sign::Due,
            ) => None,
            (_, Sign::Disable) => self.enter(at, State::Disabled, Evidence::Operator),
            (_, Sign::Enable) => None,

            (State::Unknown, Sign::Good(evidence) | Sign::Rings(evidence) | Sign::Works(evidence)) => {
                self.serve(at, evidence)
            }
            (State::Unknown, Sign::Nothing | Sign::Due) => None,

            (State::Healthy | State::Degraded, Sign::Works(_)) => {
                self.forgive();
                self.weigh(at)
            }
            (State::Healthy | State::Degraded, Sign::Good(_) | Sign::Rings(_) | Sign::Nothing) => {
                self.weigh(at)
            }
            (State::Healthy | State::Degraded, Sign::Due) => {
                self.inner.facts.outcomes.clear();
                self.inner.facts.strains.forget_calls();
                self.serve(at, Evidence::Rested)
            }

            (State::Unknown | State::Healthy | State::Degraded, Sign::Fails(cause, evidence))
                if cause.is_conclusion() && capped =>
            {
                self.inner.facts.strains.spare();
                self.serve(at, evidence)
            }
            // Its ramp begins anew, at one call: as near to ejected as the cap allows.
            (State::Probation(_), Sign::Fails(cause, evidence))
                if cause.is_conclusion() && capped && proof == Proof::Facts =>
            {
                self.probe(at, evidence)
            }
            (
                State::Unknown | State::Healthy | State::Degraded | State::Probation(_),
                Sign::Fails(cause, evidence) | Sign::Down(cause, evidence),
            ) => self.trip(at, cause, evidence, rng),

            (State::Tripped { failed_again, cause, .. }, Sign::Fails(by, _) | Sign::Down(by, _)) => {
                *failed_again = true;
                if !(by.is_conclusion() && capped) {
                    // `why` names what is wrong now; what only a call disproves stays so.
                    *cause = by;
                    self.inner.proof = proof.max(Proof::against(by));
                }
                None
            }
            (State::Tripped { .. }, Sign::Good(_) | Sign::Nothing) => None,
            // In panic it was called, and got through.
            (State::Tripped { .. }, Sign::Rings(evidence)) => {
                let mut probation = Probation::new(at, false, &self.policy);
                probation.rang();
                self.enter(at, State::Probation(probation), evidence)
            }
            (State::Tripped { .. }, Sign::Works(evidence)) => {
                let probation = Probation::new(at, false, &self.policy).got_through();
                self.enter(at, State::Probation(probation), evidence)
            }
            (State::Tripped { .. }, Sign::Due) => self.back_off_ends(at, rng),

            (State::Probation(_), Sign::Good(_) | Sign::Nothing) => None,
            (State::Probation(probation), Sign::Rings(_)) => {
                probation.rang();
                self.tried(at)
            }
            (State::Probation(probation), Sign::Works(_)) => {
                probation.successes = probation.successes.saturating_add(1);
                self.tried(at)
            }
            (State::Probation(_), Sign::Due) => self.probation_due(at),
        };
        let transition = transition.map(|kept| Transition {
            from: kept.from,
            to: kept.to,
            at: now,
            evidence: kept.evidence,
        });
        Handled { charge, transition }
    }
}
