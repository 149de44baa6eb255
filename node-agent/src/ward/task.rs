//! The task behind the handle: requests in, one batch to the kernel, answers out; between them it looks after the
//! kernel, the trial of a change and the snapshot.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use node_agent_core::{
    bans::{Bans, By, Change, Order},
    firewall::elements::Batch,
    moment::UnixMs,
    protected::Protected,
};
use node_agent_protocol::fact_kind;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Answer, Fleet, KernelError, Listing, Nft, REQUESTS_MAX, Refused, Request, Standing, Ward, guard::Guard,
    ledger::Ledger, look::Look, metrics::WardMetrics, own, rules::Rules, snapshot::Keeper,
};
use crate::{
    clock::{Chance, Clock},
    identity::StateDir,
    metrics::Metrics,
    settings::{FirewallMode, FirewallSettings},
    spool::Spool,
};

/// Requests that go to the kernel together at most.
const BATCH_REQUESTS_MAX: usize = 512;
/// Between two looks at the kernel; a trial is looked at each time, else every fourth.
const TICK: Duration = Duration::from_millis(500);
pub(super) const LOOK_EVERY: u32 = 4;
/// Bans of single addresses are asked for more rarely: for some 20 ms, however few they are, the kernel takes no new ban meanwhile.
pub(super) const LOOK_AT_BANS_EVERY: u32 = 6;
/// Kinds of facts: an operator allowed a network, or took that back. Body as of a ban by an operator:
/// `{net, seconds, origin, author, reason}`.
const ALLOW: &str = "allow";
const DISALLOW: &str = "disallow";
/// Own addresses are read anew after so many ticks.
const OWN_EVERY: u32 = 60;

/// What the task works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// This node's name: the origin of its bans.
    pub node: String,
    /// `[firewall]`.
    pub settings: FirewallSettings,
    /// Where bans, confirmed rules and the way back lie.
    pub state: StateDir,
    /// The wall clock.
    pub clock: Clock,
    /// Names of changes.
    pub chance: Chance,
    /// Findings go there.
    pub spool: Spool,
    /// Counted.
    pub metrics: Arc<Metrics>,
    /// This very program: it reverts what nobody confirms.
    pub program: PathBuf,
}

/// Starts the task and gives its handle. The future is to be spawned; dropping it leaves the kernel as it is.
pub fn start(parts: Parts) -> (Ward, impl Future<Output = ()> + Send) {
    let (requests, queue) = mpsc::channel(REQUESTS_MAX);
    let (heard_in, heard) = watch::channel(0);
    let (revision_out, revision) = watch::channel(0);
    let (protected_out, protected) = watch::channel(Arc::default());
    let (standing_out, standing) = watch::channel(Standing::default());
    let ward = Ward { requests, heard: Arc::new(heard_in), revision, protected, standing };
    let guard = Guard { program: parts.program, state_dir: parts.state.path(""), kind: parts.settings.timer };
    let task = Task {
        nft: Nft::new(parts.settings.nft.clone()),
        bans: Bans::new(&parts.node, parts.settings.widths, Protected::default()),
        fleet: Fleet::default(),
        own: own::addresses(),
        keeper: Keeper::new(parts.state.clone()),
        ledger: Ledger::new(parts.state.clone()),
        rules: Rules::None { state: "off", reason: "the settings say off".to_owned() },
        guard,
        node: parts.node,
        settings: parts.settings,
        state: parts.state,
        clock: parts.clock,
        chance: parts.chance,
        spool: parts.spool,
        metrics: parts.metrics.ward.clone(),
        look: None,
        ticks: 0,
        looked: None,
        heard,
        written: 0,
        revision: revision_out,
        protected: protected_out,
        standing: standing_out,
        told: Vec::new(),
    };
    (ward, task.run(queue))
}

type Settle = Box<dyn FnOnce(Result<(), Refused>) + Send>;

pub(super) struct Task {
    pub(super) nft: Nft,
    pub(super) bans: Bans,
    pub(super) fleet: Fleet,
    pub(super) own: Vec<std::net::IpAddr>,
    pub(super) keeper: Keeper,
    pub(super) ledger: Ledger,
    pub(super) rules: Rules,
    pub(super) guard: Guard,
    pub(super) node: String,
    pub(super) settings: FirewallSettings,
    pub(super) state: StateDir,
    clock: Clock,
    pub(super) chance: Chance,
    pub(super) spool: Spool,
    pub(super) metrics: WardMetrics,
    /// Under way; dropped when the rules are written meanwhile.
    pub(super) look: Option<JoinHandle<Result<Look, KernelError>>>,
    pub(super) ticks: u32,
    /// Up to here bans were looked at.
    pub(super) looked: Option<IpNet>,
    /// Messages of control planes.
    heard: watch::Receiver<u64>,
    /// The revision of bans that was last told and written.
    written: u64,
    revision: watch::Sender<u64>,
    protected: watch::Sender<Arc<Protected>>,
    pub(super) standing: watch::Sender<Standing>,
    /// What the rules that stand let in, in words.
    pub(super) told: Vec<String>,
}

