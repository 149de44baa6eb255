//! What runs, as `cargo lab status` shows it.
use crate::{Lab, process};
use serde::Serialize;

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// `pbx` or `carrier`.
    pub role: &'static str,
    /// Its address.
    pub address: String,
    /// Its Asterisk's pid, if it runs.
    pub pid: Option<u32>,
    /// Open channels, if it answers.
    pub channels: Option<u32>,
    /// For a carrier: what it saw since its start.
    pub saw: String,
}

/// Looks at every host.
#[must_use]
pub fn status(lab: &Lab) -> Vec<HostStatus> {
    let count = |said: String| said.split_whitespace().next().and_then(|word| word.parse().ok());
    let pbxes = lab.pbxes().iter().map(|pbx| HostStatus {
        name: pbx.name().into(),
        role: "pbx",
        address: pbx.address().to_string(),
        pid: process::alive(&pbx.asterisk.process()),
        channels: pbx.console("core show channels count").ok().and_then(count),
        saw: pbx.trunks().iter().map(|trunk| trunk.name.as_str()).collect::<Vec<_>>().join(" "),
    });
    let carriers = lab.carriers().iter().map(|carrier| {
        let total = carrier.seen().unwrap_or_default().total();
        HostStatus {
            name: carrier.name().into(),
            role: "carrier",
            address: carrier.address().to_string(),
            pid: process::alive(&carrier.asterisk.process()),
            channels: carrier.channels().ok(),
            saw: format!(
                "{} invites, {} rings, {} answers, {} cancels, {} byes, finals {:?}",
                total.invites, total.rings, total.answers, total.cancels, total.byes, total.finals
            ),
        }
    });
    pbxes.chain(carriers).collect()
}
