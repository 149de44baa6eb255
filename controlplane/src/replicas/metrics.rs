//! What Prometheus is told of this replica.

use prometheus::{IntCounter, IntGauge};

/// What is told of it.
#[derive(Clone)]
pub(crate) struct ReplicaMetrics {
    pub(super) lives: IntGauge,
    pub(super) leads: IntGauge,
    pub(super) lapses: IntCounter,
    pub(super) claimed: IntCounter,
}

impl ReplicaMetrics {
    /// # Errors
    /// A name is there twice: a mistake of the program.
    pub(crate) fn new(registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
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
            lives: gauge(
                "ringward_replica_lives",
                "Whether this control plane's lease holds, or it has the database alone.",
            )?,
            leads: gauge(
                "ringward_replica_leads",
                "Whether this control plane is the one that does what only one may do.",
            )?,
            lapses: counter(
                "ringward_replica_lapses_total",
                "Leases of this control plane that ended before they were renewed.",
            )?,
            claimed: counter(
                "ringward_calls_claimed_total",
                "Calls of replicas that are dead which this one goes on with.",
            )?,
        })
    }
}
