//! Why a state changed: evidence, as numbers and as one sentence, and the bounded history of changes.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::moment::{Moment, millis};
use crate::{
    call::{UnknownWord, words},
    ending::EndingClass,
};

words! {
    /// What tripped a trunk.
    Cause {
        /// Its contact does not answer qualify.
        ContactUnreachable = "contact_unreachable",
        /// Asterisk had no contact to send a call to.
        ContactDown = "contact_down",
        /// Its registration is lost.
        RegistrationLost = "registration_lost",
        /// The carrier refuses its registration.
        RegistrationRejected = "registration_rejected",
        /// The carrier refuses its credentials in calls.
        CredentialsRefused = "credentials_refused",
        /// A call met silence, and nothing was heard of the carrier meanwhile.
        CarrierSilent = "carrier_silent",
        /// Calls fail, to several destinations.
        CallsFail = "calls_fail",
        /// Canaries fail.
        CanariesFail = "canaries_fail",
        /// A call failed in probation.
        TrialFailed = "trial_failed",
    }
}

impl Cause {
    /// Whether a call showed it. What a call showed, only a call can disprove.
    #[must_use]
    pub const fn by_call(self) -> bool {
        match self {
            Self::ContactUnreachable
            // The call never left: it is the contact's state that showed.
            | Self::ContactDown
            | Self::RegistrationLost
            | Self::RegistrationRejected => false,
            Self::CredentialsRefused
            | Self::CarrierSilent
            | Self::CallsFail
            | Self::CanariesFail
            | Self::TrialFailed => true,
        }
    }

    /// Whether it is a conclusion from outcomes, which the largest share of ejected trunks bounds. Contact,
    /// registration and credentials are facts of this one trunk.
    #[must_use]
    pub const fn is_conclusion(self) -> bool {
        match self {
            Self::CarrierSilent | Self::CallsFail | Self::CanariesFail | Self::TrialFailed => true,
            Self::ContactUnreachable
            | Self::ContactDown
            | Self::RegistrationLost
            | Self::RegistrationRejected
            | Self::CredentialsRefused => false,
        }
    }
}

words! {
    /// Why a trunk that works is used after others.
    Strain {
        /// Its qualify round trip is long.
        SlowRoundTrip = "slow_round_trip",
        /// Too few calls get through.
        FewGetThrough = "few_get_through",
        /// Too few calls are answered.
        FewAnswered = "few_answered",
        /// It would be tripped, but the largest share of trunks is out already.
        Spared = "spared",
    }
}

/// Calls counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Those that failed.
    pub failed: usize,
    /// All that count.
    pub calls: usize,
    /// Destinations of those that failed.
    pub destinations: usize,
    /// Customers whose calls failed; a canary counts as one.
    pub customers: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failed, calls, destinations, customers } = self;
        let s = |n: usize| if n == 1 { "" } else { "s" };
        write!(
            f,
            "{failed} of {calls} call{}, to {destinations} destination{}",
            s(*calls),
            s(*destinations)
        )?;
        write!(f, " of {customers} customer{}", s(*customers))
    }
}

