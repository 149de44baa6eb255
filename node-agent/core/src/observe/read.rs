//! Lists of AMI messages, as Asterisk 16 to 22 give them.

use std::collections::BTreeSet;

use node_agent_ami::{EndpointName, Message};

use crate::{attempt_id::AttemptId, gate::Listed};

/// Longest text that is taken over.
const TEXT_MAX: usize = 256;

/// An endpoint of PJSIPShowEndpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: EndpointName,
    /// Channels in use on it, whoever made them.
    pub channels: u32,
    /// URIs of its contacts, over all its AORs.
    pub contacts: Vec<String>,
}

/// A contact of PJSIPShowEndpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Where to.
    pub uri: String,
    /// What qualify says.
    pub status: ContactStatus,
    /// Round trip of the last answered OPTIONS, in µs.
    pub qualify_rtt_us: Option<u64>,
}

/// Asterisk's words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactStatus {
    /// Answers OPTIONS.
    Reachable,
    /// Does not.
    Unreachable,
    /// Is not asked.
    NonQualified,
    /// Not asked yet, or another word.
    Unknown,
}

/// An outbound registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its section in pjsip.conf.
    pub name: String,
    /// The endpoint that it names, if it does (`line=yes`).
    pub endpoint: Option<EndpointName>,
    /// The host that it registers at.
    pub server_host: Option<String>,
    /// How it stands.
    pub status: RegistrationStatus,
}

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationStatus {
    /// Accepted.
    Registered,
    /// Not now; Asterisk tries again.
    Unregistered,
    /// Refused; Asterisk tries again.
    Rejected,
    /// Asterisk has given up.
    Stopped,
    /// Another word.
    Unknown,
}

fn text(message: &Message, name: &str) -> Option<String> {
    let text = message.text(name)?;
    let fits = text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into_owned())
}

fn events<'a>(items: &'a [Message], name: &'a str) -> impl Iterator<Item = &'a Message> + 'a {
    items.iter().filter(move |item| item.get("Event") == Some(name.as_bytes()))
}

/// PJSIPShowEndpoints: endpoints, and how many have names that can be no trunk's.
#[must_use]
pub fn endpoints(items: &[Message]) -> (Vec<Endpoint>, u32) {
    let mut left_out = 0;
    let mut endpoints = Vec::new();
    for item in events(items, "EndpointList") {
        let Some(name) = text(item, "ObjectName").and_then(|name| EndpointName::parse(name).ok()) else {
            left_out += 1;
            continue;
        };
        let channels = text(item, "ActiveChannels").and_then(|count| count.parse().ok()).unwrap_or(0);
        // `aor/uri,aor/uri,`: no comma can be in a URI of pjsip.conf.
        let contacts = text(item, "Contacts").unwrap_or_default();
        let uri = |contact: &str| contact.split_once('/').map(|(_, uri)| uri.to_owned());
        let contacts = contacts.split(',').filter_map(uri).collect();
        endpoints.push(Endpoint { name, channels, contacts });
    }
    (endpoints, left_out)
}

/// PJSIPShowEndpoint: contacts of one endpoint.
#[must_use]
pub fn contacts(items: &[Message]) -> Vec<Contact> {
    let contact = |item: &Message| {
        let status = match item.get("Status").or_else(|| item.get("ContactStatus")) {
            Some(b"Reachable" | b"Avail") => ContactStatus::Reachable,
            Some(b"Unreachable" | b"Unavail") => ContactStatus::Unreachable,
            Some(b"NonQualified" | b"NonQual") => ContactStatus::NonQualified,
            Some(_) | None => ContactStatus::Unknown,
        };
        // `N/A` where there is none.
        let qualify_rtt_us = text(item, "RoundtripUsec").and_then(|rtt| rtt.parse().ok());
        Some(Contact { uri: text(item, "URI")?, status, qualify_rtt_us })
    };
    events(items, "ContactStatusDetail").filter_map(contact).collect()
}

/// PJSIPShowRegistrationsOutbound.
#[must_use]
pub fn registrations(items: &[Message]) -> Vec<Registration> {
    let registration = |item: &Message| {
        // After a refusal that counts as permanent, Asterisk plans no next one and never tries again.
        let none_planned = item.get("NextReg") == Some(b"0");
        let status = match item.get("Status") {
            Some(b"Registered") => RegistrationStatus::Registered,
            Some(b"Unregistered") => RegistrationStatus::Unregistered,
            Some(b"Rejected") if none_planned => RegistrationStatus::Stopped,
            Some(b"Rejected") => RegistrationStatus::Rejected,
            Some(b"Stopped" | b"Stopping") => RegistrationStatus::Stopped,
            Some(_) | None => RegistrationStatus::Unknown,
        };
        Some(Registration {
            name: text(item, "ObjectName")?,
            endpoint: text(item, "Endpoint").and_then(|name| EndpointName::parse(name).ok()),
            server_host: text(item, "ServerUri").and_then(|uri| uri_host(&uri).map(str::to_owned)),
            status,
        })
    };
    events(items, "OutboundRegistrationDetail").filter_map(registration).collect()
}

