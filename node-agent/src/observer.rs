//! Watches the Asterisk beside this program over a session of its own.
//!
//! Reconciling: everything is read again every few seconds. Events are hints that only bring the next reading
//! forward, since strangers can write them. Of declared trunks every contact is asked for; of other endpoints
//! (phones, perhaps hundreds) only what one list tells.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use controlplane_core::names::EndpointName;
use node_agent_ami::{
    Action, ActionIds, AskError, BackOff, ConnectConfig, ContextName, DownReason, Event, EventItem, Events,
    LinkChange, NotSent, Purpose, Secret, Session, Supervisor,
};
use node_agent_core::observe::{self, Finding, ForeignCall, RegistrationStatus as Standing, Seen};
use node_agent_protocol::{AmiState, Asterisk, EndpointSeen, FindingSeen, List, Text, fact_kind};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    clock::Chance,
    host::{HostFiles, host},
    memory::Memory,
    settings::{ForeignCalls, Settings},
    status::{Sight, Status},
};

/// Between two readings without a hint.
const READ_EVERY: Duration = Duration::from_secs(3);
/// A hint brings the next reading this near; a flood of hints, no nearer to the last.
const HINTED: Duration = Duration::from_millis(100);
/// Asterisk is asked to take a stopped registration up again no more often than that.
const REGISTER_EVERY: Duration = Duration::from_secs(60);
/// A secret's file that cannot be read now may be there later.
const SECRET_RETRY: Duration = Duration::from_secs(5);
/// Endpoints of a snapshot.
const ENDPOINTS_MAX: usize = 512;
/// Calls that Ringward did not place hung up in one reading; the rest in the next.
const HANGUPS_MAX: usize = 100;
/// Q.850 cause 21.
const CALL_REJECTED: &str = "21";
/// Unclaimed channels told of in one reading.
const UNCLAIMED_MAX: usize = 32;

/// Observes for as long as the program runs.
pub async fn observe(settings: Settings, status: Status, ids: ActionIds, chance: Chance) {
    let host = HostFiles { rtp_conf: settings.rtp_conf.clone(), disk: settings.disk.clone() };
    let mut memory = Memory::new(host, settings.gate.foreign_calls);
    let secret = loop {
        match settings.observer.secret() {
            Ok(secret) => break secret,
            Err(error) => blind(&status, &memory, &error.to_string()),
        }
        sleep(SECRET_RETRY).await;
    };
    let address = settings.observer.address.to_string();
    let mut config = ConnectConfig::new(address, &settings.observer.username, Secret::new(secret), ids);
    config.purpose = Purpose::Observe;
    config.events = "system".to_owned();
    config.in_flight_max = 16;
    config.events_max = 256;
    let mut supervisor = Supervisor::start(config, BackOff::default(), chance.fork());
    let mut change = supervisor.next().await;
    while let Some(now) = change {
        change = match now {
            LinkChange::Down { reason, .. } => {
                blind(&status, &memory, &explain(&reason));
                let next = supervisor.next();
                tokio::pin!(next);
                // The host's figures stay fresh meanwhile.
                loop {
                    tokio::select! {
                        change = &mut next => break change,
                        () = sleep(READ_EVERY) => blind(&status, &memory, &explain(&reason)),
                    }
                }
            }
            LinkChange::Up { session, events } => {
                (memory.version, memory.is_booted) = (None, false);
                let clearing = status.records.clear_away(session.clone());
                tokio::select! {
                    () = watch(&status, &mut memory, session, events) => supervisor.next().await,
                    // It goes on for as long as it is polled.
                    never = clearing => match never {},
                    change = supervisor.next() => change,
                }
            }
        };
    }
}

fn explain(reason: &DownReason) -> String {
    match reason {
        DownReason::WrongSecret(error) => {
            format!(
                "{error}: the observer's user or secret differs from manager.conf's, or its permit list lacks loopback"
            )
        }
        DownReason::Unreachable(error) => format!("{error}: is Asterisk running, and its AMI bound there?"),
        DownReason::Lost(_) => reason.to_string(),
    }
}

/// No session: nothing is known but the host.
fn blind(status: &Status, memory: &Memory, reason: &str) {
    let sight = Sight { host: host(&memory.host), ..Sight::nothing(reason) };
    status.sight.send_replace(Arc::new(sight));
}

