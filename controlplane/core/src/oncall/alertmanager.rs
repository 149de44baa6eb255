//! What Alertmanager posts: version 4 of its webhook's payload, as
//! <https://prometheus.io/docs/alerting/latest/configuration/#webhook_config> has it.
//!
//! It is posted when a group changes, again after its `repeat_interval`, and again until it is answered 2xx; so the same
//! comes more than once. Fields that a later release adds are passed over.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    Alert, InvalidSignal, LABEL_VALUE_MAX, Signal, group_key,
    hook::{GroupBy, HookSettings},
    kept, labels,
    template::{TEXT_MAX, Template, speakable},
};
use crate::{
    call::{UnknownWord, words},
    object::Object,
};

/// Most alerts of one payload that are looked at: Alertmanager's `max_alerts` can hold it to fewer.
pub const ALERTS_MAX: usize = 1_000;
/// What is said of an alert that has no words.
const WORDLESS: &str = "An alert without a name";

words! {
    /// Whether something fires.
    Firing {
        /// It does.
        Firing = "firing",
        /// It did.
        Resolved = "resolved",
    }
}

/// A payload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AlertmanagerPayload")]
pub struct Payload {
    /// Always `4`.
    #[schemars(extend("const" = "4"))]
    pub version: String,
    /// What the group is known by.
    #[schemars(length(min = 1))]
    pub group_key: String,
    /// Whether any alert of the group fires.
    pub status: Firing,
    /// How many alerts were left out because of `max_alerts`.
    #[serde(default)]
    pub truncated_alerts: u64,
    /// The group's alerts.
    #[serde(deserialize_with = "objects")]
    #[schemars(length(max = ALERTS_MAX))]
    pub alerts: Vec<Told>,
}

/// Alerts that were written as objects.
fn objects<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Told>, D::Error> {
    let alerts = Vec::<Object<Told>>::deserialize(deserializer)?;
    Ok(alerts.into_iter().map(|Object(alert)| alert).collect())
}

/// One alert of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AlertmanagerAlert")]
pub struct Told {
    /// Whether it fires.
    pub status: Firing,
    /// What it is known by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What is said of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    #[serde(default)]
    pub starts_at: String,
    /// When it ended.
    #[serde(default)]
    pub ends_at: String,
    /// Where its rule is seen.
    #[serde(default, rename = "generatorURL")]
    pub generator_url: String,
    /// A hash of its labels.
    #[serde(default)]
    pub fingerprint: String,
}

impl Told {
    fn kept(&self, template: Option<&Template>) -> Alert {
        // Labels say which alert it is where the fingerprint is not told.
        let id = match self.fingerprint.as_str() {
            "" => data_encoding::HEXLOWER.encode(&Sha256::digest(format!("{:?}", self.labels))),
            fingerprint => kept(fingerprint, LABEL_VALUE_MAX),
        };
        Alert {
            id,
            text: self.said(template),
            labels: labels(&self.labels),
            firing: self.status == Firing::Firing,
        }
    }

    fn said(&self, template: Option<&Template>) -> String {
        let by_template = template.map(|template| template.render(&json!(self))).unwrap_or_default();
        let own = [self.annotations.get("summary"), self.labels.get("alertname")];
        let own = own.into_iter().flatten().map(|words| speakable(words, TEXT_MAX));
        [by_template]
            .into_iter()
            .chain(own)
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| WORDLESS.to_owned())
    }

    /// Whether the hook wants to hear of it.
    fn is_wanted(&self, only: &BTreeMap<String, Vec<String>>) -> bool {
        only.iter().all(|(label, wanted)| self.labels.get(label).is_some_and(|value| wanted.contains(value)))
    }
}

