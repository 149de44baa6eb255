//! The control plane's rules, without I/O.
//!
//! Everything here is values in, values out: time is an argument, chance is an argument. The shells in
//! `controlplane` feed it and carry out what it decides. In the order in which a call meets them:
//!
//! - [`ids`], [`number`], [`names`]: words that cannot be wrong once parsed.
//! - [`access`]: what a key may do.
//! - [`fleet`]: carriers, nodes, trunks and routes as `fleet.toml` declares them.
//! - [`limits`]: how much of everything an organisation or a key may have.
//! - [`request`]: what a customer asks for, within bounds.
//! - [`guard`]: whether an organisation may place it at all.
//! - [`selection`]: which trunk is tried now, and why the others were passed over.
//! - [`fair`]: whose turn it is where trunks are full.
//! - [`pacing`]: calls per second and channels, per trunk.
//! - [`attempt`]: one Originate, from sending to its ending.
//! - [`ending`]: what an ending means (the cause table).
//! - [`failover`]: what follows an ending: another trunk, or the end of the call.
//! - [`redial`]: whether the callee is dialled again later.
//! - [`rehearsal`]: what a test key's call meets.
//! - [`throttle`]: how often one number may be dialled.
//! - [`health`]: which trunks and nodes can carry a call, and why.
//! - [`webhook`]: where events may be sent, and when they are sent again.
//! - [`trace`]: where a call stands in a trace.
//! - [`chat`]: what operators are told of changes.
//! - [`oncall`]: alerts in, calls out, until somebody acknowledges.
//! - [`status`]: what strangers are told of the fleet.
//! - [`retention`]: how long what is of an organisation is kept.
//! - [`call`]: the states of a call as customers see them.
//! - [`object`], [`schema`]: what is read as JSON, and what its schema says.

pub mod access;
pub mod attempt;
pub mod audit;
pub mod call;
pub mod chat;
pub mod ending;
pub mod failover;
pub mod fair;
pub mod fleet;
pub mod guard;
pub mod health;
pub mod ids;
pub mod limits;
pub mod names;
pub mod number;
pub mod object;
pub mod oncall;
pub mod pacing;
pub mod redial;
pub mod rehearsal;
pub mod request;
pub mod retention;
pub mod schema;
pub mod selection;
pub mod sound;
pub mod status;
pub mod throttle;
pub mod trace;
pub mod webhook;
