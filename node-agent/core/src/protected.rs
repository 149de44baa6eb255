//! Addresses that are never banned, whatever is told of them: checked when a rule decides, and again when a ban is
//! made, restored, imported or shared.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
    /// Why a network is protected.
    Group {
        /// Loopback, link-local, multicast, unspecified, broadcast.
        Special = "special",
        /// An address of this node.
        Own = "own",
        /// From where operators reach this node.
        Management = "management",
        /// A replica of the control plane.
        ControlPlane = "control_plane",
        /// A carrier's signalling or media.
        Carrier = "carrier",
        /// Allowed by an operator.
        Allow = "allow",
    }
}

/// One protected network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The network.
    pub net: IpNet,
    /// Why.
    pub group: Group,
}

impl std::fmt::Display for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.net, self.group)
    }
}

/// What nobody needs to be told.
const SPECIAL: [&str; 9] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
    "::ffff:127.0.0.0/104",
];

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected(Vec<Protection>);

impl Protected {
    /// These, and what is special anyway. An empty list protects what is special.
    #[must_use]
    pub fn new(protections: impl IntoIterator<Item = Protection>) -> Self {
        let special = SPECIAL.iter().filter_map(|text| text.parse().ok());
        let special = special.map(|net: IpNet| Protection { net, group: Group::Special });
        let given = protections.into_iter().map(|given| Protection { net: canonical(given.net), ..given });
        Self(special.chain(given).collect())
    }

    /// The first protection that this network touches: inside it, equal to it, or around it.
    #[must_use]
    pub fn touched_by(&self, net: &IpNet) -> Option<&Protection> {
        self.0.iter().find(|protection| overlap(&protection.net, net))
    }

    /// The protection of one address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Protection> {
        self.touched_by(&IpNet::from(address.to_canonical()))
    }

    /// All, the special ones first.
    #[must_use]
    pub fn all(&self) -> &[Protection] {
        &self.0
    }
}

impl Default for Protected {
    fn default() -> Self {
        Self::new([])
    }
}

/// Whether two networks have an address in common.
#[must_use]
pub fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Host bits off, and an IPv4 network written inside IPv6 as the IPv4 one that it is.
#[must_use]
pub fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Some(length) = v6.prefix_len().checked_sub(96)
        && let Ok(inside) = IpNet::new(v4.into(), length)
    {
        return inside.trunc();
    }
    net.trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_around_and_equal_are_touched_and_what_is_special_always_is() {
        let office = Protection { net: "198.51.100.7/24".parse().unwrap(), group: Group::Allow };
        let protected = Protected::new([office]);
        let touched = |net: &str| protected.touched_by(&canonical(net.parse().unwrap())).map(|p| p.group);
        for net in
            ["198.51.100.0/24", "198.51.100.9/32", "198.51.0.0/16", "0.0.0.0/0", "::ffff:198.51.100.9/128"]
        {
            assert!(touched(net).is_some(), "{net}");
        }
        assert_eq!(touched("198.51.100.9/32"), Some(Group::Allow));
        assert_eq!(touched("127.0.0.5/32"), Some(Group::Special));
        assert_eq!(touched("fe80::/64"), Some(Group::Special));
        assert_eq!(touched("198.51.101.0/24"), None);
        assert_eq!(touched("2001:db8::/32"), None);
        assert!(Protected::default().of("127.0.0.1".parse().unwrap()).is_some());
    }
}
