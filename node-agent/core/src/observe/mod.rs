//! Asterisk's answers about its trunks, read into values, and what is amiss with them.
//!
//! Answers come under ActionIDs that nobody outside knows, so they are facts; their values may still hold
//! what a registering phone wrote (contacts of phones do), so each is parsed or left out.

mod findings;
mod host;
mod read;

pub use findings::{DIALPLAN_FIX, Finding, FindingKind, Seen, TALK_CONTEXT, endpoint_of, findings};
pub use host::{Host, HostText, memory, rtp_ports_in_use, rtp_range};
pub use read::{
    Contact, ContactStatus, Endpoint, ForeignCall, Registration, RegistrationStatus, channels, contacts,
    endpoints, foreign_calls, has_tech_cause, registrations, uri_host,
};
