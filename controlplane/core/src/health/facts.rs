//! What is known of a trunk, and what each piece of news says, whatever state the trunk is in.
//!
//! Contact and registration are facts about this trunk alone. An ending says something only by its
//! charge, and silence only where nothing else was heard: a carrier that answered any other call after a
//! silent INVITE had left hears us, so the silence is the destination's.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{
    Call, Charge, Customers, Destination, Met, Party, Policy, Scope, charge,
    evidence::{Cause, Evidence},
    heard::Heard,
    moment::{Clock, Moment},
    outcomes::{Outcome, Outcomes},
    strain::Strains,
    suspension::Suspensions,
};
use crate::{
    call::{UnknownWord, words},
    ending::EndingClass,
};

words! {
    /// What qualify says.
    Contact {
        /// It answers.
        Reachable = "reachable",
        /// It does not.
        Unreachable = "unreachable",
    }
}

words! {
    /// What the registration says.
    Registration {
        /// Accepted.
        Registered = "registered",
        /// Lost, or stopped.
        Lost = "lost",
        /// Refused.
        Rejected = "rejected",
    }
}

/// What a piece of news says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// Contact and registration are good.
    Good(Evidence),
    /// Contact or registration have just become bad.
    Down(Cause, Evidence),
    /// A phone rang.
    Rings(Evidence),
    /// A call got through and has ended.
    Works(Evidence),
    /// Calls show that the trunk fails.
    Fails(Cause, Evidence),
    /// Nothing that decides.
    Nothing,
    /// An operator disables.
    Disable,
    /// An operator enables.
    Enable,
    /// A deadline has come.
    Due,
}

/// Whether an ending is of a trial call, in probation or in panic, where one failure is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Service,
    Trial,
}

/// The facts of one trunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) contact: Option<Contact>,
    pub(super) registration: Option<Registration>,
    /// Since when neither of them is bad.
    good_since: Option<Moment>,
    heard: Heard,
    pub(super) outcomes: Outcomes,
    pub(super) suspensions: Suspensions,
    pub(super) strains: Strains,
    canary_failures: u32,
    pub(super) last_call: Option<Moment>,
}

impl Facts {
    pub(super) fn new(now: Moment) -> Self {
        Self { good_since: Some(now), ..Self::default() }
    }

    /// What is wrong with contact or registration.
    pub(super) const fn down(&self) -> Option<(Cause, Evidence)> {
        match (self.contact, self.registration) {
            (Some(Contact::Unreachable), _) => {
                Some((Cause::ContactUnreachable, Evidence::ContactUnreachable))
            }
            (_, Some(Registration::Rejected)) => {
                Some((Cause::RegistrationRejected, Evidence::RegistrationRejected))
            }
            (_, Some(Registration::Lost)) => Some((Cause::RegistrationLost, Evidence::RegistrationLost)),
            (None | Some(Contact::Reachable), None | Some(Registration::Registered)) => None,
        }
    }

    /// Since when contact and registration are good, if they are.
    pub(super) const fn good_since(&self) -> Option<Moment> {
        self.good_since
    }

    pub(super) fn contact(&mut self, now: Moment, contact: Contact, good: Evidence) -> Sign {
        let before = self.contact.replace(contact);
        self.changed(now, before == Some(contact), contact == Contact::Unreachable, good)
    }

    pub(super) fn registration(&mut self, now: Moment, registration: Registration) -> Sign {
        let before = self.registration.replace(registration);
        let bad = registration != Registration::Registered;
        self.changed(now, before == Some(registration), bad, Evidence::Registered)
    }

    /// What was known already is no news: snapshots tell it again every 2 s.
    /// The contact is not asked any more: what it said last says nothing of now.
    pub(super) fn not_qualified(&mut self, now: Moment) -> Sign {
        let had = self.contact.take().is_some();
        self.not_watched(now, had)
    }

