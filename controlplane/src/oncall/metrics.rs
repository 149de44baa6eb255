//! What Prometheus is told of incidents.

use controlplane_core::oncall::IncidentStatus;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Series of incidents.
#[derive(Clone)]
pub(crate) struct OnCallMetrics {
    incidents: IntCounterVec,
    refused: IntCounter,
    failures: IntCounter,
}

impl OnCallMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let incidents = IntCounterVec::new(
            Opts::new(
                "ringward_incidents_total",
                "Incidents that came to be so. `escalating`: that began. `unanswered`: everybody was phoned, and nobody took note.",
            ),
            &["status"],
        )?;
        registry.register(Box::new(incidents.clone()))?;
        for status in IncidentStatus::ALL {
            incidents.with_label_values(&[status.as_str()]);
        }
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let refused = counter(
            "ringward_incident_calls_refused_total",
            "Calls about incidents that were not accepted, as of a number that is not open; each is told in the incident.",
        )?;
        let failures = counter(
            "ringward_incident_looks_failed_total",
            "Times that the database did not answer when it was looked who is to be phoned; it is looked again in a second.",
        )?;
        Ok(Self { incidents, refused, failures })
    }

    pub(super) fn became(&self, status: IncidentStatus) {
        self.incidents.with_label_values(&[status.as_str()]).inc();
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
