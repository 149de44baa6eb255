//! One simulated agent, and the faults that befall it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use controlplane_core::{
    ids::FactId,
    names::{EndpointName, NodeName},
};
use fake_pbx::{FakePbx, Script};
use node_agent_core::gate::{Ledger, NodeLimits, NumberRule, Policy as GatePolicy, TrunkLimits};
use node_agent_protocol::{AMI_LINK_USER, Fact, FactBody, Policy, Text, fact_kind};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{identity::Identity, link};

/// Orders that wait for an agent to take them.
const ORDERS_MAX: usize = 8;

/// A fault that befalls an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Its connections are gone, without a goodbye.
    Cut,
    /// It neither reads nor writes its link for so long.
    Silent(Duration),
    /// Its PBX and its snapshots are late by this much, until told otherwise.
    Slow(Duration),
}

/// What its tasks share.
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) identity: Identity,
    pub(crate) endpoints: Vec<EndpointName>,
    pub(crate) pbx: FakePbx,
    /// Trunks whose contact does not answer, a bit for each.
    pub(crate) down: watch::Sender<u32>,
    gate: Mutex<Ledger>,
    slow_ms: AtomicU64,
    /// Whether it is welcome, at each control plane.
    linked: Vec<AtomicBool>,
    pub(crate) links: AtomicU32,
    facts: Mutex<Vec<Fact>>,
    /// The control plane is stopped or restarted: links end for that reason.
    pub(crate) excused: AtomicBool,
    lost: Mutex<Vec<String>>,
    pub(crate) facts_kept: AtomicU32,
}

impl Node {
    pub(crate) fn gate(&self) -> MutexGuard<'_, Ledger> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slowness(&self) -> Duration {
        Duration::from_millis(self.slow_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Vec<Fact>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lost(&self) -> MutexGuard<'_, Vec<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_linked(&self, plane: usize, is_linked: bool) {
        if let Some(linked) = self.linked.get(plane) {
            linked.store(is_linked, Ordering::Relaxed);
        }
    }

    pub(crate) fn take_policy(&self, policy: &Policy) {
        let limits = |trunk: &node_agent_protocol::TrunkPolicy| {
            let number = NumberRule {
                begins: trunk.number.begins.to_string(),
                digits_min: trunk.number.digits_min,
                digits_max: trunk.number.digits_max,
            };
            let limits = TrunkLimits { channels_max: trunk.channels_max, cps_max: trunk.cps_max, number };
            node_agent_ami::EndpointName::parse(trunk.endpoint.as_str()).ok().map(|name| (name, limits))
        };
        let node = NodeLimits { channels_max: policy.channels_max, cps_max: policy.cps_max };
        self.gate()
            .set_policy(GatePolicy { trunks: policy.trunks.iter().filter_map(limits).collect() }, node);
    }
}

/// A simulated agent. Dropping it ends its links without a goodbye.
pub struct Agent {
    pub(crate) node: Arc<Node>,
    /// To each of its links.
    orders: Vec<mpsc::Sender<Order>>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// One that has joined; it dials every control plane at once.
    pub(crate) fn start(
        name: NodeName,
        identity: Identity,
        endpoints: Vec<EndpointName>,
        script: Script,
        mut rng: StdRng,
    ) -> Self {
        let script = Script {
            username: AMI_LINK_USER.to_owned(),
            secret: AMI_LINK_USER.to_owned(),
            keeps_actions: false,
            ..script
        };
        let planes = identity.planes();
        let node = Arc::new(Node {
            name,
            identity,
            endpoints,
            pbx: FakePbx::without_port(script),
            down: watch::Sender::new(0),
            gate: Mutex::new(Ledger::new(NodeLimits { channels_max: 0, cps_max: 0 }, None)),
            slow_ms: AtomicU64::new(0),
            linked: (0..planes).map(|_| AtomicBool::new(false)).collect(),
            links: AtomicU32::new(0),
            facts: Mutex::default(),
            excused: AtomicBool::new(false),
            lost: Mutex::default(),
            facts_kept: AtomicU32::new(0),
        });
        let mut tasks = JoinSet::new();
        let ids = StdRng::from_rng(&mut rng);
        let link = |plane| {
            let (order, orders) = mpsc::channel(ORDERS_MAX);
            tasks.spawn(link::keep(Arc::clone(&node), plane, orders, StdRng::from_rng(&mut rng)));
            order
        };
        let orders = (0..planes).map(link).collect();
        let agent = Self { node, orders, _tasks: tasks };
        agent.report(
            ids,
            now(),
            json!({"agent_version": env!("CARGO_PKG_VERSION"), "incarnation": "simulated"}),
        );
        agent
    }

    fn report(&self, mut rng: StdRng, at: OffsetDateTime, body: serde_json::Value) {
        let Ok(body) = FactBody::new(body) else { return };
        let fact = Fact {
            id: FactId::new(at, &mut rng),
            fact_kind: Text::cut(fact_kind::AGENT_STARTED),
            at_unix_ms: unix_ms(at),
            body,
        };
        self.node.facts().push(fact);
    }

    /// Lets a fault befall it.
    pub async fn order(&self, order: Order) {
        match order {
            Order::Slow(by) => {
                let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
                self.node.slow_ms.store(ms, Ordering::Relaxed);
            }
            // Its task lives as long as this.
            Order::Cut | Order::Silent(_) => {
                for link in &self.orders {
                    let _ = link.send(order).await;
                }
            }
        }
    }

    /// A trunk's contact answers no more, or again; told at once.
    pub fn set_down(&self, trunk: usize, is_down: bool) {
        let bit = 1 << trunk;
        self.node.down.send_if_modified(|down| {
            let before = *down;
            *down = if is_down { before | bit } else { before & !bit };
            *down != before
        });
    }

    /// Whether a trunk's contact does not answer.
    #[must_use]
    pub fn is_down(&self, trunk: usize) -> bool {
        *self.node.down.borrow() & (1 << trunk) != 0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Its PBX.
    #[must_use]
    pub fn pbx(&self) -> &FakePbx {
        &self.node.pbx
    }

    /// Whether it is welcome at every control plane now.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.node.linked.iter().all(|linked| linked.load(Ordering::Relaxed))
    }

    /// Whether every control plane holds a session at its PBX now.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.node.pbx.sessions() >= self.node.linked.len()
    }

    /// Links that it had.
    #[must_use]
    pub fn links(&self) -> u32 {
        self.node.links.load(Ordering::Relaxed)
    }

    /// From now on the control plane may go without that being held against it; or not any more.
    pub fn excuse(&self, is_excused: bool) {
        self.node.excused.store(is_excused, Ordering::Relaxed);
    }

    /// Links that it lost though nothing had befallen it, with the reasons that it saw.
    #[must_use]
    pub fn lost_without_reason(&self) -> Vec<String> {
        self.node.lost().clone()
    }

    /// Facts that it has reported and that are durable.
    #[must_use]
    pub fn facts_kept(&self) -> u32 {
        self.node.facts_kept.load(Ordering::Relaxed)
    }

    /// Facts that are not acknowledged.
    #[must_use]
    pub fn facts_waiting(&self) -> usize {
        self.node.facts().len()
    }
}

/// An agent's clock is its node's.
#[allow(clippy::disallowed_methods, reason = "this is the simulated node's clock")]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn unix_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
