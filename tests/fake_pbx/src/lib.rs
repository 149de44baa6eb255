//! A scripted AMI server over real TCP, for the faults that a real Asterisk shows only once a year.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use fake_pbx::{Ending, FakePbx, Fault, Plan, Script};
//!
//! let pbx = FakePbx::start(Script::default()).await?;
//! pbx.set_ending("+380501234567", Ending::Busy486);
//! pbx.set_ending("+380501234568", Plan::of(Ending::answer()).with(Fault::DropAfterQueued));
//! // … a client of `pbx.address()` places calls …
//! assert_eq!(pbx.seen("+380501234567").invites, 1);
//! # Ok(())
//! # }
//! ```
//!
//! It shares no code with the client that it tests: its parser takes what Asterisk's takes (a bare LF ends
//! a line), so that an injected header would be seen here as one. Event sequences are those recorded from
//! Asterisk 22.10.1. It answers Login, Ping, CoreStatus, Status, Hangup, DBGet, Getvar, Originate and
//! Logoff; everything else is unknown to it.

mod call;
mod calls;
mod pbx;
mod script;
mod session;
mod wire;

pub use pbx::{FakePbx, Seen};
pub use script::{CoreStatus, Ending, Fault, Plan, Script};
pub use wire::Packet;
