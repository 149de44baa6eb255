//! Rules of others (ufw, firewalld, Docker, an administrator's own) that would drop what ours accept, or take away
//! before our rules see it what ours close.
//!
//! A packet of each kind that matters is followed through every chain of others at prerouting and input. What a
//! match means may be out of reach (a set's content, an extension of iptables): then both ways are followed, and
//! the answer is that it *may* be dropped.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::{Policy, ReachedFrom};
use crate::protected::canonical;

/// Jumps within jumps; the kernel allows 16.
const DEPTH_MAX: u8 = 16;
/// Conflicts that are told.
const CONFLICTS_MAX: usize = 50;
/// Somebody whom no policy knows: from the network for benchmarks, RFC 2544.
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1));

/// One conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Else it may be so, by rules that cannot be read in full.
    pub is_certain: bool,
    /// For people.
    pub text: String,
}

struct Packet {
    what: &'static str,
    from: IpAddr,
    protocol: &'static str,
    port: u16,
}

#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    accept: bool,
    drop: bool,
    nat: bool,
    /// The chain's end, or a return.
    on: bool,
}

impl Outcomes {
    fn join(&mut self, other: Self) {
        self.accept |= other.accept;
        self.drop |= other.drop;
        self.nat |= other.nat;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matches {
    Yes,
    No,
    Perhaps,
}

impl Matches {
    fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Perhaps, _) | (_, Self::Perhaps) => Self::Perhaps,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
        }
    }
}

type Key = (String, String, String);

struct Ruleset<'a> {
    chains: BTreeMap<Key, &'a Value>,
    rules: BTreeMap<Key, Vec<&'a Value>>,
}

/// What of `ruleset` (`nft -j list ruleset`) stands against the policy. A ruleset that cannot be read is a conflict.
#[must_use]
pub fn conflicts(policy: &Policy, ruleset: &str) -> Vec<Conflict> {
    let parsed: Value = serde_json::from_str(ruleset).unwrap_or_default();
    let Some(list) = parsed.get("nftables").and_then(Value::as_array) else {
        return vec![Conflict { is_certain: true, text: "the ruleset is no JSON of nft's".to_owned() }];
    };
    let ruleset = Ruleset::of(list);
    let mut out = Vec::new();
    for (key, chain) in ruleset.bases() {
        let is_nat = chain["type"] == "nat";
        let packets = if is_nat { closed(policy) } else { accepted(policy) };
        for packet in packets.iter().filter(|packet| suits(&key.0, packet.from)) {
            let found = ruleset.follow(key, packet, 0);
            let drops_rest = found.on && chain["policy"] == "drop";
            let may_drop = found.drop || drops_rest;
            let may_pass = found.accept || (found.on && !drops_rest);
            let Packet { what, from, protocol, port } = packet;
            let place = format!("table {} {}, chain {}", key.0, key.1, key.2);
            let (verb, is_certain) = match (is_nat, may_drop, may_pass) {
                (true, _, _) if found.nat => ("leads elsewhere, past our rules,", true),
                (false, true, false) => ("drops", true),
                (false, true, true) => ("may drop", false),
                (true | false, _, _) => continue,
            };
            let text = format!("{place} {verb} {what}: {protocol} port {port} from {from}");
            out.push(Conflict { is_certain, text });
        }
    }
    out.truncate(CONFLICTS_MAX);
    out
}

fn suits(family: &str, from: IpAddr) -> bool {
    match family {
        "inet" => true,
        "ip" => from.is_ipv4(),
        "ip6" => from.is_ipv6(),
        _ => false,
    }
}

