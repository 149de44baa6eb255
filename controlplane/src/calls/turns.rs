//! Whose turn it is to dial a number that may be dialled only so often: the oldest call's.
//!
//! One call at a time asks whether the number is held, waits until it is not, and begins its round; then it is the
//! next one's turn. A window that frees wakes one call, in the order in which they were accepted, and those behind
//! it cost nothing. Who must wait for a trunk, or whose sound a node could not get, gives its turn up and comes back to
//! its place by age, so that it keeps nobody back.
//!
//! This only says who asks the database; the database decides. After a restart the calls line up anew.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use controlplane_core::{
    ids::{CallId, OrgId},
    number::E164,
};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// The lines of all numbers that somebody waits for, each organisation's apart. An open call has one place at most:
/// [`super::OPEN_CALLS_MAX`] bounds them.
#[derive(Default)]
pub(super) struct Turns(Mutex<Lines>);

type Lines = HashMap<(OrgId, E164), Line>;

#[derive(Default)]
struct Line {
    /// Oldest first, as ids grow with the time of acceptance.
    places: BTreeMap<CallId, Place>,
    /// Until when the number is held, as was heard last.
    held_until: Option<OffsetDateTime>,
}

struct Place {
    first: Arc<Notify>,
    /// Whether a window has held this call back.
    is_held: bool,
}

impl Turns {
    /// A place in the line of a number. `was_held`: a window has held this call back before.
    pub(super) fn join(
        self: &Arc<Self>,
        number: (OrgId, E164),
        call: &CallId,
        was_held: bool,
        now: OffsetDateTime,
    ) -> Turn {
        let first = Arc::new(Notify::new());
        let mut lines = self.lines();
        let line = lines.entry(number.clone()).or_default();
        let is_held = was_held || line.held_until.is_some_and(|until| until > now);
        line.places.insert(call.clone(), Place { first: Arc::clone(&first), is_held });
        drop(lines);
        Turn { turns: Arc::clone(self), number, call: call.clone(), first }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a line; left when dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    number: (OrgId, E164),
    call: CallId,
    first: Arc<Notify>,
}

impl Turn {
    /// Returns when no older call is before this one.
    pub(super) async fn comes(&self) {
        while !self.is_first() {
            self.first.notified().await;
        }
    }

    fn is_first(&self) -> bool {
        let lines = self.turns.lines();
        let first = lines.get(&self.number).and_then(|line| line.places.keys().next());
        first.is_none_or(|first| *first == self.call)
    }

    /// Tells that the number is held. Returns how many calls it holds back that no window had held back before.
    pub(super) fn hold(&self, until: OffsetDateTime) -> usize {
        let mut lines = self.turns.lines();
        let Some(line) = lines.get_mut(&self.number) else { return 0 };
        line.held_until = Some(until);
        line.places.values_mut().map(|place| usize::from(!std::mem::replace(&mut place.is_held, true))).sum()
    }

    /// Whether a window has held this call back.
    pub(super) fn is_held(&self) -> bool {
        let lines = self.turns.lines();
        let place = lines.get(&self.number).and_then(|line| line.places.get(&self.call));
        place.is_some_and(|place| place.is_held)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        let Some(line) = lines.get_mut(&self.number) else { return };
        line.places.remove(&self.call);
        match line.places.first_key_value() {
            // One that knows it already only looks once more.
            Some((_, next)) => next.first.notify_one(),
            None => {
                lines.remove(&self.number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;
    use tokio::time::timeout;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn number() -> (OrgId, E164) {
        (OrgId::first(), "+48221234567".parse().unwrap())
    }

    /// Ids of calls, oldest first.
    fn calls(n: i64) -> Vec<CallId> {
        let mut rng = StdRng::seed_from_u64(3);
        (0..n).map(|s| CallId::new(NOON + time::Duration::seconds(s), &mut rng)).collect()
    }

    async fn has_come(turn: &Turn) -> bool {
        timeout(Duration::from_millis(1), turn.comes()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_is_first_whoever_came_first() {
        let (turns, calls) = (Arc::new(Turns::default()), calls(3));
        let mut joined: Vec<_> =
            [1, 2, 0].iter().map(|i| turns.join(number(), &calls[*i], false, NOON)).collect();
        let other = turns.join((OrgId::first(), "+48221234568".parse().unwrap()), &calls[2], false, NOON);
        assert!(has_come(&other).await, "another number has a line of its own");
        let oldest = joined.pop().unwrap();
        let (second, third) = (&joined[0], &joined[1]);
        assert_eq!(
            (has_come(&oldest).await, has_come(second).await, has_come(third).await),
            (true, false, false)
        );
        drop(oldest);
        assert_eq!((has_come(second).await, has_come(third).await), (true, false));
        // Who has left comes back to its place by age.
        let again = turns.join(number(), &calls[0], false, NOON);
        assert_eq!((has_come(&again).await, has_come(second).await), (true, false));
        drop((again, joined, other));
        assert!(turns.lines().is_empty(), "nothing is kept of a number that nobody waits for");
    }

    /// Fifty wait: each leaving wakes one, the next in age, and no other.
    #[tokio::test(start_paused = true)]
    async fn each_leaving_wakes_one() {
        let (turns, calls) = (Arc::new(Turns::default()), calls(50));
        let (tell, mut told) = tokio::sync::mpsc::channel(50);
        for call in calls.iter().rev() {
            let turn = turns.join(number(), call, false, NOON);
            let tell = tell.clone();
            tokio::spawn(async move {
                turn.comes().await;
                tell.send(turn).await.unwrap();
            });
        }
        for call in &calls {
            let turn = told.recv().await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(told.try_recv().is_err(), "one at a time");
            assert_eq!(turn.call, *call);
        }
    }

    #[test]
    fn a_held_call_is_counted_once() {
        let (turns, calls) = (Arc::new(Turns::default()), calls(4));
        let join = |i: usize, was_held, now| turns.join(number(), &calls[i], was_held, now);
        let until = NOON + time::Duration::MINUTE;
        let (first, _second) = (join(0, false, NOON), join(1, false, NOON));
        assert!(!first.is_held());
        assert_eq!((first.hold(until), first.is_held()), (2, true));
        let third = join(2, false, NOON);
        assert!(third.is_held(), "it finds the number held, and counts itself");
        assert_eq!(first.hold(until), 0, "however often it is asked");
        let after = join(3, false, until);
        assert!(!after.is_held());
        assert_eq!(first.hold(until + time::Duration::MINUTE), 1);
        assert!(after.is_held());
    }
}
