//! The task behind the handle: requests in, one batch to the kernel, answers out.

use std::sync::Arc;

use ipnet::IpNet;
use node_agent_core::{
    bans::{Bans, Change, Refusal},
    firewall::{InvalidPolicy, Plan, Policy, elements::Batch},
    moment::UnixMs,
};
use tokio::sync::{mpsc, watch};

use super::{Fleet, Listing, Nft, REQUESTS_MAX, Refused, Request, Standing, Ward};
use crate::{
    clock::Clock,
    settings::{FirewallMode, FirewallSettings},
};

/// Requests that go to the kernel together at most.
const BATCH_REQUESTS_MAX: usize = 512;

/// What the task works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// This node's name: the origin of its bans.
    pub node: String,
    /// `[firewall]`.
    pub settings: FirewallSettings,
    /// The wall clock.
    pub clock: Clock,
}

/// Starts the task and gives its handle. The future is to be spawned; dropping it leaves the kernel as it is.
#[must_use]
pub fn start(parts: Parts) -> (Ward, impl Future<Output = ()> + Send) {
    let (requests, queue) = mpsc::channel(REQUESTS_MAX);
    let (heard, _) = watch::channel(0);
    let (revision_out, revision) = watch::channel(0);
    let (protected_out, protected) = watch::channel(Arc::default());
    let (standing_out, standing) = watch::channel(Standing::default());
    let ward = Ward { requests, heard: Arc::new(heard), revision, protected, standing };
    let policy = parts.settings.policy.clone();
    let bans = Bans::new(&parts.node, parts.settings.widths, policy.protected());
    let nft = Nft::new(parts.settings.nft.clone());
    let task = Task {
        nft,
        bans,
        fleet: Fleet::default(),
        settings: parts.settings,
        clock: parts.clock,
        plan: None,
        reason: String::new(),
        revision: revision_out,
        protected: protected_out,
        standing: standing_out,
    };
    (ward, task.run(queue))
}

type Settle = Box<dyn FnOnce(Result<(), Refused>) + Send>;

struct Task {
    nft: Nft,
    bans: Bans,
    fleet: Fleet,
    settings: FirewallSettings,
    clock: Clock,
    /// What the kernel should hold.
    plan: Option<Plan>,
    reason: String,
    revision: watch::Sender<u64>,
    protected: watch::Sender<Arc<node_agent_core::protected::Protected>>,
    standing: watch::Sender<Standing>,
}

/// What goes to the kernel next, and who waits for it.
#[derive(Default)]
struct Work {
    change: Change,
    settle: Vec<Settle>,
}

impl Work {
    fn add(&mut self, change: &Change, settle: Settle) {
        self.change.bans.extend(&change.bans);
        self.change.longer.extend(&change.longer);
        self.change.lifts.extend(&change.lifts);
        self.settle.push(settle);
    }
}

impl Task {
    fn now(&self) -> UnixMs {
        UnixMs(u64::try_from(self.clock.unix_ms()).unwrap_or_default())
    }

    /// The settings' policy with what the control plane says.
    fn policy(&self) -> Policy {
        let mut policy = self.settings.policy.clone();
        policy.carriers.extend(self.fleet.carriers.iter().cloned());
        policy.control_plane.extend(&self.fleet.control_plane);
        policy.management.extend(&self.fleet.management);
        policy
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        self.begin().await;
        while let Some(request) = queue.recv().await {
            let mut work = Work::default();
            self.take(request, &mut work).await;
            while work.settle.len() < BATCH_REQUESTS_MAX
                && let Ok(request) = queue.try_recv()
            {
                self.take(request, &mut work).await;
            }
            self.bring_about(work).await;
        }
    }

    async fn begin(&mut self) {
        let policy = self.policy();
        self.protected.send_replace(Arc::new(self.bans.protected()));
        let standing = match self.settings.mode {
            FirewallMode::Off => Err(("off", "the settings say off".to_owned())),
            FirewallMode::Simulate => Ok("simulate"),
            FirewallMode::On => match policy.check(&[], false) {
                Err(error @ (InvalidPolicy::LockOut(_) | InvalidPolicy::Wrong(_))) => {
                    Err(("waiting", error.to_string()))
                }
                Ok(()) => {
                    let plan = Plan::of(&policy);
                    match self.nft.load(&plan.refresh()).await {
                        Ok(()) => {
                            self.plan = Some(plan);
                            Ok("in_force")
                        }
                        Err(error) => Err(("waiting", error.to_string())),
                    }
                }
            },
        };
        let (state, reason) = match standing {
            Ok(state) => (state, String::new()),
            Err((state, reason)) => (state, reason),
        };
        self.reason.clone_from(&reason);
        self.standing.send_replace(Standing { state: state.to_owned(), reason, reverts_at_unix_ms: None });
    }

