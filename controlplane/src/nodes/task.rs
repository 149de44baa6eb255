//! The life of one node's AMI sessions.
//!
//! Two sessions by purpose: the one that originates never receives what strangers write into security
//! events, and the one that collects those can change nothing. What an event of a stranger's choosing
//! claims (`Shutdown`, `FullyBooted`) changes no state here: a session's end, and answers to questions, do.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use controlplane_core::{
    fleet::{Ami, AmiLogin},
    ids::AttemptId,
    names::{NodeName, TrunkName},
};
use node_agent_ami::{
    AskError, BackOff, ChannelId, ConnectConfig, DownReason, Event, EventItem, Events, Incarnation,
    LinkChange, Purpose, Secret, Session, Supervisor,
};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Shared, Way, check, linked, tls};
use crate::registry::Finding;

/// Time between two looks at a node's trunks.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same while something is amiss: a PBX that has just started loads its endpoints after its AMI.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// A file that cannot be read now may be there later: the operator is just making it.
const SECRET_RETRY: Duration = Duration::from_secs(5);
/// Between two log lines on strangers' text of one session.
const TAMPER_LOG_EVERY: Duration = Duration::from_secs(10);
/// Q.850 16, normal clearing: what a survivor is hung up with.
const NORMAL_CLEARING: u16 = 16;

/// Starts the task of the session that places calls.
pub(super) fn originate(shared: Shared, node: NodeName, way: Way, look: Arc<Notify>) -> AbortHandle {
    let work = async move {
        let mut supervisor = match &way {
            Way::Direct(ami) => {
                let config = loop {
                    match config(&shared, ami, ami.username.as_str(), &ami.secret_file, Purpose::Originate) {
                        Ok(config) => break config,
                        Err(reason) => down(&shared, &node, reason),
                    }
                    sleep(SECRET_RETRY).await;
                };
                Supervisor::start(config, BackOff::default(), shared.chance.fork())
            }
            Way::Linked => {
                let way = linked::Linked::new(&shared, &node);
                Supervisor::start(way, linked::BACK_OFF, shared.chance.fork())
            }
        };
        let mut change = supervisor.next().await;
        while let Some(now) = change {
            change = match now {
                LinkChange::Down { reason, .. } => {
                    down(&shared, &node, explain(&reason));
                    supervisor.next().await
                }
                LinkChange::Up { session, events } => tokio::select! {
                    () = serve(&shared, &node, &way, session, events, &look) => supervisor.next().await,
                    change = supervisor.next() => change,
                },
            };
        }
    };
    tokio::spawn(work).abort_handle()
}

/// Starts the task of the session that reads security events: their strangers' text is counted.
pub(super) fn security(shared: Shared, node: NodeName, ami: Ami, login: AmiLogin) -> AbortHandle {
    let work = async move {
        let config = loop {
            match config(&shared, &ami, login.username.as_str(), &login.secret_file, Purpose::Security) {
                Ok(config) => break config,
                Err(reason) => tracing::warn!(%node, reason, "no security events"),
            }
            sleep(SECRET_RETRY).await;
        };
        let mut supervisor = Supervisor::start(config, BackOff::default(), shared.chance.fork());
        while let Some(change) = supervisor.next().await {
            // The supervisor logs why there is no session.
            let LinkChange::Up { session, mut events } = change else { continue };
            let mut tamper_log = TamperLog::default();
            loop {
                match events.next().await {
                    EventItem::Tampered(tampering) => {
                        tamper_log.note(&shared, &node, Purpose::Security, &tampering);
                    }
                    EventItem::Event(_) | EventItem::Lost(_) => {}
                    EventItem::Closed(_) => break,
                }
            }
            drop(session);
        }
    };
    tokio::spawn(work).abort_handle()
}

fn config(
    shared: &Shared,
    ami: &Ami,
    username: &str,
    file: &Path,
    purpose: Purpose,
) -> Result<ConnectConfig, String> {
    let path = shared.data_dir.join(file);
    let secret = fs::read_to_string(&path).map_err(|error| no_secret(&path, &error))?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("secret file {}: is empty", path.display()));
    }
    let mut config =
        ConnectConfig::new(ami.address.to_string(), username, Secret::new(secret), shared.ids.clone());
    config.purpose = purpose;
    config.events = match purpose {
        Purpose::Originate => "call,user,system",
        Purpose::Observe => "system",
        Purpose::Security => "security",
    }
    .to_owned();
    if ami.tls {
        config.tls = Some(tls::client(ami.address.host())?);
    }
    Ok(config)
}

fn no_secret(path: &Path, error: &io::Error) -> String {
    format!("secret file {}: {error}. Create it (mode 0600) with the AMI user's secret", path.display())
}

fn down(shared: &Shared, node: &NodeName, reason: String) {
    shared.metrics.node_up(node, false);
    shared.registry.node_down(node, reason, shared.clock.now());
}

