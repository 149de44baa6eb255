//! What follows an ending: another trunk, or the end of the call.
//!
//! Decided by what the ending means and by whether the phone rang, never by a counter of failures. A callee
//! *known* to have declined, been busy or not picked up is never dialled again here; that is the customer's
//! redial policy, elsewhere.

use crate::{
    call::{OnUnknown, Rang, Reason},
    ending::{Ending, EndingClass},
    fleet::OnRefusal,
};

/// What decides besides the ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The customer's choice.
    pub on_unknown: OnUnknown,
    /// Most attempts that may have sent an INVITE.
    pub attempts_max: u8,
    /// The trunk's 480.
    pub on_480: OnRefusal,
    /// The trunk's 603.
    pub on_603: OnRefusal,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another trunk on another node, now.
    Other,
    /// The call ends.
    Stop(Reason),
}

/// Decides what follows `ending`; `earlier` are the endings of this call's attempts before it.
#[must_use]
pub fn next(ending: &Ending, earlier: &[EndingClass], policy: Policy) -> Next {
    let next = wish(ending, earlier, policy);
    if next == Next::Other && sent(ending, earlier) >= usize::from(policy.attempts_max) {
        return Next::Stop(exhausted(ending.class, policy.on_unknown));
    }
    next
}

/// Attempts that may have sent an INVITE: only these count against `attempts_max`.
fn sent(ending: &Ending, earlier: &[EndingClass]) -> usize {
    earlier.iter().chain([&ending.class]).filter(|class| class.may_have_reached_carrier()).count()
}

/// Why a call ends that has no trunk or no attempt left after `last`.
#[must_use]
pub fn exhausted(last: EndingClass, on_unknown: OnUnknown) -> Reason {
    match on_unknown {
        // The customer asked for no second ring and got none: what stands is that nobody knows.
        OnUnknown::Fail if last.is_unsettled() => Reason::OutcomeUnknown,
        OnUnknown::Retry if last == EndingClass::Interrupted => Reason::Interrupted,
        OnUnknown::Retry if last.is_unsettled() => Reason::OutcomeUnknown,
        OnUnknown::Fail | OnUnknown::Retry => Reason::TrunkUnavailable,
    }
}

