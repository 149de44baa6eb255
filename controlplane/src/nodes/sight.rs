//! What is seen of a node's trunks, as news for their health: by its agent, or by this program where it has
//! none.
//!
//! Facts only: an agent's snapshot and the answers to our own questions, never an event's claim.

use std::{collections::HashMap, time::Duration};

use controlplane_core::{
    fleet::Trunk,
    health::{Event, NodeEvent},
    names::{NodeName, TrunkName},
};
use node_agent_ami::{AskError, EndpointName, Session};
use node_agent_core::observe;
use node_agent_protocol::{AmiState, ContactStatus, EndpointSeen, RegistrationStatus};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{Shared, check};

/// Between two looks of ours at a node without an agent.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a registration may be under way before it counts as lost: an Asterisk that has just started has
/// not registered yet.
const REGISTERING_MAX: Duration = Duration::from_secs(5);

/// An agent's word for a dialplan that hears no keys (`FindingKind::DialplanTooOld`).
const DEAF: &str = "dialplan_too_old";

/// A contact, whoever saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// Answers OPTIONS, after this time.
    Reachable(Option<Duration>),
    Unreachable,
    /// Is not asked.
    NotQualified,
    /// Not asked yet, or not there: nothing is known.
    Unknown,
}

/// A registration, whoever saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    /// The trunk does not register.
    NotThere,
    /// A word of a newer version.
    Unknown,
    Yes,
    NotNow,
    Rejected,
    Stopped,
}

/// What is seen of one trunk at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    contact: Contact,
    registration: Registered,
}

/// Of several contacts of an endpoint one that answers is enough.
fn contact(contacts: impl Iterator<Item = (ContactStatus, Option<u64>)>) -> Contact {
    let mut seen = Contact::Unknown;
    for (status, rtt_us) in contacts {
        match (status, seen) {
            (ContactStatus::Reachable, _) => return Contact::Reachable(rtt_us.map(Duration::from_micros)),
            (ContactStatus::Unreachable, _) => seen = Contact::Unreachable,
            (ContactStatus::NonQualified, Contact::Unknown) => seen = Contact::NotQualified,
            (ContactStatus::NonQualified | ContactStatus::Unknown, _) => {}
        }
    }
    seen
}

impl Sight {
    fn by_agent(seen: &EndpointSeen) -> Self {
        let registration = match seen.registration.as_ref().map(|registration| registration.status) {
            None => Registered::NotThere,
            Some(RegistrationStatus::Registered) => Registered::Yes,
            Some(RegistrationStatus::Unregistered) => Registered::NotNow,
            Some(RegistrationStatus::Rejected) => Registered::Rejected,
            Some(RegistrationStatus::Stopped) => Registered::Stopped,
            Some(RegistrationStatus::Unknown) => Registered::Unknown,
        };
        Self { contact: contact(seen.contacts.iter().map(|c| (c.status, c.qualify_rtt_us))), registration }
    }

    fn by_answers(
        contacts: &[(ContactStatus, Option<u64>)],
        registration: Option<&observe::Registration>,
    ) -> Self {
        let registration = match registration.map(|registration| registration.status) {
            None => Registered::NotThere,
            Some(observe::RegistrationStatus::Registered) => Registered::Yes,
            Some(observe::RegistrationStatus::Unregistered) => Registered::NotNow,
            Some(observe::RegistrationStatus::Rejected) => Registered::Rejected,
            Some(observe::RegistrationStatus::Stopped) => Registered::Stopped,
            Some(observe::RegistrationStatus::Unknown) => Registered::Unknown,
        };
        Self { contact: contact(contacts.iter().copied()), registration }
    }
}

/// What was told of a trunk last.
#[derive(Default)]
struct Told {
    rtt: Option<Duration>,
    unregistered_since: Option<Instant>,
}

/// Turns what is seen of one node's trunks into news.
#[derive(Default)]
struct Teller(HashMap<TrunkName, Told>);

