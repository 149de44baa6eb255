//! What the kernel holds, read from `nft -j list table inet ringward`, beside what it should hold.
//!
//! Only our own table is ever read: others' rules may be of any form. Numbers of counters do not matter, nor the
//! order within a set; of the sets of bans and paces only the form is compared.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv6Net};
use serde_json::{Value, json};

use super::plan::{Chain, Holds, Plan, Set, TABLE};

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadbackError {
    /// No JSON.
    #[error("nft's answer is no JSON")]
    Json(#[source] serde_json::Error),
    /// JSON of another form.
    #[error("nft's answer has no list named nftables")]
    NoList,
}

/// One ban as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBan {
    /// Of a single set: /32 or /64.
    pub net: IpNet,
    /// Until the kernel lets it go; `None`: never.
    pub seconds_left: Option<u64>,
}

/// Our table as nft lists it.
#[derive(Debug, Default)]
pub struct Readback {
    is_there: bool,
    sets: BTreeMap<String, Value>,
    chains: BTreeMap<String, Value>,
    rules: BTreeMap<String, Vec<Value>>,
}

impl Readback {
    /// Reads it. A table that is not there is an empty one: pass an empty text.
    ///
    /// # Errors
    /// It is no JSON of nft's form.
    pub fn parse(text: &str) -> Result<Self, ReadbackError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let answer: Value = serde_json::from_str(text).map_err(ReadbackError::Json)?;
        let list = answer.get("nftables").and_then(Value::as_array).ok_or(ReadbackError::NoList)?;
        let mut out = Self::default();
        let name =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        // A listing may be of the whole ruleset: others' tables are passed over.
        let is_ours = |object: &Value| {
            let of = |kind: &Value, key: &str| kind.get(key).and_then(Value::as_str).map(str::to_owned);
            object.as_object().and_then(|object| object.iter().next()).is_some_and(|(kind, what)| {
                let table = if kind == "table" { of(what, "name") } else { of(what, "table") };
                let is_inet = of(what, "family").is_none_or(|family| family == "inet");
                is_inet && table.is_none_or(|table| table == "ringward")
            })
        };
        for object in list.iter().filter(|object| is_ours(object)) {
            if object.get("table").is_some() {
                out.is_there = true;
            } else if let Some(set) = object.get("set") {
                out.sets.insert(name(set, "name"), set.clone());
            } else if let Some(chain) = object.get("chain") {
                out.chains.insert(name(chain, "name"), chain.clone());
            } else if let Some(rule) = object.get("rule") {
                out.rules.entry(name(rule, "chain")).or_default().push(rule.clone());
            } else if let Some((kind, what)) = object.as_object().and_then(|object| object.iter().next())
                && kind != "metainfo"
            {
                out.sets.insert(format!("{kind} {}", name(what, "name")), json!({}));
            }
        }
        Ok(out)
    }

    /// All bans that the kernel holds.
    #[must_use]
    pub fn bans(&self) -> Vec<HeldBan> {
        let sets = ["ban4", "ban6", "bannet4", "bannet6"];
        sets.iter().flat_map(|set| self.elements(set)).filter_map(held).collect()
    }

    /// Takes the elements of sets from another listing of the same table.
    pub fn fill(&mut self, other: Self) {
        self.sets.extend(other.sets);
    }

    /// Packets counted by the rules, by purpose.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        for rule in self.rules.values().flatten() {
            let expressions = rule.get("expr").and_then(Value::as_array).into_iter().flatten();
            let packets = expressions.filter_map(|e| e.get("counter")?.get("packets")?.as_u64()).sum::<u64>();
            if let Some(purpose) = rule.get("comment").and_then(Value::as_str) {
                let counter = counters.entry(purpose.to_owned()).or_default();
                *counter = packets.saturating_add(*counter);
            }
        }
        counters
    }

    /// Whether the table is there at all.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    fn elements(&self, set: &str) -> impl Iterator<Item = &Value> {
        self.sets.get(set).and_then(|set| set.get("elem")).and_then(Value::as_array).into_iter().flatten()
    }
}

impl Plan {
    /// What would have to change in the kernel, one line each; nothing if all is as it should be.
    #[must_use]
    pub fn difference(&self, held: &Readback) -> Vec<String> {
        self.compare(held, true)
    }

    /// The same without the policy's networks, which a terse listing leaves out.
    #[must_use]
    pub fn difference_of_rules(&self, held: &Readback) -> Vec<String> {
        self.compare(held, false)
    }

    /// Names of the sets that hold the policy's networks.
    pub fn net_sets(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().filter(|set| set.holds == Holds::Nets).map(|set| set.name.as_str())
    }

    fn compare(&self, held: &Readback, with_nets: bool) -> Vec<String> {
        if !held.is_there {
            return vec![format!("table {TABLE} is missing")];
        }
        let mut out = Vec::new();
        for set in &self.sets {
            match held.sets.get(&set.name) {
                None => out.push(format!("set {} is missing", set.name)),
                Some(listed) => self::set(set, listed, with_nets, &mut out),
            }
        }
        let foreign = held.sets.keys().filter(|name| !self.sets.iter().any(|set| set.name == **name));
        out.extend(foreign.map(|name| format!("set {name} is foreign")));
        for chain in &self.chains {
            match held.chains.get(chain.name) {
                None => out.push(format!("chain {} is missing", chain.name)),
                Some(listed) => {
                    self::chain(
                        chain,
                        listed,
                        held.rules.get(chain.name).map_or(&[], Vec::as_slice),
                        &mut out,
                    );
                }
            }
        }
        let foreign = held.chains.keys().filter(|name| !self.chains.iter().any(|chain| chain.name == **name));
        out.extend(foreign.map(|name| format!("chain {name} is foreign")));
        out
    }
}