async fn watch(status: &Status, memory: &mut Memory, session: Session, mut events: Events) {
    let mut last = Instant::now();
    let mut next = last;
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                last = Instant::now();
                match read(status, memory, &session).await {
                    Ok(sight) => { status.sight.send_replace(Arc::new(sight)); }
                    Err(error) => {
                        tracing::warn!(%error, "the node's trunks could not be read");
                        if session.close_reason().is_some() {
                            return;
                        }
                        blind(status, memory, &format!("{error}: the observer's user needs read=system and write=system,reporting"));
                    }
                }
                next = last + READ_EVERY;
            }
            item = events.next() => match item {
                EventItem::Event(Event::FullyBooted) => {
                    memory.is_booted = true;
                    next = next.min((last + HINTED).max(Instant::now()));
                }
                EventItem::Event(
                    Event::Shutdown | Event::ContactStatus { .. } | Event::Registry { .. }
                    | Event::PeerStatus { .. },
                ) => next = next.min((last + HINTED).max(Instant::now())),
                EventItem::Event(_) | EventItem::Lost(_) => {}
                EventItem::Tampered(tampering) => {
                    status.gate.tampered(tampering.kind);
                    next = next.min((last + HINTED).max(Instant::now()));
                }
                EventItem::Closed(_) => return,
            },
        }
    }
}

fn action(name: &str, headers: &[(&str, &str)]) -> Result<Action, AskError> {
    let with = |action: Action, (name, value): &(&str, &str)| action.header(name, value);
    let action = Action::new(name).and_then(|action| headers.iter().try_fold(action, with));
    action.map_err(|error| NotSent::from(error).into())
}

async fn read(status: &Status, memory: &mut Memory, session: &Session) -> Result<Sight, AskError> {
    memory.reads += 1;
    let core = session.core_status().await?;
    if memory.version.is_none() {
        let settings = session.action(action("CoreSettings", &[])?).await?;
        memory.version = settings.message().text("AsteriskVersion").map(|version| version.into_owned());
    }
    let (endpoints, mut left_out) = observe::endpoints(&session.items("PJSIPShowEndpoints", &[]).await?);
    let registrations = observe::registrations(&session.items("PJSIPShowRegistrationsOutbound", &[]).await?);
    let declared = status.gate.declared();
    let is_declared = |name: &str| declared.iter().flatten().any(|endpoint| endpoint.as_str() == name);
    let mut contacts = HashMap::new();
    for endpoint in endpoints.iter().filter(|endpoint| is_declared(endpoint.name.as_str())) {
        let items = session.items("PJSIPShowEndpoint", &[("Endpoint", endpoint.name.as_str())]).await?;
        contacts.insert(endpoint.name.clone(), observe::contacts(&items));
    }
    let mut foreign = Vec::new();
    let hangs_up = memory.foreign_calls == ForeignCalls::HangUp;
    if hangs_up || status.gate.counts().channels > 0 || memory.reads % 4 == 1 {
        let asked_at = Instant::now();
        let items = session.items("CoreShowChannels", &[]).await?;
        let channels = observe::channels(&items);
        let names: BTreeSet<&str> = declared.iter().flatten().map(|endpoint| endpoint.as_str()).collect();
        foreign = observe::foreign_calls(&items, &names);
        status.sources.foreign_calls(&foreign);
        if hangs_up {
            status.sources.hangs_up(&names);
            hang_up(status, session, &foreign).await?;
        }
        for unclaimed in status.gate.reconcile(&channels, asked_at).iter().take(UNCLAIMED_MAX) {
            let body = json!({
                "finding": "unclaimed_channel", "subject": unclaimed.attempt.to_string(),
                "endpoint": unclaimed.endpoint.as_str(),
                "fix": "A channel of Ringward's form that did not pass this agent's gate: of before its memory, \
                        or of somebody who holds the manager user's secret",
            });
            status.spool.add(fact_kind::FINDING, body);
        }
    }
    register_again(memory, session, &registrations).await?;
    let hears_keys = hears_keys(session).await?;
    let names: BTreeSet<&str> = declared.iter().flatten().map(|endpoint| endpoint.as_str()).collect();
    let declared = declared.is_some().then_some(&names);
    let mut found = observe::findings(Seen {
        endpoints: &endpoints,
        registrations: &registrations,
        declared,
        hears_keys,
    });
    found.extend(memory.foreign_calls(foreign.iter().map(|call| &call.endpoint)));
    tell(status, memory, found);

    let mut seen = Vec::new();
    // Trunks first: the bound must not leave one out for a phone.
    let order =
        |trunks: bool| endpoints.iter().filter(move |e| names_has(declared, e.name.as_str()) == trunks);
    for endpoint in order(true).chain(order(false)) {
        let Ok(name) = endpoint.name.as_str().parse::<EndpointName>() else {
            left_out += 1;
            continue;
        };
        if seen.len() >= ENDPOINTS_MAX {
            left_out += 1;
            continue;
        }
        let asked = contacts.remove(&endpoint.name);
        let unasked = || {
            endpoint.contacts.iter().map(|uri| observe::Contact {
                uri: uri.clone(),
                status: observe::ContactStatus::Unknown,
                qualify_rtt_us: None,
            })
        };
        let found = asked.unwrap_or_else(|| unasked().collect());
        let found: Vec<_> = found.into_iter().map(|contact| memory.contact(name.as_str(), contact)).collect();
        let registration = registrations
            .iter()
            .find(|registration| observe::endpoint_of(registration, &endpoints) == Some(&endpoint.name))
            .map(|registration| memory.registration(registration));
        let channels = endpoint.channels;
        seen.push(EndpointSeen { endpoint: name, channels, contacts: List::first(found), registration });
    }
    let now = Instant::now();
    memory.since.retain(|_, (_, at)| now.saturating_duration_since(*at) < Duration::from_secs(30 * 86_400));
    let ping_rtt_us = session.ping_rtt().and_then(|rtt| u64::try_from(rtt.as_micros()).ok());
    Ok(Sight {
        taken_at: now,
        ami: AmiState::Up { ping_rtt_us },
        asterisk: Some(Asterisk {
            version: Text::cut(memory.version.as_deref().unwrap_or("unknown")),
            incarnation: Text::cut(core.incarnation.as_str()),
            // It lists endpoints only once it is; where there are none, its word has to do.
            fully_booted: memory.is_booted || !seen.is_empty(),
            up_s: None,
        }),
        endpoints: seen,
        findings: memory.findings.iter().map(finding_seen).collect(),
        endpoints_left_out: left_out,
        host: host(&memory.host),
    })
}

