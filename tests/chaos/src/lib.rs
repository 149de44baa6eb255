//! The chaos run: real Asterisk PBXes and carriers, the real control plane and its agents, calls at a steady
//! rate, and faults at random moments. Every choice comes from one seed. Where calls are more than Asterisk carries on this
//! machine, nodes and carriers are simulated, and control planes, links and PostgreSQL are real.
//!
//! - [`site`]: where calls go.
//! - [`load`]: the calls of a run; [`faults`]: what breaks, when, for how long. Both are pure: seed in, plan out.
//! - [`run`]: does it, and gathers the [`history`]: what was asked, what was told, what the carriers saw.
//! - [`checker`]: holds the three against each other. It is pure, and knows nothing of how they came about.
//!
//! The same seed plans the same calls and the same faults. What meets what is up to the machine's scheduler: a seed
//! brings a fault back often, not always.

pub mod checker;
pub mod collect;
mod customers;
pub mod faults;
mod hands;
pub mod history;
pub mod load;
mod owners;
pub mod planes;
mod receiver;
pub mod run;
pub mod site;
pub mod table;
