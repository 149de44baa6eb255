//! What Prometheus learns of the declared fleet: nodes, trunks and routes. Counters are told as things happen, gauges
//! are read when scraped.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    ending::EndingClass,
    fleet::{Fleet as DeclaredFleet, Trunk},
    health::{Met, NodeState, TrunkState},
    names::{CarrierName, NodeName, TrunkName},
};
use node_agent_ami::{Purpose, TamperKind};
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::time::Instant;

use super::{counts::Counts, pulse::Pulse};
use crate::registry::Registry as Fleet;

/// The labels of a trunk's series.
const TRUNK: [&str; 3] = ["node", "trunk", "carrier"];

fn labels(trunk: &Trunk) -> [&str; 3] {
    [trunk.node.as_str(), trunk.name.as_str(), trunk.carrier.as_str()]
}

fn counts<const N: usize>(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: [&'static str; N],
    by: &'static str,
    words: impl Iterator<Item = &'static str>,
) -> Result<Counts<N>, prometheus::Error> {
    let counts = Counts::new(name, help, labels, by, words)?;
    registry.register(Box::new(counts.clone()))?;
    Ok(counts)
}

fn met_word(met: Met) -> &'static str {
    match met {
        Met::AsExpected => "as_expected",
        Met::Otherwise => "otherwise",
    }
}

/// The metrics.
pub(crate) struct FleetMetrics {
    attempts_ended: Counts<3>,
    canaries_ended: IntCounterVec,
    survivors_hung_up: IntCounterVec,
    node_up: IntGaugeVec,
    node_state: IntGaugeVec,
    node_draining: IntGaugeVec,
    node_ami_rtt_seconds: GaugeVec,
    node_transitions: Counts<1>,
    trunk_usable: IntGaugeVec,
    trunk_channels: IntGaugeVec,
    trunk_state: IntGaugeVec,
    trunk_suspensions: IntGaugeVec,
    trunk_asr: GaugeVec,
    trunk_transitions: Counts<3>,
    qualify_rtt_seconds: HistogramVec,
    pdd_seconds: HistogramVec,
    talk_seconds: HistogramVec,
    route_panic: IntGaugeVec,
    ami_tampering: Counts<2>,
    /// The last hour.
    pub(crate) pulse: Arc<Pulse>,
}

