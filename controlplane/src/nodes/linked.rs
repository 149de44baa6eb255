//! The way to a node's AMI through its agent's link.

use std::{io, sync::Arc, time::Duration};

use controlplane_core::names::NodeName;
use node_agent_ami::{
    BackOff, Connect, ConnectConfig, ConnectError, Events, Incarnation, Purpose, Secret, Session,
};
use node_agent_protocol::AMI_LINK_USER;

use super::Shared;
use crate::agents::{Links, OpenAmiError};

/// What an operator reads before the agent is here.
const NOT_LINKED: &str = "no agent has joined, and fleet.toml gives no ami address: \
                                     `ringward node token NAME` prints the command for the node";
/// The link is waited for, not asked for: what is left to back off from is an agent that says no.
pub(super) const BACK_OFF: BackOff =
    BackOff { min: Duration::from_millis(100), max: Duration::from_secs(2), refused: Duration::from_secs(5) };
/// An agent links again within moments of this program's start; until then its node is being connected to.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Between two words in the log about a link that does not come.
const LATER_WAIT: Duration = Duration::from_secs(60);

/// How an incarnation ends that was met through a node's gate. It is stored with each attempt: what was sent to
/// it passed the gate, whatever fleet.toml says of the node by now.
const BY_GATE: &str = " by gate";

/// The incarnation as it is known through the gate.
pub(super) fn by_gate(incarnation: &Incarnation) -> Incarnation {
    Incarnation::from_stored(format!("{}{BY_GATE}", incarnation.as_str()))
}

/// Whether what was sent to this incarnation had to pass the node's gate.
pub(crate) fn is_by_gate(sent_to: &str) -> bool {
    sent_to.ends_with(BY_GATE)
}

/// Which run of Asterisk an incarnation is, by whatever way it was reached.
pub(crate) fn run_of(incarnation: &str) -> &str {
    incarnation.strip_suffix(BY_GATE).unwrap_or(incarnation)
}

/// One node's link, as a way to its AMI.
pub(super) struct Linked {
    links: Arc<Links>,
    node: NodeName,
    config: ConnectConfig,
    wait: Duration,
}

impl Linked {
    pub(super) fn new(shared: &Shared, node: &NodeName) -> Self {
        // The gate logs in by itself and takes any secret here.
        let secret = Secret::new(AMI_LINK_USER);
        let mut config =
            ConnectConfig::new(format!("agent of {node}"), AMI_LINK_USER, secret, shared.ids.clone());
        config.events = "call,user,system".to_owned();
        config.purpose = Purpose::Originate;
        super::mind_silence(&mut config);
        Self { links: Arc::clone(&shared.links), node: node.clone(), config, wait: FIRST_WAIT }
    }

    fn unreachable(&self, error: OpenAmiError) -> ConnectError {
        ConnectError::Unreachable { address: self.config.address.clone(), source: io::Error::other(error) }
    }
}

impl Connect for Linked {
    async fn connect(&mut self) -> Result<(Session, Events), ConnectError> {
        let wait = std::mem::replace(&mut self.wait, LATER_WAIT);
        if !self.links.linked(&self.node, wait).await {
            return Err(self.unreachable(OpenAmiError::NotLinked));
        }
        let stream = self.links.open_ami(&self.node).await.map_err(|error| self.unreachable(error))?;
        Session::over(stream, &self.config).await
    }

    fn address(&self) -> &str {
        &self.config.address
    }

    fn purpose(&self) -> Purpose {
        self.config.purpose
    }
}

/// What to tell an operator where it is the link that is missing, and not what is behind it.
pub(super) fn why(error: &ConnectError) -> Option<String> {
    let ConnectError::Unreachable { source, .. } = error else { return None };
    let missing = source.get_ref()?.downcast_ref::<OpenAmiError>()?;
    Some(if *missing == OpenAmiError::NotLinked { NOT_LINKED.to_owned() } else { missing.to_string() })
}
