//! The one task that weighs: findings in, bans to the ward, what happened to the spool.
//!
//! It never waits for the kernel: bans are under way beside it, a bounded number of them, and only when so many are
//! does it stop weighing, which makes the sources wait.

use std::{mem, sync::Arc, time::Duration};

use node_agent_core::{
    bans::{Change, Order, is_single, share::Difference},
    offence::{Finding, Source},
    rules::{Decision, InvalidJail, Remembered, Rules, RulesSettings, Verdict},
};
use node_agent_protocol::fact_kind;
use rand::RngCore;
use serde_json::json;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Piece,
    metrics::Outcome,
    tally::{Tally, Told},
};
use crate::{
    clock::{Chance, Clock},
    identity::StateDir,
    metrics::Metrics,
    spool::Spool,
    ward::{Refused, Ward},
};

/// Who was banned before.
const FILE: &str = "repeaters.json";
/// Bans that are under way.
const BANS_MAX: usize = 256;
/// Findings weighed at a time: some 20 µs, after which other work has its turn.
const AT_A_TIME_MAX: usize = 64;
/// Between two reports, and two savings.
const REPORT_EVERY: Duration = Duration::from_secs(30);
const OLD_PASSWORD: &str =
    "A phone there logs in with an old password again and again; it is not banned for that";
const PROTECTED: &str = "It offends as attackers do, and is never banned: look what runs there";
const REFUSED: &str = "The rules want to ban what may not be banned: look what it does";
const NOT_ENFORCED: &str = "Bans are decided and not brought about: set firewall.mode = \"on\" and a policy with a \
                            management network, or rules.jails.NAME.simulate = true";

/// What it works with.
pub(super) struct Parts {
    pub(super) node: String,
    pub(super) ward: Ward,
    pub(super) spool: Spool,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) state: StateDir,
}

/// What comes back from the ward.
enum Done {
    Ban(Box<Verdict>, Result<Change, Refused>),
    Since(Result<Difference, Refused>),
}

pub(super) struct Judge {
    parts: Parts,
    rules: Rules,
    tally: Tally,
    under_way: JoinSet<Done>,
    /// Of the ward's bans: up to here lifts were heard of.
    heard: u64,
    saved: Vec<Remembered>,
}