impl FleetMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name that is there twice: a mistake in this file.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let reals = |name: &str, help: &str, labels: &[&str]| {
            let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        // Few buckets: there is one of each for every trunk.
        let histograms = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histograms = HistogramVec::new(opts, &TRUNK)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        Ok(Self {
            pulse: Arc::default(),
            attempts_ended: counts(
                registry,
                "ringward_attempts_ended_total",
                "Attempts ended, by what the ending means.",
                TRUNK,
                "class",
                EndingClass::ALL.iter().map(|class| class.as_str()),
            )?,
            canaries_ended: counters(
                "ringward_canaries_ended_total",
                "Canary calls ended, by whether they met what they should. No customer's call is among them.",
                &["node", "trunk", "carrier", "met"],
            )?,
            survivors_hung_up: counters(
                "ringward_survivors_hung_up_total",
                "Channels that lived on although their attempt had been given up or had ended, and were hung up.",
                &["node"],
            )?,
            node_up: gauges(
                "ringward_node_up",
                "1 while the node's AMI session is up and checked.",
                &["node"],
            )?,
            node_state: gauges(
                "ringward_node_state",
                "1 for the state that the node is in, 0 for the others.",
                &["node", "state"],
            )?,
            node_draining: gauges(
                "ringward_node_draining",
                "1 while an operator drains the node.",
                &["node"],
            )?,
            node_ami_rtt_seconds: reals(
                "ringward_node_ami_rtt_seconds",
                "Round trip of the latest ping on the node's AMI session.",
                &["node"],
            )?,
            node_transitions: counts(
                registry,
                "ringward_node_transitions_total",
                "Changes of the node's state, by the state that it came to.",
                ["node"],
                "state",
                NodeState::ALL.iter().map(|state| state.as_str()),
            )?,
            trunk_usable: gauges(
                "ringward_trunk_usable",
                "1 while a call could be sent over the trunk: node, configuration and health allow it.",
                &["node", "trunk", "carrier"],
            )?,
            trunk_channels: gauges(
                "ringward_trunk_channels",
                "Attempts that hold a channel of the trunk.",
                &["node", "trunk", "carrier"],
            )?,
            trunk_state: gauges(
                "ringward_trunk_state",
                "1 for the state that the trunk's health is in, 0 for the others.",
                &["node", "trunk", "carrier", "state"],
            )?,
            trunk_suspensions: gauges(
                "ringward_trunk_suspensions",
                "Destinations and caller ids that the trunk is spared for.",
                &TRUNK,
            )?,
            trunk_asr: reals(
                "ringward_trunk_asr_ratio",
                "Answer-seizure ratio of the trunk's latest calls (at most 128, of 5 minutes); absent without calls.",
                &TRUNK,
            )?,
            trunk_transitions: counts(
                registry,
                "ringward_trunk_transitions_total",
                "Changes of the trunk's state, by the state that it came to.",
                TRUNK,
                "state",
                TrunkState::ALL.iter().map(|state| state.as_str()),
            )?,
            qualify_rtt_seconds: histograms(
                "ringward_trunk_qualify_rtt_seconds",
                "Round trips of the OPTIONS that qualify the trunk's contact.",
                &[0.005, 0.02, 0.05, 0.1, 0.25, 0.4, 1.0, 3.0],
            )?,
            pdd_seconds: histograms(
                "ringward_trunk_pdd_seconds",
                "Post-dial delay: from the Originate to the first 180 or the answer.",
                &[0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
            )?,
            talk_seconds: histograms(
                "ringward_trunk_talk_seconds",
                "Length of answered attempts, from the answer to the end. Sum by count is the ACD.",
                &[2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0],
            )?,
            route_panic: gauges(
                "ringward_route_panic",
                "1 while too few of the route's trunks are held to work, so that calls are tried over all.",
                &["route"],
            )?,
            ami_tampering: counts(
                registry,
                "ringward_ami_tampering_total",
                "Blocks of strangers' text in AMI streams, by how they gave themselves away. Counted, not acted on.",
                ["node", "session"],
                "kind",
                TamperKind::ALL.iter().map(|kind| kind.as_str()),
            )?,
        })
    }

    /// Series of the declared fleet's counters exist from its declaration, at zero: a first one must be seen
    /// as a rise.
    pub(crate) fn declare(&self, fleet: &DeclaredFleet) {
        for trunk in fleet.trunks() {
            self.attempts_ended.declare(labels(trunk));
            self.trunk_transitions.declare(labels(trunk));
            let [node, name, carrier] = labels(trunk);
            if trunk.canary.is_some() {
                for met in [Met::AsExpected, Met::Otherwise] {
                    self.canaries_ended.with_label_values(&[node, name, carrier, met_word(met)]);
                }
            }
            for histogram in [&self.qualify_rtt_seconds, &self.pdd_seconds, &self.talk_seconds] {
                histogram.with_label_values(&labels(trunk));
            }
        }
        for node in fleet.nodes() {
            self.node_transitions.declare([node.name.as_str()]);
            self.survivors_hung_up.with_label_values(&[node.name.as_str()]);
            let reads_security = node.ami.as_ref().is_some_and(|ami| ami.security.is_some());
            let security = reads_security.then_some(Purpose::Security);
            for purpose in std::iter::once(Purpose::Originate).chain(security) {
                self.ami_tampering.declare([node.name.as_str(), purpose.as_str()]);
            }
        }
    }

    pub(crate) fn attempt_ended(
        &self,
        node: &NodeName,
        trunk: &TrunkName,
        carrier: &CarrierName,
        class: EndingClass,
    ) {
        self.pulse.ended(class);
        self.attempts_ended.inc([node.as_str(), trunk.as_str(), carrier.as_str()], class.as_str());
    }