    /// It does not register any more.
    pub(super) fn not_registering(&mut self, now: Moment) -> Sign {
        let had = self.registration.take().is_some();
        self.not_watched(now, had)
    }

    fn not_watched(&mut self, now: Moment, had: bool) -> Sign {
        if had { self.changed(now, false, false, Evidence::NotWatched) } else { Sign::Nothing }
    }

    fn changed(&mut self, now: Moment, same: bool, bad: bool, good: Evidence) -> Sign {
        match self.down() {
            None => {
                self.good_since.get_or_insert(now);
                Sign::Good(good)
            }
            Some((cause, evidence)) => {
                self.good_since = None;
                if bad && !same { Sign::Down(cause, evidence) } else { Sign::Nothing }
            }
        }
    }

    pub(super) fn rang(&mut self, now: Moment, destination: &Destination) -> Sign {
        self.heard.note(destination, now);
        Sign::Rings(Evidence::Rang { destination: destination.to_string() })
    }

    /// An ending of a call that began after the last trip.
    #[allow(clippy::too_many_arguments, reason = "time, chance and policy come from outside, each by itself")]
    pub(super) fn call(
        &mut self,
        now: Moment,
        clock: Clock,
        call: &Call,
        met: Option<Met>,
        stage: Stage,
        customers: Customers,
        policy: &Policy,
        rng: &mut impl Rng,
    ) -> (Charge, Sign) {
        let charge = self.charge(call, met, policy);
        self.last_call = Some(now);
        if charge.heard() {
            self.heard.note(&call.destination, now);
        }
        if !matches!(charge, Charge::None | Charge::Node | Charge::TrunkAtOnce | Charge::Credentials) {
            let Call { party, destination, caller, .. } = call.clone();
            self.outcomes.push(Outcome { at: now, party, destination, caller, charge }, policy);
        }
        let by_call = || Evidence::Call {
            ending: call.ending.class,
            sip_code: call.ending.sip_code,
            destination: call.destination.to_string(),
            canary: call.party == Party::Canary,
        };
        let sign = match charge {
            Charge::Success | Charge::Delivered => {
                self.got_through(call);
                Sign::Works(by_call())
            }
            Charge::TrunkAtOnce => Sign::Fails(Cause::ContactDown, by_call()),
            Charge::Credentials => Sign::Fails(Cause::CredentialsRefused, by_call()),
            Charge::Trunk | Charge::TrunkSilent => {
                let scope = Scope::Destination(call.destination.clone());
                let failure =
                    self.failure(now, clock.moment(call.began), charge, call, stage, customers, policy);
                match failure {
                    Some((cause, evidence)) => {
                        self.suspensions.note(now, &scope, policy);
                        Sign::Fails(cause, evidence.unwrap_or_else(by_call))
                    }
                    None => {
                        match call.party {
                            Party::Org(_) => {
                                self.suspensions.failed(now, &scope, policy, rng);
                            }
                            // One number of the operator's: remembered, and nothing is withheld for it.
                            Party::Canary => self.suspensions.note(now, &scope, policy),
                        }
                        Sign::Nothing
                    }
                }
            }
            Charge::DestinationOrCaller => match self.outcomes.trip(customers, policy) {
                Some(tally) => Sign::Fails(Cause::CallsFail, Evidence::Calls(tally)),
                None => {
                    if call.party != Party::Canary
                        && let Some(scope) = self.refused(call)
                    {
                        self.suspensions.failed(now, &scope, policy, rng);
                    }
                    Sign::Nothing
                }
            },
            Charge::Pace | Charge::Rate | Charge::None | Charge::Node => Sign::Nothing,
        };
        self.strains.calls(&self.outcomes, customers, policy);
        (charge, sign)
    }

