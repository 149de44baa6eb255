//! How fast one link is read.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Bytes per second of one link, on average: four whole snapshots of the largest node.
const BYTES_PER_S: f64 = 4.0 * 1024.0 * 1024.0;
/// Bytes at once beyond the average.
const BYTES_BURST: f64 = 2.0 * BYTES_PER_S;

/// A leaky bucket of bytes.
pub(super) struct Pace {
    /// Bytes taken and not yet leaked.
    level: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { level: 0.0, at: now }
    }

    /// Counts `bytes`; the time until the next may be read.
    fn count(&mut self, bytes: usize, now: Instant) -> Duration {
        let leaked = now.duration_since(self.at).as_secs_f64() * BYTES_PER_S;
        self.at = now;
        #[allow(clippy::cast_precision_loss, reason = "messages are far below 2^52 bytes")]
        let bytes = bytes as f64;
        self.level = (self.level - leaked).max(0.0) + bytes;
        Duration::from_secs_f64(((self.level - BYTES_BURST) / BYTES_PER_S).max(0.0))
    }

    pub(super) async fn spend(&mut self, bytes: usize) {
        let wait = self.count(bytes, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use node_agent_protocol::HEARTBEAT;

    use super::*;

    #[test]
    fn a_flood_is_read_at_the_pace_and_an_honest_agent_never_waits() {
        let start = Instant::now();
        let mut honest = Pace::new(start);
        for beat in 0..1_000 {
            assert!(honest.count(1024 * 1024, start + HEARTBEAT * beat).is_zero());
        }
        let mut flood = Pace::new(start);
        let mut now = start;
        for _ in 0..1_000 {
            now += flood.count(1024 * 1024, now);
        }
        let took = now.duration_since(start).as_secs_f64();
        assert!((246.0..251.0).contains(&took), "1,000 MiB at 4 MiB/s less the burst: {took}");
    }
}
