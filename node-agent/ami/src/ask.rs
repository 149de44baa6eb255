//! Questions to Asterisk whose answers are facts: they come under an ActionID that nobody outside knows.

use crate::action::Action;
use crate::answer::{ActionError, List, ListEnd, ListError, NotSent, Response, Unresolved};
use crate::flight_record::ChannelState;
use crate::message::Message;
use crate::names::{ChannelId, ContextName, DbFamily, DbKey, VariableName};
use crate::session::Session;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Proven that the question did not leave.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// It may have left; for a question, asking again is safe.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// Asterisk refused; most often the manager user lacks a class.
    #[error("the PBX refused {action}: {message}")]
    Refused {
        /// The action.
        action: &'static str,
        /// Asterisk's words.
        message: String,
    },
    /// The answer was not as Asterisk gives it, or not whole.
    #[error("the answer to {action} is not as it should be")]
    Malformed {
        /// The action.
        action: &'static str,
    },
}

impl From<ActionError> for AskError {
    fn from(error: ActionError) -> Self {
        match error {
            ActionError::NotSent(why) => Self::NotSent(why),
            ActionError::Unresolved(why) => Self::Unresolved(why),
        }
    }
}

/// Whether a channel lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelPresence {
    /// It lives.
    Present {
        /// Asterisk's name for it.
        name: String,
        /// Its state; `None` for a word that no Asterisk writes.
        state: Option<ChannelState>,
    },
    /// Asterisk knows no such channel now. It says nothing about a moment from now: "queued" comes
    /// before the channel does.
    Absent,
}

/// What became of a request to hang up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangupAnswer {
    /// Asterisk will hang up.
    Requested,
    /// There was no such channel.
    NoSuchChannel,
}

/// One run of one Asterisk process: when it started, by its own clock. For comparing, not for ordering.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Incarnation(String);

