//! Bans between this node and the fleet: takes pages of the fleet's list, tells of its own bans, and of those of the
//! fleet that it refuses.
//!
//! Up to which revision the fleet's list is held is known in memory only: after a restart the whole list comes again,
//! and changes nothing that is there. What came from the fleet is never told back to it. Every ban of the fleet goes
//! through this node's own checks (`Ward::fleet`).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use node_agent_core::{
    bans::{Ban, By, Refusal, counted, share::Difference},
    firewall::Carrier,
    moment::UnixMs,
    protected::canonical,
};
use node_agent_protocol::{
    BanBy, BanChanges, BanLifted, BanMade, BanPage, BanRefused, BansHeld, FleetBan, Hardening, Text, Up,
    fact_kind,
};
use serde::Serialize;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::sleep,
};

use super::{Fleet, Refused, Ward};
use crate::{clock::Clock, spool::Spool};

/// Bans, lifts and allowances that a whole list may hold while it comes, page by page.
const WHOLE_MAX: usize = node_agent_core::bans::BANS_MAX + node_agent_core::bans::ALLOWS_MAX;
/// Refusals that are remembered as told.
const REFUSALS_TOLD_MAX: usize = 1_000;
/// A page that the ward cannot take now is asked for again after that.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The origin of what operators order at the control plane.
const CONTROL_PLANE: &str = "control_plane";

/// The handle; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Sharing {
    ward: Ward,
    spool: Spool,
    node: String,
    clock: Clock,
    state: Arc<Mutex<State>>,
    protect: watch::Sender<Fleet>,
    replicas: Arc<std::sync::Mutex<Replicas>>,
}

#[derive(Debug, Default)]
struct State {
    held: BansHeld,
    /// This node's own count of changes up to which the fleet was told.
    told: u64,
    refused: BTreeSet<IpNet>,
}

/// Where replicas were reached, and what the control plane said last.
#[derive(Debug, Default)]
struct Replicas {
    reached: BTreeMap<String, IpNet>,
    /// None before its first policy: what the ward knows from before the start must not give way to nothing.
    said: Option<Fleet>,
}

/// The pages of a whole list, as far as they have come on one link.
#[derive(Debug, Default)]
struct Pages {
    bans: BTreeMap<IpNet, FleetBan>,
    allows: BTreeSet<IpNet>,
}

impl Sharing {
    pub(crate) fn new(ward: Ward, spool: Spool, node: String, clock: Clock) -> Self {
        let state = State { told: *ward.revisions().borrow(), ..State::default() };
        let (protect, replicas) = (watch::Sender::new(Fleet::default()), Arc::default());
        Self { ward, spool, node, clock, state: Arc::new(Mutex::new(state)), protect, replicas }
    }

