//! Which trunks and nodes can carry a call, and why.
//!
//! - [`TrunkHealth`]: a trunk's machine, fed with [`Event`]s; [`TrunkHealth::standing`] is what selection
//!   asks, [`TrunkHealth::why`] what people ask.
//! - [`charge()`]: what an ending counts against.
//! - [`NodeHealth`]: a node's machine.
//! - [`Board`]: all of them together, with the two bounds on what evidence may take away ([`mod@panic`]).
//! - [`Policy`], [`NodePolicy`]: every number, with its reason.
//!
//! What would mislead at three in the morning, and what is done about it:
//!
//! | It looks like | It is | So |
//! |---|---|---|
//! | the trunk fails all calls | one customer's barred numbers, or his list of dead ones | evidence must stand without its worst destination and its worst customer (`outcomes`) |
//! | the trunk refuses (403) | a caller id that it does not know | trunk × caller id or destination is suspended (`suspension`) |
//! | the trunk works: OPTIONS are answered | its INVITEs are dropped | what a call has shown, only a call disproves |
//! | the trunk is silent | one destination is a black hole | silence counts at once only if no other call was answered since |
//! | the carrier is out of lines (503) | we send too fast | near a limit or among successes it is about pace |
//! | the carrier finds nobody (no progress) | a customer asked for 1 s | short waits do not count |
//! | 180, then nobody answers, always | ringing is faked | ASR, with far thresholds |
//! | it is back | it flaps | the contact must hold, and the back-off has grown |
//! | it fails again | a call that began before the trip has ended now | old calls do not count |
//! | it is fine: nothing fails any more | nothing is sent to it any more | back-off shrinks by calls that get through, never by time |
//! | three slow round trips | one, told thrice by snapshots | the same figure is the same OPTIONS |
//! | the carrier answers 503 at once | the node's DNS: no INVITE left | charged to the node |
//! | every carrier fails at once | what all calls share: a number, a network, ourselves | at most half are ejected, and panic tries the rest anyway |
//! | the canary fails | its number is dead | others that are heard tell it apart; two in a row, else |

mod board;
mod charge;
mod evidence;
mod facts;
mod heard;
mod lack;
mod moment;
mod node;
mod observation;
mod outcomes;
pub mod panic;
mod policy;
mod probation;
mod snapshot;
mod standing;
mod state;
mod strain;
mod suspension;
mod trunk;
mod turns;
mod why;

pub use self::{
    board::{Board, Changed, ForCall},
    charge::{Charge, Load, charge},
    evidence::{Cause, Evidence, Strain, Tally, Transition},
    facts::{Contact, Registration},
    lack::{Lack, NodeEvidence},
    node::{NodeEvent, NodeHealth, NodeKind, NodeState},
    observation::{Around, Call, Customers, Destination, Ejection, Event, Met, Party},
    policy::{NodePolicy, Policy},
    snapshot::{NodeSnapshot, TrunkSnapshot},
    standing::{Refusal, Standing, Withheld, standing},
    state::{CanaryPlan, Handled, TrunkState},
    suspension::Scope,
    trunk::TrunkHealth,
    why::{Change, Next, NodeWhy, Suspension, Why},
};

#[cfg(test)]
mod tests;
