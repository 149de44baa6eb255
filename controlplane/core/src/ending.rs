//! What the ending of an attempt means: the cause table.

use serde::{Deserialize, Serialize};

use crate::call::{UnknownWord, words};

words! {
    /// How an attempt ended, by what the ending means. The attempt's `reason` in the API, and a label of
    /// the attempt counters.
    EndingClass {
        /// It was answered, and has ended since.
        Answered = "answered",
        /// 486 or 600.
        UserBusy = "user_busy",
        /// 603.
        Declined = "declined",
        /// It rang until the time was up.
        RingTimeout = "ring_timeout",
        /// It rang, and then the carrier ended it.
        EndedAfterRinging = "ended_after_ringing",
        /// 183, which may have been a ring, and then a failure.
        EndedAfterProgress = "ended_after_progress",
        /// 480.
        Unreachable = "unreachable",
        /// 404, 410, 484, 485, 604.
        InvalidNumber = "invalid_number",
        /// 403.
        Forbidden = "forbidden",
        /// 401 or 407 although the trunk has credentials.
        Unauthorized = "unauthorized",
        /// 488 or 606: no common codec.
        NotAcceptable = "not_acceptable",
        /// 3xx: never followed.
        Redirected = "redirected",
        /// 503.
        Congestion = "congestion",
        /// Another 5xx, or a 4xx that says nothing about the callee.
        CarrierError = "carrier_error",
        /// 408 that the carrier sent.
        CarrierTimeout = "carrier_timeout",
        /// Nothing came back at all (Timer B).
        CarrierSilent = "carrier_silent",
        /// 100, and then neither 180 nor 183 in time.
        NoProgress = "no_progress",
        /// Asterisk made no channel: contact unreachable or endpoint unknown. No INVITE left.
        ContactDown = "contact_down",
        /// The node failed before an INVITE left (a name that did not resolve).
        NodeFault = "node_fault",
        /// The Originate never left: the node's AMI was down.
        NotSent = "not_sent",
        /// Asterisk refused the Originate.
        Rejected = "rejected",
        /// The customer canceled it.
        Canceled = "canceled",
        /// The node died while the phone rang or the message played.
        Interrupted = "interrupted",
        /// It cannot be known how it ended.
        Unknown = "unknown",
    }
}
