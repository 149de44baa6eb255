//! Which rules should stand in the kernel, and how they get there: at once where nobody can be locked out by it,
//! on trial otherwise. `repair` puts right what somebody else has changed.

use std::time::Duration;

use node_agent_core::{
    bans::By,
    firewall::{Plan, Policy},
    protected::canonical,
};
use node_agent_protocol::fact_kind;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Fleet, KernelError, Refused, Standing,
    ledger::{Confirmed, Trial, TrialError},
    look::{Samples, look, whole},
    task::Task,
};
use crate::settings::FirewallMode;

const FLEET: &str = "firewall-fleet.json";
/// What comes from a control plane so soon after a change may have been sent before it.
const FRESH_AFTER: Duration = Duration::from_secs(1);

fn rules_and_nets() -> Samples {
    Samples { with_nets: true, ..Samples::default() }
}

/// What stands.
pub(super) enum Rules {
    /// Nothing of ours, for this reason.
    None { state: &'static str, reason: String },
    /// Confirmed rules. `state` and `reason` tell of newer ones that were reverted or cannot be used.
    InForce { plan: Box<Plan>, state: &'static str, reason: String },
    /// On trial since then.
    OnTrial { plan: Box<Plan>, trial: Box<Trial>, since: Instant, heard: bool, unguarded: Option<Instant> },
}

impl Rules {
    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::None { .. } => None,
            Self::InForce { plan, .. } | Self::OnTrial { plan, .. } => Some(plan),
        }
    }

    pub(super) fn is_trial(&self) -> bool {
        matches!(self, Self::OnTrial { .. })
    }

    /// Their trial begins, or goes on. `heard`: a control plane or an operator here spoke after it began.
    pub(super) fn on_trial(plan: Plan, trial: Trial) -> Self {
        let (plan, trial) = (Box::new(plan), Box::new(trial));
        Self::OnTrial { plan, trial, since: Instant::now(), heard: false, unguarded: None }
    }

