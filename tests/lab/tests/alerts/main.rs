//! Alert rules, their tests, runbooks and dashboards: that they hang together, that promtool agrees, and that a real
//! Prometheus sees a real carrier die.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "these are tests"
)]

#[cfg(feature = "promtool")]
mod alertmanager;
#[cfg(feature = "real-fleet")]
mod commands;
#[cfg(all(feature = "promtool", feature = "real-fleet"))]
mod firing;
#[cfg(all(feature = "promtool", feature = "real-fleet"))]
#[path = "../calls/fixture.rs"]
#[allow(dead_code, reason = "shared with the target `calls`, which uses all of it")]
mod fixture;
mod names;
#[cfg(all(feature = "promtool", feature = "real-fleet"))]
mod phoning;
#[cfg(feature = "promtool")]
mod promtool;
mod query;
mod rules;
mod runbooks;
