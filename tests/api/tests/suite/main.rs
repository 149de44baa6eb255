//! The whole control plane in process, on a real database and fake PBXes, through its HTTP doors.
//!
//! Each test has a fleet of its own: scripted PBXes that speak AMI over TCP, a database, and a control plane
//! in a runtime that can be killed. With `--features postgres-tests` the same tests run on PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod answers;
mod audio;
mod audit;
mod calls;
mod cancels;
mod caps;
mod chat;
mod console;
mod document;
mod doors;
mod events;
mod fixture;
mod fleets;
mod guard;
mod health;
mod hostile;
mod keys;
mod limits;
mod links;
mod oncall;
mod operators;
mod privacy;
mod promises;
mod redials;
mod refusals;
mod rehearsals;
#[cfg(feature = "postgres-tests")]
mod replicas;
mod restarts;
mod restoring;
mod secrets;
mod snapshots;
#[cfg(feature = "snippet-tests")]
mod snippets;
mod sounds;
mod status;
mod tenants;
mod throttle;
mod traces;
mod webhooks;
mod writes;
