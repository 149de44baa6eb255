//! Where events may be sent, and when they are sent again.

mod address;
mod failing;
mod retry;

pub use self::{
    address::{Refusal, refused},
    failing::{DISABLED_AFTER, DISABLED_TRIES, FAILING_GAP_MAX, Failing},
    retry::{Answer, Next, RETRY_AFTER_MAX, TRIES_MAX, after},
};
use serde::{Deserialize, Serialize};

use crate::call::{UnknownWord, words};

words! {
    /// Why an endpoint gets no events.
    DisabledReason {
        /// Its owner switched it off.
        Owner = "owner",
        /// It answered 410.
        Gone = "gone",
        /// Every try of three days failed.
        Failing = "failing",
    }
}

words! {
    /// How a try to deliver failed, as metrics and the delivery log say it.
    Failure {
        /// The receiver answered another status than 2xx.
        Status = "status",
        /// No answer in time.
        Timeout = "timeout",
        /// The connection, or TLS, failed.
        Connect = "connect",
        /// The name has no address.
        Dns = "dns",
        /// The address is one that events are never sent to.
        Refused = "refused",
    }
}
