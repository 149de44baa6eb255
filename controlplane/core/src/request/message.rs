//! What the callee hears: a text that is spoken, or a recording.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};

use crate::{ids::RecordingId, schema::text_schema};

/// Longest text, in characters: some two and a half minutes of speech.
pub const TEXT_MAX: usize = 2_000;
/// Longest name of a language, in bytes.
const LANGUAGE_MAX: usize = 16;

/// What the callee hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Message {
    /// The sound.
    pub content: Content,
    /// How often it is played, 1 to 10.
    pub repeat: u8,
}

/// Where the sound comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Spoken by the configured engine.
    Text {
        /// What is said.
        text: MessageText,
        /// In which language.
        language: Language,
    },
    /// A recording.
    Audio(AudioId),
}

/// What the callee hears: one of `text` and `audio_id`; `language` goes with a text alone.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["text"]}, {"required": ["audio_id"]}]))]
struct Raw {
    /// What is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<MessageText>,
    /// A recording, or a sound that every node has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audio_id: Option<AudioId>,
    /// In which language the text is; absent: `en`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<Language>,
    /// How often it is played.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    repeat: u8,
}

const fn one() -> u8 {
    1
}

impl JsonSchema for Message {
    fn schema_name() -> Cow<'static, str> {
        "Message".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Raw::json_schema(generator)
    }
}

impl TryFrom<Raw> for Message {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let content = match (raw.text, raw.audio_id, raw.language) {
            (Some(text), None, language) => Content::Text { text, language: language.unwrap_or_default() },
            (None, Some(audio), None) => Content::Audio(audio),
            (None, Some(_), Some(_)) => return Err("`language` goes with `text`, not with `audio_id`"),
            (Some(_), Some(_), _) => return Err("one of `text` and `audio_id`, not both"),
            (None, None, _) => return Err("one of `text` and `audio_id` is required"),
        };
        Ok(Self { content, repeat: raw.repeat })
    }
}

impl From<Message> for Raw {
    fn from(message: Message) -> Self {
        let repeat = message.repeat;
        match message.content {
            Content::Text { text, language } => {
                Self { text: Some(text), audio_id: None, language: Some(language), repeat }
            }
            Content::Audio(audio) => Self { text: None, audio_id: Some(audio), language: None, repeat },
        }
    }
}

/// Why a word of a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Too long, empty, or with control characters.
    #[error(
        "a text is 1 to {TEXT_MAX} characters, some of them visible, and no control characters but line breaks"
    )]
    Text,
    /// Not a language tag.
    #[error("a language is a tag such as en, pl or pt-br")]
    Language,
    /// Neither a sound that every node has nor a recording.
    #[error(
        "an audio id is builtin:beep, builtin:hello-world, builtin:demo-congrats, builtin:tt-monkeys or audio_…"
    )]
    Audio,
}

macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// A text to speak: 1 to [`TEXT_MAX`] characters, no control characters but line breaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct MessageText(Box<str>);

impl MessageText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MessageText {
    type Err = InvalidMessage;

    fn from_str(text: &str) -> Result<Self, InvalidMessage> {
        let length = text.chars().take(TEXT_MAX + 1).count();
        let clean = text.chars().all(|c| c == '\n' || !c.is_control());
        let says = text.chars().any(|c| !c.is_whitespace());
        if says && clean && length <= TEXT_MAX { Ok(Self(text.into())) } else { Err(InvalidMessage::Text) }
    }
}
text_type!(MessageText);

impl JsonSchema for MessageText {
    fn schema_name() -> Cow<'static, str> {
        "MessageText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": TEXT_MAX,
            "description": "Some of it visible, and no control characters but line breaks.",
            "examples": ["The database is down. Press 1 to take it."],
        })
    }
}

/// A language's tag in lower case: `en`, `pl`, `pt-br`. Whether the engine speaks it is another question.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Language(Box<str>);

impl Language {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Language {
    fn default() -> Self {
        Self("en".into())
    }
}

impl FromStr for Language {
    type Err = InvalidMessage;

