//! Whether a callee is dialled again after a round: the customer's redial policy.
//!
//! A round is everything that failover does for one dialling of the callee; a call has at least one. Redial begins a
//! new chain of attempts, so `on_unknown` and `attempts_max` speak of each round alone: with `on_unknown: fail` a
//! phone may still ring once a round, as often as the customer's `redial` says, and not once more.

use time::{Duration, OffsetDateTime};

use crate::{
    call::Reason,
    ending::EndingClass,
    request::{Redial, RedialOn},
};

/// How a round ended, as customers name it in `redial.on`; `None`: no word of theirs names it, and the call ends.
///
/// A callee who declined has decided; one who escalated has handed it on. What never reached him (no trunk, an
/// unknown outcome) is failover's concern, not redial's, unless an attempt before it was interrupted: then he has heard
/// the phone, and not the message.
#[must_use]
pub fn word(reason: Reason, endings: &[EndingClass]) -> Option<RedialOn> {
    match reason {
        Reason::RingTimeout | Reason::Unreachable => Some(RedialOn::NoAnswer),
        Reason::UserBusy => Some(RedialOn::Busy),
        Reason::Machine => Some(RedialOn::Machine),
        Reason::AnsweredNoAck => Some(RedialOn::AnsweredNoAck),
        Reason::Interrupted => Some(RedialOn::Interrupted),
        Reason::NoHealthyRoute | Reason::TrunkUnavailable | Reason::OutcomeUnknown | Reason::MediaError
            if endings.contains(&EndingClass::Interrupted) =>
        {
            Some(RedialOn::Interrupted)
        }
        Reason::Acknowledged
        | Reason::Escalated
        | Reason::Played
        | Reason::Declined
        | Reason::Api
        | Reason::InvalidNumber
        | Reason::NotPermitted
        | Reason::NoHealthyRoute
        | Reason::TrunkUnavailable
        | Reason::MediaError
        | Reason::DeadlineExceeded
        | Reason::OutcomeUnknown
        | Reason::Throttled => None,
    }
}

/// A round that is over.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// The first is 1.
    pub number: u16,
    /// What it ended with.
    pub reason: Reason,
    /// How its attempts ended.
    pub endings: &'a [EndingClass],
    /// When it ended.
    pub ended: OffsetDateTime,
}

/// When the next round begins. `None`: the call ends with the round's reason.
/// One that could begin only at the deadline or later does not: then that reason says more than `deadline_exceeded`.
#[must_use]
pub fn next_round(
    policy: Option<&Redial>,
    round: Round<'_>,
    deadline: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let policy = policy?;
    let wanted = word(round.reason, round.endings).is_some_and(|word| policy.on.contains(&word));
    let at = round.ended.checked_add(Duration::seconds(policy.delay_s.into()))?;
    (wanted && round.number <= u16::from(policy.max) && at < deadline).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
    const LATE: OffsetDateTime = datetime!(2026-11-24 18:00 UTC);

    fn on(words: &[RedialOn]) -> Redial {
        Redial { on: words.iter().copied().collect(), max: 2, delay_s: 60 }
    }

    #[test]
    fn every_reason_is_named_by_at_most_one_word() {
        let named: Vec<_> =
            Reason::ALL.iter().filter_map(|reason| Some((*reason, word(*reason, &[])?))).collect();
        let expected = [
            (Reason::AnsweredNoAck, RedialOn::AnsweredNoAck),
            (Reason::Machine, RedialOn::Machine),
            (Reason::UserBusy, RedialOn::Busy),
            (Reason::RingTimeout, RedialOn::NoAnswer),
            (Reason::Unreachable, RedialOn::NoAnswer),
            (Reason::Interrupted, RedialOn::Interrupted),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_round_follows_after_the_delay_until_they_are_used_up() {
        let policy = on(&[RedialOn::Busy]);
        let round = |number, reason| Round { number, reason, endings: &[], ended: NOON };
        let after = |number| next_round(Some(&policy), round(number, Reason::UserBusy), LATE);
        let minute = Some(NOON + Duration::MINUTE);
        assert_eq!([1, 2, 3, 4].map(after), [minute, minute, None, None]);
        assert_eq!(next_round(None, round(1, Reason::UserBusy), LATE), None);
        assert_eq!(next_round(Some(&policy), round(1, Reason::Declined), LATE), None);
        assert_eq!(next_round(Some(&policy), round(1, Reason::UserBusy), NOON + Duration::MINUTE), None);
    }

    /// The PBX died while it rang, and then no other could be had: he was rung, and heard nothing.
    #[test]
    fn an_interruption_that_failover_could_not_mend_is_still_one() {
        let met = [EndingClass::Interrupted, EndingClass::Congestion];
        assert_eq!(word(Reason::TrunkUnavailable, &met), Some(RedialOn::Interrupted));
        assert_eq!(word(Reason::TrunkUnavailable, &met[1..]), None);
        assert_eq!(word(Reason::Declined, &met), None, "the other one reached him");
        assert_eq!(word(Reason::UserBusy, &met), Some(RedialOn::Busy));
    }

    proptest! {
        /// Whatever ends rounds: at most `max` follow the first, none for a word that is not listed, none at or after
        /// the deadline, none sooner than the delay.
        #[test]
        fn rounds_are_bounded(
            words in prop::collection::btree_set(prop::sample::select(RedialOn::ALL), 0..5),
            max in 1u8..=10, delay_s in 1u16..=3_600, deadline_s in 1i64..86_400,
            reasons in prop::collection::vec((prop::sample::select(Reason::ALL), 0i64..600), 1..20),
        ) {
            let policy = Redial { on: words.clone(), max, delay_s };
            let deadline = NOON + Duration::seconds(deadline_s);
            let (mut now, mut round) = (NOON, 1);
            for (reason, takes) in reasons {
                now += Duration::seconds(takes);
                let ended = Round { number: round, reason, endings: &[], ended: now };
                let Some(at) = next_round(Some(&policy), ended, deadline) else { break };
                prop_assert!(word(reason, &[]).is_some_and(|word| words.contains(&word)));
                prop_assert_eq!(at - now, Duration::seconds(delay_s.into()));
                prop_assert!(at < deadline);
                (now, round) = (at, round + 1);
            }
            prop_assert!(round <= u16::from(max) + 1);
        }
    }
}