    /// An operator here names the change that he confirms, so his word came after it began.
    pub(super) fn vouched(&mut self, named: &str) -> bool {
        match self {
            Self::OnTrial { trial, heard, .. } if trial.change == named => {
                *heard = true;
                true
            }
            Self::OnTrial { .. } | Self::InForce { .. } | Self::None { .. } => false,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if let Self::OnTrial { since, heard, .. } = self
            && now.duration_since(*since) >= FRESH_AFTER
        {
            *heard = true;
        }
    }

    fn standing(&self) -> Standing {
        let (state, reason, trial) = match self {
            Self::None { state, reason } | Self::InForce { state, reason, .. } => {
                (*state, reason.clone(), None)
            }
            Self::OnTrial { trial, heard, .. } => {
                let wanted = if *heard {
                    "waits for a new ssh connection from a management network"
                } else {
                    "waits for a new ssh connection from a management network, and for a control plane's message \
                     or `ringward-agent firewall confirm`"
                };
                ("on_trial", wanted.to_owned(), Some(trial))
            }
        };
        Standing {
            state: state.to_owned(),
            reason,
            reverts_at_unix_ms: trial.map(|trial| trial.reverts_at_unix_ms),
            reverts_in_s: None,
            change: trial.map(|trial| trial.change.clone()),
            plan: Vec::new(),
            ends: trial.map(|trial| trial.ends.clone()),
        }
    }
}

/// The settings' policy with what a control plane says and this node's own addresses.
pub(super) fn joined(settings: &Policy, fleet: &Fleet, own: &[std::net::IpAddr]) -> Policy {
    let mut policy = settings.clone();
    policy.carriers.extend(fleet.carriers.iter().cloned());
    for (nets, more) in
        [(&mut policy.control_plane, &fleet.control_plane), (&mut policy.management, &fleet.management)]
    {
        nets.extend(more.iter().map(|net| canonical(*net)));
        nets.sort_unstable();
        nets.dedup();
    }
    policy.own.extend(own);
    policy
}

/// What a control plane last said, for a start without one.
pub(super) fn fleet_on_disk(state: &crate::identity::StateDir) -> Fleet {
    let bytes = std::fs::read(state.path(FLEET)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

impl Task {
    /// What should stand by settings and control plane.
    pub(super) fn wanted(&self) -> Policy {
        joined(&self.settings.policy, &self.fleet, &self.own)
    }

    pub(super) fn stand(&mut self, rules: Rules) {
        self.told = match &rules {
            Rules::OnTrial { trial, .. } => trial.rules.policy.told(),
            Rules::InForce { .. } => {
                self.ledger.confirmed().map(|rules| rules.policy.told()).unwrap_or_default()
            }
            Rules::None { state: "simulate", .. } => self.wanted().told(),
            Rules::None { .. } => Vec::new(),
        };
        self.rules = rules;
        self.tell_standing();
    }

    pub(super) fn tell_standing(&self) {
        let standing = Standing { plan: self.told.clone(), ..self.rules.standing() };
        self.metrics.state(&standing.state);
        self.standing.send_if_modified(|told| {
            let is_new = *told != standing;
            if is_new {
                tracing::info!(state = standing.state, reason = standing.reason, "the firewall");
                *told = standing;
            }
            is_new
        });
    }

    fn none(&mut self, state: &'static str, reason: impl Into<String>) {
        self.stand(Rules::None { state, reason: reason.into() });
    }

    pub(super) fn finding(&self, finding: &str, subject: &str, fix: &str) {
        let body = json!({"finding": finding, "subject": subject, "fix": fix});
        self.spool.add(fact_kind::FINDING, body);
    }

    /// What becomes of a change of rules.
    pub(super) fn tell_change(&self, event: &str, change: Option<&str>, plan: &Policy) {
        let plan = if matches!(event, "on_trial" | "in_force") { plan.told() } else { Vec::new() };
        let seconds = (event == "on_trial").then_some(self.settings.confirm_s.clamp(5, 3600));
        let body = json!({"event": event, "change": change, "seconds": seconds, "plan": plan});
        self.spool.add(fact_kind::FIREWALL, body);
    }

    /// At the start: what was kept on disk, beside what the kernel holds.
    pub(super) async fn begin(&mut self) {
        self.fleet = fleet_on_disk(&self.state);
        let _ = self.bans.protect(self.wanted().protected());
        match self.settings.mode {
            FirewallMode::Off => self.none("off", "the settings say off"),
            FirewallMode::Simulate => {
                let plan = Plan::of(&self.wanted());
                match self.wanted().check(&[], false) {
                    Err(error) => tracing::warn!(%error, "the firewall's policy could not be applied"),
                    Ok(()) => match look(self.nft.clone(), plan, rules_and_nets()).await {
                        Ok(look) => tracing::info!(differences = look.difference.len(), "would be changed"),
                        Err(error) => tracing::warn!(%error, "nft does not answer"),
                    },
                }
                self.none("simulate", "the settings say simulate");
            }
            FirewallMode::On => {
                self.restore().await;
                self.reconcile_rules().await;
            }
        }
        self.tell_protected();
    }

    /// Bans from disk, with the kernel's word on their time.
    async fn restore(&mut self) {
        let mut snapshot = self.keeper.load().unwrap_or_else(|| self.bans.snapshot());
        let now = self.now();
        match whole(&self.nft).await {
            Ok(held) => {
                let by = By {
                    origin: self.node.clone(),
                    author: "unknown".to_owned(),
                    reason: "found in the kernel's set after a restart".to_owned(),
                };
                if held.is_there() {
                    snapshot.follow(&held.bans(), &by, now);
                }
            }
            Err(error) => tracing::warn!(%error, "the kernel's bans cannot be read; those on disk are taken"),
        }
        for refused in self.bans.restore(snapshot, now) {
            tracing::warn!(%refused, "a ban is not restored");
        }
    }

    /// Takes what a control plane says, unless the policy that it makes cannot be used.
    pub(super) async fn take_fleet(&mut self, fleet: Fleet) -> Result<(), Refused> {
        if fleet == self.fleet {
            return Ok(());
        }
        let policy = joined(&self.settings.policy, &fleet, &self.own);
        if self.settings.mode == FirewallMode::On {
            policy.check(&[], false).map_err(|error| Refused::NotInForce(error.to_string()))?;
        }
        self.fleet = fleet;
        if let Err(error) =
            serde_json::to_vec(&self.fleet).map_err(Into::into).and_then(|b| self.state.write(FLEET, &b))
        {
            tracing::warn!(%error, "what the control plane says is not kept on disk");
        }
        if self.settings.mode == FirewallMode::On {
            self.reconcile_rules().await;
        }
        Ok(())
    }

    /// Brings the wanted rules about, or puts them on trial.
    pub(super) async fn reconcile_rules(&mut self) {
        if let Err(error) = self.try_reconcile().await {
            tracing::error!(%error, "the firewall's rules cannot be changed");
            self.metrics.failures.inc();
            if self.rules.plan().is_none() {
                self.none("waiting", error.to_string());
            }
        }
    }

    async fn try_reconcile(&mut self) -> Result<(), TrialError> {
        let wanted = self.wanted();
        let _lock = self.ledger.lock().await?;
        self.look = None;
        let plan = Plan::of(&wanted);
        let rules = Confirmed { script: plan.refresh(), policy: wanted };
        if let Some(trial) = self.ledger.trial() {
            let is_running = trial.ends.left_ms() > 0;
            let mut unguarded = None;
            if is_running && trial.rules.script == rules.script {
                match self.guard.stand(&self.ledger, &trial).await {
                    Ok(()) => {
                        // Killed on trial and started again: its time goes on.
                        self.stand(Rules::on_trial(plan, trial));
                        return Ok(());
                    }
                    Err(error) => unguarded = Some(error),
                }
            }
            self.ledger.revert(&self.nft, None).await?;
            if is_running {
                // Other rules are wanted by now, or nobody stands guard: these were never judged.
                self.ledger.forgive()?;
            } else {
                self.tell_revert();
            }
            if let Some(error) = unguarded {
                return self.keep_confirmed(self.ledger.confirmed(), "waiting", self.unguarded(&error)).await;
            }
        }
        let confirmed = self.ledger.confirmed();
        if let Err(error) = rules.policy.check(&[], false) {
            return self.keep_confirmed(confirmed, "waiting", error.to_string()).await;
        }
        if self.ledger.rejected().is_some_and(|rejected| rejected.script == rules.script) {
            let reason =
                "nobody confirmed these rules: see `ringward-agent firewall plan`, then `firewall apply`";
            return self.keep_confirmed(confirmed, "reverted", reason.to_owned()).await;
        }
        let is_harmless = confirmed.as_ref().is_some_and(|old| {
            old.script == rules.script
                || (rules.policy.keeps_way_in(&old.policy) && Plan::of(&old.policy).refresh() == old.script)
        });
        if is_harmless {
            self.write_rules(&plan).await?;
            self.ledger.confirm(&rules)?;
            if confirmed.is_none_or(|old| old.script != rules.script) {
                self.tell_change("in_force", None, &rules.policy);
            }
            self.stand(Rules::InForce { plan: Box::new(plan), state: "in_force", reason: String::new() });
            return Ok(());
        }
        match self.begin_trial(plan, rules, confirmed.as_ref()).await {
            Err(error @ TrialError::Unguarded(_)) => {
                self.keep_confirmed(confirmed, "waiting", self.unguarded(&error)).await
            }
            begun => begun,
        }
    }

    /// Nothing is changed, for this reason.
    fn unguarded(&self, error: &TrialError) -> String {
        let why = error.to_string();
        tracing::error!(why, "the firewall's rules are not changed");
        self.metrics.failures.inc();
        self.finding("firewall_unguarded", "inet ringward", &why);
        why
    }

    /// The confirmed rules stay, or nothing if there are none.
    async fn keep_confirmed(
        &mut self,
        confirmed: Option<Confirmed>,
        state: &'static str,
        reason: String,
    ) -> Result<(), TrialError> {
        match confirmed {
            None => self.none(state, reason),
            Some(confirmed) => {
                let plan = Plan::of(&confirmed.policy);
                self.write_rules(&plan).await?;
                let state = if state == "reverted" { state } else { "in_force" };
                self.stand(Rules::InForce { plan: Box::new(plan), state, reason });
            }
        }
        Ok(())
    }

    /// The rules into the kernel. A table that is absent, of another form, or without our bans, is made anew with
    /// all bans, in one transaction.
    pub(super) async fn write_rules(&mut self, plan: &Plan) -> Result<(), KernelError> {
        self.look = None;
        let held = whole(&self.nft).await?;
        let has_bans = {
            let held: std::collections::BTreeSet<_> = held.bans().into_iter().map(|ban| ban.net).collect();
            held.len() == self.bans.all().count() && self.bans.all().all(|ban| held.contains(&ban.net))
        };
        let difference = plan.difference(&held);
        if held.is_there() && has_bans {
            if difference.is_empty() {
                return Ok(());
            }
            if self.nft.load(&plan.refresh()).await.is_ok() && self.differs(plan).await?.is_none() {
                return Ok(());
            }
        }
        let script = plan.replace(self.bans.all(), self.now());
        self.nft.load(&script).await?;
        match self.differs(plan).await? {
            None => Ok(()),
            Some(first) => Err(KernelError::Answer(format!("the table reads back otherwise: {first}"))),
        }
    }

    /// The first thing that the kernel holds otherwise than planned, bans apart.
    async fn differs(&self, plan: &Plan) -> Result<Option<String>, KernelError> {
        let look = look(self.nft.clone(), plan.clone(), rules_and_nets()).await?;
        Ok(look.difference.into_iter().next())
    }
}