impl Teller {
    fn news(&mut self, trunk: &TrunkName, sight: Sight, now: Instant) -> Vec<Event> {
        let told = self.0.entry(trunk.clone()).or_default();
        let contact = match sight.contact {
            Contact::Reachable(rtt) => Some(Event::Reachable(rtt)),
            Contact::Unreachable => Some(Event::Unreachable),
            Contact::NotQualified => Some(Event::NotQualified),
            Contact::Unknown => None,
        };
        if sight.registration != Registered::NotNow {
            told.unregistered_since = None;
        }
        let registration = match sight.registration {
            Registered::NotThere => Some(Event::NotRegistering),
            Registered::Unknown => None,
            Registered::Yes => Some(Event::Registered),
            Registered::Rejected => Some(Event::RegistrationRejected),
            Registered::Stopped => Some(Event::RegistrationLost),
            Registered::NotNow => {
                let since = *told.unregistered_since.get_or_insert(now);
                (now.saturating_duration_since(since) >= REGISTERING_MAX).then_some(Event::RegistrationLost)
            }
        };
        contact.into_iter().chain(registration).collect()
    }

    /// A round trip that was not told before: the same to the µs is the same OPTIONS.
    fn new_rtt(&mut self, trunk: &TrunkName, sight: Sight) -> Option<Duration> {
        let Contact::Reachable(Some(rtt)) = sight.contact else { return None };
        let told = self.0.entry(trunk.clone()).or_default();
        (told.rtt.replace(rtt) != Some(rtt)).then_some(rtt)
    }

    fn tell(&mut self, shared: &Shared, trunk: &Trunk, sight: Sight) {
        let now = Instant::now();
        for event in self.news(&trunk.name, sight, now) {
            shared.registry.observed(now.into_std(), &trunk.name, &event);
        }
        if let Some(rtt) = self.new_rtt(&trunk.name, sight) {
            shared.metrics.fleet.qualify_rtt(trunk, rtt);
        }
    }
}