    /// Whether bans can be made at all.
    fn stands(&self) -> Result<(), Refused> {
        let is_dry = self.settings.mode == FirewallMode::Simulate;
        if is_dry || self.plan.is_some() { Ok(()) } else { Err(Refused::NotInForce(self.reason.clone())) }
    }

    async fn take(&mut self, request: Request, work: &mut Work) {
        let now = self.now();
        for net in self.bans.expire(now) {
            tracing::debug!(%net, "a ban is over");
        }
        let stands = self.stands();
        let of_rules = |result: Result<Change, Refusal>| result.map_err(Refused::Rules);
        match request {
            Request::Ban(order, answer) => {
                let done = stands.and_then(|()| of_rules(self.bans.ban(*order, now)));
                later(work, done, answer);
            }
            Request::Import { text, seconds, by, answer } => match stands {
                Err(refused) => drop(answer.send(Err(refused))),
                Ok(()) => {
                    let imported = self.bans.import(&text, seconds, &by, now);
                    work.add(
                        &imported.change.clone(),
                        Box::new(|kernel| drop(answer.send(kernel.map(|()| imported)))),
                    );
                }
            },
            Request::Lift(net, by, answer) => {
                let done = of_rules(self.bans.lift(net));
                if done.is_ok() {
                    tracing::info!(%net, author = by.author, reason = by.reason, "a ban is lifted");
                }
                later(work, done, answer);
            }
            Request::Allow { net, seconds, by, answer } => {
                let done = of_rules(self.bans.allow(net, seconds, by, now));
                self.protected.send_replace(Arc::new(self.bans.protected()));
                later(work, done, answer);
            }
            Request::Disallow(net, by, answer) => {
                let done = self.bans.disallow(net).map_err(Refused::Rules);
                if done.is_ok() {
                    tracing::info!(%net, author = by.author, reason = by.reason, "an allowance is taken back");
                    self.protected.send_replace(Arc::new(self.bans.protected()));
                }
                drop(answer.send(done));
            }
            Request::Why(address, answer) => drop(answer.send(Ok(self.bans.why(address)))),
            Request::List(answer) => {
                let listing = Listing {
                    bans: self.bans.all().cloned().collect(),
                    allows: self.bans.allows().cloned().collect(),
                };
                drop(answer.send(Ok(listing)));
            }
            Request::Since(revision, answer) => drop(answer.send(Ok(self.bans.since(revision)))),
            Request::Fleet(difference, answer) => match stands {
                Err(refused) => drop(answer.send(Err(refused))),
                Ok(()) => {
                    let merged = self.bans.merge(difference, now);
                    work.add(
                        &merged.change.clone(),
                        Box::new(|kernel| drop(answer.send(kernel.map(|()| merged)))),
                    );
                }
            },
            Request::Protect(fleet, answer) => {
                self.fleet = *fleet;
                let change = self.bans.protect(self.policy().protected());
                self.protected.send_replace(Arc::new(self.bans.protected()));
                work.add(&change, Box::new(|kernel| drop(answer.send(kernel))));
            }
            Request::Retry(answer) => drop(answer.send(stands)),
        }
    }

    async fn bring_about(&mut self, work: Work) {
        self.revision.send_if_modified(|revision| {
            let is_new = *revision != self.bans.revision();
            *revision = self.bans.revision();
            is_new
        });
        let result = if self.plan.is_some() && !work.change.is_empty() {
            let script = self.script(&work.change);
            self.nft.load(&script).await.map_err(|error| Refused::Kernel(error.to_string()))
        } else {
            Ok(())
        };
        for settle in work.settle {
            settle(result.clone());
        }
    }

    fn script(&self, change: &Change) -> String {
        let (mut batch, now) = (Batch::new(), self.now());
        let held = |net: &IpNet| self.bans.get(net);
        // What was banned and lifted again within one batch is only lifted.
        change.lifts.iter().filter(|net| held(net).is_none()).for_each(|net| batch.lift(net));
        change.bans.iter().filter_map(held).for_each(|ban| batch.ban(ban, now));
        change.longer.iter().filter_map(held).for_each(|ban| batch.renew(ban, now));
        batch.script()
    }
}

fn later<T: Send + 'static>(work: &mut Work, done: Result<Change, Refused>, answer: super::Answer<T>)
where
    Change: Into<T>,
{
    match done {
        Err(refused) => drop(answer.send(Err(refused))),
        Ok(change) => {
            let copy = change.clone();
            work.add(&copy, Box::new(|kernel| drop(answer.send(kernel.map(|()| change.into())))));
        }
    }
}
