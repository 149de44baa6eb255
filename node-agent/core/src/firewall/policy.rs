//! What the operator wants of the firewall, and the guard against locking him out.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    protected::{Group, Protected, Protection, canonical},
    words::words,
};

/// Networks that a policy may name, over all its lists.
const NETS_MAX: usize = 10_000;
/// Ports and ranges that a policy may name in one list.
const PORTS_MAX: usize = 256;

words! {
    /// Who reaches a service.
    ReachedFrom {
        /// Only carriers, allowed and management networks.
        Known = "known",
        /// Everybody who is not banned.
        Everybody = "everybody",
    }
}

words! {
    /// What becomes of packets that no rule speaks of.
    Others {
        /// Let in: other firewalls may decide.
        Accept = "accept",
        /// Dropped.
        Drop = "drop",
    }
}

/// Packets per second of one source, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Per second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// Ports by protocol: single ones and ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// TCP.
    pub tcp: Vec<u16>,
    /// UDP.
    pub udp: Vec<u16>,
}

/// A carrier's networks, from the fleet's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// Its name.
    pub name: String,
    /// From where it sends SIP.
    pub signalling: Vec<IpNet>,
    /// From where it sends RTP.
    #[serde(default)]
    pub media: Vec<IpNet>,
}

/// The whole policy of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// From where operators reach ssh. Never banned.
    pub management: Vec<IpNet>,
    /// Ports of sshd.
    pub ssh_ports: Vec<u16>,
    /// Replicas of the control plane. Never banned.
    pub control_plane: Vec<IpNet>,
    /// Carriers. Never banned, but held to their own pace.
    pub carriers: Vec<Carrier>,
    /// Other networks that are never banned.
    pub allow: Vec<IpNet>,
    /// This node's own addresses. Never banned.
    pub own: Vec<IpAddr>,
    /// Where Asterisk takes SIP.
    pub sip: Ports,
    /// Who reaches SIP.
    pub sip_from: ReachedFrom,
    /// SIP packets of one source (an IPv4 address or an IPv6 /64).
    pub sip_rate: Rate,
    /// SIP packets of one carrier's address.
    pub carrier_rate: Rate,
    /// First and last port of RTP, as in rtp.conf.
    pub rtp: (u16, u16),
    /// `known`: only carriers' media networks and allowed ones; `everybody`: wants `strictrtp` in rtp.conf.
    pub rtp_from: ReachedFrom,
    /// Ports that everybody reaches.
    pub open: Ports,
    /// Ports that nobody reaches but this host itself. AMI and ARI, always.
    pub closed: Ports,
    /// All other packets to this host.
    pub others: Others,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            management: Vec::new(),
            ssh_ports: vec![22],
            control_plane: Vec::new(),
            carriers: Vec::new(),
            allow: Vec::new(),
            own: Vec::new(),
            sip: Ports { tcp: vec![5060, 5061], udp: vec![5060] },
            sip_from: ReachedFrom::Everybody,
            // A phone sends some 5 packets for a call or a registration; an office of 200 phones behind one
            // address some 20 a second when all register anew within a minute.
            sip_rate: Rate { per_second: 50, burst: 200 },
            // Above what one Asterisk can take: 1,200 calls a second of three packets each.
            carrier_rate: Rate { per_second: 5000, burst: 10_000 },
            rtp: (10_000, 20_000),
            rtp_from: ReachedFrom::Known,
            open: Ports::default(),
            closed: Ports { tcp: vec![5038, 8088, 8089], udp: Vec::new() },
            others: Others::Accept,
        }
    }
}

/// A way in that must stay: an operator's connection of now, for instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// From there.
    pub from: IpAddr,
    /// To this TCP port.
    pub port: u16,
}

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Nobody could reach sshd any more. `force` overrides.
    #[error("no management path is left: {0}")]
    LockOut(String),
    /// It cannot be made into rules.
    #[error("{0}")]
    Wrong(String),
}

impl Policy {
    /// Whether it can be made into rules that leave a way in. `paths` are those that must stay, such as the
    /// operator's own connection.
    ///
    /// # Errors
    /// The first reason against it. A lock-out is none if `force` is set.
    pub fn check(&self, paths: &[Path], force: bool) -> Result<(), InvalidPolicy> {
        self.well_formed().map_err(InvalidPolicy::Wrong)?;
        match self.lock_out(paths) {
            Some(reason) if !force => Err(InvalidPolicy::LockOut(reason)),
            Some(_) | None => Ok(()),
        }
    }

    fn lock_out(&self, paths: &[Path]) -> Option<String> {
        if self.management.is_empty() {
            return Some("management names no network".to_owned());
        }
        if self.ssh_ports.is_empty() {
            return Some("ssh_ports names no port".to_owned());
        }
        if self.management.iter().all(|net| !is_reachable(net)) {
            return Some("management names loopback and link-local networks alone".to_owned());
        }
        let lost = paths.iter().find(|path| !self.lets_in(path));
        lost.map(|path| format!("{} would no longer reach TCP port {}", path.from, path.port))
    }

