//! All simulated nodes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use fake_pbx::Script;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    agent::Agent,
    identity::{self, Identity},
    plan::Plan,
    plane::Operator,
    sight,
};

/// Nodes that join at a time.
const JOINING_MAX: usize = 32;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two lists of all trunks, which are no small thing.
const LIST_EVERY: Duration = Duration::from_millis(500);

/// Every agent, by its node's number.
pub struct Fleet {
    plan: Plan,
    agents: Vec<Agent>,
}

impl Fleet {
    /// Applies the fleet, joins every node and starts its agent.
    ///
    /// # Errors
    /// The control plane refuses something.
    pub async fn start(operator: &Operator, plan: Plan, seed: u64) -> anyhow::Result<Self> {
        Self::start_with(operator, plan, seed, Script::default()).await
    }

    /// The same, where calls go as this script says; whatever it says of the login.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        operator: &Operator,
        plan: Plan,
        seed: u64,
        script: Script,
    ) -> anyhow::Result<Self> {
        operator.apply(plan.fleet_toml()).await?;
        let places = Arc::new(Semaphore::new(JOINING_MAX));
        let mut joining = JoinSet::new();
        for node in 0..plan.nodes {
            let (operator, places) = (operator.clone(), Arc::clone(&places));
            joining.spawn(async move {
                let _place = places.acquire_owned().await?;
                let token = operator.token(&Plan::node(node)).await?;
                let identity = identity::join(&token, Plan::source(node)).await?;
                anyhow::Ok((node, identity))
            });
        }
        let mut joined: Vec<(usize, Identity)> = Vec::new();
        while let Some(one) = joining.join_next().await {
            joined.push(one??);
        }
        joined.sort_by_key(|(node, _)| *node);
        let endpoints = (0..plan.trunks_per_node).map(sight::endpoint).collect::<anyhow::Result<Vec<_>>>()?;
        let agent = |(node, identity): (usize, Identity)| {
            // A node's own chance, whatever the others do.
            let rng = StdRng::seed_from_u64(seed ^ (node as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Ok(Agent::start(Plan::node(node).parse()?, identity, endpoints.clone(), script.clone(), rng))
        };
        let agents = joined.into_iter().map(agent).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { plan, agents })
    }

    /// How large it is.
    #[must_use]
    pub const fn plan(&self) -> Plan {
        self.plan
    }

    /// Every agent, by its node's number.
    #[must_use]
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// One agent.
    ///
    /// # Errors
    /// There is no such node.
    pub fn agent(&self, node: usize) -> anyhow::Result<&Agent> {
        self.agents.get(node).context("no such node")
    }

    /// Waits until every node has a link to every control plane, and its PBX a session of each.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn linked(&self, limit: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let missing = |agent: &&Agent| !(agent.is_linked() && agent.has_session());
            let missing: Vec<_> = self.agents.iter().filter(missing).collect();
            let Some(first) = missing.first() else { return Ok(began.elapsed()) };
            if began.elapsed() > limit {
                bail!(
                    "{} nodes have no link or no session after {limit:?}, among them {}: linked {}, session {}",
                    missing.len(),
                    first.name(),
                    first.is_linked(),
                    first.has_session(),
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the control plane knows of every trunk what the simulation says: down and tripped, or usable.
    ///
    /// # Errors
    /// Not within `limit`, with what differs.
    pub async fn agrees(&self, operator: &Operator, limit: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let wrong = self.disagreements(&operator.trunks().await?);
            let Some(first) = wrong.first() else { return Ok(began.elapsed()) };
            if began.elapsed() > limit {
                bail!("{} trunks differ after {limit:?}: {first}", wrong.len());
            }
            sleep(LIST_EVERY).await;
        }
    }

    fn disagreements(&self, trunks: &[(String, String, bool)]) -> Vec<String> {
        let mut wrong = Vec::new();
        if trunks.len() != self.plan.trunks() {
            wrong.push(format!("{} trunks instead of {}", trunks.len(), self.plan.trunks()));
        }
        let known: std::collections::HashMap<_, _> =
            trunks.iter().map(|(name, state, usable)| (name.as_str(), (state.as_str(), *usable))).collect();
        for (node, agent) in self.agents.iter().enumerate() {
            for trunk in 0..self.plan.trunks_per_node {
                let name = Plan::trunk(node, trunk);
                let is_right = match (agent.is_down(trunk), known.get(name.as_str())) {
                    (true, Some((state, usable))) => *state == "tripped" && !usable,
                    (false, Some((state, usable))) => ["healthy", "probation"].contains(state) && *usable,
                    (_, None) => false,
                };
                if !is_right {
                    wrong.push(format!(
                        "{name}, down {}: {:?}",
                        agent.is_down(trunk),
                        known.get(name.as_str())
                    ));
                }
            }
        }
        wrong
    }
}
