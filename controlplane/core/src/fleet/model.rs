//! The entries of `fleet.toml`, one struct per table. Defaults are the file's.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::field::{
    AmiAddress, AmiUsername, CountryCode, NumberPrefix, RoutePrefix, absolute_folder, bounded,
    bounded_option, networks,
};
use crate::{
    call::{UnknownWord, words},
    ending::EarlyMedia,
    names::{CarrierName, EndpointName, ManagementName, NodeName, RegionName, TrunkName},
    number::{E164, NumberFormat, dialled},
};

/// A SIP provider's account, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// Its name.
    pub name: CarrierName,
    /// Where its SIP comes from. The firewall is rendered from these.
    #[serde(default, deserialize_with = "networks")]
    pub signalling: Vec<IpNet>,
    /// Where its RTP comes from. The firewall is rendered from these.
    #[serde(default, deserialize_with = "networks")]
    pub media: Vec<IpNet>,
    /// Call starts per second over all its trunks; absent: no limit beyond the trunks'.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded_option::<_, 1, 10_000>"
    )]
    pub cps_max: Option<u32>,
    /// Channels at a time over all its trunks; absent: no limit beyond the trunks'.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded_option::<_, 1, 1_000_000>"
    )]
    pub channels_max: Option<u32>,
}

/// A PBX host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The place whose nodes tend to fail together; `default` where none is named.
    #[serde(default = "region_default")]
    pub region: RegionName,
    /// Its AMI, for a node without an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami: Option<Ami>,
    /// The folder from which its Asterisk plays `ringward/…`, as the control plane's host reaches it: the same machine,
    /// or a share. For a node without an agent, which puts sounds there by itself; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "absolute_folder")]
    pub audio_folder: Option<PathBuf>,
    /// After how many ms without any answer its Asterisk gives an INVITE up (RFC 3261 section 17.1.1.2,
    /// Timer B): 64 × `timer_t1` of its pjsip.conf, whose least value of 100 ms is the default here. Must be
    /// what that Asterisk does, since it tells a silent carrier from a late one.
    #[serde(default = "timer_b_ms_default", deserialize_with = "bounded::<_, 500, 120_000>")]
    pub timer_b_ms: u32,
}

/// A node's AMI as the control plane reaches it without an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ami {
    /// Where it listens.
    pub address: AmiAddress,
    /// The user that places calls.
    pub username: AmiUsername,
    /// The file with its secret, on the control plane's host; relative to the data directory.
    pub secret_file: PathBuf,
    /// Whether TLS is spoken (port 5039 by custom).
    #[serde(default)]
    pub tls: bool,
    /// The user that reads security events; absent: they are not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<AmiLogin>,
}

/// A further AMI user of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmiLogin {
    /// The user.
    pub username: AmiUsername,
    /// The file with its secret, on the control plane's host; relative to the data directory.
    pub secret_file: PathBuf,
}

words! {
    /// Where a trunk's INVITE carries the caller id.
    CallerIdIn {
        /// From
        From = "from",
        /// P-Asserted-Identity (RFC 3325)
        Pai = "pai",
        /// P-Preferred-Identity (RFC 3325)
        Ppi = "ppi",
    }
}

words! {
    /// What follows an answer that speaks for the callee, or for the carrier that misuses it.
    OnRefusal {
        /// The callee said so: no failover.
        Stop = "stop",
        /// This carrier also says so for failures of its own: try another trunk.
        Other = "other",
    }
}

words! {
    /// What a canary shall meet.
    CanaryExpects {
        /// The number is answered.
        Answered = "answered",
        /// It rings; the canary hangs up then.
        Rings = "rings",
        /// It is busy.
        Busy = "busy",
    }
}

/// A short call that Ringward places over a trunk by itself, to a number that the operator owns: a carrier
/// can answer OPTIONS and drop every INVITE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Whom to phone.
    pub number: E164,
    /// Time between two, in s; each is moved by up to a tenth of it, so that trunks do not call at once.
    #[serde(default = "canary_interval_s_default", deserialize_with = "bounded::<_, 10, 86_400>")]
    pub interval_s: u32,
    /// What it shall meet.
    #[serde(default = "canary_expects_default")]
    pub expects: CanaryExpects,
}