    /// Whether a new TCP connection along this path is let in, by the order of the rules.
    #[must_use]
    pub fn lets_in(&self, path: &Path) -> bool {
        let from = path.from.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| canonical(*net).contains(&from));
        let known = || within(&self.allow) || self.carriers.iter().any(|carrier| within(&carrier.signalling));
        if from.is_loopback() {
            return true;
        }
        if self.ssh_ports.contains(&path.port) {
            return within(&self.management);
        }
        if self.closed.tcp.contains(&path.port) {
            return false;
        }
        if self.sip.tcp.contains(&path.port) {
            return self.sip_from == ReachedFrom::Everybody || known() || within(&self.management);
        }
        self.open.tcp.contains(&path.port) || self.others == Others::Accept
    }

    /// Whether a change from `old` to here leaves management's way in as it is or wider: the rules are the same, and
    /// only networks differ, of management none fewer. Such a change needs nobody to confirm it.
    #[must_use]
    pub fn keeps_way_in(&self, old: &Self) -> bool {
        let rules = |policy: &Self| {
            let mut bare = policy.clone();
            for nets in [&mut bare.management, &mut bare.control_plane, &mut bare.allow] {
                nets.clear();
            }
            bare.carriers.clear();
            bare.own.clear();
            bare
        };
        let has =
            |net: &IpNet| self.management.iter().any(|wider| canonical(*wider).contains(&canonical(*net)));
        rules(self) == rules(old) && old.management.iter().all(has)
    }

    fn well_formed(&self) -> Result<(), String> {
        let lists = [&self.management, &self.control_plane, &self.allow];
        let of_carriers = self.carriers.iter().flat_map(|carrier| [&carrier.signalling, &carrier.media]);
        let nets: Vec<_> = lists.into_iter().chain(of_carriers).flatten().collect();
        if nets.len() > NETS_MAX {
            return Err(format!("more than {NETS_MAX} networks"));
        }
        if let Some(net) = nets.iter().find(|net| canonical(***net).prefix_len() == 0) {
            return Err(format!("{net} as a network that is never banned would end all protection"));
        }
        let all = [&self.ssh_ports, &self.sip.tcp, &self.sip.udp, &self.open.tcp, &self.open.udp];
        let all = all.into_iter().chain([&self.closed.tcp, &self.closed.udp]);
        if all.clone().any(|ports| ports.len() > PORTS_MAX || ports.contains(&0)) {
            return Err(format!("a list of ports holds port 0 or more than {PORTS_MAX} ports"));
        }
        for (name, a, b) in [
            ("ssh_ports and closed.tcp", &self.ssh_ports, &self.closed.tcp),
            ("sip.tcp and closed.tcp", &self.sip.tcp, &self.closed.tcp),
            ("sip.udp and closed.udp", &self.sip.udp, &self.closed.udp),
            ("open.tcp and closed.tcp", &self.open.tcp, &self.closed.tcp),
            ("open.udp and closed.udp", &self.open.udp, &self.closed.udp),
            ("ssh_ports and open.tcp", &self.ssh_ports, &self.open.tcp),
        ] {
            if let Some(both) = a.iter().find(|port| b.contains(port)) {
                return Err(format!("port {both} is in {name}"));
            }
        }
        let (first, last) = self.rtp;
        if first == 0 || first > last {
            return Err("rtp must be the first and the last port".to_owned());
        }
        let is_rate = |rate: &Rate| rate.per_second > 0 && rate.burst > 0;
        if !is_rate(&self.sip_rate) || !is_rate(&self.carrier_rate) {
            return Err("sip_rate and carrier_rate must be at least 1".to_owned());
        }
        Ok(())
    }

    /// Who is never banned.
    #[must_use]
    pub fn protected(&self) -> Protected {
        let own: Vec<_> = self.own.iter().map(|address| IpNet::from(*address)).collect();
        let carriers: Vec<_> =
            self.carriers.iter().flat_map(|c| c.signalling.iter().chain(&c.media)).copied().collect();
        let groups = [
            (Group::Own, &own),
            (Group::Management, &self.management),
            (Group::ControlPlane, &self.control_plane),
            (Group::Carrier, &carriers),
            (Group::Allow, &self.allow),
        ];
        Protected::new(
            groups
                .into_iter()
                .flat_map(|(group, nets)| nets.iter().map(move |net| Protection { net: *net, group })),
        )
    }
}

fn is_reachable(net: &IpNet) -> bool {
    let local = match canonical(*net) {
        IpNet::V4(v4) => v4.addr().is_loopback(),
        IpNet::V6(v6) => v6.addr().is_loopback() || v6.addr().is_unicast_link_local(),
    };
    !local
}

/// Ports as the fewest ranges, in order.
pub(super) fn ranges(ports: &[u16]) -> Vec<RangeInclusive<u16>> {
    let mut out: Vec<RangeInclusive<u16>> = Vec::new();
    for port in ports.iter().copied().collect::<BTreeSet<_>>() {
        match out.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
            Some(_) | None => out.push(port..=port),
        }
    }
    out
}