impl Incarnation {
    /// As it was stored.
    #[must_use]
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For storing.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `CoreStatus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreStatus {
    /// Which run of Asterisk answers.
    pub incarnation: Incarnation,
    /// Its current calls, anybody's.
    pub current_calls: Option<u32>,
}

impl Session {
    /// Asks Asterisk to hang up a channel of ours, with a Q.850 cause.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn hangup(&self, id: &ChannelId, cause: u16) -> Result<HangupAnswer, AskError> {
        let action = Action::fixed("Hangup")
            .header("Channel", id.as_str())
            .and_then(|action| action.header("Cause", cause.to_string()))
            .map_err(NotSent::from)?;
        let response = self.action(action).await?;
        match (response.is_success(), is_no_such_channel(&response)) {
            (true, _) => Ok(HangupAnswer::Requested),
            (false, true) => Ok(HangupAnswer::NoSuchChannel),
            (false, false) => Err(refused("Hangup", &response)),
        }
    }

    /// Asks whether this very channel lives; no other channel's text is in the answer.
    ///
    /// # Errors
    /// [`AskError`]; never `Absent` for want of an answer.
    pub async fn channel_status(&self, id: &ChannelId) -> Result<ChannelPresence, AskError> {
        let action = Action::fixed("Status").header("Channel", id.as_str()).map_err(NotSent::from)?;
        let items = match self.whole_list("Status", action).await? {
            Ok(items) => items,
            Err(response) if is_no_such_channel(&response) => return Ok(ChannelPresence::Absent),
            Err(response) => return Err(refused("Status", &response)),
        };
        let ours = |item: &&Message| item.get("Uniqueid") == Some(id.as_str().as_bytes());
        let item = items.iter().find(ours).ok_or(AskError::Malformed { action: "Status" })?;
        Ok(ChannelPresence::Present {
            name: item.text("Channel").unwrap_or_default().into_owned(),
            state: item.text("ChannelStateDesc").and_then(|word| ChannelState::parse(&word)),
        })
    }

    /// Reads one value of AstDB; `None` if there is no such key.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn db_get(&self, family: &DbFamily, key: &DbKey) -> Result<Option<String>, AskError> {
        let action = Action::fixed("DBGet")
            .header("Family", family.as_str())
            .and_then(|action| action.header("Key", key.as_str()))
            .map_err(NotSent::from)?;
        let items = match self.whole_list("DBGet", action).await? {
            Ok(items) => items,
            Err(response) if response.text() == "Database entry not found" => return Ok(None),
            Err(response) => return Err(refused("DBGet", &response)),
        };
        let is_it = |item: &&Message| {
            item.get("Family") == Some(family.as_str().as_bytes())
                && item.get("Key") == Some(key.as_str().as_bytes())
        };
        let item = items.iter().find(is_it).and_then(|item| item.text("Val"));
        item.map(|value| Some(value.into_owned())).ok_or(AskError::Malformed { action: "DBGet" })
    }

    /// Reads keys and values of a family of AstDB: all of them, or as many as the session takes of one list.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn db_tree(&self, family: &DbFamily) -> Result<Vec<(String, String)>, AskError> {
        let action = Action::fixed("DBGetTree").header("Family", family.as_str()).map_err(NotSent::from)?;
        let items = match self.list(action).await {
            Ok(List { items, .. }) => items,
            // 16.28 announces one item where there is none.
            Err(ListError::Short { items }) => items,
            Err(ListError::Refused(response)) if response.text() == "Database entry not found" => Vec::new(),
            Err(ListError::Refused(response)) => return Err(refused("DBGetTree", &response)),
            Err(ListError::NotSent(why)) => return Err(why.into()),
            Err(ListError::Cut { cause, .. }) => return Err(cause.into()),
        };
        let prefix = format!("/{}/", family.as_str());
        let read = |item: &Message| {
            let key = item.text("Key")?.strip_prefix(&prefix)?.to_owned();
            Some((key, item.text("Val")?.into_owned()))
        };
        Ok(items.iter().filter_map(read).collect())
    }

    /// Deletes one key of AstDB; `false` if Asterisk did not: most often there is none.
    ///
    /// # Errors
    /// [`AskError`]; `Refused` where the manager user lacks class system.
    pub async fn db_del(&self, family: &DbFamily, key: &DbKey) -> Result<bool, AskError> {
        let action = Action::fixed("DBDel")
            .header("Family", family.as_str())
            .and_then(|action| action.header("Key", key.as_str()))
            .map_err(NotSent::from)?;
        let response = self.action(action).await?;
        if !response.is_success() && response.text().starts_with("Permission") {
            return Err(refused("DBDel", &response));
        }
        Ok(response.is_success())
    }

    /// Reads the items of a list action with these headers; none where Asterisk says that there are none, which it calls
    /// an error.
    ///
    /// # Errors
    /// [`AskError`]; `Refused` where the manager user lacks the class for it.
    pub async fn items(
        &self,
        name: &'static str,
        headers: &[(&str, &str)],
    ) -> Result<Vec<Message>, AskError> {
        let with = |action: Action, (name, value): &(&str, &str)| action.header(name, value);
        let action = Action::new(name).and_then(|action| headers.iter().try_fold(action, with));
        match self.whole_list(name, action.map_err(NotSent::from)?).await? {
            Ok(items) => Ok(items),
            Err(response) if response.text().starts_with("Permission") => Err(refused(name, &response)),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Reads a global variable; `None` if it is not set or empty, which Asterisk does not tell apart.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn getvar(&self, name: &VariableName) -> Result<Option<String>, AskError> {
        let action = Action::fixed("Getvar").header("Variable", name.as_str()).map_err(NotSent::from)?;
        let response = self.action(action).await?;
        if !response.is_success() {
            return Err(refused("Getvar", &response));
        }
        let value = response.message().text("Value").map(|value| value.into_owned());
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// Whether the dialplan has extension `s` of a context. `None`: this user may not ask, or there is no word of it.
    ///
    /// # Errors
    /// [`AskError`]: the link was lost, or no answer came.
    pub async fn has_context(&self, context: &ContextName) -> Result<Option<bool>, AskError> {
        let function = format!("DIALPLAN_EXISTS({context},s,1)");
        let action = Action::fixed("Getvar").header("Variable", function).map_err(NotSent::from)?;
        let response = self.action(action).await?;
        let value = response.message().text("Value").filter(|_| response.is_success());
        Ok(match value.as_deref().map(str::trim) {
            Some("1") => Some(true),
            Some("0") => Some(false),
            Some(_) | None => None,
        })
    }

    /// Asks which run of Asterisk this is and how many calls it has.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn core_status(&self) -> Result<CoreStatus, AskError> {
        let response = self.action(Action::fixed("CoreStatus")).await?;
        if !response.is_success() {
            return Err(refused("CoreStatus", &response));
        }
        let text = |header: &str| response.message().text(header).map(|value| value.into_owned());
        let (date, time) = text("CoreStartupDate")
            .zip(text("CoreStartupTime"))
            .ok_or(AskError::Malformed { action: "CoreStatus" })?;
        Ok(CoreStatus {
            incarnation: Incarnation(format!("{date} {time}")),
            current_calls: text("CoreCurrentCalls").and_then(|calls| calls.parse().ok()),
        })
    }

    /// `Ok(Err(response))` where Asterisk refused.
    async fn whole_list(
        &self,
        name: &'static str,
        action: Action,
    ) -> Result<Result<Vec<Message>, Response>, AskError> {
        match self.list(action).await {
            Ok(list) if list.end == ListEnd::Complete => Ok(Ok(list.items)),
            Ok(_) | Err(ListError::Short { .. }) => Err(AskError::Malformed { action: name }),
            Err(ListError::Refused(response)) if response.is_success() => {
                Err(AskError::Malformed { action: name })
            }
            Err(ListError::Refused(response)) => Ok(Err(response)),
            Err(ListError::NotSent(why)) => Err(why.into()),
            Err(ListError::Cut { cause, .. }) => Err(cause.into()),
        }
    }
}

/// manager.c says "No such channel"; some versions "No such channel." or with the name behind it.
fn is_no_such_channel(response: &Response) -> bool {
    response.text().starts_with("No such channel")
}

fn refused(action: &'static str, response: &Response) -> AskError {
    AskError::Refused { action, message: response.text() }
}
