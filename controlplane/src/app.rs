//! The whole machine: what is started, with what, and in which order it stops.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use controlplane_core::guard::Destination;
use controlplane_store::{Store, StoreError};
use node_agent_ami::ActionIds;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use crate::{
    agents::{self, Agents, AuthorityError, Links, Peer},
    audio::Audio,
    audit::{Audit, signing::KeyError},
    bootstrap::{Bootstrap, TokenError},
    calls::{Accepting, Calls, Limits, Patience},
    chat::{Chat, ChatError},
    clock::{Chance, Clock, Offset},
    doors::{CertificateError, Door, DoorMetrics, FileTls},
    health::{self, Canaries, Keeping, Telling},
    http::{self, Console, Parts, State},
    keys::{Lookup, Uses},
    metrics::Metrics,
    nodes::{self, Nodes, TakeUpError},
    oncall::OnCall,
    privacy::Privacy,
    registry::Registry,
    replicas::{Membership, Others, ReplicaMetrics, Stranger},
    rules::Rules,
    settings::{self, Settings},
    status::Status,
    traces::{TraceError, Traces},
    webhooks::{
        ClientError, Webhooks,
        sealing::{SealError, Seals},
    },
};

/// Requests under way when it stops are answered within this time.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long the sessions get at start before calls of an earlier process are settled without them.
const SESSIONS_HEAD_START: Duration = Duration::from_secs(2);

