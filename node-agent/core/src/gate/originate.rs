//! The one action that costs money: an Originate of validated digits on a declared endpoint into our context.

use node_agent_ami::{DialDigits, EndpointName, VariableName, VariableValue};

use super::{
    refusal::RefusalKind,
    request::{Fields, number},
};
use crate::attempt_id::AttemptId;

/// Where an answered call goes (dialplans/extensions_ringward.conf).
const CONTEXT: &str = "ringward-call";
const EXTEN: &str = "s";
const PRIORITY: &str = "1";
/// The flight recorder's push, to the letter.
const RECORDER: &str = "CHANNEL(hangup_handler_push)=\"ringward-record,s,1\"";
/// All variables of ours begin so; their values are checked again where the dialplan uses them.
const OUR_VARIABLES: &str = "RINGWARD_";
const VARIABLES_MAX: usize = 24;
/// Of ours, the one that names what is played.
const PLAYS: &str = "RINGWARD_AUDIO";
/// Longest wait for an answer, in ms.
const TIMEOUT_MS_MAX: u32 = 300_000;
/// Most repeats of a message: more would keep a line for ever.
const REPEAT_MAX: u32 = 100;
/// Longest call, in seconds.
const TIME_LIMIT_S_MAX: u32 = 7_200;
/// Longest wait for a key, in seconds.
const ACK_TIMEOUT_S_MAX: u32 = 600;
/// A telephone has so many keys.
const KEYS_MAX: usize = 12;

/// What is left of it once parsed. No free text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Originate {
    pub(super) attempt: AttemptId,
    pub(super) endpoint: EndpointName,
    pub(super) number: DialDigits,
    timeout_ms: u32,
    caller_id: Option<DialDigits>,
    variables: Vec<(VariableName, VariableValue)>,
}

impl Originate {
    pub(super) fn parse(fields: &Fields<'_>) -> Result<Self, RefusalKind> {
        fields.only(&[
            "Channel",
            "ChannelId",
            "Context",
            "Exten",
            "Priority",
            "Timeout",
            "Async",
            "CallerID",
            "Variable",
        ])?;
        let attempt = fields.attempt("ChannelId")?;
        let (number, endpoint) = channel(fields.one("Channel")?)?;
        let place = [("Context", CONTEXT), ("Exten", EXTEN), ("Priority", PRIORITY)];
        for (name, ours) in place {
            if fields.one(name)? != ours.as_bytes() {
                return Err(RefusalKind::NotOurContext);
            }
        }
        if fields.one("Async")? != b"true" {
            return Err(RefusalKind::BadValue);
        }
        let timeout_ms = fields.number("Timeout", TIMEOUT_MS_MAX)?;
        if timeout_ms == 0 {
            // To Asterisk: wait for ever.
            return Err(RefusalKind::BadValue);
        }
        let caller_id = fields.maybe("CallerID").map(digits).transpose()?;
        let variables = variables(fields, attempt)?;
        Ok(Self { attempt, endpoint, number, timeout_ms, caller_id, variables })
    }

    /// One that need not be parsed.
    #[cfg(test)]
    pub(super) fn to_test(attempt: AttemptId, endpoint: EndpointName, number: &str) -> Self {
        let number = DialDigits::parse(number).unwrap();
        Self { attempt, endpoint, number, timeout_ms: 1000, caller_id: None, variables: Vec::new() }
    }

    /// The name of what it plays; empty: nothing.
    pub(super) fn plays(&self) -> &str {
        let named = self.variables.iter().find(|(name, _)| name.as_str() == PLAYS);
        named.map_or("", |(_, value)| value.as_str())
    }

    /// As parsed, but playing this.
    #[cfg(test)]
    pub(super) fn playing(mut self, sound: &str) -> Self {
        let variable = (VariableName::parse(PLAYS).unwrap(), VariableValue::parse(sound).unwrap());
        self.variables.push(variable);
        self
    }

    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Channel", format!("PJSIP/{}@{}", self.number, self.endpoint)),
            ("ChannelId", self.attempt.to_string()),
            ("Context", CONTEXT.to_owned()),
            ("Exten", EXTEN.to_owned()),
            ("Priority", PRIORITY.to_owned()),
            ("Timeout", self.timeout_ms.to_string()),
            ("Async", "true".to_owned()),
        ];
        headers.extend(self.caller_id.iter().map(|number| ("CallerID", number.to_string())));
        // Written whether it was sent or not: without the recorder nothing could be settled later.
        headers.push(("Variable", RECORDER.to_owned()));
        let variable =
            |(name, value): &(VariableName, VariableValue)| ("Variable", format!("{name}={value}"));
        headers.extend(self.variables.iter().map(variable));
        headers
    }
}

