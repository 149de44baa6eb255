//! The control stream to one control plane: dials, says hello, keeps both sides' state fresh, dials again.
//!
//! ```text
//!          dialled          Welcome                        silence, cut, Refused
//! Waiting ────────▶ Greeting ───────▶ Up: observations ───────────────────────▶ Waiting (grows, with jitter;
//!    ▲                 │ Refused, silence          facts, bars, streams            from its least if Up lasted)
//!    └─────────────────┘
//! ```

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use controlplane_core::ids::FactId;
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use node_agent_core::observe::has_tech_cause;
use node_agent_protocol::{
    Asterisk, Capabilities, Capability, Decoded, Down, HEARTBEAT, Hello, LINK_PATH, List, MESSAGE_MAX,
    PROTOCOL, PROTOCOL_OLDEST, PlaneUrl, RefusalCode, SILENCE_MAX, Text, Up, Welcome, decode, encode,
    sounds::Wanted, tls,
};
use rand::{Rng, rngs::StdRng};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    ami_stream::{self, Asked},
    clock::Chance,
    dial::{self, DialError, Socket},
    metrics::Metrics,
    settings::Login,
    sounds::Sounds,
    status::{Sight, Status},
    ward::{Ward, sharing::Sharing},
};

/// The first and the longest wait between two dials.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));
/// The longest wait where nothing listens: a control plane that restarts is to be found at once, and a refused
/// connection costs it nothing. Its calls wait for nodes to be back for 10 s only.
const WAIT_ABSENT_MAX: Duration = Duration::from_secs(3);
/// After a refusal that only an operator can mend.
const WAIT_REFUSED: Duration = Duration::from_secs(30);
/// How long a hello waits for what Asterisk says of itself.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(1);
/// AMI streams of one link at a time.
const STREAMS_MAX: usize = 8;
/// Sounds that one link may ask for at a time.
const PLACING_MAX: usize = 256;
/// And ahead of calls.
const PLACING_AHEAD_MAX: usize = 64;
/// Snapshots at changes come no closer than that.
const CHANGES_APART: Duration = Duration::from_millis(100);
/// Facts without an acknowledgement are sent again after that.
const RESEND_AFTER: Duration = Duration::from_secs(15);
/// Facts under way.
const FACTS_UNDER_WAY: usize = 1024;

/// What all links of this program share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What is told.
    pub status: Status,
    /// What calls play.
    pub(crate) sounds: Sounds,
    /// The manager user of AMI streams.
    pub login: Login,
    /// Random words.
    pub chance: Chance,
    /// Which run of the agent this is.
    pub incarnation: String,
    /// Counted.
    pub metrics: Arc<Metrics>,
    /// Its sender is dropped when the agent stops: AMI streams, which outlive their link, end then.
    pub running: watch::Receiver<()>,
    /// Bans and the firewall.
    pub ward: Ward,
    /// Bans of the fleet; none where the firewall is off.
    pub(crate) sharing: Option<Sharing>,
}

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the control plane refused the link ({0:?}): {1}")]
    Refused(RefusalCode, String),
    #[error("the control plane was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the link broke: {0}")]
    Broken(String),
}

/// Keeps a link to `url` for as long as the program runs.
pub async fn keep(url: PlaneUrl, shared: Shared) {
    let mut rng = shared.chance.fork();
    let sounds = shared.sounds.for_another();
    let name = url.to_string();
    let mut failures: u32 = 0;
    loop {
        shared.metrics.link(&name, false);
        let began = Instant::now();
        let Err(error) = once(&url, &shared, &sounds).await;
        shared.metrics.link(&name, false);
        let lasted = began.elapsed() > WAIT.1;
        failures = if lasted { 0 } else { failures.saturating_add(1) };
        let wait = wait(&error, failures, &mut rng);
        tracing::warn!(%url, %error, wait_ms = wait.as_millis(), "no link to the control plane");
        shared.status.link(&name, format!("down: {error}"));
        sleep(wait).await;
    }
}

