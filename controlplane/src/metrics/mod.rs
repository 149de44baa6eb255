//! What Prometheus scrapes. Labels are of closed sets or of the declared fleet: never a number, a call, an
//! address or an organisation.

mod counts;
mod fleet;
pub(crate) mod pulse;

use controlplane_core::{
    attempt::Settlement,
    call::Reason,
    guard::{AlarmKind, Rule},
};
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use self::fleet::FleetMetrics;
use crate::{
    agents::{AgentMetrics, BanMetrics, Links},
    audio::AudioMetrics,
    audit::AuditMetrics,
    doors::DoorMetrics,
    oncall::OnCallMetrics,
    registry::Registry as Fleet,
    webhooks::WebhookMetrics,
};

/// What reconciliation finds, as [`found_word`] says it.
const FOUND: [&str; 4] = ["living", "recorded", "absent", "barred"];

fn found_word(found: Settlement) -> &'static str {
    match found {
        Settlement::Living(_) => "living",
        Settlement::Recorded(_) => "recorded",
        Settlement::Absent => "absent",
        Settlement::Barred => "barred",
    }
}

/// The program's metrics.
pub struct Metrics {
    registry: Registry,
    calls_accepted: IntCounter,
    calls_ended: IntCounterVec,
    calls_open: IntGauge,
    held: IntGauge,
    calls_taken_up: IntCounter,
    calls_redialled: IntCounter,
    calls_throttled: IntCounter,
    calls_denied: IntCounterVec,
    requests_refused: IntCounter,
    alarms: IntCounterVec,
    reconciled: IntCounterVec,
    setup_seconds: Histogram,
    store_failures: IntCounter,
    /// What is told of nodes, trunks and routes.
    pub(crate) fleet: FleetMetrics,
    agents: AgentMetrics,
    /// What is told of events and webhooks.
    pub(crate) webhooks: WebhookMetrics,
    /// What is told of speech and of sounds on their way.
    pub(crate) audio: AudioMetrics,
    /// What is told of the audit log.
    pub(crate) audit: AuditMetrics,
    /// What is told of incidents.
    pub(crate) oncall: OnCallMetrics,
    /// What is told of connections.
    pub(crate) doors: DoorMetrics,
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
        let calls_accepted =
            IntCounter::new("ringward_calls_accepted_total", "Calls accepted from customers.")?;
        registry.register(Box::new(calls_accepted.clone()))?;
        let calls_open = IntGauge::new("ringward_calls_open", "Calls accepted and not ended.")?;
        registry.register(Box::new(calls_open.clone()))?;
        let held =
            IntGauge::new("ringward_held", "Calls and incidents that are held since a backup was restored.")?;
        registry.register(Box::new(held.clone()))?;
        let calls_taken_up = IntCounter::new(
            "ringward_calls_taken_up_total",
            "Open calls that had lost their task and were started again. Above zero is a fault: see the log.",
        )?;
        registry.register(Box::new(calls_taken_up.clone()))?;
        let calls_redialled = IntCounter::new(
            "ringward_calls_redialled_total",
            "Rounds of calls that another round follows, by the customer's redial.",
        )?;
        registry.register(Box::new(calls_redialled.clone()))?;
        let calls_throttled = IntCounter::new(
            "ringward_calls_throttled_total",
            "Calls that waited because their number was dialled too often.",
        )?;
        registry.register(Box::new(calls_throttled.clone()))?;
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
        let calls_denied = counters(
            "ringward_calls_denied_total",
            "Calls that the fraud guard refused, by rule.",
            &["rule"],
        )?;
        for rule in Rule::ALL {
            calls_denied.with_label_values(&[rule.as_str()]);
        }
        let alarms = counters(
            "ringward_guard_alarms_total",
            "Alarms on what an organisation suddenly phones, one per hour and kind.",
            &["kind"],
        )?;
        for kind in AlarmKind::ALL {
            alarms.with_label_values(&[kind.as_str()]);
        }
        let requests_refused = IntCounter::new(
            "ringward_requests_refused_total",
            "Requests of customers beyond what an operator allows in a second.",
        )?;
        registry.register(Box::new(requests_refused.clone()))?;
        let reconciled = counters(
            "ringward_reconciliations_total",
            "Attempts that were looked for after a cut, by what was found. Absent: neither channel nor flight record. \
             What was not found in time is not among them.",
            &["found"],
        )?;
        for found in FOUND {
            reconciled.with_label_values(&[found]);
        }
        let (fleet, agents) = (FleetMetrics::new(&registry)?, AgentMetrics::new(&registry)?);
        let webhooks = WebhookMetrics::new(&registry)?;
        let audio = AudioMetrics::new(&registry)?;
        let audit = AuditMetrics::new(&registry)?;
        let doors = DoorMetrics::new(&registry)?;
        let oncall = OnCallMetrics::new(&registry)?;
        Ok(Self {
            audio,
            audit,
            doors,
            oncall,
            webhooks,
            fleet,
            agents,
            calls_accepted,
            calls_ended,
            calls_open,
            held,
            calls_taken_up,
            calls_redialled,
            calls_throttled,
            calls_denied,
            requests_refused,
            alarms,
            setup_seconds,
            store_failures,
            reconciled,
            registry,
        })
    }

    /// Tells of the fleet's bans too.
    ///
    /// # Errors
    /// A name that is there twice: a mistake of the program.
    pub(crate) fn add(&self, bans: &BanMetrics) -> Result<(), prometheus::Error> {
        bans.register(&self.registry)
    }

    /// Adds what another part makes.
    ///
    /// # Errors
    /// A name that is there twice: a mistake of the program.
    pub(crate) fn add_with<T>(
        &self,
        make: impl FnOnce(&Registry) -> Result<T, prometheus::Error>,
    ) -> Result<T, prometheus::Error> {
        make(&self.registry)
    }

    pub(crate) fn call_accepted(&self) {
        self.calls_accepted.inc();
    }

    pub(crate) fn held(&self, held: usize) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
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

    pub(crate) fn call_redialled(&self) {
        self.calls_redialled.inc();
    }

    pub(crate) fn calls_throttled(&self, calls: usize) {
        self.calls_throttled.inc_by(u64::try_from(calls).unwrap_or(u64::MAX));
    }

    pub(crate) fn call_denied(&self, rule: Rule) {
        self.calls_denied.with_label_values(&[rule.as_str()]).inc();
    }

    pub(crate) fn alarm(&self, kind: AlarmKind) {
        self.alarms.with_label_values(&[kind.as_str()]).inc();
    }

    pub(crate) fn request_refused(&self) {
        self.requests_refused.inc();
    }

    pub(crate) fn reconciled(&self, found: Settlement) {
        self.reconciled.with_label_values(&[found_word(found)]).inc();
    }

    pub(crate) fn setup(&self, seconds: f64) {
        self.setup_seconds.observe(seconds);
    }

    pub(crate) fn store_failure(&self) {
        self.store_failures.inc();
    }

    /// The text format, with the gauges of the fleet read now.
    ///
    /// # Errors
    /// A series that cannot be encoded.
    pub fn render(&self, fleet: &Fleet, links: &Links) -> Result<String, prometheus::Error> {
        self.fleet.read(fleet);
        self.agents.read(&fleet.fleet().0, links);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
