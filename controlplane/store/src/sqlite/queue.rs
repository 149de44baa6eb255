//! What waits for the one writer, and whose turn it is: see `writer.rs`.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    sets::ROWS_MAX,
    together::{self, Gathering},
    writer::Job,
};

/// How long news that nobody waits for may wait for company (see `News::may_rest`): then one commit, which costs as much as the writes
/// of several calls, is for all that a busy second brings in that time.
const REST_FOR: Duration = Duration::from_millis(20);

/// What waits in the queue.
pub(super) enum Queued {
    One(Box<dyn Job>),
    /// Written together with others of its kind.
    News(Box<together::Waiting>),
}

/// What waits to be written.
pub(super) struct Waiting {
    first: mpsc::Receiver<Box<dyn Job>>,
    queued: mpsc::Receiver<Queued>,
    /// What may wait for company.
    rest: mpsc::Receiver<together::Waiting>,
    /// What was taken from there, and since when the first of it waits.
    rest_of: VecDeque<together::Waiting>,
    rests_since: Option<Instant>,
    /// What was taken from the queue with others, and is to be written next.
    taken: VecDeque<Box<dyn Job>>,
    /// What was taken from the queue and did not fit to the others.
    left: Option<Queued>,
    /// Whether the last one went ahead: then it is the queue's turn, so that it moves on whatever goes ahead.
    went_ahead: bool,
}

impl Waiting {
    pub(super) const fn new(
        first: mpsc::Receiver<Box<dyn Job>>,
        queued: mpsc::Receiver<Queued>,
        rest: mpsc::Receiver<together::Waiting>,
    ) -> Self {
        Self {
            first,
            queued,
            rest,
            rest_of: VecDeque::new(),
            rests_since: None,
            taken: VecDeque::new(),
            left: None,
            went_ahead: false,
        }
    }

    /// The next, as soon as there is one. `None`: there will be none.
    pub(super) async fn next(&mut self) -> Option<Box<dyn Job>> {
        loop {
            if let Some(job) = self.rested().or_else(|| self.urgent()) {
                return Some(job);
            }
            let rested_at = self.rests_since.map(|since| since + REST_FOR);
            tokio::select! {
                biased;
                Some(job) = self.first.recv() => {
                    self.went_ahead = true;
                    return Some(job);
                }
                Some(queued) = self.queued.recv() => {
                    self.went_ahead = false;
                    self.left = Some(queued);
                }
                () = sleep_until(rested_at.unwrap_or_else(Instant::now)), if rested_at.is_some() => {}
                Some(news) = self.rest.recv() => self.rests(news),
                else => return None,
            }
        }
    }

    /// The next that waits now: also what may wait longer, since a batch is under way.
    pub(super) fn another(&mut self) -> Option<Box<dyn Job>> {
        self.rested().or_else(|| self.urgent()).or_else(|| self.of_rest())
    }

    fn rests(&mut self, news: together::Waiting) {
        self.rest_of.push_back(news);
        self.rests_since.get_or_insert_with(Instant::now);
    }

    /// What has rested for as long as it may, or is as much as one write takes: it is its turn, whatever else waits.
    fn rested(&mut self) -> Option<Box<dyn Job>> {
        while self.rest_of.len() < ROWS_MAX
            && let Ok(news) = self.rest.try_recv()
        {
            self.rests(news);
        }
        let is_over = self.rests_since.is_some_and(|since| since.elapsed() >= REST_FOR);
        if is_over || self.rest_of.len() == ROWS_MAX { self.of_rest() } else { None }
    }

    /// What rests, as far as it may be written together.
    fn of_rest(&mut self) -> Option<Box<dyn Job>> {
        let mut gathering = Gathering::default();
        while let Some(news) = self.rest_of.pop_front() {
            if let Some(refused) = gathering.take(news) {
                self.rest_of.push_front(refused);
                break;
            }
        }
        if self.rest_of.is_empty() {
            self.rests_since = None;
        }
        gathering.writes().next()
    }

    /// The next that waits now and may not rest.
    fn urgent(&mut self) -> Option<Box<dyn Job>> {
        let queue_is_due = self.went_ahead;
        let due = if queue_is_due { self.of_queue() } else { self.ahead() };
        if due.is_some() {
            self.went_ahead = !queue_is_due;
            return due;
        }
        if queue_is_due { self.ahead() } else { self.of_queue() }
    }

    fn ahead(&mut self) -> Option<Box<dyn Job>> {
        self.first.try_recv().ok()
    }

    /// The queue's next, with those behind it that may be written with it.
    fn of_queue(&mut self) -> Option<Box<dyn Job>> {
        if let Some(taken) = self.taken.pop_front() {
            return Some(taken);
        }
        let mut gathering = Gathering::default();
        while let Some(queued) = self.left.take().or_else(|| self.queued.try_recv().ok()) {
            let refused = match queued {
                Queued::News(news) => gathering.take(*news).map(|news| Queued::News(Box::new(news))),
                one @ Queued::One(_) => Some(one),
            };
            if refused.is_some() {
                self.left = refused;
                break;
            }
        }
        self.taken.extend(gathering.writes());
        if self.taken.is_empty()
            && let Some(Queued::One(job)) = self.left.take_if(|left| matches!(left, Queued::One(_)))
        {
            return Some(job);
        }
        self.taken.pop_front()
    }
}
