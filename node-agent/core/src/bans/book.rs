//! What this node holds, and the checks at its door.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{ALLOWS_MAX, Allow, BANS_MAX, Ban, By, Change, Order, Refusal, Why, Widths, counted, is_single};
use crate::{
    firewall::elements::set_of,
    moment::UnixMs,
    protected::{Group, Protected, Protection, canonical, overlap},
};

/// Lifts that are remembered for others; who asks for what is older gets everything.
const LIFTS_MAX: usize = 20_000;
/// Of [`Snapshot`].
const VERSION: u32 = 1;

/// Of a ban without an end.
const NEVER: UnixMs = UnixMs(u64::MAX);

/// Bans of one of the kernel's sets by their end.
type Ends = BTreeSet<(UnixMs, IpNet)>;

/// All bans and allowances of one node.
#[derive(Debug)]
pub struct Bans {
    pub(super) node: String,
    widths: Widths,
    protected: Protected,
    /// Shared with snapshots, so that taking one of 100,000 is no work of theirs.
    pub(super) bans: BTreeMap<IpNet, Arc<Ban>>,
    /// Bans of networks among them: without any, nothing is inside another.
    networks: usize,
    allows: BTreeMap<IpNet, Allow>,
    pub(super) ends: BTreeMap<&'static str, Ends>,
    pub(super) revision: u64,
    pub(super) by_revision: BTreeMap<u64, IpNet>,
    /// By the revision of the lift.
    pub(super) lifts: BTreeMap<u64, IpNet>,
    /// Lifts up to this revision are no longer known.
    pub(super) lifts_known_from: u64,
}

/// What goes to disk, and comes back at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Of this form.
    pub version: u32,
    /// The count of changes.
    pub revision: u64,
    /// All bans.
    pub bans: Vec<Arc<Ban>>,
    /// All allowances.
    pub allows: Vec<Allow>,
}

impl Bans {
    /// None yet.
    #[must_use]
    pub fn new(node: &str, widths: Widths, protected: Protected) -> Self {
        Self {
            node: node.to_owned(),
            widths,
            protected,
            bans: BTreeMap::new(),
            networks: 0,
            allows: BTreeMap::new(),
            ends: BTreeMap::new(),
            revision: 0,
            by_revision: BTreeMap::new(),
            lifts: BTreeMap::new(),
            lifts_known_from: 0,
        }
    }

    /// Bans, makes a ban longer, or leaves a longer one as it is.
    ///
    /// # Errors
    /// Why not.
    pub fn ban(&mut self, order: Order, now: UnixMs) -> Result<Change, Refusal> {
        if order.seconds == Some(0) {
            return Err(Refusal::NoTime);
        }
        let ends = order.seconds.map(|seconds| now.plus_s(u64::from(seconds)));
        let net = counted(order.net);
        self.put(Ban { net, by: order.by.tidy(), jail: order.jail, begins: now, ends, revision: 0 })
    }

    /// Lifts exactly this ban.
    ///
    /// # Errors
    /// There is none.
    pub fn lift(&mut self, net: IpNet) -> Result<Change, Refusal> {
        let net = counted(net);
        self.take(net).ok_or(Refusal::Absent(net))?;
        Ok(Change { lifts: vec![net], ..Change::default() })
    }

    /// Allows a network: lifts every ban that touches it, and refuses such bans while it lasts.
    ///
    /// # Errors
    /// It is everything, or there are too many.
    pub fn allow(
        &mut self,
        net: IpNet,
        seconds: Option<u32>,
        by: By,
        now: UnixMs,
    ) -> Result<Change, Refusal> {
        let net = canonical(net);
        if net.prefix_len() == 0 {
            return Err(Refusal::Everything(net));
        }
        if self.allows.len() >= ALLOWS_MAX && !self.allows.contains_key(&net) {
            return Err(Refusal::Full(ALLOWS_MAX));
        }
        let ends = seconds.map(|seconds| now.plus_s(u64::from(seconds)));
        self.allows.insert(net, Allow { net, by: by.tidy(), ends });
        Ok(self.lift_all(|banned| overlap(banned, &net)))
    }

