//! When canaries are placed: at each trunk's interval, and at once where a probation waits for one. At most
//! one at a time on a trunk, none on a trunk that is tripped, disabled, or whose node is lost or draining.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{fleet::Canary, names::TrunkName};
use rand::{Rng, rngs::StdRng};
use tokio::{
    task::AbortHandle,
    time::{Instant, interval},
};

use crate::calls::Calls;

/// Between two looks for canaries that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two on a trunk: one that ends at once and tells nothing leaves a probation waiting.
const AGAIN: Duration = Duration::from_secs(5);
/// Canaries under way, over all trunks.
const UNDER_WAY_MAX: usize = 64;

/// The timetable.
pub(crate) struct Canaries {
    calls: Arc<Calls>,
    rng: StdRng,
    due: BTreeMap<TrunkName, Instant>,
    placed: BTreeMap<TrunkName, Instant>,
    under_way: Arc<Mutex<HashSet<TrunkName>>>,
}

impl Canaries {
    pub(crate) fn new(calls: Arc<Calls>) -> Self {
        let rng = calls.chance.fork();
        Self { calls, rng, due: BTreeMap::new(), placed: BTreeMap::new(), under_way: Arc::default() }
    }

    /// Places them for as long as the program runs.
    pub(crate) fn keep(mut self) -> AbortHandle {
        let work = async move {
            let mut tick = interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                self.look(Instant::now());
            }
        };
        tokio::spawn(work).abort_handle()
    }

    fn look(&mut self, now: Instant) {
        let (fleet, _) = self.calls.registry.fleet();
        let has_one = |name: &TrunkName| fleet.trunk(name).is_some_and(|trunk| trunk.canary.is_some());
        self.due.retain(|name, _| has_one(name));
        self.placed.retain(|name, _| has_one(name));
        let wanted = self.calls.registry.canaries_wanted(now.into_std());
        for trunk in fleet.trunks() {
            let Some(canary) = &trunk.canary else { continue };
            let every = Duration::from_secs(canary.interval_s.into());
            // The first within an interval of the start, so that a restart does not make them all call.
            let first = now + every.mul_f64(self.rng.random::<f64>());
            let due = *self.due.entry(trunk.name.clone()).or_insert(first);
            let lately = self.placed.get(&trunk.name).is_some_and(|at| now < *at + AGAIN);
            if lately || (due > now && !wanted.contains(&trunk.name)) {
                continue;
            }
            self.due.insert(trunk.name.clone(), now + every.mul_f64(self.rng.random_range(0.9..1.1)));
            if self.place(&trunk.name, canary, now) {
                self.placed.insert(trunk.name.clone(), now);
            }
        }
    }

    /// Whether one was placed.
    fn place(&self, name: &TrunkName, canary: &Canary, now: Instant) -> bool {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.len() >= UNDER_WAY_MAX || under_way.contains(name) {
            return false;
        }
        let id = self.calls.chance.attempt_id();
        let Some(to) = self.calls.registry.reserve_canary(name, &id, now.into_std()) else {
            return false;
        };
        under_way.insert(name.clone());
        drop(under_way);
        let place = UnderWay { trunk: name.clone(), all: Arc::clone(&self.under_way) };
        let (calls, canary) = (Arc::clone(&self.calls), canary.clone());
        tokio::spawn(async move {
            let _place = place;
            calls.place_canary(&id, &to, &canary).await;
        });
        true
    }
}

/// A canary's place among those under way, given back at its end, also when its task breaks.
struct UnderWay {
    trunk: TrunkName,
    all: Arc<Mutex<HashSet<TrunkName>>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.trunk);
    }
}
