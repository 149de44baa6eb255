//! What an agent sees of its node: whole, at every change and every [`crate::HEARTBEAT`].
//!
//! Times are ages, by the sender's steady clock: the two wall clocks may be minutes apart.

use controlplane_core::names::EndpointName;
use serde::{Deserialize, Serialize};

use crate::{List, Text};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observations {
    /// Grows with each snapshot of one link; a smaller one than the last is ignored.
    pub revision: u64,
    /// How long before its sending the snapshot was taken, in ms.
    #[serde(default)]
    pub taken_ms_ago: u64,
    /// The node's wall clock at sending, in ms since 1970: the control plane computes how far apart they are.
    pub sent_at_unix_ms: i64,
    /// The agent's own session to its Asterisk.
    pub ami: AmiState,
    /// What that Asterisk says of itself; absent while it does not answer.
    #[serde(default)]
    pub asterisk: Option<Asterisk>,
    /// Every PJSIP endpoint, declared as a trunk or not, by name.
    #[serde(default)]
    pub endpoints: List<EndpointSeen, 512>,
    /// What is amiss with its trunks now, each with its remedy.
    #[serde(default)]
    pub findings: List<FindingSeen, 64>,
    /// Endpoints beyond the bound, or with names that can be no trunk's.
    #[serde(default)]
    pub endpoints_left_out: u32,
    /// The host.
    #[serde(default)]
    pub host: Host,
    /// What passed the gate.
    #[serde(default)]
    pub gate: GateCounts,
    /// What waits to be acknowledged.
    #[serde(default)]
    pub spool: Spool,
    /// When the agent's certificate ends, in s since 1970, by its own text.
    #[serde(default)]
    pub certificate_expires_unix_s: Option<i64>,
    /// The policy that is in force at the gate; 0 before the first.
    #[serde(default)]
    pub policy_revision: u64,
    /// How its firewall stands; absent from an agent that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Box<FirewallSeen>>,
}

/// How a node's firewall stands. What became of its changes is told by facts ([`crate::fact_kind::FIREWALL`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallSeen {
    /// In a word.
    pub state: FirewallState,
    /// Why, for people.
    #[serde(default)]
    pub reason: Text<300>,
    /// Of a change on trial: its name, by which an operator on the node confirms it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Text<64>>,
    /// Of a change on trial: when it is reverted, in ms from the snapshot's sending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_in_ms: Option<u64>,
    /// What the rules let in from where, a line each.
    #[serde(default)]
    pub plan: List<Text<300>, 16>,
}

/// A firewall's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirewallState {
    /// The node's settings say that it is none of ours.
    Off,
    /// The settings say that it only tells what it would do.
    Simulate,
    /// There is no policy that can be used.
    Waiting,
    /// New rules stand, and somebody is to confirm them.
    OnTrial,
    /// The rules are confirmed.
    InForce,
    /// Newer rules were not confirmed: the former ones stand.
    Reverted,
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

impl FirewallState {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Simulate => "simulate",
            Self::Waiting => "waiting",
            Self::OnTrial => "on_trial",
            Self::InForce => "in_force",
            Self::Reverted => "reverted",
            Self::Unknown => "unknown",
        }
    }
}

/// The agent's session to its Asterisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AmiState {
    /// Logged in.
    Up {
        /// Round trip of the last ping, in µs.
        #[serde(default)]
        ping_rtt_us: Option<u64>,
    },
    /// Not.
    Down {
        /// Why, and what to do where that is known.
        reason: Text<300>,
    },
    /// A state of a newer version.
    #[serde(other)]
    Unknown,
}

/// One run of Asterisk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asterisk {
    /// As it says, for example `22.10.1`.
    pub version: Text<80>,
    /// What tells this run from any other; compared for equality only (`node_agent_ami::Incarnation` as text).
    pub incarnation: Text<80>,
    /// Whether all its modules are loaded.
    #[serde(default)]
    pub fully_booted: bool,
    /// For how long it has run, in s, if known.
    #[serde(default)]
    pub up_s: Option<u64>,
}

/// A PJSIP endpoint as Asterisk has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSeen {
    /// Its name.
    pub endpoint: EndpointName,
    /// Channels in use on it, whoever made them.
    #[serde(default)]
    pub channels: u32,
    /// Its contacts, over all its AORs.
    #[serde(default)]
    pub contacts: List<Contact, 16>,
    /// Its outbound registration; absent where it has none.
    #[serde(default)]
    pub registration: Option<Registration>,
}

/// One thing that is amiss. (That it came up and went is told by facts.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingSeen {
    /// What kind, a stable word such as `endpoint_missing`.
    pub finding: Text<64>,
    /// The endpoint or registration.
    pub subject: Text<256>,
    /// What to do about it.
    pub fix: Text<300>,
}

/// A contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Where to.
    pub uri: Text<256>,
    /// What qualify says.
    pub status: ContactStatus,
    /// Round trip of the last answered OPTIONS, in µs.
    #[serde(default)]
    pub qualify_rtt_us: Option<u64>,
    /// For how long the status has been this, in ms.
    #[serde(default)]
    pub since_ms: u64,
}

/// A contact's status, in Asterisk's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContactStatus {
    /// Answers OPTIONS.
    Reachable,
    /// Does not.
    Unreachable,
    /// Is not asked (`qualify_frequency=0`).
    NonQualified,
    /// Is there, and not yet asked; or a status of a newer version.
    #[serde(other)]
    Unknown,
}

/// An outbound registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its section in pjsip.conf.
    pub name: Text<80>,
    /// How it stands.
    pub status: RegistrationStatus,
    /// For how long the status has been this, in ms.
    #[serde(default)]
    pub since_ms: u64,
}

/// How a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationStatus {
    /// Accepted.
    Registered,
    /// Not now; Asterisk tries again.
    Unregistered,
    /// Refused by the carrier.
    Rejected,
    /// Asterisk has given up: it has to be told to register again.
    Stopped,
    /// A status of a newer version.
    #[serde(other)]
    Unknown,
}

/// The host under the PBX. What the agent cannot read is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Host {
    /// Load average over one minute, in thousandths.
    #[serde(default)]
    pub load_1m_milli: Option<u64>,
    /// Processors.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Memory in all, in bytes.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Memory that can be had, in bytes.
    #[serde(default)]
    pub memory_available_bytes: Option<u64>,
    /// Free on the file system of Asterisk's spool, in bytes.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// What the host itself takes for its clock's error, in µs.
    #[serde(default)]
    pub clock_offset_us: Option<i64>,
    /// Ports of the RTP range.
    #[serde(default)]
    pub rtp_ports: Option<u32>,
    /// Of these, in use.
    #[serde(default)]
    pub rtp_ports_in_use: Option<u32>,
}

/// What passed the gate since the agent's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GateCounts {
    /// Originates that were let through.
    #[serde(default)]
    pub originates_admitted: u64,
    /// Originates refused for a trunk's or the node's limit.
    #[serde(default)]
    pub originates_over_limit: u64,
    /// Actions refused because nobody may ask for them.
    #[serde(default)]
    pub actions_refused: u64,
    /// Channels of ours that live now.
    #[serde(default)]
    pub channels: u32,
    /// AMI streams open now.
    #[serde(default)]
    pub streams: u32,
}

/// Facts on the node that wait to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spool {
    /// How many.
    #[serde(default)]
    pub facts: u64,
    /// Of those that did not fit, how many were lost since the agent's start.
    #[serde(default)]
    pub lost: u64,
    /// Age of the oldest, in ms.
    #[serde(default)]
    pub oldest_ms: u64,
}
