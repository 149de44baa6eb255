//! One simulated agent: its link, as `node-agent/src/link.rs` keeps one, and the faults that befall it.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use controlplane_core::{
    ids::FactId,
    names::{EndpointName, NodeName},
};
use fake_pbx::{FakePbx, Script};
use futures_util::{SinkExt, StreamExt};
use node_agent_core::gate::{Ledger, NodeLimits, NumberRule, Policy as GatePolicy, TrunkLimits};
use node_agent_protocol::{
    AMI_LINK_USER, Decoded, Down, Fact, FactBody, HEARTBEAT, LINK_PATH, List, MESSAGE_MAX, Policy,
    RefusalCode, SILENCE_MAX, Text, Up, decode, encode, fact_kind,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    ami,
    identity::{Identity, Socket},
    sight,
};

/// The first and the longest wait between two dials, and the longest where nothing listens: the agent's own.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
const WAIT_ABSENT_MAX: Duration = Duration::from_secs(3);
/// Orders that wait for an agent to take them.
const ORDERS_MAX: usize = 8;
/// Between two sendings of a fact that is not acknowledged.
const RESEND_AFTER: Duration = Duration::from_secs(15);
/// Words about lost links that are kept, of one node.
const LOST_MAX: usize = 16;

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
    linked: AtomicBool,
    links: AtomicU32,
    facts: Mutex<Vec<Fact>>,
    /// The control plane is stopped or restarted: links end for that reason.
    excused: AtomicBool,
    lost: Mutex<Vec<String>>,
    facts_kept: AtomicU32,
}

impl Node {
    pub(crate) fn gate(&self) -> MutexGuard<'_, Ledger> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn slowness(&self) -> Duration {
        Duration::from_millis(self.slow_ms.load(Ordering::Relaxed))
    }

    fn facts(&self) -> MutexGuard<'_, Vec<Fact>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Vec<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_policy(&self, policy: &Policy) {
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

/// A simulated agent. Dropping it ends its link without a goodbye.
pub struct Agent {
    pub(crate) node: Arc<Node>,
    orders: mpsc::Sender<Order>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// One that has joined; it dials at once.
    pub(crate) fn start(
        name: NodeName,
        identity: Identity,
        endpoints: Vec<EndpointName>,
        mut rng: StdRng,
    ) -> Self {
        let script = Script {
            username: AMI_LINK_USER.to_owned(),
            secret: AMI_LINK_USER.to_owned(),
            keeps_actions: false,
            ..Script::default()
        };
        let node = Arc::new(Node {
            name,
            identity,
            endpoints,
            pbx: FakePbx::without_port(script),
            down: watch::Sender::new(0),
            gate: Mutex::new(Ledger::new(NodeLimits { channels_max: 0, cps_max: 0 }, None)),
            slow_ms: AtomicU64::new(0),
            linked: AtomicBool::new(false),
            links: AtomicU32::new(0),
            facts: Mutex::default(),
            excused: AtomicBool::new(false),
            lost: Mutex::default(),
            facts_kept: AtomicU32::new(0),
        });
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let mut tasks = JoinSet::new();
        let ids = StdRng::from_rng(&mut rng);
        tasks.spawn(keep(Arc::clone(&node), taken, rng));
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
                let _ = self.orders.send(order).await;
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

    /// Whether it is welcome at the control plane now.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.node.linked.load(Ordering::Relaxed)
    }

    /// Whether the control plane holds a session at its PBX now.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.node.pbx.sessions() > 0
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

/// Why a link is over.
enum End {
    /// It did not come about.
    NoLink(anyhow::Error),
    /// A fault ended it.
    Fault,
    /// It was there, and went.
    Lost(String),
}

async fn keep(node: Arc<Node>, mut orders: mpsc::Receiver<Order>, mut rng: StdRng) {
    let mut failures = 0_u32;
    // They outlive the link that asked for them, as the agent's do.
    let mut streams = JoinSet::new();
    loop {
        let began = Instant::now();
        let end = once(&node, &mut orders, &mut streams).await;
        node.linked.store(false, Ordering::Relaxed);
        if began.elapsed() > WAIT.1 {
            failures = 0;
        }
        failures = failures.saturating_add(1);
        let mut longest = WAIT.1;
        match end {
            End::NoLink(error) => {
                let refused = error.downcast_ref::<io::Error>();
                if refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                    longest = WAIT_ABSENT_MAX;
                }
            }
            End::Fault => {
                failures = 0;
                streams.abort_all();
            }
            End::Lost(why) => {
                let mut lost = node.lost();
                if !node.excused.load(Ordering::Relaxed) && lost.len() < LOST_MAX {
                    lost.push(why);
                }
            }
        }
        let wait = WAIT.0.saturating_mul(1 << failures.min(10)).min(longest);
        sleep(wait.mul_f64(rng.random_range(0.5..=1.0))).await;
    }
}

async fn send(socket: &mut Socket, message: &Up) -> anyhow::Result<()> {
    let sending = timeout(SILENCE_MAX, socket.send(Frame::text(encode(message)?)));
    Ok(sending.await.context("the control plane reads nothing")??)
}