/// Follows what a node's agent sees, and whether it is there.
pub(super) fn by_agent(shared: Shared, node: NodeName) -> AbortHandle {
    let work = async move {
        let mut news = shared.links.news(&node);
        let mut teller = Teller::default();
        let (mut was_linked, mut taken, mut was_deaf) = (false, None, false);
        loop {
            news.borrow_and_update();
            let agent = shared.links.agent(&node);
            let now = || Instant::now().into_std();
            if agent.link.is_some() != was_linked {
                was_linked = !was_linked;
                let event = if was_linked { NodeEvent::LinkUp } else { NodeEvent::LinkDown };
                shared.registry.node_event(now(), &node, event);
            }
            if let Some(seen) = agent.seen.filter(|seen| was_linked && Some(seen.taken) != taken) {
                taken = Some(seen.taken);
                shared.registry.node_event(now(), &node, NodeEvent::Heartbeat);
                let whole = matches!(seen.observations.ami, AmiState::Up { .. })
                    && seen.observations.asterisk.as_ref().is_some_and(|asterisk| asterisk.fully_booted);
                let deaf = seen.observations.findings.iter().any(|f| f.finding.as_str() == DEAF);
                // An agent of before this finding says nothing by its silence.
                if whole && (deaf || was_deaf) {
                    shared.registry.hears_keys(&node, !deaf);
                    was_deaf = deaf;
                }
                let (fleet, _) = shared.registry.fleet();
                for trunk in fleet.trunks_of(&node).filter(|_| whole) {
                    let endpoint = seen.observations.endpoints.iter().find(|e| e.endpoint == trunk.endpoint);
                    if let Some(endpoint) = endpoint {
                        teller.tell(&shared, trunk, Sight::by_agent(endpoint));
                    }
                }
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(work).abort_handle()
}

/// Looks at the trunks of a node without an agent, for as long as its session lives.
pub(super) async fn by_answers(shared: &Shared, node: &NodeName, session: &Session) {
    let mut teller = Teller::default();
    let mut warned = false;
    loop {
        if let Err(error) = look(shared, node, session, &mut teller).await
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!(%node, %error, "contacts and registrations cannot be read: only calls tell of its trunks");
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look(
    shared: &Shared,
    node: &NodeName,
    session: &Session,
    teller: &mut Teller,
) -> Result<(), AskError> {
    // All that a manager user of the classes call and reporting may ask (dialplans/README.md).
    let registrations = observe::registrations(&session.items("PJSIPShowRegistrationsOutbound", &[]).await?);
    let (fleet, _) = shared.registry.fleet();
    for trunk in fleet.trunks_of(node) {
        let Ok(name) = EndpointName::parse(trunk.endpoint.as_str()) else { continue };
        let read = check::contacts(session, &trunk.endpoint).await?;
        let contacts: Vec<_> = read.iter().map(|c| (status(c.status.as_deref()), c.rtt_us)).collect();
        let uris = read.into_iter().map(|contact| contact.uri).collect();
        let endpoint = [observe::Endpoint { name, channels: 0, contacts: uris }];
        let registration = registrations.iter().find(|r| observe::endpoint_of(r, &endpoint).is_some());
        teller.tell(shared, trunk, Sight::by_answers(&contacts, registration));
    }
    Ok(())
}

/// As `PJSIP_CONTACT(…,status)` says it; older versions have shorter words.
fn status(word: Option<&str>) -> ContactStatus {
    match word {
        Some("Reachable" | "Avail") => ContactStatus::Reachable,
        Some("Unreachable" | "Unavail") => ContactStatus::Unreachable,
        Some("NonQualified" | "NonQual") => ContactStatus::NonQualified,
        Some(_) | None => ContactStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(json: &str) -> Sight {
        Sight::by_agent(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn one_contact_that_answers_is_enough_and_one_that_is_not_asked_says_nothing() {
        let of = |statuses: &[&str]| {
            let contacts: Vec<_> = statuses
                .iter()
                .map(|s| format!(r#"{{"uri":"sip:192.0.2.21","status":"{s}","qualify_rtt_us":1500}}"#))
                .collect();
            seen(&format!(r#"{{"endpoint":"acme","contacts":[{}]}}"#, contacts.join(","))).contact
        };
        let reachable = Contact::Reachable(Some(Duration::from_micros(1_500)));
        assert_eq!(of(&["reachable"]), reachable);
        assert_eq!(of(&["unreachable", "reachable"]), reachable);
        assert_eq!(of(&["unreachable", "unknown"]), Contact::Unreachable);
        assert_eq!(of(&["non_qualified"]), Contact::NotQualified);
        assert_eq!(of(&["non_qualified", "unknown"]), Contact::NotQualified);
        assert_eq!(of(&["unknown"]), Contact::Unknown);
        assert_eq!(of(&[]), Contact::Unknown);
        let none = seen(r#"{"endpoint":"acme"}"#);
        let told = Teller::default().news(&"acme-waw-1".parse().unwrap(), none, Instant::now());
        assert_eq!(told, [Event::NotRegistering]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_under_way_is_lost_only_after_a_while_and_a_refused_one_at_once() {
        let mut teller = Teller::default();
        let trunk: TrunkName = "acme-waw-1".parse().unwrap();
        let mut told = |status: &str| {
            let json =
                format!(r#"{{"endpoint":"acme","registration":{{"name":"acme","status":"{status}"}}}}"#);
            teller.news(&trunk, seen(&json), Instant::now())
        };
        assert_eq!(told("unregistered"), []);
        sleep(REGISTERING_MAX - Duration::from_millis(1)).await;
        assert_eq!(told("unregistered"), []);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(told("unregistered"), [Event::RegistrationLost]);
        assert_eq!(told("registered"), [Event::Registered]);
        assert_eq!(told("unregistered"), [], "begins anew");
        assert_eq!(told("rejected"), [Event::RegistrationRejected]);
        assert_eq!(told("stopped"), [Event::RegistrationLost]);
        assert_eq!(told("dreaming"), []);
    }

    #[test]
    fn the_same_round_trip_is_told_once() {
        let mut teller = Teller::default();
        let trunk: TrunkName = "acme-waw-1".parse().unwrap();
        let rtt = |us: u64| {
            seen(&format!(
                r#"{{"endpoint":"acme","contacts":[{{"uri":"sip:192.0.2.21","status":"reachable","qualify_rtt_us":{us}}}]}}"#
            ))
        };
        let mut new = |us| teller.new_rtt(&trunk, rtt(us)).is_some();
        assert_eq!([new(100), new(100), new(101), new(100)], [true, false, true, true]);
    }
}
