//! What the observer remembers between two readings: since when things are as they are, what was told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use node_agent_core::observe::{self, Finding, FindingKind, RegistrationStatus as Standing};
use node_agent_protocol::{Contact, ContactStatus, Registration, RegistrationStatus, Text};
use tokio::time::Instant;

use crate::{host::HostFiles, settings::ForeignCalls};

/// What changes between readings is compared with.
pub(crate) struct Memory {
    pub(crate) since: HashMap<(String, String), (String, Instant)>,
    pub(crate) findings: BTreeSet<Finding>,
    pub(crate) registered_at: HashMap<String, Instant>,
    pub(crate) version: Option<String>,
    pub(crate) is_booted: bool,
    pub(crate) reads: u64,
    pub(crate) host: HostFiles,
    /// What becomes of calls that Ringward did not place.
    pub(crate) foreign_calls: ForeignCalls,
    /// When calls that Ringward did not place were last seen on a trunk.
    pub(crate) foreign: BTreeMap<String, Instant>,
}

/// So long after the last such call the finding stands: one finding for a day's calls, not two for each.
const FOREIGN_FOR: Duration = Duration::from_secs(600);

impl Memory {
    pub(crate) fn new(host: HostFiles, foreign_calls: ForeignCalls) -> Self {
        Self {
            since: HashMap::new(),
            findings: BTreeSet::new(),
            registered_at: HashMap::new(),
            version: None,
            is_booted: false,
            reads: 0,
            host,
            foreign_calls,
            foreign: BTreeMap::new(),
        }
    }

    /// Trunks over which such calls go out now or went out a while ago.
    pub(crate) fn foreign_calls<'a>(&mut self, seen: impl Iterator<Item = &'a String>) -> Vec<Finding> {
        let now = Instant::now();
        self.foreign.extend(seen.map(|endpoint| (endpoint.clone(), now)));
        self.foreign.retain(|_, at| now.saturating_duration_since(*at) < FOREIGN_FOR);
        let finding = |endpoint: &String| {
            Finding {
            kind: FindingKind::ForeignCalls,
            subject: endpoint.clone(),
            fix: "Calls go out over this trunk that Ringward did not place. If no phone of this PBX may use it, somebody \
                  has got in: look at `core show channels`, close the dialplan that reaches it, change the accounts"
                .to_owned(),
        }
        };
        self.foreign.keys().map(finding).collect()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn foreign_calls_are_one_finding_until_there_were_none_for_a_while() {
        let host = HostFiles { rtp_conf: "/none".into(), disk: "/".into() };
        let mut memory = Memory::new(host, ForeignCalls::Tell);
        let acme = ["acme".to_owned()];
        assert!(memory.foreign_calls([].iter()).is_empty());
        let found = memory.foreign_calls(acme.iter());
        assert_eq!((found.len(), found[0].kind.as_str()), (1, "foreign_calls"));
        tokio::time::advance(FOREIGN_FOR - Duration::from_secs(1)).await;
        assert_eq!(memory.foreign_calls([].iter()), found);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(memory.foreign_calls([].iter()).is_empty());
    }
}
