//! The messages of the control stream, and how they are read and written.

use controlplane_core::{
    ids::{AttemptId, FactId, StreamId},
    sound::SoundHash,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    BanChanges, BansHeld, BarAnswer, FACTS_PER_MESSAGE, Fact, Hello, List, Observations, Policy, Refused,
    Text, Welcome,
};

/// Largest text message of the control stream, in bytes: 512 endpoints with their contacts, or 256 facts of
/// common size. A writer splits its facts to stay within it.
pub const MESSAGE_MAX: usize = 1024 * 1024;

/// Most attempts of one kind in one message.
pub const ATTEMPTS_PER_MESSAGE: usize = 1024;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Up {
    /// First, and once.
    Hello(Hello),
    /// State: replaces the one before.
    Observations(Box<Observations>),
    /// Facts: each is sent until acknowledged.
    Facts {
        /// Oldest first.
        facts: List<Fact, FACTS_PER_MESSAGE>,
    },
    /// Answers [`Down::Bar`].
    Bar {
        /// The attempt.
        attempt: AttemptId,
        /// The answer.
        answer: BarAnswer,
    },
    /// Asks what the control plane knows of attempts that have left something on this node; only of one that has
    /// [`crate::Capability::Records`]. Asked again while they are there: an answer that is lost does no harm.
    Attempts {
        /// With a flight record.
        records: List<AttemptId, ATTEMPTS_PER_MESSAGE>,
        /// With a channel that has lived for a while. One whose attempt has ended is hung up.
        channels: List<AttemptId, ATTEMPTS_PER_MESSAGE>,
    },
    /// Answers [`Down::OpenAmi`] where the agent cannot: Asterisk is down, or too many streams are open.
    AmiRefused {
        /// The stream.
        stream_id: StreamId,
        /// Why, in words.
        reason: Text<300>,
    },
    /// Answers [`Down::PlaceAudio`].
    AudioPlaced {
        /// The sound.
        sound: SoundHash,
        /// As it was asked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ahead: bool,
        /// Why it is not there, in words; absent: it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Text<300>>,
    },
    /// Up to where this node holds the fleet's bans: at the beginning of a link, and after each page of [`Down::Bans`];
    /// only to a control plane that has [`crate::Capability::Hardening`].
    Bans(BansHeld),
    /// A kind of a newer version: skipped, and counted.
    #[serde(other)]
    Unknown,
}

/// From the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Down {
    /// First, and once.
    Welcome(Welcome),
    /// Last: the link ends now.
    Refused(Refused),
    /// State: replaces the one before.
    Policy(Box<Policy>),
    /// These facts are durable, now or since before: forget them.
    Ack {
        /// Their ids.
        fact_ids: List<FactId, FACTS_PER_MESSAGE>,
    },
    /// Dial [`crate::ami_path`] of this stream.
    OpenAmi {
        /// Random: whoever dials it must know it, and hold the node's certificate.
        stream_id: StreamId,
    },
    /// Put this sound where Asterisk plays it, from [`crate::audio_path`], and say when it is there; only to an agent
    /// that has [`crate::Capability::Audio`]. Asked again before each call that plays it.
    PlaceAudio {
        /// The sound.
        sound: SoundHash,
        /// No call is about to play it yet: it may go again as soon as room is wanted, and is asked for once more
        /// before a call leaves. Agents that do not know this keep it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ahead: bool,
    },
    /// Answers [`Up::Attempts`] for its records. What it does not name is open.
    Attempts {
        /// Their outcome is durable: the record is worth nothing any more.
        settled: List<AttemptId, ATTEMPTS_PER_MESSAGE>,
        /// Not known here.
        unknown: List<AttemptId, ATTEMPTS_PER_MESSAGE>,
    },
    /// What changed of the fleet's bans; only to an agent that has said what it holds. The next page comes when it has
    /// said that it holds this one.
    Bans(Box<BanChanges>),
    /// Let no Originate of this attempt through from now on, and say whether one went before.
    Bar {
        /// The attempt.
        attempt: AttemptId,
        /// For how long it may have existed at most, in s, with an allowance for clocks and for the way of this
        /// message; absent: an hour. A memory that reaches back so far is enough for a proof.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_max_s: Option<u64>,
    },
    /// A kind of a newer version: skipped, and counted.
    #[serde(other)]
    Unknown,
}

/// What a text message was.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<T> {
    /// A message that this version knows.
    Message(T),
    /// A kind that it does not: skip it, and count it.
    Unknown,
}

/// Not a message: over a bound, not JSON, or a known kind without its members. Ends the link.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Larger than [`MESSAGE_MAX`].
    #[error("a message of {0} bytes: the limit is {MESSAGE_MAX}")]
    TooLarge(usize),
    /// Cannot be read.
    #[error("not a message: {0}")]
    Invalid(#[from] serde_json::Error),
}

/// A message of one direction.
pub trait Message: Serialize + DeserializeOwned {
    /// Whether it is of a kind that this version does not know.
    fn is_unknown(&self) -> bool;
}

