//! What an ending is charged against: the last column of the cause table.
//!
//! A busy callee is not the carrier's fault, a name that does not resolve is the node's, and a refusal is
//! first of all about who called whom. That a phone rang, was busy or was declined proves that the carrier
//! delivers, whether or not anybody answered (ITU-T E.425 calls these calls effective).

use std::time::Duration;

use super::Policy;
use crate::{
    call::{Rang, UnknownWord, words},
    ending::{Ending, EndingClass},
};
use serde::{Deserialize, Serialize};

words! {
    /// Against what an ending counts.
    Charge {
        /// Nothing: it says nothing of the trunk.
        None = "none",
        /// For the trunk: answered.
        Success = "success",
        /// For the trunk: the carrier delivered the call, and the callee did not take it.
        Delivered = "delivered",
        /// The trunk, once several destinations (and customers) agree.
        Trunk = "trunk",
        /// The trunk: not a byte came back. At once, unless the carrier was heard on other calls meanwhile.
        TrunkSilent = "trunk_silent",
        /// The trunk, at once: Asterisk has no contact to send to.
        TrunkAtOnce = "trunk_at_once",
        /// The trunk, at once: its credentials are refused.
        Credentials = "credentials",
        /// The destination or the caller id on this trunk.
        DestinationOrCaller = "destination_or_caller",
        /// The pace: a 503 near a limit or among successes.
        Pace = "pace",
        /// The trunk's rate of effective calls only: no such number.
        Rate = "rate",
        /// The node.
        Node = "node",
    }
}

words! {
    /// How busy the trunk (or its carrier's account) was when the call was sent.
    Load {
        /// Far from its limits.
        Normal = "normal",
        /// Near its calls per second or channels.
        NearLimit = "near_limit",
    }
}

impl Charge {
    /// Whether the carrier itself said something: then it hears us.
    #[must_use]
    pub const fn heard(self) -> bool {
        match self {
            Self::Success
            | Self::Delivered
            | Self::Trunk
            | Self::Credentials
            | Self::DestinationOrCaller
            | Self::Pace
            | Self::Rate => true,
            Self::None | Self::TrunkSilent | Self::TrunkAtOnce | Self::Node => false,
        }
    }

    /// Whether the carrier carried the call as far as the callee.
    #[must_use]
    pub const fn delivered(self) -> bool {
        matches!(self, Self::Success | Self::Delivered)
    }
}

/// Reads off the charge. `waited`: how long the attempt waited for progress before it was given up.
#[must_use]
pub fn charge(ending: &Ending, load: Load, waited: Duration, policy: &Policy) -> Charge {
    use EndingClass as C;
    let about_pace = |load| match load {
        Load::NearLimit => Charge::Pace,
        Load::Normal => Charge::Trunk,
    };
    match ending.class {
        // The carrier has done its part, whatever the node's dialplan is.
        C::Answered | C::NoKeys => Charge::Success,
        C::UserBusy | C::Declined | C::RingTimeout | C::EndedAfterRinging => Charge::Delivered,
        // "As the code says", for a 183 may be an announcement that the carrier is out of lines.
        C::EndedAfterProgress => match ending.sip_code {
            Some(503) => about_pace(load),
            Some(500..=599) => Charge::Trunk,
            Some(403) => Charge::DestinationOrCaller,
            Some(_) | None => Charge::None,
        },
        // Either the phone is off, or the carrier says so of what it cannot reach.
        C::Unreachable | C::NotAcceptable | C::Redirected => Charge::None,
        C::InvalidNumber => Charge::Rate,
        C::Forbidden => Charge::DestinationOrCaller,
        C::Unauthorized => Charge::Credentials,
        C::Congestion => about_pace(load),
        C::CarrierError | C::CarrierTimeout => Charge::Trunk,
        C::CarrierSilent => Charge::TrunkSilent,
        // A 180 that crossed our CANCEL: it would have rung.
        C::NoProgress if ending.rang == Rang::Yes => Charge::Delivered,
        // An impatient customer gives up before a far mobile phone can be found.
        C::NoProgress if waited < policy.no_progress_min => Charge::None,
        C::NoProgress => Charge::Trunk,
        C::ContactDown => Charge::TrunkAtOnce,
        C::NoMedia | C::NodeFault | C::NotSent | C::Rejected => Charge::Node,
        // The customer, the node's death or nobody knows.
        C::Canceled | C::Interrupted | C::Unknown => Charge::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(class: EndingClass, rang: Rang, load: Load) -> Charge {
        let ending = Ending::without_answer(class, rang);
        charge(&ending, load, Duration::from_secs(8), &Policy::default())
    }

    #[test]
    fn every_row_of_the_cause_table() {
        use Charge as H;
        use EndingClass as C;
        let rows = [
            (C::Answered, H::Success),
            (C::NoMedia, H::Node),
            (C::NoKeys, H::Success),
            (C::UserBusy, H::Delivered),
            (C::Declined, H::Delivered),
            (C::RingTimeout, H::Delivered),
            (C::EndedAfterRinging, H::Delivered),
            (C::EndedAfterProgress, H::None),
            (C::Unreachable, H::None),
            (C::InvalidNumber, H::Rate),
            (C::Forbidden, H::DestinationOrCaller),
            (C::Unauthorized, H::Credentials),
            (C::NotAcceptable, H::None),
            (C::Redirected, H::None),
            (C::Congestion, H::Trunk),
            (C::CarrierError, H::Trunk),
            (C::CarrierTimeout, H::Trunk),
            (C::CarrierSilent, H::TrunkSilent),
            (C::NoProgress, H::Trunk),
            (C::ContactDown, H::TrunkAtOnce),
            (C::NodeFault, H::Node),
            (C::NotSent, H::Node),
            (C::Rejected, H::Node),
            (C::Canceled, H::None),
            (C::Interrupted, H::None),
            (C::Unknown, H::None),
        ];
        for class in EndingClass::ALL {
            let row = rows.iter().find(|row| row.0 == *class).map(|row| row.1);
            assert_eq!(row, Some(of(*class, Rang::No, Load::Normal)), "{class}");
        }
    }

    #[test]
    fn a_503_near_a_limit_is_about_pace_and_no_other_failure_is() {
        assert_eq!(of(EndingClass::Congestion, Rang::No, Load::NearLimit), Charge::Pace);
        assert_eq!(of(EndingClass::CarrierError, Rang::No, Load::NearLimit), Charge::Trunk);
    }

    #[test]
    fn an_impatient_customer_proves_nothing() {
        let ending = Ending::without_answer(EndingClass::NoProgress, Rang::Maybe);
        let after = |s| charge(&ending, Load::Normal, Duration::from_secs(s), &Policy::default());
        assert_eq!((after(2), after(8)), (Charge::None, Charge::Trunk));
        assert_eq!(of(EndingClass::NoProgress, Rang::Yes, Load::Normal), Charge::Delivered);
    }

    #[test]
    fn after_a_183_the_code_speaks() {
        let with = |sip_code| {
            let ending =
                Ending { sip_code, ..Ending::without_answer(EndingClass::EndedAfterProgress, Rang::Maybe) };
            charge(&ending, Load::Normal, Duration::ZERO, &Policy::default())
        };
        assert_eq!(with(Some(503)), Charge::Trunk);
        assert_eq!(with(Some(500)), Charge::Trunk);
        assert_eq!(with(Some(403)), Charge::DestinationOrCaller);
        assert_eq!(with(Some(480)), Charge::None);
        assert_eq!(with(None), Charge::None);
    }
}