    /// The charge, in the light of the other calls: a 503 among successes is about pace.
    fn charge(&self, call: &Call, met: Option<Met>, policy: &Policy) -> Charge {
        let charge = match met {
            Some(Met::AsExpected) => Charge::Success,
            Some(Met::Otherwise) | None => charge::charge(&call.ending, call.load, call.waited, policy),
        };
        let congested = call.ending.class == EndingClass::Congestion && charge == Charge::Trunk;
        if congested && self.gets_through(&call.destination) { Charge::Pace } else { charge }
    }

    /// Whether of the latest few calls at least half got through, one to this destination among them.
    fn gets_through(&self, destination: &Destination) -> bool {
        const LATEST: usize = 8;
        let latest = || self.outcomes.iter().rev().take(LATEST);
        let good = latest().filter(|o| o.charge.delivered()).count();
        good * 2 >= LATEST && latest().any(|o| o.charge.delivered() && o.destination == *destination)
    }

    fn got_through(&mut self, call: &Call) {
        self.canary_failures = 0;
        self.strains.got_through();
        self.suspensions.got_through(&Scope::Destination(call.destination.clone()));
        if let Some(caller) = &call.caller {
            self.suspensions.got_through(&Scope::CallerId(caller.clone()));
        }
    }

    /// Whether a failed call, alone or with others, shows that the trunk fails.
    #[allow(clippy::too_many_arguments, reason = "as above")]
    fn failure(
        &mut self,
        now: Moment,
        began: Moment,
        charge: Charge,
        call: &Call,
        stage: Stage,
        customers: Customers,
        policy: &Policy,
    ) -> Option<(Cause, Option<Evidence>)> {
        if call.party == Party::Canary {
            self.canary_failures = self.canary_failures.saturating_add(1);
        }
        // It failed before, and others have been heard since: it is this destination, not the trunk.
        let scope = Scope::Destination(call.destination.clone());
        let elsewhere = self.heard.elsewhere(&call.destination);
        let own = self.suspensions.is_own(
            now,
            &scope,
            |failed| elsewhere.is_some_and(|at| at > failed),
            elsewhere.is_some_and(|at| now.since(at) < policy.window),
        );
        if let Some(tally) = self.outcomes.trip(customers, policy) {
            Some((Cause::CallsFail, Some(Evidence::Calls(tally))))
        } else if own {
            None
        } else if charge == Charge::TrunkSilent && !self.heard.since(began) {
            Some((Cause::CarrierSilent, None))
        } else if stage == Stage::Trial {
            Some((Cause::TrialFailed, None))
        } else if call.party == Party::Canary && self.canary_failures >= policy.canary_failures_max {
            Some((Cause::CanariesFail, Some(Evidence::Canaries { failed: self.canary_failures })))
        } else {
            None
        }
    }

    /// What a 403 is about, as far as the other calls tell.
    fn refused(&self, call: &Call) -> Option<Scope> {
        let through =
            |same: &dyn Fn(&Outcome) -> bool| self.outcomes.iter().any(|o| o.charge.delivered() && same(o));
        let destination = || Scope::Destination(call.destination.clone());
        let destination_gets_through = through(&|o| o.destination == call.destination);
        let Some(caller) = &call.caller else { return (!destination_gets_through).then(destination) };
        let same_caller = |o: &Outcome| o.caller.as_ref() == Some(caller);
        match (through(&same_caller), destination_gets_through) {
            // A single number, perhaps: nothing that could be suspended.
            (true, true) => None,
            (true, false) => Some(destination()),
            (false, true) => Some(Scope::CallerId(caller.clone())),
            (false, false) => {
                let elsewhere = self.outcomes.iter().any(|o| {
                    o.charge == Charge::DestinationOrCaller
                        && same_caller(o)
                        && o.destination != call.destination
                });
                Some(if elsewhere { Scope::CallerId(caller.clone()) } else { destination() })
            }
        }
    }

    /// The trunk has tripped: what its calls have shown has had its effect.
    pub(super) fn tripped(&mut self) {
        self.outcomes.clear();
        self.strains.forget_calls();
        self.canary_failures = 0;
    }
}
