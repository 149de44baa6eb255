//! When canaries are placed: at each trunk's interval, at once where a probation waits for one, and when an operator
//! wants one now. At most one at a time on a trunk, none on a trunk that is tripped, disabled, or whose node is lost or
//! draining; an operator's wish changes none of that, and is told why.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    fleet::{Canary, Fleet},
    ids::AttemptId,
    names::TrunkName,
};
use rand::{Rng, rngs::StdRng};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, interval},
};

use crate::{
    calls::{Calls, CanaryEnded, NoRoom, chain},
    registry::{Assignment, NoCanary},
};

/// Between two looks for canaries that are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two on a trunk: one that ends at once and tells nothing leaves a probation waiting.
const AGAIN: Duration = Duration::from_secs(5);
/// Canaries under way, over all trunks.
const UNDER_WAY_MAX: usize = 64;

/// Why no canary is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CanaryRefused {
    /// The trunk's declaration names none.
    #[error(
        "It has no canary in fleet.toml: give it one, as canary = {{ number = \"+48221234567\", expects = \"rings\" }}"
    )]
    NoNumber,
    /// One is on its way over this trunk.
    #[error("A canary is under way there: its end is told in a moment")]
    UnderWay,
    /// One left over this trunk just now.
    #[error("A canary left there just now: the next may in {0} s")]
    Lately(u64),
    /// As many as may be are under way, over all trunks.
    #[error("{UNDER_WAY_MAX} canaries are under way in the fleet, and no more may be")]
    TooMany,
    /// The trunk takes none.
    #[error(transparent)]
    Trunk(#[from] NoCanary),
    /// Whether the carrier's account has room for it cannot be known.
    #[error(
        "Its carrier's account is shared with other replicas, and the database that counts it is not available"
    )]
    NoDatabase,
}

/// The latest canary of a trunk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LastCanary {
    /// Its id.
    pub(crate) attempt: AttemptId,
    /// When it left.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) started_at: OffsetDateTime,
    /// Whether an operator wanted it.
    pub(crate) by_operator: bool,
    /// What came of it; `None`: it is under way, or its task broke.
    pub(crate) ended: Option<Told>,
}

/// What came of a canary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Told {
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) at: OffsetDateTime,
    /// What it met.
    #[serde(flatten)]
    pub(crate) met: CanaryEnded,
}

#[derive(Default)]
struct Inner {
    under_way: HashSet<TrunkName>,
    placed: BTreeMap<TrunkName, Instant>,
    last: BTreeMap<TrunkName, LastCanary>,
}

/// Places canaries, within their bounds, and remembers each trunk's last.
pub(crate) struct Canaries {
    calls: Arc<Calls>,
    inner: Mutex<Inner>,
}

