//! How long things are kept.

use controlplane_core::retention::DAYS_MAX;
use serde::{Deserialize, Serialize};

pub use controlplane_core::retention::Retention as RetentionSettings;

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
