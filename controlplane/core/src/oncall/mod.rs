//! On-call: alerts in, calls out, until somebody acknowledges.
//!
//! - [`hook`]: what a customer has said about an intake: whom to phone, in which order, and what to say.
//! - [`alertmanager`], [`json`]: what such an intake is told, as [`Signal`]s.
//! - [`speech`], [`template`]: the words of an alert, made speakable.
//! - [`escalation`]: who is phoned next. One machine per incident.

pub mod alertmanager;
pub mod escalation;
pub mod hook;
pub mod json;
pub mod speech;
pub mod template;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::speech::Speech;
use crate::{
    call::{UnknownWord, words},
    request::{InvalidMessage, MessageText},
};

/// Most alerts that an incident keeps; further ones are counted.
pub const ALERTS_KEPT_MAX: usize = 50;
/// Most alerts that one sentence names.
const ALERTS_SPOKEN_MAX: usize = 3;
/// Longest group key that is kept as it came, in bytes; a longer one is cut, and its hash put behind it.
const GROUP_KEY_MAX: usize = 500;
/// Labels of an alert that are kept.
const LABELS_MAX: usize = 16;
/// Longest name of a label that is kept, in bytes.
const LABEL_NAME_MAX: usize = 100;
/// Longest value of a label, and id of an alert, that is kept, in bytes.
const LABEL_VALUE_MAX: usize = 200;

words! {
    /// Where an incident is.
    IncidentStatus {
        /// Somebody is being phoned, or will be.
        Escalating = "escalating",
        /// Somebody has taken note. What fires, fires on.
        Acknowledged = "acknowledged",
        /// Everybody was phoned, and nobody took note.
        Unanswered = "unanswered",
        /// It is over.
        Resolved = "resolved",
    }
}

words! {
    /// What came of phoning one number.
    StepResult {
        /// The key that acknowledges was pressed.
        Acknowledged = "acknowledged",
        /// The key that passes it on was pressed.
        PassedOn = "passed_on",
        /// Somebody answered, and pressed neither.
        NotAcknowledged = "not_acknowledged",
        /// A machine answered.
        Machine = "machine",
        /// Nobody answered, or no carrier could be reached.
        NotReached = "not_reached",
        /// It was ended: the incident was over, or the step's time.
        Canceled = "canceled",
        /// The call was not accepted.
        Refused = "refused",
    }
}

/// An alert as an incident keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Alert {
    /// By which it is known again.
    pub id: String,
    /// What is said of it.
    pub text: String,
    /// Its labels; an intake of another kind has none.
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: BTreeMap<String, String>,
    /// Whether it still fires.
    pub firing: bool,
}

/// What an intake was told of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Which group.
    pub key: String,
    /// Its alerts, as far as they are known.
    pub alerts: Vec<Alert>,
    /// Whether nothing of it fires any more.
    pub is_over: bool,
}

/// What was told cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidSignal {
    /// Where, as a path.
    pub param: String,
    /// Why.
    pub rule: String,
}

impl InvalidSignal {
    fn new(param: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { param: param.into(), rule: rule.into() }
    }
}

/// At most so many bytes, cut between characters; without NUL, which PostgreSQL cannot keep.
fn kept(text: &str, max: usize) -> String {
    let text = text.replace('\0', " ");
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A group's key as it is kept: two that differ stay apart.
fn group_key(key: &str) -> String {
    if key.len() <= GROUP_KEY_MAX && !key.contains('\0') {
        return key.to_owned();
    }
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(key));
    format!("{}…{hash}", kept(key, GROUP_KEY_MAX))
}

/// Labels as they are kept: the first by name.
fn labels(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let short = all.iter().filter(|(name, _)| name.len() <= LABEL_NAME_MAX && !name.contains('\0'));
    short.take(LABELS_MAX).map(|(name, value)| (name.clone(), kept(value, LABEL_VALUE_MAX))).collect()
}

/// What was told of known alerts, and new ones behind them, as far as there is room. Gives how many were added.
pub fn note(known: &mut Vec<Alert>, told: &[Alert]) -> usize {
    let before = known.len();
    for alert in told {
        match known.iter().position(|known| known.id == alert.id) {
            Some(place) => known[place] = alert.clone(),
            None if alert.firing && known.len() < ALERTS_KEPT_MAX => known.push(alert.clone()),
            None => {}
        }
    }
    known.len() - before
}

