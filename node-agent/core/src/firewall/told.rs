//! A policy in words, for who looks at a node from far away: a line for each service, with counts instead of networks.

use super::policy::{Others, Policy, Ports, ReachedFrom, ranges};

/// Most lines.
const LINES_MAX: usize = 16;
/// Carriers that a line names; further ones are counted.
const CARRIERS_NAMED: usize = 6;
/// Ranges of ports that a line names; further ones are counted.
const RANGES_NAMED: usize = 8;

fn numbers(protocol: &str, ports: &[u16]) -> Option<String> {
    let ranges = ranges(ports);
    let named: Vec<String> = ranges
        .iter()
        .take(RANGES_NAMED)
        .map(|range| match range.start() == range.end() {
            true => range.start().to_string(),
            false => format!("{}-{}", range.start(), range.end()),
        })
        .collect();
    let more = ranges.len().saturating_sub(RANGES_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("{protocol} {}{more}", named.join(", ")))
}

fn of(ports: &Ports) -> Option<String> {
    let both: Vec<_> =
        [numbers("udp", &ports.udp), numbers("tcp", &ports.tcp)].into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

fn networks(count: usize) -> String {
    if count == 1 { "1 network".to_owned() } else { format!("{count} networks") }
}

impl Policy {
    fn carriers_told(&self, nets: impl Fn(&super::Carrier) -> usize) -> String {
        let named: Vec<String> = self
            .carriers
            .iter()
            .take(CARRIERS_NAMED)
            .map(|carrier| format!("{} ({})", carrier.name, nets(carrier)))
            .collect();
        let more = self.carriers.len().saturating_sub(CARRIERS_NAMED);
        match (named.is_empty(), more) {
            (true, _) => "no carrier".to_owned(),
            (false, 0) => named.join(", "),
            (false, more) => format!("{} and {more} more", named.join(", ")),
        }
    }

    /// What it lets in from where, in the order of the rules.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ssh) = numbers("tcp", &self.ssh_ports) {
            lines.push(format!("ssh, {ssh}: from management ({}) alone", networks(self.management.len())));
        }
        if let Some(closed) = of(&self.closed) {
            lines.push(format!("{closed}: from this host alone"));
        }
        if let Some(sip) = of(&self.sip) {
            let carriers = self.carriers_told(|carrier| carrier.signalling.len());
            let others = match self.sip_from {
                ReachedFrom::Everybody => format!(
                    "; from everybody else {} packets a second, {} at once",
                    self.sip_rate.per_second, self.sip_rate.burst
                ),
                ReachedFrom::Known => "; from nobody else but allowed and management networks".to_owned(),
            };
            lines.push(format!("SIP, {sip}: from {carriers}{others}"));
        }
        let (first, last) = self.rtp;
        let from = match self.rtp_from {
            ReachedFrom::Everybody => "everybody".to_owned(),
            ReachedFrom::Known => self.carriers_told(|carrier| carrier.media.len()),
        };
        lines.push(format!("RTP, udp {first}-{last}: from {from}"));
        if let Some(open) = of(&self.open) {
            lines.push(format!("{open}: from everybody who is not banned"));
        }
        lines.push(match self.others {
            Others::Accept => "All else: let in, unless banned".to_owned(),
            Others::Drop => "All else: dropped".to_owned(),
        });
        lines.push(format!(
            "Never banned besides: control planes ({}), allowed ({})",
            networks(self.control_plane.len()),
            networks(self.allow.len())
        ));
        lines.truncate(LINES_MAX);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Carrier;

    #[test]
    fn a_policy_is_told_in_few_and_short_lines() {
        let nets = |count: u8| (0..count).map(|n| format!("192.0.2.{n}/32").parse().unwrap()).collect();
        let carrier = |n: u8| Carrier { name: format!("carrier-{n}"), signalling: nets(2), media: nets(1) };
        let mut policy =
            Policy { management: nets(1), carriers: vec![carrier(1), carrier(2)], ..Policy::default() };
        assert_eq!(
            policy.told(),
            [
                "ssh, tcp 22: from management (1 network) alone",
                "tcp 5038, 8088-8089: from this host alone",
                "SIP, udp 5060 and tcp 5060-5061: from carrier-1 (2), carrier-2 (2); from everybody else 50 packets a \
                 second, 200 at once",
                "RTP, udp 10000-20000: from carrier-1 (1), carrier-2 (1)",
                "All else: let in, unless banned",
                "Never banned besides: control planes (0 networks), allowed (0 networks)",
            ]
        );
        policy.carriers = (0..100).map(carrier).collect();
        policy.open.udp = (1..=256).map(|n| n * 2).collect();
        (policy.sip_from, policy.others) = (ReachedFrom::Known, Others::Drop);
        let lines = policy.told();
        assert!(lines.len() <= LINES_MAX && lines.iter().all(|line| line.len() < 300), "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("and 94 more; from nobody else but")), "{lines:?}");
    }
}
