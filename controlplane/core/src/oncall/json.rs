//! What anything else posts: JSON of any shape, of which the hook says where to look.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Alert, InvalidSignal, LABEL_VALUE_MAX, Signal, group_key,
    hook::{HookSettings, Reading},
    template::Pointer,
};

/// The key of a hook that has one incident at a time.
const ONLY_ONE: &str = "hook";

/// The word at a pointer, which has to be there.
fn word<'v>(document: &'v Value, pointer: &Pointer) -> Result<std::borrow::Cow<'v, str>, InvalidSignal> {
    let rule =
        || InvalidSignal::new(pointer.as_str(), "The hook looks here for a text, a number, true or false.");
    pointer.word(document).ok_or_else(rule)
}

/// What a document means to a hook; `None`: nothing.
///
/// # Errors
/// What the hook looks for is not there.
pub fn signal(hook: &HookSettings, document: &Value) -> Result<Option<Signal>, InvalidSignal> {
    if !document.is_object() && !document.is_array() {
        return Err(InvalidSignal::new(".", "An object or an array."));
    }
    for (place, wanted) in &hook.only {
        let value = place.parse::<Pointer>().ok().and_then(|pointer| pointer.word(document));
        if !value.is_some_and(|value| wanted.iter().any(|word| *word == value)) {
            return Ok(None);
        }
    }
    let (key, status, resolved) = match &hook.json {
        Some(Reading { key, status, resolved }) => (key.as_ref(), status.as_ref(), resolved.as_slice()),
        None => (None, None, [].as_slice()),
    };
    let key = match key {
        Some(pointer) => word(document, pointer)?.into_owned(),
        None => ONLY_ONE.to_owned(),
    };
    if key.is_empty() {
        let place = hook.json.as_ref().and_then(|reading| reading.key.as_ref()).map_or(".", Pointer::as_str);
        return Err(InvalidSignal::new(place, "What an incident is known by must not be empty."));
    }
    let is_over = match status {
        Some(pointer) => {
            let word = word(document, pointer)?;
            resolved.iter().any(|resolved| *resolved == word)
        }
        None => false,
    };
    let text = hook.speech.alert.as_ref().map(|template| template.render(document)).unwrap_or_default();
    let text = if text.is_empty() { hook.name.clone() } else { text };
    let key = group_key(&key);
    let id = super::kept(&key, LABEL_VALUE_MAX);
    let alert = Alert { id, text, labels: BTreeMap::new(), firing: !is_over };
    Ok(Some(Signal { key, alerts: vec![alert], is_over }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(change: Value) -> HookSettings {
        let mut hook = json!({
            "name": "Uptime", "kind": "json", "to": ["+48221234567"], "speech": {"alert": "{{/monitor/name}} is {{/state}}"},
            "json": {"key": "/monitor/id", "status": "/state", "resolved": ["up"]}
        });
        hook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(hook).unwrap()
    }

    #[test]
    fn the_hook_says_where_to_look() {
        let hook = hook(json!({}));
        let of = |state: &str| signal(&hook, &json!({"monitor": {"id": 7, "name": "db_1"}, "state": state}));
        let down = of("down").unwrap().unwrap();
        assert_eq!(
            (down.key.as_str(), down.is_over, down.alerts[0].text.as_str()),
            ("7", false, "db 1 is down")
        );
        assert!(of("up").unwrap().unwrap().is_over);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let hook = hook(json!({}));
        for (document, param) in [
            (json!({"monitor": {}, "state": "down"}), "/monitor/id"),
            (json!({"monitor": {"id": [1]}, "state": "down"}), "/monitor/id"),
            (json!({"monitor": {"id": ""}, "state": "down"}), "/monitor/id"),
            (json!({"monitor": {"id": 7}}), "/state"),
            (json!("text"), "."),
        ] {
            assert_eq!(signal(&hook, &document).unwrap_err().param, param, "{document}");
        }
    }

    #[test]
    fn without_a_reading_everything_fires_and_is_one() {
        let hook = hook(json!({"json": null, "speech": {"alert": "{{/text}}"}}));
        let signal = signal(&hook, &json!({"text": ""})).unwrap().unwrap();
        assert_eq!(
            (signal.key.as_str(), signal.is_over, signal.alerts[0].text.as_str()),
            ("hook", false, "Uptime")
        );
    }

    #[test]
    fn what_the_hook_does_not_want_is_nothing() {
        let hook = hook(json!({"only": {"/severity": ["high", "1"]}}));
        let of = |severity: Value| {
            signal(&hook, &json!({"monitor": {"id": 7}, "state": "down", "severity": severity}))
                .unwrap()
                .is_some()
        };
        assert!(of(json!("high")) && of(json!(1)));
        assert!(!of(json!("low")) && !of(json!(null)));
    }
}
