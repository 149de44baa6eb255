//! News of calls that wait, gathered into sets that are written at once, whatever database writes them.
//!
//! The news of a set are of as many calls. Attempts that begin are a set of their own, since other things are looked at for them, and
//! no two of one set count the starts of one number. Where a set fails its news are told apart again, so that one which cannot
//! be written takes no other with it.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use controlplane_core::names::CarrierName;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    StoreError,
    calls::news::{News, Told},
    error::Failure,
};

/// Most news of one set.
pub(crate) const SET_MAX: usize = 32;

/// How long news that nobody waits for may wait for company (see [`News::may_rest`]): then one commit, which costs as much as the writes
/// of several calls, is for all that a busy second brings in that time.
const REST_FOR: Duration = Duration::from_millis(20);

/// Who told news, and waits for what is told of them.
struct Teller {
    operation: &'static str,
    database: Arc<str>,
    reply: oneshot::Sender<Result<Told, StoreError>>,
}

impl Teller {
    fn hears(self, told: Result<Told, Failure>) {
        // Nobody listens any more: what is written stands, as it would if the answer had been lost on its way.
        let _ = self.reply.send(told.map_err(|failure| failure.named(self.operation, &self.database)));
    }
}

/// News that wait.
pub(crate) struct Waiting {
    news: News,
    teller: Teller,
}

/// What is told of news.
pub(crate) type Answer = oneshot::Receiver<Result<Told, StoreError>>;

impl Waiting {
    pub(crate) fn new(operation: &'static str, database: Arc<str>, news: News) -> (Self, Answer) {
        let (reply, answer) = oneshot::channel();
        (Self { news, teller: Teller { operation, database, reply } }, answer)
    }

    pub(crate) fn may_rest(&self) -> bool {
        self.news.may_rest()
    }

    /// Whose account an attempt that begins is counted to.
    pub(crate) fn account(&self) -> Option<&CarrierName> {
        self.news.account().map(|(carrier, _)| carrier)
    }
}

/// A set: what is written together.
#[derive(Default)]
pub(crate) struct Group {
    news: Vec<News>,
    tellers: Vec<Teller>,
}

impl From<Waiting> for Group {
    fn from(waiting: Waiting) -> Self {
        Self { news: vec![waiting.news], tellers: vec![waiting.teller] }
    }
}

impl Group {
    fn push(&mut self, waiting: Waiting) {
        self.news.push(waiting.news);
        self.tellers.push(waiting.teller);
    }

    pub(crate) fn news(&self) -> &[News] {
        &self.news
    }

    /// What failed as one, and may succeed in part: the parts, which leave nobody to be answered here. None of a set of one.
    pub(crate) fn apart(&mut self) -> Vec<Self> {
        if self.news.len() < 2 {
            return Vec::new();
        }
        let each = self.news.drain(..).zip(self.tellers.drain(..));
        each.map(|(news, teller)| Waiting { news, teller }.into()).collect()
    }

    /// Tells everybody what was told of theirs, in their order.
    pub(crate) fn answer(self, told: Vec<Result<Told, Failure>>) {
        let mut told = told.into_iter();
        for teller in self.tellers {
            teller.hears(told.next().unwrap_or(Err(Failure::Sql(sqlx::Error::WorkerCrashed))));
        }
    }

    /// Tells everybody that nothing of theirs was written, and why.
    pub(crate) fn fail(self, failure: Failure) {
        let why = failure.told();
        let mut failure = Some(failure);
        for teller in self.tellers {
            let again = || Failure::Sql(sqlx::Error::Io(io::Error::other(why.clone())));
            teller.hears(Err(failure.take().unwrap_or_else(again)));
        }
    }
}

/// What is taken of what waits, to be written together.
#[derive(Default)]
pub(crate) struct Gathering {
    begins: Group,
    others: Group,
}

impl Gathering {
    /// Takes it, if it may be written together with those that were taken, and there is room: they are of as many calls, and
    /// what begins counts the starts of as many numbers.
    pub(crate) fn take(&mut self, waiting: Waiting) -> Option<Waiting> {
        let number = waiting.news.counted().map(|(number, ..)| number);
        let mut taken = self.begins.news.iter().chain(&self.others.news);
        let clashes = |other: &News| {
            other.call() == waiting.news.call()
                || number.is_some() && other.counted().map(|(number, ..)| number) == number
        };
        if self.begins.news.len() + self.others.news.len() == SET_MAX || taken.any(clashes) {
            return Some(waiting);
        }
        match waiting.news {
            News::Begin(_) => self.begins.push(waiting),
            News::Advance(_) | News::Hear(_) | News::End(_) => self.others.push(waiting),
        }
        None
    }

    /// The sets that come of it: one, or two.
    pub(crate) fn groups(self) -> impl Iterator<Item = Group> {
        [self.begins, self.others].into_iter().filter(|group| !group.news.is_empty())
    }
}

/// News that rest for company.
pub(crate) struct Resting {
    come: mpsc::Receiver<Waiting>,
    /// What has come, and since when the first of it waits.
    rest: VecDeque<Waiting>,
    since: Option<Instant>,
}

impl Resting {
    pub(crate) const fn new(come: mpsc::Receiver<Waiting>) -> Self {
        Self { come, rest: VecDeque::new(), since: None }
    }

    /// Returns when more has come, or what rests has rested for as long as it may. `None`: nothing rests, and nothing will come.
    pub(crate) async fn changes(&mut self) -> Option<()> {
        let Some(since) = self.since else {
            let waiting = self.come.recv().await?;
            self.rests(waiting);
            return Some(());
        };
        tokio::select! {
            () = sleep_until(since + REST_FOR) => {}
            Some(waiting) = self.come.recv() => self.rests(waiting),
        }
        Some(())
    }

    fn rests(&mut self, waiting: Waiting) {
        self.rest.push_back(waiting);
        self.since.get_or_insert_with(Instant::now);
    }

    /// What has rested for as long as it may, or is as much as one set takes: it is its turn, whatever else waits.
    pub(crate) fn rested(&mut self) -> Option<Group> {
        while self.rest.len() < SET_MAX
            && let Ok(waiting) = self.come.try_recv()
        {
            self.rests(waiting);
        }
        let is_over = self.since.is_some_and(|since| since.elapsed() >= REST_FOR);
        if is_over || self.rest.len() == SET_MAX { self.all() } else { None }
    }

    /// What rests, as far as it may be written together: none of it begins.
    pub(crate) fn all(&mut self) -> Option<Group> {
        let mut gathering = Gathering::default();
        while let Some(waiting) = self.rest.pop_front() {
            if let Some(refused) = gathering.take(waiting) {
                self.rest.push_front(refused);
                break;
            }
        }
        if self.rest.is_empty() {
            self.since = None;
        }
        gathering.groups().next()
    }
}