/// A message; `None`: only a sign of life.
async fn hear(socket: &mut Socket) -> anyhow::Result<Option<Down>> {
    match timeout(SILENCE_MAX, socket.next()).await.context("the control plane is silent")? {
        Some(Ok(Frame::Text(text))) => Ok(match decode::<Down>(&text)? {
            Decoded::Message(message) => Some(message),
            Decoded::Unknown => None,
        }),
        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Ok(None),
        Some(Ok(Frame::Binary(_) | Frame::Frame(_))) => bail!("bytes on the control stream"),
        Some(Ok(Frame::Close(_))) | None => bail!("closed by the control plane"),
        Some(Err(error)) => Err(error.into()),
    }
}

async fn greet(node: &Node) -> anyhow::Result<Socket> {
    let mut socket = node.identity.web_socket(LINK_PATH, MESSAGE_MAX).await?;
    send(&mut socket, &Up::Hello(sight::hello(node))).await?;
    loop {
        match hear(&mut socket).await? {
            Some(Down::Welcome(_)) => return Ok(socket),
            Some(other) => bail!("its first message is {other:?}"),
            None => {}
        }
    }
}

/// One link, from its dial to its end.
async fn once(node: &Arc<Node>, orders: &mut mpsc::Receiver<Order>, streams: &mut JoinSet<()>) -> End {
    let mut socket = tokio::select! {
        socket = greet(node) => match socket {
            Ok(socket) => socket,
            Err(error) => return End::NoLink(error),
        },
        Some(_) = orders.recv() => return End::Fault,
    };
    node.linked.store(true, Ordering::Relaxed);
    node.links.fetch_add(1, Ordering::Relaxed);
    let mut link = Link { node, revision: 0, policy_revision: 0, facts_sent: None, frozen: false };
    match link.serve(&mut socket, orders, streams).await {
        Ok(()) => End::Fault,
        // It was silent for longer than it may be: the control plane is right to end the link.
        Err(_) if link.frozen => End::Fault,
        Err(error) => End::Lost(format!("{error:#}")),
    }
}

struct Link<'a> {
    node: &'a Arc<Node>,
    revision: u64,
    policy_revision: u64,
    /// When facts were sent that are not acknowledged.
    facts_sent: Option<Instant>,
    /// It was silent for longer than it may be.
    frozen: bool,
}

impl Link<'_> {
    /// Until a fault ends it.
    async fn serve(
        &mut self,
        socket: &mut Socket,
        orders: &mut mpsc::Receiver<Order>,
        streams: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let mut down = self.node.down.subscribe();
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Silent(span)) => {
                        self.frozen |= span + HEARTBEAT >= SILENCE_MAX;
                        sleep(span).await;
                    }
                    Some(Order::Cut) | None => return Ok(()),
                    Some(Order::Slow(_)) => {}
                },
                _ = down.changed() => self.observe(socket).await?,
                _ = beat.tick() => {
                    self.observe(socket).await?;
                    self.report(socket).await?;
                }
                message = hear(socket) => {
                    if let Some(message) = message? {
                        self.take(socket, streams, message).await?;
                    }
                }
                Some(_) = streams.join_next() => {}
            }
        }
    }

    async fn observe(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        sleep(self.node.slowness()).await;
        self.revision += 1;
        let waiting = self.node.facts().len() as u64;
        let seen =
            sight::observations(self.node, self.revision, unix_ms(now()), self.policy_revision, waiting);
        send(socket, &Up::Observations(Box::new(seen))).await
    }

    async fn report(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        let facts = self.node.facts().clone();
        if facts.is_empty() || self.facts_sent.is_some_and(|at| at.elapsed() < RESEND_AFTER) {
            return Ok(());
        }
        self.facts_sent = Some(Instant::now());
        send(socket, &Up::Facts { facts: List::first(facts) }).await
    }

    async fn take(
        &mut self,
        socket: &mut Socket,
        streams: &mut JoinSet<()>,
        message: Down,
    ) -> anyhow::Result<()> {
        match message {
            Down::Policy(policy) => {
                self.policy_revision = policy.revision;
                self.node.take_policy(&policy);
            }
            Down::Ack { fact_ids } => {
                self.facts_sent = None;
                let kept = u32::try_from(fact_ids.len()).unwrap_or(u32::MAX);
                self.node.facts_kept.fetch_add(kept, Ordering::Relaxed);
                self.node.facts().retain(|fact| !fact_ids.contains(&fact.id));
            }
            Down::Bar { attempt, age_max_s } => {
                let answer = sight::barred(self.node, attempt.as_str(), age_max_s);
                send(socket, &Up::Bar { attempt, answer }).await?;
            }
            Down::PlaceAudio { sound, ahead } => {
                send(socket, &Up::AudioPlaced { sound, ahead, error: None }).await?;
            }
            Down::OpenAmi { stream_id } => {
                let node = Arc::clone(self.node);
                streams.spawn(async move {
                    // One that ends is asked for again.
                    let _ = ami::carry(node, stream_id).await;
                });
            }
            Down::Refused(refused) => {
                let code: RefusalCode = refused.code;
                bail!("refused ({code:?}): {}", refused.detail);
            }
            Down::Welcome(_) | Down::Attempts { .. } | Down::Bans(_) | Down::Unknown => {}
        }
        Ok(())
    }
}

/// An agent's clock is its node's.
#[allow(clippy::disallowed_methods, reason = "this is the simulated node's clock")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn unix_ms(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}
