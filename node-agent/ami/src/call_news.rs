//! What our dialplan tells of an answered call, by UserEvents whose form is as strict as that of Asterisk's own
//! (`schema.rs`): each names its attempt, and an event whose channel is not that very attempt is tampering.

use std::fmt;

use crate::message::Message;
use crate::names::ChannelId;

/// Longest `Cause` of a verdict, in bytes; AMD() writes some 25.
const CAUSE_MAX: usize = 64;

/// One piece of news of an answered call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallNews {
    /// `RingwardAnswered`: the dialplan has the call.
    Answered,
    /// `RingwardKey`: the callee let go of this key, one of `0` to `9`, `*` and `#`.
    Key(char),
    /// `RingwardMachine`: what AMD() made of the answer. Advisory.
    Machine(Verdict),
    /// `RingwardPlayed`: the message was played to its last repeat and no key ended the call.
    Played,
    /// `RingwardMedia`: the sound is not on this node, or cannot be played. The callee heard nothing or less
    /// than was meant.
    NoMedia,
}

/// Who answered, as AMD() guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// `human`.
    Human,
    /// `machine`.
    Machine,
    /// `notsure`: it could not tell, or this Asterisk has no AMD().
    NotSure,
}

impl Verdict {
    /// Reads the dialplan's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "machine" => Some(Self::Machine),
            "notsure" => Some(Self::NotSure),
            _ => None,
        }
    }

    /// The dialplan's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Machine => "machine",
            Self::NotSure => "notsure",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key that `text` is; `None` for anything but one of `0` to `9`, `*` and `#`.
pub(crate) fn key(text: &str) -> Option<char> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(key @ ('0'..='9' | '*' | '#')), None) => Some(key),
        (Some(_) | None, _) => None,
    }
}

/// `None`: no event of our dialplan. `Some(None)`: a value cannot be what its header says. Form and ids are
/// judged elsewhere.
pub(crate) fn read(message: &Message) -> Option<Option<(ChannelId, CallNews)>> {
    let text = |header: &str| message.text(header).unwrap_or_default();
    let news = match text("UserEvent").as_ref() {
        "RingwardAnswered" => Some(CallNews::Answered),
        "RingwardKey" => key(&text("Key")).map(CallNews::Key),
        "RingwardMachine" => Verdict::parse(&text("Verdict"))
            .filter(|_| {
                let cause = text("Cause");
                let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
                cause.len() <= CAUSE_MAX && cause.bytes().all(plain)
            })
            .map(CallNews::Machine),
        "RingwardPlayed" => Some(CallNews::Played),
        "RingwardMedia" => Some(CallNews::NoMedia),
        _ => return None,
    };
    Some(ChannelId::parse(text("Attempt")).ok().zip(news))
}
