//! What is said around alerts, and how.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use super::template::Template;
use crate::request::Language;

/// Longest opening, closing and `more`, in characters.
pub const PHRASE_MAX: usize = 150;

/// Words that are said around alerts: one line, maybe empty where that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Phrase(Box<str>);

impl Phrase {
    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most {PHRASE_MAX} characters without control characters")]
pub struct InvalidPhrase;

impl FromStr for Phrase {
    type Err = InvalidPhrase;

    fn from_str(text: &str) -> Result<Self, InvalidPhrase> {
        let fits =
            text.chars().take(PHRASE_MAX + 1).count() <= PHRASE_MAX && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.into())) } else { Err(InvalidPhrase) }
    }
}

impl<'de> Deserialize<'de> for Phrase {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Phrase {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Phrase".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": PHRASE_MAX})
    }
}

/// What is said, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// Said first; maybe nothing.
    #[serde(default = "opening")]
    pub opening: Phrase,
    /// Said of each alert, of at most three. Of Alertmanager's the document is the alert itself; absent there:
    /// its annotation `summary`, or its name. An intake of JSON has to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Template>,
    /// Said where there are more, for `{{count}}` of them.
    #[serde(default = "more")]
    pub more: Phrase,
    /// Said last: which keys there are.
    #[serde(default = "closing")]
    pub closing: Phrase,
    /// Which voice; what is said is in it, or is to be.
    #[serde(default)]
    pub language: Language,
    /// How often it is said.
    #[serde(default = "repeat")]
    #[schemars(range(min = 1, max = 10))]
    pub repeat: u8,
}

impl Default for Speech {
    fn default() -> Self {
        Self {
            opening: opening(),
            alert: None,
            more: more(),
            closing: closing(),
            language: Language::default(),
            repeat: repeat(),
        }
    }
}

fn opening() -> Phrase {
    Phrase("Alert.".into())
}

fn more() -> Phrase {
    Phrase("And {{count}} more.".into())
}

fn closing() -> Phrase {
    Phrase("Press 1 to acknowledge, 2 to pass it on, star to hear it again.".into())
}

const fn repeat() -> u8 {
    2
}