impl Message for Up {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl Message for Down {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Reads a text message: `decode::<Up>(…)` or `decode::<Down>(…)`.
///
/// # Errors
/// [`Malformed`].
pub fn decode<T: Message>(text: &str) -> Result<Decoded<T>, Malformed> {
    if text.len() > MESSAGE_MAX {
        return Err(Malformed::TooLarge(text.len()));
    }
    let message: T = serde_json::from_str(text)?;
    Ok(if message.is_unknown() { Decoded::Unknown } else { Decoded::Message(message) })
}

/// Writes a text message.
///
/// # Errors
/// [`Malformed::TooLarge`]: the other side would end the link for it.
pub fn encode<T: Message>(message: &T) -> Result<String, Malformed> {
    let text = serde_json::to_string(message)?;
    if text.len() > MESSAGE_MAX { Err(Malformed::TooLarge(text.len())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Capability, ContactStatus, FirewallState};

    fn up(value: &serde_json::Value) -> Result<Decoded<Up>, Malformed> {
        decode(&value.to_string())
    }

    #[test]
    fn an_older_hello_without_newer_members_is_read_and_a_newer_one_as_well() {
        let older = json!({"kind": "hello", "protocol": 1, "agent_version": "0.0.9", "node": "waw-1", "incarnation": "x"});
        let Decoded::Message(Up::Hello(hello)) = up(&older).unwrap() else { panic!("not a hello") };
        assert!(hello.is_understood());
        assert_eq!(hello.capabilities.lacking(&[Capability::Ami, Capability::Bar]).len(), 2);
        let newer = json!({"kind": "hello", "protocol": 3, "protocol_oldest": 1, "agent_version": "2.0.0", "node": "waw-1",
            "incarnation": "x", "capabilities": ["ami", "telepathy"], "mood": {"of": "the day"}});
        let Decoded::Message(Up::Hello(hello)) = up(&newer).unwrap() else { panic!("not a hello") };
        assert!(hello.is_understood() && hello.capabilities.has(Capability::Ami));
        assert!(hello.capabilities.has(Capability::Unknown));
        let alien = json!({"kind": "hello", "protocol": 3, "agent_version": "2.0.0", "node": "waw-1", "incarnation": "x"});
        let Decoded::Message(Up::Hello(hello)) = up(&alien).unwrap() else { panic!("not a hello") };
        assert!(!hello.is_understood());
    }

    #[test]
    fn an_unknown_kind_is_skipped_and_a_broken_known_one_refused() {
        assert_eq!(up(&json!({"kind": "weather", "sun": true})).unwrap(), Decoded::Unknown);
        assert_eq!(decode::<Down>(r#"{"kind":"weather"}"#).unwrap(), Decoded::Unknown);
        assert!(up(&json!({"kind": "bar", "attempt": "att_1", "answer": "barred"})).is_err());
        assert!(up(&json!({"no": "kind"})).is_err());
        assert!(decode::<Up>(&" ".repeat(MESSAGE_MAX + 1)).is_err());
    }

    #[test]
    fn a_snapshot_needs_little_and_unknown_words_read_as_unknown() {
        let small = json!({"kind": "observations", "revision": 1, "sent_at_unix_ms": 0, "ami": {"state": "up"},
            "endpoints": [{"endpoint": "acme", "contacts": [{"uri": "sip:192.0.2.21", "status": "dreaming"}]}]});
        let Decoded::Message(Up::Observations(seen)) = up(&small).unwrap() else { panic!("no snapshot") };
        assert_eq!(seen.endpoints[0].contacts[0].status, ContactStatus::Unknown);
        assert_eq!(seen.firewall, None, "an older agent tells nothing of its firewall");
        let text = encode(&Up::Observations(seen.clone())).unwrap();
        assert_eq!(decode::<Up>(&text).unwrap(), Decoded::Message(Up::Observations(seen)));
        let newer = json!({"kind": "observations", "revision": 1, "sent_at_unix_ms": 0, "ami": {"state": "up"},
            "firewall": {"state": "dreaming", "plan": ["ssh, tcp 22: from management (1 network) alone"], "mood": 1}});
        let Decoded::Message(Up::Observations(newer)) = up(&newer).unwrap() else { panic!("no snapshot") };
        let firewall = newer.firewall.unwrap();
        assert_eq!((firewall.state, firewall.plan.len()), (FirewallState::Unknown, 1));
        let crowd: Vec<_> = (0..513).map(|n| json!({"endpoint": format!("e{n}")})).collect();
        let large = json!({"kind": "observations", "revision": 1, "sent_at_unix_ms": 0, "ami": {"state": "up"}, "endpoints": crowd});
        assert!(up(&large).is_err());
    }

    #[test]
    fn a_fact_s_body_is_bounded() {
        let id = format!("fact_{}", "0".repeat(26));
        let fact = |len: usize| json!({"kind": "facts", "facts": [{"fact_id": id, "fact_kind": "finding", "at_unix_ms": 1, "body": {"a": "x".repeat(len)}}]});
        assert!(up(&fact(100)).is_ok());
        assert!(up(&fact(crate::FACT_BODY_MAX)).is_err());
    }
}