/// What ours accept: one packet of each kind and network.
fn accepted(policy: &Policy) -> Vec<Packet> {
    let mut out = Vec::new();
    let hosts = |nets: &[IpNet]| -> Vec<IpAddr> {
        nets.iter()
            .map(|net| canonical(*net))
            .map(|net| net.hosts().next().unwrap_or(net.network()))
            .collect()
    };
    let signalling: Vec<_> = policy.carriers.iter().flat_map(|c| hosts(&c.signalling)).collect();
    let media: Vec<_> = policy.carriers.iter().flat_map(|c| hosts(&c.media)).collect();
    let mut add = |what, from: &[IpAddr], protocol, ports: &[u16]| {
        for from in from {
            out.extend(ports.iter().map(|port| Packet { what, from: *from, protocol, port: *port }));
        }
    };
    add("ssh from management", &hosts(&policy.management), "tcp", &policy.ssh_ports);
    add("SIP from a carrier", &signalling, "udp", &policy.sip.udp);
    add("SIP from a carrier", &signalling, "tcp", &policy.sip.tcp);
    add("RTP from a carrier", &media, "udp", &[policy.rtp.0, policy.rtp.1]);
    if policy.sip_from == ReachedFrom::Everybody {
        add("SIP from phones", &[STRANGER], "udp", &policy.sip.udp);
        add("SIP from phones", &[STRANGER], "tcp", &policy.sip.tcp);
    }
    add("an open port", &[STRANGER], "tcp", &policy.open.tcp);
    add("an open port", &[STRANGER], "udp", &policy.open.udp);
    out
}

