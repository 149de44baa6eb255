//! What is amiss with a node's trunks, each with its remedy.

use std::{collections::BTreeSet, net::IpAddr};

use node_agent_ami::EndpointName;

use super::read::{Endpoint, Registration, RegistrationStatus, uri_host};

/// The context of the dialplan that hears keys. One of before it plays the message and hears none.
pub const TALK_CONTEXT: &str = "ringward-talk";
/// What to do where a node does not have it.
pub const DIALPLAN_FIX: &str = "No key is heard here, so calls that wait for one go elsewhere while they can. Drain the \
                                node, put the present extensions_ringward.conf and amd.conf there, run `asterisk -rx \
                                'dialplan reload'`, and undrain it (dialplans/README.md, Upgrade)";

/// Undeclared endpoints that are named one by one; a PBX with more has phones.
const UNDECLARED_MAX: usize = 10;

/// What kind of thing is amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// A contact is a name: with several addresses behind it, one attempt can ring twice.
    ContactIsName,
    /// An endpoint has several contacts: Asterisk chooses, or rings all.
    SeveralContacts,
    /// A trunk's endpoint has no contact.
    NoContact,
    /// Asterisk has given a registration up.
    RegistrationStopped,
    /// An endpoint of this node that is no trunk of the fleet.
    Undeclared,
    /// A trunk of the fleet whose endpoint this node does not have.
    Missing,
    /// The dialplan is of before keys: none that a callee presses is heard.
    DialplanTooOld,
    /// Calls went out over a trunk of the fleet that Ringward did not place.
    ForeignCalls,
}

impl FindingKind {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContactIsName => "contact_is_name",
            Self::SeveralContacts => "several_contacts",
            Self::NoContact => "no_contact",
            Self::RegistrationStopped => "registration_stopped",
            Self::Undeclared => "endpoint_undeclared",
            Self::Missing => "endpoint_missing",
            Self::DialplanTooOld => "dialplan_too_old",
            Self::ForeignCalls => "foreign_calls",
        }
    }
}

/// One thing that is amiss.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The endpoint or registration.
    pub subject: String,
    /// What to do about it.
    pub fix: String,
}

/// What there is to judge.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Every endpoint of the node.
    pub endpoints: &'a [Endpoint],
    /// Every outbound registration.
    pub registrations: &'a [Registration],
    /// Endpoints that the fleet declares; `None` before a policy came: nothing is undeclared or missing then.
    pub declared: Option<&'a BTreeSet<&'a str>>,
    /// Whether the dialplan hears keys; `None`: not known.
    pub hears_keys: Option<bool>,
}

/// Everything amiss, sorted.
#[must_use]
pub fn findings(seen: Seen<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut undeclared = Vec::new();
    for endpoint in seen.endpoints {
        let declared = seen.declared.map(|declared| declared.contains(endpoint.name.as_str()));
        match declared {
            Some(true) => trunk(endpoint, &mut found),
            Some(false) => undeclared.push(endpoint.name.to_string()),
            None => {}
        }
    }
    if undeclared.len() > UNDECLARED_MAX {
        undeclared = vec!["several endpoints".to_owned()];
    }
    found.extend(undeclared.into_iter().map(|subject| Finding {
        kind: FindingKind::Undeclared,
        subject,
        fix: "Declare it as a [[trunk]] in fleet.toml if Ringward is to use it".to_owned(),
    }));
    for name in seen.declared.into_iter().flatten() {
        if !seen.endpoints.iter().any(|endpoint| endpoint.name.as_str() == *name) {
            found.push(Finding {
                kind: FindingKind::Missing,
                subject: (*name).to_owned(),
                fix: format!(
                    "Add endpoint {name} to pjsip.conf of this node, or take the trunk out of fleet.toml"
                ),
            });
        }
    }
    if seen.hears_keys == Some(false) {
        found.push(Finding {
            kind: FindingKind::DialplanTooOld,
            subject: TALK_CONTEXT.to_owned(),
            fix: DIALPLAN_FIX.to_owned(),
        });
    }
    for registration in seen.registrations {
        if registration.status == RegistrationStatus::Stopped {
            found.push(Finding {
                kind: FindingKind::RegistrationStopped,
                subject: registration.name.clone(),
                fix: "Asterisk gave it up; the agent asks it to register again. Set retry_interval, \
                      forbidden_retry_interval and fatal_retry_interval to 60, auth_rejection_permanent=no and \
                      max_retries high, and look at the account's password"
                    .to_owned(),
            });
        }
    }
    found.sort();
    found
}

fn trunk(endpoint: &Endpoint, found: &mut Vec<Finding>) {
    let mut add = |kind, fix: String| found.push(Finding { kind, subject: endpoint.name.to_string(), fix });
    let name = &endpoint.name;
    match endpoint.contacts.as_slice() {
        [] => add(FindingKind::NoContact, format!("Give the AOR of {name} its carrier's address as contact")),
        [_] => {}
        [_, ..] => add(
            FindingKind::SeveralContacts,
            format!("Give {name} one contact, and each further address an endpoint and trunk of its own"),
        ),
    }
    let named =
        endpoint.contacts.iter().filter_map(|uri| uri_host(uri)).find(|host| host.parse::<IpAddr>().is_err());
    if let Some(host) = named {
        add(
            FindingKind::ContactIsName,
            format!(
                "Write the carrier's address in the place of {host}: a name with several addresses can ring a \
                 phone twice in one attempt"
            ),
        );
    }
}

/// The endpoint that a registration belongs to: the one that it names, or the only one with a contact at its host.
#[must_use]
pub fn endpoint_of<'a>(registration: &Registration, endpoints: &'a [Endpoint]) -> Option<&'a EndpointName> {
    if let Some(named) = &registration.endpoint {
        return endpoints.iter().map(|endpoint| &endpoint.name).find(|name| *name == named);
    }
    let host = registration.server_host.as_deref()?;
    let at_host = |endpoint: &&Endpoint| endpoint.contacts.iter().any(|uri| uri_host(uri) == Some(host));
    let mut at_host = endpoints.iter().filter(at_host);
    match (at_host.next(), at_host.next()) {
        (Some(only), None) => Some(&only.name),
        (None | Some(_), _) => None,
    }
}
