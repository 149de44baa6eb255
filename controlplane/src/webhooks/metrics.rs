//! What Prometheus is told of events and webhooks.

use controlplane_core::webhook::{DisabledReason, Failure};
use controlplane_store::webhooks::WebhookCounts;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use time::OffsetDateTime;

/// Series of webhooks and event streams.
pub(crate) struct WebhookMetrics {
    pending: IntGauge,
    oldest: IntGauge,
    disabled_endpoints: IntGauge,
    delivered: IntCounter,
    failed: IntCounterVec,
    dead: IntCounter,
    disabled: IntCounterVec,
    pub(super) sealed: IntCounter,
    pub(super) streams: IntGauge,
    pub(super) slow_readers: IntCounter,
    pub(super) unreadable: IntCounter,
}

impl WebhookMetrics {
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
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let failed = counters(
            "ringward_webhook_failures_total",
            "Tries to deliver an event that failed, by what went wrong.",
            "class",
        )?;
        for class in Failure::ALL {
            failed.with_label_values(&[class.as_str()]);
        }
        let disabled = counters(
            "ringward_webhook_disabled_total",
            "Endpoints that were disabled because of how they answered.",
            "reason",
        )?;
        for reason in [DisabledReason::Gone, DisabledReason::Failing] {
            disabled.with_label_values(&[reason.as_str()]);
        }
        Ok(Self {
            pending: gauge(
                "ringward_webhook_pending",
                "Deliveries that are neither delivered nor given up, counted up to 10000.",
            )?,
            oldest: gauge(
                "ringward_webhook_oldest_due_seconds",
                "How long the longest due delivery has been due. Above a minute, deliveries are not keeping up.",
            )?,
            disabled_endpoints: gauge(
                "ringward_webhook_endpoints_disabled",
                "Endpoints that get no events, by their owner's will or because of how they answered.",
            )?,
            delivered: counter("ringward_webhook_delivered_total", "Events delivered, once per receiver.")?,
            failed,
            dead: counter("ringward_webhook_dead_total", "Deliveries given up after their last try.")?,
            disabled,
            unreadable: counter(
                "ringward_events_unreadable_total",
                "Times that an event was passed over in a list or a stream because it cannot be read; the log has its id.",
            )?,
            sealed: counter("ringward_events_total", "Steps of calls' logs that were numbered as events.")?,
            streams: gauge("ringward_event_streams", "Open event streams.")?,
            slow_readers: counter(
                "ringward_event_streams_cut_total",
                "Event streams that were ended because their reader did not keep up.",
            )?,
        })
    }

    pub(super) fn tried(&self, failure: Option<Failure>) {
        match failure {
            None => self.delivered.inc(),
            Some(class) => self.failed.with_label_values(&[class.as_str()]).inc(),
        }
    }

    pub(super) fn dead(&self) {
        self.dead.inc();
    }

    pub(super) fn disabled(&self, reason: DisabledReason) {
        self.disabled.with_label_values(&[reason.as_str()]).inc();
    }

    pub(super) fn counts(&self, counts: WebhookCounts, now: OffsetDateTime) {
        self.pending.set(counts.pending);
        let oldest = counts.oldest_due.map_or(0, |due| (now - due).whole_seconds().max(0));
        self.oldest.set(oldest);
        self.disabled_endpoints.set(counts.disabled);
    }
}
