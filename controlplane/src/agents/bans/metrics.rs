//! What Prometheus learns of the fleet's bans.

use controlplane_store::bans::ListKind;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The metrics. Nothing is told before they are registered.
pub struct BanMetrics {
    entries: IntGaugeVec,
    refusals: IntCounterVec,
    share_seconds: Histogram,
}

impl Default for BanMetrics {
    #[allow(clippy::expect_used, reason = "constant names; any test that starts the program would fail")]
    fn default() -> Self {
        let entries =
            Opts::new("ringward_bans", "Bans and allowances of the fleet that hold, by who made them.");
        let refusals = Opts::new(
            "ringward_ban_refusals_total",
            "Bans that a node refuses of the fleet's, and the control plane of a node's or an operator's.",
        );
        let share = HistogramOpts::new(
            "ringward_ban_share_seconds",
            "From a change of the fleet's bans to the answer of a node that it holds it; also of nodes that were away.",
        )
        .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3_600.0]);
        Self {
            entries: IntGaugeVec::new(entries, &["kind", "origin"]).expect("a metric"),
            refusals: IntCounterVec::new(refusals, &["by"]).expect("a metric"),
            share_seconds: Histogram::with_opts(share).expect("a metric"),
        }
    }
}

impl BanMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// A name that is there twice: a mistake in this file.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.entries.clone()))?;
        registry.register(Box::new(self.refusals.clone()))?;
        registry.register(Box::new(self.share_seconds.clone()))
    }

    pub(super) fn counted(&self, counts: &[(ListKind, String, u64)]) {
        // Who has none any more must not stand on with a last known value.
        self.entries.reset();
        for (kind, origin, count) in counts {
            let gauge = self.entries.with_label_values(&[kind.as_str(), origin]);
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn refused(&self, by: &str, count: u64) {
        if count > 0 {
            self.refusals.with_label_values(&[by]).inc_by(count);
        }
    }

    pub(super) fn shared(&self, seconds: f64) {
        self.share_seconds.observe(seconds);
    }
}
