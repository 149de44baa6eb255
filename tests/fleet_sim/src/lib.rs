//! Thousands of node agents and PBXes over real sockets in one process, with seeded faults.
//!
//! A simulated agent does on the wire what `ringward-agent` does: it joins by a token, holds a mutually authenticated
//! TLS WebSocket from an address of its own, says hello, tells whole snapshots at once and every two seconds, reports
//! facts until they are acknowledged, and opens AMI streams on request. Behind each stream are the true gate
//! (`node_agent_core::gate`) and a [`fake_pbx::FakePbx`]. What it leaves out: Asterisk, the firewall, the disk.
//!
//! Whatever happens by chance comes from one seed, which whoever runs it prints: a node's own choices from the seed
//! and its number, so that they are the same whatever the others do.

mod agent;
mod ami;
pub mod console;
mod fleet;
mod identity;
mod link;
pub mod plan;
pub mod plane;
mod sight;
pub mod storm;

use std::io;

pub use self::{
    agent::{Agent, Order},
    fleet::Fleet,
};

/// Lets this process hold as many sockets as it may: two for each node.
///
/// # Errors
/// The system's.
pub fn raise_open_files() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}
