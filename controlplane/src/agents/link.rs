//! One link's life, from the agent's hello to its end.
//!
//! ```text
//! hello in time, understood, of this node, declared ──▶ Welcome, Policy ──▶ serve ──▶ Refused(why) or silence
//! ```
//!
//! One task reads and writes. Facts are made durable by a task beside it, so that a slow database holds up
//! neither observations nor answers to `bar`; when it is `FACTS_WAITING` messages behind, this node's own
//! link is read no further. Bytes are read at a pace, so that a flood takes no more of the processor than
//! an agent with much to say.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use controlplane_core::names::NodeName;
use controlplane_store::Store;
use node_agent_protocol::{
    BansHeld, Capabilities, Capability, Decoded, Down, Fact, HEARTBEAT, Hello, List, PROTOCOL, RefusalCode,
    Refused, SILENCE_MAX, Text, Up, Welcome, decode, encode, sounds::Wanted,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout, timeout_at},
};

use super::{
    attempts::{Question, answer},
    bans::{Bans, feed},
    facts::{Kept, keep},
    links::{Admission, Declared, Links, Membership, Over},
    pace::Pace,
    policy,
};
use crate::{clock::Clock, registry::Registry};

/// From the upgrade to the hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// An agent that does not read for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Messages of facts that wait to be made durable. The agent sends one at a time.
const FACTS_WAITING: usize = 4;
/// Questions about attempts that wait for the database; more are dropped, and come again.
const QUESTIONS_WAITING: usize = 2;
/// Answers about bans that wait; the agent sends one for each page.
const HELD_WAITING: usize = 2;
/// Pages of bans that wait to be sent.
const PAGES_WAITING: usize = 1;
/// What a ping or pong counts for.
const CONTROL_FRAME: usize = 64;

/// What a link works with.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) links: Arc<Links>,
    pub(super) bans: Arc<Bans>,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) registry: Arc<Registry>,
}

/// Why a link ended.
enum End {
    /// The other side went, or is silent.
    Gone(&'static str),
    /// This side ends it, and says so.
    Refused(RefusalCode, String),
}

/// Serves a link to its end.
pub(super) async fn serve(shared: Shared, mut socket: WebSocket, mut admission: Admission) {
    let node = admission.node().clone();
    let end = match greet(&shared, &mut socket, &node).await {
        Ok(hello) => {
            let version = hello.agent_version.clone();
            let lacking = hello.capabilities.lacking(&Capability::USED);
            let lacking: Vec<_> = lacking.into_iter().map(Capability::as_str).collect();
            tracing::info!(%node, agent = %version, lacking = lacking.join(","), "a node is linked");
            run(&shared, &mut socket, &mut admission, hello).await
        }
        Err(end) => end,
    };
    match end {
        End::Gone(why) => tracing::info!(%node, why, "a link ended"),
        End::Refused(code, detail) => {
            tracing::warn!(%node, ?code, detail, "a link was ended");
            let refused = Down::Refused(Refused { code, detail: Text::cut(&detail) });
            // It may be gone already.
            let _ = send(&mut socket, &refused).await;
            let _ = timeout(WRITE_MAX, socket.send(Message::Close(None))).await;
        }
    }
}

/// The hello, if it may be welcomed.
async fn greet(shared: &Shared, socket: &mut WebSocket, node: &NodeName) -> Result<Hello, End> {
    let first = timeout(HELLO_MAX, socket.recv()).await.map_err(|_| violation("no hello in time"))?;
    let Some(Ok(Message::Text(text))) = first else {
        return Err(violation("the first message is the hello"));
    };
    let hello = match decode::<Up>(&text) {
        Ok(Decoded::Message(Up::Hello(hello))) => hello,
        Ok(_) => return Err(violation("the first message is the hello")),
        Err(error) => return Err(violation(&error.to_string())),
    };
    if !hello.is_understood() {
        let detail = format!("the control plane speaks protocol {PROTOCOL}, the agent {}", hello.protocol);
        return Err(End::Refused(RefusalCode::Protocol, detail));
    }
    if hello.node != *node {
        let detail = format!("the certificate is of {node}, the hello of {}", hello.node);
        return Err(End::Refused(RefusalCode::WrongNode, detail));
    }
    if !shared.links.is_declared(node) {
        return Err(unknown_node(node));
    }
    let welcome = Welcome {
        protocol: hello.protocol.min(PROTOCOL),
        control_plane_version: Text::cut(env!("CARGO_PKG_VERSION")),
        lacking: Capabilities::of(hello.capabilities.lacking(&Capability::USED)),
        capabilities: Capabilities::of([Capability::Hardening, Capability::Records]),
    };
    send(socket, &Down::Welcome(welcome)).await?;
    Ok(hello)
}

fn unknown_node(node: &NodeName) -> End {
    End::Refused(RefusalCode::UnknownNode, format!("fleet.toml declares no node {node}"))
}

async fn send(socket: &mut WebSocket, message: &Down) -> Result<(), End> {
    let text = encode(message).map_err(|error| End::Refused(RefusalCode::Violation, error.to_string()))?;
    match timeout(WRITE_MAX, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone("the connection is lost")),
        Err(_) => Err(End::Gone("the agent does not read")),
    }
}

