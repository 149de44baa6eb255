//! The Ringward node agent: the gate before a PBX, and the eyes on its trunks.
//!
//! Start reading at [`app`]: it shows what runs. [`link`] speaks with the control planes, [`ami_stream`]
//! carries their AMI sessions through the [`gate`], [`observer`] watches Asterisk, `records` clears away what settled
//! attempts have left there, `sounds` places what calls play, [`spool`] keeps facts until
//! they are acknowledged. [`evidence`] hears of attackers and has them banned; [`ward`] owns bans and the firewall. Rules are in `node_agent_core`.

pub mod ami_stream;
pub mod app;
pub mod cli;
pub mod clock;
pub mod dial;
pub mod evidence;
pub mod gate;
mod host;
pub mod identity;
pub mod jail;
pub mod joining;
pub mod journal;
pub mod link;
mod memory;
pub mod metrics;
pub mod observer;
mod records;
pub mod settings;
mod sounds;
pub mod spool;
pub mod status;
mod systemd;
pub mod ward;
