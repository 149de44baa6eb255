//! What an action can come back with, and the words for what is certain when it does not.

use crate::action::InvalidValue;
use crate::link::CloseReason;
use crate::message::Message;

/// Why it is certain that no byte of an action left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The connection was over before it could leave.
    #[error("not sent: {0}")]
    LinkDown(CloseReason),
    /// Too many actions in flight, or the connection took no bytes, until the time-out.
    #[error("not sent: the session was too busy until the time-out")]
    Busy,
    /// A header that AMI cannot carry.
    #[error("not sent: {0}")]
    Invalid(#[from] InvalidValue),
    /// The watch is of another channel or of another session.
    #[error("not sent: the watch is not one for this originate")]
    WrongWatch,
}

/// Why an action that may have left has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The connection was lost.
    #[error("no answer: {0}")]
    LinkLost(CloseReason),
    /// Nothing came in time.
    #[error("no answer in time")]
    Timeout,
}

/// An action without an answer; the two cases allow different things to follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Proven that nothing left.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// It may have left.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

/// Asterisk's answer to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub(crate) message: Message,
}

impl Response {
    /// `Response: Success` or anything but `Error`.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.message.get("Response").is_some_and(|word| word != b"Error")
    }

    /// `Message:`, empty if there is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.message.text("Message").unwrap_or_default().into_owned()
    }

    /// All headers.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }
}

/// A whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Its items in order.
    pub items: Vec<Message>,
    /// How it ended.
    pub end: ListEnd,
}

/// How a list ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListEnd {
    /// All items are there: as many as the list's end says.
    Complete,
    /// Asterisk broke it off and said so.
    Cancelled,
}

/// Why there is no whole list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Proven that nothing left.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// Asterisk answered with an error, or with something that is no list.
    #[error("the PBX refused: {}", .0.text())]
    Refused(Response),
    /// The link was lost or the time ran out in the middle.
    #[error("the list was cut after {} items: {cause}", items.len())]
    Cut {
        /// What had come.
        items: Vec<Message>,
        /// Why no more came.
        cause: Unresolved,
    },
    /// The list's end came, but items are missing, tampered with, or more than the bound.
    #[error("the list is not whole: {} items came", items.len())]
    Short {
        /// What had come.
        items: Vec<Message>,
    },
}
