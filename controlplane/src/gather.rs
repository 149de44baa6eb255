//! Serving together those who wait at the same time: one trip to the database for all of them.
//!
//! Nobody waits for company. Whoever comes while nothing is done is served at once and alone; those who come meanwhile are
//! the next batch. What was asked is done even when whoever asked has left.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

/// Who may wait in line. Beyond it they wait for a place in it.
const QUEUE_MAX: usize = 1_024;

type Waiting<I, O> = (I, oneshot::Sender<O>);

/// The way to who serves. It ends when this is dropped and all who wait are served.
pub(crate) struct Gather<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
}

impl<I: Send + 'static, O: Send + 'static> Gather<I, O> {
    /// `serve` answers at most `batch_max` at once, in their order. A batch in which it panics has no answer.
    pub(crate) fn start<S, F>(batch_max: usize, serve: S) -> Self
    where
        S: Fn(Vec<I>) -> F + Send + 'static,
        F: Future<Output = Vec<O>> + Send + 'static,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiting<I, O>>(QUEUE_MAX);
        tokio::spawn(async move {
            let mut batch = Vec::with_capacity(batch_max);
            while waiting.recv_many(&mut batch, batch_max).await > 0 {
                let (asked, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                // In a task of its own: a panic is its batch's alone.
                match tokio::spawn(serve(asked)).await {
                    Ok(answered) => answers.into_iter().zip(answered).for_each(|(to, answer)| {
                        // It has left.
                        let _ = to.send(answer);
                    }),
                    Err(error) => tracing::error!(%error, "a batch broke"),
                }
            }
        });
        Self { queue }
    }

    /// `None`: its batch broke, which is logged.
    pub(crate) async fn ask(&self, one: I) -> Option<O> {
        let (to, answer) = oneshot::channel();
        self.queue.send((one, to)).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;

    /// Doubles; 13 breaks its batch. Writes the batches down.
    /// What came together.
    type Batches = Arc<Mutex<Vec<Vec<u32>>>>;

    fn doubling(batch_max: usize) -> (Arc<Gather<u32, u32>>, Batches) {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&batches);
        let gather = Gather::start(batch_max, move |batch: Vec<u32>| {
            let noted = Arc::clone(&noted);
            async move {
                noted.lock().unwrap().push(batch.clone());
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(!batch.contains(&13), "thirteen");
                batch.into_iter().map(|n| 2 * n).collect()
            }
        });
        (Arc::new(gather), batches)
    }

    async fn ask_all(gather: &Arc<Gather<u32, u32>>, asked: Vec<u32>) -> Vec<Option<u32>> {
        let asking: Vec<_> = asked
            .into_iter()
            .map(|n| {
                let gather = Arc::clone(gather);
                tokio::spawn(async move { gather.ask(n).await })
            })
            .collect();
        let mut answers = Vec::new();
        for one in asking {
            answers.push(one.await.unwrap());
        }
        answers
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_one_is_served_is_served_with_the_others_that_do() {
        let (gather, batches) = doubling(3);
        let first = tokio::spawn({
            let gather = Arc::clone(&gather);
            async move { gather.ask(1).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(ask_all(&gather, vec![2, 3, 4, 5]).await, [Some(4), Some(6), Some(8), Some(10)]);
        assert_eq!(first.await.unwrap(), Some(2));
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2, 3, 4], vec![5]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_breaks_takes_no_other_with_it() {
        let (gather, _) = doubling(2);
        let answers = ask_all(&gather, vec![1, 12, 13, 14, 15]).await;
        assert_eq!(answers, [Some(2), Some(24), None, None, Some(30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_is_done_for_one_who_has_left() {
        let (gather, batches) = doubling(3);
        let asking = ask_all(&gather, vec![1, 2]);
        assert!(tokio::time::timeout(Duration::from_millis(100), asking).await.is_err());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(batches.lock().unwrap().concat(), [1, 2]);
    }
}
