//! What an Originate of ours looks like: fixed contexts and variables, validated digits, ids.

use std::time::Duration;

use controlplane_core::request::{Acknowledgement, CallRequest, DetectionMode, Key, KeyAction, OnMachine};
use node_agent_ami::{
    ChannelId, ContextName, DialDigits, EndpointName, Extension, HangupHandler, InvalidName, Originate,
    VariableName, VariableValue,
};

use crate::{audio::Playable, registry::Assignment};

/// The dialplan's contexts (dialplans/extensions_ringward.conf).
const CALL_CONTEXT: &str = "ringward-call";
const RECORD_CONTEXT: &str = "ringward-record";
/// The channel variables that it reads.
const ATTEMPT: &str = "RINGWARD_ATTEMPT";
const AUDIO: &str = "RINGWARD_AUDIO";
const REPEAT: &str = "RINGWARD_REPEAT";
const TIME_LIMIT: &str = "RINGWARD_TIME_LIMIT";
const KEYS: &str = "RINGWARD_KEYS";
const REPEAT_KEY: &str = "RINGWARD_REPEAT_KEY";
const ACK_TIMEOUT: &str = "RINGWARD_ACK_TIMEOUT";
const AMD: &str = "RINGWARD_AMD";
/// All contexts and variables of our Originates: a node's gate admits no others.
pub(crate) const CONTEXTS: [&str; 2] = [CALL_CONTEXT, RECORD_CONTEXT];
pub(crate) const VARIABLES: [&str; 8] =
    [ATTEMPT, AUDIO, REPEAT, TIME_LIMIT, KEYS, REPEAT_KEY, ACK_TIMEOUT, AMD];
/// Where a node keeps the sounds that it was given; the dialplan knows it, and a value holds no slash.
const SOUNDS: &str = "ringward/";
/// Asterisk's own `Timeout` is longer than ours by this, so that it acts only when this process sleeps.
const ORIGINATE_SLACK: Duration = Duration::from_secs(5);

/// The Originate of a call's attempt.
///
/// # Errors
/// A name or number that AMI cannot carry: a fleet file of a stricter version.
pub(super) fn originate(
    id: &ChannelId,
    request: &CallRequest,
    plays: &Playable,
    to: &Assignment,
) -> Result<Originate, InvalidName> {
    let variable = |name: &str, value: String| Ok((VariableName::parse(name)?, VariableValue::parse(value)?));
    let mut originate = Originate::new(
        id.clone(),
        EndpointName::parse(to.trunk.endpoint.as_str())?,
        DialDigits::parse(to.trunk.dialled(&request.to))?,
        ContextName::parse(CALL_CONTEXT)?,
        Extension::parse("s")?,
    );
    originate.timeout =
        Duration::from_secs(u64::from(request.progress_timeout_s) + u64::from(request.ring_timeout_s))
            + ORIGINATE_SLACK;
    let caller = request.from.as_ref().or(to.trunk.caller_ids.first());
    originate.caller_id = caller.map(|number| DialDigits::parse(number.as_str())).transpose()?;
    originate.hangup_handler = Some(HangupHandler { context: ContextName::parse(RECORD_CONTEXT)? });
    originate.variables = vec![
        variable(ATTEMPT, id.to_string())?,
        variable(AUDIO, audio(&plays.to_string()).to_owned())?,
        variable(REPEAT, request.message.repeat.to_string())?,
        variable(TIME_LIMIT, request.time_limit_s.to_string())?,
    ];
    let talk = [
        (KEYS, request.acknowledgement.as_ref().map(ending_keys)),
        (REPEAT_KEY, request.acknowledgement.as_ref().and_then(repeat_key).map(String::from)),
        (ACK_TIMEOUT, request.acknowledgement.as_ref().map(|ack| ack.timeout_s.to_string())),
        (AMD, amd(request).map(str::to_owned)),
    ];
    for (name, value) in talk {
        // What is not wanted is left out: an empty value is none.
        originate.variables.extend(value.map(|value| variable(name, value)).transpose()?);
    }
    Ok(originate)
}

