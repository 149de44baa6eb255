//! What Prometheus scrapes. Labels are of closed sets or of the declared fleet: never a number, a call, an
//! address or an organisation.

use controlplane_core::{
    call::Reason,
    ending::EndingClass,
    fleet::Fleet as DeclaredFleet,
    names::{CarrierName, NodeName, TrunkName},
};
use node_agent_ami::{Purpose, TamperKind};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{
    agents::{AgentMetrics, Links},
    registry::Registry as Fleet,
};

/// The program's metrics.
pub struct Metrics {
    registry: Registry,
    calls_accepted: IntCounter,
    calls_ended: IntCounterVec,
    calls_open: IntGauge,
    calls_taken_up: IntCounter,
    attempts_ended: IntCounterVec,
    setup_seconds: Histogram,
    node_up: IntGaugeVec,
    trunk_usable: IntGaugeVec,
    trunk_channels: IntGaugeVec,
    ami_tampering: IntCounterVec,
    store_failures: IntCounter,
    agents: AgentMetrics,
}

impl Metrics {
    /// All series whose labels are known exist from the start, at zero.
    ///
    /// # Errors
    /// A name is not one that Prometheus takes, or is there twice: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
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
        let calls_accepted =
            IntCounter::new("ringward_calls_accepted_total", "Calls accepted from customers.")?;
        registry.register(Box::new(calls_accepted.clone()))?;
        let calls_open = IntGauge::new("ringward_calls_open", "Calls accepted and not ended.")?;
        registry.register(Box::new(calls_open.clone()))?;
        let calls_taken_up = IntCounter::new(
            "ringward_calls_taken_up_total",
            "Open calls that had lost their task and were started again. Above zero is a fault: see the log.",
        )?;
        registry.register(Box::new(calls_taken_up.clone()))?;
        let store_failures = IntCounter::new(
            "ringward_store_failures_total",
            "Writes that the database did not take; each is tried again.",
        )?;
        registry.register(Box::new(store_failures.clone()))?;
        let setup = HistogramOpts::new(
            "ringward_call_setup_seconds",
            "From a call's acceptance to the beginning of its first attempt, before Asterisk is asked.",
        )
        .buckets(vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0]);
        let setup_seconds = Histogram::with_opts(setup)?;
        registry.register(Box::new(setup_seconds.clone()))?;
        let calls_ended = counters(
            "ringward_calls_ended_total",
            "Calls ended, by status and reason.",
            &["status", "reason"],
        )?;
        for reason in Reason::ALL {
            calls_ended.with_label_values(&[reason.status().as_str(), reason.as_str()]);
        }
        let agents = AgentMetrics::new(&registry)?;
        Ok(Self {
            agents,
            calls_accepted,
            calls_ended,
            calls_open,
            calls_taken_up,
            setup_seconds,
            store_failures,
            attempts_ended: counters(
                "ringward_attempts_ended_total",
                "Attempts ended, by what the ending means.",
                &["node", "trunk", "carrier", "class"],
            )?,
            node_up: gauges(
                "ringward_node_up",
                "1 while the node's AMI session is up and checked.",
                &["node"],
            )?,
            trunk_usable: gauges(
                "ringward_trunk_usable",
                "1 while the trunk's configuration was looked at and is safe to use.",
                &["node", "trunk", "carrier"],
            )?,
            trunk_channels: gauges(
                "ringward_trunk_channels",
                "Attempts that hold a channel of the trunk.",
                &["node", "trunk", "carrier"],
            )?,
            ami_tampering: counters(
                "ringward_ami_tampering_total",
                "Blocks of strangers' text in AMI streams, by how they gave themselves away. Counted, not acted on.",
                &["node", "session", "kind"],
            )?,
            registry,
        })
    }

    /// Series of the declared fleet's counters exist from its declaration, at zero: a first one must be seen
    /// as a rise.
    pub(crate) fn declare(&self, fleet: &DeclaredFleet) {
        for trunk in fleet.trunks() {
            for class in EndingClass::ALL {
                let labels =
                    [trunk.node.as_str(), trunk.name.as_str(), trunk.carrier.as_str(), class.as_str()];
                self.attempts_ended.with_label_values(&labels);
            }
        }
        for node in fleet.nodes() {
            let reads_security = node.ami.as_ref().is_some_and(|ami| ami.security.is_some());
            let security = reads_security.then_some(Purpose::Security);
            for purpose in std::iter::once(Purpose::Originate).chain(security) {
                for kind in TamperKind::ALL {
                    let labels = [node.name.as_str(), purpose.as_str(), kind.as_str()];
                    self.ami_tampering.with_label_values(&labels);
                }
            }
        }
    }

    pub(crate) fn call_accepted(&self) {
        self.calls_accepted.inc();
    }

    pub(crate) fn calls_open(&self, calls: usize) {
        self.calls_open.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    pub(crate) fn calls_taken_up(&self, calls: usize) {
        self.calls_taken_up.inc_by(u64::try_from(calls).unwrap_or(u64::MAX));
    }

    pub(crate) fn call_ended(&self, reason: Reason) {
        self.calls_ended.with_label_values(&[reason.status().as_str(), reason.as_str()]).inc();
    }

    pub(crate) fn attempt_ended(
        &self,
        node: &NodeName,
        trunk: &TrunkName,
        carrier: &CarrierName,
        class: EndingClass,
    ) {
        let labels = [node.as_str(), trunk.as_str(), carrier.as_str(), class.as_str()];
        self.attempts_ended.with_label_values(&labels).inc();
    }

    pub(crate) fn setup(&self, seconds: f64) {
        self.setup_seconds.observe(seconds);
    }

    pub(crate) fn store_failure(&self) {
        self.store_failures.inc();
    }

    pub(crate) fn node_up(&self, node: &NodeName, up: bool) {
        self.node_up.with_label_values(&[node.as_str()]).set(i64::from(up));
    }

    pub(crate) fn tampering(&self, node: &NodeName, purpose: Purpose, kind: TamperKind) {
        self.ami_tampering.with_label_values(&[node.as_str(), purpose.as_str(), kind.as_str()]).inc();
    }

    /// The text format, with the gauges of the fleet read now.
    ///
    /// # Errors
    /// A series that cannot be encoded.
    pub fn render(&self, fleet: &Fleet, links: &Links) -> Result<String, prometheus::Error> {
        // What is no longer declared must not stand on as a last known value.
        self.trunk_usable.reset();
        self.trunk_channels.reset();
        self.node_up.reset();
        for node in fleet.nodes() {
            self.node_up(&node.name, node.state == "alive");
        }
        for trunk in fleet.trunks() {
            let labels = [trunk.node.as_str(), trunk.name.as_str(), trunk.carrier.as_str()];
            self.trunk_usable.with_label_values(&labels).set(i64::from(trunk.state == "usable"));
            self.trunk_channels
                .with_label_values(&labels)
                .set(i64::try_from(trunk.channels).unwrap_or(i64::MAX));
        }
        self.agents.read(&fleet.fleet().0, links);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
