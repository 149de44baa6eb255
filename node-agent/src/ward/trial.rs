//! A trial of rules, from its beginning to its end: confirmed, or reverted by whoever comes first.

use node_agent_core::firewall::Plan;
use tokio::time::Instant;

use super::{
    confirm::{Confirmed, Trial, TrialError, boot, remove_table},
    look::whole,
    rules::Rules,
    task::Task,
};

/// The timer outside comes first; this one is for the case that it does not.
const GRACE_MS: u64 = 3000;

impl Task {
    /// The way back and the timer first, then the rules.
    pub(super) async fn begin_trial(
        &mut self,
        plan: Plan,
        rules: Confirmed,
        confirmed: Option<Confirmed>,
    ) -> Result<(), TrialError> {
        let seconds = self.settings.confirm_s.clamp(5, 3600);
        let held = whole(&self.nft).await?;
        // What stands is as it was confirmed: its script leaves the bans alone. Else: as it stands, with all bans.
        let old = confirmed.filter(|old| Plan::of(&old.policy).difference(&held).is_empty());
        let way_back = match old {
            Some(old) => old.script,
            None if !held.is_there() => remove_table(),
            None => remove_table() + &self.nft.ask(&["list", "table", "inet", "ringward"]).await?,
        };
        let change = self.chance.word();
        let reverts_at_unix_ms = self.now().plus_s(u64::from(seconds)).0;
        let trial = Trial { change, rules, reverts_at_unix_ms, boot: boot() };
        self.ledger.begin(&trial, &way_back)?;
        if let Err(error) = self.timer.arm(&trial.change, seconds).await {
            self.ledger.cancel()?;
            return Err(error);
        }
        if let Err(error) = self.write_rules(&plan).await {
            self.ledger.revert(&self.nft, Some(&trial.change)).await?;
            return Err(error.into());
        }
        let (plan, trial) = (Box::new(plan), Box::new(trial));
        self.stand(Rules::OnTrial { plan, trial, since: Instant::now(), heard: false });
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
        let plan = Box::new(Plan::of(&trial.rules.policy));
        self.stand(Rules::InForce { plan, reason: String::new() });
        Ok(())
    }

    /// Has the timer reverted it? Should it have?
    pub(super) async fn watch_trial(&mut self) {
        self.tell_standing();
        let Rules::OnTrial { trial, .. } = &self.rules else { return };
        let is_reverted = self.ledger.trial().is_none_or(|now| now.change != trial.change);
        let is_late = self.now().0 > trial.reverts_at_unix_ms + GRACE_MS;
        if is_reverted || is_late {
            self.reverted().await;
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
        self.finding(
            "firewall_reverted",
            "inet ringward",
            "reach this node's sshd from a management network, see `ringward-agent firewall plan`, then `ringward-agent firewall apply`",
        );
    }
}