/// Why a trunk's state changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Evidence {
    /// Its contact answers qualify.
    ContactReachable {
        /// Round trip.
        rtt_us: Option<u64>,
    },
    /// Its contact does not answer qualify.
    ContactUnreachable,
    /// Its registration is accepted.
    Registered,
    /// Its registration is lost.
    RegistrationLost,
    /// Its registration is refused.
    RegistrationRejected,
    /// One call's ending was enough.
    Call {
        /// How it ended.
        ending: EndingClass,
        /// Its SIP code.
        sip_code: Option<u16>,
        /// Where it led to.
        destination: String,
        /// Whether it was a canary.
        canary: bool,
    },
    /// Several calls' endings together.
    Calls(Tally),
    /// Canaries.
    Canaries {
        /// Failed in a row.
        failed: u32,
    },
    /// Strains that came or went; empty: none is left.
    Strains {
        /// Those that remain.
        strains: Vec<Strain>,
        /// What the calls look like.
        calls: Tally,
    },
    /// The back-off is over.
    BackOffOver {
        /// It was this long.
        back_off_ms: u64,
    },
    /// It fell again, or calls over it failed again, while it was tripped.
    FellAgain {
        /// The back-off from now on.
        back_off_ms: u64,
    },
    /// A phone rang.
    Rang {
        /// Where.
        destination: String,
    },
    /// Calls got through in probation.
    TrialsGotThrough {
        /// So many.
        calls: u32,
    },
    /// Contact and registration have held through probation.
    HeldThroughProbation,
    /// Its contact is not asked, or it does not register, any more.
    NotWatched,
    /// A degraded trunk had no call for so long that it gets another chance.
    Rested,
    /// An operator's hand.
    Operator,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContactReachable { rtt_us: Some(us) } => {
                write!(f, "its contact answers OPTIONS in {}.{} ms", us / 1_000, us % 1_000 / 100)
            }
            Self::ContactReachable { rtt_us: None } => f.write_str("its contact answers OPTIONS"),
            Self::ContactUnreachable => f.write_str("its contact does not answer OPTIONS"),
            Self::Registered => f.write_str("its registration was accepted"),
            Self::RegistrationLost => f.write_str("its registration is lost"),
            Self::RegistrationRejected => f.write_str("the carrier refuses its registration"),
            Self::Call { ending, sip_code, destination, canary } => {
                let what = if *canary { "a canary" } else { "a call" };
                write!(f, "{what} to {destination} ended as {ending}")?;
                sip_code.map_or(Ok(()), |code| write!(f, " (SIP {code})"))
            }
            Self::Calls(tally) => write!(f, "the carrier failed {tally}"),
            Self::Canaries { failed } => write!(f, "{failed} canaries in a row failed"),
            Self::Strains { strains, calls } if strains.is_empty() => {
                write!(f, "back within its limits; not through: {calls}")
            }
            Self::Strains { strains, calls } => {
                let strains: Vec<_> = strains.iter().map(|s| s.as_str()).collect();
                write!(f, "{}; not through: {calls}", strains.join(", "))
            }
            Self::BackOffOver { back_off_ms } => {
                write!(f, "its back-off of {}.{} s is over", back_off_ms / 1_000, back_off_ms % 1_000 / 100)
            }
            Self::FellAgain { back_off_ms } => {
                write!(f, "it failed again while tripped; the back-off is {} s now", back_off_ms / 1_000)
            }
            Self::Rang { destination } => write!(f, "a phone rang at {destination}"),
            Self::TrialsGotThrough { calls: 1 } => f.write_str("a call got through"),
            Self::TrialsGotThrough { calls } => write!(f, "{calls} calls got through"),
            Self::HeldThroughProbation => f.write_str("contact and registration held through probation"),
            Self::NotWatched => f.write_str("its contact is not asked, or it does not register, any more"),
            Self::Rested => f.write_str("no call for so long that it gets another chance"),
            Self::Operator => f.write_str("an operator said so"),
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition<S, E> {
    /// From this one.
    pub from: S,
    /// To this one; the same where a trunk or node stays, for a new reason.
    pub to: S,
    /// When.
    pub at: Instant,
    /// Why.
    pub evidence: E,
}

/// A change as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept<S, E> {
    pub(super) from: S,
    pub(super) to: S,
    pub(super) at: Moment,
    pub(super) evidence: E,
}

/// The latest changes, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History<S, E>(VecDeque<Kept<S, E>>);

impl<S, E> Default for History<S, E> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<S, E> History<S, E> {
    pub(super) fn push(&mut self, change: Kept<S, E>, max: usize) {
        while self.0.len() >= max.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(change);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Kept<S, E>> {
        self.0.iter()
    }
}

/// A round trip in µs.
pub(super) fn rtt_us(rtt: Duration) -> u64 {
    u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn back_off_over(back_off: Duration) -> Evidence {
    Evidence::BackOffOver { back_off_ms: millis(back_off) }
}
