//! When a callee is dialled again who was reached by the network but not by the alert: the customer's wish,
//! apart from failover, which never dials one again who is known to have been rung.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InvalidRequest;
use crate::call::{UnknownWord, words};

words! {
    /// How a round ended, as the customer names it.
    RedialOn {
        /// It rang and nobody answered, or the phone is off.
        NoAnswer = "no_answer",
        /// The callee was speaking. Not a callee who declined.
        Busy = "busy",
        /// A machine answered.
        Machine = "machine",
        /// Answered, and no key was pressed that acknowledges.
        AnsweredNoAck = "answered_no_ack",
        /// The PBX died while the phone rang or the message played.
        Interrupted = "interrupted",
    }
}

/// How often, when, and after what a callee is dialled again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redial {
    /// After what.
    #[schemars(with = "Vec<RedialOn>", length(min = 1))]
    pub on: BTreeSet<RedialOn>,
    /// Most rounds after the first.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 10))]
    pub max: u8,
    /// From the end of a round to the beginning of the next, in seconds.
    #[serde(default = "minute")]
    #[schemars(range(min = 1, max = 3_600))]
    pub delay_s: u16,
}

const fn two() -> u8 {
    2
}

const fn minute() -> u16 {
    60
}

impl Redial {
    pub(super) fn validate(&self) -> Result<(), InvalidRequest> {
        let check = |ok: bool, param, rule| if ok { Ok(()) } else { Err(InvalidRequest { param, rule }) };
        check(!self.on.is_empty(), "redial.on", "at least one word")?;
        check((1..=10).contains(&self.max), "redial.max", "1 to 10")?;
        check((1..=3_600).contains(&self.delay_s), "redial.delay_s", "1 to 3600 seconds")
    }
}
