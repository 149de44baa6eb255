//! What a customer asks for: the body of `POST /v1/calls`, within bounds.

mod answer;
mod callback;
mod message;
mod redial;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use self::{
    answer::{Acknowledgement, DetectionMode, InvalidKey, Key, KeyAction, Keys, MachineDetection, OnMachine},
    callback::{Callback, EventFilter, EventKind, InvalidFilter},
    message::{AudioId, Builtin, Content, InvalidMessage, Language, Message, MessageText, TEXT_MAX},
    redial::{Redial, RedialOn},
};
use crate::{
    call::{OnUnknown, UnknownWord, words},
    number::E164,
    object,
    schema::Moment,
};

words! {
    /// Whose turn it is first, among the calls of one organisation that wait.
    Priority {
        /// Before all others.
        Urgent = "urgent",
        /// In between.
        Normal = "normal",
        /// After all others.
        Bulk = "bulk",
    }
}

/// Most entries of `metadata`.
pub const METADATA_ENTRIES_MAX: usize = 20;
/// Longest key of `metadata`, in bytes.
pub const METADATA_KEY_MAX: usize = 40;
/// Longest value of `metadata`, in bytes.
pub const METADATA_VALUE_MAX: usize = 500;
/// Longest `dedup_key`, in bytes.
pub const DEDUP_KEY_MAX: usize = 255;

/// A call as asked for. Unknown fields are refused: a misspelt `on_unknown` must not become a second ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "to": "+12025550100",
    "message": {"text": "The database is down. Press 1 to take it.", "language": "en", "repeat": 2},
    "acknowledgement": {"keys": {"1": "acknowledge", "2": "escalate", "*": "repeat"}, "timeout_s": 8},
    "redial": {"on": ["no_answer", "busy", "machine"], "max": 2, "delay_s": 60},
    "metadata": {"incident": "991"},
}]))]
pub struct CallRequest {
    /// The number to phone.
    pub to: E164,
    /// The caller id to present; absent: the trunk's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<E164>,
    /// What to play.
    #[serde(deserialize_with = "object::object")]
    pub message: Message,
    /// Whether a human shall press a key; absent: an answer is enough.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub acknowledgement: Option<Acknowledgement>,
    /// What is done about answering machines.
    #[serde(default, deserialize_with = "object::object")]
    pub machine_detection: MachineDetection,
    /// How long a carrier may stay without 180 or 183, in seconds, before another is tried.
    #[serde(default = "defaults::progress_timeout_s")]
    #[schemars(range(min = 1, max = 60))]
    pub progress_timeout_s: u16,
    /// How long the phone may ring, in seconds, counted from the first ringing.
    #[serde(default = "defaults::ring_timeout_s")]
    #[schemars(range(min = 1, max = 120))]
    pub ring_timeout_s: u16,
    /// How long an answered call may last, in seconds.
    #[serde(default = "defaults::time_limit_s")]
    #[schemars(range(min = 1, max = 3_600))]
    pub time_limit_s: u16,
    /// How far failover may go.
    #[serde(default, deserialize_with = "object::object")]
    pub failover: Failover,
    /// What to do when it cannot be known whether the phone rang.
    #[serde(default = "defaults::on_unknown")]
    pub on_unknown: OnUnknown,
    /// When the callee is dialled again; absent: never.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub redial: Option<Redial>,
    /// When to give up waiting for a free or healthy trunk; absent: 300 s after acceptance, and with
    /// `redial` so much later that every round fits. At most 24 hours ahead.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    pub deadline_at: Option<OffsetDateTime>,
    /// Whose turn it is first where calls wait.
    #[serde(default = "defaults::priority", skip_serializing_if = "is_normal")]
    #[schemars(extend("default" = "normal"))]
    pub priority: Priority,
    /// While a call with this key is open, asking again returns that call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = DEDUP_KEY_MAX))]
    pub dedup_key: Option<String>,
    /// Where this call's events are sent, beside the organisation's receivers.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    /// The customer's own words, returned as they came.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = METADATA_ENTRIES_MAX,
        "propertyNames" = {"minLength": 1, "maxLength": METADATA_KEY_MAX},
        "additionalProperties" = {"type": "string", "maxLength": METADATA_VALUE_MAX},
    ))]
    pub metadata: BTreeMap<String, String>,
    /// Only says what would be done.
    #[serde(default, skip_serializing)]
    pub dry_run: bool,
}

fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}

/// Seconds from acceptance to the deadline of a call that names none.
pub const DEADLINE_DEFAULT_S: i64 = 300;

/// How far failover may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    /// Most attempts of the call, the first included. Attempts that certainly sent nothing do not count.
    #[serde(default = "defaults::attempts_max")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts_max: u8,
}

impl Default for Failover {
    fn default() -> Self {
        Self { attempts_max: defaults::attempts_max() }
    }
}

mod defaults {
    use super::{OnUnknown, Priority};

    pub(super) const fn priority() -> Priority {
        Priority::Normal
    }

    pub(super) const fn progress_timeout_s() -> u16 {
        8
    }
    pub(super) const fn ring_timeout_s() -> u16 {
        25
    }
    pub(super) const fn time_limit_s() -> u16 {
        120
    }
    pub(super) const fn attempts_max() -> u8 {
        3
    }
    pub(super) const fn on_unknown() -> OnUnknown {
        OnUnknown::Retry
    }
}

/// A field out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {rule}")]
pub struct InvalidRequest {
    /// The field, as a path (`failover.attempts_max`).
    pub param: &'static str,
    /// The rule it breaks, with the bounds.
    pub rule: &'static str,
}

impl CallRequest {
    /// Checks every bound that a type does not carry.
    ///
    /// # Errors
    /// The first field that is out of bounds, by its path.
    pub fn validate(&self, now: OffsetDateTime) -> Result<(), InvalidRequest> {
        let check = |ok: bool, param, rule| if ok { Ok(()) } else { Err(InvalidRequest { param, rule }) };
        check((1..=60).contains(&self.progress_timeout_s), "progress_timeout_s", "1 to 60 seconds")?;
        check((1..=120).contains(&self.ring_timeout_s), "ring_timeout_s", "1 to 120 seconds")?;
        check((1..=3_600).contains(&self.time_limit_s), "time_limit_s", "1 to 3600 seconds")?;
        check((1..=10).contains(&self.failover.attempts_max), "failover.attempts_max", "1 to 10")?;
        check((1..=10).contains(&self.message.repeat), "message.repeat", "1 to 10")?;
        self.acknowledgement.as_ref().map_or(Ok(()), Acknowledgement::validate)?;
        self.redial.as_ref().map_or(Ok(()), Redial::validate)?;
        self.callback.as_ref().map_or(Ok(()), Callback::validate)?;
        if let Some(deadline) = self.deadline_at {
            check(deadline > now, "deadline_at", "must be in the future")?;
            check(deadline <= now + time::Duration::hours(24), "deadline_at", "at most 24 hours ahead")?;
        }
        if let Some(key) = &self.dedup_key {
            check((1..=DEDUP_KEY_MAX).contains(&key.len()), "dedup_key", "1 to 255 bytes")?;
        }
        check(self.metadata.len() <= METADATA_ENTRIES_MAX, "metadata", "at most 20 entries")?;
        for (key, value) in &self.metadata {
            check((1..=METADATA_KEY_MAX).contains(&key.len()), "metadata", "keys are 1 to 40 bytes")?;
            check(value.len() <= METADATA_VALUE_MAX, "metadata", "values are at most 500 bytes")?;
            // Refused rather than stored: PostgreSQL text cannot hold NUL, and SQLite must not differ.
            check(!key.contains('\0') && !value.contains('\0'), "metadata", "must not contain NUL")?;
        }
        check(!self.dedup_key.as_deref().unwrap_or("").contains('\0'), "dedup_key", "must not contain NUL")
    }

    /// When the call gives up waiting, if it is accepted at `now`.
    #[must_use]
    pub fn deadline(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.deadline_at.unwrap_or(now + time::Duration::seconds(DEADLINE_DEFAULT_S + self.redial_s()))
    }

