//! The states of a call and of its attempts, as customers see them.
//!
//! ```text
//! queued → initiated → ringing → in_progress → completed | busy | no_answer | canceled | failed
//!   ↑         ↑___________|____________|   an attempt that ended may be followed by another: back to initiated
//!   |______________________|____________|   a round that ended may be followed by another: back to queued
//! ```
//!
//! A call ends with one [`Reason`]; its [`CallStatus`] and, with what was reached, its [`Outcome`] follow
//! from the reason and are never set apart from it.

use serde::{Deserialize, Serialize};

use crate::ending::EndingClass;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
        )]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling, in JSON, SQL, logs and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or(UnknownWord(stringify!($name)))
            }
        }
    };
}
pub(crate) use words;

/// A word that is none of the closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown word for {0}")]
pub struct UnknownWord(pub(crate) &'static str);

words! {
    /// Where a call is in its life.
    CallStatus {
        /// Accepted and durable; nothing has been sent.
        Queued = "queued",
        /// An attempt is under way.
        Initiated = "initiated",
        /// A phone rings.
        Ringing = "ringing",
        /// Answered; the message plays.
        InProgress = "in_progress",
        /// Ended after an answer.
        Completed = "completed",
        /// Ended: the callee was busy or declined.
        Busy = "busy",
        /// Ended: nobody answered.
        NoAnswer = "no_answer",
        /// Ended by the customer.
        Canceled = "canceled",
        /// Ended without reaching anyone, or without knowing.
        Failed = "failed",
    }
}

impl CallStatus {
    /// Whether this is the end: a terminal status never changes.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Initiated | Self::Ringing | Self::InProgress => false,
            Self::Completed | Self::Busy | Self::NoAnswer | Self::Canceled | Self::Failed => true,
        }
    }
}

words! {
    /// Why a call ended.
    Reason {
        /// A human pressed a key that acknowledges.
        Acknowledged = "acknowledged",
        /// Answered, but the asked acknowledgement did not come.
        AnsweredNoAck = "answered_no_ack",
        /// A human pressed a key that escalates: not acknowledged, and not to be dialled again.
        Escalated = "escalated",
        /// A machine answered, and was hung up on or was left the message.
        Machine = "machine",
        /// Answered, and no acknowledgement was asked for.
        Played = "played",
        /// 486 or 600.
        UserBusy = "user_busy",
        /// 603.
        Declined = "declined",
        /// It rang, and nobody answered in time.
        RingTimeout = "ring_timeout",
        /// 480: the phone is off or away.
        Unreachable = "unreachable",
        /// The customer canceled it.
        Api = "api",
        /// The carrier says that there is no such number.
        InvalidNumber = "invalid_number",
        /// A rule of Ringward or of the customer's organisation forbids it.
        NotPermitted = "not_permitted",
        /// No route leads there, or no trunk of it can be used.
        NoHealthyRoute = "no_healthy_route",
        /// Every trunk that could be tried has failed.
        TrunkUnavailable = "trunk_unavailable",
        /// The message could not be prepared, or was not to be heard where the call was answered.
        MediaError = "media_error",
        /// The deadline came before an end.
        DeadlineExceeded = "deadline_exceeded",
        /// Whether the phone rang cannot be known, and the customer asked not to try again then.
        OutcomeUnknown = "outcome_unknown",
        /// The PBX died while the phone rang or the message played, or cannot tell whether a key was pressed, and no
        /// other attempt was wanted.
        Interrupted = "interrupted",
        /// Limits held it back until its deadline.
        Throttled = "throttled",
    }
}

words! {
    /// One word for the customer: what came of it.
    Outcome {
        /// A human pressed a key that acknowledges.
        Acknowledged = "acknowledged",
        /// Somebody or something answered.
        Answered = "answered",
        /// A machine answered.
        Machine = "machine",
        /// It was tried, and nobody was reached.
        NotReached = "not_reached",
        /// Nothing was ever sent to a carrier.
        NotTried = "not_tried",
        /// It cannot be known.
        Unknown = "unknown",
    }
}

words! {
    /// Whether a phone rang in an attempt: the evidence that decides what may follow.
    Rang {
        /// 180 was seen, or it was answered.
        Yes = "yes",
        /// Nothing can have rung.
        No = "no",
        /// 183, or silence after an INVITE.
        Maybe = "maybe",
    }
}

words! {
    /// Who answered, as Asterisk's AMD() guesses. Advisory.
    Detection {
        /// A human.
        Human = "human",
        /// A machine.
        Machine = "machine",
        /// It could not tell.
        NotSure = "not_sure",
    }
}

