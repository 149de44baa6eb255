//! Bans into the kernel's sets, many at a time.

use std::{collections::BTreeMap, fmt::Write as _};

use ipnet::IpNet;

use super::TABLE;
use crate::{
    bans::{Ban, is_single},
    moment::UnixMs,
};

/// Addresses that a set of single bans takes: twice what a node holds, so that a ban is never refused while ended
/// ones wait to be swept.
pub const SINGLE_SETS_SIZE: u32 = 400_000;
/// Elements in one command: nft's parser is quadratic in nothing, but a line of megabytes helps nobody.
const ELEMENTS_MAX: usize = 10_000;

/// Bans and lifts that go to the kernel together.
///
/// Adding an element that is there leaves its timeout as it is on older kernels, and deleting one that is not there
/// fails: so each one is added, deleted and added with its time, which is right in every case.
#[derive(Debug, Default)]
pub struct Batch {
    is_fresh: bool,
    bans: BTreeMap<&'static str, Vec<(String, Option<u64>)>>,
    lifts: BTreeMap<&'static str, Vec<String>>,
}

impl Batch {
    /// For sets that hold anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For sets that were just made and are empty.
    #[must_use]
    pub fn fresh() -> Self {
        Self { is_fresh: true, ..Self::default() }
    }

    /// Bans for the time that is left; nothing if it is over.
    pub fn ban(&mut self, ban: &Ban, now: UnixMs) {
        let left = ban.seconds_left(now);
        if left != Some(0) {
            self.bans.entry(set_of(&ban.net)).or_default().push((element(&ban.net), left));
        }
    }

    /// Lifts, whether it is there or not.
    pub fn lift(&mut self, net: &IpNet) {
        self.lifts.entry(set_of(net)).or_default().push(element(net));
    }

    /// For one `nft -f -`. Lifts come first.
    #[must_use]
    pub fn script(&self) -> String {
        let mut out = String::new();
        for (set, elements) in &self.lifts {
            for chunk in elements.chunks(ELEMENTS_MAX) {
                remove(&mut out, set, chunk);
            }
        }
        for (set, elements) in &self.bans {
            for chunk in elements.chunks(ELEMENTS_MAX) {
                if !self.is_fresh {
                    let names: Vec<_> = chunk.iter().map(|(element, _)| element.clone()).collect();
                    remove(&mut out, set, &names);
                }
                let timed = chunk.iter().map(|(element, left)| match left {
                    Some(seconds) => format!("{element} timeout {seconds}s"),
                    None => element.clone(),
                });
                let _ = writeln!(out, "add element {TABLE} {set} {{ {} }}", timed.collect::<Vec<_>>().join(", "));
            }
        }
        out
    }
}

fn remove(out: &mut String, set: &str, elements: &[String]) {
    let elements = elements.join(", ");
    let _ = writeln!(out, "add element {TABLE} {set} {{ {elements} }}\ndelete element {TABLE} {set} {{ {elements} }}");
}

/// The set that holds such a ban.
#[must_use]
pub fn set_of(net: &IpNet) -> &'static str {
    match (net, is_single(net)) {
        (IpNet::V4(_), true) => "ban4",
        (IpNet::V4(_), false) => "bannet4",
        (IpNet::V6(_), true) => "ban6",
        (IpNet::V6(_), false) => "bannet6",
    }
}

/// A /64 stands in its set as its first address.
fn element(net: &IpNet) -> String {
    if is_single(net) { net.network().to_string() } else { net.trunc().to_string() }
}