    /// Seconds that the wanted redials may take: each with its delay, the silence of as many carriers as failover
    /// may meet, one ringing and one talk.
    fn redial_s(&self) -> i64 {
        let Some(redial) = &self.redial else { return 0 };
        let silence = i64::from(self.failover.attempts_max) * i64::from(self.progress_timeout_s);
        let round = silence + i64::from(self.ring_timeout_s) + i64::from(self.time_limit_s);
        i64::from(redial.max) * (i64::from(redial.delay_s) + round)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn parse(json: &str) -> Result<CallRequest, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn the_shortest_request_has_documented_defaults() {
        let r = parse(r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"}}"#).unwrap();
        assert_eq!((r.progress_timeout_s, r.ring_timeout_s, r.time_limit_s), (8, 25, 120));
        assert_eq!((r.failover.attempts_max, r.on_unknown, r.message.repeat), (3, OnUnknown::Retry, 1));
    }

    #[test]
    fn a_deadline_that_was_not_named_leaves_room_for_the_redials() {
        let now = datetime!(2026-11-24 10:00 UTC);
        let after = |json| (parse(json).unwrap().deadline(now) - now).whole_seconds();
        assert_eq!(after(r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"}}"#), 300);
        let redial = r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"},
            "redial": {"on": ["busy"], "max": 2, "delay_s": 60}}"#;
        assert_eq!(after(redial), 300 + 2 * (60 + 3 * 8 + 25 + 120));
        let longest = r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"},
            "progress_timeout_s": 60, "ring_timeout_s": 120, "time_limit_s": 3600, "failover": {"attempts_max": 10},
            "redial": {"on": ["busy"], "max": 10, "delay_s": 3600}}"#;
        assert!(after(longest) <= 24 * 3_600, "no later than a customer may ask for");
    }

    /// An array in an object's place has its fields by their order, which is nobody's to rely on.
    #[test]
    fn an_array_is_no_object() {
        let with = |more: &str| {
            parse(&format!(r#"{{"to": "+48221234567", "message": {{"audio_id": "builtin:beep"}}, {more}}}"#))
        };
        assert!(with(r#""failover": {"attempts_max": 3}, "redial": null, "callback": null"#).is_ok());
        for wrong in [
            r#""failover": [3]"#,
            r#""failover": []"#,
            r#""machine_detection": ["off", "hangup"]"#,
            r#""acknowledgement": [{"1": "acknowledge"}, 8]"#,
            r#""redial": [["busy"], 1, 60]"#,
            r#""callback": ["https://example.com/", ["call.*"]]"#,
        ] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(parse(r#"{"to": "+48221234567", "message": ["a", null, null, 1]}"#).is_err());
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        let error =
            parse(r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"}, "on_unknwon": "fail"}"#);
        assert!(error.unwrap_err().to_string().contains("on_unknwon"));
    }

    #[test]
    fn each_bound_names_its_field() {
        let now = datetime!(2026-11-24 10:00 UTC);
        let good = parse(r#"{"to": "+48221234567", "message": {"audio_id": "builtin:beep"}}"#).unwrap();
        assert_eq!(good.validate(now), Ok(()));
        let param = |change: &dyn Fn(&mut CallRequest)| {
            let mut r = good.clone();
            change(&mut r);
            r.validate(now).unwrap_err().param
        };
        assert_eq!(param(&|r| r.progress_timeout_s = 0), "progress_timeout_s");
        assert_eq!(param(&|r| r.ring_timeout_s = 121), "ring_timeout_s");
        assert_eq!(param(&|r| r.failover.attempts_max = 0), "failover.attempts_max");
        assert_eq!(param(&|r| r.deadline_at = Some(now)), "deadline_at");
        assert_eq!(param(&|r| r.dedup_key = Some(String::new())), "dedup_key");
        assert_eq!(param(&|r| drop(r.metadata.insert("a\0".into(), String::new()))), "metadata");
        assert_eq!(
            param(&|r| r.metadata.extend((0..21).map(|i| (i.to_string(), String::new())))),
            "metadata"
        );
    }
}
