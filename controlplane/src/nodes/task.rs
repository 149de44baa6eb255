//! The life of one node's AMI sessions.
//!
//! Two sessions by purpose: the one that originates never receives what strangers write into security
//! events, and the one that collects those can change nothing. What an event of a stranger's choosing
//! claims (`Shutdown`, `FullyBooted`) changes no state here: a session's end, and answers to questions, do.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    fleet::{Ami, AmiLogin},
    ids::AttemptId,
    names::{NodeName, TrunkName},
};
use node_agent_ami::{
    AskError, ChannelId, ContextName, DownReason, Event, EventItem, Events, Incarnation, LinkChange, Purpose,
    Session, Supervisor,
};
use node_agent_core::observe::TALK_CONTEXT;
use node_agent_protocol::BarAnswer;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{Shared, Way, check, direct, linked, sight};
use crate::registry::Finding;

/// Time between two looks at a node's trunks.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// The same while something is amiss: a PBX that has just started loads its endpoints after its AMI.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// Between two questions that were refused: the manager user may have been given the class meanwhile.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// Between two log lines on strangers' text of one session.
const TAMPER_LOG_EVERY: Duration = Duration::from_secs(10);
/// How long one look may ask the gate to bar given-up attempts; the rest is asked for at the next look.
const SURVIVORS_BARRED_WITHIN: Duration = Duration::from_secs(2);
/// Q.850 16, normal clearing: what a survivor is hung up with.
const NORMAL_CLEARING: u16 = 16;

/// Starts the task of the session that places calls.
pub(super) fn originate(shared: Shared, node: NodeName, way: Way, look: Arc<Notify>) -> AbortHandle {
    let work = async move {
        let rng = shared.chance.fork();
        let mut supervisor = match &way {
            Way::Direct(ami) => {
                Supervisor::start(direct::Direct::originate(&shared, ami), direct::BACK_OFF, rng)
            }
            Way::Linked => Supervisor::start(linked::Linked::new(&shared, &node), linked::BACK_OFF, rng),
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
        let way = direct::Direct::security(&shared, &ami, &login);
        let mut supervisor = Supervisor::start(way, direct::BACK_OFF, shared.chance.fork());
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

fn down(shared: &Shared, node: &NodeName, reason: String) {
    shared.metrics.fleet.node_up(node, false);
    shared.registry.node_down(node, reason, shared.clock.now());
}

fn explain(reason: &DownReason) -> String {
    match reason {
        DownReason::WrongSecret(error) => format!(
            "{error}: the user or secret in manager.conf differs from fleet.toml's, or its permit list lacks this host"
        ),
        DownReason::Unreachable(error) => linked::why(error)
            .or_else(|| direct::why(error))
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
    let mut tamper_log = TamperLog::default();
    let Some(incarnation) = incarnation(shared, node, &session, &mut events, &mut tamper_log).await else {
        return;
    };
    let incarnation = match way {
        Way::Direct(_) => incarnation,
        Way::Linked => linked::by_gate(&incarnation),
    };
    let mut next_check = Instant::now();
    let seen = async {
        match way {
            Way::Direct(_) => sight::by_answers(shared, node, &session).await,
            // Its agent tells.
            Way::Linked => std::future::pending().await,
        }
    };
    tokio::pin!(seen);
    loop {
        tokio::select! {
            () = &mut seen => return,
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

/// Which run of Asterisk answers: without knowing it, nothing could be reconciled later. Asked until it is
/// told; `None`: the session ended.
async fn incarnation(
    shared: &Shared,
    node: &NodeName,
    session: &Session,
    events: &mut Events,
    tamper_log: &mut TamperLog,
) -> Option<Incarnation> {
    loop {
        let wait = match session.core_status().await {
            Ok(status) => return Some(status.incarnation),
            Err(error @ AskError::Refused { .. }) => {
                down(shared, node, format!("{error}: the manager user needs the classes call and reporting"));
                REFUSED_AGAIN
            }
            Err(error @ (AskError::NotSent(_) | AskError::Unresolved(_) | AskError::Malformed { .. })) => {
                down(shared, node, format!("CoreStatus: {error}: asking again"));
                CHECK_AGAIN
            }
        };
        let again = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(again) => break,
                item = events.next() => match item {
                    EventItem::Tampered(tampering) => {
                        tamper_log.note(shared, node, Purpose::Originate, &tampering);
                    }
                    EventItem::Event(_) | EventItem::Lost(_) => {}
                    EventItem::Closed(_) => return None,
                },
            }
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
    // A gate lets nobody read variables: there the agent looks.
    if matches!(way, Way::Direct(_))
        && let Ok(context) = ContextName::parse(TALK_CONTEXT)
        && let Ok(Some(hears)) = session.has_context(&context).await
    {
        shared.registry.hears_keys(node, hears);
    }
    let amiss = checked.iter().any(|(_, result)| result.is_err());
    let now = shared.clock.now();
    let bars_until = Instant::now() + SURVIVORS_BARRED_WITHIN;
    for attempt in shared.registry.node_up(node, session.clone(), incarnation.clone(), checked, now) {
        let asks_gate = *way == Way::Linked && Instant::now() < bars_until;
        let barred = asks_gate && shared.links.bar(node, &attempt, None).await == BarAnswer::Barred;
        hang_up_survivor(shared, session, node, &attempt, barred).await;
    }
    shared.metrics.fleet.node_up(node, true);
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

/// A given-up attempt is asked for at each look until it is found, or can no longer turn up: the node's gate has
/// barred it, or the time for it is over.
async fn hang_up_survivor(
    shared: &Shared,
    session: &Session,
    node: &NodeName,
    attempt: &AttemptId,
    barred: bool,
) {
    let Ok(id) = ChannelId::parse(attempt.as_str()) else { return };
    match session.hangup(&id, NORMAL_CLEARING).await {
        Ok(node_agent_ami::HangupAnswer::Requested) => {
            shared.registry.found(node, attempt);
            shared.metrics.fleet.survivor_hung_up(node);
            tracing::warn!(%node, %attempt, "hung up a channel whose attempt had been given up");
        }
        Ok(node_agent_ami::HangupAnswer::NoSuchChannel) if barred => shared.registry.found(node, attempt),
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
        shared.metrics.fleet.tampering(node, purpose, tampering.kind);
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
