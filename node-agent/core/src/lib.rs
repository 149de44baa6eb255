//! The node agent's rules, without I/O: values in, values out, time as an argument.
//!
//! [`gate`] decides what a control plane may ask of this PBX and what it may hear of it. [`observe`] reads
//! Asterisk's answers into trunks and findings. [`records`] says which flight records are asked about and removed. [`renewal`] says when a certificate is renewed.
//!
//! Hardening: [`offence`] says what somebody did, and who he is; [`patterns`] reads that from logs; [`rules`] when he is banned; [`protected`] who never is;
//! [`bans`] what becomes of bans; [`firewall`] how the kernel is told.

pub mod attempt_id;
pub mod bans;
pub mod firewall;
pub mod gate;
pub mod moment;
pub mod observe;
pub mod offence;
pub mod patterns;
pub mod protected;
pub mod records;
pub mod renewal;
pub mod rules;
mod words;
