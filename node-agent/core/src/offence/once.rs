//! One attempt, one finding: a request that was sent again because its answer was lost is told of again.
//!
//! Two events are one if they are of the same kind, about the same account, from the same address and port, under the
//! same Call-ID, with the same challenge and answer. Whoever guesses must change one of these, so that being
//! told of once is no way to try twice unseen. Asterisk's own time is not among them: it differs.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hasher},
};

use node_agent_ami::{Event, EventItem};

use crate::moment::UnixMs;

/// SIP over UDP sends again after 0.5 s and 1.5 s (RFC 3261, 17.1.2.2); later ones count anew.
pub const AGAIN_MS: u64 = 2000;
/// Events that are remembered; past that the oldest are forgotten, which counts a repetition twice.
pub const REMEMBERED_MAX: usize = 8192;

/// The headers that tell attempts apart.
const ATTEMPT: [&str; 7] =
    ["Service", "AccountID", "SessionID", "RemoteAddress", "Challenge", "Response", "RequestType"];

/// Events of the last two seconds.
#[derive(Debug)]
pub struct Once {
    seed: [u64; 2],
    seen: HashSet<u64>,
    order: VecDeque<(UnixMs, u64)>,
}

impl Once {
    /// `seed` must be secret and random: nobody may choose an event that looks like another one.
    #[must_use]
    pub fn new(seed: [u64; 2]) -> Self {
        Self { seed, seen: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether this one was told of already. What a stranger broke is never taken for a repetition.
    pub fn is_repetition(&mut self, item: &EventItem, now: UnixMs) -> bool {
        let EventItem::Event(Event::Security { name, message }) = item else { return false };
        while let Some((at, key)) = self.order.front().copied()
            && (now.since_ms(at) >= AGAIN_MS || self.order.len() >= REMEMBERED_MAX)
        {
            self.order.pop_front();
            self.seen.remove(&key);
        }
        let mut hasher = DefaultHasher::new();
        self.seed.iter().for_each(|half| hasher.write_u64(*half));
        for part in [Some(name.as_bytes())].into_iter().chain(ATTEMPT.iter().map(|name| message.get(name))) {
            let part = part.unwrap_or_default();
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        let key = hasher.finish();
        let is_new = self.seen.insert(key);
        if is_new {
            self.order.push_back((now, key));
        }
        !is_new
    }
}

#[cfg(test)]
mod tests {
    use node_agent_ami::Message;

    use super::*;

    fn event(name: &str, changes: &[(&str, &str)]) -> EventItem {
        let of = |header: &'static str, usual: &'static str| {
            let changed = changes.iter().find(|(name, _)| *name == header);
            (header, changed.map_or(usual, |(_, value)| *value).to_owned())
        };
        let message = Message::from_pairs([
            ("Event", name.to_owned()),
            of("EventTV", "1"),
            of("Service", "PJSIP"),
            of("AccountID", "100"),
            of("SessionID", "a@x"),
            of("RemoteAddress", "IPV4/UDP/192.0.2.66/5060"),
            of("Challenge", "1/2"),
            of("Response", "r"),
        ]);
        EventItem::Event(Event::Security { name: name.to_owned(), message })
    }

    #[test]
    fn a_retransmission_is_told_of_once_and_every_guess_each_time() {
        let mut once = Once::new([1, 2]);
        let failed = "ChallengeResponseFailed";
        assert!(!once.is_repetition(&event(failed, &[]), UnixMs(0)));
        assert!(once.is_repetition(&event(failed, &[("EventTV", "2")]), UnixMs(500)));
        assert!(once.is_repetition(&event(failed, &[]), UnixMs(1999)));
        assert!(!once.is_repetition(&event(failed, &[]), UnixMs(2000)), "that is no retransmission");
        for guess in [
            ("AccountID", "101"),
            ("SessionID", "b@x"),
            ("RemoteAddress", "IPV4/UDP/192.0.2.66/5061"),
            ("Challenge", "1/3"),
            ("Response", "s"),
        ] {
            assert!(!once.is_repetition(&event(failed, &[guess]), UnixMs(2001)), "{guess:?}");
        }
        assert!(!once.is_repetition(&event("InvalidPassword", &[]), UnixMs(2001)));
        // The border between two values says something too.
        let (a, b) = ([("AccountID", "ab"), ("SessionID", "c")], [("AccountID", "a"), ("SessionID", "bc")]);
        assert!(!once.is_repetition(&event(failed, &a), UnixMs(2002)));
        assert!(!once.is_repetition(&event(failed, &b), UnixMs(2002)));
    }

    #[test]
    fn a_crowd_takes_no_more_memory_than_there_is() {
        let mut once = Once::new([1, 2]);
        for n in 0..3 * REMEMBERED_MAX {
            assert!(!once.is_repetition(&event("FailedACL", &[("SessionID", &n.to_string())]), UnixMs(1)));
        }
        assert!(once.order.len() <= REMEMBERED_MAX && once.seen.len() == once.order.len());
    }
}