fn wish(ending: &Ending, earlier: &[EndingClass], policy: Policy) -> Next {
    use EndingClass as C;
    let unknown = |reason| match policy.on_unknown {
        OnUnknown::Retry => Next::Other,
        OnUnknown::Fail => Next::Stop(reason),
    };
    let believe = |how, reason| match (how, ending.rang) {
        (OnRefusal::Stop, _) => Next::Stop(reason),
        (OnRefusal::Other, Rang::No) => Next::Other,
        (OnRefusal::Other, Rang::Maybe | Rang::Yes) => unknown(Reason::OutcomeUnknown),
    };
    match (ending.class, ending.rang) {
        (C::Answered, _) => Next::Stop(Reason::Played),
        (C::Canceled, _) => Next::Stop(Reason::Api),
        (C::UserBusy, _) => Next::Stop(Reason::UserBusy),
        // Rejecting a ringing phone is a human's hand, whatever the trunk's 603 means before ringing.
        (C::Declined, Rang::Yes) => Next::Stop(Reason::Declined),
        (C::Declined, Rang::No | Rang::Maybe) => believe(policy.on_603, Reason::Declined),
        (C::Unreachable, _) => believe(policy.on_480, Reason::Unreachable),
        (C::InvalidNumber, _) => Next::Stop(Reason::InvalidNumber),
        (C::RingTimeout | C::EndedAfterRinging, _) => Next::Stop(Reason::RingTimeout),
        (C::Interrupted, _) => unknown(Reason::Interrupted),
        (C::CarrierSilent | C::NoProgress | C::EndedAfterProgress | C::Unknown, _) => {
            unknown(Reason::OutcomeUnknown)
        }
        // Everything below is a failure of trunk or node; a phone that rang has been rung for good.
        (_, Rang::Yes) => Next::Stop(Reason::RingTimeout),
        (_, Rang::Maybe) => unknown(Reason::OutcomeUnknown),
        // Worth one other carrier; a second one that says the same is believed.
        (class @ (C::NotAcceptable | C::Redirected), Rang::No) if earlier.contains(&class) => {
            Next::Stop(Reason::TrunkUnavailable)
        }
        (
            C::NotAcceptable
            | C::Redirected
            | C::Forbidden
            | C::Unauthorized
            | C::Congestion
            | C::CarrierError
            | C::CarrierTimeout
            | C::ContactDown
            | C::NodeFault
            | C::NotSent
            | C::Rejected,
            Rang::No,
        ) => Next::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        on_unknown: OnUnknown::Retry,
        attempts_max: 3,
        on_480: OnRefusal::Stop,
        on_603: OnRefusal::Stop,
    };
    const FAIL: Policy = Policy { on_unknown: OnUnknown::Fail, ..POLICY };

    fn ended(class: EndingClass, rang: Rang) -> Ending {
        Ending::without_answer(class, rang)
    }

    #[test]
    fn every_row_of_the_cause_table() {
        use EndingClass as C;
        use Next::{Other, Stop};
        use Rang::{Maybe, No, Yes};
        use Reason as R;
        // class, rang, next under retry, next under fail
        let rows = [
            (C::Answered, Yes, Stop(R::Played), Stop(R::Played)),
            (C::UserBusy, No, Stop(R::UserBusy), Stop(R::UserBusy)),
            (C::UserBusy, Yes, Stop(R::UserBusy), Stop(R::UserBusy)),
            (C::Declined, No, Stop(R::Declined), Stop(R::Declined)),
            (C::RingTimeout, Yes, Stop(R::RingTimeout), Stop(R::RingTimeout)),
            (C::EndedAfterRinging, Yes, Stop(R::RingTimeout), Stop(R::RingTimeout)),
            (C::EndedAfterProgress, Maybe, Other, Stop(R::OutcomeUnknown)),
            (C::Unreachable, No, Stop(R::Unreachable), Stop(R::Unreachable)),
            (C::InvalidNumber, No, Stop(R::InvalidNumber), Stop(R::InvalidNumber)),
            (C::Forbidden, No, Other, Other),
            (C::Unauthorized, No, Other, Other),
            (C::NotAcceptable, No, Other, Other),
            (C::Redirected, No, Other, Other),
            (C::Congestion, No, Other, Other),
            (C::CarrierError, No, Other, Other),
            (C::CarrierTimeout, No, Other, Other),
            (C::CarrierSilent, Maybe, Other, Stop(R::OutcomeUnknown)),
            (C::NoProgress, Maybe, Other, Stop(R::OutcomeUnknown)),
            (C::NoProgress, Yes, Other, Stop(R::OutcomeUnknown)),
            (C::ContactDown, No, Other, Other),
            (C::NodeFault, No, Other, Other),
            (C::NotSent, No, Other, Other),
            (C::Rejected, No, Other, Other),
            (C::Canceled, Maybe, Stop(R::Api), Stop(R::Api)),
            (C::Interrupted, Yes, Other, Stop(R::Interrupted)),
            (C::Unknown, Maybe, Other, Stop(R::OutcomeUnknown)),
        ];
        for (class, rang, retry, fail) in rows {
            assert_eq!(next(&ended(class, rang), &[], POLICY), retry, "{class} {rang} retry");
            assert_eq!(next(&ended(class, rang), &[], FAIL), fail, "{class} {rang} fail");
        }
        for class in EndingClass::ALL {
            assert!(rows.iter().any(|row| row.0 == *class), "{class} has no row");
        }
    }

    #[test]
    fn no_codec_and_redirects_are_worth_one_other_trunk() {
        for class in [EndingClass::NotAcceptable, EndingClass::Redirected] {
            let second = next(&ended(class, Rang::No), &[class], POLICY);
            assert_eq!(second, Next::Stop(Reason::TrunkUnavailable));
        }
    }

    #[test]
    fn a_trunk_may_say_that_its_480_and_603_are_its_own_faults() {
        let policy = Policy { on_480: OnRefusal::Other, on_603: OnRefusal::Other, ..FAIL };
        assert_eq!(next(&ended(EndingClass::Unreachable, Rang::No), &[], policy), Next::Other);
        assert_eq!(next(&ended(EndingClass::Declined, Rang::No), &[], policy), Next::Other);
        let rejected = next(&ended(EndingClass::Declined, Rang::Yes), &[], policy);
        assert_eq!(rejected, Next::Stop(Reason::Declined));
    }

    #[test]
    fn attempts_that_sent_nothing_do_not_use_up_the_customers_attempts() {
        let down = [EndingClass::ContactDown; 5];
        assert_eq!(next(&ended(EndingClass::Congestion, Rang::No), &down, POLICY), Next::Other);
        let sent = [EndingClass::Congestion; 2];
        let third = next(&ended(EndingClass::Congestion, Rang::No), &sent, POLICY);
        assert_eq!(third, Next::Stop(Reason::TrunkUnavailable));
        let third = next(&ended(EndingClass::CarrierSilent, Rang::Maybe), &sent, POLICY);
        assert_eq!(third, Next::Stop(Reason::OutcomeUnknown));
    }

    fn any_class() -> impl Strategy<Value = EndingClass> {
        prop::sample::select(EndingClass::ALL)
    }

    proptest! {
        /// The promise "at most one ring": with `fail` nothing follows an attempt that rang or may have.
        #[test]
        fn fail_never_follows_a_possible_ring(class in any_class(), rang in prop::sample::select(Rang::ALL),
                                              earlier in prop::collection::vec(any_class(), 0..4)) {
            let possible_ring = rang != Rang::No || class.is_unsettled();
            if possible_ring {
                prop_assert_ne!(next(&ended(class, rang), &earlier, FAIL), Next::Other);
            }
        }

        /// The promise "at least one ring": with `retry` an attempt that left doubt is followed by another
        /// while any attempt is left.
        #[test]
        fn retry_never_stops_at_a_doubt(class in any_class(), rang in prop::sample::select(&[Rang::No, Rang::Maybe][..])) {
            if class.is_unsettled() {
                prop_assert_eq!(next(&ended(class, rang), &[], POLICY), Next::Other);
            }
        }
    }
}
