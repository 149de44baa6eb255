//! What a node asks of attempts that have left something there: settled flight records are named, so that the agent
//! removes them, and channels whose attempt has ended are hung up.
//!
//! The database is asked, so any replica answers for all, and what an earlier process gave up is found too. What
//! is open, here or at another replica, is left alone. A question that cannot be answered now is dropped: it
//! comes again.

use std::collections::HashMap;

use controlplane_core::{ids::AttemptId, names::NodeName};
use node_agent_protocol::{Down, List};
use time::{Duration, OffsetDateTime};
use tokio::sync::mpsc;

use super::link::Shared;

/// A channel is hung up when its attempt has ended so long ago: the two come together where all is well.
const CHANNEL_GRACE: Duration = Duration::seconds(10);

/// The attempts of one question.
pub(super) struct Question {
    pub(super) records: Vec<AttemptId>,
    pub(super) channels: Vec<AttemptId>,
}

/// Answers until the link ends.
pub(super) async fn answer(
    shared: Shared,
    node: NodeName,
    mut questions: mpsc::Receiver<Question>,
    answers: mpsc::Sender<Down>,
) {
    while let Some(Question { records, channels }) = questions.recv().await {
        let asked = [records.as_slice(), &channels].concat();
        let mut ends: Ends = match shared.store.attempt_ends(&node, &asked).await {
            Ok(ends) => ends.into_iter().map(|end| (end.attempt, (end.ended_at, end.is_untold))).collect(),
            Err(error) => {
                tracing::warn!(%node, error = %crate::calls::chain(&error), "attempts could not be looked up");
                continue;
            }
        };
        let now = shared.clock.now();
        // The database does not know canaries.
        ends.extend(
            shared.registry.past_canaries(&asked).into_iter().map(|canary| (canary, (Some(now), false))),
        );
        for attempt in channels.into_iter().filter(|attempt| is_left(&ends, attempt, now)) {
            // The node's task looks for it as for any that was given up.
            tracing::warn!(%node, %attempt, "a channel lives although its attempt has ended: hanging it up");
            shared.registry.left(&node, attempt, now);
        }
        if answers.send(settle(&ends, records)).await.is_err() {
            return;
        }
    }
}

/// When each ended, and whether its record is still to be read.
type Ends = HashMap<AttemptId, (Option<OffsetDateTime>, bool)>;

fn is_left(ends: &Ends, attempt: &AttemptId, now: OffsetDateTime) -> bool {
    ends.get(attempt).is_some_and(|(end, _)| end.is_some_and(|at| now - at > CHANNEL_GRACE))
}

/// Open ones are not named, and none whose record is still to be read.
fn settle(ends: &Ends, records: Vec<AttemptId>) -> Down {
    let (mut settled, mut unknown) = (Vec::new(), Vec::new());
    for attempt in records {
        match ends.get(&attempt) {
            Some((Some(_), false)) => settled.push(attempt),
            Some((Some(_), true) | (None, _)) => {}
            None => unknown.push(attempt),
        }
    }
    Down::Attempts { settled: List::first(settled), unknown: List::first(unknown) }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn what_is_open_is_neither_settled_nor_left() {
        let mut rng = StdRng::seed_from_u64(1);
        let [ended, just, open, untold, unknown] = std::array::from_fn(|_| AttemptId::new(&mut rng));
        let second = Duration::seconds(1);
        let ends = Ends::from([
            (ended.clone(), (Some(NOW - CHANNEL_GRACE - second), false)),
            (just.clone(), (Some(NOW - second), false)),
            (open.clone(), (None, false)),
            (untold.clone(), (Some(NOW - CHANNEL_GRACE - second), true)),
        ]);
        let all = [&ended, &just, &open, &untold, &unknown];
        assert_eq!(all.map(|attempt| is_left(&ends, attempt, NOW)), [true, false, false, true, false]);
        let Down::Attempts { settled, unknown: not_known } = settle(&ends, all.map(Clone::clone).to_vec())
        else {
            panic!("another message")
        };
        assert_eq!((settled.into_vec(), not_known.into_vec()), (vec![ended, just], vec![unknown]));
    }
}
