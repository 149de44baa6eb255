//! What follows an ending: another trunk, or the end of the call.
//!
//! Decided by what the ending means and by whether the phone rang, never by a counter of failures. A callee
//! *known* to have declined, been busy or not picked up is never dialled again here; that is the customer's
//! redial policy, elsewhere.

use crate::{
    call::{Detection, OnUnknown, Rang, Reason},
    ending::{Ending, EndingClass, Talk},
    fleet::OnRefusal,
    request::{CallRequest, KeyAction, OnMachine},
};

/// What decides besides the ending.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'r> {
    /// What was asked for.
    pub request: &'r CallRequest,
    /// The customer wants it ended: nothing follows.
    pub canceled: bool,
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

/// Decides what follows `ending`; `earlier` are the endings of the round's attempts before it.
#[must_use]
pub fn next(ending: &Ending, earlier: &[EndingClass], policy: Policy<'_>) -> Next {
    // A key is a human's hand: whatever else is known or not, that is what came of the call.
    if let Some(reason) = answer_to_key(ending.talk, policy.request) {
        return Next::Stop(reason);
    }
    match wish(ending, earlier, policy) {
        Next::Other if policy.canceled => Next::Stop(Reason::Api),
        Next::Other if sent(ending, earlier) >= usize::from(policy.request.failover.attempts_max) => {
            Next::Stop(exhausted(ending.class, policy.request.on_unknown))
        }
        next @ (Next::Other | Next::Stop(_)) => next,
    }
}

/// Why the call ends by the key that was pressed, if one was that ends it.
fn answer_to_key(talk: Talk, request: &CallRequest) -> Option<Reason> {
    match request.acknowledgement.as_ref()?.meaning(talk.key?)? {
        KeyAction::Acknowledge => Some(Reason::Acknowledged),
        KeyAction::Escalate => Some(Reason::Escalated),
        KeyAction::Repeat => None,
    }
}

/// Why an answered call ends in which no key decided.
fn answered(talk: Talk, policy: Policy<'_>) -> Reason {
    let request = policy.request;
    let machine = talk.machine == Some(Detection::Machine);
    match (request.machine_detection.on_machine, &request.acknowledgement) {
        _ if policy.canceled && !(talk.played && request.acknowledgement.is_none()) => Reason::Api,
        // Hung up on, or left the message: either way no human has it.
        (OnMachine::Hangup | OnMachine::LeaveMessage, _) if machine => Reason::Machine,
        // `continue`: as if a human had answered.
        (OnMachine::Hangup | OnMachine::LeaveMessage | OnMachine::Continue, Some(_)) => Reason::AnsweredNoAck,
        (OnMachine::Hangup | OnMachine::LeaveMessage | OnMachine::Continue, None) => Reason::Played,
    }
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
        _ if last == EndingClass::NoKeys => Reason::Interrupted,
        OnUnknown::Retry if last == EndingClass::NoMedia => Reason::MediaError,
        OnUnknown::Retry if last.is_unsettled() => Reason::OutcomeUnknown,
        OnUnknown::Fail | OnUnknown::Retry => Reason::TrunkUnavailable,
    }
}

