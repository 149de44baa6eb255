//! Actions in flight and the answers that belong to them.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;

use crate::link::CloseReason;
use crate::list_form::{ListRole, list_role};
use crate::message::Message;
use crate::tamper::TamperKind;

/// Late answers to actions that were given up are not tampering; so many given-up ids are remembered.
const ABANDONED_MAX: usize = 4096;

/// What an action ended in.
#[derive(Debug)]
pub(crate) enum Reply {
    One(Message),
    List { items: Vec<Message>, end: ListStop },
    Lost { reason: CloseReason, items: Vec<Message> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListStop {
    Complete,
    Cancelled,
    /// `ListItems` says a larger number than came, one was tampered with, or there were too many.
    Short,
    /// The caller's time ran out.
    TimedOut,
}

#[derive(Debug)]
enum Pending {
    One(oneshot::Sender<Reply>),
    List { reply: oneshot::Sender<Reply>, started: bool, items: Vec<Message>, spoiled: bool },
}

/// Whether the caller wants one response or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    One,
    List,
}

/// By ActionID.
#[derive(Debug)]
pub(crate) struct PendingActions {
    pending: HashMap<String, Pending>,
    abandoned: HashSet<String>,
    abandoned_order: VecDeque<String>,
    list_items_max: usize,
}

/// What does not belong to an action in flight, and why it counts as forged.
type Forged = (TamperKind, Message);

impl PendingActions {
    pub(crate) fn new(list_items_max: usize) -> Self {
        let (pending, abandoned, abandoned_order) = Default::default();
        Self { pending, abandoned, abandoned_order, list_items_max }
    }

    pub(crate) fn add(&mut self, action_id: &str, want: Want) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        let pending = match want {
            Want::One => Pending::One(reply),
            Want::List => Pending::List { reply, started: false, items: Vec::new(), spoiled: false },
        };
        self.pending.insert(action_id.to_owned(), pending);
        answer
    }

    /// The caller no longer waits. Hands out what had come of a list.
    pub(crate) fn abandon(&mut self, action_id: &str) -> Vec<Message> {
        let Some(pending) = self.pending.remove(action_id) else { return Vec::new() };
        if self.abandoned_order.len() >= ABANDONED_MAX
            && let Some(oldest) = self.abandoned_order.pop_front()
        {
            self.abandoned.remove(&oldest);
        }
        self.abandoned.insert(action_id.to_owned());
        self.abandoned_order.push_back(action_id.to_owned());
        match pending {
            Pending::One(_) => Vec::new(),
            Pending::List { items, .. } => items,
        }
    }

    pub(crate) fn fail_all(&mut self, reason: &CloseReason) {
        for (_, pending) in self.pending.drain() {
            let (reply, items) = match pending {
                Pending::One(reply) => (reply, Vec::new()),
                Pending::List { reply, items, .. } => (reply, items),
            };
            // A caller that has gone away needs no answer.
            let _ = reply.send(Reply::Lost { reason: reason.clone(), items });
        }
    }

    pub(crate) fn response(&mut self, message: Message) -> Result<(), Forged> {
        // astman_send_response_full writes the ActionID directly behind `Response:`.
        let second = message.headers().get(1).filter(|header| header.name() == b"ActionID");
        let Some(action_id) = second.map(|header| header.text().into_owned()) else {
            return Err((TamperKind::UnknownActionId, message));
        };
        if message.malformed_lines() > 0 {
            return Err((TamperKind::NotAHeader, message));
        }
        if message.all("ActionID").count() > 1 || message.all("Response").count() > 1 {
            return Err((TamperKind::Doubled, message));
        }
        let list_starts = message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"start"));
        match self.pending.get_mut(&action_id) {
            Some(Pending::List { started, .. }) if list_starts && !*started => *started = true,
            Some(Pending::List { started: true, .. }) => return Err((TamperKind::Doubled, message)),
            Some(_) => match self.pending.remove(&action_id) {
                Some(Pending::One(reply) | Pending::List { reply, .. }) => {
                    let _ = reply.send(Reply::One(message));
                }
                None => {}
            },
            None if self.abandoned.contains(&action_id) => {
                tracing::debug!(action_id, "an answer came after its action was given up");
            }
            None => return Err((TamperKind::UnknownActionId, message)),
        }
        Ok(())
    }

    /// Whether the event names a list in flight, or one that was given up.
    pub(crate) fn is_of_list(&self, message: &Message) -> bool {
        self.list_of(message).is_some()
    }

    /// The list in flight that the event names, if any.
    fn list_of(&self, message: &Message) -> Option<String> {
        message.all("ActionID").map(String::from_utf8_lossy).map(|id| id.into_owned()).find(|id| {
            matches!(self.pending.get(id), Some(Pending::List { .. })) || self.abandoned.contains(id)
        })
    }

    pub(crate) fn list_event(&mut self, message: Message) -> Result<(), Forged> {
        let Some(action_id) = self.list_of(&message) else { return Ok(()) };
        let Some(Pending::List { items, spoiled, .. }) = self.pending.get_mut(&action_id) else {
            return Ok(()); // Of a list that was given up.
        };
        match list_role(&message) {
            Some(ListRole::Item) if items.len() < self.list_items_max => items.push(message),
            Some(ListRole::Item) => *spoiled = true,
            Some(ListRole::End { complete, count }) => {
                if let Some(Pending::List { reply, items, spoiled, .. }) = self.pending.remove(&action_id) {
                    // 16.28 says `ListItems: 1` at the end of any DBGetTree: more than announced is whole.
                    let short = spoiled || count.is_some_and(|count| items.len() < count);
                    let end = match (complete, short) {
                        (false, _) => ListStop::Cancelled,
                        (true, true) => ListStop::Short,
                        (true, false) => ListStop::Complete,
                    };
                    let _ = reply.send(Reply::List { items, end });
                }
            }
            None => {
                *spoiled = true;
                return Err((TamperKind::ForgedListEvent, message));
            }
        }
        Ok(())
    }
}
