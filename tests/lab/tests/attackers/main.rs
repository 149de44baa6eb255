//! Real attackers, and strangers' text over live SIP, against PBXes whose agents ban: who is cut off, and who is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod foreign;
mod forged;
mod guarded;
mod injection;
mod tools;
