//! Agents at their door: a control plane in process, and agents that the tests play, over real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod agent;
mod bans;
mod calling;
mod cut;
mod facts;
mod flood;
mod identity;
mod joining;
mod left;
mod link;
mod linking;
mod plane;
mod real;
#[cfg(feature = "postgres-tests")]
mod replicas;
mod revoking;
mod sounds;