words! {
    /// What to do when it cannot be known whether an attempt rang the phone.
    OnUnknown {
        /// Dial again elsewhere: at least one ring. For alerts.
        Retry = "retry",
        /// End as `outcome_unknown`: at most one ring.
        Fail = "fail",
    }
}

impl Reason {
    /// The terminal status that this reason ends a call with.
    #[must_use]
    pub const fn status(self) -> CallStatus {
        match self {
            Self::Acknowledged | Self::AnsweredNoAck | Self::Escalated | Self::Machine | Self::Played => {
                CallStatus::Completed
            }
            Self::UserBusy | Self::Declined => CallStatus::Busy,
            Self::RingTimeout | Self::Unreachable => CallStatus::NoAnswer,
            Self::Api => CallStatus::Canceled,
            Self::InvalidNumber
            | Self::NotPermitted
            | Self::NoHealthyRoute
            | Self::TrunkUnavailable
            | Self::MediaError
            | Self::DeadlineExceeded
            | Self::OutcomeUnknown
            | Self::Interrupted
            | Self::Throttled => CallStatus::Failed,
        }
    }

    /// The customer's word, by the attempts of all rounds.
    #[must_use]
    pub const fn outcome(self, tried: Tried) -> Outcome {
        match self {
            Self::Acknowledged => Outcome::Acknowledged,
            Self::AnsweredNoAck | Self::Escalated | Self::Played => Outcome::Answered,
            Self::Machine => Outcome::Machine,
            Self::OutcomeUnknown | Self::Interrupted => Outcome::Unknown,
            Self::UserBusy | Self::Declined | Self::RingTimeout | Self::Unreachable => Outcome::NotReached,
            Self::InvalidNumber
            | Self::Api
            | Self::NotPermitted
            | Self::NoHealthyRoute
            | Self::TrunkUnavailable
            | Self::MediaError
            | Self::DeadlineExceeded
            | Self::Throttled => match tried {
                Tried { answered: true, .. } => Outcome::Answered,
                Tried { unsettled: true, .. } => Outcome::Unknown,
                Tried { reached_carrier: true, .. } => Outcome::NotReached,
                Tried { .. } => Outcome::NotTried,
            },
        }
    }
}

/// What the attempts of a call came to, whatever it ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tried {
    /// One may have sent an INVITE.
    pub reached_carrier: bool,
    /// One ended without anyone knowing how.
    pub unsettled: bool,
    /// One was answered, and the message played.
    pub answered: bool,
}

impl Tried {
    /// By how attempts ended.
    pub fn of<'a>(endings: impl IntoIterator<Item = &'a EndingClass>) -> Self {
        endings.into_iter().fold(Self::default(), |tried, class| Self {
            reached_carrier: tried.reached_carrier || class.may_have_reached_carrier(),
            unsettled: tried.unsettled || class.is_unsettled(),
            answered: tried.answered || matches!(class, EndingClass::Answered | EndingClass::NoKeys),
        })
    }
}

words! {
    /// Where an attempt is in its life.
    AttemptStatus {
        /// Durable; the Originate is about to leave, or has left and no word came back yet.
        Sending = "sending",
        /// Asterisk has queued it.
        Initiated = "initiated",
        /// 180 was seen.
        Ringing = "ringing",
        /// Answered.
        InProgress = "in_progress",
        /// Ended; the attempt's `reason` says how.
        Ended = "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>(), Ok(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("answered".parse::<Reason>().is_err());
    }

    #[test]
    fn every_reason_ends_a_call() {
        assert!(Reason::ALL.iter().all(|r| r.status().is_terminal()));
    }

    #[test]
    fn a_call_that_nobody_tried_is_told_from_one_that_failed() {
        use EndingClass::{Answered, CarrierSilent, Congestion, NotSent};
        let of = |reason: Reason, endings: &[EndingClass]| reason.outcome(Tried::of(endings));
        assert_eq!(of(Reason::NoHealthyRoute, &[]), Outcome::NotTried);
        assert_eq!(of(Reason::NoHealthyRoute, &[NotSent]), Outcome::NotTried);
        assert_eq!(of(Reason::TrunkUnavailable, &[Congestion]), Outcome::NotReached);
        assert_eq!(of(Reason::TrunkUnavailable, &[CarrierSilent, Congestion]), Outcome::Unknown);
        // Canceled while it waited to be dialled again.
        assert_eq!(of(Reason::Api, &[CarrierSilent, Answered]), Outcome::Answered);
    }
}