    /// Tells the fleet of this node's own bans, and the ward of whom to protect, for as long as the program runs.
    pub(crate) async fn keep(self) {
        let mut revisions = self.ward.revisions();
        let mut protect = self.protect.subscribe();
        loop {
            tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let mut state = self.state.lock().await;
                    self.tell(&mut state, &HashSet::new()).await;
                }
                // The sender lives as long as this handle.
                Ok(()) = protect.changed() => {
                    let fleet = protect.borrow_and_update().clone();
                    if let Err(error) = self.ward.protect(fleet).await {
                        tracing::error!(%error, "what the control plane says of carriers and management is not in force");
                    }
                }
            }
        }
    }

    /// A control plane was reached here.
    pub(crate) fn reached(&self, url: &str, address: SocketAddr) {
        self.change(|replicas| {
            replicas.reached.insert(url.to_owned(), IpNet::from(address.ip().to_canonical()));
        });
    }

    /// What a policy says of who is never banned.
    pub(crate) fn protect(&self, hardening: Hardening) {
        let carriers = hardening.carriers.into_iter().map(|carrier| Carrier {
            name: carrier.carrier.to_string(),
            signalling: carrier.signalling.into_vec(),
            media: carrier.media.into_vec(),
        });
        let said = Fleet {
            carriers: carriers.collect(),
            control_plane: hardening.control_plane.into_vec(),
            management: hardening.management.into_vec(),
        };
        self.change(|replicas| replicas.said = Some(said));
    }

    fn change(&self, change: impl FnOnce(&mut Replicas)) {
        let mut replicas = self.replicas.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut replicas);
        let Some(mut fleet) = replicas.said.clone() else { return };
        fleet.control_plane.extend(replicas.reached.values());
        fleet.control_plane.sort_unstable();
        fleet.control_plane.dedup();
        self.protect.send_if_modified(|known| {
            let is_new = *known != fleet;
            *known = fleet;
            is_new
        });
    }

    /// Follows the fleet's list over one link: says what is held, takes the pages that come.
    pub(crate) async fn follow(self, mut changes: mpsc::Receiver<BanChanges>, answers: mpsc::Sender<Up>) {
        let mut pages = Pages::default();
        let mut held = self.state.lock().await.held.clone();
        loop {
            if answers.send(Up::Bans(held)).await.is_err() {
                return;
            }
            let Some(page) = changes.recv().await else { return };
            held = match self.take(page, &mut pages).await {
                Ok(held) => held,
                Err(error) => {
                    tracing::warn!(%error, "the fleet's bans cannot be taken now");
                    pages = Pages::default();
                    sleep(AGAIN_AFTER).await;
                    self.state.lock().await.held.clone()
                }
            };
        }
    }

    async fn take(&self, page: BanChanges, pages: &mut Pages) -> Result<BansHeld, Refused> {
        let now = self.now();
        let taken = BansHeld { list: page.list.clone(), revision: page.revision };
        let mut state = self.state.lock().await;
        let lifts: Vec<IpNet> = page.lifts.iter().copied().map(counted).collect();
        let is_whole = match page.page {
            BanPage::Changes => false,
            BanPage::Whole | BanPage::WholeEnd => true,
        };
        if !is_whole && (page.list != state.held.list || page.after != state.held.revision) {
            // Another replica was faster, or slower.
            return Ok(state.held.clone());
        }
        // Allowances first: what they touch is not banned at all then.
        for allow in &page.allows {
            let allowed = self.ward.allow(allow.net, allow.seconds_left, by(&allow.by)).await;
            passable(allowed.map(drop))?;
        }
        for net in &page.disallows {
            passable(self.ward.disallow(*net, fleets()).await)?;
        }
        let difference = if is_whole {
            if page.after == 0 {
                *pages = Pages::default();
            }
            for net in &lifts {
                pages.bans.remove(net);
            }
            for net in &page.disallows {
                pages.allows.remove(&canonical(*net));
            }
            pages.allows.extend(page.allows.iter().map(|allow| canonical(allow.net)));
            pages.bans.extend(page.bans.into_iter().map(|ban| (counted(ban.net), ban)));
            if pages.bans.len() + pages.allows.len() > WHOLE_MAX {
                return Err(Refused::Rules(Refusal::Full(WHOLE_MAX)));
            }
            if page.page == BanPage::Whole {
                return Ok(taken);
            }
            let Pages { bans, allows } = std::mem::take(pages);
            self.disallow_others(&allows).await?;
            let bans = bans.into_values().map(|ban| ban_of(ban, now)).collect();
            Difference::Full { revision: taken.revision, bans }
        } else {
            // Its own come back to it: it has them, to the millisecond.
            let others = page.bans.into_iter().filter(|ban| ban.by.origin.as_str() != self.node);
            let bans = others.map(|ban| ban_of(ban, now)).collect();
            Difference::Since { revision: taken.revision, bans, lifts: lifts.clone() }
        };
        let mut from_fleet: HashSet<IpNet> = lifts.into_iter().collect();
        let (Difference::Since { bans, .. } | Difference::Full { bans, .. }) = &difference;
        from_fleet.extend(bans.iter().map(|ban| ban.net));
        let merged = self.ward.fleet(difference).await?;
        from_fleet.extend(&merged.change.lifts);
        self.refuse(&mut state, &merged.refused);
        self.tell(&mut state, &from_fleet).await;
        state.held = taken.clone();
        Ok(taken)
    }

    /// Takes back allowances of the fleet that its whole list does not name.
    async fn disallow_others(&self, named: &BTreeSet<IpNet>) -> Result<(), Refused> {
        for allow in self.ward.list().await?.allows {
            if allow.by.origin == CONTROL_PLANE && !named.contains(&allow.net) {
                passable(self.ward.disallow(allow.net, fleets()).await)?;
            }
        }
        Ok(())
    }

    /// Tells of what is new here and did not come from the fleet.
    async fn tell(&self, state: &mut State, from_fleet: &HashSet<IpNet>) {
        let is_dry = self.ward.standing().borrow().state == "simulate";
        let (revision, bans, lifts) = match self.ward.since(state.told).await {
            Ok(Difference::Since { revision, bans, lifts }) => (revision, bans, lifts),
            Ok(Difference::Full { revision, bans }) => (revision, bans, Vec::new()),
            Err(_) => return,
        };
        state.told = revision;
        // What is only simulated must not be banned in earnest elsewhere.
        if is_dry {
            return;
        }
        for net in lifts.into_iter().filter(|net| !from_fleet.contains(net)) {
            let (author, reason) = (Text::cut("an operator on the node"), Text::default());
            self.add(fact_kind::UNBAN, &BanLifted { net, author, reason });
        }
        let now = self.now();
        for ban in bans.into_iter().filter(|ban| ban.by.origin == self.node && !from_fleet.contains(&ban.net))
        {
            // Rounded down: what is told twice is never longer the second time.
            let left = ban.ends.map(|ends| ends.since_ms(now) / 1_000);
            if left == Some(0) {
                continue;
            }
            self.add(
                fact_kind::BAN,
                &BanMade {
                    net: ban.net,
                    author: Text::cut(&ban.by.author),
                    reason: Text::cut(&ban.by.reason),
                    jail: ban.jail.as_ref().map(|jail| Text::cut(&jail.to_string())),
                    evidence: None,
                    seconds: left.map(|left| u32::try_from(left).unwrap_or(u32::MAX)),
                },
            );
        }
    }

    /// Tells of refusals, each once.
    fn refuse(&self, state: &mut State, refusals: &[Refusal]) {
        for refusal in refusals {
            let Some(net) = net_of(refusal) else { continue };
            if state.refused.len() >= REFUSALS_TOLD_MAX {
                state.refused.clear();
            }
            if state.refused.insert(net) {
                tracing::warn!(%refusal, "a ban of the fleet is refused");
                let reason = Text::cut(&refusal.to_string());
                self.add(fact_kind::BAN_REFUSED, &BanRefused { net, reason });
            }
        }
    }

    fn add(&self, kind: &str, body: &impl Serialize) {
        match serde_json::to_value(body) {
            Ok(body) => self.spool.add(kind, body),
            Err(error) => tracing::error!(kind, %error, "a fact cannot be written"),
        }
    }

    fn now(&self) -> UnixMs {
        UnixMs(u64::try_from(self.clock.unix_ms()).unwrap_or_default())
    }
}

