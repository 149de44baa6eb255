//! The public status: off, unless an address is set.

use std::net::SocketAddr;

use controlplane_core::status::notice;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Door, TlsFiles};

/// A page for strangers, and its door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusSettings {
    /// Address and port; absent: there is no such page, and nothing is written down for it.
    pub listen: Option<SocketAddr>,
    /// What the page is called.
    pub name: String,
    /// As of the other doors.
    pub tls: Option<TlsFiles>,
    /// As of the other doors.
    pub trusted_proxies: Vec<IpNet>,
    /// As of the other doors: connections at a time.
    pub connections_max: u32,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self {
            listen: None,
            name: "Calls".to_owned(),
            tls: None,
            trusted_proxies: Vec::new(),
            connections_max: 512,
        }
    }
}

impl StatusSettings {
    /// Its door, where it is opened.
    #[must_use]
    pub fn door(&self) -> Option<Door> {
        let Self { listen, tls, trusted_proxies, connections_max, .. } = self.clone();
        Some(Door { listen: listen?, tls, trusted_proxies, connections_max })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        notice::title(&self.name).map_err(|_| "status.name: 1 to 120 characters in one line".to_owned())?;
        self.door().map_or(Ok(()), |door| door.check("status"))
    }
}
