//! The table that a policy comes to, and the scripts that bring it about.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{
    elements::{Batch, SINGLE_SETS_SIZE},
    policy::{Others, Policy, ReachedFrom, ranges},
    rule::{Family, Match, Protocol, Rule, Verdict},
};
use crate::{bans::Ban, moment::UnixMs, protected::canonical};

/// The only table that is ever written.
pub const TABLE: &str = "inet ringward";
/// A source's pace is forgotten after so many seconds without a packet.
const PACE_S: u32 = 60;
/// Sources whose pace is kept; further ones pass, and their bans still hold.
const PACE_SOURCES: u32 = 65_535;
/// Who connected to ssh is noted for so long: a handshake takes less.
const KNOCK_S: u32 = 60;
/// Connections to ssh that are noted at a time.
const KNOCKS: u32 = 4096;
/// The rule that counts packets of connections from management to ssh whose very beginning came under these rules.
pub const HANDSHAKES: &str = "ssh handshakes from management";
/// ICMP that asks something of this host.
const PING: super::Rate = super::Rate { per_second: 50, burst: 100 };

const ICMP4: &[&str] = &["destination-unreachable", "time-exceeded", "parameter-problem"];
/// Without neighbour discovery and path MTU there is no IPv6.
const ICMP6: &[&str] = &[
    "destination-unreachable",
    "packet-too-big",
    "time-exceeded",
    "parameter-problem",
    "mld-listener-query",
    "nd-router-advert",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Networks of the policy.
    Nets,
    /// Bans of single addresses, with timeouts.
    BannedSingles,
    /// Bans of networks, with timeouts.
    BannedNets,
    /// What the kernel notes of sources' pace.
    Pace,
    /// What the kernel notes of connections to ssh.
    Knocks,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) family: Family,
    pub(super) holds: Holds,
    /// Of [`Holds::Nets`], aggregated.
    pub(super) nets: Vec<IpNet>,
}

