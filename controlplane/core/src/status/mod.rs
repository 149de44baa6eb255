//! What strangers are told of the fleet: for how much of each day calls could be sent from each region, how many of the
//! calls that the fleet had to bring about it brought about, and what operators say to everybody.
//!
//! [`Uptime`] adds up what is seen, [`report`] makes of it what is shown. Both know regions and days, and nothing that is
//! finer: what is not in here cannot leak from the page.

pub mod notice;
mod report;
mod uptime;

pub use self::{
    report::{CallsDay, Day, Line, Past, Report, Standing, percent, report},
    uptime::{RegionDay, Unwritten, Uptime},
};
use crate::call::Reason;

/// Days that are told of, today among them.
pub const DAYS: i64 = 90;

/// What a call's end says of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It did what was asked: somebody answered, or the carrier told of the callee.
    Served,
    /// It did not, and whether it can is its own business.
    Missed,
    /// Neither: what was asked could not be, or the caller's own limits and wishes ended it.
    Apart,
}

/// What a call's end says of the fleet.
#[must_use]
pub const fn service(reason: Reason) -> Service {
    match reason {
        Reason::Acknowledged
        | Reason::AnsweredNoAck
        | Reason::Escalated
        | Reason::Machine
        | Reason::Played
        | Reason::UserBusy
        | Reason::Declined
        | Reason::RingTimeout
        | Reason::Unreachable => Service::Served,
        Reason::NoHealthyRoute
        | Reason::TrunkUnavailable
        | Reason::MediaError
        | Reason::DeadlineExceeded
        | Reason::OutcomeUnknown
        | Reason::Interrupted => Service::Missed,
        Reason::Api | Reason::InvalidNumber | Reason::NotPermitted | Reason::Throttled => Service::Apart,
    }
}