fn digits(value: &[u8]) -> Result<DialDigits, RefusalKind> {
    DialDigits::parse(String::from_utf8_lossy(value)).map_err(|_| RefusalKind::BadValue)
}

/// `PJSIP/<digits>@<endpoint>`, exactly.
fn channel(value: &[u8]) -> Result<(DialDigits, EndpointName), RefusalKind> {
    let text = std::str::from_utf8(value).map_err(|_| RefusalKind::BadValue)?;
    let (number, endpoint) =
        text.strip_prefix("PJSIP/").and_then(|rest| rest.split_once('@')).ok_or(RefusalKind::BadValue)?;
    let endpoint = EndpointName::parse(endpoint).map_err(|_| RefusalKind::BadValue)?;
    Ok((digits(number.as_bytes())?, endpoint))
}

/// Each name once. `RINGWARD_ATTEMPT`, by which the dialplan knows its own, is the channel's id.
fn variables(
    fields: &Fields<'_>,
    attempt: AttemptId,
) -> Result<Vec<(VariableName, VariableValue)>, RefusalKind> {
    let mut variables: Vec<(VariableName, VariableValue)> = Vec::new();
    let mut recorder = 0;
    for variable in fields.all("Variable") {
        if variable == RECORDER.as_bytes() {
            recorder += 1;
            if recorder > 1 {
                return Err(RefusalKind::RepeatedHeader);
            }
            continue;
        }
        let text = std::str::from_utf8(variable).map_err(|_| RefusalKind::NotOurVariable)?;
        let (name, value) = text.split_once('=').ok_or(RefusalKind::NotOurVariable)?;
        if !name.starts_with(OUR_VARIABLES) || variables.len() >= VARIABLES_MAX {
            return Err(RefusalKind::NotOurVariable);
        }
        let name = VariableName::parse(name).map_err(|_| RefusalKind::NotOurVariable)?;
        let value = VariableValue::parse(value).map_err(|_| RefusalKind::BadValue)?;
        if variables.iter().any(|(other, _)| other.as_str().eq_ignore_ascii_case(name.as_str())) {
            return Err(RefusalKind::RepeatedHeader);
        }
        if !fits(name.as_str(), value.as_str()) {
            return Err(RefusalKind::BadValue);
        }
        variables.push((name, value));
    }
    let named = variables.iter().find(|(name, _)| name.as_str() == "RINGWARD_ATTEMPT");
    if named.is_none_or(|(_, value)| value.as_str() != attempt.to_string()) {
        return Err(RefusalKind::NotOurVariable);
    }
    Ok(variables)
}

/// Whether the value is one that the dialplan has a use for. What it does not know it does not read.
fn fits(name: &str, value: &str) -> bool {
    let up_to = |max: u32| number(value.as_bytes()).is_some_and(|number| number <= max);
    // The star is written s and the hash h.
    let keys = |max: usize| {
        (1..=max).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_digit() || matches!(b, b's' | b'h'))
    };
    match name {
        // A name in a folder of sounds, never a path: recordings of other calls are sounds, too.
        PLAYS => value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
        "RINGWARD_REPEAT" => up_to(REPEAT_MAX),
        "RINGWARD_TIME_LIMIT" => up_to(TIME_LIMIT_S_MAX),
        "RINGWARD_KEYS" => keys(KEYS_MAX),
        "RINGWARD_REPEAT_KEY" => keys(1),
        "RINGWARD_ACK_TIMEOUT" => up_to(ACK_TIMEOUT_S_MAX),
        "RINGWARD_AMD" => matches!(value, "hangup" | "continue" | "leave"),
        _ => true,
    }
}
