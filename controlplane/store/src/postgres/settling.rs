//! What came of deliveries that arrived, written together: whatever waits while others are written is one transaction, whosever it is. An event that
//! arrives is the rule, and there are several for each call; what else may come of one is written alone.

use std::{iter, sync::Arc, time::Duration};

use controlplane_core::webhook::{DisabledReason, Next};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};

use super::{
    deliveries,
    server::{Body, Server},
    sets::in_place,
};
use crate::{StoreError, error::Failure, webhooks::Settle};

/// For the log.
const OPERATION: &str = "settle deliveries";
/// Most that are written together.
const SET_MAX: usize = 64;
/// Sets under way at once: while one is being synced, the next is written. A slow one is not counted.
const SETS_MAX: usize = 2;
/// How long the first of a set waits for company. What follows it of its call waits as long.
const GATHER: Duration = Duration::from_millis(5);
/// Those that may wait. Beyond it, who tells them waits for room.
const WAITING_MAX: usize = 1_024;

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// The way to what writes. When the last one is dropped, what waits is written, and that is the end of it.
pub(super) struct Settling {
    way: mpsc::Sender<(Settle, Reply)>,
    server: Arc<Server>,
}

impl Settling {
    /// Must be called within a tokio runtime.
    pub(super) fn start(server: Arc<Server>) -> Self {
        let (way, come) = mpsc::channel(WAITING_MAX);
        tokio::spawn(serve(Arc::clone(&server), come));
        Self { way, server }
    }

    pub(super) async fn settle(&self, settle: Settle) -> Result<Option<DisabledReason>, StoreError> {
        let operation = "settle delivery";
        let named = |failure: Failure| failure.named(operation, &self.server.database);
        if settle.next != Next::Delivered {
            let body: Body<_, _> = |c, settle| Box::pin(deliveries::settle(c, settle));
            return self
                .server
                .transaction("BEGIN".to_owned(), operation, &settle, body)
                .await
                .map_err(named);
        }
        let gone = || named(Failure::Sql(sqlx::Error::WorkerCrashed));
        let (reply, told) = oneshot::channel();
        self.way.send((settle, reply)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?.map(|()| None)
    }
}

async fn serve(server: Arc<Server>, mut come: mpsc::Receiver<(Settle, Reply)>) {
    let places = Arc::new(Semaphore::new(SETS_MAX));
    // What comes while there is no place is company for what waits.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await
        && let Some(first) = come.recv().await
    {
        sleep(GATHER).await;
        let more = iter::from_fn(|| come.try_recv().ok()).take(SET_MAX - 1);
        let (settles, replies) = iter::once(first).chain(more).unzip();
        tokio::spawn(in_place(place, write(Arc::clone(&server), settles, replies)));
    }
}

/// Writes a set and tells everybody what came of theirs: each alone where the database refuses what is in it, or another one has locked some of it.
async fn write(server: Arc<Server>, settles: Vec<Settle>, replies: Vec<Reply>) {
    match together(&server, &settles).await {
        Ok(settled) => {
            for (reply, is_settled) in replies.into_iter().zip(settled) {
                // Nobody listens any more: it stands all the same.
                let _ = reply.send(answer(&server, Ok(is_settled)));
            }
        }
        Err(failure) if failure.is_of_what_was_asked() && settles.len() > 1 => {
            for (settle, reply) in settles.into_iter().zip(replies) {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let alone = together(&server, &[settle]).await.map(|settled| settled == [true]);
                    let _ = reply.send(answer(&server, alone));
                });
            }
        }
        Err(failure) => {
            let failed = failure.named(OPERATION, &server.database);
            for reply in replies {
                let _ = reply.send(Err(failed.again()));
            }
        }
    }
}

fn answer(server: &Server, settled: Result<bool, Failure>) -> Result<(), StoreError> {
    let settled = settled.and_then(|is_settled| if is_settled { Ok(()) } else { Err(Failure::Fenced) });
    settled.map_err(|failure| failure.named(OPERATION, &server.database))
}

async fn together(server: &Server, settles: &[Settle]) -> Result<Vec<bool>, Failure> {
    let body: Body<[Settle], _> = |c, settles| Box::pin(deliveries::delivered(c, settles));
    server.transaction("BEGIN".to_owned(), OPERATION, settles, body).await
}