/// What an operator of the control plane takes back.
fn fleets() -> By {
    By { origin: CONTROL_PLANE.to_owned(), author: CONTROL_PLANE.to_owned(), reason: String::new() }
}

/// What the rules refuse of one allowance holds nothing else up.
fn passable(done: Result<(), Refused>) -> Result<(), Refused> {
    match done {
        Err(Refused::Rules(refusal)) => {
            if !matches!(refusal, Refusal::Absent(_)) {
                tracing::warn!(%refusal, "an allowance of the fleet is refused");
            }
            Ok(())
        }
        Err(
            refused @ (Refused::NotInForce(_) | Refused::Kernel(_) | Refused::NotOnTrial | Refused::Stopped),
        ) => Err(refused),
        Ok(()) => Ok(()),
    }
}

fn by(by: &BanBy) -> By {
    By {
        origin: by.origin.as_str().to_owned(),
        author: by.author.as_str().to_owned(),
        reason: by.reason.as_str().to_owned(),
    }
}

fn ban_of(ban: FleetBan, now: UnixMs) -> Ban {
    let mut by = by(&ban.by);
    if let Some(evidence) = ban.evidence {
        by.reason = format!("{} ({evidence})", by.reason);
    }
    Ban {
        net: counted(ban.net),
        by,
        jail: ban.jail.and_then(|jail| jail.as_str().parse().ok()),
        begins: now,
        ends: ban.seconds_left.map(|left| now.plus_s(u64::from(left))),
        revision: 0,
    }
}

fn net_of(refusal: &Refusal) -> Option<IpNet> {
    match refusal {
        Refusal::Everything(net)
        | Refusal::TooWide { net, .. }
        | Refusal::Protected { net, .. }
        | Refusal::Allowed { net, .. }
        | Refusal::Covered { net, .. } => Some(*net),
        Refusal::Absent(_) | Refusal::NoTime | Refusal::Full(_) => None,
    }
}
