//! Where the events of one call are sent.

use std::{borrow::Cow, fmt, iter::once, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use super::InvalidRequest;
use crate::call::{UnknownWord, words};

/// Longest address of a receiver, in bytes.
const URL_MAX: usize = 2_048;
/// Most filters of one receiver.
const FILTERS_MAX: usize = 20;

words! {
    /// What happened, as events name it.
    EventKind {
        /// An attempt is under way.
        Initiated = "call.initiated",
        /// A phone rings.
        Ringing = "call.ringing",
        /// Answered.
        Answered = "call.answered",
        /// A key was pressed that acknowledges.
        Acknowledged = "call.acknowledged",
        /// An attempt ended and another follows.
        AttemptFailed = "call.attempt_failed",
        /// The call ended: once per call.
        Finished = "call.finished",
        /// A receiver gets no more events because of how it answered.
        EndpointDisabled = "endpoint.disabled",
    }
}

impl EventKind {
    /// Whether it happens to a call.
    #[must_use]
    pub const fn is_of_a_call(self) -> bool {
        match self {
            Self::Initiated
            | Self::Ringing
            | Self::Answered
            | Self::Acknowledged
            | Self::AttemptFailed
            | Self::Finished => true,
            Self::EndpointDisabled => false,
        }
    }
}

/// Which events a receiver wants: one kind, or `call.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventFilter {
    /// All of a call.
    All,
    /// One kind.
    Only(EventKind),
}

const ALL: &str = "call.*";

/// Not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a filter is call.* or one kind of event, such as call.finished")]
pub struct InvalidFilter;

impl EventFilter {
    /// Whether an event of this kind is wanted.
    #[must_use]
    pub fn admits(self, kind: EventKind) -> bool {
        match self {
            Self::All => kind.is_of_a_call(),
            Self::Only(only) => only == kind,
        }
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str(ALL),
            Self::Only(kind) => write!(f, "{kind}"),
        }
    }
}

impl FromStr for EventFilter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        if text == ALL {
            return Ok(Self::All);
        }
        text.parse().map(Self::Only).map_err(|_| InvalidFilter)
    }
}

impl Serialize for EventFilter {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventFilter {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for EventFilter {
    fn schema_name() -> Cow<'static, str> {
        "EventFilter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = once(ALL).chain(EventKind::ALL.iter().map(|kind| kind.as_str())).collect();
        json_schema!({"type": "string", "description": "All events of calls, or those of one kind.", "enum": words})
    }
}

/// A receiver of one call's events. Whether its address may be called is decided where it is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Callback {
    /// An https address.
    #[schemars(length(min = 1, max = URL_MAX), example = "https://example.com/hook")]
    pub url: String,
    /// Which events; absent: all.
    #[serde(default = "all")]
    #[schemars(length(min = 1, max = FILTERS_MAX))]
    pub events: Vec<EventFilter>,
}

fn all() -> Vec<EventFilter> {
    vec![EventFilter::All]
}

impl Callback {
    /// Whether an event of this kind is wanted.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.events.iter().any(|filter| filter.admits(kind))
    }

    pub(super) fn validate(&self) -> Result<(), InvalidRequest> {
        let check = |ok: bool, param, rule| if ok { Ok(()) } else { Err(InvalidRequest { param, rule }) };
        let plain = self.url.bytes().all(|byte| byte.is_ascii_graphic());
        check(
            (1..=URL_MAX).contains(&self.url.len()) && plain,
            "callback.url",
            "an address of at most 2048 bytes",
        )?;
        check((1..=FILTERS_MAX).contains(&self.events.len()), "callback.events", "1 to 20 filters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_all_or_one_kind() {
        let json = r#"{"url":"https://example.com/hook","events":["call.finished","call.acknowledged"]}"#;
        let callback: Callback = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&callback).unwrap(), json);
        assert!(callback.wants(EventKind::Finished) && !callback.wants(EventKind::Ringing));
        let all: Callback = serde_json::from_str(r#"{"url": "https://example.com/hook"}"#).unwrap();
        assert!(EventKind::ALL.iter().all(|kind| all.wants(*kind) == kind.is_of_a_call()));
        for wrong in ["call.", "*", "call.ring*", "finished"] {
            assert!(wrong.parse::<EventFilter>().is_err(), "{wrong}");
        }
    }
}
