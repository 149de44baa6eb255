//! Looks at a trunk's configuration on its node: with the rights of the user that places calls, or, where an
//! agent's gate lets nobody read variables, in what the agent saw.
//!
//! A contact whose name resolves to several addresses fails over inside Asterisk: 180 and then 503 from the
//! first makes it send the INVITE to the second, two rings in one attempt that no control plane can see
//! coming (measured on 22.10). So a trunk is used only if every contact and outbound proxy of its endpoint
//! is an address.

use std::net::IpAddr;

use controlplane_core::names::EndpointName;
use node_agent_ami::{Action, AskError, NotSent, Session};
use node_agent_core::observe::uri_host;
use node_agent_protocol::EndpointSeen;

use crate::registry::Finding;

/// Most AORs of an endpoint, and contacts of an AOR, that are looked at.
const PARTS_MAX: usize = 16;

/// Looks at one endpoint.
///
/// # Errors
/// The link was lost, or the answer was not one: nothing is known.
pub(super) async fn endpoint(
    session: &Session,
    endpoint: &EndpointName,
) -> Result<Result<(), Finding>, AskError> {
    let Some(aors) = read(session, &format!("PJSIP_ENDPOINT({endpoint},aors)")).await? else {
        return Ok(Err(unknown(endpoint)));
    };
    if let Some(proxy) = read(session, &format!("PJSIP_ENDPOINT({endpoint},outbound_proxy)")).await?
        && let Err(finding) = literal("outbound_proxy", endpoint, &proxy)
    {
        return Ok(Err(finding));
    }
    for aor in names(&aors) {
        // An AOR's name goes into a function's argument, where some characters have a meaning.
        if aor.parse::<EndpointName>().is_err() {
            return Ok(Err(Finding {
                text: format!("endpoint {endpoint}: its AOR has a name that cannot be asked for: rename it"),
            }));
        }
        let contacts = read(session, &format!("PJSIP_AOR({aor},contact)")).await?.unwrap_or_default();
        for contact in names(&contacts) {
            let uri = read(session, &format!("PJSIP_CONTACT({contact},uri)")).await?;
            if let Some(uri) = uri
                && let Err(finding) = literal("contact", endpoint, &uri)
            {
                return Ok(Err(finding));
            }
        }
    }
    Ok(Ok(()))
}

/// Looks for one endpoint in what the node's agent saw.
pub(super) fn seen(endpoints: &[EndpointSeen], endpoint: &EndpointName) -> Result<(), Finding> {
    let found = endpoints.iter().find(|seen| seen.endpoint == *endpoint && !seen.contacts.is_empty());
    let Some(seen) = found else {
        return Err(unknown(endpoint));
    };
    seen.contacts.iter().try_for_each(|contact| literal("contact", endpoint, contact.uri.as_str()))
}

/// Its node does not know it, or does not say.
pub(super) fn unknown(endpoint: &EndpointName) -> Finding {
    let text = format!(
        "endpoint {endpoint} is unknown to this node or has no AOR: see `asterisk -rx 'pjsip show endpoint \
         {endpoint}'`"
    );
    Finding { text }
}

/// One contact of a trunk, as Asterisk's functions tell of it.
pub(super) struct ContactRead {
    pub(super) uri: String,
    /// `Reachable`, `Unreachable`, `NonQualified`, `Unknown`, `Created`.
    pub(super) status: Option<String>,
    pub(super) rtt_us: Option<u64>,
}

/// Reads the contacts of an endpoint, over its AORs; none where it is unknown.
///
/// # Errors
/// As [`endpoint`].
pub(super) async fn contacts(
    session: &Session,
    endpoint: &EndpointName,
) -> Result<Vec<ContactRead>, AskError> {
    let mut found = Vec::new();
    let aors = read(session, &format!("PJSIP_ENDPOINT({endpoint},aors)")).await?.unwrap_or_default();
    for aor in names(&aors).filter(|aor| aor.parse::<EndpointName>().is_ok()) {
        let contacts = read(session, &format!("PJSIP_AOR({aor},contact)")).await?.unwrap_or_default();
        for contact in names(&contacts) {
            let field = async |field: &str| read(session, &format!("PJSIP_CONTACT({contact},{field})")).await;
            let Some(uri) = field("uri").await? else { continue };
            let rtt_us = field("rtt").await?.and_then(|rtt| rtt.parse().ok());
            found.push(ContactRead { uri, status: field("status").await?, rtt_us });
        }
    }
    Ok(found)
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).take(PARTS_MAX)
}

/// Reads a function's value. `None`: empty, or no such object, which Asterisk does not tell apart.
async fn read(session: &Session, function: &str) -> Result<Option<String>, AskError> {
    let action = Action::new("Getvar")
        .and_then(|action| action.header("Variable", function))
        .map_err(NotSent::from)?;
    let response = session.action(action).await?;
    let value = response.message().text("Value").map(|value| value.trim().to_owned());
    Ok(value.filter(|value| response.is_success() && !value.is_empty()))
}

fn literal(what: &str, endpoint: &EndpointName, uri: &str) -> Result<(), Finding> {
    match uri_host(uri) {
        Some(host) if host.parse::<IpAddr>().is_ok() => Ok(()),
        Some(host) => Err(Finding {
            text: format!(
                "endpoint {endpoint}: its {what} {host} is a name; a name with several addresses can ring a \
                 phone twice in one attempt. Give the carrier's address, one endpoint and trunk for each"
            ),
        }),
        None => Err(Finding { text: format!("endpoint {endpoint}: its {what} cannot be read as a SIP URI") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_saw_is_looked_at_alike() {
        let see = |uri: &str| {
            let seen =
                format!(r#"[{{"endpoint":"acme","contacts":[{{"uri":"{uri}","status":"reachable"}}]}}]"#);
            let seen: Vec<EndpointSeen> = serde_json::from_str(&seen).unwrap();
            seen
        };
        let (acme, beta) = ("acme".parse().unwrap(), "beta".parse().unwrap());
        assert!(super::seen(&see("sip:192.0.2.21:5060"), &acme).is_ok());
        assert!(super::seen(&see("sip:carrier.example"), &acme).unwrap_err().text.contains("twice"));
        assert!(
            super::seen(&see("sip:192.0.2.21"), &beta).unwrap_err().text.contains("unknown to this node")
        );
    }

    #[test]
    fn a_name_is_refused_with_the_reason_and_the_remedy() {
        let endpoint: EndpointName = "acme".parse().unwrap();
        assert!(literal("contact", &endpoint, "sip:192.0.2.21:5060").is_ok());
        let finding = literal("contact", &endpoint, "sip:sip.carrier.example").unwrap_err().text;
        assert!(finding.contains("sip.carrier.example") && finding.contains("twice"), "{finding}");
    }
}
