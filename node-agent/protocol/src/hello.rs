//! The beginning of a link: who speaks, which versions, and what either side can do.

use std::collections::BTreeSet;

use controlplane_core::names::NodeName;
use serde::{Deserialize, Serialize};

use crate::{Asterisk, List, Text};

/// The version of the protocol that this crate writes.
pub const PROTOCOL: u16 = 1;
/// The oldest version that this crate still reads.
pub const PROTOCOL_OLDEST: u16 = 1;

/// What a side can do beyond the protocol's first version. What the other side lacks is shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// The agent carries AMI streams, as a gate.
    Ami,
    /// The gate remembers attempts and answers `bar`.
    Bar,
    /// This Asterisk says the SIP answer in `TechCause` (20.17, 22.7 and newer).
    TechCause,
    /// The agent reports facts and keeps them until they are acknowledged.
    Facts,
    /// Of an agent: collects evidence of attacks and keeps bans in nftables. Of a control plane: shares bans in the fleet.
    Hardening,
    /// The agent places audio files on the node.
    Audio,
    /// Of an agent: removes flight records of settled attempts. Of a control plane: tells which are.
    Records,
    /// A capability of a newer version.
    #[serde(other)]
    Unknown,
}

impl Capability {
    /// What this version of the control plane can use.
    pub const USED: [Self; 7] =
        [Self::Ami, Self::Bar, Self::TechCause, Self::Facts, Self::Hardening, Self::Audio, Self::Records];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ami => "ami",
            Self::Bar => "bar",
            Self::TechCause => "tech_cause",
            Self::Facts => "facts",
            Self::Hardening => "hardening",
            Self::Audio => "audio",
            Self::Records => "records",
            Self::Unknown => "unknown",
        }
    }
}

/// A set of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(List<Capability, 64>);

impl Capabilities {
    /// These.
    pub fn of(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        let set: BTreeSet<_> = capabilities.into_iter().collect();
        Self(List::first(set))
    }

    /// Whether `capability` is among them.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// Of `wanted`, those that are not among them.
    #[must_use]
    pub fn lacking(&self, wanted: &[Capability]) -> Vec<Capability> {
        wanted.iter().copied().filter(|c| !self.has(*c)).collect()
    }
}

/// The agent's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that it writes.
    pub protocol: u16,
    /// The oldest version that it reads; absent: `protocol`.
    #[serde(default)]
    pub protocol_oldest: Option<u16>,
    /// Its own version, as `0.1.0`.
    pub agent_version: Text<40>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Its node. Must be the one that its certificate names.
    pub node: NodeName,
    /// Random, new at each start of the agent: what the gate remembers of attempts begins with it.
    pub incarnation: Text<64>,
    /// The Asterisk beside it, if it answers.
    #[serde(default)]
    pub asterisk: Option<Asterisk>,
}

impl Hello {
    /// Whether both sides have a version in common.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        let oldest = self.protocol_oldest.unwrap_or(self.protocol);
        self.protocol >= PROTOCOL_OLDEST && oldest <= PROTOCOL
    }
}

/// The control plane's first message, where it takes the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that it writes on this link: never newer than the agent reads.
    pub protocol: u16,
    /// Its own version, as `0.1.0`.
    pub control_plane_version: Text<40>,
    /// What it uses and the agent lacks, for the agent's log and `status`.
    #[serde(default)]
    pub lacking: Capabilities,
    /// What the control plane can do beyond the protocol's first version.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// Why the control plane does not take, or ends, a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No version in common: update the older side.
    Protocol,
    /// The hello names another node than the certificate.
    WrongNode,
    /// The node is not declared in fleet.toml (any more). Worth asking again, slowly.
    UnknownNode,
    /// The certificate was revoked: join again with a new token.
    Revoked,
    /// The certificate of this connection has ended: connect with the next one, or join again.
    CertificateExpired,
    /// Another link of this node took its place: two agents with one certificate, or a link that lingered.
    Replaced,
    /// More, or other, than the protocol allows.
    Violation,
    /// The control plane stops; another replica, or the next start, takes the link.
    Stopping,
    /// A reason of a newer version.
    #[serde(other)]
    Unknown,
}

/// The control plane's last message on a link that it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For the program.
    pub code: RefusalCode,
    /// For people.
    pub detail: Text<300>,
}
