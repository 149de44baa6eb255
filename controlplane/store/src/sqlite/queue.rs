//! What waits for the one writer, and whose turn it is: see `writer.rs`.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{together, writer::Job};
use crate::gathering::{self, Gathering, Resting};

/// What waits in the queue.
pub(super) enum Queued {
    One(Box<dyn Job>),
    /// Written together with others of its kind.
    News(Box<gathering::Waiting>),
}

/// What waits to be written.
pub(super) struct Waiting {
    first: mpsc::Receiver<Box<dyn Job>>,
    queued: mpsc::Receiver<Queued>,
    /// What may wait for company.
    resting: Resting,
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
        rest: mpsc::Receiver<gathering::Waiting>,
    ) -> Self {
        let resting = Resting::new(rest);
        Self { first, queued, resting, taken: VecDeque::new(), left: None, went_ahead: false }
    }

    /// The next, as soon as there is one. `None`: there will be none.
    pub(super) async fn next(&mut self) -> Option<Box<dyn Job>> {
        loop {
            if let Some(job) = self.rested().or_else(|| self.urgent()) {
                return Some(job);
            }
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
                Some(()) = self.resting.changes() => {}
                else => return None,
            }
        }
    }

    /// The next that waits now: also what may wait longer, since a batch is under way.
    pub(super) fn another(&mut self) -> Option<Box<dyn Job>> {
        self.rested().or_else(|| self.urgent()).or_else(|| self.resting.all().map(together::write))
    }

    /// What has rested for as long as it may.
    fn rested(&mut self) -> Option<Box<dyn Job>> {
        self.resting.rested().map(together::write)
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
        self.taken.extend(gathering.groups().map(together::write));
        if self.taken.is_empty()
            && let Some(Queued::One(job)) = self.left.take_if(|left| matches!(left, Queued::One(_)))
        {
            return Some(job);
        }
        self.taken.pop_front()
    }
}