fn closed(policy: &Policy) -> Vec<Packet> {
    let of = |protocol, ports: &[u16]| -> Vec<Packet> {
        ports
            .iter()
            .map(|port| Packet { what: "a closed port", from: STRANGER, protocol, port: *port })
            .collect()
    };
    let mut out = of("tcp", &policy.closed.tcp);
    out.extend(of("udp", &policy.closed.udp));
    out
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl<'a> Ruleset<'a> {
    fn of(list: &'a [Value]) -> Self {
        let (mut chains, mut rules) = (BTreeMap::new(), BTreeMap::<Key, Vec<_>>::new());
        for object in list {
            let key = |what: &Value, name: &str| -> Key {
                (text(what, "family").to_owned(), text(what, "table").to_owned(), text(what, name).to_owned())
            };
            if let Some(chain) = object.get("chain") {
                chains.insert(key(chain, "name"), chain);
            } else if let Some(rule) = object.get("rule") {
                rules.entry(key(rule, "chain")).or_default().push(rule);
            }
        }
        Self { chains, rules }
    }

    /// Chains of others that packets to this host come through.
    fn bases(&self) -> impl Iterator<Item = (&Key, &&'a Value)> {
        self.chains.iter().filter(|((family, table, _), chain)| {
            let is_ours = family == "inet" && table == "ringward";
            !is_ours && matches!(text(chain, "hook"), "prerouting" | "input")
        })
    }

    fn follow(&self, chain: &Key, packet: &Packet, depth: u8) -> Outcomes {
        let mut all = Outcomes::default();
        if depth > DEPTH_MAX {
            return Outcomes { accept: true, drop: true, nat: false, on: true };
        }
        for rule in self.rules.get(chain).into_iter().flatten() {
            let mut matches = Matches::Yes;
            for expression in rule.get("expr").and_then(Value::as_array).into_iter().flatten() {
                let Some((kind, what)) = expression.as_object().and_then(|object| object.iter().next())
                else {
                    continue;
                };
                let found = match kind.as_str() {
                    "match" => {
                        matches = matches.and(matching(what, packet));
                        None
                    }
                    "xt" | "limit" => {
                        matches = matches.and(Matches::Perhaps);
                        None
                    }
                    "vmap" => Some(self.vmap(chain, what, packet, depth)),
                    _ => self.verdict(chain, kind, what, packet, depth),
                };
                if matches == Matches::No {
                    break;
                }
                let Some(found) = found else { continue };
                all.join(found);
                if matches == Matches::Yes && !found.on {
                    return all;
                }
                if matches == Matches::Yes && matches!(kind.as_str(), "return" | "goto") {
                    all.on = true;
                    return all;
                }
            }
        }
        all.on = true;
        all
    }

    /// `None`: it decides nothing.
    fn verdict(&self, chain: &Key, kind: &str, what: &Value, packet: &Packet, depth: u8) -> Option<Outcomes> {
        let none = Outcomes::default();
        match kind {
            "accept" => Some(Outcomes { accept: true, ..none }),
            "drop" | "reject" => Some(Outcomes { drop: true, ..none }),
            "dnat" | "redirect" => Some(Outcomes { accept: true, nat: true, ..none }),
            "return" => Some(Outcomes { on: true, ..none }),
            "jump" | "goto" => {
                let target = (chain.0.clone(), chain.1.clone(), text(what, "target").to_owned());
                Some(self.follow(&target, packet, depth + 1))
            }
            _ => None,
        }
    }

    /// By the connection's state it can be told; by anything else all its ways are possible.
    fn vmap(&self, chain: &Key, what: &Value, packet: &Packet, depth: u8) -> Outcomes {
        let by_state = what["key"]["ct"]["key"] == "state";
        let mut all = Outcomes { on: true, ..Outcomes::default() };
        for pair in what["data"]["set"].as_array().into_iter().flatten() {
            let verdict = pair.get(1).and_then(Value::as_object).and_then(|object| object.iter().next());
            let Some((kind, target)) = verdict else { continue };
            if by_state && !has_new(&pair[0]) {
                continue;
            }
            let found = self.verdict(chain, kind, target, packet, depth).unwrap_or_default();
            if by_state {
                return found;
            }
            all.join(found);
        }
        all
    }
}

fn has_new(value: &Value) -> bool {
    match value {
        Value::String(word) => word == "new",
        Value::Array(words) => words.iter().any(has_new),
        Value::Object(object) => object.get("set").is_some_and(has_new),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn matching(what: &Value, packet: &Packet) -> Matches {
    let (left, right) = (&what["left"], &what["right"]);
    let payload = (text(&left["payload"], "protocol"), text(&left["payload"], "field"));
    let meta = text(&left["meta"], "key");
    let is = match (payload, meta) {
        (("tcp" | "udp" | "th", "dport"), _) => {
            let is_protocol = payload.0 == "th" || payload.0 == packet.protocol;
            Matches::of(is_protocol).and(number(right, u64::from(packet.port)))
        }
        (("ip" | "ip6", "saddr"), _) => {
            Matches::of((payload.0 == "ip") == packet.from.is_ipv4()).and(address(right, packet.from))
        }
        (("ip", "protocol") | ("ip6", "nexthdr"), _) | (_, "l4proto") => word(right, packet.protocol),
        (_, "nfproto") => word(right, if packet.from.is_ipv4() { "ipv4" } else { "ipv6" }),
        (_, "iifname" | "iif") if right == "lo" => Matches::No,
        _ if left["ct"]["key"] == "state" => Matches::of(has_new(right)),
        _ => Matches::Perhaps,
    };
    if what["op"] == "!=" { is.not() } else { is }
}

/// Of an anonymous set: any of it.
fn any(right: &Value, one: impl Fn(&Value) -> Matches) -> Matches {
    match right.get("set").and_then(Value::as_array) {
        None => one(right),
        Some(all) => {
            let found: Vec<_> = all.iter().map(one).collect();
            if found.contains(&Matches::Yes) {
                Matches::Yes
            } else if found.contains(&Matches::Perhaps) {
                Matches::Perhaps
            } else {
                Matches::No
            }
        }
    }
}

fn number(right: &Value, port: u64) -> Matches {
    any(right, |value| {
        if let Some(single) = value.as_u64() {
            return Matches::of(single == port);
        }
        match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            Some([first, last]) => match (first.as_u64(), last.as_u64()) {
                (Some(first), Some(last)) => Matches::of((first..=last).contains(&port)),
                _ => Matches::Perhaps,
            },
            _ => Matches::Perhaps,
        }
    })
}

fn address(right: &Value, from: IpAddr) -> Matches {
    any(right, |value| {
        if let Some(single) = value.as_str() {
            return single.parse::<IpAddr>().map_or(Matches::Perhaps, |single| Matches::of(single == from));
        }
        let net = value.get("prefix").and_then(|prefix| {
            let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
            IpNet::new(prefix.get("addr")?.as_str()?.parse().ok()?, length).ok()
        });
        net.map_or(Matches::Perhaps, |net| Matches::of(net.contains(&from)))
    })
}

fn word(right: &Value, wanted: &str) -> Matches {
    any(right, |value| match value.as_str() {
        Some(word) if !word.starts_with('@') => Matches::of(word == wanted),
        Some(_) | None => Matches::Perhaps,
    })
}

#[cfg(test)]
#[path = "foreign_tests.rs"]
mod foreign_tests;
