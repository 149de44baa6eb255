//! What the program knows of itself and its node, put together for links, metrics and `status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use node_agent_protocol::{AmiState, Asterisk, EndpointSeen, FindingSeen, Host, List, Observations, Text};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use crate::{
    clock::Clock, evidence::Sources, gate::Gate, identity::Identity, metrics::Metrics, records::Records,
    sounds::Amiss, spool::Spool,
};

/// What the observer saw at one moment.
#[derive(Debug, Clone)]
pub struct Sight {
    /// When.
    pub taken_at: Instant,
    /// The observing session.
    pub ami: AmiState,
    /// What Asterisk says of itself.
    pub asterisk: Option<Asterisk>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSeen>,
    /// What is amiss with them.
    pub findings: Vec<FindingSeen>,
    /// Those beyond the bound or with names of no trunk.
    pub endpoints_left_out: u32,
    /// The host.
    pub host: Host,
}

impl Sight {
    /// Before anything was seen.
    #[must_use]
    pub fn nothing(reason: &str) -> Self {
        Self {
            taken_at: Instant::now(),
            ami: AmiState::Down { reason: Text::cut(reason) },
            asterisk: None,
            endpoints: Vec::new(),
            findings: Vec::new(),
            endpoints_left_out: 0,
            host: Host::default(),
        }
    }

    /// Whether links should be told at once: anything but load, memory and ages.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        let steady = |sight: &Self| {
            let mut endpoints = sight.endpoints.clone();
            for endpoint in &mut endpoints {
                endpoint.contacts = List::first(endpoint.contacts.iter().cloned().map(|mut contact| {
                    (contact.since_ms, contact.qualify_rtt_us) = (0, None);
                    contact
                }));
                if let Some(registration) = &mut endpoint.registration {
                    registration.since_ms = 0;
                }
            }
            endpoints
        };
        let run = |sight: &Self| {
            sight.asterisk.as_ref().map(|a| (a.version.clone(), a.incarnation.clone(), a.fully_booted))
        };
        std::mem::discriminant(&self.ami) != std::mem::discriminant(&other.ami)
            || run(self) != run(other)
            || steady(self) != steady(other)
            || self.findings != other.findings
    }
}

/// Clones share it.
#[derive(Clone)]
pub struct Status {
    pub(crate) sight: watch::Sender<Arc<Sight>>,
    pub(crate) gate: Gate,
    pub(crate) spool: Spool,
    pub(crate) records: Records,
    pub(crate) identity: watch::Sender<Arc<Identity>>,
    pub(crate) clock: Clock,
    /// What is amiss with the folder of sounds.
    pub(crate) amiss: Amiss,
    /// Where evidence comes from.
    pub(crate) sources: Sources,
    links: Arc<Mutex<BTreeMap<String, String>>>,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Status")
    }
}

impl Status {
    /// Of these parts.
    #[must_use]
    pub fn new(gate: Gate, spool: Spool, identity: watch::Sender<Arc<Identity>>, clock: Clock) -> Self {
        let sight = watch::Sender::new(Arc::new(Sight::nothing("the agent has just started")));
        let records = Records::new(gate.clone(), clock.clone());
        let sources = Sources::default();
        let amiss = Amiss::default();
        Self { sight, gate, spool, records, identity, clock, amiss, sources, links: Arc::default() }
    }

    /// What the observer sees, as it sees it.
    #[must_use]
    pub fn sight_changes(&self) -> watch::Receiver<Arc<Sight>> {
        self.sight.subscribe()
    }

    pub(crate) fn link(&self, url: &str, state: String) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).insert(url.to_owned(), state);
    }

    /// The whole snapshot now, without a revision, and the declared endpoints.
    #[must_use]
    pub fn observations(&self) -> (Observations, Vec<String>) {
        let sight = self.sight.borrow().clone();
        let age = sight.taken_at.elapsed();
        let seen = Observations {
            revision: 0,
            taken_ms_ago: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            sent_at_unix_ms: self.clock.unix_ms(),
            ami: sight.ami.clone(),
            asterisk: sight.asterisk.clone(),
            endpoints: List::first(sight.endpoints.iter().cloned()),
            findings: List::first(self.amiss.finding().into_iter().chain(sight.findings.iter().cloned())),
            endpoints_left_out: sight.endpoints_left_out,
            host: sight.host.clone(),
            gate: self.gate.counts(),
            spool: self.spool.counts(),
            certificate_expires_unix_s: Some(self.identity.borrow().expires_unix_s),
            policy_revision: self.gate.revision(),
            firewall: None,
        };
        let declared = self.gate.declared().unwrap_or_default();
        (seen, declared.iter().map(ToString::to_string).collect())
    }

    /// For `ringward-agent status` and `jail status`.
    #[must_use]
    pub fn json(&self, metrics: &Metrics) -> Vec<u8> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let identity = self.identity.borrow().clone();
        let (seen, declared) = self.observations();
        let status = json!({
            "node": identity.node, "version": env!("CARGO_PKG_VERSION"),
            "certificate": {"fingerprint": identity.fingerprint, "expires_unix_s": identity.expires_unix_s},
            "links": links, "declared": declared, "observations": seen,
            "evidence": self.sources.seen(&metrics.evidence),
        });
        status.to_string().into_bytes()
    }
}