impl Set {
    /// The types of an element's parts.
    pub(super) fn types(&self) -> &'static [&'static str] {
        match (self.family, self.holds == Holds::Knocks) {
            (Family::V4, false) => &["ipv4_addr"],
            (Family::V6, false) => &["ipv6_addr"],
            (Family::V4, true) => &["ipv4_addr", "inet_service"],
            (Family::V6, true) => &["ipv6_addr", "inet_service"],
        }
    }

    fn spec(&self) -> String {
        let rest = match self.holds {
            Holds::Nets => "flags interval;".to_owned(),
            Holds::BannedSingles => format!("flags timeout; size {SINGLE_SETS_SIZE};"),
            Holds::BannedNets => "flags interval,timeout;".to_owned(),
            Holds::Pace => format!("flags dynamic,timeout; timeout {PACE_S}s; size {PACE_SOURCES};"),
            Holds::Knocks => format!("flags dynamic,timeout; timeout {KNOCK_S}s; size {KNOCKS};"),
        };
        format!("type {}; {rest}", self.types().join(" . "))
    }

    /// Flags (`dynamic` is not listed by nft 1.0.6), size and timeout, as `nft -j list` writes them.
    pub(super) fn listed(&self) -> (&'static [&'static str], Option<u32>, Option<u32>) {
        match self.holds {
            Holds::Nets => (&["interval"], None, None),
            Holds::BannedSingles => (&["timeout"], Some(SINGLE_SETS_SIZE), None),
            Holds::BannedNets => (&["interval", "timeout"], None, None),
            Holds::Pace => (&["timeout"], Some(PACE_SOURCES), Some(PACE_S)),
            Holds::Knocks => (&["timeout"], Some(KNOCKS), Some(KNOCK_S)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: &'static str,
    pub(super) priority: i32,
    pub(super) policy: &'static str,
    pub(super) rules: Vec<Rule>,
}

/// One table, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) sets: Vec<Set>,
    pub(super) chains: Vec<Chain>,
}

fn rule(purpose: &str, matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule { purpose: purpose.to_owned(), matches, verdict }
}

/// The same rule for both families, where it looks at the source.
fn both(purpose: &str, matches: impl Fn(Family) -> Vec<Match>, verdict: Verdict) -> [Rule; 2] {
    [Family::V4, Family::V6].map(|family| rule(purpose, matches(family), verdict))
}

fn from(set: &str, family: Family) -> Match {
    Match::From(family, format!("{set}{}", family.digit()))
}

fn single(set: &str, family: Family) -> Match {
    Match::FromSingle(family, format!("{set}{}", family.digit()))
}

/// One match for each protocol that has ports here.
fn services(ports: &super::Ports) -> impl Iterator<Item = Match> {
    let both = [(Protocol::Udp, ranges(&ports.udp)), (Protocol::Tcp, ranges(&ports.tcp))];
    both.into_iter()
        .filter(|(_, ranges)| !ranges.is_empty())
        .map(|(protocol, ranges)| Match::To(protocol, ranges))
}

impl Plan {
    /// What the policy comes to. The policy is to be checked before.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self { sets: sets(policy), chains: vec![early(policy), input(policy)] }
    }

    /// Brings rules and the policy's networks about and leaves the sets of bans alone. Works where the table is
    /// absent, or of this form; a set of another form makes the kernel refuse it all.
    #[must_use]
    pub fn refresh(&self) -> String {
        let mut out = format!("add table {TABLE}\n");
        self.write(&mut out);
        out
    }

    /// Makes the whole table anew, with these bans and what is left of their time.
    #[must_use]
    pub fn replace<'a>(&self, bans: impl IntoIterator<Item = &'a Ban>, now: UnixMs) -> String {
        // Deleting wants it to be there.
        let mut out = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
        self.write(&mut out);
        let mut batch = Batch::new();
        for ban in bans {
            batch.ban(ban, now);
        }
        out.push_str(&batch.script());
        out
    }

    fn write(&self, out: &mut String) {
        for set in &self.sets {
            let name = &set.name;
            let _ = writeln!(out, "add set {TABLE} {name} {{ {} }}", set.spec());
            // What was noted under other rules proves nothing under these.
            if set.holds == Holds::Nets || set.holds == Holds::Knocks {
                let _ = writeln!(out, "flush set {TABLE} {name}");
            }
            if set.holds == Holds::Nets {
                let nets: Vec<_> = set.nets.iter().map(ToString::to_string).collect();
                if !nets.is_empty() {
                    let _ = writeln!(out, "add element {TABLE} {name} {{ {} }}", nets.join(", "));
                }
            }
        }
        for chain in &self.chains {
            let Chain { name, hook, priority, policy, rules } = chain;
            let _ = writeln!(
                out,
                "add chain {TABLE} {name} {{ type filter hook {hook} priority {priority}; policy {policy}; }}\n\
                 flush chain {TABLE} {name}"
            );
            for rule in rules {
                let _ = writeln!(out, "add rule {TABLE} {name} {rule}");
            }
        }
    }
}

fn sets(policy: &Policy) -> Vec<Set> {
    let carriers = |nets: fn(&super::Carrier) -> &Vec<IpNet>| -> Vec<IpNet> {
        policy.carriers.iter().flat_map(nets).copied().collect()
    };
    let signalling = carriers(|carrier| &carrier.signalling);
    let media = carriers(|carrier| &carrier.media);
    let allowed = [policy.control_plane.as_slice(), &policy.allow, &media].concat();
    let mut out = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (name, nets) in [
            ("management", &policy.management),
            ("carrier", &signalling),
            ("media", &media),
            ("allow", &allowed),
        ] {
            let of_family = nets.iter().map(|net| canonical(*net)).filter(|net| match family {
                Family::V4 => matches!(net, IpNet::V4(_)),
                Family::V6 => matches!(net, IpNet::V6(_)),
            });
            let nets = IpNet::aggregate(&of_family.collect());
            out.push(Set { name: format!("{name}{}", family.digit()), family, holds: Holds::Nets, nets });
        }
        for (name, holds) in [
            ("ban", Holds::BannedSingles),
            ("bannet", Holds::BannedNets),
            ("pace", Holds::Pace),
            ("cpace", Holds::Pace),
            ("knock", Holds::Knocks),
        ] {
            out.push(Set { name: format!("{name}{}", family.digit()), family, holds, nets: Vec::new() });
        }
    }
    out
}