/// Why it did not start; each text names the thing and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener.
    #[error(
        "cannot listen on {address} for {door}: {source}. Is another ringward running? Choose another with RINGWARD_{setting}__LISTEN"
    )]
    Listen {
        /// Which door.
        door: &'static str,
        /// The setting's name.
        setting: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The certificate of a door.
    #[error("the {door}' door: {source}")]
    Certificate {
        /// Which door.
        door: &'static str,
        /// Which file, and why.
        source: Box<CertificateError>,
    },
    /// The TLS of a door.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The stored fleet.
    #[error(transparent)]
    Fleet(#[from] TakeUpError),
    /// The agents' CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The audit log's key.
    #[error(transparent)]
    Audit(#[from] KeyError),
    /// The bootstrap token.
    #[error(transparent)]
    Bootstrap(#[from] TokenError),
    /// The keys of secrets.
    #[error(transparent)]
    Seals(#[from] SealError),
    /// A destination of operators' chat.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The client of webhooks.
    #[error(transparent)]
    Webhooks(#[from] ClientError),
    /// The way to a collector.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// No randomness.
    #[error("the system gives no randomness: {0}")]
    Chance(std::io::Error),
    /// Another replica would harm it, and it that one.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    /// A metric is wrong: a mistake of the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running control plane.
pub struct App {
    /// Where customers reach it.
    pub api: SocketAddr,
    /// Where operators reach it.
    pub operator: SocketAddr,
    /// Where agents reach it.
    pub agents: SocketAddr,
    /// Where strangers see the public status, if they do.
    pub status: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    linked: Arc<Agents>,
    webhooks: Arc<Webhooks>,
    console: Arc<Console>,
    audit: Arc<Audit>,
    calls: Arc<Calls>,
    traces: Arc<Traces>,
    membership: Arc<Membership>,
    /// What looks after agents, health, canaries, and open calls that have lost their task.
    tasks: Vec<AbortHandle>,
    /// Held so that node tasks live as long as the program.
    _nodes: Arc<Nodes>,
}

impl App {
    /// Starts everything, in this order: registry and sessions from the stored fleet, the doors, and then
    /// the calls that an earlier process left open.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running then.
    pub async fn start(
        settings: &Settings,
        store: Arc<dyn Store>,
        clock: Clock,
        chance: Chance,
    ) -> Result<Self, StartError> {
        // What is stored goes by the one clock that all replicas have in common.
        let (own, offset) = (clock, Offset::default());
        let clock = if store.replica().is_some() { own.by(&offset) } else { own.clone() };
        let api = listen("customers", "API", settings.api.listen).await?;
        let operator = listen("operators", "OPERATOR", settings.operator.listen).await?;
        let agents_door = listen("agents", "AGENTS", settings.agents.listen).await?;
        let agents_at = address(&agents_door, settings.agents.listen);
        let agents = Arc::new(Agents::open(
            &absolute(&settings.data_dir),
            settings.agents.urls.clone(),
            Arc::clone(&store),
            clock.clone(),
            chance.clone(),
        )?);
        let agents_door = agents.door(agents_door)?;
        let metrics = Arc::new(Metrics::new()?);
        let (api_at, operator_at) =
            (address(&api, settings.api.listen), address(&operator, settings.operator.listen));
        let (api, api_tls) = door("customers", api, &settings.api, &metrics.doors)?;
        let (operator, operator_tls) = door("operators", operator, &settings.operator, &metrics.doors)?;
        let (public, public_at, public_tls) = public(settings, &metrics.doors).await?;
        metrics.add(agents.bans.metrics())?;
        let registry = Arc::new(Registry::new(chance.fork()));
        let nodes = Arc::new(Nodes::new(nodes::Shared {
            registry: Arc::clone(&registry),
            links: Arc::clone(&agents.links),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            chance: chance.clone(),
            ids: ActionIds::from_os().map_err(StartError::Chance)?,
            data_dir: absolute(&settings.data_dir),
        }));
        let keeping = Keeping::new(Arc::clone(&store));
        registry.set_customers(keeping.customers().await?);
        registry.remember(keeping.read().await?);
        nodes.take_up(&*store).await?;
        let patience = Patience {
            reconcile: Duration::from_millis(settings.reconcile_timeout_ms),
            node_return: Duration::from_millis(settings.node_return_ms),
            trunk: Duration::from_millis(settings.patience_ms),
        };
        let audio = Arc::new(Audio::new(
            Arc::clone(&store),
            Arc::clone(&registry),
            Arc::clone(&agents.links),
            clock.clone(),
            settings.audio.clone(),
            metrics.audio.clone(),
        ));
        let limits = Limits { throttle: settings.throttle.clone(), open: settings.calls.open_max() };
        let key_file = settings.secrets.key_file.as_deref();
        let seals = Arc::new(Seals::open(key_file, &absolute(&settings.data_dir), chance.clone())?);
        let audit = Audit::open(
            &absolute(&settings.data_dir),
            settings.audit.retention_days,
            Arc::clone(&store),
            clock.clone(),
            chance.clone(),
            Arc::clone(&metrics),
        )?;
        let secrets = [
            ("agents-ca.pem", agents.authority.print()),
            ("audit-key.der", audit.public_key().to_string()),
            ("secrets.key", seals.prints()),
        ];
        let secrets = secrets.map(|(file, print)| (file.to_owned(), print)).into();
        let replica_metrics = metrics.add_with(ReplicaMetrics::new)?;
        let membership = Membership::new(Arc::clone(&store), secrets, replica_metrics, (own, offset));
        membership.join(&absolute(&settings.data_dir)).await??;
        let rules = Rules::read(Arc::clone(&store), settings.guard.clone(), limits).await?;
        let traces = Traces::new(&settings.traces, Arc::clone(&store), clock.clone(), &chance, &metrics)?;
        let calls = Arc::new(Calls::new(
            Arc::clone(&store),
            Arc::clone(&registry),
            Arc::clone(&agents.links),
            Arc::clone(&audio),
            Arc::clone(&metrics),
            clock.clone(),
            chance.clone(),
            patience,
            Arc::clone(&rules),
            Arc::clone(&membership),
            Arc::clone(&traces),
        ));
        let held = calls.read_held().await?;
        if held > 0 {
            tracing::warn!(
                held,
                "calls and incidents of a restored backup are held: see `ringward held list`"
            );
        }
        let awake = tokio::spawn(Arc::clone(&calls).stay_awake()).abort_handle();
        let resealed = seals.reseal(&store, &clock).await?;
        if resealed > 0 {
            tracing::info!(rows = resealed, "secrets were sealed with the key in force");
        }
        let canaries = Canaries::new(Arc::clone(&calls));
        let webhooks = Webhooks::new(
            &settings.webhooks,
            Arc::clone(&store),
            clock.clone(),
            chance.clone(),
            Arc::clone(&metrics),
            seals,
            Arc::clone(&traces),
        )?;
        let chat = Chat::new(
            &settings.chat,
            Arc::clone(&store),
            Arc::clone(&webhooks),
            clock.clone(),
            chance.clone(),
        )?;
        let oncall = OnCall::new(
            Arc::clone(&store),
            Arc::clone(&calls),
            clock.clone(),
            chance.clone(),
            metrics.oncall.clone(),
            Arc::clone(&chat),
        );
        let uses = Arc::new(Uses::default());
        let console = Console::new(Arc::clone(&registry), Arc::clone(&metrics.fleet.pulse), &chance);
        let status = Status::new(
            Arc::clone(&store),
            Arc::clone(&registry),
            clock.clone(),
            settings.status.name.clone(),
        );
        let privacy = Privacy::new(
            Arc::clone(&store),
            clock.clone(),
            chance.clone(),
            settings.retention,
            Arc::clone(&rules),
            audit.numbers_salt(),
        );
        let state = State::new(Parts {
            store: Arc::clone(&store),
            uses: Arc::clone(&uses),
            registry: Arc::clone(&registry),
            nodes: Arc::clone(&nodes),
            agents: Arc::clone(&agents),
            calls: Arc::clone(&calls),
            accepting: Accepting::start(Arc::clone(&calls)),
            keys: Lookup::start(Arc::clone(&store)),
            oncall: Arc::clone(&oncall),
            rules: Arc::clone(&rules),
            bootstrap: Bootstrap::open(&absolute(&settings.data_dir), chance.clone())?,
            audio: Arc::clone(&audio),
            uploads: http::Uploads::default(),
            keeping: Arc::clone(&keeping),
            canaries: Arc::clone(&canaries),
            traces: Arc::clone(&traces),
            webhooks: Arc::clone(&webhooks),
            status: Arc::clone(&status),
            console: Arc::clone(&console),
            audit: Arc::clone(&audit),
            privacy: Arc::clone(&privacy),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            chance,
        });
        let (stop, stopping) = watch::channel(false);
        // Before calls are taken up, since sessions come through it.
        let linking = serve_agents(agents_door, http::agents(state.clone()), stopping.clone());
        // Meanwhile the numbering plans: the first call is not to wait for them.
        let reading = tokio::task::spawn_blocking(Destination::read_plans);
        let alive = membership.keep_alive(&calls);
        wait_for_sessions(&registry).await;
        if let Err(error) = reading.await {
            tracing::error!(%error, "the numbering plans could not be read");
        }
        let resumed = match calls.take_up().await {
            Ok(resumed) => resumed,
            Err(error) => {
                alive.iter().for_each(AbortHandle::abort);
                linking.abort();
                return Err(error.into());
            }
        };
        if resumed > 0 {
            tracing::warn!(calls = resumed, "took up calls that an earlier process had left open");
        }
        let mut doors = vec![
            api.open(http::customers(state.clone(), &settings.cors.origins), stopping.clone()),
            operator.open(http::operators(state.clone()), stopping.clone()),
            linking,
        ];
        let is_public = public.is_some();
        doors.extend(public.map(|door| door.open(http::public(state.clone()), stopping)));
        tracing::info!(api = %api_at, operator = %operator_at, agents = %agents_at, "ringward is ready");
        if rules.all_closed() {
            tracing::warn!(
                "no destination is open: every call is refused until an operator opens one, as with `ringward policy set \
                 --open PL`"
            );
        }
        let doors_metrics = metrics.doors.clone();
        let others = Others {
            nodes: Arc::clone(&nodes),
            registry: Arc::clone(&registry),
            keeping: Arc::clone(&keeping),
            rules: Arc::clone(&rules),
        };
        let telling =
            Telling::new(Arc::clone(&store), Arc::clone(&audit), Arc::clone(&chat), Arc::clone(&membership));
        let looking = membership.keep_looking(&calls, others);
        let mut tasks = vec![
            health::watch(Arc::clone(&registry), metrics, Arc::clone(&keeping), Arc::clone(&telling)),
            keeping.keep(Arc::clone(&registry), clock, Arc::clone(&membership)),
            keeping.count_customers(registry),
            canaries.keep(),
            uses.keep(store),
            tokio::spawn(Arc::clone(&calls).hear_late()).abort_handle(),
            awake,
            tokio::spawn(Arc::clone(&calls).watch_over()).abort_handle(),
            oncall.keep(state),
        ];
        tasks.extend(chat.keep(&agents.links, doors_metrics.clone()));
        tasks.extend(alive.into_iter().chain(looking).chain(telling.keep()));
        tasks.extend(agents.keep());
        tasks.extend(audio.keep());
        tasks.extend(webhooks.keep());
        tasks.extend(audit.keep());
        tasks.push(privacy.keep());
        if is_public {
            tasks.push(status.keep());
        }
        tasks.extend([api_tls, operator_tls, public_tls].into_iter().flatten().map(|tls| {
            let metrics = doors_metrics.clone();
            tokio::spawn(tls.follow(metrics)).abort_handle()
        }));
        tasks.push(console.keep());
        traces.keep(Arc::clone(&membership));
        Ok(Self {
            api: api_at,
            operator: operator_at,
            agents: agents_at,
            status: public_at,
            stop,
            doors,
            linked: agents,
            webhooks,
            console,
            audit,
            calls,
            traces,
            membership,
            tasks,
            _nodes: nodes,
        })
    }

    /// Every node's link to this replica.
    #[must_use]
    pub fn links(&self) -> Arc<Links> {
        Arc::clone(&self.linked.links)
    }

    /// Stops: doors first, so that nothing new is accepted. Calls under way stay as they are in the
    /// database, and the next start takes them up; where there are other replicas, one of them does, at once.
    pub async fn stop(self) {
        // Nobody listens any more if the doors are gone already.
        let _ = self.stop.send(true);
        self.webhooks.stop();
        self.console.stop();
        self.tasks.iter().for_each(AbortHandle::abort);
        if self.membership.me().is_some() {
            self.membership.end();
            self.calls.let_go();
            self.membership.give_up().await;
        }
        self.linked.links.stop();
        for door in self.doors {
            let abort = door.abort_handle();
            if timeout(GOODBYE, door).await.is_err() {
                abort.abort();
            }
        }
        self.traces.stop().await;
        // Last, so that what the doors still did is in it.
        if timeout(GOODBYE, self.audit.close()).await.is_err() {
            tracing::warn!(
                "the audit log was not closed in time: its last rows are sealed at the next start"
            );
        }
    }
}

/// Opens the database as the settings say: alone, or as one of several.
///
/// # Errors
/// As of [`controlplane_store::open`] and [`controlplane_store::open_shared`].
pub async fn open_store(
    settings: &Settings,
    url: &str,
    chance: &Chance,
) -> Result<Arc<dyn Store>, StoreError> {
    if settings.replicas.enabled {
        controlplane_store::open_shared(url, chance.replica_id()).await
    } else {
        controlplane_store::open(url).await
    }
}

/// The door with a certificate for each node.
fn serve_agents(door: agents::Door, router: Router, mut stopping: watch::Receiver<bool>) -> JoinHandle<()> {
    let service = router.into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move {
        let stopped = async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        if let Err(error) = axum::serve(door, service).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the agents' door failed");
        }
    })
}

/// Calls that were open find their node's session up if it can be had; without, they would be settled by
/// time-out. Returns at once where the fleet is up or empty.
async fn wait_for_sessions(registry: &Registry) {
    let mut changes = registry.changes();
    let all_up = async {
        loop {
            // Down for a reason is as good as up: it will not change by waiting.
            if registry.is_settled() || changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(SESSIONS_HEAD_START, all_up).await;
}

async fn listen(
    door: &'static str,
    setting: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { door, setting, address, source })
}

/// Whether each door has the certificate that is set for it.
///
/// # Errors
/// [`StartError::Certificate`] names the first that cannot be used.
pub fn check_certificates(settings: &Settings) -> Result<(), StartError> {
    let public = settings.status.door();
    let doors = [("customers", &settings.api), ("operators", &settings.operator)];
    let mut doors = doors.into_iter().chain(public.as_ref().map(|door| ("strangers", door)));
    doors.try_for_each(|(name, door)| file_tls(name, door).map(drop))
}

fn file_tls(name: &'static str, settings: &settings::Door) -> Result<Option<FileTls>, StartError> {
    let files = settings.tls.as_ref().map(|files| FileTls::open(name, files)).transpose();
    files.map_err(|source| StartError::Certificate { door: name, source: Box::new(source) })
}

/// A door as it is set, and its certificate if it speaks TLS.
fn door(
    name: &'static str,
    listener: TcpListener,
    settings: &settings::Door,
    metrics: &DoorMetrics,
) -> Result<(Door, Option<FileTls>), StartError> {
    let files = file_tls(name, settings)?;
    let tls = files.as_ref().map(FileTls::config).transpose()?.map(Arc::new);
    Ok((Door { name, listener, settings: settings.clone(), tls, metrics: metrics.clone() }, files))
}

/// The door for strangers, where it is set: it, where it listens, and its certificate.
async fn public(
    settings: &Settings,
    metrics: &DoorMetrics,
) -> Result<(Option<Door>, Option<SocketAddr>, Option<FileTls>), StartError> {
    let Some(set) = settings.status.door() else { return Ok((None, None, None)) };
    let listener = listen("strangers", "STATUS", set.listen).await?;
    let at = address(&listener, set.listen);
    let (door, tls) = door("strangers", listener, &set, metrics)?;
    tracing::info!(status = %at, "the public status is open to whoever reaches it");
    Ok((Some(door), Some(at), tls))
}

fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
