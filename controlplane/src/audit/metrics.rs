//! What Prometheus is told of the audit log.

use controlplane_store::audit::AuditCounts;
use prometheus::{IntCounter, IntGauge, Registry};
use time::OffsetDateTime;

/// Series of the audit log.
pub(crate) struct AuditMetrics {
    pub(super) retention: IntGauge,
    oldest: IntGauge,
    oldest_visible: IntGauge,
    unsealed: IntGauge,
    seal_age: IntGauge,
    pub(super) sealed: IntCounter,
    pub(super) erased: IntCounter,
    pub(super) head_failures: IntCounter,
}

impl AuditMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            retention: gauge(
                "ringward_audit_retention_seconds",
                "Age at which a row is out of sight; it is erased within 25 hours after that.",
            )?,
            oldest: gauge(
                "ringward_audit_oldest_row_seconds",
                "Age of the oldest row in the table. A day above the retention, erasing is not keeping up.",
            )?,
            oldest_visible: gauge(
                "ringward_audit_oldest_visible_row_seconds",
                "Age of the oldest row that can be seen.",
            )?,
            unsealed: gauge(
                "ringward_audit_unsealed_rows",
                "Rows that wait for their place in the chain, counted up to 10000.",
            )?,
            seal_age: gauge(
                "ringward_audit_last_seal_seconds",
                "How long ago rows were sealed last. A fault only while rows wait.",
            )?,
            sealed: counter("ringward_audit_sealed_total", "Rows that were sealed.")?,
            erased: counter("ringward_audit_erased_total", "Rows that were erased by age.")?,
            head_failures: counter(
                "ringward_audit_head_failures_total",
                "Times that a head could not be written outside of the database.",
            )?,
        })
    }

    pub(super) fn counts(&self, counts: &AuditCounts, now: OffsetDateTime) {
        let age = |at: Option<OffsetDateTime>| at.map_or(0, |at| (now - at).whole_seconds().max(0));
        self.oldest.set(age(counts.oldest));
        self.oldest_visible.set(age(counts.oldest_visible));
        self.unsealed.set(counts.unsealed);
        self.seal_age.set(age(counts.sealed_at));
    }
}
