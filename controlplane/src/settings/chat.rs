//! Where operators' chat is told of changes: nowhere, unless a destination is set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Most destinations.
const DESTINATIONS_MAX: usize = 8;

/// What is told, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChatSettings {
    /// Each is told everything.
    pub destinations: Vec<Destination>,
    /// More new bans than this in `bans_every_s` are told of.
    pub bans_max: u16,
    /// In seconds.
    pub bans_every_s: u32,
}

/// Something that takes JSON by POST, as the incoming webhooks of chat systems do. What webhooks may reach, this may:
/// `webhooks.allow_http`, `allow_nets` and `allow_hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its address.
    pub url: String,
    /// One line, `whsec_…`: signs as webhooks are signed. Absent: nothing signs.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self { destinations: Vec::new(), bans_max: 100, bans_every_s: 300 }
    }
}

impl ChatSettings {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.destinations.len() > DESTINATIONS_MAX {
            return Err(format!("chat.destinations: at most {DESTINATIONS_MAX}"));
        }
        if !(1..=86_400).contains(&self.bans_every_s) {
            return Err("chat.bans_every_s: 1 to 86400".to_owned());
        }
        if self.bans_max == u16::MAX {
            return Err("chat.bans_max: 0 to 65534".to_owned());
        }
        Ok(())
    }
}
