//! What a process that starts, or wakes from a freeze, owes to what it could not see.
//!
//! Time-outs are about a node or a callee that stays silent. A process that was stopped, or starved, for longer than one
//! finds it over the moment it wakes, with the news of all that time still unread; and one that starts has no links
//! yet: nodes dial in by themselves. Neither silence is the other's. So time-outs wait until the news is read, and
//! reconciliation counts from a node's return, both within bounds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two signs of life of this process: four wake-ups a second.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Without a sign for longer than that it slept: more than a busy machine's delays, less than the shortest time-out.
const SLEPT: Duration = Duration::from_secs(1);
/// Without a sign for so long its sessions are gone, too: they are left when a ping is not answered for 3 s (`nodes`).
const LOST_SESSIONS: Duration = Duration::from_secs(3);
/// For reading what came meanwhile: sockets hold some hundred kilobytes, which takes milliseconds.
const READ_FIRST: Duration = Duration::from_millis(500);

/// When this process began to see.
#[derive(Debug)]
pub(super) struct Awake(Mutex<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The last sign of life.
    at: Instant,
    /// Its start, or its last waking.
    woke: Instant,
    /// The same of sleeps that cost it its sessions: a shorter one gives nodes no more time, or a machine that stalls again
    /// and again would never give one up.
    alone_since: Instant,
}

impl Awake {
    /// A process that starts now.
    pub(super) const fn new(now: Instant) -> Self {
        Self(Mutex::new(Seen { at: now, woke: now, alone_since: now }))
    }

    /// A sign of life.
    pub(super) fn look(&self, now: Instant) {
        self.seen(now);
    }

    fn seen(&self, now: Instant) -> Seen {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slept = now.saturating_duration_since(seen.at);
        if slept > SLEPT {
            seen.woke = now;
            if slept > LOST_SESSIONS {
                seen.alone_since = now;
            }
            tracing::warn!(slept_ms = slept.as_millis(), "this process did not run for a while");
        }
        seen.at = seen.at.max(now);
        *seen
    }

    /// When a time-out that is due at `deadline` may be acted on.
    pub(super) fn due(&self, deadline: Instant, now: Instant) -> Instant {
        deadline.max(self.seen(now).woke + READ_FIRST)
    }

    /// The same of the reconciliation of an attempt on a node whose session is up since `session`: `reconcile` counts
    /// from the node's return, for which it has `back` since this process was alone.
    pub(super) fn reconcile_due(
        &self,
        deadline: Instant,
        now: Instant,
        session: Option<Instant>,
        reconcile: Duration,
        back: Duration,
    ) -> Instant {
        let since = self.seen(now).alone_since;
        match session.filter(|session| *session >= since) {
            Some(session) => deadline.max(session + reconcile),
            None => deadline.max(since + back),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    const S: Duration = Duration::from_secs(1);
    const RECONCILE: Duration = Duration::from_secs(5);
    const BACK: Duration = Duration::from_secs(10);

    #[test]
    fn time_outs_wait_for_the_news_after_a_freeze_and_only_then() {
        let start = started();
        let awake = Awake::new(start);
        for n in 1..=40 {
            awake.look(start + LOOK_EVERY * n);
        }
        // On time, and a little late: acted on at once.
        let now = start + 10 * S;
        assert_eq!(awake.due(now, now), now);
        assert_eq!(awake.due(now, now + S), now);
        // Seconds late: nobody looked.
        let woken = now + 4 * S;
        assert_eq!(awake.due(now, woken), woken + READ_FIRST);
        // And once that is over, as ever.
        assert_eq!(awake.due(woken, woken + S), woken + READ_FIRST);
        assert_eq!(awake.due(woken + S, woken + S), woken + S);
    }

    #[test]
    fn reconciliation_counts_from_a_nodes_return_within_its_bound() {
        let start = started();
        let awake = Awake::new(start);
        let deadline = start + RECONCILE;
        let due = |now, session| awake.reconcile_due(deadline, now, session, RECONCILE, BACK);
        assert_eq!(due(start, None), start + BACK, "it may still dial in");
        assert_eq!(due(start + S, Some(start + S)), start + 6 * S);
        let late = start + S + LOOK_EVERY;
        assert_eq!(due(late, Some(start + 9 * S)), start + 14 * S, "back late, and asked all the same");

        // Long awake: a node that goes has `reconcile`, whatever session it had.
        let mut now = start;
        while now < start + 60 * S {
            now += LOOK_EVERY;
            awake.look(now);
        }
        for session in [None, Some(start + S), Some(now - S)] {
            let deadline = now + RECONCILE;
            assert_eq!(awake.reconcile_due(deadline, now, session, RECONCILE, BACK), deadline, "{session:?}");
        }
        // Stalls that cost no session give no more time, however often they come: else a busy machine would never give a
        // node up.
        let deadline = now + RECONCILE;
        for _ in 0..20 {
            now += Duration::from_millis(1_500);
            awake.look(now);
        }
        assert_eq!(awake.reconcile_due(deadline, now, None, RECONCILE, BACK), deadline);
        // But the news is read first.
        assert_eq!(awake.due(now, now), now + READ_FIRST);

        // Woken from a freeze in which its link was cut.
        let woken = now + 8 * S;
        let due = awake.reconcile_due(now + RECONCILE, woken, Some(start + S), RECONCILE, BACK);
        assert_eq!(due, woken + BACK);
    }
}