    /// Takes an allowance back.
    ///
    /// # Errors
    /// There is none.
    pub fn disallow(&mut self, net: IpNet) -> Result<(), Refusal> {
        let net = canonical(net);
        self.allows.remove(&net).map(drop).ok_or(Refusal::Absent(net))
    }

    /// Who is protected from now on; lifts what touches them.
    pub fn protect(&mut self, protected: Protected) -> Change {
        self.protected = protected;
        let protected = self.protected.clone();
        self.lift_all(|banned| protected.touched_by(banned).is_some())
    }

    /// Who is never banned, allowances included, for the rules and the firewall.
    #[must_use]
    pub fn protected(&self) -> Protected {
        let allowed = self.allows.keys().map(|net| Protection { net: *net, group: Group::Allow });
        Protected::new(self.protected.all().iter().copied().chain(allowed))
    }

    /// Forgets what is over. The kernel has let it go by itself already; nobody needs to be told.
    pub fn expire(&mut self, now: UnixMs) -> Vec<IpNet> {
        self.allows.retain(|_, allow| allow.ends.is_none_or(|ends| ends > now));
        let mut over = Vec::new();
        while let Some((ends, net)) = self.first_end()
            && ends <= now
        {
            self.drop_old(net);
            over.push(net);
        }
        over
    }

    fn first_end(&self) -> Option<(UnixMs, IpNet)> {
        let first = self.ends.values().filter_map(BTreeSet::first).min().copied();
        first.filter(|(ends, _)| *ends != NEVER)
    }