fn wait(error: &LinkError, failures: u32, rng: &mut StdRng) -> Duration {
    let grown = WAIT.0.saturating_mul(1 << failures.min(10));
    let full = match error {
        LinkError::Dial(DialError::Unreachable { source, .. })
            if source.kind() == io::ErrorKind::ConnectionRefused =>
        {
            grown.min(WAIT_ABSENT_MAX)
        }
        LinkError::Refused(
            RefusalCode::Revoked
            | RefusalCode::UnknownNode
            | RefusalCode::WrongNode
            | RefusalCode::Protocol
            | RefusalCode::Replaced,
            _,
        ) => WAIT_REFUSED,
        LinkError::Refused(
            RefusalCode::Violation
            | RefusalCode::CertificateExpired
            | RefusalCode::Stopping
            | RefusalCode::Unknown,
            _,
        )
        | LinkError::Dial(_)
        | LinkError::Silent
        | LinkError::Broken(_) => grown.min(WAIT.1),
    };
    full.mul_f64(rng.random_range(0.5..=1.0))
}

fn broken(error: impl std::fmt::Display) -> LinkError {
    LinkError::Broken(error.to_string())
}

type Sink = SplitSink<Socket, Frame>;

async fn send(sink: &mut Sink, message: &Up) -> Result<(), LinkError> {
    let text = encode(message).map_err(broken)?;
    let sending = timeout(SILENCE_MAX, sink.send(Frame::text(text)));
    sending.await.map_err(|_| LinkError::Silent)?.map_err(broken)
}

