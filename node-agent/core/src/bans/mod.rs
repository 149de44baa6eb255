//! The life of bans: who made one, why, until when; what may never be banned; what the fleet needs to know of it.
//!
//! [`Bans`] is what this node holds. Every change is answered with a [`Change`], which the shell brings into the
//! kernel's sets; the kernel's own timeouts end bans there. [`share`] tells others what changed since they last
//! asked, [`list`] reads and writes plain CIDR text.
//!
//! Every way in (rules, operators, other nodes, lists, the snapshot after a reboot) goes through the same checks:
//! nothing wider than [`Widths`], never all of a family, nothing that touches who is protected or allowed.

mod book;
mod held;
pub mod list;
mod sample;
pub mod share;

use std::fmt;

pub use book::{Bans, Snapshot};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    moment::UnixMs,
    protected::{Protection, canonical},
    rules::{JailName, Verdict},
};

/// Bans that one node holds at most.
pub const BANS_MAX: usize = 200_000;
/// Allowances that one node holds at most.
pub const ALLOWS_MAX: usize = 10_000;
/// Bytes of a reason, an author, an origin or an evidence.
pub const TEXT_BYTES_MAX: usize = 256;
/// The shortest IPv6 ban: a /64 is one customer.
const V6_HOST: u8 = 64;

/// The widest networks that may be banned, as prefix lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Widths {
    /// IPv4.
    pub v4_prefix_min: u8,
    /// IPv6.
    pub v6_prefix_min: u8,
}

impl Default for Widths {
    /// A /16 is 65,536 IPv4 addresses; an IPv6 /32 is what a provider has.
    fn default() -> Self {
        Self { v4_prefix_min: 16, v6_prefix_min: 32 }
    }
}

/// Who wants it, and why. Texts are cut to [`TEXT_BYTES_MAX`] and freed of control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct By {
    /// The node where the evidence was seen, or where the operator's order came in.
    pub origin: String,
    /// A jail's name, or an operator's.
    pub author: String,
    /// Why, for people.
    pub reason: String,
}

impl By {
    pub(crate) fn tidy(self) -> Self {
        Self { origin: tidy(&self.origin), author: tidy(&self.author), reason: tidy(&self.reason) }
    }
}

fn tidy(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

/// A ban that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// An address or a network.
    pub net: IpNet,
    /// How long from now; `None`: until it is lifted.
    pub seconds: Option<u32>,
    /// Whose.
    pub by: By,
    /// The jail, where rules want it.
    pub jail: Option<JailName>,
}

impl Order {
    /// What the rules decided on node `origin`.
    #[must_use]
    pub fn of(verdict: &Verdict, origin: &str) -> Self {
        Self {
            net: verdict.net,
            seconds: Some(verdict.seconds),
            by: By {
                origin: origin.to_owned(),
                author: format!("jail {}", verdict.jail),
                reason: verdict.to_string(),
            },
            jail: Some(verdict.jail.clone()),
        }
    }
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// One IPv4 address, one IPv6 /64, or a network up to [`Widths`].
    pub net: IpNet,
    /// Whose.
    pub by: By,
    /// The jail, where rules made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jail: Option<JailName>,
    /// Since when.
    pub begins: UnixMs,
    /// Until when; absent: until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<UnixMs>,
    /// This node's count of changes when it was made or last changed.
    pub revision: u64,
}

impl Ban {
    /// What is left of it in seconds, rounded up; `None` without an end; 0 when it is over.
    #[must_use]
    pub fn seconds_left(&self, now: UnixMs) -> Option<u64> {
        self.ends.map(|ends| ends.since_ms(now).div_ceil(1000))
    }

    /// Whether its net is kept in a hash set of addresses (else in an interval set of networks).
    #[must_use]
    pub fn is_single(&self) -> bool {
        is_single(&self.net)
    }
}

/// One IPv4 address or one IPv6 /64.
#[must_use]
pub fn is_single(net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.prefix_len() == 32,
        IpNet::V6(v6) => v6.prefix_len() == V6_HOST,
    }
}

/// A network that an operator allows: no ban may touch it while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The network.
    pub net: IpNet,
    /// Whose.
    pub by: By,
    /// Until when; absent: until it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<UnixMs>,
}

/// What the kernel's sets must follow: first the lifts, then the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Banned: look the ban up for its time.
    pub bans: Vec<IpNet>,
    /// Was banned, and is for longer.
    pub longer: Vec<IpNet>,
    /// Lifted.
    pub lifts: Vec<IpNet>,
}

impl Change {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bans.is_empty() && self.longer.is_empty() && self.lifts.is_empty()
    }

    fn join(&mut self, other: Self) {
        self.bans.extend(other.bans);
        self.longer.extend(other.longer);
        self.lifts.extend(other.lifts);
    }
}

/// Why a ban or an allowance is not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The whole Internet.
    #[error("{0} is everything")]
    Everything(IpNet),
    /// Too wide.
    #[error("{net} is wider than /{prefix_min}")]
    TooWide {
        /// The network.
        net: IpNet,
        /// The widest prefix that may be banned.
        prefix_min: u8,
    },
    /// It touches what must never be banned.
    #[error("{net} touches {by}, which is never banned")]
    Protected {
        /// The network.
        net: IpNet,
        /// What it touches.
        by: Protection,
    },
    /// It touches what an operator allows.
    #[error("{net} touches {allowed}, which an operator allows")]
    Allowed {
        /// The network.
        net: IpNet,
        /// What it touches.
        allowed: IpNet,
    },
    /// A wider ban holds it.
    #[error("{net} is inside {banned}, which is banned for at least as long")]
    Covered {
        /// The network.
        net: IpNet,
        /// The wider ban.
        banned: IpNet,
    },
    /// No time at all.
    #[error("a ban of no seconds")]
    NoTime,
    /// [`BANS_MAX`] or [`ALLOWS_MAX`].
    #[error("{0} entries are held, and no more can be")]
    Full(usize),
    /// No such ban or allowance.
    #[error("{0} is not there")]
    Absent(IpNet),
}

/// What holds for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Banned, by this.
    Banned(Ban),
    /// Not banned; this would refuse a ban.
    Protected(Protection),
    /// Not banned; an operator allows it.
    Allowed(Allow),
    /// Not banned, and nothing would refuse a ban.
    Free,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Banned(ban) => {
                write!(
                    f,
                    "banned as {} by {} on {}: {}",
                    ban.net, ban.by.author, ban.by.origin, ban.by.reason
                )
            }
            Self::Protected(by) => write!(f, "not banned: {by} protects it"),
            Self::Allowed(allow) => {
                write!(f, "not banned: {} is allowed by {}: {}", allow.net, allow.by.author, allow.by.reason)
            }
            Self::Free => f.write_str("not banned"),
        }
    }
}

/// The net as it is counted: host bits off, IPv6 no narrower than /64.
#[must_use]
pub fn counted(net: IpNet) -> IpNet {
    match canonical(net) {
        IpNet::V6(v6) if v6.prefix_len() > V6_HOST => {
            ipnet::Ipv6Net::new(v6.addr(), V6_HOST).map_or(IpNet::V6(v6), |host| IpNet::V6(host.trunc()))
        }
        IpNet::V4(v4) => IpNet::V4(v4),
        IpNet::V6(v6) => IpNet::V6(v6),
    }
}

#[cfg(test)]
#[path = "bans_tests.rs"]
mod bans_tests;
