//! Strangers' text in the stream: the kinds, the evidence, the counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::message::Message;

/// How a block gave itself away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TamperKind {
    /// A block begins with neither `Event:` nor `Response:`: the tail of a value that held an empty line.
    ForeignHead,
    /// An event lacks headers at its end that Asterisk always writes.
    Truncated,
    /// A header came twice in an event where it comes once.
    Doubled,
    /// A header that this event does not have, or not in that place.
    Foreign,
    /// A line without a colon.
    NotAHeader,
    /// A value that cannot be what its header says, such as a cause that is no number.
    BadValue,
    /// A block over the decoder's bounds.
    Oversized,
    /// A response whose ActionID is not in flight and was not in flight lately.
    UnknownActionId,
    /// A list item or list end that does not have the form that Asterisk gives it.
    ForgedListEvent,
    /// Channel and Uniqueid that do not belong together, one of them ours.
    Mismatched,
    /// An event with our id that follows on a broken one of the same channel: its head may be a stranger's.
    TaintedTail,
    /// The event was well formed but what followed it was not: it may have been ended by a stranger.
    BrokenBehind,
}

impl TamperKind {
    /// All kinds, for metrics.
    pub const ALL: [Self; 12] = [
        Self::ForeignHead,
        Self::Truncated,
        Self::Doubled,
        Self::Foreign,
        Self::NotAHeader,
        Self::BadValue,
        Self::Oversized,
        Self::UnknownActionId,
        Self::ForgedListEvent,
        Self::Mismatched,
        Self::TaintedTail,
        Self::BrokenBehind,
    ];

    /// A stable word for logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ForeignHead => "foreign_head",
            Self::Truncated => "truncated",
            Self::Doubled => "doubled",
            Self::Foreign => "foreign",
            Self::NotAHeader => "not_a_header",
            Self::BadValue => "bad_value",
            Self::Oversized => "oversized",
            Self::UnknownActionId => "unknown_action_id",
            Self::ForgedListEvent => "forged_list_event",
            Self::Mismatched => "mismatched",
            Self::TaintedTail => "tainted_tail",
            Self::BrokenBehind => "broken_behind",
        }
    }
}

/// One piece of evidence. What the block claims is there for people to look at, never to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tampering {
    /// How it was noticed.
    pub kind: TamperKind,
    /// The event's name as claimed, cut to 64 bytes, other than letters and digits replaced.
    pub event: Option<String>,
    /// The block, where there is one.
    pub message: Option<Message>,
}

impl Tampering {
    pub(crate) fn of(kind: TamperKind, message: Message) -> Self {
        let event = match message.kind() {
            crate::message::MessageKind::Event(name) => {
                Some(name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '?' }).collect())
            }
            crate::message::MessageKind::Response(_) | crate::message::MessageKind::Neither => None,
        };
        Self { kind, event, message: Some(message) }
    }
}

/// Counts by kind since the session began.
#[derive(Debug, Default)]
pub struct TamperCounters {
    counts: [AtomicU64; TamperKind::ALL.len()],
}

impl TamperCounters {
    pub(crate) fn count(&self, kind: TamperKind) {
        if let Some(counter) = self.counts.get(kind as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many blocks of that kind were seen.
    #[must_use]
    pub fn get(&self, kind: TamperKind) -> u64 {
        self.counts.get(kind as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        TamperKind::ALL.iter().map(|kind| self.get(*kind)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_counter() {
        let counters = TamperCounters::default();
        for kind in TamperKind::ALL {
            counters.count(kind);
            assert_eq!(counters.get(kind), 1, "{}", kind.as_str());
        }
        assert_eq!(counters.total(), 12);
    }
}