async fn once(
    url: &PlaneUrl,
    shared: &Shared,
    sounds: &Sounds,
) -> Result<std::convert::Infallible, LinkError> {
    let identity = shared.status.identity.borrow().clone();
    let config = || tls::joined(&identity.ca_pem, &identity.certificate_pem, &identity.key_pem);
    let config_now = config().map_err(DialError::from)?;
    let socket = dial::web_socket(url, LINK_PATH, config_now, MESSAGE_MAX).await?;
    if let Some(sharing) = &shared.sharing
        && let Ok(address) = socket.get_ref().get_ref().0.peer_addr()
    {
        sharing.reached(&url.to_string(), address);
    }
    let (mut sink, mut frames) = socket.split();
    let asterisk = first_look(shared).await;
    let tech_cause = says_tech_cause(asterisk.as_ref());
    let capabilities =
        [Capability::Ami, Capability::Audio, Capability::Bar, Capability::Facts, Capability::Records]
            .into_iter()
            .chain(tech_cause.then_some(Capability::TechCause))
            .chain(shared.sharing.is_some().then_some(Capability::Hardening));
    let hello = Hello {
        protocol: PROTOCOL,
        protocol_oldest: Some(PROTOCOL_OLDEST),
        agent_version: Text::cut(env!("CARGO_PKG_VERSION")),
        capabilities: Capabilities::of(capabilities),
        node: identity.node.clone(),
        incarnation: Text::cut(&shared.incarnation),
        asterisk,
    };
    send(&mut sink, &Up::Hello(hello)).await?;
    let Welcome { control_plane_version, lacking, capabilities, .. } = loop {
        let frame = timeout(SILENCE_MAX, frames.next()).await.map_err(|_| LinkError::Silent)?;
        match read(frame)? {
            Some(Down::Welcome(welcome)) => break welcome,
            Some(Down::Refused(refused)) => {
                return Err(LinkError::Refused(refused.code, refused.detail.to_string()));
            }
            Some(other) => return Err(broken(format_args!("its first message is {other:?}"))),
            None => {}
        }
    };
    let lacking: Vec<_> =
        Capability::USED.into_iter().filter(|c| lacking.has(*c)).map(Capability::as_str).collect();
    let lacking = lacking.join(",");
    tracing::info!(%url, version = %control_plane_version, lacking, "the link is up");
    shared.metrics.link(&url.to_string(), true);
    shared
        .status
        .link(&url.to_string(), format!("up, control plane {control_plane_version}, lacking [{lacking}]"));

    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    let placing = Arc::new(Semaphore::new(PLACING_MAX));
    let placing_ahead = Arc::new(Semaphore::new(PLACING_AHEAD_MAX));
    let (answers, mut answered) = mpsc::channel::<Up>(STREAMS_MAX);
    let (bans, pages) = mpsc::channel(1);
    // Ends with the link.
    let mut following = JoinSet::new();
    if let Some(sharing) = shared.sharing.clone().filter(|_| capabilities.has(Capability::Hardening)) {
        following.spawn(sharing.follow(pages, answers.clone()));
    }
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sight = shared.status.sight.subscribe();
    let mut added = shared.status.spool.added();
    let mut told = (Arc::clone(&sight.borrow_and_update()), Instant::now());
    let mut revision = 0;
    let mut under_way = UnderWay::default();
    let mut heard = Instant::now();
    added.mark_changed();
    loop {
        tokio::select! {
            frame = timeout(SILENCE_MAX.saturating_sub(heard.elapsed()), frames.next()) => {
                let frame = frame.map_err(|_| LinkError::Silent)?;
                heard = Instant::now();
                let message = read(frame)?;
                shared.ward.confirmed();
                match message {
                    Some(Down::Policy(policy)) if policy.node == identity.node => {
                        shared.status.gate.take(&policy);
                        if let (Some(sharing), Some(hardening)) = (&shared.sharing, policy.hardening) {
                            sharing.protect(*hardening);
                        }
                    }
                    Some(Down::Policy(policy)) => {
                        return Err(broken(format_args!("a policy for node {}", policy.node)));
                    }
                    Some(Down::Ack { fact_ids }) => {
                        shared.status.spool.acknowledge(&fact_ids);
                        under_way.forget(&fact_ids);
                        added.mark_changed();
                    }
                    Some(Down::Bans(changes)) => {
                        // Only one that was not asked for finds no place.
                        if bans.try_send(*changes).is_err() {
                            tracing::debug!("a page of bans was dropped");
                        }
                    }
                    Some(Down::Bar { attempt, age_max_s }) => {
                        let answer = shared.status.gate.bar(&attempt, age_max_s.map(Duration::from_secs));
                        send(&mut sink, &Up::Bar { attempt, answer }).await?;
                    }
                    Some(Down::Attempts { settled, unknown }) => {
                        shared.status.records.told(&settled, &unknown);
                    }
                    Some(Down::PlaceAudio { sound, ahead }) => match Arc::clone(if ahead { &placing_ahead } else { &placing }).try_acquire_owned() {
                        Ok(permit) => {
                            let tls = config().map_err(DialError::from)?;
                            let (url, sounds, answers) = (url.clone(), sounds.clone(), answers.clone());
                            tokio::spawn(async move {
                                let wanted = if ahead { Wanted::Ahead } else { Wanted::Now };
                                let placed = sounds.place(&url, tls, sound, wanted).await;
                                let error = placed.err().map(|error| {
                                    tracing::warn!(%sound, %error, "a sound was not placed");
                                    Text::cut(&error.to_string())
                                });
                                // The link is over: it will ask again on the next one.
                                let _ = answers.send(Up::AudioPlaced { sound, ahead, error }).await;
                                drop(permit);
                            });
                        }
                        Err(_) => {
                            let error = Some(Text::cut("too many sounds are being placed"));
                            send(&mut sink, &Up::AudioPlaced { sound, ahead, error }).await?;
                        }
                    },
                    Some(Down::OpenAmi { stream_id }) => match Arc::clone(&streams).try_acquire_owned() {
                        Ok(permit) => {
                            let tls = config().map_err(DialError::from)?;
                            let asked = Asked { url: url.clone(), stream_id: stream_id.clone(), tls };
                            let (mut shared, answers) = (shared.clone(), answers.clone());
                            tokio::spawn(async move {
                                let (login, gate) = (&shared.login, &shared.status.gate);
                                let id = shared.chance.word();
                                let carried = tokio::select! {
                                    carried = ami_stream::carry(asked, login, gate, &id) => carried,
                                    _ = shared.running.changed() => Ok(()),
                                };
                                if let Err(error) = carried {
                                    tracing::warn!(%error, "no AMI stream");
                                    let reason = Text::cut(&error.to_string());
                                    // The link is over: it will ask again on the next one.
                                    let _ = answers.try_send(Up::AmiRefused { stream_id, reason });
                                }
                                drop(permit);
                            });
                        }
                        Err(_) => {
                            let reason = Text::cut("too many AMI streams are open");
                            send(&mut sink, &Up::AmiRefused { stream_id, reason }).await?;
                        }
                    },
                    Some(Down::Refused(refused)) => {
                        return Err(LinkError::Refused(refused.code, refused.detail.to_string()));
                    }
                    Some(Down::Welcome(_) | Down::Unknown) | None => {}
                }
            }
            Some(answer) = answered.recv() => send(&mut sink, &answer).await?,
            _ = beat.tick() => {
                revision += 1;
                told = observe(&mut sink, shared, revision).await?;
                if capabilities.has(Capability::Records)
                    && let Some(question) = shared.status.records.question()
                {
                    send(&mut sink, &question).await?;
                }
                under_way.expire();
                added.mark_changed();
            }
            Ok(()) = changed(&mut sight, told.1 + CHANGES_APART) => {
                let now = Arc::clone(&sight.borrow_and_update());
                if now.asterisk.is_some() && says_tech_cause(now.asterisk.as_ref()) != tech_cause {
                    return Err(broken("Asterisk can do other things now: saying hello again"));
                }
                if now.differs(&told.0) {
                    revision += 1;
                    told = observe(&mut sink, shared, revision).await?;
                }
            }
            Ok(()) = added.changed(), if under_way.has_room() => {
                let facts = shared.status.spool.next(&under_way.ids());
                if !facts.is_empty() {
                    under_way.add(&facts);
                    send(&mut sink, &Up::Facts { facts: List::first(facts) }).await?;
                    added.mark_changed();
                }
            }
        }
    }
}