/// A sound by its path below the node's sounds folder, `beep` or `ringward/<sha256>`, as the variable has it.
fn audio(path: &str) -> &str {
    path.strip_prefix(SOUNDS).unwrap_or(path)
}

/// A key as it stands in a variable, where `*` and `#` may not.
fn code(key: Key) -> char {
    match key.as_char() {
        '*' => 's',
        '#' => 'h',
        digit => digit,
    }
}

/// The keys that end the call, whatever else they mean.
fn ending_keys(ack: &Acknowledgement) -> String {
    let ends = |action: KeyAction| match action {
        KeyAction::Acknowledge | KeyAction::Escalate => true,
        KeyAction::Repeat => false,
    };
    ack.keys.iter().filter(|(_, action)| ends(**action)).map(|(key, _)| code(*key)).collect()
}

fn repeat_key(ack: &Acknowledgement) -> Option<char> {
    ack.keys.iter().find(|(_, action)| **action == KeyAction::Repeat).map(|(key, _)| code(*key))
}

/// What the dialplan does when a machine answers; `None`: it does not listen for one.
fn amd(request: &CallRequest) -> Option<&'static str> {
    match (request.machine_detection.mode, request.machine_detection.on_machine) {
        (DetectionMode::Off, _) => None,
        (DetectionMode::Detect, OnMachine::Hangup) => Some("hangup"),
        (DetectionMode::Detect, OnMachine::Continue) => Some("continue"),
        (DetectionMode::Detect, OnMachine::LeaveMessage) => Some("leave"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn request(talk: &str) -> CallRequest {
        let json = format!(r#"{{"to": "+48221234567", "message": {{"audio_id": "builtin:beep"}}{talk}}}"#);
        serde_json::from_str(&json).unwrap()
    }

    /// What of a request's talk goes into the Originate, by name.
    fn talk(json: &str) -> BTreeMap<&'static str, String> {
        let request = request(json);
        let ack = request.acknowledgement.as_ref();
        let values = [
            (KEYS, ack.map(ending_keys)),
            (REPEAT_KEY, ack.and_then(repeat_key).map(String::from)),
            (AMD, amd(&request).map(str::to_owned)),
        ];
        let values: BTreeMap<_, _> = values.into_iter().filter_map(|(n, v)| Some((n, v?))).collect();
        values.values().for_each(|value| drop(VariableValue::parse(value.clone()).unwrap()));
        values
    }

    #[test]
    fn keys_and_detection_become_variables() {
        assert_eq!(talk(""), BTreeMap::new());
        let of = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        assert_eq!(talk(r#", "acknowledgement": {}"#), of(&[(KEYS, "1"), (REPEAT_KEY, "s")]));
        let keys = r##"{"1": "acknowledge", "2": "escalate", "#": "escalate", "*": "acknowledge"}"##;
        assert_eq!(talk(&format!(r#", "acknowledgement": {{"keys": {keys}}}"#)), of(&[(KEYS, "hs12")]));
        let keys = r##"{"5": "acknowledge", "#": "repeat"}"##;
        let expected = of(&[(KEYS, "5"), (REPEAT_KEY, "h")]);
        assert_eq!(talk(&format!(r#", "acknowledgement": {{"keys": {keys}}}"#)), expected);
        for (on_machine, word) in [("hangup", "hangup"), ("continue", "continue"), ("leave_message", "leave")]
        {
            let json =
                format!(r#", "machine_detection": {{"mode": "detect", "on_machine": "{on_machine}"}}"#);
            assert_eq!(talk(&json), of(&[(AMD, word)]));
        }
        assert_eq!(
            talk(r#", "machine_detection": {"mode": "off", "on_machine": "continue"}"#),
            BTreeMap::new()
        );
    }

    #[test]
    fn a_sound_goes_without_its_folder() {
        let hash = "0123456789abcdef".repeat(4);
        assert_eq!(audio(&format!("ringward/{hash}")), hash);
        assert_eq!(audio("hello-world"), "hello-world");
    }
}
