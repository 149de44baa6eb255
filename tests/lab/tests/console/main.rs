//! The console in a real Chromium, at a desk's width and at a phone's, against real PBXes with agents and firewalls, and real
//! carriers: every page, every action, and a carrier that dies in front of somebody's eyes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

mod actions;
mod dying;
#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod pages;
mod scene;
#[path = "../health/trunks.rs"]
#[allow(dead_code, reason = "shared with the target `health`, which uses all of it")]
mod trunks;
