//! A node's facts on their way to the store: durable first, acknowledged then.

use std::time::Duration;

use controlplane_core::{ids::FactId, names::NodeName};
use controlplane_store::{StoreError, agents::AgentFact};
use node_agent_protocol::Fact;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{bans::is_about_bans, link::Shared};

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
        let (about_bans, others): (Vec<Fact>, Vec<Fact>) = batch.into_iter().partition(is_about_bans);
        let others: Vec<AgentFact> = others.into_iter().map(stored).collect();
        let new = loop {
            match write(&shared, &node, &about_bans, &others).await {
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

/// Bans first: they are in a hurry. What is written twice, since a part failed, is kept once.
async fn write(
    shared: &Shared,
    node: &NodeName,
    about_bans: &[Fact],
    others: &[AgentFact],
) -> Result<u64, StoreError> {
    let mut new = 0;
    if !about_bans.is_empty() {
        new += shared.bans.take(node, about_bans).await?;
    }
    if !others.is_empty() {
        new += shared.store.keep_facts(node, others.to_vec(), shared.clock.now()).await?;
    }
    Ok(new)
}

pub(super) fn stored(fact: Fact) -> AgentFact {
    AgentFact {
        id: fact.id,
        kind: fact.fact_kind.as_str().to_owned(),
        at_ms: fact.at_unix_ms,
        body: fact.body.into_value(),
    }
}