    /// Attempts over a trunk since the start, by what their ending means; those that there were, the most first.
    pub(crate) fn endings(&self, trunk: &Trunk) -> Vec<(EndingClass, u64)> {
        let count = |class: &EndingClass| (*class, self.attempts_ended.count(labels(trunk), class.as_str()));
        let mut counts: Vec<_> = EndingClass::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    pub(crate) fn canary_ended(&self, trunk: &Trunk, met: Met) {
        let [node, name, carrier] = labels(trunk);
        self.canaries_ended.with_label_values(&[node, name, carrier, met_word(met)]).inc();
    }

    pub(crate) fn trunk_changed(&self, trunk: &Trunk, to: TrunkState) {
        self.trunk_transitions.inc(labels(trunk), to.as_str());
    }

    pub(crate) fn node_changed(&self, node: &NodeName, to: NodeState) {
        self.node_transitions.inc([node.as_str()], to.as_str());
    }

    pub(crate) fn qualify_rtt(&self, trunk: &Trunk, rtt: Duration) {
        self.qualify_rtt_seconds.with_label_values(&labels(trunk)).observe(rtt.as_secs_f64());
    }

    pub(crate) fn pdd(&self, place: [&str; 3], pdd: Duration) {
        self.pulse.rang(pdd);
        self.pdd_seconds.with_label_values(&place).observe(pdd.as_secs_f64());
    }

    pub(crate) fn talked(&self, place: [&str; 3], talk: Duration) {
        self.talk_seconds.with_label_values(&place).observe(talk.as_secs_f64());
    }

    pub(crate) fn survivor_hung_up(&self, node: &NodeName) {
        self.survivors_hung_up.with_label_values(&[node.as_str()]).inc();
    }

    pub(crate) fn node_up(&self, node: &NodeName, up: bool) {
        self.node_up.with_label_values(&[node.as_str()]).set(i64::from(up));
    }

    pub(crate) fn tampering(&self, node: &NodeName, purpose: Purpose, kind: TamperKind) {
        self.ami_tampering.inc([node.as_str(), purpose.as_str()], kind.as_str());
    }

    /// Reads every gauge anew.
    pub(super) fn read(&self, fleet: &Fleet) {
        // What is no longer declared must not stand on as a last known value.
        for gauges in [
            &self.node_up,
            &self.node_state,
            &self.node_draining,
            &self.trunk_usable,
            &self.trunk_channels,
            &self.trunk_state,
            &self.trunk_suspensions,
            &self.route_panic,
        ] {
            gauges.reset();
        }
        self.node_ami_rtt_seconds.reset();
        self.trunk_asr.reset();
        for node in fleet.nodes() {
            let name = node.name.as_str();
            self.node_up(&node.name, node.up);
            for state in NodeState::ALL {
                let is_in = i64::from(node.state == *state);
                self.node_state.with_label_values(&[name, state.as_str()]).set(is_in);
            }
            self.node_draining.with_label_values(&[name]).set(i64::from(node.draining));
            if let Some(rtt_ms) = node.ami_rtt_ms {
                self.node_ami_rtt_seconds.with_label_values(&[name]).set(rtt_ms / 1_000.0);
            }
        }
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for trunk in fleet.trunks() {
            let place = [trunk.node.as_str(), trunk.name.as_str(), trunk.carrier.as_str()];
            self.trunk_usable.with_label_values(&place).set(i64::from(trunk.usable));
            self.trunk_channels.with_label_values(&place).set(whole(trunk.channels));
            self.trunk_suspensions.with_label_values(&place).set(whole(trunk.suspensions));
            for state in TrunkState::ALL {
                let [node, name, carrier] = place;
                let series = self.trunk_state.with_label_values(&[node, name, carrier, state.as_str()]);
                series.set(i64::from(trunk.state == *state));
            }
            if let Some(asr) = trunk.asr {
                self.trunk_asr.with_label_values(&place).set(asr);
            }
        }
        let panics = fleet.panics(Instant::now().into_std());
        for route in fleet.fleet().0.routes() {
            let is_on = panics.iter().any(|(prefix, _)| *prefix == route.prefix);
            self.route_panic.with_label_values(&[route.prefix.as_str()]).set(i64::from(is_on));
        }
    }
}
