//! What the ending of an attempt means: the cause table.
//!
//! Asterisk tells little and late: `OriginateResponse` says `Reason: 0` for 486, 503, 603 and 403 alike, and
//! 401, 403, 407 and 603 all become Q.850 21 (measured on 22.10). So an ending is read from the SIP code
//! (`TechCause`), where there is none from the Q.850 cause, and in both cases from whether the phone rang
//! and from who ended it. [`classify`] is the table; every row of it is a test below.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    call::{Detection, Rang, UnknownWord, words},
    request::Key,
};

words! {
    /// How an attempt ended, by what the ending means. The attempt's `reason` in the API, and a label of
    /// the attempt counters.
    EndingClass {
        /// It was answered, and has ended since.
        Answered = "answered",
        /// It was answered, and the node did not have the message: nobody heard it.
        NoMedia = "no_media",
        /// It was answered, and a key was waited for that the node's dialplan cannot hear.
        NoKeys = "no_keys",
        /// 486 or 600.
        UserBusy = "user_busy",
        /// 603.
        Declined = "declined",
        /// It rang until the time was up.
        RingTimeout = "ring_timeout",
        /// It rang, and then the carrier ended it.
        EndedAfterRinging = "ended_after_ringing",
        /// 183, which may have been a ring, and then a failure.
        EndedAfterProgress = "ended_after_progress",
        /// 480.
        Unreachable = "unreachable",
        /// 404, 410, 484, 485, 604.
        InvalidNumber = "invalid_number",
        /// 403.
        Forbidden = "forbidden",
        /// 401 or 407 although the trunk has credentials.
        Unauthorized = "unauthorized",
        /// 488 or 606: no common codec.
        NotAcceptable = "not_acceptable",
        /// 3xx: never followed.
        Redirected = "redirected",
        /// 503.
        Congestion = "congestion",
        /// Another 5xx, or a 4xx that says nothing about the callee.
        CarrierError = "carrier_error",
        /// 408 that the carrier sent.
        CarrierTimeout = "carrier_timeout",
        /// Nothing came back at all (Timer B).
        CarrierSilent = "carrier_silent",
        /// 100, and then neither 180 nor 183 in time.
        NoProgress = "no_progress",
        /// Asterisk made no channel: contact unreachable or endpoint unknown. No INVITE left.
        ContactDown = "contact_down",
        /// The node failed before an INVITE left (a name that did not resolve).
        NodeFault = "node_fault",
        /// The Originate never left: the node's AMI was down.
        NotSent = "not_sent",
        /// Asterisk refused the Originate.
        Rejected = "rejected",
        /// The customer canceled it.
        Canceled = "canceled",
        /// The node died or was cut off while the phone rang or the message played, or took with it whether a key
        /// was pressed.
        Interrupted = "interrupted",
        /// It cannot be known how it ended.
        Unknown = "unknown",
    }
}

impl EndingClass {
    /// Whether an INVITE may have reached the carrier.
    #[must_use]
    pub const fn may_have_reached_carrier(self) -> bool {
        match self {
            Self::ContactDown | Self::NodeFault | Self::NotSent | Self::Rejected => false,
            Self::Answered
            | Self::NoMedia
            | Self::NoKeys
            | Self::UserBusy
            | Self::Declined
            | Self::RingTimeout
            | Self::EndedAfterRinging
            | Self::EndedAfterProgress
            | Self::Unreachable
            | Self::InvalidNumber
            | Self::Forbidden
            | Self::Unauthorized
            | Self::NotAcceptable
            | Self::Redirected
            | Self::Congestion
            | Self::CarrierError
            | Self::CarrierTimeout
            | Self::CarrierSilent
            | Self::NoProgress
            | Self::Canceled
            | Self::Interrupted
            | Self::Unknown => true,
        }
    }

    /// Whether nobody knows what the callee met.
    #[must_use]
    pub fn is_unsettled(self) -> bool {
        matches!(
            self,
            Self::CarrierSilent
                | Self::NoProgress
                | Self::EndedAfterProgress
                | Self::Interrupted
                | Self::Unknown
        )
    }
}

words! {
    /// What a trunk's 183 means.
    EarlyMedia {
        /// A phone rings.
        Ringing = "ringing",
        /// No phone rings yet (an announcement, a tone of the carrier's own).
        NotRinging = "not_ringing",
        /// It may be either.
        Maybe = "maybe",
    }
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// The other side, or Asterisk on its behalf.
    Carrier,
    /// We did: no 180 and no 183 in `progress_timeout_s`.
    ProgressTimeout,
    /// We did: it rang for `ring_timeout_s`.
    RingTimeout,
    /// We did: the customer canceled.
    Cancel,
    /// We did: it was answered, and lasted for the time limit.
    TimeLimit,
}