impl Judge {
    /// Remembers who was banned before.
    pub(super) fn new(parts: Parts, settings: &RulesSettings, chance: &Chance) -> Result<Self, InvalidJail> {
        let mut rng = chance.fork();
        let protected = parts.ward.protected().borrow().as_ref().clone();
        let mut rules = Rules::new(settings, protected, [rng.next_u64(), rng.next_u64()])?;
        let saved: Vec<Remembered> = match std::fs::read(parts.state.path(FILE)) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, "who was banned before is forgotten");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        rules.recall(saved.iter().cloned());
        Ok(Self { parts, rules, tally: Tally::default(), under_way: JoinSet::new(), heard: 0, saved })
    }

    /// Weighs for as long as the program runs.
    pub(super) async fn weigh(mut self, mut pieces: mpsc::Receiver<Piece>) {
        let (mut protected, mut revisions) = (self.parts.ward.protected(), self.parts.ward.revisions());
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = Instant::now();
        loop {
            let has_room = self.under_way.len() < BANS_MAX;
            tokio::select! {
                // What protects comes before what bans.
                biased;
                Ok(()) = protected.changed() => {
                    let now = protected.borrow_and_update().as_ref().clone();
                    self.rules.protect(now);
                }
                Some(done) = self.under_way.join_next() => {
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                Ok(()) = revisions.changed() => {
                    revisions.borrow_and_update();
                    let (ward, heard) = (self.parts.ward.clone(), self.heard);
                    self.under_way.spawn(async move { Done::Since(ward.since(heard).await) });
                }
                _ = reports.tick() => {
                    let seconds = mem::replace(&mut reported, Instant::now()).elapsed().as_secs();
                    self.report(seconds);
                    self.save().await;
                }
                piece = pieces.recv(), if has_room => match piece {
                    Some(piece) => self.pieces(&piece, &mut pieces),
                    None => return,
                }
            }
        }
    }

    fn tell(&self, told: Option<Told>) {
        if let Some((kind, body)) = told {
            self.parts.spool.add(kind, body);
        }
    }

    fn report(&mut self, seconds: u64) {
        for (kind, body) in self.tally.report(seconds) {
            tracing::warn!(kind, %body, "hardening");
            self.parts.spool.add(kind, body);
        }
    }

    /// This one, and those that wait behind it.
    fn pieces(&mut self, first: &Piece, more: &mut mpsc::Receiver<Piece>) {
        self.piece(first);
        for _ in 1..AT_A_TIME_MAX {
            if self.under_way.len() >= BANS_MAX {
                return;
            }
            let Ok(piece) = more.try_recv() else { return };
            self.piece(&piece);
        }
    }

    fn piece(&mut self, Piece { jail, finding }: &Piece) {
        let (metrics, now) = (&self.parts.metrics.evidence, super::now(&self.parts.clock));
        match finding {
            Finding::Offence(offence) => {
                metrics.offence(jail, offence.kind);
                self.tally.offence(jail, offence);
            }
            Finding::Nobody(reason) => metrics.nobody(jail, *reason),
            Finding::Success(_) | Finding::Neutral => {}
        }
        let outcome = match self.rules.weigh(jail, finding, now) {
            Decision::Nothing => return,
            Decision::Count { .. } => Outcome::Counted,
            Decision::Banned { .. } => Outcome::Banned,
            Decision::Warn { source, account, repeats } => {
                let subject = format!("{} at {source}", account.as_str());
                tracing::warn!(%jail, %source, account = account.as_str(), repeats, "an old password");
                let told = self.tally.finding("old_password", &subject, OLD_PASSWORD, now);
                self.tell(told);
                Outcome::Warned
            }
            Decision::Protected { source, by } => {
                let told = self.tally.finding(
                    "protected_offends",
                    &format!("{source} ({})", by.group),
                    PROTECTED,
                    now,
                );
                self.tell(told);
                Outcome::Protected
            }
            Decision::Held { source, proof } => {
                self.tally.held(proof, source);
                Outcome::Held
            }
            Decision::Ban(verdict) if verdict.simulate || self.is_dry() => {
                self.simulated(&verdict);
                Outcome::Simulated
            }
            Decision::Ban(verdict) => return self.ban(verdict),
        };
        self.parts.metrics.evidence.outcome(jail, outcome);
    }

    /// The whole firewall is a dry run.
    fn is_dry(&self) -> bool {
        self.parts.ward.standing().borrow().state == "simulate"
    }

    fn simulated(&self, verdict: &Verdict) {
        tracing::info!(net = %verdict.net, seconds = verdict.seconds, why = %verdict, "would be banned: a dry run");
        self.parts.spool.add(fact_kind::BAN_SIMULATED, body(verdict));
    }

    fn ban(&mut self, verdict: Verdict) {
        let (ward, order) = (self.parts.ward.clone(), Order::of(&verdict, &self.parts.node));
        self.under_way.spawn(async move { Done::Ban(Box::new(verdict), ward.ban(order).await) });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Ban(verdict, result) => {
                let outcome = self.banned(&verdict, result);
                self.parts.metrics.evidence.outcome(&verdict.jail, outcome);
            }
            Done::Since(Ok(Difference::Since { revision, lifts, .. })) => {
                self.heard = self.heard.max(revision);
                // Who was let go starts anew, wherever that was ordered.
                let lifted =
                    lifts.iter().filter(|net| is_single(net)).filter_map(|net| Source::of(net.addr()));
                lifted.for_each(|source| self.rules.forget(source));
            }
            Done::Since(Ok(Difference::Full { revision, .. })) => self.heard = self.heard.max(revision),
            Done::Since(Err(error)) => tracing::debug!(%error, "lifts are not heard of"),
        }
    }

    fn banned(&mut self, verdict: &Verdict, result: Result<Change, Refused>) -> Outcome {
        let (net, seconds) = (verdict.net, verdict.seconds);
        match result {
            Ok(_) => {
                tracing::info!(%net, seconds, why = %verdict, "banned");
                self.parts.spool.add(fact_kind::OFFENCE, body(verdict));
                Outcome::Ban
            }
            // It is in the list, and repair brings it into the kernel.
            Err(Refused::Kernel(error)) => {
                tracing::error!(%net, %error, "a ban is late");
                self.parts.spool.add(fact_kind::OFFENCE, body(verdict));
                Outcome::Ban
            }
            Err(Refused::Rules(refusal)) => {
                tracing::warn!(%net, why = %refusal, "a ban of the rules is refused");
                let now = super::now(&self.parts.clock);
                let told = self.tally.finding("ban_refused", &refusal.to_string(), REFUSED, now);
                self.tell(told);
                Outcome::Refused
            }
            Err(refused @ (Refused::NotInForce(_) | Refused::NotOnTrial | Refused::Stopped)) => {
                // Nothing holds him: the next offences count again.
                if let Some(source) = Source::of(net.addr()) {
                    self.rules.forget(source);
                }
                let now = super::now(&self.parts.clock);
                let told = self.tally.finding("bans_not_enforced", &refused.to_string(), NOT_ENFORCED, now);
                if told.is_some() {
                    tracing::warn!(%net, why = %refused, "would be banned");
                }
                self.tell(told);
                Outcome::Failed
            }
        }
    }

    async fn save(&mut self) {
        let remembered = self.rules.remembered();
        if remembered == self.saved {
            return;
        }
        self.saved = remembered;
        let Ok(text) = serde_json::to_vec(&self.saved) else { return };
        let state = self.parts.state.clone();
        let saved = tokio::task::spawn_blocking(move || state.write(FILE, &text)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "who was banned before is not kept");
        }
    }
}

/// What a ban rests on. The ban itself is told of by the ward, like every other one.
fn body(verdict: &Verdict) -> serde_json::Value {
    json!({
        "net": verdict.net, "author": format!("jail {}", verdict.jail), "reason": verdict.to_string(),
        "jail": verdict.jail, "seconds": verdict.seconds,
        "evidence": json!({
            "kind": verdict.kind, "offences": verdict.offences, "accounts": verdict.accounts,
            "account": verdict.account, "proof": verdict.proof, "step": verdict.step,
        }).to_string(),
    })
}