    fn from_str(text: &str) -> Result<Self, InvalidMessage> {
        let lower = text.to_ascii_lowercase();
        let mut parts = lower.split('-');
        let main = parts.next().unwrap_or_default();
        let ok = (2..=3).contains(&main.len())
            && main.bytes().all(|b| b.is_ascii_lowercase())
            && parts
                .all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
            && lower.len() <= LANGUAGE_MAX;
        if ok { Ok(Self(lower.into())) } else { Err(InvalidMessage::Language) }
    }
}
text_type!(Language);

impl JsonSchema for Language {
    fn schema_name() -> Cow<'static, str> {
        "Language".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "maxLength": LANGUAGE_MAX, "examples": ["en", "pt-br"],
            "pattern": "^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}$",
        })
    }
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AudioId {
    /// A sound that every Asterisk brings.
    Builtin(Builtin),
    /// Uploaded by the customer.
    Recording(RecordingId),
}

impl fmt::Display for AudioId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => write!(f, "{BUILTIN}{}", builtin.sound()),
            Self::Recording(id) => write!(f, "{id}"),
        }
    }
}

/// What the id of a builtin sound begins with.
const BUILTIN: &str = "builtin:";

impl FromStr for AudioId {
    type Err = InvalidMessage;

    fn from_str(text: &str) -> Result<Self, InvalidMessage> {
        let builtin = |name: &str| Builtin::ALL.into_iter().find(|b| b.sound() == name).map(Self::Builtin);
        let id = match text.strip_prefix(BUILTIN) {
            Some(name) => builtin(name),
            None => text.parse().ok().map(Self::Recording),
        };
        id.ok_or(InvalidMessage::Audio)
    }
}

impl Serialize for AudioId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AudioId {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

text_schema!(
    AudioId,
    "^(builtin:(beep|hello-world|demo-congrats|tt-monkeys)|audio_[0-9a-hjkmnp-tv-z]{25}[048cgmrw])$",
    "builtin:beep"
);

/// A sound that every Asterisk brings (package `asterisk-core-sounds-en-gsm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// One second of tone.
    Beep,
    /// A woman says "hello world".
    HelloWorld,
    /// Some twenty seconds of greeting.
    DemoCongrats,
    /// Monkeys, for as long as a message usually lasts.
    Monkeys,
}

impl Builtin {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Beep, Self::HelloWorld, Self::DemoCongrats, Self::Monkeys];

    /// The file's name below Asterisk's sounds folder, without its ending.
    #[must_use]
    pub const fn sound(self) -> &'static str {
        match self {
            Self::Beep => "beep",
            Self::HelloWorld => "hello-world",
            Self::DemoCongrats => "demo-congrats",
            Self::Monkeys => "tt-monkeys",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Message, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_message_is_a_text_or_a_recording() {
        for json in [
            r#"{"text":"The database is down","language":"pt-br","repeat":2}"#,
            r#"{"audio_id":"builtin:tt-monkeys","repeat":1}"#,
            r#"{"audio_id":"audio_00000000000000000000000000","repeat":10}"#,
        ] {
            assert_eq!(serde_json::to_string(&read(json).unwrap()).unwrap(), json);
        }
        assert_eq!(
            read(r#"{"text": "a"}"#).unwrap().content,
            Content::Text { text: "a".parse().unwrap(), language: Language::default() }
        );
        for json in [
            "{}",
            r#"{"text": "a", "audio_id": "builtin:beep"}"#,
            r#"{"audio_id": "builtin:beep", "language": "en"}"#,
            r#"{"text": ""}"#,
            r#"{"text": " \n "}"#,
            r#"{"text": "a\u0000"}"#,
            r#"{"text": "a\u001b[2J"}"#,
            r#"{"text": "a", "language": "../en"}"#,
            r#"{"text": "a", "language": "e"}"#,
            r#"{"text": "a", "voice": "b"}"#,
            r#"{"audio_id": "builtin:../beep"}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        assert!("ä".repeat(TEXT_MAX).parse::<MessageText>().is_ok());
        assert!("ä".repeat(TEXT_MAX + 1).parse::<MessageText>().is_err());
    }
}
