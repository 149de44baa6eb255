//! The trunk machine: its whole transition table, the stories of the fault list, and the board.

mod fleet;
mod model;
mod stories;
mod table;

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::StdRng};
use time::macros::datetime;

use super::*;
use crate::{
    call::Rang,
    ending::{Ending, EndingClass},
    ids::OrgId,
    number::E164,
};

pub(super) const AROUND: Around = Around { customers: Customers::Several, ejection: Ejection::Allowed };

pub(super) fn org(n: u64) -> Party {
    Party::Org(OrgId::new(datetime!(2026-11-24 10:00 UTC), &mut StdRng::seed_from_u64(n)))
}

pub(super) fn number(n: u32) -> E164 {
    format!("+48{n:03}1234567").parse().unwrap()
}

pub(super) fn to(n: u32) -> Destination {
    Destination::of(&number(n))
}

pub(super) fn rang(class: EndingClass) -> Rang {
    match class {
        EndingClass::Answered
        | EndingClass::NoMedia
        | EndingClass::NoKeys
        | EndingClass::RingTimeout
        | EndingClass::EndedAfterRinging
        | EndingClass::Interrupted => Rang::Yes,
        EndingClass::CarrierSilent
        | EndingClass::NoProgress
        | EndingClass::EndedAfterProgress
        | EndingClass::Unknown => Rang::Maybe,
        EndingClass::UserBusy
        | EndingClass::Declined
        | EndingClass::Unreachable
        | EndingClass::InvalidNumber
        | EndingClass::Forbidden
        | EndingClass::Unauthorized
        | EndingClass::NotAcceptable
        | EndingClass::Redirected
        | EndingClass::Congestion
        | EndingClass::CarrierError
        | EndingClass::CarrierTimeout
        | EndingClass::ContactDown
        | EndingClass::NodeFault
        | EndingClass::NotSent
        | EndingClass::Rejected
        | EndingClass::Canceled => Rang::No,
    }
}

/// A trunk and its time.
#[derive(Clone)]
pub(super) struct Played {
    pub(super) now: Instant,
    pub(super) trunk: TrunkHealth,
    pub(super) around: Around,
    pub(super) rng: StdRng,
}

impl Played {
    pub(super) fn new() -> Self {
        #[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
        let now = Instant::now();
        let trunk = TrunkHealth::new(now, CanaryPlan::None, Policy::default());
        Self { now, trunk, around: AROUND, rng: StdRng::seed_from_u64(7) }
    }

    pub(super) fn feed(&mut self, event: &Event) -> Option<Transition<TrunkState, Evidence>> {
        self.trunk.handle(self.now, event, self.around, &mut self.rng).transition
    }

    /// A call that began a moment ago and ends now.
    pub(super) fn call(&self, party: Party, destination: u32, class: EndingClass) -> Call {
        Call {
            ending: Ending::without_answer(class, rang(class)),
            began: self.now,
            waited: Duration::from_secs(8),
            party,
            destination: to(destination),
            caller: None,
            load: Load::Normal,
        }
    }

    pub(super) fn ends(&mut self, org_n: u64, destination: u32, class: EndingClass) -> TrunkState {
        self.trunk.sent(self.now);
        let call = self.call(org(org_n), destination, class);
        self.feed(&Event::Ended(call));
        self.trunk.state()
    }

    /// Time passes, and every deadline on the way is kept.
    pub(super) fn wait(&mut self, span: Duration) -> TrunkState {
        let end = self.now + span;
        while let Some(due) = self.trunk.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.due();
        }
        self.now = end;
        self.trunk.state()
    }

    pub(super) fn wait_s(&mut self, s: u64) -> TrunkState {
        self.wait(Duration::from_secs(s))
    }

    pub(super) fn due(&mut self) -> Option<Transition<TrunkState, Evidence>> {
        self.trunk.on_deadline(self.now, self.around, &mut self.rng).transition
    }

    pub(super) fn standing(&self, destination: u32) -> Result<Standing, Refusal> {
        self.trunk.standing(self.now, &to(destination), None).map_err(|w| w.why)
    }

    pub(super) fn level(&self) -> u32 {
        self.trunk.why(self.now).back_off_level
    }
}
