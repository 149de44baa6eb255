//! What the suites share: an ear on the logs, and cables that can be cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

pub mod cable;
pub mod overheard;