/// What goes to the kernel next, and who waits for it.
#[derive(Default)]
struct Work {
    change: Change,
    settle: Vec<Settle>,
}

impl Work {
    fn add<T: Send + 'static>(&mut self, change: &Change, answer: Answer<T>, done: T) {
        self.change.bans.extend(&change.bans);
        self.change.longer.extend(&change.longer);
        self.change.lifts.extend(&change.lifts);
        self.settle.push(Box::new(|kernel| drop(answer.send(kernel.map(|()| done)))));
    }
}

impl Task {
    pub(super) fn now(&self) -> UnixMs {
        UnixMs(u64::try_from(self.clock.unix_ms()).unwrap_or_default())
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        self.begin().await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                request = queue.recv() => {
                    let Some(request) = request else { return };
                    let mut work = Work::default();
                    self.take(request, &mut work).await;
                    while work.settle.len() < BATCH_REQUESTS_MAX
                        && let Ok(request) = queue.try_recv()
                    {
                        self.take(request, &mut work).await;
                    }
                    self.bring_about(work).await;
                }
                changed = self.heard.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.rules.heard(Instant::now());
                }
                look = async { match &mut self.look {
                    Some(look) => look.await,
                    None => std::future::pending().await,
                } } => {
                    self.look = None;
                    match look {
                        Ok(look) => self.seen(look).await,
                        Err(error) => tracing::error!(%error, "looking at the kernel broke"),
                    }
                }
                _ = ticks.tick() => self.tick().await,
                () = self.keeper.is_due() => self.keeper.write(self.bans.snapshot()),
            }
        }
    }

    async fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        self.expire();
        if self.ticks.is_multiple_of(OWN_EVERY) {
            let own = own::addresses();
            if own != self.own {
                self.own = own;
                let work = Work { change: self.protect(), settle: Vec::new() };
                self.bring_about(work).await;
            }
        }
        let is_trial = self.rules.is_trial();
        if is_trial {
            self.watch_trial().await;
        }
        let is_time = [LOOK_EVERY, LOOK_AT_BANS_EVERY].iter().any(|every| self.ticks.is_multiple_of(*every));
        if self.look.is_none() && (is_trial || is_time) {
            self.begin_look();
        }
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.metrics.held(&self.bans);
        }
    }

    fn expire(&mut self) {
        let now = self.now();
        if self.bans.next_deadline().is_some_and(|deadline| deadline <= now) {
            let over = self.bans.expire(now).len();
            tracing::debug!(over, "bans are over");
            self.tell_protected();
        }
    }

    /// Whether bans can be made at all.
    fn stands(&self) -> Result<(), Refused> {
        match &self.rules {
            Rules::None { state: "simulate", .. } | Rules::InForce { .. } | Rules::OnTrial { .. } => Ok(()),
            Rules::None { reason, .. } => Err(Refused::NotInForce(reason.clone())),
        }
    }

    async fn take(&mut self, request: Request, work: &mut Work) {
        self.expire();
        let now = self.now();
        match request {
            Request::Ban(order, answer) => {
                let done = self.stands().and_then(|()| Ok(self.bans.ban((*order).clone(), now)?));
                self.tell_ban(&order, &done);
                later(work, done, answer);
            }
            Request::Import { text, seconds, by, answer } => match self.stands() {
                Err(refused) => drop(answer.send(Err(refused))),
                Ok(()) => {
                    let imported = self.bans.import(&text, seconds, &by, now);
                    imported.change.bans.iter().for_each(|_| self.metrics.banned("operator"));
                    tracing::info!(
                        nets = imported.nets,
                        not_taken = imported.not_taken,
                        author = by.author,
                        "a list"
                    );
                    work.add(&imported.change.clone(), answer, imported);
                }
            },
            Request::Lift(net, by, answer) => {
                let done = self.bans.lift(net).map_err(Refused::Rules);
                self.audit(fact_kind::UNBAN, &net, &by, None, done.is_ok());
                later(work, done, answer);
            }
            Request::Allow { net, seconds, by, answer } => {
                let done = self.bans.allow(net, seconds, by.clone(), now).map_err(Refused::Rules);
                self.audit(ALLOW, &net, &by, seconds, done.is_ok());
                self.tell_protected();
                later(work, done, answer);
            }
            Request::Disallow(net, by, answer) => {
                let done = self.bans.disallow(net).map_err(Refused::Rules);
                self.audit(DISALLOW, &net, &by, None, done.is_ok());
                self.tell_protected();
                drop(answer.send(done));
            }
            Request::Why(address, answer) => drop(answer.send(Ok(self.bans.why(address)))),
            Request::List(answer) => {
                let bans = self.bans.all().cloned().collect();
                let listing = Listing { bans, allows: self.bans.allows().cloned().collect() };
                drop(answer.send(Ok(listing)));
            }
            Request::Since(revision, answer) => drop(answer.send(Ok(self.bans.since(revision)))),
            Request::Fleet(difference, answer) => match self.stands() {
                Err(refused) => drop(answer.send(Err(refused))),
                Ok(()) => {
                    let merged = self.bans.merge(difference, now);
                    merged.change.bans.iter().for_each(|_| self.metrics.banned("fleet"));
                    merged.refused.iter().for_each(|r| self.metrics.refused(&Refused::Rules(r.clone())));
                    work.add(&merged.change.clone(), answer, merged);
                }
            },
            Request::Protect(fleet, answer) => {
                let done = self.take_fleet(*fleet).await;
                match done {
                    Err(refused) => drop(answer.send(Err(refused))),
                    Ok(()) => {
                        let change = self.protect();
                        work.add(&change, answer, ());
                    }
                }
            }
            Request::Retry(answer) => {
                let done = self.ledger.forgive().map_err(|error| Refused::Kernel(error.to_string()));
                if done.is_ok() {
                    self.reconcile_rules().await;
                }
                drop(answer.send(done.and_then(|()| self.stands())));
            }
            Request::Confirm { change, author, answer } => {
                let done = if self.rules.vouched(&change) { Ok(()) } else { Err(Refused::NotOnTrial) };
                tracing::info!(
                    change,
                    author,
                    is_taken = done.is_ok(),
                    "an operator confirms a change of rules"
                );
                if done.is_ok() {
                    let body = json!({"change": change, "author": author});
                    self.spool.add(fact_kind::FIREWALL_CONFIRMED, body);
                    self.tell_standing();
                }
                drop(answer.send(done));
            }
        }
    }

    /// Protects whom the policy protects now; gives what that lifts.
    fn protect(&mut self) -> Change {
        let change = self.bans.protect(self.wanted().protected());
        self.tell_protected();
        change
    }

    /// What an operator ordered, as a fact for the control plane.
    fn audit(&self, kind: &str, net: &IpNet, by: &By, seconds: Option<u32>, is_done: bool) {
        if is_done {
            tracing::info!(%net, seconds, author = by.author, reason = by.reason, "{kind}");
            let By { origin, author, reason } = by;
            let body = json!({
                "net": net, "seconds": seconds, "origin": origin, "author": author, "reason": reason,
            });
            self.spool.add(kind, body);
        }
    }

    fn tell_ban(&self, order: &Order, done: &Result<Change, Refused>) {
        match done {
            Ok(change) if change.is_empty() => {}
            Ok(_) => {
                self.metrics.banned(order.jail.as_ref().map_or("operator", |jail| jail.as_str()));
                let simulated = self.settings.mode == FirewallMode::Simulate;
                let (author, reason) = (&order.by.author, &order.by.reason);
                tracing::info!(net = %order.net, seconds = order.seconds, author, reason, simulated, "banned");
                if order.jail.is_none() {
                    self.audit(fact_kind::BAN, &order.net, &order.by, order.seconds, !simulated);
                }
            }
            Err(refused) => {
                self.metrics.refused(refused);
                tracing::info!(net = %order.net, author = order.by.author, %refused, "not banned");
            }
        }
    }

    /// Wakes who shares bans, and the snapshot.
    pub(super) fn told(&mut self) {
        self.written = self.bans.revision();
        let revision = self.written;
        self.revision.send_if_modified(|told| std::mem::replace(told, revision) != revision);
        if self.settings.mode == FirewallMode::On {
            self.keeper.changed();
        }
    }

    /// Who is never banned may be others now.
    pub(super) fn tell_protected(&mut self) {
        self.protected.send_replace(Arc::new(self.bans.protected()));
        self.told();
    }

    async fn bring_about(&mut self, work: Work) {
        if self.written != self.bans.revision() {
            self.told();
        }
        let mut result = Ok(());
        if self.rules.plan().is_some() && !work.change.is_empty() {
            let script = self.script(&work.change);
            if let Err(error) = self.nft.load(&script).await {
                // Somebody flushed the table, or a network is still there that overlaps: all of it anew.
                tracing::warn!(%error, "the kernel did not take bans");
                self.metrics.failures.inc();
                result = self.repair("bans were not taken").await.map_err(|e| Refused::Kernel(e.to_string()));
            }
        }
        for settle in work.settle {
            settle(result.clone());
        }
    }

    fn script(&self, change: &Change) -> String {
        let (mut batch, now) = (Batch::new(), self.now());
        let held = |net: &IpNet| self.bans.get(net);
        // Lifted and banned again within one batch is renewed.
        let is_lifted = |net: &&IpNet| held(net).is_none();
        change.lifts.iter().filter(is_lifted).for_each(|net| batch.lift(net));
        let again = change.lifts.iter().chain(&change.longer).filter_map(held);
        let renewed: BTreeMap<IpNet, _> = again.map(|ban| (ban.net, ban)).collect();
        renewed.values().for_each(|ban| batch.renew(ban, now));
        let is_new = |net: &&IpNet| !renewed.contains_key(*net);
        change.bans.iter().filter(is_new).filter_map(held).for_each(|ban| batch.ban(ban, now));
        batch.script()
    }
}

fn later(work: &mut Work, done: Result<Change, Refused>, answer: Answer<Change>) {
    match done {
        Err(refused) => drop(answer.send(Err(refused))),
        Ok(change) => work.add(&change.clone(), answer, change),
    }
}

impl From<KernelError> for Refused {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error.to_string())
    }
}
