//! A scripted AMI server over real TCP, for the faults that a real Asterisk shows only once a year.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use fake_pbx::{Ending, FakePbx, Fault, Plan, Said, Script};
//! use std::time::Duration;
//!
//! let pbx = FakePbx::start(Script::default()).await?;
//! pbx.set_ending("+380501234567", Ending::Busy486);
//! pbx.set_ending("+380501234568", Plan::of(Ending::answer()).with(Fault::DropAfterQueued));
//! let ms = Duration::from_millis;
//! pbx.set_ending("+380501234569", Plan::pressing('1', ms(40)));
//! pbx.set_ending("+380501234560", Plan::of(Ending::answer()).saying(ms(20), Said::Machine("human")));
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
mod talk;
mod wire;

pub use pbx::{Dialog, FakePbx, Seen};
pub use script::{CoreStatus, Ending, Fault, Plan, Said, Script};
pub use wire::Packet;