fn wish(ending: &Ending, earlier: &[EndingClass], policy: Policy<'_>) -> Next {
    use EndingClass as C;
    let unknown = |reason| match policy.request.on_unknown {
        OnUnknown::Retry => Next::Other,
        OnUnknown::Fail => Next::Stop(reason),
    };
    let believe = |how, reason| match (how, ending.rang) {
        (OnRefusal::Stop, _) => Next::Stop(reason),
        (OnRefusal::Other, Rang::No) => Next::Other,
        (OnRefusal::Other, Rang::Maybe | Rang::Yes) => unknown(Reason::OutcomeUnknown),
    };
    match (ending.class, ending.rang) {
        (C::Answered, _) => Next::Stop(answered(ending.talk, policy)),
        // The callee took the call and heard nothing. He is not dialled twice where that must not be; where the
        // alert must be heard, another node says it.
        (C::NoMedia, _) => unknown(Reason::MediaError),
        // Whatever he pressed was not heard: another node may hear it.
        (C::NoKeys, _) => unknown(Reason::Interrupted),
        // Nothing was left to be said when the PBX died.
        (C::Interrupted, _) if ending.talk.played && policy.request.acknowledgement.is_none() => {
            Next::Stop(Reason::Played)
        }
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
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn request(fields: &str) -> CallRequest {
        let json = format!(r#"{{"to": "+48221234567", "message": {{"audio_id": "builtin:beep"}}{fields}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    fn policy(request: &CallRequest) -> Policy<'_> {
        Policy { request, canceled: false, on_480: OnRefusal::Stop, on_603: OnRefusal::Stop }
    }

    static RETRY: LazyLock<CallRequest> = LazyLock::new(|| request(""));
    static FAIL: LazyLock<CallRequest> = LazyLock::new(|| request(r#", "on_unknown": "fail""#));

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
            (C::NoMedia, Yes, Other, Stop(R::MediaError)),
            (C::NoKeys, Yes, Other, Stop(R::Interrupted)),
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
            assert_eq!(next(&ended(class, rang), &[], policy(&RETRY)), retry, "{class} {rang} retry");
            assert_eq!(next(&ended(class, rang), &[], policy(&FAIL)), fail, "{class} {rang} fail");
        }
        for class in EndingClass::ALL {
            assert!(rows.iter().any(|row| row.0 == *class), "{class} has no row");
        }
    }

    #[test]
    fn no_codec_and_redirects_are_worth_one_other_trunk() {
        for class in [EndingClass::NotAcceptable, EndingClass::Redirected] {
            let second = next(&ended(class, Rang::No), &[class], policy(&RETRY));
            assert_eq!(second, Next::Stop(Reason::TrunkUnavailable));
        }
    }

    #[test]
    fn a_trunk_may_say_that_its_480_and_603_are_its_own_faults() {
        let policy = Policy { on_480: OnRefusal::Other, on_603: OnRefusal::Other, ..policy(&FAIL) };
        assert_eq!(next(&ended(EndingClass::Unreachable, Rang::No), &[], policy), Next::Other);
        assert_eq!(next(&ended(EndingClass::Declined, Rang::No), &[], policy), Next::Other);
        let rejected = next(&ended(EndingClass::Declined, Rang::Yes), &[], policy);
        assert_eq!(rejected, Next::Stop(Reason::Declined));
    }

    #[test]
    fn attempts_that_sent_nothing_do_not_use_up_the_customers_attempts() {
        let down = [EndingClass::ContactDown; 5];
        assert_eq!(next(&ended(EndingClass::Congestion, Rang::No), &down, policy(&RETRY)), Next::Other);
        let sent = [EndingClass::Congestion; 2];
        let third = next(&ended(EndingClass::Congestion, Rang::No), &sent, policy(&RETRY));
        assert_eq!(third, Next::Stop(Reason::TrunkUnavailable));
        let third = next(&ended(EndingClass::CarrierSilent, Rang::Maybe), &sent, policy(&RETRY));
        assert_eq!(third, Next::Stop(Reason::OutcomeUnknown));
    }

    fn talked(talk: Talk) -> Ending {
        Ending { talk, ..ended(EndingClass::Answered, Rang::Yes) }
    }

    #[test]
    fn what_an_answer_means_follows_from_what_was_asked() {
        let key = |key: char| Talk { key: Some(key.try_into().unwrap()), ..Talk::NONE };
        let by = |machine| Talk { machine: Some(machine), ..Talk::NONE };
        let plain = "";
        let ack = r#", "acknowledgement": {"keys": {"1": "acknowledge", "2": "escalate", "*": "repeat"}}"#;
        let detect = r#", "machine_detection": {"mode": "detect"}"#;
        let leave = r#", "machine_detection": {"mode": "detect", "on_machine": "leave_message"}"#;
        let go_on =
            r#", "acknowledgement": {}, "machine_detection": {"mode": "detect", "on_machine": "continue"}"#;
        let both = r#", "acknowledgement": {}, "machine_detection": {"mode": "detect"}"#;
        for (fields, talk, reason) in [
            (plain, Talk::NONE, Reason::Played),
            (plain, key('1'), Reason::Played),
            (ack, Talk::NONE, Reason::AnsweredNoAck),
            (ack, Talk { played: true, ..Talk::NONE }, Reason::AnsweredNoAck),
            (ack, key('1'), Reason::Acknowledged),
            (ack, key('2'), Reason::Escalated),
            (ack, key('*'), Reason::AnsweredNoAck),
            (ack, key('7'), Reason::AnsweredNoAck),
            (detect, by(Detection::Machine), Reason::Machine),
            (detect, by(Detection::Human), Reason::Played),
            (detect, by(Detection::NotSure), Reason::Played),
            (leave, Talk { played: true, ..by(Detection::Machine) }, Reason::Machine),
            (go_on, by(Detection::Machine), Reason::AnsweredNoAck),
            (both, by(Detection::Machine), Reason::Machine),
            (both, Talk { machine: Some(Detection::Machine), ..key('1') }, Reason::Acknowledged),
        ] {
            let request = request(fields);
            assert_eq!(next(&talked(talk), &[], policy(&request)), Next::Stop(reason), "{fields} {talk:?}");
        }
    }

    #[test]
    fn a_key_outweighs_what_became_of_the_pbx() {
        let request = request(r#", "acknowledgement": {}"#);
        let talk = Talk { key: '1'.try_into().ok(), ..Talk::NONE };
        for class in [EndingClass::Interrupted, EndingClass::Unknown, EndingClass::Answered] {
            let ending = Ending { talk, ..ended(class, Rang::Yes) };
            for canceled in [false, true] {
                let policy = Policy { canceled, ..policy(&request) };
                assert_eq!(next(&ending, &[], policy), Next::Stop(Reason::Acknowledged), "{class}");
            }
        }
    }

    #[test]
    fn a_message_that_was_played_to_its_end_is_not_played_again() {
        let ending = Ending {
            talk: Talk { played: true, ..Talk::NONE },
            ..ended(EndingClass::Interrupted, Rang::Yes)
        };
        assert_eq!(next(&ending, &[], policy(&RETRY)), Next::Stop(Reason::Played));
        // Nobody knows whether a key was about to be pressed.
        let ack = request(r#", "acknowledgement": {}"#);
        assert_eq!(next(&ending, &[], policy(&ack)), Next::Other);
    }

    #[test]
    fn a_fleet_that_hears_no_keys_ends_as_not_known_and_not_as_without_acknowledgement() {
        let ack = request(r#", "acknowledgement": {}"#);
        let deaf = ended(EndingClass::NoKeys, Rang::Yes);
        assert_eq!(next(&deaf, &[], policy(&ack)), Next::Other);
        let earlier = [EndingClass::NoKeys; 2];
        assert_eq!(next(&deaf, &earlier, policy(&ack)), Next::Stop(Reason::Interrupted));
        assert_eq!(exhausted(EndingClass::NoKeys, OnUnknown::Retry), Reason::Interrupted);
    }

    #[test]
    fn nothing_follows_a_cancel() {
        let canceled = Policy { canceled: true, ..policy(&RETRY) };
        for class in [EndingClass::Congestion, EndingClass::Interrupted, EndingClass::NoMedia] {
            assert_eq!(next(&ended(class, Rang::No), &[], canceled), Next::Stop(Reason::Api), "{class}");
        }
        assert_eq!(next(&talked(Talk::NONE), &[], canceled), Next::Stop(Reason::Api));
        // It had been said already.
        let said = Talk { played: true, ..Talk::NONE };
        assert_eq!(next(&talked(said), &[], canceled), Next::Stop(Reason::Played));
        let busy = next(&ended(EndingClass::UserBusy, Rang::No), &[], canceled);
        assert_eq!(busy, Next::Stop(Reason::UserBusy));
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
                prop_assert_ne!(next(&ended(class, rang), &earlier, policy(&FAIL)), Next::Other);
            }
        }

        /// The promise "at least one ring": with `retry` an attempt that left doubt is followed by another
        /// while any attempt is left.
        #[test]
        fn retry_never_stops_at_a_doubt(class in any_class(), rang in prop::sample::select(&[Rang::No, Rang::Maybe][..])) {
            if class.is_unsettled() {
                prop_assert_eq!(next(&ended(class, rang), &[], policy(&RETRY)), Next::Other);
            }
        }
    }
}
