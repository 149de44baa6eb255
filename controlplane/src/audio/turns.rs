//! Whose text is spoken next: organisations take turns, however many texts one of them sends.
//!
//! A text stands in the line of every organisation whose call asks for it, and is spoken at the first turn of any of
//! them. An organisation with [`ORG_WAITING_MAX`] texts in its line is told so at the door; others are not.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use controlplane_core::ids::OrgId;
use tokio::sync::oneshot;

use super::metrics::AudioMetrics;

/// Texts of one organisation that wait; a call with a further one is not taken at the door.
pub(super) const ORG_WAITING_MAX: usize = 200;
/// Texts of all organisations that wait. So many organisations at their bound at once are an attack or a fault of
/// the engine, and everybody is told to ask again.
pub(super) const WAITING_MAX: usize = 20_000;

type Key = [u8; 32];

/// See the module.
pub(super) struct Turns {
    state: Mutex<State>,
    metrics: AudioMetrics,
}

struct State {
    free: usize,
    /// Those who wait for a turn, by text.
    waiting: HashMap<Key, oneshot::Sender<Turn>>,
    lines: HashMap<OrgId, VecDeque<Key>>,
    /// Organisations with a line, the next first.
    ring: VecDeque<OrgId>,
}

/// The right to speak one text; given on when dropped.
pub(super) struct Turn(Arc<Turns>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.grant();
    }
}

/// Why there is no place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// This organisation fills its own line.
    Org,
    /// All lines together are as long as they may be.
    All,
}

impl Turns {
    /// So many texts may be spoken at a time.
    pub(super) fn new(parallel: usize, metrics: AudioMetrics) -> Self {
        let (waiting, lines, ring) = Default::default();
        Self { state: Mutex::new(State { free: parallel, waiting, lines, ring }), metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a further text of this organisation may wait.
    pub(super) fn check(&self, org: &OrgId) -> Result<(), NoPlace> {
        let state = self.state();
        if state.lines.get(org).map_or(0, VecDeque::len) >= ORG_WAITING_MAX {
            return Err(NoPlace::Org);
        }
        if state.waiting.len() >= WAITING_MAX { Err(NoPlace::All) } else { Ok(()) }
    }

    /// Waits until it is this text's turn.
    pub(super) async fn turn(self: &Arc<Self>, org: &OrgId, key: Key) -> Option<Turn> {
        let (give, given) = oneshot::channel();
        self.state().waiting.insert(key, give);
        self.stand(org, key);
        self.grant();
        given.await.ok()
    }

    /// A call of this organisation waits for the text, too. Without effect once it is being spoken.
    pub(super) fn stand(&self, org: &OrgId, key: Key) {
        let mut state = self.state();
        if !state.waiting.contains_key(&key) {
            return;
        }
        if !state.lines.contains_key(org) {
            state.ring.push_back(org.clone());
        }
        let line = state.lines.entry(org.clone()).or_default();
        if !line.contains(&key) {
            line.push_back(key);
        }
    }

    fn grant(self: &Arc<Self>) {
        loop {
            let (give, turn) = {
                let mut state = self.state();
                self.metrics.speech_waiting(state.waiting.len());
                if state.free == 0 {
                    return;
                }
                let Some(give) = state.next() else { return };
                state.free -= 1;
                (give, Turn(Arc::clone(self)))
            };
            // One that waits no more gives the turn back by dropping it, which comes here again.
            if give.send(turn).is_ok() {
                continue;
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(org) = self.ring.pop_front() {
            let line = self.lines.get_mut(&org)?;
            // What came to its turn in another's line is passed over.
            while let Some(key) = line.pop_front() {
                if let Some(give) = self.waiting.remove(&key) {
                    if line.is_empty() {
                        self.lines.remove(&org);
                    } else {
                        self.ring.push_back(org);
                    }
                    self.drop_stale();
                    return Some(give);
                }
            }
            self.lines.remove(&org);
        }
        None
    }

    /// Lines hold nothing but what waits: their lengths are what the door goes by.
    fn drop_stale(&mut self) {
        let total: usize = self.lines.values().map(VecDeque::len).sum();
        if total > 2 * self.waiting.len() {
            let waiting = &self.waiting;
            self.lines.values_mut().for_each(|line| line.retain(|key| waiting.contains_key(key)));
            self.lines.retain(|_, line| !line.is_empty());
            let lines = &self.lines;
            self.ring.retain(|org| lines.contains_key(org));
        }
    }
}

#[cfg(test)]
mod tests {
    use controlplane_core::ids::OrgId;
    use prometheus::Registry;
    use rand::{SeedableRng, rngs::StdRng};
    use time::OffsetDateTime;
    use tokio::{sync::mpsc, task::yield_now};

    use super::*;

    const HELD: usize = 4;

    fn orgs() -> Vec<OrgId> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..3).map(|_| OrgId::new(OffsetDateTime::UNIX_EPOCH, &mut rng)).collect()
    }

    fn key(n: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        key
    }

    #[tokio::test]
    async fn who_sends_thousands_holds_up_nobody_else() {
        let turns = Arc::new(Turns::new(1, AudioMetrics::new(&Registry::new()).unwrap()));
        let orgs = orgs();
        let (spoke, mut spoken) = mpsc::channel(HELD);
        let ask = |org: &OrgId, n: usize| {
            let (turns, org, spoke) = (Arc::clone(&turns), org.clone(), spoke.clone());
            tokio::spawn(async move {
                let turn = turns.turn(&org, key(n)).await.unwrap();
                spoke.send(n).await.unwrap();
                drop(turn);
            })
        };
        let first = turns.turn(&orgs[0], key(0)).await.unwrap();
        for n in 1..=ORG_WAITING_MAX {
            ask(&orgs[0], n);
        }
        while turns.check(&orgs[0]).is_ok() {
            yield_now().await;
        }
        assert_eq!(turns.check(&orgs[0]), Err(NoPlace::Org));
        assert_eq!(turns.check(&orgs[1]), Ok(()));
        for n in [1_001, 1_002] {
            ask(&orgs[1], n);
            yield_now().await;
        }
        // The third organisation waits for the flooder's last text, too.
        turns.stand(&orgs[2], key(ORG_WAITING_MAX));
        drop(first);
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(spoken.recv().await.unwrap());
        }
        assert_eq!(order, [1, 1_001, ORG_WAITING_MAX, 2, 1_002, 3]);
        for _ in 0..ORG_WAITING_MAX - 4 {
            spoken.recv().await.unwrap();
        }
        let state = turns.state();
        assert!(state.waiting.is_empty() && state.lines.is_empty() && state.ring.is_empty());
    }
}
