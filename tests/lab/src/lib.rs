//! The lab: a small fleet of real Asterisk PBXes and carriers on one machine, for tests and the demo.
//!
//! Every host is a network namespace `rw-<name>` on one bridge `rwlab0` (192.0.2.0/24, or another
//! documentation network where the machine uses that one itself: see [`Subnet`]; nothing leads out). PBXes and carriers are Asterisk processes in a root that is built once from Debian and kept.
//! [`Lab::up`] boots what a [`Plan`] asks for, dropping the [`Lab`] ends it. What a carrier *saw* on
//! its wire ([`Carrier::seen`]) is the truth that tests compare everything else against.
//!
//! There is one lab per machine: a second `up` waits for the first to end. After a crash the next
//! `up` ends what was left: only processes that a lab started (pid and start time are compared).
//!
//! The crate is blocking on purpose: it drives command-line tools. From async code call it with
//! `spawn_blocking` or `block_in_place`.

mod agent;
mod apart;
mod asterisk;
mod attacker;
mod bare;
mod carrier;
mod clock;
mod command;
mod control_plane;
mod dashboards;
mod dialogs;
mod error;
mod fail2ban;
mod fleet_toml;
mod forged;
mod guess;
mod hardened;
mod host;
pub mod injection;
mod kamailio;
mod keys;
mod lab;
mod leaks;
mod machine;
pub mod memory;
mod network;
pub mod numbers;
mod packages;
mod pbx;
mod pcap;
mod phone;
mod plan;
pub mod postgres;
mod process;
mod program;
mod progress;
mod python;
mod render;
mod replicas;
mod request;
mod root;
mod scan;
mod seen;
mod setup;
pub mod shapes;
mod sip;
mod status;
mod subnet;
mod sweep;
mod wire;

pub use agent::Agent;
pub use apart::{apart, can_run_apart};
pub use attacker::{Attacker, Method, Volley};
pub use bare::Bare;
pub use carrier::{Behaviour, Carrier};
pub use clock::{now, pause, since_1970, wait_until};
pub use control_plane::ControlPlane;
pub use dashboards::{Dashboard, dashboards, drifted_dashboards, write_dashboards};
pub use dialogs::Dialog;
pub use error::LabError;
pub use fail2ban::{Fail2ban, VERSION as FAIL2BAN_VERSION};
pub use forged::Forged;
pub use guess::{Guesses, Guessing};
pub use host::HostName;
pub use kamailio::{Kamailio, gaps};
pub use keys::{KeySent, KeyWay};
pub use lab::{Alone, Hold, Lab};
pub use pbx::{AmiUser, Lost, Pbx};
pub use phone::{ACCOUNT, Phone, Registrations};
pub use plan::{AsteriskVersion, Build, Hardening, Hosts, Inbound, Plan, Reach, TrunkLayout, TrunkPlan};
pub use process::Signal;
pub use program::program;
pub use python::{install_ansible, install_schemathesis};
pub use replicas::Replicas;
pub use root::{Root, ensure as ensure_root, ensure_bare as ensure_bare_root};
pub use scan::Port;
pub use seen::{NumberSeen, Seen};
pub use setup::{Planted, Setup};
pub use status::{HostStatus, status};
pub use subnet::Subnet;
pub use sweep::sweep;
pub use wire::{Passed, Wire};

/// Installs what a control plane speaks texts with, where it is missing.
///
/// # Errors
/// It cannot be installed.
pub fn install_speech() -> Result<(), LabError> {
    packages::ensure(packages::SPEECH_TOOLS)
}

/// Installs what the package's backup copies an SQLite database with, where it is missing.
///
/// # Errors
/// It cannot be installed.
pub fn install_backup_tools() -> Result<(), LabError> {
    packages::ensure(packages::BACKUP_TOOLS)
}

/// Installs the languages in which documents show snippets, where they are missing.
///
/// # Errors
/// One cannot be installed.
pub fn install_languages() -> Result<(), LabError> {
    packages::ensure(packages::LANGUAGES)
}

/// Installs the browser that looks at the console, and what fetches the rules that it is looked at by.
///
/// # Errors
/// One cannot be installed.
pub fn install_browser() -> Result<(), LabError> {
    packages::ensure(packages::BROWSER)
}

/// Installs what lays hosts, wires and packet rules, where it is missing.
///
/// # Errors
/// It cannot be installed, or this is not root.
pub fn install_network_tools() -> Result<(), LabError> {
    packages::must_be_root()?;
    packages::ensure(packages::HOST_TOOLS)
}

/// Installs Prometheus with its promtool, where it is missing. No service is started.
///
/// # Errors
/// It cannot be installed.
pub fn install_prometheus() -> Result<(), LabError> {
    packages::ensure(packages::PROMETHEUS)
}

/// Installs Alertmanager with its amtool, where it is missing. No service is started.
///
/// # Errors
/// It cannot be installed.
pub fn install_alertmanager() -> Result<(), LabError> {
    packages::ensure(packages::ALERTMANAGER)
}

/// Installs and makes all that a lab of any kind needs, so that labs run where no package can be had.
///
/// # Errors
/// A package or a root could not be made.
pub fn install_everything() -> Result<(), LabError> {
    for tools in [
        packages::HOST_TOOLS,
        packages::MACHINE_TOOLS,
        packages::SPEECH_TOOLS,
        packages::BACKUP_TOOLS,
        packages::CLOCK_TOOLS,
        packages::ATTACK_TOOLS,
        packages::PROMETHEUS,
        packages::BROWSER,
        packages::ALERTMANAGER,
    ] {
        packages::ensure(tools)?;
    }
    postgres::programs()?;
    for version in [AsteriskVersion::V22, AsteriskVersion::V16] {
        ensure_root(version)?;
    }
    Ok(())
}

/// Installs what packages are held against, where it is missing.
///
/// # Errors
/// It cannot be installed.
pub fn install_lintian() -> Result<(), LabError> {
    packages::ensure(packages::LINTIAN)
}

/// Installs real attackers and a phone, where they are missing: sipvicious, SIPp, hydra.
///
/// # Errors
/// They cannot be installed.
pub fn install_attackers() -> Result<(), LabError> {
    packages::ensure(packages::ATTACK_TOOLS)
}