/// What a payload means to a hook: nothing, where none of its alerts is one that the hook wants.
///
/// # Errors
/// It is of another version, or larger than may be.
pub fn signals(hook: &HookSettings, payload: &Payload) -> Result<Vec<Signal>, InvalidSignal> {
    if payload.version != "4" {
        return Err(InvalidSignal::new("version", "Version 4 of Alertmanager's payload is understood."));
    }
    if payload.group_key.is_empty() {
        return Err(InvalidSignal::new("groupKey", "It must not be empty."));
    }
    if payload.alerts.len() > ALERTS_MAX {
        return Err(InvalidSignal::new("alerts", format!("At most {ALERTS_MAX} alerts: set max_alerts.")));
    }
    let wanted: Vec<Alert> = payload
        .alerts
        .iter()
        .filter(|told| told.is_wanted(&hook.only))
        .map(|told| told.kept(hook.speech.alert.as_ref()))
        .collect();
    Ok(match hook.group_by {
        GroupBy::Alert => wanted
            .into_iter()
            .map(|alert| Signal { key: alert.id.clone(), is_over: !alert.firing, alerts: vec![alert] })
            .collect(),
        GroupBy::Group if wanted.is_empty() => Vec::new(),
        GroupBy::Group => {
            // What was left out may fire: then nobody says that it is over.
            let hides = payload.truncated_alerts > 0 && payload.status == Firing::Firing;
            let is_over = !hides && !wanted.iter().any(|alert| alert.firing);
            vec![Signal { key: group_key(&payload.group_key), alerts: wanted, is_over }]
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// As Alertmanager 0.25 of Debian 12 posts it, shortened.
    fn payload(alerts: &Value) -> Payload {
        serde_json::from_value(json!({
            "receiver": "ringward", "status": "firing", "alerts": alerts, "groupLabels": {"alertname": "TrunkDown"},
            "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://alertmanager:9093", "version": "4",
            "groupKey": "{}:{alertname=\"TrunkDown\"}", "truncatedAlerts": 0, "ofTheFuture": {"a": 1}
        }))
        .unwrap()
    }

    fn told(trunk: &str, status: &str, severity: &str) -> Value {
        json!({
            "status": status, "labels": {"alertname": "TrunkDown", "trunk": trunk, "severity": severity},
            "annotations": {"summary": format!("Trunk {trunk} is out of service")},
            "startsAt": "2026-11-24T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus/graph", "fingerprint": format!("f-{trunk}")
        })
    }

    fn hook(change: Value) -> HookSettings {
        let mut hook = json!({"name": "a", "kind": "alertmanager", "to": ["+48221234567"]});
        hook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(hook).unwrap()
    }

    #[test]
    fn a_group_is_one_signal_that_is_over_with_its_last_alert() {
        let hook = hook(json!({}));
        let of = |alerts: Value| signals(&hook, &payload(&alerts)).unwrap();
        let both = of(json!([told("a", "firing", "page"), told("b", "resolved", "page")]));
        assert_eq!((both.len(), both[0].is_over, both[0].alerts.len()), (1, false, 2));
        assert_eq!(both[0].alerts[0].text, "Trunk a is out of service");
        assert_eq!(both[0].key, "{}:{alertname=\"TrunkDown\"}");
        assert!(of(json!([told("a", "resolved", "page")]))[0].is_over);
        assert_eq!(of(json!([])), []);
    }

    #[test]
    fn what_was_left_out_may_fire() {
        let hook = hook(json!({}));
        let mut payload = payload(&json!([told("a", "resolved", "page")]));
        payload.truncated_alerts = 1;
        assert!(!signals(&hook, &payload).unwrap()[0].is_over);
        payload.status = Firing::Resolved;
        assert!(signals(&hook, &payload).unwrap()[0].is_over);
    }

    #[test]
    fn alerts_that_the_hook_does_not_want_are_as_if_they_were_not_there() {
        let hook = hook(json!({"only": {"severity": ["page"]}}));
        let of = |alerts: Value| signals(&hook, &payload(&alerts)).unwrap();
        assert_eq!(of(json!([told("a", "firing", "ticket")])), []);
        let mixed = of(json!([told("a", "resolved", "page"), told("b", "firing", "ticket")]));
        assert_eq!((mixed[0].is_over, mixed[0].alerts.len()), (true, 1));
    }

    #[test]
    fn each_alert_may_be_an_incident_of_its_own() {
        let hook = hook(
            json!({"group_by": "alert", "speech": {"alert": "{{/labels/trunk}} {{/annotations/none}}"}}),
        );
        let all = json!([told("a", "firing", "page"), told("b", "resolved", "page")]);
        let signals = signals(&hook, &payload(&all)).unwrap();
        let shown: Vec<_> =
            signals.iter().map(|s| (s.key.as_str(), s.is_over, s.alerts[0].text.as_str())).collect();
        assert_eq!(shown, [("f-a", false, "a"), ("f-b", true, "b")]);
    }

    #[test]
    fn an_alert_without_words_is_still_said() {
        let hook = hook(json!({"speech": {"alert": "{{/labels/none}}"}}));
        let bare = json!([{"status": "firing", "labels": {"alertname": "X"}}, {"status": "firing"}]);
        let signals = signals(&hook, &payload(&bare)).unwrap();
        let said: Vec<_> = signals[0].alerts.iter().map(|alert| alert.text.as_str()).collect();
        assert_eq!(said, ["X", WORDLESS]);
    }

    #[test]
    fn another_version_is_refused() {
        let mut payload = payload(&json!([]));
        payload.version = "3".to_owned();
        assert_eq!(signals(&hook(json!({})), &payload).unwrap_err().param, "version");
    }
}