/// A link under way.
struct Link<'a> {
    shared: &'a Shared,
    socket: &'a mut WebSocket,
    node: NodeName,
    member: Membership,
    declared: watch::Receiver<Declared>,
    stopping: watch::Receiver<bool>,
    facts: mpsc::Sender<Vec<Fact>>,
    kept: mpsc::Receiver<Kept>,
    questions: mpsc::Sender<Question>,
    answers: mpsc::Receiver<Down>,
    held: mpsc::Sender<BansHeld>,
    pages: mpsc::Receiver<Down>,
    heartbeat: Interval,
    pace: Pace,
    /// When the other side was heard last.
    heard: Instant,
}

/// What there is to do next.
enum Next {
    Replaced,
    Stopping,
    Declared,
    Send(Down),
    Acknowledge(Kept),
    Beat,
    Silent,
    Heard(Option<Result<Message, axum::Error>>),
}

async fn run(shared: &Shared, socket: &mut WebSocket, admission: &mut Admission, hello: Hello) -> End {
    let node = admission.node().clone();
    let mut declared = shared.links.declared();
    // The policy goes first, and again at every change of the fleet.
    declared.mark_changed();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (facts, waiting) = mpsc::channel(FACTS_WAITING);
    let (acks, kept) = mpsc::channel(FACTS_WAITING);
    let keeping = tokio::spawn(keep(shared.clone(), node.clone(), waiting, acks));
    let (questions, asked) = mpsc::channel(QUESTIONS_WAITING);
    let (told, answers) = mpsc::channel(QUESTIONS_WAITING);
    let answering = tokio::spawn(answer(shared.clone(), node.clone(), asked, told));
    let (held, holds) = mpsc::channel(HELD_WAITING);
    let (paging, pages) = mpsc::channel(PAGES_WAITING);
    let feeding = tokio::spawn(feed(Arc::clone(&shared.bans), node.clone(), holds, paging));
    let now = Instant::now();
    let mut link = Link {
        shared,
        socket,
        node: node.clone(),
        member: shared.links.join(&node, hello),
        declared,
        stopping: shared.links.stopping(),
        facts,
        kept,
        questions,
        answers,
        held,
        pages,
        heartbeat,
        pace: Pace::new(now),
        heard: now,
    };
    let working = async {
        loop {
            let next = link.next().await;
            if let Err(end) = link.step(next).await {
                return end;
            }
        }
    };
    // A link that waits for its turn, or for the database, is cut as soon as any other.
    let end = tokio::select! {
        biased;
        over = admission.over() => match over {
            Over::Revoked => {
                let detail = format!("{node} was revoked: join it again with a new token");
                End::Refused(RefusalCode::Revoked, detail)
            }
            Over::Expired => {
                let detail = format!("the certificate of {node} on this link has ended");
                End::Refused(RefusalCode::CertificateExpired, detail)
            }
        },
        end = working => end,
    };
    // What is not acknowledged comes again on the next link.
    keeping.abort();
    answering.abort();
    feeding.abort();
    end
}