/// What was seen of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// A channel existed, so an INVITE may have left.
    pub channel: bool,
    /// 183 was seen.
    pub progress: bool,
    /// 180 was seen.
    pub ringing: bool,
    /// It was answered.
    pub answered: bool,
    /// What happened since.
    pub talk: Talk,
    /// A key was waited for, and the node's dialplan hears none.
    pub is_deaf: bool,
    /// Nobody watched it for a while (a cut, a restart): a 183 may have come then and left no trace.
    pub blind: bool,
    /// SIP code of the final answer: the carrier's or, for time-outs, Asterisk's own.
    pub sip_code: Option<u16>,
    /// Asterisk's Q.850 cause; 0 counts as absent.
    pub q850: Option<u16>,
    /// From the Originate's acceptance to the end.
    pub dialled: Duration,
    /// Who ended it.
    pub ended_by: EndedBy,
}

/// What the trunk's declaration says about reading its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What a 183 means.
    pub early_media: EarlyMedia,
    /// Timer B of the node's Asterisk (64 × `timer_t1`): a 408 no earlier than this is Asterisk's own.
    pub timer_b: Duration,
}

/// What happened in an answered call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Talk {
    /// The first key that ends the call by its meaning.
    pub key: Option<Key>,
    /// Who answered, where that was looked for.
    pub machine: Option<Detection>,
    /// The message was played to its last repeat.
    pub played: bool,
    /// The node did not have the message.
    pub no_media: bool,
    /// A key was waited for, and none was heard, which does not say that none was pressed: the node could not be asked.
    /// Its flight record may still tell.
    pub untold: bool,
}

impl Talk {
    /// Nothing was heard of any of it.
    pub const NONE: Self = Self { key: None, machine: None, played: false, no_media: false, untold: false };
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What it means.
    pub class: EndingClass,
    /// Whether the phone rang.
    pub rang: Rang,
    /// SIP code, as seen.
    pub sip_code: Option<u16>,
    /// Q.850 cause, as seen.
    pub q850: Option<u16>,
    /// What happened after the answer.
    pub talk: Talk,
}

impl Ending {
    /// An ending that no carrier's answer tells of.
    #[must_use]
    pub const fn without_answer(class: EndingClass, rang: Rang) -> Self {
        Self { class, rang, sip_code: None, q850: None, talk: Talk::NONE }
    }
}

/// Share of Timer B from which a 408 is taken for Asterisk's own: its timer and our clock start apart.
const TIMER_B_TOLERANCE: f64 = 0.9;

/// Reads an ending.
#[must_use]
pub fn classify(seen: &Evidence, reading: Reading) -> Ending {
    // A carrier may write any number: what is no code is told as none.
    let q850 = seen.q850.filter(|cause| (1..=127).contains(cause));
    let sip_code = seen.sip_code.filter(|code| (100..=699).contains(code));
    let seen = &Evidence { sip_code, ..*seen };
    let rang = rang(seen, reading.early_media);
    let silent = seen.talk.no_media && !seen.talk.played && seen.talk.key.is_none();
    let class = if seen.answered && silent {
        EndingClass::NoMedia
    } else if seen.answered && seen.is_deaf {
        EndingClass::NoKeys
    } else if seen.answered {
        EndingClass::Answered
    } else if !seen.channel {
        EndingClass::ContactDown
    } else {
        match seen.ended_by {
            EndedBy::Cancel => EndingClass::Canceled,
            EndedBy::RingTimeout => EndingClass::RingTimeout,
            // A 180 that crossed our CANCEL changes `rang`, not the fact that we cut it off.
            EndedBy::ProgressTimeout => EndingClass::NoProgress,
            EndedBy::Carrier | EndedBy::TimeLimit => by_answer(seen, q850, reading, rang),
        }
    };
    // What we cut off ourselves before any sign of progress may have been about to ring.
    let rang = match (class, rang) {
        (EndingClass::ContactDown, _) => Rang::No,
        (
            EndingClass::NoProgress
            | EndingClass::Canceled
            | EndingClass::CarrierSilent
            | EndingClass::Unknown,
            Rang::No,
        ) => Rang::Maybe,
        (_, rang) => rang,
    };
    Ending { class, rang, sip_code, q850, talk: seen.talk }
}