/// Asterisk as it was seen; just after the start it is waited for, so that the hello can tell of it.
async fn first_look(shared: &Shared) -> Option<Asterisk> {
    let mut sight = shared.status.sight.subscribe();
    let seen = timeout(FIRST_LOOK_MAX, sight.wait_for(|sight| sight.asterisk.is_some())).await;
    match seen {
        Ok(Ok(sight)) => sight.asterisk.clone(),
        Ok(Err(_)) | Err(_) => None,
    }
}

fn says_tech_cause(asterisk: Option<&Asterisk>) -> bool {
    asterisk.is_some_and(|asterisk| has_tech_cause(asterisk.version.as_str()))
}

async fn changed(
    sight: &mut watch::Receiver<Arc<Sight>>,
    not_before: Instant,
) -> Result<(), watch::error::RecvError> {
    sleep_until(not_before).await;
    sight.changed().await
}

async fn observe(
    sink: &mut Sink,
    shared: &Shared,
    revision: u64,
) -> Result<(Arc<Sight>, Instant), LinkError> {
    let sight = Arc::clone(&shared.status.sight.borrow());
    let (mut seen, _) = shared.status.observations();
    seen.revision = revision;
    seen.firewall = Some(Box::new(shared.ward.seen()));
    send(sink, &Up::Observations(Box::new(seen))).await?;
    Ok((sight, Instant::now()))
}

/// `None`: nothing to act on, but a sign of life.
fn read(
    frame: Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Option<Down>, LinkError> {
    match frame {
        Some(Ok(Frame::Text(text))) => match decode::<Down>(&text).map_err(broken)? {
            Decoded::Message(message) => Ok(Some(message)),
            Decoded::Unknown => {
                tracing::debug!("a message of a newer control plane was skipped");
                Ok(None)
            }
        },
        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => Ok(None),
        Some(Ok(Frame::Binary(_) | Frame::Frame(_))) => Err(broken("bytes on the control stream")),
        Some(Ok(Frame::Close(_))) | None => Err(broken("closed by the control plane")),
        Some(Err(error)) => Err(broken(error)),
    }
}

/// Facts that were sent on this link and not acknowledged yet.
#[derive(Default)]
struct UnderWay(Vec<(Instant, FactId)>);

impl UnderWay {
    fn has_room(&self) -> bool {
        self.0.len() < FACTS_UNDER_WAY
    }

    fn ids(&self) -> HashSet<FactId> {
        self.0.iter().map(|(_, id)| id.clone()).collect()
    }

    fn add(&mut self, facts: &[node_agent_protocol::Fact]) {
        self.0.extend(facts.iter().map(|fact| (Instant::now(), fact.id.clone())));
    }

    fn forget(&mut self, ids: &[FactId]) {
        self.0.retain(|(_, id)| !ids.contains(id));
    }

    fn expire(&mut self) {
        self.0.retain(|(at, _)| at.elapsed() < RESEND_AFTER);
    }
}
