//! How long things are kept.

use serde::{Deserialize, Serialize};

/// Longest, in days.
const DAYS_MAX: u16 = 3_650;

/// How long calls, and what is in them, are kept after their end; and recordings after they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Calls with their attempts and events, in days.
    pub calls_days: u16,
    /// The number in a call, in days; then another stands in its place.
    pub numbers_days: u16,
    /// The text in a call, and its metadata, in days.
    pub texts_days: u16,
    /// Recordings, in days; 0: until their owner deletes them.
    pub recordings_days: u16,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { calls_days: 90, numbers_days: 90, texts_days: 90, recordings_days: 0 }
    }
}

impl RetentionSettings {
    /// Idempotency keys are kept for a day after a call's end, and events can be read for seven.
    pub(super) fn check(self) -> Result<(), String> {
        let bounds = [
            ("calls_days", self.calls_days, 8),
            ("numbers_days", self.numbers_days, 1),
            ("texts_days", self.texts_days, 1),
            ("recordings_days", self.recordings_days, 0),
        ];
        let wrong = bounds.iter().find(|(_, days, least)| !(*least..=DAYS_MAX).contains(days));
        wrong.map_or(Ok(()), |(key, _, least)| Err(format!("retention.{key}: {least} to {DAYS_MAX}")))
    }
}

/// How long the audit log can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// A row is out of sight when it is so many days old, and erased within 25 hours after that.
    pub retention_days: u16,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { retention_days: 90 }
    }
}

impl AuditSettings {
    pub(super) fn check(self) -> Result<(), String> {
        if (1..=DAYS_MAX).contains(&self.retention_days) {
            return Ok(());
        }
        Err(format!("audit.retention_days: 1 to {DAYS_MAX}"))
    }
}