/// Whether the phone rang, by what was seen: 180 is yes; 183 is what the trunk says it is.
#[must_use]
pub fn rang(seen: &Evidence, early_media: EarlyMedia) -> Rang {
    if seen.answered || seen.ringing {
        return Rang::Yes;
    }
    match (seen.progress, early_media) {
        (_, EarlyMedia::NotRinging) => Rang::No,
        (true, EarlyMedia::Ringing) => Rang::Yes,
        (true, EarlyMedia::Maybe) => Rang::Maybe,
        (false, EarlyMedia::Ringing | EarlyMedia::Maybe) if seen.blind => Rang::Maybe,
        (false, EarlyMedia::Ringing | EarlyMedia::Maybe) => Rang::No,
    }
}

fn by_answer(seen: &Evidence, q850: Option<u16>, reading: Reading, rang: Rang) -> EndingClass {
    let answer = match seen.sip_code {
        Some(code) => by_sip(code, seen.dialled, reading.timer_b),
        None => by_q850(q850),
    };
    match (answer, rang) {
        // What the callee did is what it is, whether it rang before or not.
        (EndingClass::UserBusy | EndingClass::Declined, _) => answer,
        // Asterisk's own end of an Originate that rang is 480 with Q.850 19.
        (EndingClass::Unreachable, Rang::Yes) => EndingClass::RingTimeout,
        (_, Rang::Yes) => EndingClass::EndedAfterRinging,
        // Announcements come as 183: the carrier then says what is wrong with the number.
        (EndingClass::Unreachable | EndingClass::InvalidNumber, Rang::Maybe) => answer,
        (EndingClass::CarrierSilent | EndingClass::Unknown, Rang::Maybe) => answer,
        (_, Rang::Maybe) => EndingClass::EndedAfterProgress,
        (_, Rang::No) => answer,
    }
}

fn timed_out(dialled: Duration, timer_b: Duration) -> EndingClass {
    if dialled >= timer_b.mul_f64(TIMER_B_TOLERANCE) {
        EndingClass::CarrierSilent
    } else {
        EndingClass::CarrierTimeout
    }
}

fn by_sip(code: u16, dialled: Duration, timer_b: Duration) -> EndingClass {
    match code {
        300..=399 => EndingClass::Redirected,
        401 | 407 => EndingClass::Unauthorized,
        403 => EndingClass::Forbidden,
        404 | 410 | 484 | 485 | 604 => EndingClass::InvalidNumber,
        408 => timed_out(dialled, timer_b),
        480 => EndingClass::Unreachable,
        486 | 600 => EndingClass::UserBusy,
        // 487 answers a CANCEL that was not ours: somebody at the node hung up what may have been ringing.
        487 => EndingClass::Unknown,
        488 | 606 => EndingClass::NotAcceptable,
        503 => EndingClass::Congestion,
        // 6xx says that trying elsewhere is of no use (RFC 3261 section 21.6).
        601..=699 => EndingClass::Declined,
        400..=599 => EndingClass::CarrierError,
        // Not a final failure: Asterisk has told something we do not understand.
        _ => EndingClass::Unknown,
    }
}

