//! A hook: where alerts come in, and what is done about them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{speech::Speech, template::Pointer};
use crate::{
    call::{OnUnknown, UnknownWord, words},
    ids::IncidentId,
    number::E164,
    object,
    request::{
        Acknowledgement, CallRequest, Content, Failover, InvalidRequest, Key, KeyAction, MachineDetection,
        Message, MessageText, Priority,
    },
};

/// Most numbers of a hook's list.
pub const NUMBERS_MAX: usize = 16;
/// Longest name, in bytes.
pub const NAME_MAX: usize = 100;
/// Most labels or pointers of `only`.
pub const ONLY_MAX: usize = 10;
/// Most words for one of them, and for what is resolved.
pub const ONLY_WORDS_MAX: usize = 20;
/// Longest of these words, and name of a label, in bytes.
pub const ONLY_WORD_MAX: usize = 200;

words! {
    /// What speaks to a hook.
    HookKind {
        /// Alertmanager, version 4 of its webhook.
        Alertmanager = "alertmanager",
        /// Anything that posts JSON.
        Json = "json",
    }
}

words! {
    /// What one incident is of.
    GroupBy {
        /// A group, as Alertmanager makes it by `group_by` of its route.
        Group = "group",
        /// A single alert.
        Alert = "alert",
    }
}

/// How JSON of any kind is understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Where that stands by which an incident is known again; absent: the hook has one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Pointer>,
    /// Where the state stands; absent: everything fires, and is over when that is said at the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Pointer>,
    /// What the state is called when it is over.
    #[serde(default = "defaults::resolved")]
    #[schemars(length(min = 1, max = ONLY_WORDS_MAX))]
    pub resolved: Vec<String>,
}

/// A hook as it is made, and as an incident keeps it from its beginning on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "name": "Night shift",
    "kind": "alertmanager",
    "to": ["+12025550100", "+12025550101"],
    "rounds": 2,
    "only": {"severity": ["page"]},
}]))]
pub struct HookSettings {
    /// In your words.
    #[schemars(length(min = 1, max = NAME_MAX))]
    pub name: String,
    /// What speaks to it. It never changes.
    pub kind: HookKind,
    /// Whom to phone, one after the other, until somebody acknowledges.
    #[schemars(length(min = 1, max = NUMBERS_MAX))]
    pub to: Vec<E164>,
    /// The caller id to present; absent: the trunk's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<E164>,
    /// How often the list is gone through.
    #[serde(default = "defaults::rounds")]
    #[schemars(range(min = 1, max = 5))]
    pub rounds: u8,
    /// From the end of a round to the beginning of the next, in seconds.
    #[serde(default = "defaults::round_pause_s")]
    #[schemars(range(min = 1, max = 3_600))]
    pub round_pause_s: u16,
    /// How long a phone may ring, in seconds.
    #[serde(default = "defaults::ring_timeout_s")]
    #[schemars(range(min = 1, max = 120))]
    pub ring_timeout_s: u16,
    /// How long a key is waited for after the message, in seconds.
    #[serde(default = "defaults::acknowledgement_timeout_s")]
    #[schemars(range(min = 1, max = 60))]
    pub acknowledgement_timeout_s: u16,
    /// How long one number is tried before it is the next one's turn, in seconds: for what waits for a trunk, fails over or
    /// rings. Whoever has answered is listened to.
    #[serde(default = "defaults::step_timeout_s")]
    #[schemars(range(min = 10, max = 3_600))]
    pub step_timeout_s: u16,
    /// What is said.
    #[serde(default, deserialize_with = "object::object")]
    pub speech: Speech,
    /// Alerts are looked at only if they have one of these values, by label, or by JSON pointer where the kind is `json`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ONLY_MAX))]
    pub only: BTreeMap<String, Vec<String>>,
    /// What one incident is of, for the kind `alertmanager`.
    #[serde(default = "defaults::group_by")]
    #[schemars(extend("default" = "group"))]
    pub group_by: GroupBy,
    /// How the kind `json` is understood; of no other.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub json: Option<Reading>,
}

mod defaults {
    use super::GroupBy;

    pub(super) fn resolved() -> Vec<String> {
        ["resolved", "ok", "closed"].map(str::to_owned).into()
    }
    pub(super) const fn rounds() -> u8 {
        3
    }
    pub(super) const fn round_pause_s() -> u16 {
        60
    }
    pub(super) const fn ring_timeout_s() -> u16 {
        30
    }
    pub(super) const fn acknowledgement_timeout_s() -> u16 {
        10
    }
    pub(super) const fn step_timeout_s() -> u16 {
        90
    }
    pub(super) const fn group_by() -> GroupBy {
        GroupBy::Group
    }
}

/// Names that an alert of Alertmanager has, and so a pointer's first.
const OF_ALERT: [&str; 7] =
    ["status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"];

