//! A simulated node's link to one control plane, as `node-agent/src/link.rs` keeps one.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::{SinkExt, StreamExt};
use node_agent_protocol::{
    Decoded, Down, HEARTBEAT, LINK_PATH, List, MESSAGE_MAX, RefusalCode, SILENCE_MAX, Up, decode, encode,
};
use rand::{Rng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    agent::{Node, Order, now, unix_ms},
    ami,
    identity::Socket,
    sight,
};

/// The first and the longest wait between two dials, and the longest where nothing listens: the agent's own.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
const WAIT_ABSENT_MAX: Duration = Duration::from_secs(3);
/// Between two sendings of a fact that is not acknowledged.
const RESEND_AFTER: Duration = Duration::from_secs(15);
/// Words about lost links that are kept, of one node.
const LOST_MAX: usize = 16;

/// Why a link is over.
enum End {
    /// It did not come about.
    NoLink(anyhow::Error),
    /// A fault ended it.
    Fault,
    /// It was there, and went.
    Lost(String),
}

/// Keeps a link to a control plane, by its place among those that the node has joined.
pub(crate) async fn keep(node: Arc<Node>, plane: usize, mut orders: mpsc::Receiver<Order>, mut rng: StdRng) {
    let mut failures = 0_u32;
    // They outlive the link that asked for them, as the agent's do.
    let mut streams = JoinSet::new();
    loop {
        let began = Instant::now();
        let end = once(&node, plane, &mut orders, &mut streams).await;
        node.set_linked(plane, false);
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

async fn greet(node: &Node, plane: usize) -> anyhow::Result<Socket> {
    let mut socket = node.identity.web_socket(plane, LINK_PATH, MESSAGE_MAX).await?;
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
async fn once(
    node: &Arc<Node>,
    plane: usize,
    orders: &mut mpsc::Receiver<Order>,
    streams: &mut JoinSet<()>,
) -> End {
    let mut socket = tokio::select! {
        socket = greet(node, plane) => match socket {
            Ok(socket) => socket,
            Err(error) => return End::NoLink(error),
        },
        Some(_) = orders.recv() => return End::Fault,
    };
    node.set_linked(plane, true);
    node.links.fetch_add(1, Ordering::Relaxed);
    let mut link = Link { node, plane, revision: 0, policy_revision: 0, facts_sent: None, frozen: false };
    match link.serve(&mut socket, orders, streams).await {
        Ok(()) => End::Fault,
        // It was silent for longer than it may be: the control plane is right to end the link.
        Err(_) if link.frozen => End::Fault,
        Err(error) => End::Lost(format!("{error:#}")),
    }
}

struct Link<'a> {
    node: &'a Arc<Node>,
    plane: usize,
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
                let (node, plane) = (Arc::clone(self.node), self.plane);
                streams.spawn(async move {
                    // One that ends is asked for again.
                    let _ = ami::carry(node, plane, stream_id).await;
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