/// CoreShowChannels: channels of ours. Other channels are not looked at.
#[must_use]
pub fn channels(items: &[Message]) -> Vec<Listed> {
    let ours = |item: &Message| {
        let attempt = AttemptId::parse(item.get("Uniqueid")?).ok()?;
        // `PJSIP/acme-0000002a`.
        let channel = text(item, "Channel")?;
        let (endpoint, _) = channel.strip_prefix("PJSIP/")?.rsplit_once('-')?;
        Some(Listed { attempt, endpoint: EndpointName::parse(endpoint).ok()? })
    };
    events(items, "CoreShowChannel").filter_map(ours).collect()
}

/// A call that goes out over a declared endpoint and that Ringward did not place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignCall {
    /// The endpoint.
    pub endpoint: String,
    /// The channel's name: `PJSIP/`, the endpoint, `-`, hexadecimal digits. Asterisk gives no name twice while it runs.
    pub channel: String,
}

/// CoreShowChannels: calls that go out over declared endpoints and that Ringward did not place. Calls that come in over a
/// trunk are none of these, and what Originate gave an application to is seen until it is answered: then Asterisk's list tells it
/// from no call that came in.
#[must_use]
pub fn foreign_calls(items: &[Message], declared: &BTreeSet<&str>) -> Vec<ForeignCall> {
    let mut calls = Vec::new();
    for item in events(items, "CoreShowChannel") {
        // What Dial() and Originate give the channels that they make.
        let goes_out = item.get("Application").is_some_and(|name| name.starts_with(b"AppDial"))
            || item.get("ApplicationData") == Some(b"(Outgoing Line)");
        let is_ours = item.get("Uniqueid").is_some_and(|id| AttemptId::parse(id).is_ok());
        let channel = text(item, "Channel").unwrap_or_default();
        let endpoint = channel.strip_prefix("PJSIP/").and_then(|rest| rest.rsplit_once('-'));
        if let (Some((endpoint, number)), true, false) = (endpoint, goes_out, is_ours)
            && declared.contains(endpoint)
            && number.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            let endpoint = endpoint.to_owned();
            calls.push(ForeignCall { endpoint, channel });
        }
    }
    calls
}

/// Whether this version says the SIP answer in `TechCause`: 20.17, 22.7 and newer.
#[must_use]
pub fn has_tech_cause(version: &str) -> bool {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(20), Some(minor)) => minor >= 17,
        (Some(22), Some(minor)) => minor >= 7,
        (Some(major), _) => major >= 23,
        (None, _) => false,
    }
}

/// The host of `sip:[user@]host[:port][;parameters]`, without the brackets of an IPv6 address.
#[must_use]
pub fn uri_host(uri: &str) -> Option<&str> {
    let uri = uri.trim_matches(['<', '>', '"']);
    let rest = uri.strip_prefix("sip:").or_else(|| uri.strip_prefix("sips:"))?;
    let rest = rest.split([';', '?']).next()?;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let host = match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next()?,
        None => rest.split(':').next()?,
    };
    let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_');
    (!host.is_empty() && host.len() <= 253 && host.bytes().all(clean)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_uris() {
        assert_eq!(uri_host("sip:192.0.2.21:5060"), Some("192.0.2.21"));
        assert_eq!(uri_host("sip:user@192.0.2.21;transport=tcp"), Some("192.0.2.21"));
        assert_eq!(uri_host("<sip:[2001:db8::1]:5060>"), Some("2001:db8::1"));
        assert_eq!(uri_host("sips:carrier.example"), Some("carrier.example"));
        assert_eq!(uri_host("tel:+48"), None);
        assert_eq!(uri_host("sip:a\u{1b}[31m"), None);
    }

    #[test]
    fn what_goes_out_over_a_trunk_and_has_no_attempt_s_id_is_foreign() {
        let channel =
            |name: &'static str, id: &'static str, application: &'static str, data: &'static str| {
                let of = [("Event", "CoreShowChannel"), ("Channel", name), ("Uniqueid", id)];
                Message::from_pairs(
                    of.into_iter().chain([("Application", application), ("ApplicationData", data)]),
                )
            };
        let items = [
            channel("PJSIP/acme-00000001", "1795522722.1", "AppDial", "(Outgoing Line)"),
            channel("PJSIP/acme-00000002", "1795522722.2", "AppDial2", "(Outgoing Line)"),
            channel("PJSIP/acme-00000003", "att_0123456789abcdefghjkmnpqr0", "AppDial2", "(Outgoing Line)"),
            channel("PJSIP/acme-00000004", "1795522722.4", "Dial", "PJSIP/phone"),
            channel("PJSIP/phone-00000005", "1795522722.5", "AppDial", "(Outgoing Line)"),
            channel("Local/acme-00000006", "1795522722.6", "AppDial", "(Outgoing Line)"),
        ];
        let foreign = foreign_calls(&items, &BTreeSet::from(["acme", "beta"]));
        let found: Vec<_> =
            foreign.iter().map(|call| (call.endpoint.as_str(), call.channel.as_str())).collect();
        assert_eq!(found, [("acme", "PJSIP/acme-00000001"), ("acme", "PJSIP/acme-00000002")]);
        assert!(foreign_calls(&items, &BTreeSet::new()).is_empty());
    }
}