impl HookSettings {
    /// Checks every bound that a type does not carry.
    ///
    /// # Errors
    /// The first field that is out of bounds, by its path.
    pub fn validate(&self) -> Result<(), InvalidRequest> {
        let check = |ok: bool, param, rule| if ok { Ok(()) } else { Err(InvalidRequest { param, rule }) };
        let named = (1..=NAME_MAX).contains(&self.name.len()) && !self.name.chars().any(char::is_control);
        check(named, "name", "1 to 100 bytes without control characters")?;
        check((1..=NUMBERS_MAX).contains(&self.to.len()), "to", "1 to 16 numbers")?;
        check((1..=5).contains(&self.rounds), "rounds", "1 to 5")?;
        check((1..=3_600).contains(&self.round_pause_s), "round_pause_s", "1 to 3600 seconds")?;
        check((1..=120).contains(&self.ring_timeout_s), "ring_timeout_s", "1 to 120 seconds")?;
        let waits = (1..=60).contains(&self.acknowledgement_timeout_s);
        check(waits, "acknowledgement_timeout_s", "1 to 60 seconds")?;
        check((10..=3_600).contains(&self.step_timeout_s), "step_timeout_s", "10 to 3600 seconds")?;
        check((1..=10).contains(&self.speech.repeat), "speech.repeat", "1 to 10")?;
        let tells_keys = !self.speech.closing.as_str().trim().is_empty();
        check(
            tells_keys,
            "speech.closing",
            "some words: whoever is phoned has to hear which keys there are",
        )?;
        let word = |word: &String| (1..=ONLY_WORD_MAX).contains(&word.len()) && !word.contains('\0');
        let words =
            |words: &Vec<String>| (1..=ONLY_WORDS_MAX).contains(&words.len()) && words.iter().all(word);
        check(self.only.len() <= ONLY_MAX, "only", "at most 10 labels")?;
        check(self.only.keys().all(word), "only", "labels are 1 to 200 bytes")?;
        check(self.only.values().all(words), "only", "1 to 20 values of 1 to 200 bytes each")?;
        match self.kind {
            HookKind::Alertmanager => {
                check(self.json.is_none(), "json", "it goes with the kind json alone")?;
                let known = |pointer: &Pointer| OF_ALERT.contains(&pointer.first());
                let fits = self.speech.alert.as_ref().is_none_or(|alert| alert.pointers().all(known));
                let rule = "an alert has /labels/…, /annotations/…, /status, /startsAt, /endsAt, /generatorURL and /fingerprint";
                check(fits, "speech.alert", rule)
            }
            HookKind::Json => {
                check(
                    self.group_by == GroupBy::Group,
                    "group_by",
                    "it goes with the kind alertmanager alone",
                )?;
                check(self.speech.alert.is_some(), "speech.alert", "the kind json has no words of its own")?;
                let pointers = self.only.keys().all(|name| name.parse::<Pointer>().is_ok());
                check(pointers, "only", "of the kind json by JSON pointers, as /severity")?;
                let resolved = self.json.as_ref().is_none_or(|reading| words(&reading.resolved));
                check(resolved, "json.resolved", "1 to 20 words of 1 to 200 bytes each")
            }
        }
    }

    /// How many steps there are in all.
    #[must_use]
    pub fn steps(&self) -> u16 {
        u16::try_from(self.to.len()).unwrap_or(u16::MAX).saturating_mul(self.rounds.into())
    }

    /// Whom a step phones; the first is 1. `None`: there is no such step.
    #[must_use]
    pub fn number(&self, step: u16) -> Option<&E164> {
        if !(1..=self.steps()).contains(&step) {
            return None;
        }
        self.to.get(usize::from(step - 1) % self.to.len())
    }

    /// Of which round a step is; the first is 1.
    #[must_use]
    pub fn round(&self, step: u16) -> u16 {
        let list = u16::try_from(self.to.len()).unwrap_or(u16::MAX).max(1);
        step.saturating_sub(1) / list + 1
    }

    /// How long to wait before a step.
    #[must_use]
    pub fn pause(&self, step: u16) -> Duration {
        let begins_round = step > 1 && self.round(step) != self.round(step - 1);
        if begins_round { Duration::seconds(self.round_pause_s.into()) } else { Duration::ZERO }
    }

    /// When a step that begins now gives up.
    #[must_use]
    pub fn step_ends(&self, now: OffsetDateTime) -> OffsetDateTime {
        now + Duration::seconds(self.step_timeout_s.into())
    }