/// What the phone says.
///
/// # Errors
/// Nothing of it is visible: that cannot be, since the closing words never are empty.
pub fn sentence(speech: &Speech, alerts: &[Alert]) -> Result<MessageText, InvalidMessage> {
    let firing: Vec<&Alert> = alerts.iter().filter(|alert| alert.firing).collect();
    let mut texts: Vec<&str> = Vec::new();
    for alert in &firing {
        if !texts.contains(&alert.text.as_str()) {
            texts.push(&alert.text);
        }
    }
    let more = texts.len().saturating_sub(ALERTS_SPOKEN_MAX);
    let mut parts = vec![speech.opening.to_string()];
    parts.extend(texts.iter().take(ALERTS_SPOKEN_MAX).map(|text| (*text).to_owned()));
    if more > 0 {
        parts.push(speech.more.as_str().replace("{{count}}", &more.to_string()));
    }
    parts.push(speech.closing.to_string());
    let ended = |part: String| match part.trim_end() {
        "" => None,
        text if text.ends_with(['.', '!', '?', ':', '。']) => Some(text.to_owned()),
        text => Some(format!("{text}.")),
    };
    let sentences: Vec<String> = parts.into_iter().filter_map(ended).collect();
    sentences.join(" ").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str, firing: bool) -> Alert {
        let text = format!("Trunk {id} is out of service");
        Alert { id: id.to_owned(), text, labels: BTreeMap::new(), firing }
    }

    #[test]
    fn a_sentence_names_what_fires_and_how_to_take_it() {
        let speech = Speech::default();
        let say = |alerts: &[Alert]| sentence(&speech, alerts).unwrap().to_string();
        assert_eq!(
            say(&[alert("a", true), alert("b", false), alert("a", true)]),
            "Alert. Trunk a is out of service. Press 1 to acknowledge, 2 to pass it on, star to hear it again."
        );
        let many: Vec<Alert> = ["a", "b", "c", "d", "e"].iter().map(|id| alert(id, true)).collect();
        let text = say(&many);
        assert!(
            text.contains("Trunk c ") && !text.contains("Trunk d ") && text.contains(" And 2 more. "),
            "{text}"
        );
        assert!(say(&[]).starts_with("Alert. Press 1"));
    }

    #[test]
    fn the_longest_sentence_is_one_that_can_be_spoken() {
        let speech = Speech {
            opening: "ä".repeat(speech::PHRASE_MAX).parse().unwrap(),
            more: "ö".repeat(speech::PHRASE_MAX).parse().unwrap(),
            closing: "ü".repeat(speech::PHRASE_MAX).parse().unwrap(),
            ..Speech::default()
        };
        let long = |n: usize| Alert {
            text: format!("{n}{}", "x".repeat(template::TEXT_MAX - 1)),
            ..alert("a", true)
        };
        let alerts: Vec<Alert> = (0..9).map(long).collect();
        assert!(sentence(&speech, &alerts).is_ok());
    }

    #[test]
    fn alerts_are_known_again_and_new_ones_counted() {
        let mut known = Vec::new();
        assert_eq!(note(&mut known, &[alert("a", true), alert("b", false)]), 1);
        assert_eq!(note(&mut known, &[alert("a", false), alert("c", true)]), 1);
        let shown: Vec<_> = known.iter().map(|alert| (alert.id.as_str(), alert.firing)).collect();
        assert_eq!(shown, [("a", false), ("c", true)]);
        let many: Vec<Alert> = (0..100).map(|n| alert(&n.to_string(), true)).collect();
        assert_eq!(note(&mut known, &many), ALERTS_KEPT_MAX - 2);
        assert_eq!(known.len(), ALERTS_KEPT_MAX);
    }

    #[test]
    fn long_keys_that_differ_stay_apart() {
        let (a, b) = (format!("{}a", "k".repeat(600)), format!("{}b", "k".repeat(600)));
        assert_ne!(group_key(&a), group_key(&b));
        assert!(group_key(&a).len() < 600);
        assert_eq!(group_key("{}/{x=\"y\"}"), "{}/{x=\"y\"}");
        assert_ne!(group_key("a\0"), group_key("a "));
        assert!(!group_key("a\0").contains('\0'));
    }
}
