//! What the observer remembers between two readings: since when things are as they are, what was told.

use std::collections::{BTreeSet, HashMap};

use node_agent_core::observe::{self, Finding, RegistrationStatus as Standing};
use node_agent_protocol::{Contact, ContactStatus, Registration, RegistrationStatus, Text};
use tokio::time::Instant;

use crate::host::HostFiles;

/// What changes between readings is compared with.
pub(crate) struct Memory {
    pub(crate) since: HashMap<(String, String), (String, Instant)>,
    pub(crate) findings: BTreeSet<Finding>,
    pub(crate) registered_at: HashMap<String, Instant>,
    pub(crate) version: Option<String>,
    pub(crate) is_booted: bool,
    pub(crate) reads: u64,
    pub(crate) host: HostFiles,
}

impl Memory {
    /// For how long this has been so, in ms.
    fn since(&mut self, what: (&str, &str), state: &str) -> u64 {
        let now = Instant::now();
        let entry = self
            .since
            .entry((what.0.to_owned(), what.1.to_owned()))
            .or_insert_with(|| (state.to_owned(), now));
        if entry.0 != state {
            *entry = (state.to_owned(), now);
        }
        u64::try_from(now.saturating_duration_since(entry.1).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn contact(&mut self, endpoint: &str, contact: observe::Contact) -> Contact {
        let status = match contact.status {
            observe::ContactStatus::Reachable => ContactStatus::Reachable,
            observe::ContactStatus::Unreachable => ContactStatus::Unreachable,
            observe::ContactStatus::NonQualified => ContactStatus::NonQualified,
            observe::ContactStatus::Unknown => ContactStatus::Unknown,
        };
        let since_ms = self.since((endpoint, &contact.uri), &format!("{status:?}"));
        Contact { uri: Text::cut(&contact.uri), status, qualify_rtt_us: contact.qualify_rtt_us, since_ms }
    }

    pub(crate) fn registration(&mut self, registration: &observe::Registration) -> Registration {
        let status = match registration.status {
            Standing::Registered => RegistrationStatus::Registered,
            Standing::Unregistered => RegistrationStatus::Unregistered,
            Standing::Rejected => RegistrationStatus::Rejected,
            Standing::Stopped => RegistrationStatus::Stopped,
            Standing::Unknown => RegistrationStatus::Unknown,
        };
        let since_ms = self.since(("registration", &registration.name), &format!("{status:?}"));
        Registration { name: Text::cut(&registration.name), status, since_ms }
    }
}