    /// When [`Bans::expire`] next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<UnixMs> {
        let allows = self.allows.values().filter_map(|allow| allow.ends);
        self.first_end().map(|(ends, _)| ends).into_iter().chain(allows).min()
    }

    /// How many bans each of the kernel's sets holds.
    pub fn sizes(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.ends.iter().map(|(set, ends)| (*set, ends.len()))
    }

    /// What holds for an address, banned or not.
    #[must_use]
    pub fn why(&self, address: IpAddr) -> Why {
        let address = IpNet::from(address.to_canonical());
        let host = counted(address);
        if let Some(ban) = self.get(&host).or_else(|| self.wider(&host)) {
            return Why::Banned(ban.clone());
        }
        if let Some(by) = self.protected.touched_by(&address) {
            return Why::Protected(*by);
        }
        let allow = self.allows.values().find(|allow| overlap(&allow.net, &address));
        allow.map_or(Why::Free, |allow| Why::Allowed(allow.clone()))
    }

    /// The ban of exactly this net.
    #[must_use]
    pub fn get(&self, net: &IpNet) -> Option<&Ban> {
        self.bans.get(&counted(*net)).map(Arc::as_ref)
    }

    /// All of them, by address.
    pub fn all(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values().map(Arc::as_ref)
    }

    /// All allowances, by address.
    pub fn allows(&self) -> impl Iterator<Item = &Allow> {
        self.allows.values()
    }

    /// For the disk.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: VERSION,
            revision: self.revision,
            bans: self.bans.values().cloned().collect(),
            allows: self.allows.values().cloned().collect(),
        }
    }

    /// Back from the disk, into an empty book: what is over is left out, what may no longer be banned is refused. Others are told
    /// everything anew, since what was lifted before is not known any more.
    pub fn restore(&mut self, snapshot: Snapshot, now: UnixMs) -> Vec<Refusal> {
        let mut refused = Vec::new();
        let lasts = |ends: Option<UnixMs>| ends.is_none_or(|ends| ends > now);
        for allow in snapshot.allows.into_iter().filter(|allow| lasts(allow.ends)).take(ALLOWS_MAX) {
            self.allows.insert(canonical(allow.net), allow);
        }
        self.revision = self.revision.max(snapshot.revision);
        for ban in snapshot.bans.into_iter().filter(|ban| lasts(ban.ends)) {
            let net = counted(ban.net);
            refused.extend(self.put(Ban { net, ..Arc::unwrap_or_clone(ban) }).err());
        }
        self.lifts.clear();
        self.lifts_known_from = self.revision;
        refused
    }

    /// Checks, then keeps the ban or makes a shorter one longer.
    pub(super) fn put(&mut self, ban: Ban) -> Result<Change, Refusal> {
        let net = ban.net;
        self.check(&ban)?;
        let mut ban = ban;
        if let Some(old) = self.bans.get(&net) {
            if lasts_as_long(old.ends, ban.ends) {
                return Ok(Change::default());
            }
            ban.begins = old.begins.min(ban.begins);
        } else if self.bans.len() >= BANS_MAX {
            return Err(Refusal::Full(BANS_MAX));
        }
        // Networks in an interval set must not overlap; single addresses stay in their own set.
        let inside = if is_single(&net) {
            Change::default()
        } else {
            self.lift_all(|banned| *banned != net && !is_single(banned) && net.contains(banned))
        };
        let is_longer = self.drop_old(net).is_some();
        self.revision += 1;
        ban.revision = self.revision;
        self.by_revision.insert(self.revision, net);
        self.ends.entry(set_of(&net)).or_default().insert((ban.ends.unwrap_or(NEVER), net));
        self.networks += usize::from(!is_single(&net));
        self.bans.insert(net, Arc::new(ban));
        let mut change = Change::default();
        let nets = if is_longer { &mut change.longer } else { &mut change.bans };
        nets.push(net);
        change.join(inside);
        Ok(change)
    }

    fn check(&self, ban: &Ban) -> Result<(), Refusal> {
        let net = ban.net;
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
        if let Some(allow) = self.allows.values().find(|allow| overlap(&allow.net, &net)) {
            return Err(Refusal::Allowed { net, allowed: allow.net });
        }
        match self.wider(&net) {
            Some(wider) if !is_single(&net) || lasts_as_long(wider.ends, ban.ends) => {
                Err(Refusal::Covered { net, banned: wider.net })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A ban of a wider network around this one.
    fn wider(&self, net: &IpNet) -> Option<&Ban> {
        if self.networks == 0 {
            return None;
        }
        let shortest = self.widths.v4_prefix_min.min(self.widths.v6_prefix_min).max(1);
        (shortest..net.prefix_len()).rev().find_map(|length| {
            let around = match net {
                IpNet::V4(v4) => IpNet::V4(Ipv4Net::new(v4.addr(), length).ok()?.trunc()),
                IpNet::V6(v6) => IpNet::V6(Ipv6Net::new(v6.addr(), length).ok()?.trunc()),
            };
            self.bans.get(&around).map(Arc::as_ref)
        })
    }

    fn lift_all(&mut self, which: impl Fn(&IpNet) -> bool) -> Change {
        let nets: Vec<_> = self.bans.keys().copied().filter(|net| which(net)).collect();
        nets.iter().for_each(|net| {
            self.take(*net);
        });
        Change { lifts: nets, ..Change::default() }
    }

    /// Removes a ban and remembers that it was lifted.
    pub(super) fn take(&mut self, net: IpNet) -> Option<Arc<Ban>> {
        let ban = self.drop_old(net)?;
        self.revision += 1;
        self.lifts.insert(self.revision, net);
        while self.lifts.len() > LIFTS_MAX
            && let Some((revision, _)) = self.lifts.pop_first()
        {
            self.lifts_known_from = revision;
        }
        Some(ban)
    }

    fn drop_old(&mut self, net: IpNet) -> Option<Arc<Ban>> {
        let ban = self.bans.remove(&net)?;
        self.networks -= usize::from(!is_single(&net));
        self.by_revision.remove(&ban.revision);
        if let Some(ends) = self.ends.get_mut(set_of(&net)) {
            ends.remove(&(ban.ends.unwrap_or(NEVER), net));
        }
        Some(ban)
    }
}

pub(super) fn lasts_as_long(old: Option<UnixMs>, new: Option<UnixMs>) -> bool {
    match (old, new) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(old), Some(new)) => old >= new,
    }
}