fn set(wanted: &Set, listed: &Value, with_nets: bool, out: &mut Vec<String>) {
    let name = &wanted.name;
    let (flags, size, timeout) = wanted.listed();
    let mut has: Vec<_> =
        listed.get("flags").and_then(Value::as_array).into_iter().flatten().cloned().collect();
    // Newer versions list it.
    has.retain(|flag| flag != "dynamic");
    has.sort_by_key(ToString::to_string);
    let number = |key: &str| listed.get(key).cloned().unwrap_or(Value::Null);
    let types = match wanted.types() {
        [one] => json!(one),
        many => json!(many),
    };
    let form = (listed.get("type"), Value::Array(has), number("size"), number("timeout"));
    if form != (Some(&types), json!(flags), json!(size), json!(timeout)) {
        out.push(format!("set {name} has another form"));
    }
    if wanted.holds != Holds::Nets || !with_nets {
        return;
    }
    let elements = listed.get("elem").and_then(Value::as_array).into_iter().flatten();
    let mut held = Vec::new();
    for element in elements {
        match span(element) {
            Some(span) => held.push(span),
            None => out.push(format!("set {name} holds what is no network: {element}")),
        }
    }
    let nets = wanted.nets.iter().map(|net| (net.network(), net.broadcast()));
    let (wanted, held) = (joined(nets.collect()), joined(held));
    let text = |(first, last): &(IpAddr, IpAddr)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    out.extend(
        wanted.iter().filter(|span| !held.contains(span)).map(|s| format!("set {name} lacks {}", text(s))),
    );
    out.extend(
        held.iter()
            .filter(|span| !wanted.contains(span))
            .map(|s| format!("set {name} holds {} too", text(s))),
    );
}

fn chain(wanted: &Chain, listed: &Value, rules: &[Value], out: &mut Vec<String>) {
    let name = wanted.name;
    let of = |key: &str| listed.get(key).cloned().unwrap_or(Value::Null);
    if (of("type"), of("hook"), of("prio")) != (json!("filter"), json!(wanted.hook), json!(wanted.priority)) {
        out.push(format!("chain {name} hangs elsewhere"));
    }
    if of("policy") != wanted.policy {
        out.push(format!("chain {name} has policy {}, not {}", of("policy"), wanted.policy));
    }
    let held: Vec<_> = rules.iter().map(|rule| normal(rule.get("expr").unwrap_or(&Value::Null))).collect();
    let wanted_rules: Vec<_> = wanted.rules.iter().map(|rule| normal(&rule.json())).collect();
    if held == wanted_rules {
        return;
    }
    let before = out.len();
    for (rule, json) in wanted.rules.iter().zip(&wanted_rules) {
        if !held.contains(json) {
            out.push(format!("chain {name} lacks: {rule}"));
        }
    }
    for json in held.iter().filter(|json| !wanted_rules.contains(json)) {
        out.push(format!("chain {name} holds a foreign rule: {json}"));
    }
    if out.len() == before {
        out.push(format!("chain {name} holds its rules in another order or number"));
    }
}

/// Counters without numbers, anonymous sets in order; flags that are joined as nft 1.1 writes them (`{"|": […]}`) as 1.0
/// does (`[…]`).
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(object) if object.len() == 1 && object.get("|").is_some_and(Value::is_array) => {
            normal(&object["|"])
        }
        Value::Object(object) => Value::Object(
            object
                .iter()
                .map(|(key, value)| match (key.as_str(), value) {
                    ("counter", _) => (key.clone(), Value::Null),
                    ("set", Value::Array(elements)) => {
                        let mut elements: Vec<_> = elements.iter().map(normal).collect();
                        elements.sort_by_key(ToString::to_string);
                        (key.clone(), Value::Array(elements))
                    }
                    _ => (key.clone(), normal(value)),
                })
                .collect(),
        ),
        Value::Array(values) => Value::Array(values.iter().map(normal).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// First and last address of an element.
fn span(element: &Value) -> Option<(IpAddr, IpAddr)> {
    let address = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some(address) = address(element) {
        return Some((address, address));
    }
    if let Some(prefix) = element.get("prefix") {
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        let net = IpNet::new(address(prefix.get("addr")?)?, length).ok()?;
        return Some((net.network(), net.broadcast()));
    }
    let range = element.get("range")?.as_array()?;
    Some((address(range.first()?)?, address(range.get(1)?)?))
}

/// In order, neighbours joined: nft may list two networks as one range.
fn joined(mut spans: Vec<(IpAddr, IpAddr)>) -> Vec<(IpAddr, IpAddr)> {
    spans.sort_unstable();
    let mut out: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in spans {
        match out.last_mut() {
            Some((_, end)) if next(*end) == Some(first) || *end >= first => *end = last.max(*end),
            Some(_) | None => out.push((first, last)),
        }
    }
    out
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn held(element: &Value) -> Option<HeldBan> {
    let (value, seconds_left) = match element.get("elem") {
        Some(timed) => (timed.get("val")?, timed.get("expires").and_then(Value::as_u64)),
        None => (element, None),
    };
    let (first, last) = span(value)?;
    let net = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let length = u8::try_from((first.to_bits() ^ last.to_bits()).leading_zeros()).ok()?;
            IpNet::new(IpAddr::V4(first), length).ok()?
        }
        // A /64 stands in its set as its first address.
        (IpAddr::V6(first), IpAddr::V6(last)) if first == last => IpNet::V6(Ipv6Net::new(first, 64).ok()?),
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let length = u8::try_from((first.to_bits() ^ last.to_bits()).leading_zeros()).ok()?;
            IpNet::new(IpAddr::V6(first), length).ok()?
        }
        _ => return None,
    };
    Some(HeldBan { net: net.trunc(), seconds_left })
}