fn early(policy: &Policy) -> Chain {
    let over =
        |set: &str, family: Family, rate| Match::Over(family, format!("{set}{}", family.digit()), rate);
    let mut rules = vec![rule("loopback", vec![Match::Loopback], Verdict::Accept)];
    rules.extend(both("management is never banned", |f| vec![from("management", f)], Verdict::Accept));
    for to in services(&policy.sip) {
        let pace = |f| vec![from("carrier", f), to.clone(), over("cpace", f, policy.carrier_rate)];
        rules.extend(both("SIP over a carrier's pace", pace, Verdict::Drop));
    }
    rules.extend(both("carriers are never banned", |f| vec![from("carrier", f)], Verdict::Accept));
    rules.extend(both("allowed, media, control plane", |f| vec![from("allow", f)], Verdict::Accept));
    rules.extend(both("banned addresses", |f| vec![single("ban", f)], Verdict::Drop));
    rules.extend(both("banned networks", |f| vec![from("bannet", f)], Verdict::Drop));
    for to in services(&policy.sip) {
        let pace = |f| vec![to.clone(), over("pace", f, policy.sip_rate)];
        rules.extend(both("SIP over its source's pace", pace, Verdict::Drop));
    }
    Chain { name: "early", hook: "prerouting", priority: -300, policy: "accept", rules }
}

fn input(policy: &Policy) -> Chain {
    let ssh = || Match::To(Protocol::Tcp, ranges(&policy.ssh_ports));
    let mut rules = vec![rule("loopback", vec![Match::Loopback], Verdict::Accept)];
    let knock = |family: Family| match family {
        Family::V4 => "knock4",
        Family::V6 => "knock6",
    };
    let established = || Match::State(&["established"]);
    if !policy.ssh_ports.is_empty() {
        // The answer to our answer: the way in is open, and so is the way out.
        let done = |f| vec![ssh(), established(), Match::Noted(f, knock(f))];
        rules.extend(both(HANDSHAKES, done, Verdict::Count));
    }
    rules.extend([
        rule("established", vec![Match::State(&["established", "related"])], Verdict::Accept),
        rule("ICMP errors", vec![Match::Icmp(Family::V4, ICMP4)], Verdict::Accept),
        rule("ICMPv6 errors and neighbours", vec![Match::Icmp(Family::V6, ICMP6)], Verdict::Accept),
        rule("ping", vec![Match::Icmp(Family::V4, &["echo-request"]), Match::Within(PING)], Verdict::Accept),
        rule("ping", vec![Match::Icmp(Family::V6, &["echo-request"]), Match::Within(PING)], Verdict::Accept),
        rule("DHCPv6", vec![Match::FromLink, Match::To(Protocol::Udp, vec![546..=546])], Verdict::Accept),
    ]);
    if !policy.ssh_ports.is_empty() {
        // A packet amid a connection that began before conntrack did counts as new too, and must not be noted.
        let first = |f| vec![from("management", f), ssh(), Match::FirstOfTcp, Match::Note(f, knock(f))];
        rules.extend(both("new ssh from management", first, Verdict::Pass));
        rules.extend(both("ssh from management", |f| vec![from("management", f), ssh()], Verdict::Accept));
        rules.push(rule("ssh from elsewhere", vec![ssh()], Verdict::Drop));
    }
    rules.extend(services(&policy.closed).map(|to| rule("closed ports", vec![to], Verdict::Drop)));
    for to in services(&policy.sip) {
        service(&mut rules, "SIP", &to, policy.sip_from, &["carrier", "allow", "management"]);
    }
    let rtp = Match::To(Protocol::Udp, vec![policy.rtp.0..=policy.rtp.1]);
    service(&mut rules, "RTP", &rtp, policy.rtp_from, &["media", "allow"]);
    rules.extend(services(&policy.open).map(|to| rule("open ports", vec![to], Verdict::Accept)));
    let policy = match policy.others {
        Others::Accept => "accept",
        Others::Drop => "drop",
    };
    Chain { name: "input", hook: "input", priority: 0, policy, rules }
}

fn service(rules: &mut Vec<Rule>, name: &str, to: &Match, reached_from: ReachedFrom, known: &[&str]) {
    match reached_from {
        ReachedFrom::Everybody => rules.push(rule(name, vec![to.clone()], Verdict::Accept)),
        ReachedFrom::Known => {
            for set in known {
                rules.extend(both(
                    &format!("{name} from {set}"),
                    |f| vec![from(set, f), to.clone()],
                    Verdict::Accept,
                ));
            }
            rules.push(rule(&format!("{name} from elsewhere"), vec![to.clone()], Verdict::Drop));
        }
    }
}