fn explain(reason: &DownReason) -> String {
    match reason {
        DownReason::WrongSecret(error) => format!(
            "{error}: the user or secret in manager.conf differs from fleet.toml's, or its permit list lacks this host"
        ),
        DownReason::Unreachable(error) => linked::why(error)
            .unwrap_or_else(|| format!("{error}: is Asterisk running, and its AMI bound there?")),
        DownReason::Lost(_) => reason.to_string(),
    }
}

/// From a session's login to its end.
async fn serve(
    shared: &Shared,
    node: &NodeName,
    way: &Way,
    session: Session,
    mut events: Events,
    look_now: &Notify,
) {
    let incarnation = match session.core_status().await {
        Ok(status) => status.incarnation,
        Err(error) => {
            // Without knowing which run of Asterisk answers, nothing could be reconciled later.
            down(shared, node, format!("{error}: the manager user needs the classes call and reporting"));
            session.closed().await;
            return;
        }
    };
    let mut next_check = Instant::now();
    let mut tamper_log = TamperLog::default();
    loop {
        tokio::select! {
            () = sleep_until(next_check) => {
                let wait = look(shared, node, way, &session, &incarnation).await;
                next_check = Instant::now() + wait;
            }
            () = look_now.notified() => next_check = Instant::now(),
            item = events.next() => match item {
                EventItem::Tampered(tampering) => tamper_log.note(shared, node, Purpose::Originate, &tampering),
                // A hint that endpoints may have changed; look no more often than that.
                EventItem::Event(Event::FullyBooted) => next_check = next_check.min(Instant::now() + CHECK_AGAIN),
                EventItem::Event(_) | EventItem::Lost(_) => {}
                EventItem::Closed(_) => return,
            },
        }
    }
}

/// Looks at every trunk of the node, tells the registry, and hangs up what was given up on it.
async fn look(
    shared: &Shared,
    node: &NodeName,
    way: &Way,
    session: &Session,
    incarnation: &Incarnation,
) -> Duration {
    let checked = match trunks(shared, node, way, session).await {
        Ok(checked) => checked,
        Err(error) => {
            tracing::warn!(%node, %error, "the node's trunks could not be looked at");
            return CHECK_AGAIN;
        }
    };
    let amiss = checked.iter().any(|(_, result)| result.is_err());
    let now = shared.clock.now();
    for attempt in shared.registry.node_up(node, session.clone(), incarnation.clone(), checked, now) {
        hang_up_survivor(session, node, &attempt).await;
    }
    shared.metrics.node_up(node, true);
    if amiss { CHECK_AGAIN } else { CHECK_EVERY }
}

async fn trunks(
    shared: &Shared,
    node: &NodeName,
    way: &Way,
    session: &Session,
) -> Result<Vec<(TrunkName, Result<(), Finding>)>, AskError> {
    let (fleet, _) = shared.registry.fleet();
    let mut checked = Vec::new();
    for trunk in fleet.trunks_of(node) {
        let mut result = check::endpoint(session, &trunk.endpoint).await?;
        // A gate may let nobody read variables; then what its agent saw has to do.
        if *way == Way::Linked
            && result == Err(check::unknown(&trunk.endpoint))
            && let Some(seen) = shared.links.agent(node).seen
        {
            result = check::seen(&seen.observations.endpoints, &trunk.endpoint);
        }
        checked.push((trunk.name.clone(), result));
    }
    Ok(checked)
}

async fn hang_up_survivor(session: &Session, node: &NodeName, attempt: &AttemptId) {
    let Ok(id) = ChannelId::parse(attempt.as_str()) else { return };
    match session.hangup(&id, NORMAL_CLEARING).await {
        Ok(node_agent_ami::HangupAnswer::Requested) => {
            tracing::warn!(%node, %attempt, "hung up a channel whose attempt had been given up");
        }
        Ok(node_agent_ami::HangupAnswer::NoSuchChannel) => {}
        Err(error) => {
            tracing::warn!(%node, %attempt, %error, "could not ask whether a given-up channel lives");
        }
    }
}

/// Counts each piece of strangers' text, and logs so that an attacker cannot fill the log.
#[derive(Default)]
struct TamperLog {
    logged: Option<Instant>,
    unlogged: u64,
}

impl TamperLog {
    fn note(
        &mut self,
        shared: &Shared,
        node: &NodeName,
        purpose: Purpose,
        tampering: &node_agent_ami::Tampering,
    ) {
        shared.metrics.tampering(node, purpose, tampering.kind);
        shared.registry.tampered(node);
        let now = Instant::now();
        if self.logged.is_some_and(|at| now < at + TAMPER_LOG_EVERY) {
            self.unlogged += 1;
            return;
        }
        let unlogged = std::mem::take(&mut self.unlogged);
        self.logged = Some(now);
        tracing::warn!(
            %node,
            session = purpose.as_str(),
            kind = tampering.kind.as_str(),
            event = tampering.event.as_deref().unwrap_or("-"),
            unlogged,
            "strangers' text in the AMI stream: counted, not acted on"
        );
    }
}
