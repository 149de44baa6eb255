//! From lines of log files to findings, by patterns.
//!
//! A log line is a logger's words around a stranger's text, so each pattern says where the logger's own address is
//! ([`Address`]): `first`, before all that a stranger chose; `last`, behind all of it; or `only`: then the line counts
//! for nobody unless it can be read in one way alone (it is read once with every repetition as long as it can be
//! and once as short; if these differ on the address, a stranger had a hand in it). Every pattern is anchored at
//! both ends. What strangers may do with line breaks is each filter's own matter; see the shipped ones.
//!
//! [`journal`] makes such lines of sshd's entries in the journal.
//!
//! [`Filter`] is what a TOML file says, [`Matcher`] is it compiled.

mod filter;
pub mod journal;
mod matcher;
mod stamp;
mod straight;
pub mod trial;

pub use filter::{Address, Does, Filter, InvalidFilter, Pattern};
pub use matcher::{Line, Matcher};

/// Longer lines match nothing.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
#[path = "patterns_tests.rs"]
mod patterns_tests;
