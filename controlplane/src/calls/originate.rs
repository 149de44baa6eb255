//! What an Originate of ours looks like: fixed contexts and variables, validated digits, ids.

use std::time::Duration;

use controlplane_core::request::{AudioId, CallRequest, Content};
use node_agent_ami::{
    ChannelId, ContextName, DialDigits, EndpointName, Extension, HangupHandler, InvalidName, Originate,
    VariableName, VariableValue,
};

use crate::registry::Assignment;

/// The dialplan's contexts (dialplans/extensions_ringward.conf).
const CALL_CONTEXT: &str = "ringward-call";
const RECORD_CONTEXT: &str = "ringward-record";
/// The channel variables that it reads.
const ATTEMPT: &str = "RINGWARD_ATTEMPT";
const AUDIO: &str = "RINGWARD_AUDIO";
const REPEAT: &str = "RINGWARD_REPEAT";
const TIME_LIMIT: &str = "RINGWARD_TIME_LIMIT";
/// All contexts and variables of our Originates: a node's gate admits no others.
pub(crate) const CONTEXTS: [&str; 2] = [CALL_CONTEXT, RECORD_CONTEXT];
pub(crate) const VARIABLES: [&str; 4] = [ATTEMPT, AUDIO, REPEAT, TIME_LIMIT];
/// Asterisk's own `Timeout` is longer than ours by this, so that it acts only when this process sleeps.
const ORIGINATE_SLACK: Duration = Duration::from_secs(5);

/// The Originate of a call's attempt.
///
/// # Errors
/// A name or number that AMI cannot carry: a fleet file of a stricter version.
pub(super) fn originate(
    id: &ChannelId,
    request: &CallRequest,
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
        variable(AUDIO, sound(request)?.to_owned())?,
        variable(REPEAT, request.message.repeat.to_string())?,
        variable(TIME_LIMIT, request.time_limit_s.to_string())?,
    ];
    Ok(originate)
}

/// The file's name below the node's sounds folder, without its ending.
fn sound(request: &CallRequest) -> Result<&'static str, InvalidName> {
    match &request.message.content {
        Content::Audio(AudioId::Builtin(builtin)) => Ok(builtin.sound()),
        Content::Audio(AudioId::Recording(_)) | Content::Text { .. } => {
            Err(InvalidName::Empty { field: "audio" })
        }
    }
}
