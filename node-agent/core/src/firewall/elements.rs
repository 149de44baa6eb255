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
/// Elements in one command.
const ELEMENTS_MAX: usize = 10_000;

/// Bans and lifts that go to the kernel together.
///
/// A new ban is added and nothing else: deleting makes the kernel wait for all its readers (some 10 ms on a busy
/// machine, against 1 ms). But adding an element that is there leaves its time as it is on older kernels, and
/// deleting one that is not there fails; so what is renewed or lifted is added, deleted and then, if it is to
/// stay, added with its time, which is right in every case.
#[derive(Debug, Default)]
pub struct Batch {
    bans: BySet<(String, Option<u64>)>,
    renewed: BySet<String>,
    lifts: BySet<String>,
}

type BySet<T> = BTreeMap<&'static str, Vec<T>>;

impl Batch {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bans what the kernel does not hold, for the time that is left; nothing if that is over.
    pub fn ban(&mut self, ban: &Ban, now: UnixMs) {
        let left = ban.seconds_left(now);
        if left != Some(0) {
            self.bans.entry(set_of(&ban.net)).or_default().push((element(&ban.net), left));
        }
    }

    /// Bans what the kernel may hold with another time.
    pub fn renew(&mut self, ban: &Ban, now: UnixMs) {
        self.renewed.entry(set_of(&ban.net)).or_default().push(element(&ban.net));
        self.ban(ban, now);
    }

    /// Lifts, whether the kernel holds it or not.
    pub fn lift(&mut self, net: &IpNet) {
        self.lifts.entry(set_of(net)).or_default().push(element(net));
    }

    /// For one `nft -f -`. Lifts come first.
    #[must_use]
    pub fn script(&self) -> String {
        let mut out = String::new();
        for (set, elements) in self.lifts.iter().chain(&self.renewed) {
            elements.chunks(ELEMENTS_MAX).for_each(|chunk| remove(&mut out, set, chunk));
        }
        for (set, elements) in &self.bans {
            for chunk in elements.chunks(ELEMENTS_MAX) {
                let timed = chunk.iter().map(|(element, left)| match left {
                    Some(seconds) => format!("{element} timeout {seconds}s"),
                    None => element.clone(),
                });
                let timed = timed.collect::<Vec<_>>().join(", ");
                let _ = writeln!(out, "add element {TABLE} {set} {{ {timed} }}");
            }
        }
        out
    }
}

fn remove(out: &mut String, set: &str, elements: &[String]) {
    let elements = elements.join(", ");
    let _ = writeln!(
        out,
        "add element {TABLE} {set} {{ {elements} }}\ndelete element {TABLE} {set} {{ {elements} }}"
    );
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
