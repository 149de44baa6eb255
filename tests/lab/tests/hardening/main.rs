//! Hardening on whole hosts: Debian booted with systemd, sshd, Asterisk, and the agent's units as packages will bring
//! them. A change of rules ends confirmed or with the way in open, whatever becomes of the agent; bans come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod bans;
mod confirming;
#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod lockouts;
mod walled;
