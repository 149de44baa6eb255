//! News of calls that wait at the same time are written in sets, each in a transaction of its own, a few of them at once.
//!
//! What waits while there is no room for another set is company. A set that takes long (a row or an account that
//! another one has locked, a connection that has fallen silent) holds up nobody but those who are in it: after [`SLOW_AFTER`] it does not count
//! among those under way. Only attempts that begin over an account of one that begins already wait for it, up to a second: they would on the server, one by one,
//! each with a connection that others lack.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::names::CarrierName;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};

use super::{
    news,
    server::{Body, Server},
};
use crate::{
    StoreError,
    calls::news::{News, Told},
    error::Failure,
    gathering::{Gathering, Group, Resting, Waiting},
};

/// For the log.
const OPERATION: &str = "write news of calls";
/// Sets under way at once.
const SETS_MAX: usize = 2;
/// Longer than a set takes whose locks are free.
const SLOW_AFTER: Duration = Duration::from_millis(100);
/// A session that stands still in a transaction is ended by the server after this: whoever's answer is late by more has fallen silent, and not the account.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// News that may wait, of each kind. Beyond it, who tells them waits for room.
const WAITING_MAX: usize = 1_024;

/// The way to what writes. When the last one is dropped, what waits is written, and that is the end of it.
pub(super) struct Sets {
    begins: mpsc::Sender<Waiting>,
    others: mpsc::Sender<Waiting>,
    resting: mpsc::Sender<Waiting>,
    database: Arc<str>,
}

impl Sets {
    /// Must be called within a tokio runtime.
    pub(super) fn start(server: Arc<Server>) -> Self {
        let (begins, begin) = mpsc::channel(WAITING_MAX);
        let (others, other) = mpsc::channel(WAITING_MAX);
        let (resting, rest) = mpsc::channel(WAITING_MAX);
        let database = Arc::clone(&server.database);
        let queue = Queue {
            begins: Begins { come: begin, waiting: VecDeque::new(), accounts: Arc::default() },
            others: Line::of(other),
            resting: Resting::new(rest),
            next: Turn::Resting,
        };
        tokio::spawn(serve(server, queue));
        Self { begins, others, resting, database }
    }

    /// Writes what follows from news of a call, together with what else waits of them.
    pub(super) async fn tell(&self, operation: &'static str, news: News) -> Result<Told, StoreError> {
        let gone = |()| Failure::Sql(sqlx::Error::WorkerCrashed).named(operation, &self.database);
        let begins = matches!(news, News::Begin(_));
        let (waiting, answer) = Waiting::new(operation, Arc::clone(&self.database), news);
        let way = if waiting.may_rest() {
            &self.resting
        } else if begins {
            &self.begins
        } else {
            &self.others
        };
        way.send(waiting).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}

/// Accounts over which attempts begin now.
#[derive(Default)]
struct Accounts {
    busy: Mutex<HashSet<CarrierName>>,
    freed: Notify,
}

impl Accounts {
    fn busy(&self) -> MutexGuard<'_, HashSet<CarrierName>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of one set, busy until it is dropped.
struct Busy {
    accounts: Arc<Accounts>,
    of: HashSet<CarrierName>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.accounts.busy().retain(|carrier| !self.of.contains(carrier));
        self.accounts.freed.notify_one();
    }
}

/// Attempts that wait to begin.
struct Begins {
    come: mpsc::Receiver<Waiting>,
    waiting: VecDeque<Waiting>,
    accounts: Arc<Accounts>,
}

impl Begins {
    /// What waits, as far as it may be written together, and now.
    fn gathered(&mut self) -> Option<Set> {
        while self.waiting.len() < WAITING_MAX
            && let Ok(waiting) = self.come.try_recv()
        {
            self.waiting.push_back(waiting);
        }
        let mut gathering = Gathering::default();
        let mut busy = self.accounts.busy();
        let left = self.waiting.drain(..).filter_map(|waiting| {
            let waits = waiting.account().is_some_and(|carrier| busy.contains(carrier));
            if waits { Some(waiting) } else { gathering.take(waiting) }
        });
        self.waiting = left.collect();
        let group = gathering.groups().next()?;
        let of: HashSet<_> =
            group.news().iter().filter_map(News::account).map(|(of, _)| of.clone()).collect();
        busy.extend(of.iter().cloned());
        Some(Set { group, busy: Some(Busy { accounts: Arc::clone(&self.accounts), of }) })
    }

