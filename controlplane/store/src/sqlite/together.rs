//! A set of news of calls as one write: see `news.rs`. Where it fails its news are tried one by one.

use sqlx::SqliteConnection;

use super::{
    news,
    sets::ROWS_MAX,
    writer::{Job, Ran, unless_lost, unwinding},
};
use crate::{
    calls::news::Told,
    error::Failure,
    gathering::{Group, SET_MAX},
};

const _: () = assert!(SET_MAX <= ROWS_MAX, "there is a text for every set");

/// News that are written together.
pub(super) struct Together {
    group: Group,
    result: Option<Result<Vec<Result<Told, Failure>>, Failure>>,
}

/// The write of a set.
pub(super) fn write(group: Group) -> Box<dyn Job> {
    Box::new(Together { group, result: None })
}

impl Job for Together {
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Ran<'c> {
        let Self { group, result } = self;
        Box::pin(async move {
            *result =
                Some(unwinding(|c, group| Box::pin(news::write(c, group.news())), connection, &*group).await);
        })
    }

    fn failure(&self) -> Option<String> {
        super::writer::failure(self.result.as_ref())
    }

    fn apart(&mut self) -> Vec<Box<dyn Job>> {
        self.group.apart().into_iter().map(write).collect()
    }

    fn answer(self: Box<Self>, lost: Option<&str>) {
        let told = match self.result {
            Some(Ok(told)) => told,
            // Of one: those of many were told apart.
            Some(Err(failure)) => vec![Err(failure)],
            None => Vec::new(),
        };
        self.group.answer(told.into_iter().map(|told| unless_lost(told, lost)).collect());
    }
}
