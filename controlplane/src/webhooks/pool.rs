//! Places that organisations share: connections, and tests by hand.
//!
//! Each organisation has at most its part at a time. Where all places are taken, the next one that is free goes
//! to the organisation that has the fewest: whoever has none waits for one try of somebody else's at most, however
//! many others wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use controlplane_core::ids::OrgId;
use tokio::sync::oneshot;

/// What one organisation has, and who of it waits, in order.
#[derive(Default)]
struct Part {
    used: usize,
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

struct Places {
    free: usize,
    each: usize,
    /// Of organisations that have or want something.
    parts: HashMap<OrgId, Part>,
    /// Who came first.
    tickets: u64,
}

/// The places.
pub(crate) struct Pool(Mutex<Places>);

/// A place, given back when it is dropped.
pub(crate) struct Permit {
    pool: Arc<Pool>,
    org: OrgId,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.org)
    }
}

impl Pool {
    /// `all` places, of which one organisation has at most `each`.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Places { free: all, each, parts: HashMap::new(), tickets: 0 })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if one is free for this organisation now.
    pub(crate) fn try_acquire(self: &Arc<Self>, org: &OrgId) -> Option<Permit> {
        let mut places = self.places();
        if places.free == 0 || places.parts.get(org).is_some_and(|part| part.used >= places.each) {
            return None;
        }
        places.free -= 1;
        places.parts.entry(org.clone()).or_default().used += 1;
        Some(Permit { pool: Arc::clone(self), org: org.clone() })
    }

    /// A place, when it is this organisation's turn.
    pub(crate) async fn acquire(self: &Arc<Self>, org: &OrgId) -> Permit {
        loop {
            let waiting = {
                if let Some(permit) = self.try_acquire(org) {
                    return permit;
                }
                let mut places = self.places();
                places.tickets += 1;
                let (sender, receiver) = oneshot::channel();
                let ticket = places.tickets;
                places.parts.entry(org.clone()).or_default().waiting.push_back((ticket, sender));
                receiver
            };
            // A place may have become free between the two looks.
            self.hand_out();
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    /// Gives what is free to who waits.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let mut places = self.places();
            let Some((org, waiter)) = places.next() else { return };
            places.free -= 1;
            places.parts.entry(org.clone()).or_default().used += 1;
            drop(places);
            // Who has gone drops it here, unlocked, and it is handed out again.
            let _ = waiter.send(Permit { pool: Arc::clone(self), org });
        }
    }
}

impl Places {
    /// Who is next: of those with the fewest places the one that has waited longest.
    fn next(&mut self) -> Option<(OrgId, oneshot::Sender<Permit>)> {
        if self.free == 0 {
            return None;
        }
        let each = self.each;
        for part in self.parts.values_mut() {
            while part.waiting.front().is_some_and(|(_, waiter)| waiter.is_closed()) {
                part.waiting.pop_front();
            }
        }
        let turn = |part: &Part| Some((part.used, part.waiting.front()?.0));
        let wanting = self.parts.iter_mut().filter(|(_, part)| part.used < each);
        let (_, org, part) = wanting
            .filter_map(|(org, part)| Some((turn(part)?, org, part)))
            .min_by_key(|(turn, ..)| *turn)?;
        let (_, waiter) = part.waiting.pop_front()?;
        Some((org.clone(), waiter))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut places = self.pool.places();
            places.free += 1;
            if let Some(part) = places.parts.get_mut(&self.org) {
                part.used -= 1;
                if part.used == 0 && part.waiting.is_empty() {
                    places.parts.remove(&self.org);
                }
            }
        }
        self.pool.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{SeedableRng, rngs::StdRng};
    use time::OffsetDateTime;
    use tokio::time::{Instant, sleep};

    use super::*;

    fn orgs(count: usize) -> Vec<OrgId> {
        let mut rng = StdRng::seed_from_u64(7);
        (0..count).map(|_| OrgId::new(OffsetDateTime::UNIX_EPOCH, &mut rng)).collect()
    }

    /// Tries of so long, again and again.
    fn hog(pool: &Arc<Pool>, org: &OrgId, lanes: usize, long: Duration) {
        for _ in 0..lanes {
            let (pool, org) = (Arc::clone(pool), org.clone());
            tokio::spawn(async move {
                loop {
                    let _permit = pool.acquire(&org).await;
                    sleep(long).await;
                }
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_organisation_s_slow_receivers_do_not_delay_another() {
        let (pool, orgs) = (Pool::new(64, 16), orgs(2));
        hog(&pool, &orgs[0], 2_000, Duration::from_secs(15));
        sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        for _ in 0..100 {
            let _permit = pool.acquire(&orgs[1]).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_are_slow_who_has_nothing_waits_for_one_try() {
        let (pool, orgs) = (Pool::new(64, 16), orgs(41));
        for org in &orgs[1..] {
            hog(&pool, org, 100, Duration::from_secs(15));
        }
        for _ in 0..20 {
            sleep(Duration::from_millis(7_300)).await;
            let start = Instant::now();
            drop(pool.acquire(&orgs[0]).await);
            assert!(start.elapsed() <= Duration::from_secs(15), "{:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn places_come_back_also_from_who_stopped_waiting() {
        let (pool, orgs) = (Pool::new(2, 2), orgs(3));
        let held = [pool.acquire(&orgs[0]).await, pool.acquire(&orgs[0]).await];
        for org in &orgs {
            let gone = tokio::time::timeout(Duration::from_secs(1), pool.acquire(org)).await;
            assert!(gone.is_err());
        }
        let waiting = {
            let (pool, org) = (Arc::clone(&pool), orgs[2].clone());
            tokio::spawn(async move { pool.acquire(&org).await })
        };
        sleep(Duration::from_secs(1)).await;
        drop(held);
        drop(waiting.await.unwrap());
        let both = (pool.try_acquire(&orgs[1]), pool.try_acquire(&orgs[1]));
        assert!(both.0.is_some() && both.1.is_some() && pool.try_acquire(&orgs[0]).is_none());
        drop(both);
        assert!(pool.places().parts.is_empty(), "nothing is remembered of who has nothing");
        assert_eq!(pool.places().free, 2);
    }

    #[test]
    fn an_organisation_has_its_part_and_no_more() {
        let (pool, orgs) = (Pool::new(5, 2), orgs(3));
        let take = |org: usize| pool.try_acquire(&orgs[org]);
        let held = [take(0), take(0), take(0), take(1), take(1), take(2), take(2)];
        let got: Vec<_> = held.iter().map(Option::is_some).collect();
        assert_eq!(got, [true, true, false, true, true, true, false]);
    }
}
