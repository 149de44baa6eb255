//! The gate between a control plane and this PBX's manager interface.
//!
//! ```text
//!  control plane ──bytes──▶ decoder ─▶ request.rs: parsed into types, or refused ─▶ ledger.rs: limits,
//!        ▲                                                       memory, bars ─▶ written anew ──▶ Asterisk
//!        └──── answers, events of our own channels ◀── answers.rs: passed, hidden or replaced ◀──────┘
//! ```
//!
//! What the argument stands on: **no byte of a control plane is forwarded.** An action is parsed into types
//! that can hold nothing but digits, ids, declared names and small numbers, and what goes to Asterisk is
//! written anew from these. So there is nothing to smuggle: no header, no line end, no second action.
//!
//! One [`Stream`] for each AMI stream; one [`Ledger`] for the node, shared by all streams under one lock, so
//! that a `bar` holds against every replica from the moment it is answered.

mod answers;
mod ledger;
mod originate;
mod pace;
mod policy;
mod refusal;
mod request;
mod stream;

#[cfg(test)]
mod attacker_tests;
#[cfg(test)]
mod ledger_tests;

pub use ledger::{Bar, Ledger, Listed, REMEMBERED_AT_LEAST, REMEMBERED_MAX};
pub use policy::{NodeLimits, NumberRule, Policy, TrunkLimits};
pub use refusal::RefusalKind;
pub use stream::{Passed, Report, Stream};
