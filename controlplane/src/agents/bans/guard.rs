//! What may be banned in the fleet. Every node looks again with its own eyes.

use ipnet::IpNet;
use node_agent_core::{
    bans::{Refusal, Widths, counted},
    protected::{Protected, overlap},
};

/// What is looked at.
pub(super) struct Guard<'a> {
    pub(super) widths: Widths,
    pub(super) protected: &'a Protected,
    /// What operators allow.
    pub(super) allowed: &'a [IpNet],
}

impl Guard<'_> {
    /// The network as it is counted, if it may be banned.
    pub(super) fn admit(&self, net: IpNet) -> Result<IpNet, Refusal> {
        let net = counted(net);
        let prefix_min = match net {
            IpNet::V4(_) => self.widths.v4_prefix_min,
            IpNet::V6(_) => self.widths.v6_prefix_min,
        };
        if net.prefix_len() == 0 {
            return Err(Refusal::Everything(net));
        }
        if net.prefix_len() < prefix_min {
            return Err(Refusal::TooWide { net, prefix_min });
        }
        if let Some(by) = self.protected.touched_by(&net) {
            return Err(Refusal::Protected { net, by: *by });
        }
        match self.allowed.iter().find(|allowed| overlap(allowed, &net)) {
            Some(allowed) => Err(Refusal::Allowed { net, allowed: *allowed }),
            None => Ok(net),
        }
    }
}

#[cfg(test)]
mod tests {
    use node_agent_core::protected::{Group, Protection};

    use super::*;

    #[test]
    fn nothing_wide_nothing_protected_and_nothing_allowed_is_banned() {
        let of = |text: &str, group| Protection { net: text.parse().unwrap(), group };
        let protected = Protected::new([
            of("192.0.2.0/24", Group::Carrier),
            of("198.51.100.0/28", Group::Management),
            of("2001:db8:1::1/128", Group::ControlPlane),
        ]);
        let allowed = ["203.0.113.64/26".parse().unwrap()];
        let guard = Guard { widths: Widths::default(), protected: &protected, allowed: &allowed };
        for (text, says) in [
            ("0.0.0.0/0", "everything"),
            ("::/0", "everything"),
            ("::ffff:0.0.0.0/96", "everything"),
            ("203.0.0.0/15", "wider than /16"),
            ("2001::/31", "wider than /32"),
            ("192.0.2.77/32", "(carrier)"),
            ("192.0.0.0/16", "(carrier)"),
            ("198.51.100.3/32", "(management)"),
            ("2001:db8:1::7/128", "(control_plane)"),
            ("127.0.0.1/32", "(special)"),
            ("203.0.113.65/32", "an operator allows"),
            ("203.0.113.0/24", "an operator allows"),
        ] {
            let refused = guard.admit(text.parse().unwrap()).unwrap_err().to_string();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        for (text, net) in [
            ("203.0.113.9/32", "203.0.113.9/32"),
            ("203.0.113.9/28", "203.0.113.0/28"),
            ("2001:db8:66::5/128", "2001:db8:66::/64"),
        ] {
            assert_eq!(guard.admit(text.parse().unwrap()).unwrap().to_string(), net);
        }
    }
}
