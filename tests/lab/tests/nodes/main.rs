//! Whole nodes: Debian booted with systemd, Asterisk, sshd and the agent as services, AMI on loopback only, and
//! the real control plane. Each test breaks something and says what calls, links and operators see of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod agent;
mod clocks;
mod cut;
mod disk;
mod exposure;
#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod identity;
mod node;
mod traffic;
