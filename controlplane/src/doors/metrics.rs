//! What Prometheus learns of the doors.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector as _};

/// The doors that are told of.
const DOORS: [&str; 3] = ["customers", "operators", "strangers"];
/// Why a connection is closed at once.
const REASONS: [&str; 3] = ["address", "all", "tls"];

/// The series.
#[derive(Clone)]
pub(crate) struct DoorMetrics {
    connections: IntGaugeVec,
    refused: IntCounterVec,
    certificate_expiry: IntGaugeVec,
}

impl DoorMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["door"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let help = "Connections that a door closed at once: one address held too many, all places were taken, or TLS failed.";
        let refused = IntCounterVec::new(
            Opts::new("ringward_door_refused_connections_total", help),
            &["door", "reason"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        for (door, reason) in DOORS.iter().flat_map(|door| REASONS.map(|reason| (*door, reason))) {
            refused.with_label_values(&[door, reason]);
        }
        Ok(Self {
            connections: gauge("ringward_door_connections", "Connections at a door now.")?,
            refused,
            certificate_expiry: gauge(
                "ringward_door_certificate_expiry_timestamp_seconds",
                "When the certificate ends that a door shows; absent where a proxy speaks TLS.",
            )?,
        })
    }

    pub(super) fn connections(&self, door: &str, count: usize) {
        self.connections.with_label_values(&[door]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn refused(&self, door: &str, reason: &str) {
        self.refused.with_label_values(&[door, reason]).inc();
    }

    pub(super) fn certificate_ends(&self, door: &str, at: i64) {
        self.certificate_expiry.with_label_values(&[door]).set(at);
    }

    /// When the certificates end that doors show, in seconds since 1970.
    pub(crate) fn certificate_ends_of(&self) -> Vec<(String, i64)> {
        let families = self.certificate_expiry.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let of = |metric: &prometheus::proto::Metric| {
            let door = metric.get_label().first()?.value().to_owned();
            let at = self.certificate_expiry.with_label_values(&[&door]).get();
            Some((door, at))
        };
        metrics.filter_map(of).collect()
    }

    #[cfg(test)]
    pub(super) fn certificate_end(&self, door: &str) -> i64 {
        self.certificate_expiry.with_label_values(&[door]).get()
    }
}
