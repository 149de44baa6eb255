//! The one action that the product stands on, and the four words for how it can end.

use std::time::Duration;

use crate::action::{Action, InvalidValue};
use crate::answer::{NotSent, Unresolved};
use crate::names::{
    AccountCode, ChannelId, ContextName, DialDigits, EndpointName, Extension, VariableName, VariableValue,
};

/// How a node's gate ends its refusal of an attempt that it let through before: the only refusal behind which
/// there is an Originate.
pub const ADMITTED_BEFORE: &str = "repeated_attempt";

/// The dialplan place that Asterisk runs when the channel ends, answered or not: the flight recorder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangupHandler {
    /// Context of the handler; it starts at `s,1`.
    pub context: ContextName,
}

/// One call attempt, every part of it already parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Originate {
    /// Becomes the channel's Uniqueid; the same one that the [`crate::Watch`] was opened for.
    pub channel_id: ChannelId,
    /// The trunk's PJSIP endpoint on the node.
    pub endpoint: EndpointName,
    /// The number in the trunk's own format.
    pub number: DialDigits,
    /// Where the call goes once answered.
    pub context: ContextName,
    /// Extension in `context`.
    pub exten: Extension,
    /// Priority in `exten`, from 1.
    pub priority: u16,
    /// How long Asterisk waits for the answer; sent in milliseconds.
    pub timeout: Duration,
    /// The number shown to the callee.
    pub caller_id: Option<DialDigits>,
    /// Channel variables for the dialplan.
    pub variables: Vec<(VariableName, VariableValue)>,
    /// The flight recorder; leave it out only where there is none.
    pub hangup_handler: Option<HangupHandler>,
    /// Connect to `context` at early media (183) already.
    pub early_media: EarlyMedia,
    /// CDR account code.
    pub account: Option<AccountCode>,
}

/// When the dialplan may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyMedia {
    /// At the answer.
    #[default]
    WaitForAnswer,
    /// At 183 already.
    Bridge,
}

impl Originate {
    /// An attempt with the defaults: 30 s, priority 1, no caller id, no variables, no handler.
    #[must_use]
    pub fn new(
        channel_id: ChannelId,
        endpoint: EndpointName,
        number: DialDigits,
        context: ContextName,
        exten: Extension,
    ) -> Self {
        Self {
            channel_id,
            endpoint,
            number,
            context,
            exten,
            priority: 1,
            timeout: Duration::from_secs(30),
            caller_id: None,
            variables: Vec::new(),
            hangup_handler: None,
            early_media: EarlyMedia::default(),
            account: None,
        }
    }

    /// The action as it goes out: `Async: true`, so that one slow callee holds up nobody.
    ///
    /// # Errors
    /// [`InvalidValue`] where the parts together are longer than a line or an action may be.
    pub fn to_action(&self) -> Result<Action, InvalidValue> {
        let mut action = Action::fixed("Originate")
            .header("Channel", format!("PJSIP/{}@{}", self.number, self.endpoint))?
            .header("ChannelId", self.channel_id.as_str())?
            .header("Context", self.context.as_str())?
            .header("Exten", self.exten.as_str())?
            .header("Priority", self.priority.to_string())?
            .header("Timeout", self.timeout.as_millis().to_string())?
            .header("Async", "true")?;
        if let Some(caller_id) = &self.caller_id {
            action = action.header("CallerID", caller_id.as_str())?;
        }
        if let Some(account) = &self.account {
            action = action.header("Account", account.as_str())?;
        }
        if self.early_media == EarlyMedia::Bridge {
            action = action.header("EarlyMedia", "true")?;
        }
        // Quoted, because AMI splits `Variable` at commas outside quotes; first, so that it is in place
        // whatever the other variables do.
        if let Some(handler) = &self.hangup_handler {
            let push = format!("CHANNEL(hangup_handler_push)=\"{},s,1\"", handler.context);
            action = action.header("Variable", push)?;
        }
        for (name, value) in &self.variables {
            action = action.header("Variable", format!("{name}={value}"))?;
        }
        Ok(action)
    }
}

/// What became of an Originate. The name decides what may follow:
///
/// - `NotSent`: no byte of it left and none will. Another node and trunk may be tried at once.
/// - `Rejected`: Asterisk refused it and made no channel. Another may be tried.
/// - `Accepted`: Asterisk queued it. Its watch tells the rest; nothing may be tried before.
/// - `Unresolved`: it may have left. Only facts (bar, Status, flight record) may settle it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum OriginateOutcome {
    /// Proven that nothing left.
    NotSent(NotSent),
    /// `Response: Error`.
    Rejected {
        /// Asterisk's words.
        message: String,
    },
    /// `Response: Success`, "Originate successfully queued".
    Accepted,
    /// Bytes may have left and no answer came.
    Unresolved(Unresolved),
}