    /// Returns when another one waits, or an account is free. `None`: nothing will.
    async fn changes(&mut self) -> Option<()> {
        tokio::select! {
            Some(waiting) = self.come.recv(), if self.waiting.len() < WAITING_MAX => self.waiting.push_back(waiting),
            () = self.accounts.freed.notified(), if !self.waiting.is_empty() => {}
            else => return None,
        }
        Some(())
    }
}

/// What is written together.
struct Set {
    group: Group,
    /// Free when it is written.
    busy: Option<Busy>,
}

impl From<Group> for Set {
    fn from(group: Group) -> Self {
        Self { group, busy: None }
    }
}

/// News of one kind that wait and may not rest.
struct Line {
    come: mpsc::Receiver<Waiting>,
    /// What did not fit to those that were taken.
    left: Option<Waiting>,
}

impl Line {
    const fn of(come: mpsc::Receiver<Waiting>) -> Self {
        Self { come, left: None }
    }

    /// What waits, as far as it may be written together.
    fn gathered(&mut self) -> Option<Group> {
        let mut gathering = Gathering::default();
        while let Some(waiting) = self.left.take().or_else(|| self.come.try_recv().ok()) {
            self.left = gathering.take(waiting);
            if self.left.is_some() {
                break;
            }
        }
        gathering.groups().next()
    }

    /// Returns when something waits. `None`: nothing will.
    async fn changes(&mut self) -> Option<()> {
        if self.left.is_none() {
            self.left = Some(self.come.recv().await?);
        }
        Some(())
    }
}

#[derive(Clone, Copy)]
enum Turn {
    Resting,
    Begins,
    Others,
}

impl Turn {
    const fn next(self) -> Self {
        match self {
            Self::Resting => Self::Begins,
            Self::Begins => Self::Others,
            Self::Others => Self::Resting,
        }
    }
}

/// What waits to be written. Each kind has its turn, so that none keeps another from being written.
struct Queue {
    begins: Begins,
    others: Line,
    resting: Resting,
    next: Turn,
}

impl Queue {
    /// The next set, as soon as there is one. `None`: there will be none.
    async fn next(&mut self) -> Option<Set> {
        loop {
            for turn in [self.next, self.next.next(), self.next.next().next()] {
                let set = match turn {
                    Turn::Resting => self.resting.rested().map(Set::from),
                    Turn::Begins => self.begins.gathered(),
                    Turn::Others => self.others.gathered().map(Set::from),
                };
                if set.is_some() {
                    self.next = turn.next();
                    return set;
                }
            }
            tokio::select! {
                Some(()) = self.begins.changes() => {}
                Some(()) = self.others.changes() => {}
                Some(()) = self.resting.changes() => {}
                else => return None,
            }
        }
    }
}

async fn serve(server: Arc<Server>, mut queue: Queue) {
    let places = Arc::new(Semaphore::new(SETS_MAX));
    // What comes while there is no place is company for what waits.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await
        && let Some(set) = queue.next().await
    {
        tokio::spawn(written(place, Arc::clone(&server), set));
    }
}

/// Keeps the place for as long as the set is not slow, and its accounts for as long as the server lets it keep them.
async fn written(place: OwnedSemaphorePermit, server: Arc<Server>, set: Set) {
    let Set { group, busy } = set;
    let mut writing = pin!(in_place(place, write(server, group)));
    tokio::select! {
        () = &mut writing => return,
        () = sleep(BUSY_MAX) => {}
    }
    drop(busy);
    writing.await;
}

/// Keeps the place for as long as the writing is not slow.
pub(super) async fn in_place(place: OwnedSemaphorePermit, writing: impl Future<Output = ()>) {
    let mut writing = pin!(writing);
    tokio::select! {
        () = &mut writing => return,
        () = sleep(SLOW_AFTER) => {}
    }
    drop(place);
    writing.await;
}

/// Writes a set and tells everybody what came of theirs. Where the database refuses it, it is taken back, and its news are tried one by one.
async fn write(server: Arc<Server>, mut set: Group) {
    match told(&server, &set).await {
        Ok(told) => set.answer(told),
        Err(failure) if failure.is_of_what_was_asked() => {
            let apart = set.apart();
            if apart.is_empty() {
                return set.fail(failure);
            }
            tracing::debug!(news = apart.len(), why = failure.told(), "news are tried one by one");
            for one in apart {
                tokio::spawn(alone(Arc::clone(&server), one));
            }
        }
        Err(failure) => set.fail(failure),
    }
}

async fn alone(server: Arc<Server>, one: Group) {
    match told(&server, &one).await {
        Ok(told) => one.answer(told),
        Err(failure) => one.fail(failure),
    }
}

async fn told(server: &Server, set: &Group) -> Result<Vec<Result<Told, Failure>>, Failure> {
    let body: Body<Group, _> = |c, set| Box::pin(news::write(c, set));
    server.transaction(news::locking(set.news()), OPERATION, set, body).await
}
