//! What the callee may do, and what is done when a machine answers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use super::InvalidRequest;
use crate::{
    call::{UnknownWord, words},
    schema::text_schema,
};

/// A key of a telephone: `0` to `9`, `*`, `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u8);

/// Not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is one of 0 to 9, * and #")]
pub struct InvalidKey;

impl Key {
    /// As it is written.
    #[must_use]
    pub const fn as_char(self) -> char {
        self.0 as char
    }
}

impl TryFrom<char> for Key {
    type Error = InvalidKey;

    fn try_from(key: char) -> Result<Self, InvalidKey> {
        match u8::try_from(key) {
            Ok(byte @ (b'0'..=b'9' | b'*' | b'#')) => Ok(Self(byte)),
            Ok(_) | Err(_) => Err(InvalidKey),
        }
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(key), None) => key.try_into(),
            (Some(_) | None, _) => Err(InvalidKey),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_char())
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

text_schema!(Key, "^[0-9*#]$", "1");

/// A set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys(u64);

impl Keys {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// Whether `key` is one of them.
    #[must_use]
    pub const fn has(self, key: Key) -> bool {
        self.0 & Self::bit(key) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn bit(key: Key) -> u64 {
        1 << (key.0 & 0x3f)
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        keys.into_iter().fold(Self::default(), |Self(all), key| Self(all | Self::bit(key)))
    }
}

words! {
    /// What pressing a key means.
    KeyAction {
        /// The callee has taken note. Ends the call.
        Acknowledge = "acknowledge",
        /// The callee hands it on: not acknowledged, and not to be dialled again. Ends the call.
        Escalate = "escalate",
        /// The message from its beginning.
        Repeat = "repeat",
    }
}

/// That a human shall press a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// What each key means; at least one of them acknowledges, at most one repeats.
    #[serde(default = "default_keys")]
    #[schemars(schema_with = "keys_schema")]
    pub keys: BTreeMap<Key, KeyAction>,
    /// How long a key is waited for after the message, in seconds.
    #[serde(default = "default_timeout_s")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout_s: u16,
}

fn default_keys() -> BTreeMap<Key, KeyAction> {
    BTreeMap::from([(Key(b'1'), KeyAction::Acknowledge), (Key(b'*'), KeyAction::Repeat)])
}

const fn default_timeout_s() -> u16 {
    8
}

/// An object whose names are keys of a telephone.
fn keys_schema(generator: &mut SchemaGenerator) -> Schema {
    let (key, action) = (generator.subschema_for::<Key>(), generator.subschema_for::<KeyAction>());
    json_schema!({
        "type": "object", "propertyNames": key, "additionalProperties": action, "minProperties": 1,
    })
}

impl Acknowledgement {
    /// What a key means; `None`: nothing.
    #[must_use]
    pub fn meaning(&self, key: Key) -> Option<KeyAction> {
        self.keys.get(&key).copied()
    }

    /// The keys that end the call.
    #[must_use]
    pub fn deciding(&self) -> Keys {
        let ends = |action: KeyAction| match action {
            KeyAction::Acknowledge | KeyAction::Escalate => true,
            KeyAction::Repeat => false,
        };
        self.keys.iter().filter(|(_, action)| ends(**action)).map(|(key, _)| *key).collect()
    }

    pub(super) fn validate(&self) -> Result<(), InvalidRequest> {
        let many = |action| self.keys.values().filter(|a| **a == action).count();
        if many(KeyAction::Acknowledge) == 0 || many(KeyAction::Repeat) > 1 {
            let rule = "at least one key acknowledges, at most one repeats";
            return Err(InvalidRequest { param: "acknowledgement.keys", rule });
        }
        if !(1..=60).contains(&self.timeout_s) {
            return Err(InvalidRequest { param: "acknowledgement.timeout_s", rule: "1 to 60 seconds" });
        }
        Ok(())
    }
}

words! {
    /// Whether it is listened for a machine. Advisory: it errs, and it takes a few seconds after the answer.
    DetectionMode {
        /// No.
        Off = "off",
        /// Yes, by Asterisk's AMD().
        Detect = "detect",
    }
}

words! {
    /// What is done when a machine has answered.
    OnMachine {
        /// The call is ended.
        Hangup = "hangup",
        /// As if a human had answered.
        Continue = "continue",
        /// The message is played once, after a silence.
        LeaveMessage = "leave_message",
    }
}

/// What is done about answering machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineDetection {
    /// Whether at all.
    #[serde(default = "off")]
    pub mode: DetectionMode,
    /// What then.
    #[serde(default = "hangup")]
    pub on_machine: OnMachine,
}

const fn off() -> DetectionMode {
    DetectionMode::Off
}

const fn hangup() -> OnMachine {
    OnMachine::Hangup
}

impl Default for MachineDetection {
    fn default() -> Self {
        Self { mode: off(), on_machine: hangup() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Acknowledgement, String> {
        let read: Acknowledgement = serde_json::from_str(json).map_err(|error| error.to_string())?;
        read.validate().map_err(|error| error.to_string()).map(|()| read)
    }

    #[test]
    fn keys_mean_what_the_customer_says() {
        let default = read("{}").unwrap();
        assert_eq!(default.meaning('1'.try_into().unwrap()), Some(KeyAction::Acknowledge));
        assert_eq!(default.meaning('2'.try_into().unwrap()), None);
        let own = r##"{"keys":{"#":"escalate","*":"repeat","5":"acknowledge"},"timeout_s":20}"##;
        assert_eq!(serde_json::to_string(&read(own).unwrap()).unwrap(), own);
    }

    #[test]
    fn the_keys_that_end_a_call_are_told_from_the_others() {
        let all: Vec<Key> = "0123456789*#".chars().map(|key| key.try_into().unwrap()).collect();
        let own = read(r##"{"keys":{"#":"escalate","*":"repeat","0":"acknowledge"}}"##).unwrap().deciding();
        let ends: String = all.iter().filter(|key| own.has(**key)).map(|key| key.as_char()).collect();
        assert_eq!(ends, "0#");
        assert!(Keys::default().is_empty() && all.iter().all(|key| !Keys::default().has(*key)));
    }

    #[test]
    fn a_call_that_nobody_could_acknowledge_is_refused() {
        for json in [
            r#"{"keys": {}}"#,
            r#"{"keys": {"2": "escalate"}}"#,
            r#"{"keys": {"1": "acknowledge", "2": "repeat", "3": "repeat"}}"#,
            r#"{"keys": {"11": "acknowledge"}}"#,
            r#"{"keys": {"A": "acknowledge"}}"#,
            r#"{"keys": {"1": "explode"}}"#,
            r#"{"timeout_s": 0}"#,
            r#"{"timeout_s": 61}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