    /// The call of a step: answered by nobody, it is the next one's turn, so it is not dialled again by itself.
    #[must_use]
    pub fn call(
        &self,
        to: E164,
        text: MessageText,
        until: OffsetDateTime,
        incident: &IncidentId,
        step: u16,
    ) -> CallRequest {
        let key = |key: char, action: KeyAction| Key::try_from(key).ok().map(|key| (key, action));
        let keys = [('1', KeyAction::Acknowledge), ('2', KeyAction::Escalate), ('*', KeyAction::Repeat)];
        CallRequest {
            to,
            from: self.from.clone(),
            message: Message {
                content: Content::Text { text, language: self.speech.language.clone() },
                repeat: self.speech.repeat,
            },
            acknowledgement: Some(Acknowledgement {
                keys: keys.into_iter().filter_map(|(name, action)| key(name, action)).collect(),
                timeout_s: self.acknowledgement_timeout_s,
            }),
            machine_detection: MachineDetection::default(),
            progress_timeout_s: PROGRESS_TIMEOUT_S,
            ring_timeout_s: self.ring_timeout_s,
            time_limit_s: TIME_LIMIT_S,
            failover: Failover::default(),
            on_unknown: OnUnknown::Retry,
            redial: None,
            deadline_at: Some(until),
            priority: Priority::Urgent,
            dedup_key: None,
            callback: None,
            metadata: BTreeMap::from([
                ("incident".to_owned(), incident.to_string()),
                ("step".to_owned(), step.to_string()),
            ]),
            dry_run: false,
        }
    }
}

/// How long a carrier may stay silent, in seconds: a page goes on soon.
const PROGRESS_TIMEOUT_S: u16 = 6;
/// How long whoever answers is spoken to, in seconds: the longest sentence twice, and a key.
const TIME_LIMIT_S: u16 = 300;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(change: Value) -> HookSettings {
        let mut hook =
            json!({"name": "Night shift", "kind": "alertmanager", "to": ["+48221234567", "+48221234568"]});
        hook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(hook).unwrap()
    }

    #[test]
    fn the_shortest_hook_is_valid_and_read_back() {
        let hook = read(json!({}));
        assert_eq!(hook.validate(), Ok(()));
        assert_eq!((hook.steps(), hook.rounds), (6, 3));
        assert_eq!(serde_json::from_value::<HookSettings>(json!(hook)).unwrap(), hook);
    }

    #[test]
    fn the_list_is_gone_through_in_order_round_by_round() {
        let hook = read(json!({"rounds": 2}));
        let steps: Vec<_> = (1..=4)
            .map(|step| {
                (
                    hook.number(step).unwrap().as_str().to_owned(),
                    hook.round(step),
                    hook.pause(step).whole_seconds(),
                )
            })
            .collect();
        let step = |number: &str, round, pause| (number.to_owned(), round, pause);
        assert_eq!(
            steps,
            [
                step("+48221234567", 1, 0),
                step("+48221234568", 1, 0),
                step("+48221234567", 2, 60),
                step("+48221234568", 2, 0)
            ]
        );
        assert_eq!((hook.number(0), hook.number(5)), (None, None));
    }

    #[test]
    fn each_bound_names_its_field() {
        let json = |change: Value| {
            let mut all = json!({"kind": "json", "speech": {"alert": "{{/a}}"}});
            all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            all
        };
        for (change, param) in [
            (json!({"name": ""}), "name"),
            (json!({"to": []}), "to"),
            (json!({"to": vec!["+48221234567"; 17]}), "to"),
            (json!({"rounds": 6}), "rounds"),
            (json!({"round_pause_s": 0}), "round_pause_s"),
            (json!({"step_timeout_s": 9}), "step_timeout_s"),
            (json!({"speech": {"closing": " "}}), "speech.closing"),
            (json!({"speech": {"repeat": 0}}), "speech.repeat"),
            (json!({"speech": {"alert": "{{/commonLabels/a}}"}}), "speech.alert"),
            (json!({"only": {"severity": []}}), "only"),
            (json!({"json": {}}), "json"),
            (json!({"kind": "json"}), "speech.alert"),
            (json(json!({"group_by": "alert"})), "group_by"),
            (json(json!({"only": {"severity": ["page"]}})), "only"),
            (json(json!({"json": {"resolved": []}})), "json.resolved"),
        ] {
            assert_eq!(read(change.clone()).validate().unwrap_err().param, param, "{change}");
        }
        assert_eq!(
            read(json(json!({"only": {"/severity": ["page"]}, "json": {"key": "/id"}}))).validate(),
            Ok(())
        );
    }

    #[test]
    fn a_step_s_call_is_one_that_may_be_asked_for() {
        let hook = read(json!({}));
        let now = time::macros::datetime!(2026-11-24 10:00 UTC);
        let incident = "inc_00000000000000000000000000".parse().unwrap();
        let text = "Alert. Press 1.".parse().unwrap();
        let call = hook.call(hook.to[0].clone(), text, hook.step_ends(now), &incident, 3);
        assert_eq!(call.validate(now), Ok(()));
        assert_eq!(call.acknowledgement.as_ref().unwrap().keys.len(), 3);
        assert_eq!(call.metadata["step"], "3");
    }
}
