//! The registry knows which trunks can carry a call: carriers that die, flap, lie and refuse, seen by agents
//! beside real PBXes, by calls and by canaries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod carriers;
#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod flapping;
mod lying;
mod panic;
mod refusals;
mod trunks;
