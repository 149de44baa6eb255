//! The whole machine: what is started, with what, and how it stops.

use std::{io, sync::Arc, time::Duration};

use node_agent_ami::ActionIds;
use node_agent_protocol::{PlaneUrl, fact_kind};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::{Chance, Clock},
    evidence::{self, InvalidJails},
    gate::{self, Gate},
    identity::StateDir,
    joining,
    journal::Journal,
    link,
    metrics::{self, Metrics},
    observer,
    settings::{FirewallMode, Settings},
    sounds::Sounds,
    spool::Spool,
    status::Status,
    ward::{self, Ward, door, sharing::Sharing},
};

/// Between two syncs of the spool.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `ringward-agent join` comes first.
    #[error(
        "this node has not joined: run `ringward node token NAME` at the control plane, then `ringward-agent join TOKEN` here"
    )]
    NotJoined,
    /// State directory, identity, spool or listener.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A jail of the settings.
    #[error("settings: {0}")]
    Jails(#[from] InvalidJails),
    /// A defect.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The running agent. Dropping it stops everything; facts that wait are on disk already.
#[derive(Debug)]
pub struct App {
    tasks: JoinSet<()>,
    /// See [`link::Shared::running`].
    _running: watch::Sender<()>,
    status: Status,
    ward: Ward,
    metrics_at: std::net::SocketAddr,
}

impl App {
    /// Starts everything.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings, clock: Clock, chance: Chance) -> Result<Self, StartError> {
        let state = StateDir::open(&settings.state_dir)?;
        let identity = state.identity()?.ok_or(StartError::NotJoined)?;
        let urls: Vec<PlaneUrl> = match settings.control_planes.as_slice() {
            [] => identity.control_planes.clone(),
            urls => urls.to_vec(),
        };
        let metrics = Arc::new(Metrics::new()?);
        let spool = Spool::open(&state, clock.clone(), chance.clone())?;
        let journal = Journal::open(&state)
            .inspect_err(|error| {
                tracing::error!(%error, "no journal: after a restart bars will be unknown");
                gate::tell_no_journal(&spool, error);
            })
            .ok();
        let gate = Gate::new(settings.gate.clone(), journal, spool.clone(), Arc::clone(&metrics));
        let (identity, _) = watch::channel(Arc::new(identity));
        let status = Status::new(gate.clone(), spool.clone(), identity.clone(), clock.clone());
        let listener = metrics::listen(settings.metrics.listen).await?;
        let metrics_at = listener.local_addr()?;

        let incarnation = chance.word();
        let body = json!({"agent_version": env!("CARGO_PKG_VERSION"), "incarnation": incarnation});
        spool.add(fact_kind::AGENT_STARTED, body);

        let mut tasks = JoinSet::new();
        let (ward, warding) = ward::start(ward::Parts {
            node: status.identity.borrow().node.to_string(),
            settings: settings.firewall.clone(),
            state: state.clone(),
            clock: clock.clone(),
            chance: chance.clone(),
            spool: spool.clone(),
            metrics: Arc::clone(&metrics),
            program: std::env::current_exe()?,
        });
        tasks.spawn(warding);
        let door = door::listen(&state)?;
        tasks.spawn(door::serve(door, ward.clone(), status.identity.borrow().node.to_string()));
        let ids = ActionIds::from_os()?;
        let parts = evidence::Parts {
            node: status.identity.borrow().node.to_string(),
            ward: ward.clone(),
            spool: spool.clone(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            chance: chance.clone(),
            state: state.clone(),
            sources: status.sources.clone(),
            ids: ids.clone(),
        };
        evidence::start(&settings, parts, &mut tasks)?;
        let sharing = (settings.firewall.mode != FirewallMode::Off).then(|| {
            let node = status.identity.borrow().node.to_string();
            Sharing::new(ward.clone(), spool.clone(), node, clock.clone())
        });
        if let Some(sharing) = sharing.clone() {
            tasks.spawn(sharing.keep());
        }
        tasks.spawn(metrics::serve(listener, Arc::clone(&metrics), status.clone()));
        tasks.spawn(joining::keep_fresh(identity, urls.clone(), state, clock));
        tasks.spawn(observer::observe(settings.clone(), status.clone(), ids, chance.clone()));
        let sounds = Sounds::new(
            &settings.audio,
            gate.clone(),
            status.amiss.clone(),
            Arc::clone(&metrics),
            status.clock.clone(),
        );
        tasks.spawn(sounds.clone().keep_pruned());
        let login = settings.ami;
        let (_running, running) = watch::channel(());
        let shared = link::Shared {
            status: status.clone(),
            sounds,
            login,
            chance,
            incarnation,
            metrics,
            running,
            ward: ward.clone(),
            sharing,
        };
        for url in urls {
            tasks.spawn(link::keep(url, shared.clone()));
        }
        tasks.spawn(house_keeping(spool, gate));
        Ok(Self { tasks, _running, status, ward, metrics_at })
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> std::net::SocketAddr {
        self.metrics_at
    }

    /// Bans and the firewall.
    #[must_use]
    pub fn ward(&self) -> &Ward {
        &self.ward
    }

    /// What the agent knows.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Waits until a part ends, which none should.
    pub async fn failed(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the agent failed");
                return;
            }
        }
    }
}

async fn house_keeping(spool: Spool, gate: Gate) {
    let mut ticks = interval(SYNC_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut synced = 0;
    loop {
        ticks.tick().await;
        gate.turn_journal();
        let added = *spool.added().borrow();
        if added != synced || spool.is_mostly_old() {
            synced = added;
            let spool = spool.clone();
            // A failure of the task is a panic of `sync`, which logs and cannot.
            let _ = tokio::task::spawn_blocking(move || spool.sync()).await;
        }
    }
}
