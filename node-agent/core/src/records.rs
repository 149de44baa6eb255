//! What attempts have left on the node, and what becomes of it: flight records are removed once the control plane
//! says that their attempt is settled, channels that live on are asked about.
//!
//! ```text
//!            listed             asked               settled
//! (in AstDB) ──────▶ Listed ──────────▶ Listed ───────────────▶ to be removed ──▶ gone
//!                      ▲    again after    │ open: stays          (or found again at the next listing)
//!                      └─── ASK_AGAIN ─────┘ unknown: removed when older than UNCLAIMED_KEPT
//! ```
//! AstDB is the truth and is listed again and again, so nothing here needs to outlive the process, and a message
//! that is lost costs no more than [`ASK_AGAIN`]. Only what was listed is ever removed, whatever a control plane
//! says.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::attempt_id::AttemptId;

/// An attempt is asked about again after that.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Records of attempts that no control plane knows are kept for a week: longer than any call, and than an outage
/// after which somebody might still want to know what the phone did.
pub const UNCLAIMED_KEPT: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Clone, Copy, Default)]
struct Listed {
    /// In seconds since 1970 by this host's clock, where the record can be read.
    written_at_s: Option<u64>,
    asked_at: Option<Instant>,
}

impl Listed {
    fn is_due(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_AGAIN)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Records {
    records: BTreeMap<AttemptId, Listed>,
    channels: BTreeMap<AttemptId, Listed>,
    to_be_removed: VecDeque<AttemptId>,
}

impl Records {
    /// The records that are in AstDB now, each with its time.
    pub fn list(&mut self, found: impl IntoIterator<Item = (AttemptId, Option<u64>)>) {
        let before = std::mem::take(&mut self.records);
        let listed = |(attempt, written_at_s)| {
            let asked_at = before.get(&attempt).and_then(|listed| listed.asked_at);
            (attempt, Listed { written_at_s, asked_at })
        };
        self.records = found.into_iter().map(listed).collect();
        self.to_be_removed.clear();
    }

    /// Up to `max` records to be asked about now; they count as asked. Those of `is_live` are left alone.
    pub fn ask(&mut self, max: usize, now: Instant, is_live: impl Fn(AttemptId) -> bool) -> Vec<AttemptId> {
        let due =
            self.records.iter_mut().filter(|(attempt, listed)| listed.is_due(now) && !is_live(**attempt));
        let ask = |(attempt, listed): (&AttemptId, &mut Listed)| {
            listed.asked_at = Some(now);
            *attempt
        };
        due.take(max).map(ask).collect()
    }

    /// Up to `max` of the channels that live now, as [`Records::ask`].
    pub fn ask_channels(&mut self, living: &[AttemptId], max: usize, now: Instant) -> Vec<AttemptId> {
        self.channels.retain(|_, listed| !listed.is_due(now));
        let due: Vec<_> =
            living.iter().filter(|attempt| !self.channels.contains_key(attempt)).take(max).copied().collect();
        let asked = Listed { written_at_s: None, asked_at: Some(now) };
        self.channels.extend(due.iter().map(|attempt| (*attempt, asked)));
        due
    }

    /// The control plane's answer, at `now_s` by this host's clock.
    pub fn told(&mut self, settled: &[AttemptId], unknown: &[AttemptId], now_s: u64) {
        let unclaimed = |listed: &Listed| {
            let age_s = listed.written_at_s.map(|written| now_s.saturating_sub(written));
            age_s.is_some_and(|age_s| age_s > UNCLAIMED_KEPT.as_secs())
        };
        let is_old = |attempt: &&AttemptId| self.records.get(attempt).is_some_and(unclaimed);
        let over: Vec<_> = settled.iter().chain(unknown.iter().filter(is_old)).copied().collect();
        let listed = over.into_iter().filter(|attempt| self.records.remove(attempt).is_some());
        self.to_be_removed.extend(listed);
    }

    /// The next record to be removed.
    pub fn next_removal(&mut self) -> Option<AttemptId> {
        self.to_be_removed.pop_front()
    }

    /// Records that are listed and not yet to be removed.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> AttemptId {
        AttemptId::from_bits(n)
    }

    fn drain(records: &mut Records) -> Vec<AttemptId> {
        std::iter::from_fn(|| records.next_removal()).collect()
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant can only be had from the clock; only differences count"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_record_is_asked_about_until_it_is_settled_and_removed_once() {
        let (mut records, t) = (Records::default(), start());
        let found = || (1..=5).map(|n| (id(n), Some(1_000)));
        records.list(found());
        assert_eq!(records.ask(2, t, |_| false), [id(1), id(2)]);
        assert_eq!(records.ask(9, t, |attempt| attempt == id(5)), [id(3), id(4)], "a live one is left alone");
        assert_eq!(records.ask(9, t, |_| false), [id(5)]);
        // No answer, or lost: again after a while, also when listed again meanwhile.
        records.list(found());
        assert_eq!(records.ask(9, t + ASK_AGAIN / 2, |_| false), []);
        assert_eq!(records.ask(9, t + ASK_AGAIN, |_| false).len(), 5);
        records.told(&[id(2), id(4), id(4), id(77)], &[id(3)], 2_000);
        assert_eq!(drain(&mut records), [id(2), id(4)], "only what is there, and once");
        assert_eq!(records.listed(), 3);
        // It was not removed after all (the session broke): it is found, and asked about anew.
        records.list(found());
        assert_eq!(records.ask(9, t + ASK_AGAIN, |_| false), [id(2), id(4)]);
        records.told(&[id(2)], &[], 2_000);
        records.list(found());
        assert_eq!(drain(&mut records), [], "a listing begins anew");
    }

    #[test]
    fn what_nobody_claims_is_kept_for_a_week() {
        let mut records = Records::default();
        let week = UNCLAIMED_KEPT.as_secs();
        records.list([(id(1), Some(1_000)), (id(2), Some(1_001)), (id(3), None), (id(4), Some(9_999_999))]);
        let all = [id(1), id(2), id(3), id(4)];
        records.told(&[], &all, 1_001 + week);
        assert_eq!(drain(&mut records), [id(1)]);
        records.told(&[], &all, 1_002 + week);
        assert_eq!(drain(&mut records), [id(2)], "and what cannot be read, or is of the future, for ever");
        records.told(&[id(3)], &[], 0);
        assert_eq!(drain(&mut records), [id(3)], "unless it is settled");
    }

    #[test]
    fn channels_are_asked_about_while_they_live() {
        let (mut records, t) = (Records::default(), start());
        assert_eq!(records.ask_channels(&[id(1), id(2)], 1, t), [id(1)]);
        assert_eq!(records.ask_channels(&[id(1), id(2)], 9, t), [id(2)]);
        assert_eq!(records.ask_channels(&[id(1), id(2)], 9, t), []);
        assert_eq!(records.ask_channels(&[id(2)], 9, t + ASK_AGAIN), [id(2)]);
    }
}