/// Ends calls that Ringward did not place. Each is named in the log: whoever it was has to be found. What Asterisk refuses is said,
/// and not counted as ended; most often that call has just ended by itself.
async fn hang_up(status: &Status, session: &Session, calls: &[ForeignCall]) -> Result<(), AskError> {
    for ForeignCall { endpoint, channel } in calls.iter().take(HANGUPS_MAX) {
        let hangup = action("Hangup", &[("Channel", channel), ("Cause", CALL_REJECTED)])?;
        let answer = session.action(hangup).await?;
        if answer.is_success() {
            tracing::warn!(endpoint, channel, "a call that Ringward did not place is hung up");
            status.sources.hung_up(endpoint);
        } else {
            let answer = answer.text();
            tracing::warn!(endpoint, channel, answer, "a call that Ringward did not place is not hung up");
        }
    }
    Ok(())
}

/// Whether the dialplan hears keys. `None`: not known.
async fn hears_keys(session: &Session) -> Result<Option<bool>, AskError> {
    match ContextName::parse(observe::TALK_CONTEXT) {
        Ok(context) => session.has_context(&context).await,
        Err(_) => Ok(None),
    }
}

fn names_has(names: Option<&BTreeSet<&str>>, name: &str) -> bool {
    names.is_some_and(|names| names.contains(name))
}

async fn register_again(
    memory: &mut Memory,
    session: &Session,
    registrations: &[observe::Registration],
) -> Result<(), AskError> {
    let now = Instant::now();
    for registration in registrations.iter().filter(|registration| registration.status == Standing::Stopped) {
        let asked = memory.registered_at.get(&registration.name);
        if asked.is_some_and(|at| now.saturating_duration_since(*at) < REGISTER_EVERY) {
            continue;
        }
        memory.registered_at.insert(registration.name.clone(), now);
        let response =
            session.action(action("PJSIPRegister", &[("Registration", &registration.name)])?).await?;
        tracing::warn!(
            registration = registration.name,
            answer = response.text(),
            "Asterisk had given a registration up and was asked to register again"
        );
    }
    memory
        .registered_at
        .retain(|name, _| registrations.iter().any(|registration| registration.name == *name));
    Ok(())
}

fn finding_seen(finding: &Finding) -> FindingSeen {
    FindingSeen {
        finding: Text::cut(finding.kind.as_str()),
        subject: Text::cut(&finding.subject),
        fix: Text::cut(&finding.fix),
    }
}

/// Facts for what is newly amiss and for what is mended.
fn tell(status: &Status, memory: &mut Memory, found: Vec<Finding>) {
    let found: BTreeSet<Finding> = found.into_iter().collect();
    for finding in found.difference(&memory.findings) {
        tracing::warn!(
            finding = finding.kind.as_str(),
            subject = finding.subject,
            fix = finding.fix,
            "finding"
        );
        let body = json!({"finding": finding.kind.as_str(), "subject": finding.subject, "fix": finding.fix});
        status.spool.add(fact_kind::FINDING, body);
    }
    for finding in memory.findings.difference(&found) {
        let body = json!({"finding": finding.kind.as_str(), "subject": finding.subject});
        status.spool.add(fact_kind::FINDING_CLEARED, body);
    }
    memory.findings = found;
}
