//! What Prometheus is told of bans and the firewall.

use std::collections::BTreeMap;

use node_agent_core::bans::{Bans, Refusal};
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Refused;

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct WardMetrics {
    bans: IntCounterVec,
    held: IntGaugeVec,
    refused: IntCounterVec,
    dropped: IntGaugeVec,
    state: IntGaugeVec,
    pub(crate) repairs: IntCounter,
    pub(crate) reverts: IntCounter,
    pub(crate) confirms: IntCounter,
    pub(crate) failures: IntCounter,
}

const SETS: [&str; 4] = ["ban4", "ban6", "bannet4", "bannet6"];
const STATES: [&str; 6] = ["off", "simulate", "waiting", "on_trial", "in_force", "reverted"];

impl WardMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let metrics = Self {
            bans: counters(
                "ringward_agent_bans_total",
                "Bans made, by jail; operator for those of people, fleet for those of other nodes.",
                "jail",
            )?,
            held: gauges("ringward_agent_bans", "Bans in force, by the kernel's set.", "set")?,
            refused: counters(
                "ringward_agent_bans_refused_total",
                "Bans that were not made, by reason.",
                "reason",
            )?,
            dropped: gauges(
                "ringward_agent_firewall_dropped_packets",
                "Packets dropped since the rules were last written, by rule.",
                "rule",
            )?,
            state: gauges(
                "ringward_agent_firewall_state",
                "1 for the state that the firewall is in.",
                "state",
            )?,
            repairs: counter(
                "ringward_agent_firewall_repairs_total",
                "Times that the table was not as it should be and was put right.",
            )?,
            reverts: counter(
                "ringward_agent_firewall_reverts_total",
                "Changes of rules that nobody confirmed and that were taken back.",
            )?,
            confirms: counter(
                "ringward_agent_firewall_confirms_total",
                "Changes of rules that were confirmed.",
            )?,
            failures: counter("ringward_agent_firewall_failures_total", "Runs of nft that failed.")?,
        };
        SETS.iter().for_each(|set| metrics.held.with_label_values(&[set]).set(0));
        metrics.state("off");
        Ok(metrics)
    }

    pub(crate) fn banned(&self, jail: &str) {
        self.bans.with_label_values(&[jail]).inc();
    }

    pub(crate) fn refused(&self, refused: &Refused) {
        let reason = match refused {
            Refused::NotInForce(_) => "not_in_force",
            Refused::Kernel(_) => "kernel",
            Refused::Stopped => "stopped",
            Refused::NotOnTrial => "not_on_trial",
            Refused::Rules(refusal) => match refusal {
                Refusal::Everything(_) => "everything",
                Refusal::TooWide { .. } => "too_wide",
                Refusal::Protected { .. } => "protected",
                Refusal::Allowed { .. } => "allowed",
                Refusal::Covered { .. } => "covered",
                Refusal::NoTime => "no_time",
                Refusal::Full(_) => "full",
                Refusal::Absent(_) => "absent",
            },
        };
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn state(&self, state: &str) {
        for name in STATES {
            self.state.with_label_values(&[name]).set(i64::from(name == state));
        }
    }

    pub(crate) fn held(&self, bans: &Bans) {
        for (set, size) in bans.sizes() {
            self.held.with_label_values(&[set]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn dropped(&self, counters: BTreeMap<String, u64>) {
        for (rule, packets) in counters {
            self.dropped.with_label_values(&[&rule]).set(i64::try_from(packets).unwrap_or(i64::MAX));
        }
    }
}