/// Without a SIP code (Asterisk before 20.17 and 22.7 whose flight record was lost) some causes are
/// ambiguous, and what is ambiguous about the callee is unknown.
fn by_q850(cause: Option<u16>) -> EndingClass {
    match cause {
        Some(17) => EndingClass::UserBusy,
        Some(1 | 22 | 28) => EndingClass::InvalidNumber,
        // A carrier's own 408 leaves its code in the flight record; Timer B leaves none (measured).
        Some(18) => EndingClass::CarrierSilent,
        Some(27 | 38 | 41) => EndingClass::CarrierError,
        Some(34 | 42) => EndingClass::Congestion,
        Some(23) => EndingClass::Redirected,
        Some(58) => EndingClass::NotAcceptable,
        // 19 is 480 and a local time-out, 21 is 401, 403, 407 and 603, 16 and 127 are anything.
        Some(_) | None => EndingClass::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READING: Reading =
        Reading { early_media: EarlyMedia::Maybe, timer_b: Duration::from_millis(6_400) };

    fn seen(sip_code: u16, q850: u16) -> Evidence {
        Evidence {
            channel: true,
            progress: false,
            ringing: false,
            answered: false,
            talk: Talk::default(),
            is_deaf: false,
            blind: false,
            sip_code: Some(sip_code),
            q850: Some(q850),
            dialled: Duration::from_millis(40),
            ended_by: EndedBy::Carrier,
        }
    }

    fn class(seen: Evidence) -> (EndingClass, Rang) {
        let ending = classify(&seen, READING);
        (ending.class, ending.rang)
    }

    #[test]
    fn no_channel_means_that_no_invite_left() {
        let seen = Evidence { channel: false, sip_code: None, q850: None, ..seen(0, 0) };
        assert_eq!(class(seen), (EndingClass::ContactDown, Rang::No));
    }

    #[test]
    fn each_sip_answer_before_ringing() {
        use EndingClass as C;
        let rows: &[(&[u16], C)] = &[
            (&[500, 502, 504, 513, 405, 420], C::CarrierError),
            (&[503], C::Congestion),
            (&[408], C::CarrierTimeout),
            (&[401, 407], C::Unauthorized),
            (&[403], C::Forbidden),
            (&[488, 606], C::NotAcceptable),
            (&[404, 484, 485, 410, 604], C::InvalidNumber),
            (&[300, 301, 302, 305, 380], C::Redirected),
            (&[480], C::Unreachable),
            (&[486, 600], C::UserBusy),
            (&[603, 607], C::Declined),
        ];
        for (codes, expected) in rows {
            for code in *codes {
                assert_eq!(class(seen(*code, 0)), (*expected, Rang::No), "{code}");
            }
        }
    }

    #[test]
    fn a_local_408_is_silence_and_silence_may_have_rung() {
        let at = |ms| class(Evidence { dialled: Duration::from_millis(ms), ..seen(408, 18) });
        assert_eq!(at(6_401), (EndingClass::CarrierSilent, Rang::Maybe));
        assert_eq!(at(6_300), (EndingClass::CarrierSilent, Rang::Maybe));
        assert_eq!(at(2_000), (EndingClass::CarrierTimeout, Rang::No));
    }

    /// Asterisk keeps its CANCEL back until the carrier says anything, and sends its INVITE again meanwhile: a phone may
    /// ring for a moment after the end (seen with a carrier whose cable was out).
    #[test]
    fn what_was_canceled_before_any_sign_may_have_rung() {
        let seen = Evidence { ended_by: EndedBy::Cancel, sip_code: None, ..seen(0, 16) };
        assert_eq!(class(seen), (EndingClass::Canceled, Rang::Maybe));
        assert_eq!(class(Evidence { ringing: true, ..seen }), (EndingClass::Canceled, Rang::Yes));
    }

    #[test]
    fn a_trying_that_leads_nowhere_may_have_rung() {
        let seen = Evidence { ended_by: EndedBy::ProgressTimeout, ..seen(487, 0) };
        assert_eq!(class(seen), (EndingClass::NoProgress, Rang::Maybe));
        // 180 crossed our CANCEL.
        assert_eq!(class(Evidence { ringing: true, ..seen }), (EndingClass::NoProgress, Rang::Yes));
    }

    #[test]
    fn after_ringing_only_busy_and_declined_keep_their_names() {
        let after = |code, q850| class(Evidence { ringing: true, ..seen(code, q850) });
        assert_eq!(after(486, 17), (EndingClass::UserBusy, Rang::Yes));
        assert_eq!(after(603, 21), (EndingClass::Declined, Rang::Yes));
        assert_eq!(after(480, 19), (EndingClass::RingTimeout, Rang::Yes));
        for code in [408, 487, 500, 503, 404, 403] {
            assert_eq!(after(code, 0), (EndingClass::EndedAfterRinging, Rang::Yes), "{code}");
        }
        let ours = Evidence { ringing: true, ended_by: EndedBy::RingTimeout, ..seen(487, 0) };
        assert_eq!(class(ours), (EndingClass::RingTimeout, Rang::Yes));
    }

    #[test]
    fn a_183_means_what_the_trunk_says() {
        let seen = Evidence { progress: true, ..seen(503, 34) };
        let with = |early_media| {
            let ending = classify(&seen, Reading { early_media, ..READING });
            (ending.class, ending.rang)
        };
        assert_eq!(with(EarlyMedia::Maybe), (EndingClass::EndedAfterProgress, Rang::Maybe));
        assert_eq!(with(EarlyMedia::NotRinging), (EndingClass::Congestion, Rang::No));
        assert_eq!(with(EarlyMedia::Ringing), (EndingClass::EndedAfterRinging, Rang::Yes));
        let announced = Evidence { sip_code: Some(404), ..seen };
        assert_eq!(class(announced), (EndingClass::InvalidNumber, Rang::Maybe));
    }

    #[test]
    fn an_answer_is_a_success_whatever_ends_it() {
        let seen = Evidence { answered: true, sip_code: None, q850: Some(0), ..seen(0, 0) };
        let ending = classify(&seen, READING);
        assert_eq!((ending.class, ending.rang, ending.q850), (EndingClass::Answered, Rang::Yes, None));
    }

    #[test]
    fn a_message_that_nobody_heard_is_no_answer_to_the_alert() {
        let talk = Talk { no_media: true, ..Talk::default() };
        let silent = Evidence { answered: true, talk, sip_code: None, q850: Some(16), ..seen(0, 0) };
        assert_eq!(class(silent), (EndingClass::NoMedia, Rang::Yes));
        // Who presses a key has heard something.
        let talk = Talk { key: '1'.try_into().ok(), ..talk };
        assert_eq!(class(Evidence { talk, ..silent }), (EndingClass::Answered, Rang::Yes));
        assert_eq!(
            class(Evidence { answered: false, sip_code: Some(486), ..silent }).0,
            EndingClass::UserBusy
        );
    }

    #[test]
    fn without_a_sip_code_the_cause_speaks_where_it_is_not_ambiguous() {
        let by = |q850| class(Evidence { sip_code: None, ..seen(0, q850) }).0;
        assert_eq!(by(17), EndingClass::UserBusy);
        assert_eq!(by(34), EndingClass::Congestion);
        assert_eq!(by(1), EndingClass::InvalidNumber);
        for ambiguous in [0, 16, 19, 21, 127] {
            assert_eq!(by(ambiguous), EndingClass::Unknown, "{ambiguous}");
        }
    }

    #[test]
    fn silence_leaves_no_code_in_the_record_and_is_silence_whenever_it_is_read() {
        let seen = Evidence { sip_code: None, dialled: Duration::ZERO, ..seen(0, 18) };
        assert_eq!(class(seen), (EndingClass::CarrierSilent, Rang::Maybe));
    }

    #[test]
    fn a_183_may_have_come_while_nobody_watched() {
        let seen = Evidence { blind: true, ..seen(503, 34) };
        let with = |early_media| {
            let ending = classify(&seen, Reading { early_media, ..READING });
            (ending.class, ending.rang)
        };
        assert_eq!(with(EarlyMedia::Maybe), (EndingClass::EndedAfterProgress, Rang::Maybe));
        assert_eq!(with(EarlyMedia::Ringing), (EndingClass::EndedAfterProgress, Rang::Maybe));
        assert_eq!(with(EarlyMedia::NotRinging), (EndingClass::Congestion, Rang::No));
        assert_eq!(class(Evidence { blind: true, ..self::seen(486, 17) }).0, EndingClass::UserBusy);
    }

    #[test]
    fn a_code_that_is_none_is_told_as_none() {
        let ending = classify(&seen(799, 200), READING);
        assert_eq!((ending.class, ending.sip_code, ending.q850), (EndingClass::Unknown, None, None));
    }

    #[test]
    fn a_hang_up_by_a_strange_hand_is_unknown() {
        assert_eq!(class(seen(487, 0)), (EndingClass::Unknown, Rang::Maybe));
    }

    proptest! {
        /// Whatever codes come: a phone that rang is never reported as one that did not.
        #[test]
        fn ringing_is_never_forgotten(sip in prop::option::of(0u16..800), q850 in prop::option::of(0u16..200),
                                      progress: bool, answered: bool, ms in 0u64..60_000) {
            let seen = Evidence {
                channel: true, progress, ringing: true, answered, talk: Talk::default(), is_deaf: false, blind: false, sip_code: sip, q850,
                dialled: Duration::from_millis(ms), ended_by: EndedBy::Carrier,
            };
            prop_assert_eq!(classify(&seen, READING).rang, Rang::Yes);
        }

        /// Only what certainly left no INVITE may claim that none left.
        #[test]
        fn a_channel_is_never_taken_for_no_invite(sip in prop::option::of(0u16..800), q850 in prop::option::of(0u16..200)) {
            let seen = Evidence { sip_code: sip, q850, ..seen(0, 0) };
            prop_assert!(classify(&seen, READING).class.may_have_reached_carrier());
        }
    }
}
