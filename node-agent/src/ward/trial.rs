//! A trial of rules, from its beginning to its end: confirmed, or reverted by whoever comes first.

use std::time::Duration;

use node_agent_core::firewall::Plan;
use tokio::time::Instant;

use super::{
    guard::{ARM_WAIT, is_guarded},
    ledger::{Confirmed, Trial, TrialError, remove_table},
    look::whole,
    rules::Rules,
    task::Task,
    uptime::Uptime,
};

/// The guard outside comes first; the agent itself is for the case that it does not.
const GRACE_MS: i64 = 3000;
/// A guard that was ended is started again within a second or two. After so long no trial goes on without one.
const UNGUARDED_MAX: Duration = Duration::from_secs(5);

impl Task {
    /// The way back and the guard first, then the rules.
    pub(super) async fn begin_trial(
        &mut self,
        plan: Plan,
        rules: Confirmed,
        confirmed: Option<&Confirmed>,
    ) -> Result<(), TrialError> {
        let seconds = self.settings.confirm_s.clamp(5, 3600);
        let held = whole(&self.nft).await?;
        // What stands is as it was confirmed: its script leaves the bans alone. Else: as it stands, with all bans.
        let old = confirmed.filter(|old| Plan::of(&old.policy).difference(&held).is_empty());
        let way_back = match old {
            Some(old) => old.script.clone(),
            None if !held.is_there() => remove_table(),
            None => remove_table() + &self.nft.ask(&["list", "table", "inet", "ringward"]).await?,
        };
        let change = self.chance.word();
        let time = Duration::from_secs(u64::from(seconds));
        let reverts_at_unix_ms = self.now().plus_s(u64::from(seconds)).0;
        // Not over while the guard takes its post.
        let ends = Uptime::now()?.plus(time + ARM_WAIT);
        let mut trial = Trial { change, rules, ends, reverts_at_unix_ms, nft: self.settings.nft.clone() };
        self.ledger.begin(&trial, &way_back)?;
        if let Err(error) = self.guard.stand(&self.ledger, &trial).await {
            self.ledger.cancel()?;
            return Err(error);
        }
        trial.reverts_at_unix_ms = self.now().plus_s(u64::from(seconds)).0;
        trial.ends = Uptime::now()?.plus(time);
        self.ledger.go_on(&trial)?;
        if let Err(error) = self.write_rules(&plan).await {
            self.ledger.revert(&self.nft, Some(&trial.change)).await?;
            return Err(error.into());
        }
        self.tell_change("on_trial", Some(&trial.change), &trial.rules.policy);
        self.stand(Rules::on_trial(plan, trial));
        Ok(())
    }

    pub(super) async fn confirm(&mut self, trial: &Trial) -> Result<(), TrialError> {
        let _lock = self.ledger.lock().await?;
        if self.ledger.trial().is_none_or(|now| now.change != trial.change) {
            return Ok(());
        }
        self.ledger.confirm(&trial.rules)?;
        self.metrics.confirms.inc();
        tracing::info!("the change of rules is confirmed");
        self.tell_change("confirmed", Some(&trial.change), &trial.rules.policy);
        let plan = Box::new(Plan::of(&trial.rules.policy));
        self.stand(Rules::InForce { plan, state: "in_force", reason: String::new() });
        Ok(())
    }

    /// Has the guard reverted it? Should it have? Is there one?
    pub(super) async fn watch_trial(&mut self) {
        self.tell_standing();
        let Rules::OnTrial { trial, unguarded, .. } = &mut self.rules else { return };
        let is_reverted = self.ledger.trial().is_none_or(|now| now.change != trial.change);
        let is_late = trial.ends.left_ms() < -GRACE_MS;
        if is_reverted || is_late {
            self.reverted().await;
        } else if is_guarded(&self.ledger, &trial.change) {
            *unguarded = None;
        } else if unguarded.get_or_insert_with(Instant::now).elapsed() > UNGUARDED_MAX {
            // The same as after a restart: a new guard, or the old rules.
            tracing::warn!("nobody stands guard over the change of rules");
            self.reconcile_rules().await;
        }
    }

    async fn reverted(&mut self) {
        if let Ok(_lock) = self.ledger.lock().await
            && let Err(error) = self.ledger.revert(&self.nft, None).await
        {
            tracing::error!(%error, "the old rules cannot be brought back");
            return;
        }
        self.tell_revert();
        self.reconcile_rules().await;
    }

    pub(super) fn tell_revert(&self) {
        self.metrics.reverts.inc();
        tracing::error!("nobody confirmed the change of rules in time: the old rules stand again");
        self.tell_change("reverted", None, &self.wanted());
        self.finding(
            "firewall_reverted",
            "inet ringward",
            "reach this node's sshd from a management network, see `ringward-agent firewall plan`, then `ringward-agent firewall apply`",
        );
    }
}