/// One carrier account as configured on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its name.
    pub name: TrunkName,
    /// The node that it is configured on.
    pub node: NodeName,
    /// The carrier that it leads to.
    pub carrier: CarrierName,
    /// Its PJSIP endpoint on that node.
    pub endpoint: EndpointName,
    /// How the carrier wants numbers.
    #[serde(default)]
    pub number_format: NumberFormat,
    /// Digits before every number.
    #[serde(default)]
    pub number_prefix: NumberPrefix,
    /// The country whose numbers are dialled in their national form; needed for `national` alone.
    #[serde(default)]
    pub country_code: CountryCode,
    /// What it may present as caller; empty: anything the org may use.
    #[serde(default)]
    pub caller_ids: Vec<E164>,
    /// Where the INVITE carries the caller id.
    #[serde(default = "caller_id_in_default")]
    pub caller_id_in: CallerIdIn,
    /// What a 183 means here.
    #[serde(default = "early_media_default")]
    pub early_media: EarlyMedia,
    /// What follows 480 Temporarily Unavailable.
    #[serde(default = "on_refusal_default")]
    pub on_480: OnRefusal,
    /// What follows 603 Decline.
    #[serde(default = "on_refusal_default")]
    pub on_603: OnRefusal,
    /// Call starts per second.
    #[serde(default = "cps_max_default", deserialize_with = "bounded::<_, 1, 1_000>")]
    pub cps_max: u32,
    /// Channels at a time.
    #[serde(default = "channels_max_default", deserialize_with = "bounded::<_, 1, 100_000>")]
    pub channels_max: u32,
    /// Its share of the calls of a tier, against the weights of the others.
    #[serde(default = "weight_default", deserialize_with = "bounded::<_, 1, 100>")]
    pub weight: u32,
    /// Its canary; absent: only customers' calls and OPTIONS tell of its health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

impl Trunk {
    /// Whether it may present `caller`, as far as the trunk is asked.
    #[must_use]
    pub fn may_present(&self, caller: &E164) -> bool {
        self.caller_ids.is_empty() || self.caller_ids.contains(caller)
    }

    /// `to` as this trunk dials it.
    #[must_use]
    pub fn dialled(&self, to: &E164) -> String {
        dialled(to, self.number_format, self.number_prefix.as_str(), self.country_code.as_str())
    }
}

/// The trunks for the numbers with one prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What the numbers begin with. Of several routes the longest prefix counts, alone.
    pub prefix: RoutePrefix,
    /// Lists of trunks: a later one is used when no trunk of the earlier ones can take the call now.
    pub tiers: Vec<Vec<TrunkName>>,
}

/// From where operators reach nodes, as an office or a bastion. Never banned, and what confirms a change of the
/// firewall comes from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Management {
    /// Its name.
    pub name: ManagementName,
    /// Its networks.
    #[serde(deserialize_with = "networks")]
    pub networks: Vec<IpNet>,
    /// The nodes that are reached from there; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeName>,
}

#[allow(clippy::expect_used, reason = "a constant; any test of this file would fail")]
fn region_default() -> RegionName {
    "default".parse().expect("a name")
}

const fn timer_b_ms_default() -> u32 {
    6_400
}

const fn caller_id_in_default() -> CallerIdIn {
    CallerIdIn::From
}

const fn early_media_default() -> EarlyMedia {
    EarlyMedia::Maybe
}

const fn on_refusal_default() -> OnRefusal {
    OnRefusal::Stop
}

const fn cps_max_default() -> u32 {
    10
}

const fn channels_max_default() -> u32 {
    30
}

const fn weight_default() -> u32 {
    1
}

const fn canary_interval_s_default() -> u32 {
    300
}

const fn canary_expects_default() -> CanaryExpects {
    CanaryExpects::Answered
}