impl Link<'_> {
    async fn next(&mut self) -> Next {
        let stopped = async {
            // An error means that the sender is gone, which is a stop too.
            let _ = self.stopping.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            _ = &mut self.member.replaced => Next::Replaced,
            () = stopped => Next::Stopping,
            Ok(()) = self.declared.changed() => Next::Declared,
            Some(message) = self.member.down.recv() => Next::Send(message),
            Some(kept) = self.kept.recv() => Next::Acknowledge(kept),
            Some(answer) = self.answers.recv() => Next::Send(answer),
            Some(page) = self.pages.recv() => Next::Send(page),
            _ = self.heartbeat.tick() => Next::Beat,
            message = timeout_at(self.heard + SILENCE_MAX, self.socket.recv()) => {
                message.map_or(Next::Silent, Next::Heard)
            }
        }
    }

    async fn step(&mut self, next: Next) -> Result<(), End> {
        let node = &self.node;
        match next {
            Next::Replaced => {
                Err(End::Refused(RefusalCode::Replaced, format!("{node} has another link now")))
            }
            Next::Stopping => Err(End::Refused(RefusalCode::Stopping, "the control plane stops".to_owned())),
            Next::Declared => {
                let now = self.declared.borrow_and_update().clone();
                if now.fleet.node(node).is_none() {
                    return Err(unknown_node(node));
                }
                let policy = policy::of(&now.fleet, now.revision, node, self.shared.bans.replicas());
                send(self.socket, &Down::Policy(Box::new(policy))).await
            }
            Next::Send(message) => send(self.socket, &message).await,
            Next::Acknowledge(Kept { new, ids }) => {
                self.member.kept(new);
                send(self.socket, &Down::Ack { fact_ids: List::first(ids) }).await
            }
            Next::Beat => match timeout(WRITE_MAX, self.socket.send(Message::Ping(Bytes::new()))).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(End::Gone("the agent does not read")),
            },
            Next::Silent => Err(End::Gone("silent for too long")),
            Next::Heard(message) => self.hear(message).await,
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        match message {
            Some(Ok(Message::Text(text))) => {
                self.pace.spend(text.len()).await;
                self.take(&text).await?;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => self.pace.spend(CONTROL_FRAME).await,
            Some(Ok(Message::Binary(_))) => {
                return Err(violation("binary messages belong on AMI streams"));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                return Err(End::Gone("the agent closed it, or the connection is lost"));
            }
        }
        // After the work: the time that it took is not the agent's silence.
        self.heard = Instant::now();
        Ok(())
    }

    /// Takes one message.
    async fn take(&mut self, text: &str) -> Result<(), End> {
        match decode::<Up>(text) {
            Ok(Decoded::Message(Up::Observations(seen))) => self.member.observed(*seen),
            Ok(Decoded::Message(Up::Facts { facts })) => {
                if self.facts.send(facts.into_vec()).await.is_err() {
                    return Err(End::Gone("facts cannot be kept"));
                }
            }
            Ok(Decoded::Message(Up::Bar { attempt, answer })) => self.member.barred(&attempt, answer),
            Ok(Decoded::Message(Up::Attempts { records, channels })) => {
                let question = Question { records: records.into_vec(), channels: channels.into_vec() };
                if self.questions.try_send(question).is_err() {
                    tracing::debug!(node = %self.node, "a question about attempts was dropped");
                }
            }
            Ok(Decoded::Message(Up::Bans(held))) => {
                // Only one that asks for nothing new is dropped: there is one for each page.
                if self.held.try_send(held).is_err() {
                    tracing::debug!(node = %self.node, "an answer about bans was dropped");
                }
            }
            Ok(Decoded::Message(Up::AudioPlaced { sound, ahead, error })) => {
                let answer = error.map_or(Ok(()), |error| Err(error.to_string()));
                let wanted = if ahead { Wanted::Ahead } else { Wanted::Now };
                self.member.placed(&sound, wanted, &answer);
            }
            Ok(Decoded::Message(Up::AmiRefused { stream_id, reason })) => {
                self.shared.links.ami_refused(self.member.node(), &stream_id, reason.as_str());
            }
            Ok(Decoded::Message(Up::Hello(_))) => return Err(violation("a second hello")),
            Ok(Decoded::Message(Up::Unknown) | Decoded::Unknown) => self.member.skipped(),
            Err(error) => return Err(violation(&error.to_string())),
        }
        Ok(())
    }
}

fn violation(detail: &str) -> End {
    End::Refused(RefusalCode::Violation, detail.to_owned())
}
