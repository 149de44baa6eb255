//! What Prometheus learns of agents: one series per declared node without an AMI address, read when scraped.

use controlplane_core::fleet::Fleet;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use tokio::time::Instant;

use super::Links;

/// The gauges.
pub struct AgentMetrics {
    linked: IntGaugeVec,
    linked_since: IntGaugeVec,
    observed_age_seconds: GaugeVec,
    clock_offset_seconds: GaugeVec,
    spool_facts: IntGaugeVec,
    findings: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
}

impl AgentMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name that is there twice: a mistake in this file.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let whole = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["node"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let real = |name: &str, help: &str| {
            let gauge = GaugeVec::new(Opts::new(name, help), &["node"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            linked: whole("ringward_agent_linked", "1 while the node's agent is linked to this replica.")?,
            linked_since: whole(
                "ringward_agent_link_start_timestamp_seconds",
                "When the agent's link to this replica began; absent without one.",
            )?,
            observed_age_seconds: real(
                "ringward_agent_observed_age_seconds",
                "Age of the node's latest snapshot; some 2 s at most while all is well.",
            )?,
            clock_offset_seconds: real(
                "ringward_agent_clock_offset_seconds",
                "The node's wall clock less this host's, to within a message's way.",
            )?,
            spool_facts: whole(
                "ringward_agent_spool_facts",
                "Facts that wait on the node to be acknowledged.",
            )?,
            findings: whole(
                "ringward_agent_findings",
                "Things that are amiss with the node's trunks, such as a declared endpoint that it lacks.",
            )?,
            certificate_expiry: whole(
                "ringward_agent_certificate_expiry_timestamp_seconds",
                "When the agent's certificate ends; it renews itself 10 days before.",
            )?,
        })
    }

    /// Reads every gauge anew.
    pub fn read(&self, fleet: &Fleet, links: &Links) {
        // What is no longer declared must not stand on as a last known value.
        self.linked.reset();
        self.linked_since.reset();
        self.observed_age_seconds.reset();
        self.clock_offset_seconds.reset();
        self.spool_facts.reset();
        self.findings.reset();
        self.certificate_expiry.reset();
        let now = Instant::now();
        for node in fleet.nodes().filter(|node| node.ami.is_none()) {
            let labels = [node.name.as_str()];
            let agent = links.agent(&node.name);
            self.linked.with_label_values(&labels).set(i64::from(agent.link.is_some()));
            if let Some(link) = &agent.link {
                self.linked_since.with_label_values(&labels).set(link.since.unix_timestamp());
            }
            let Some(seen) = agent.seen else { continue };
            let age = now.duration_since(seen.taken).as_secs_f64();
            self.observed_age_seconds.with_label_values(&labels).set(age);
            #[allow(clippy::cast_precision_loss, reason = "years in ms are far below 2^52")]
            let offset = seen.clock_offset_ms as f64 / 1_000.0;
            self.clock_offset_seconds.with_label_values(&labels).set(offset);
            let spooled = i64::try_from(seen.observations.spool.facts).unwrap_or(i64::MAX);
            self.spool_facts.with_label_values(&labels).set(spooled);
            let findings = i64::try_from(seen.observations.findings.len()).unwrap_or(i64::MAX);
            self.findings.with_label_values(&labels).set(findings);
            if let Some(expires) = seen.observations.certificate_expires_unix_s {
                self.certificate_expiry.with_label_values(&labels).set(expires);
            }
        }
    }
}
