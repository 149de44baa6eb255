//! Calls through the real control plane on real PBXes and carriers. What the carriers *saw* on their wire
//! is the truth that the API's answers are held against.
//! `RINGWARD_LAB_ASTERISK=16` runs the PBXes on Asterisk 16.28.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod answers;
mod caps;
mod failover;
mod faults;
mod fixture;
mod hostile;
mod links;
mod many;
mod messages;
mod power;
mod unknown;
