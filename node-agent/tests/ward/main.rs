//! The ward on a real kernel, in network namespaces of the tests' own. Needs root and nft:
//! `cargo test -p node-agent --features real-nft --test ward`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and skips what it does not look at"
)]
#![allow(clippy::disallowed_methods, reason = "real time is what is measured")]

mod ahead;
mod bans;
mod bench;
#[path = "../control_plane/mod.rs"]
mod control_plane;
mod lockouts;
mod many;
mod packets;
mod program;
#[path = "../../core/tests/nft/space.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod space;
