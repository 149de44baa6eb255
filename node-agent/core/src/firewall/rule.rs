//! One rule: what it matches, in nft's language and in nft's JSON, side by side.

use std::{fmt, ops::RangeInclusive};

use serde_json::{Value, json};

use super::policy::Rate;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// `4` or `6`, behind a set's name.
    pub(super) fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// Who sent it, as it is counted: an address or a /64.
    fn source(self) -> Value {
        let address = self.address();
        match self {
            Self::V4 => address,
            Self::V6 => json!({"&": [address, UPPER_HALF]}),
        }
    }

    fn source_text(self) -> String {
        match self {
            Self::V4 => "ip saddr".to_owned(),
            Self::V6 => format!("ip6 saddr & {UPPER_HALF}"),
        }
    }

    /// Address and TCP port of who sent it.
    fn peer(self) -> Value {
        json!({"concat": [self.address(), {"payload": {"protocol": "tcp", "field": "sport"}}]})
    }

    fn address(self) -> Value {
        json!({"payload": {"protocol": self.word(), "field": "saddr"}})
    }
}

const UPPER_HALF: &str = "ffff:ffff:ffff:ffff::";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    Loopback,
    /// `ct state`.
    State(&'static [&'static str]),
    /// Its address is in this set of networks.
    From(Family, String),
    /// Its address, or its /64, is in this set of single ones.
    FromSingle(Family, String),
    /// From a link-local IPv6 address.
    FromLink,
    To(Protocol, Vec<RangeInclusive<u16>>),
    Icmp(Family, &'static [&'static str]),
    /// All together no more than this.
    Within(Rate),
    /// Its source sends more than this, as this set remembers.
    Over(Family, String, Rate),
    /// The first packet of a TCP connection, and nothing else.
    FirstOfTcp,
    /// Notes address and port of who connects.
    Note(Family, &'static str),
    /// Address and port are noted there.
    Noted(Family, &'static str),
}

fn one_or_set(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { json!({"set": values}) }
}

fn words_or_set(words: &[&str]) -> String {
    match words {
        [one] => (*one).to_owned(),
        many => format!("{{ {} }}", many.join(", ")),
    }
}

fn equal(left: Value, right: Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("iifname \"lo\""),
            Self::State(states) => write!(f, "ct state {}", states.join(",")),
            Self::From(family, set) => write!(f, "{} saddr @{set}", family.word()),
            Self::FromSingle(family, set) => write!(f, "{} @{set}", family.source_text()),
            Self::FromLink => f.write_str("ip6 saddr fe80::/10"),
            Self::To(protocol, ports) => {
                let ports: Vec<_> = ports
                    .iter()
                    .map(|range| match (range.start(), range.end()) {
                        (a, b) if a == b => a.to_string(),
                        (a, b) => format!("{a}-{b}"),
                    })
                    .collect();
                let ports: Vec<_> = ports.iter().map(String::as_str).collect();
                write!(f, "{} dport {}", protocol.word(), words_or_set(&ports))
            }
            Self::Icmp(Family::V4, types) => write!(f, "icmp type {}", words_or_set(types)),
            Self::Icmp(Family::V6, types) => write!(f, "icmpv6 type {}", words_or_set(types)),
            Self::Within(rate) => {
                write!(f, "limit rate {}/second burst {} packets", rate.per_second, rate.burst)
            }
            Self::Over(family, set, rate) => write!(
                f,
                "update @{set} {{ {} limit rate over {}/second burst {} packets }}",
                family.source_text(),
                rate.per_second,
                rate.burst
            ),
            Self::FirstOfTcp => f.write_str("tcp flags syn / fin,syn,rst,ack"),
            Self::Note(family, set) => {
                write!(f, "update @{set} {{ {} saddr . tcp sport }}", family.word())
            }
            Self::Noted(family, set) => write!(f, "{} saddr . tcp sport @{set}", family.word()),
        }
    }
}

impl Match {
    /// As `nft -j list` writes it.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Loopback => equal(json!({"meta": {"key": "iifname"}}), json!("lo")),
            Self::State(states) => {
                let right = match states {
                    [one] => json!(one),
                    many => json!(many),
                };
                json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": right}})
            }
            Self::From(family, set) => equal(family.address(), json!(format!("@{set}"))),
            Self::FromSingle(family, set) => equal(family.source(), json!(format!("@{set}"))),
            Self::FromLink => equal(Family::V6.address(), json!({"prefix": {"addr": "fe80::", "len": 10}})),
            Self::To(protocol, ports) => {
                let ports = ports.iter().map(|range| match (range.start(), range.end()) {
                    (a, b) if a == b => json!(a),
                    (a, b) => json!({"range": [a, b]}),
                });
                let port = json!({"payload": {"protocol": protocol.word(), "field": "dport"}});
                equal(port, one_or_set(ports.collect()))
            }
            Self::Icmp(family, types) => {
                let protocol = match family {
                    Family::V4 => "icmp",
                    Family::V6 => "icmpv6",
                };
                let types = types.iter().map(|kind| json!(kind)).collect();
                equal(json!({"payload": {"protocol": protocol, "field": "type"}}), one_or_set(types))
            }
            Self::Within(rate) => {
                json!({"limit": {"rate": rate.per_second, "burst": rate.burst, "per": "second"}})
            }
            Self::Over(family, set, rate) => json!({"set": {
                "op": "update",
                "elem": family.source(),
                "set": format!("@{set}"),
                "stmt": [{"limit": {
                    "rate": rate.per_second, "burst": rate.burst, "per": "second", "inv": true
                }}],
            }}),
            Self::FirstOfTcp => {
                let flags = json!({"payload": {"protocol": "tcp", "field": "flags"}});
                equal(json!({"&": [flags, ["fin", "syn", "rst", "ack"]]}), json!("syn"))
            }
            Self::Note(family, set) => json!({"set": {
                "op": "update", "elem": family.peer(), "set": format!("@{set}"),
            }}),
            Self::Noted(family, set) => equal(family.peer(), json!(format!("@{set}"))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// On to the next rule.
    Pass,
    /// Counted, and on to the next rule.
    Count,
}

impl Verdict {
    fn is_counted(self) -> bool {
        match self {
            Self::Accept | Self::Pass => false,
            Self::Drop | Self::Count => true,
        }
    }

    fn word(self) -> Option<&'static str> {
        match self {
            Self::Accept => Some("accept"),
            Self::Drop => Some("drop"),
            Self::Pass | Self::Count => None,
        }
    }
}

/// A rule. What is dropped is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it is for; stands in the kernel as its comment.
    pub(super) purpose: String,
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
}

impl Rule {
    /// As `nft -j list` writes its `expr`, counters without their numbers.
    pub(super) fn json(&self) -> Value {
        let mut expr: Vec<_> = self.matches.iter().map(Match::json).collect();
        if self.verdict.is_counted() {
            expr.push(json!({"counter": null}));
        }
        expr.extend(self.verdict.word().map(|word| json!({word: null})));
        Value::Array(expr)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for matched in &self.matches {
            write!(f, "{matched} ")?;
        }
        if self.verdict.is_counted() {
            f.write_str("counter ")?;
        }
        if let Some(word) = self.verdict.word() {
            write!(f, "{word} ")?;
        }
        write!(f, "comment \"{}\"", self.purpose)
    }
}
