//! What Prometheus is told of traces, where they are on.

use prometheus::{IntCounter, Registry};

/// Series of traces.
#[derive(Clone)]
pub(super) struct TraceMetrics {
    /// Spans that the collector took.
    pub(super) sent: IntCounter,
    /// Spans of requests and deliveries that were not sent.
    pub(super) spans_dropped: IntCounter,
    /// Calls whose spans were given up.
    pub(super) calls_dropped: IntCounter,
    /// Posts that the collector did not take.
    pub(super) failed: IntCounter,
}

impl TraceMetrics {
    /// # Errors
    /// A name is there twice: a mistake of the program.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            sent: counter("ringward_trace_spans_sent_total", "Spans that the collector took.")?,
            spans_dropped: counter(
                "ringward_trace_spans_dropped_total",
                "Spans of requests and webhooks that were not sent: their queue was full, the collector refused them, or this \
                 program stopped before it took them.",
            )?,
            calls_dropped: counter(
                "ringward_trace_calls_dropped_total",
                "Calls whose spans were given up: the collector refused them, or took none for an hour.",
            )?,
            failed: counter(
                "ringward_trace_exports_failed_total",
                "Posts that the collector did not take; what they held is sent again, unless it is counted as dropped.",
            )?,
        })
    }
}