impl Canaries {
    pub(crate) fn new(calls: Arc<Calls>) -> Arc<Self> {
        Arc::new(Self { calls, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trunk's latest canary of this run of the program.
    pub(crate) fn last(&self, trunk: &TrunkName) -> Option<LastCanary> {
        self.inner().last.get(trunk).cloned()
    }

    /// Places one now for an operator, and gives its id.
    pub(crate) async fn now(self: &Arc<Self>, trunk: &TrunkName) -> Result<AttemptId, CanaryRefused> {
        self.place(trunk, true, Instant::now()).await
    }

    async fn place(
        self: &Arc<Self>,
        name: &TrunkName,
        by_operator: bool,
        now: Instant,
    ) -> Result<AttemptId, CanaryRefused> {
        let taken = self.take(name, now)?;
        let (told, hears) = oneshot::channel();
        // In a task of its own: who asked may leave, and what was taken is given back all the same.
        tokio::spawn(taken.follow(by_operator, told));
        // Who does not answer is gone with the program.
        hears.await.unwrap_or(Err(CanaryRefused::Trunk(NoCanary::Gone)))
    }

    /// Takes the trunk's slots, and its place among those under way.
    fn take(self: &Arc<Self>, name: &TrunkName, now: Instant) -> Result<Taken, CanaryRefused> {
        let (fleet, _) = self.calls.registry.fleet();
        let canary =
            fleet.trunk(name).and_then(|trunk| trunk.canary.clone()).ok_or(CanaryRefused::NoNumber)?;
        let mut inner = self.inner();
        if inner.under_way.contains(name) {
            return Err(CanaryRefused::UnderWay);
        }
        if let Some(next) = inner.placed.get(name).map(|at| *at + AGAIN).filter(|next| now < *next) {
            return Err(CanaryRefused::Lately((next - now).as_secs() + 1));
        }
        if inner.under_way.len() >= UNDER_WAY_MAX {
            return Err(CanaryRefused::TooMany);
        }
        let id = self.calls.chance.attempt_id();
        let to = self.calls.registry.reserve_canary(name, &id, now.into_std())?;
        inner.under_way.insert(name.clone());
        let place = UnderWay { trunk: name.clone(), all: Arc::clone(self) };
        Ok(Taken { id, to, canary, at: now, place })
    }

    /// Trunks that have no canary any more need no memory.
    fn forget(&self, fleet: &Fleet) {
        let has_one = |name: &TrunkName| fleet.trunk(name).is_some_and(|trunk| trunk.canary.is_some());
        let mut inner = self.inner();
        inner.placed.retain(|name, _| has_one(name));
        inner.last.retain(|name, _| has_one(name));
    }

    /// Places them as they are due, for as long as the program runs.
    pub(crate) fn keep(self: &Arc<Self>) -> AbortHandle {
        let rng = self.calls.chance.fork();
        let mut timetable = Timetable { canaries: Arc::clone(self), rng, due: BTreeMap::new() };
        let work = async move {
            let mut tick = interval(LOOK_EVERY);
            loop {
                tick.tick().await;
                if timetable.canaries.calls.membership.leads() {
                    timetable.look(Instant::now()).await;
                }
            }
        };
        tokio::spawn(work).abort_handle()
    }
}

/// When each trunk's next canary is due by its interval.
struct Timetable {
    canaries: Arc<Canaries>,
    rng: StdRng,
    due: BTreeMap<TrunkName, Instant>,
}

impl Timetable {
    async fn look(&mut self, now: Instant) {
        let registry = Arc::clone(&self.canaries.calls.registry);
        let (fleet, _) = registry.fleet();
        self.due.retain(|name, _| fleet.trunk(name).is_some_and(|trunk| trunk.canary.is_some()));
        self.canaries.forget(&fleet);
        let wanted = registry.canaries_wanted(now.into_std());
        for trunk in fleet.trunks() {
            let Some(canary) = &trunk.canary else { continue };
            let every = Duration::from_secs(canary.interval_s.into());
            // The first within an interval of the start, so that a restart does not make them all call.
            let first = now + every.mul_f64(self.rng.random::<f64>());
            let due = *self.due.entry(trunk.name.clone()).or_insert(first);
            if due > now && !wanted.contains(&trunk.name) {
                continue;
            }
            match self.canaries.place(&trunk.name, false, now).await {
                // What left a moment ago is as good as this one, and the next look asks again.
                Err(CanaryRefused::Lately(_)) => {}
                Ok(_) | Err(_) => {
                    self.due.insert(trunk.name.clone(), now + every.mul_f64(self.rng.random_range(0.9..1.1)));
                }
            }
        }
    }
}

/// A canary whose trunk has taken it.
struct Taken {
    id: AttemptId,
    to: Assignment,
    canary: Canary,
    at: Instant,
    place: UnderWay,
}

impl Taken {
    /// Counts it, says whether it leaves, and follows it to its end.
    async fn follow(self, by_operator: bool, told: oneshot::Sender<Result<AttemptId, CanaryRefused>>) {
        let Self { id, to, canary, at, place } = self;
        let UnderWay { trunk, all } = &place;
        if let Err(refused) = all.calls.count_canary(&id, &to).await {
            let refused = match refused {
                NoRoom::Account(why) => CanaryRefused::Trunk(NoCanary::Held(why)),
                NoRoom::Store(error) => {
                    tracing::warn!(%trunk, error = %chain(&error), "no canary leaves, since it cannot be counted");
                    CanaryRefused::NoDatabase
                }
            };
            // Nobody hears who has left.
            let _ = told.send(Err(refused));
            return;
        }
        let started_at = all.calls.clock.now();
        let last = LastCanary { attempt: id.clone(), started_at, by_operator, ended: None };
        {
            let mut inner = all.inner();
            inner.placed.insert(trunk.clone(), at);
            inner.last.insert(trunk.clone(), last);
        }
        let _ = told.send(Ok(id.clone()));
        let met = all.calls.place_canary(&id, &to, &canary).await;
        let ended = Told { at: all.calls.clock.now(), met };
        if let Some(last) = all.inner().last.get_mut(trunk).filter(|last| last.attempt == id) {
            last.ended = Some(ended);
        }
        all.calls.free_canary(&id, &to).await;
    }
}

/// A canary's place among those under way, given back at its end, also when its task breaks.
struct UnderWay {
    trunk: TrunkName,
    all: Arc<Canaries>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.inner().under_way.remove(&self.trunk);
    }
}
