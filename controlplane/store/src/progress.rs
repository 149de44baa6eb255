//! What news of an attempt changes, given what is known of it: the same for both adapters.
//!
//! Statuses go `sending → initiated → ringing → in_progress` and never back; an older word is ignored. What
//! is known of ringing only grows (`no → maybe → yes`), since events may arrive in any order.

use controlplane_core::call::{AttemptStatus, CallStatus, Rang};

/// What is to be written of an attempt's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) status: AttemptStatus,
    pub(crate) rang: Rang,
    /// The call's status, where it changes with this.
    pub(crate) call: Option<CallStatus>,
}

const fn rank(status: AttemptStatus) -> u8 {
    match status {
        AttemptStatus::Sending => 0,
        AttemptStatus::Initiated => 1,
        AttemptStatus::Ringing => 2,
        AttemptStatus::InProgress => 3,
        AttemptStatus::Ended => 4,
    }
}

const fn evidence(rang: Rang) -> u8 {
    match rang {
        Rang::No => 0,
        Rang::Maybe => 1,
        Rang::Yes => 2,
    }
}

/// What follows from `word` about an attempt that is at `status`. `None`: nothing new.
pub(crate) fn next(status: AttemptStatus, known: Rang, word: AttemptStatus, rang: Rang) -> Option<Progress> {
    let rang = if evidence(rang) > evidence(known) { rang } else { known };
    let newer = rank(word) > rank(status);
    let call = match word {
        AttemptStatus::Ringing if newer => Some(CallStatus::Ringing),
        AttemptStatus::InProgress if newer => Some(CallStatus::InProgress),
        AttemptStatus::Sending
        | AttemptStatus::Initiated
        | AttemptStatus::Ringing
        | AttemptStatus::InProgress
        | AttemptStatus::Ended => None,
    };
    let status = if newer { word } else { status };
    (newer || rang != known).then_some(Progress { status, rang, call })
}

/// What is known of ringing at an attempt's end: the last word counts, but a ring that was seen stays seen.
pub(crate) const fn rang_at_end(known: Rang, last: Rang) -> Rang {
    match known {
        Rang::Yes => Rang::Yes,
        Rang::No | Rang::Maybe => last,
    }
}

/// The event's name for customers, by the call's status after it.
pub(crate) const fn event(status: CallStatus) -> &'static str {
    match status {
        CallStatus::Queued => "call.queued",
        CallStatus::Initiated => "call.initiated",
        CallStatus::Ringing => "call.ringing",
        CallStatus::InProgress => "call.answered",
        CallStatus::Completed
        | CallStatus::Busy
        | CallStatus::NoAnswer
        | CallStatus::Canceled
        | CallStatus::Failed => "call.finished",
    }
}

/// The event of an attempt that ended while its call goes on.
pub(crate) const ATTEMPT_FAILED: &str = "call.attempt_failed";
/// The event of a key that acknowledges.
pub(crate) const ACKNOWLEDGED: &str = "call.acknowledged";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_words_goes_forward_or_nowhere() {
        for &status in AttemptStatus::ALL {
            for &word in AttemptStatus::ALL {
                for &known in Rang::ALL {
                    for &rang in Rang::ALL {
                        let next = next(status, known, word, rang);
                        let (s, r) = next.map_or((status, known), |p| (p.status, p.rang));
                        assert_eq!(rank(s), rank(status).max(rank(word)));
                        assert_eq!(evidence(r), evidence(known).max(evidence(rang)));
                        assert!(next.is_none_or(|p| p.call.is_none() || rank(word) > rank(status)));
                    }
                }
            }
        }
    }
}
