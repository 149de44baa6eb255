//! The periodic look at the kernel: what others changed is put right, and what confirms a trial is seen.

use ipnet::IpNet;
use node_agent_core::{
    bans::Ban,
    firewall::{HANDSHAKES, elements::Batch},
    moment::UnixMs,
};
use tokio::time::Instant;

use super::{
    KernelError,
    ledger::TrialError,
    look::{Look, Samples, look},
    rules::Rules,
    task::{LOOK_AT_BANS_EVERY, LOOK_EVERY, Task},
};

/// Bans of which one look asks for those of single addresses, beside those that last longest: some 40 ms. All of up to so many
/// are looked at every three seconds, of more each a part.
const PART_MAX: usize = 1_000;
/// Bans of networks that are looked at as often; of more, at every 15th look only.
const NETS_MAX: usize = 2_000;
const MANY_NETS_EVERY: u32 = LOOK_EVERY * 15;
/// So many lost bans are put back by themselves; of more, the table is made anew with all.
const LOST_MAX: usize = 16;
/// A ban that ends so soon may end between book and kernel.
const ENDS_SOON_MS: u64 = 30_000;

impl Task {
    pub(super) fn begin_look(&mut self) {
        let Some(plan) = self.rules.plan().cloned() else { return };
        let samples = self.samples();
        self.look = Some(tokio::spawn(look(self.nft.clone(), plan, samples)));
    }

    /// A part of the bans, the next one at each look, and of each set the one that lasts longest: a flush of the set loses
    /// that, too. No more is walked through, since bans wait meanwhile.
    fn samples(&mut self) -> Samples {
        let soon = UnixMs(self.now().0 + ENDS_SOON_MS);
        let lasts = |ban: &&Ban| ban.ends.is_none_or(|ends| ends > soon);
        let is_single = |ban: &&Ban| ban.is_single();
        let (mut singles, mut nets) = (Vec::<IpNet>::new(), Vec::new());
        // On trial there are more looks; they are for the handshake.
        if self.ticks.is_multiple_of(LOOK_AT_BANS_EVERY) {
            singles.extend(self.bans.longest().filter(is_single).filter(lasts).map(|ban| ban.net));
            let part: Vec<_> = self.bans.after(self.looked).take(PART_MAX).collect();
            let last = part.last().map(|ban| ban.net);
            singles.extend(part.into_iter().filter(is_single).filter(lasts).map(|ban| ban.net));
            self.looked = last;
        }
        let with_nets = self.ticks.is_multiple_of(LOOK_EVERY);
        if with_nets {
            let are_many = self.bans.networks().nth(NETS_MAX).is_some();
            if !are_many || self.ticks.is_multiple_of(MANY_NETS_EVERY) {
                nets.extend(self.bans.networks().filter(lasts).map(|ban| ban.net));
            }
        }
        singles.sort_unstable();
        singles.dedup();
        Samples { with_nets, singles, nets }
    }

    pub(super) async fn seen(&mut self, look: Result<Look, KernelError>) {
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                tracing::warn!(%error, "the kernel's rules cannot be read");
                self.metrics.failures.inc();
                return;
            }
        };
        let counters = look.held.counters();
        let handshakes = counters.get(HANDSHAKES).copied().unwrap_or_default();
        self.metrics.dropped(counters);
        // What was lifted meanwhile is not lost.
        let lost: Vec<_> = look.lost.into_iter().filter(|net| self.bans.get(net).is_some()).collect();
        if let Some(first) = look.difference.first() {
            let what = format!("{first} ({} differences)", look.difference.len());
            self.put_right(&what).await;
        } else if lost.len() > LOST_MAX {
            self.put_right("bans are missing").await;
        } else if !lost.is_empty() {
            self.ban_again(&lost).await;
        } else if let Rules::OnTrial { trial, heard: true, .. } = &self.rules
            && handshakes > 0
        {
            let trial = trial.clone();
            if let Err(error) = self.confirm(&trial).await {
                tracing::error!(%error, "a change of rules cannot be confirmed");
            }
        }
    }

    async fn put_right(&mut self, what: &str) {
        if let Err(error) = self.repair(what).await {
            tracing::error!(%error, what, "the firewall cannot be put right");
        }
    }

    /// Puts back what somebody took out of the sets by hand.
    async fn ban_again(&mut self, lost: &[IpNet]) {
        let (mut batch, now) = (Batch::new(), self.now());
        lost.iter().filter_map(|net| self.bans.get(net)).for_each(|ban| batch.ban(ban, now));
        let nets = lost.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("bans are missing: {nets}");
        match self.nft.load(&batch.script()).await {
            Ok(()) => self.repaired(&what),
            Err(error) => {
                tracing::warn!(%error, "the kernel did not take bans");
                self.put_right(&what).await;
            }
        }
    }

    /// The kernel as it should be, unless the guard has just reverted what stands.
    pub(super) async fn repair(&mut self, what: &str) -> Result<(), TrialError> {
        let Some(plan) = self.rules.plan().cloned() else { return Ok(()) };
        {
            let _lock = self.ledger.lock().await?;
            if self.rules.is_trial() && self.ledger.trial().is_none() {
                return Err(TrialError::Reverted);
            }
            let began = Instant::now();
            self.look = None;
            let script = plan.replace(self.bans.all(), self.now());
            self.nft.load(&script).await?;
            tracing::info!(took_ms = began.elapsed().as_millis(), "the table was made anew");
        }
        self.repaired(what);
        Ok(())
    }

    fn repaired(&self, what: &str) {
        tracing::warn!(what, "the firewall was put right");
        self.metrics.repairs.inc();
        let fix = "see who else writes rules on this node: `nft monitor`; lift a ban by `ringward-agent ban remove`";
        self.finding("firewall_repaired", what, fix);
    }
}
