//! News of calls that wait at the same time become one write: see [`news`].
//!
//! They are told apart again where that write fails, so that one which cannot be written takes no other with it.

use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::{
    news,
    sets::ROWS_MAX,
    writer::{Job, Ran, unwinding},
};
use crate::{
    StoreError,
    calls::news::{News, Told},
    error::Failure,
};

/// Who told news, and waits for what is told of them.
pub(super) struct Teller {
    pub(super) operation: &'static str,
    pub(super) database: Arc<str>,
    pub(super) reply: oneshot::Sender<Result<Told, StoreError>>,
}

/// News that wait.
pub(super) struct Waiting {
    pub(super) news: News,
    pub(super) teller: Teller,
}

/// News that are written together.
#[derive(Default)]
pub(super) struct Group {
    news: Vec<News>,
    tellers: Vec<Teller>,
    result: Option<Result<Vec<Result<Told, Failure>>, Failure>>,
}

impl Group {
    fn push(&mut self, waiting: Waiting) {
        self.news.push(waiting.news);
        self.tellers.push(waiting.teller);
    }

    const fn is_empty(&self) -> bool {
        self.news.is_empty()
    }
}

/// What is taken from the queue together.
#[derive(Default)]
pub(super) struct Gathering {
    begins: Group,
    others: Group,
}

impl Gathering {
    /// Takes it, if it may be written together with those that were taken, and there is room: they are of as many calls, and
    /// what begins counts the starts of as many numbers.
    pub(super) fn take(&mut self, waiting: Waiting) -> Option<Waiting> {
        let number = waiting.news.counted().map(|(number, ..)| number);
        let mut taken = self.begins.news.iter().chain(&self.others.news);
        let clashes = |other: &News| {
            other.call() == waiting.news.call()
                || number.is_some() && other.counted().map(|(number, ..)| number) == number
        };
        if self.begins.news.len() + self.others.news.len() == ROWS_MAX || taken.any(clashes) {
            return Some(waiting);
        }
        match waiting.news {
            News::Begin(_) => self.begins.push(waiting),
            News::Advance(_) | News::Hear(_) | News::End(_) => self.others.push(waiting),
        }
        None
    }

    /// The writes that come of it: one, or two.
    pub(super) fn writes(self) -> impl Iterator<Item = Box<dyn Job>> {
        let groups = [self.begins, self.others].into_iter().filter(|group| !group.is_empty());
        groups.map(|group| Box::new(group) as Box<dyn Job>)
    }
}

impl Job for Group {
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Ran<'c> {
        let Self { news, result, .. } = self;
        Box::pin(async move {
            *result = Some(unwinding(|c, news| Box::pin(news::write(c, news)), connection, &*news).await);
        })
    }

    fn failure(&self) -> Option<String> {
        super::writer::failure(self.result.as_ref())
    }

    fn apart(&mut self) -> Vec<Box<dyn Job>> {
        if self.news.len() < 2 {
            return Vec::new();
        }
        let each = self.news.drain(..).zip(self.tellers.drain(..));
        each.map(|(news, teller)| {
            Box::new(Self { news: vec![news], tellers: vec![teller], result: None }) as Box<dyn Job>
        })
        .collect()
    }

    fn answer(self: Box<Self>, lost: Option<&str>) {
        let mut told = match self.result {
            Some(Ok(told)) => told.into_iter(),
            // Of one: those of many were told apart.
            Some(Err(failure)) => vec![Err(failure)].into_iter(),
            None => Vec::new().into_iter(),
        };
        for teller in self.tellers {
            let told = told.next().unwrap_or(Err(Failure::Sql(sqlx::Error::WorkerCrashed)));
            let told = super::writer::unless_lost(told, lost);
            let _ =
                teller.reply.send(told.map_err(|failure| failure.named(teller.operation, &teller.database)));
        }
    }
}
