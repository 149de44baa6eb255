//! A node's facts on their way to the store: durable first, acknowledged then.

use std::time::Duration;

use controlplane_core::{ids::FactId, names::NodeName};
use controlplane_store::agents::AgentFact;
use node_agent_protocol::Fact;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::link::Shared;

/// Between two writes of one node's facts: with `FACTS_PER_MESSAGE`, at most 2,560 facts per second.
const FACTS_PACE: Duration = Duration::from_millis(100);
/// Between two tries to make facts durable while the database is away.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Facts that are durable now.
pub(super) struct Kept {
    pub(super) new: u64,
    pub(super) ids: Vec<FactId>,
}

/// Makes facts durable, then has them acknowledged. Tries until it succeeds or the link ends.
pub(super) async fn keep(
    shared: Shared,
    node: NodeName,
    mut waiting: mpsc::Receiver<Vec<Fact>>,
    acks: mpsc::Sender<Kept>,
) {
    while let Some(batch) = waiting.recv().await {
        let next = Instant::now() + FACTS_PACE;
        let ids = batch.iter().map(|fact| fact.id.clone()).collect();
        let batch: Vec<AgentFact> = batch.into_iter().map(stored).collect();
        let new = loop {
            match shared.store.keep_facts(&node, batch.clone(), shared.clock.now()).await {
                Ok(new) => break new,
                Err(error) => {
                    tracing::warn!(%node, error = %crate::calls::chain(&error), "a node's facts are not durable yet");
                    sleep(STORE_RETRY).await;
                }
            }
        };
        if acks.send(Kept { new, ids }).await.is_err() {
            return;
        }
        sleep_until(next).await;
    }
}

fn stored(fact: Fact) -> AgentFact {
    AgentFact {
        id: fact.id,
        kind: fact.fact_kind.as_str().to_owned(),
        at_ms: fact.at_unix_ms,
        body: fact.body.into_value(),
    }
}
