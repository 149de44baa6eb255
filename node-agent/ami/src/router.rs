//! Where each block goes. Pure and synchronous: blocks and silences in, deliveries out.
//!
//! **Answers.** A response counts only with an ActionID that is in flight; ids are 128 random bits and go
//! to Asterisk alone, so nobody outside can write one.
//!
//! **Our channels' events** are delivered at once. Waiting for what follows would buy nothing: in a
//! channel event the Uniqueid comes *behind* every field that a stranger fills, so a block that holds our
//! unguessable id was ended by Asterisk, not by him. What he can do (as the far end of that very call) is to
//! put a head of his own before our tail; then the true head came *before*, as a block that names our
//! channel and either breaks off or carries an id that is not ours. That block taints the channel until its
//! next block or a silence, and an event on a tainted channel is evidence, not an event. A stranger who
//! merely guesses our channel's name gains one reconciliation by facts, never an outcome.
//!
//! **Everything else** is a hint. It is held until the next block begins properly or the line is silent,
//! so that an event that was ended early shows itself by its own remains.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::decoder::Beginning;
use crate::event::Event;
use crate::link::CloseReason;
use crate::list_form::{ListRole, list_role};
use crate::mailbox::Mailbox;
use crate::message::{Header, Message, MessageKind};
use crate::tamper::{TamperCounters, TamperKind, Tampering};
use crate::watch::{EventItem, WatchItem};

/// Late answers to actions that were given up are not tampering; so many given-up ids are remembered.
const ABANDONED_MAX: usize = 4096;

pub(crate) type WatchBox = Mailbox<WatchItem, CloseReason>;
pub(crate) type EventBox = Mailbox<EventItem, CloseReason>;

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
    /// `ListItems` says another number than came, one was tampered with, or there were too many.
    Short,
    /// The caller's time ran out.
    TimedOut,
}

#[derive(Debug)]
enum Pending {
    One(oneshot::Sender<Reply>),
    List { reply: oneshot::Sender<Reply>, started: bool, items: Vec<Message>, spoiled: bool },
}

#[derive(Debug)]
struct Watched {
    mailbox: Arc<WatchBox>,
    /// Asterisk's name of the channel, from the first event that carried our id.
    channel: Option<String>,
    /// ActionIDs of its Originates.
    originates: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Router {
    pending: HashMap<String, Pending>,
    abandoned: HashSet<String>,
    abandoned_order: VecDeque<String>,
    watches: HashMap<String, Watched>,
    ids_by_channel: HashMap<String, String>,
    watch_by_originate: HashMap<String, String>,
    /// Watched ids whose channel was named by a broken block since its last own one or silence.
    tainted: HashSet<String>,
    held: Option<(Event, Message)>,
    list_items_max: usize,
    events: Arc<EventBox>,
    counters: Arc<TamperCounters>,
    closed: Option<CloseReason>,
}

/// Whether the caller wants one response or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    One,
    List,
}

impl Router {
    pub(crate) fn new(events: Arc<EventBox>, counters: Arc<TamperCounters>, list_items_max: usize) -> Self {
        Self {
            pending: HashMap::new(),
            abandoned: HashSet::new(),
            abandoned_order: VecDeque::new(),
            watches: HashMap::new(),
            ids_by_channel: HashMap::new(),
            watch_by_originate: HashMap::new(),
            tainted: HashSet::new(),
            held: None,
            list_items_max,
            events,
            counters,
            closed: None,
        }
    }

    pub(crate) fn expect(
        &mut self,
        action_id: &str,
        want: Want,
        originate: Option<&str>,
    ) -> Result<oneshot::Receiver<Reply>, CloseReason> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        let (reply, answer) = oneshot::channel();
        let pending = match want {
            Want::One => Pending::One(reply),
            Want::List => Pending::List { reply, started: false, items: Vec::new(), spoiled: false },
        };
        self.pending.insert(action_id.to_owned(), pending);
        if let Some((id, watched)) = originate.and_then(|id| Some((id, self.watches.get_mut(id)?))) {
            watched.originates.push(action_id.to_owned());
            self.watch_by_originate.insert(action_id.to_owned(), id.to_owned());
        }
        Ok(answer)
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

    /// `None` if somebody watches that id already.
    pub(crate) fn watch(&mut self, id: &str, mailbox: Arc<WatchBox>) -> Option<()> {
        if self.watches.contains_key(id) {
            return None;
        }
        if let Some(reason) = &self.closed {
            mailbox.end(reason.clone());
        }
        self.watches.insert(id.to_owned(), Watched { mailbox, channel: None, originates: Vec::new() });
        Some(())
    }

    pub(crate) fn unwatch(&mut self, id: &str) {
        let Some(watched) = self.watches.remove(id) else { return };
        self.tainted.remove(id);
        if let Some(channel) = watched.channel {
            self.ids_by_channel.remove(&channel);
        }
        for action_id in watched.originates {
            self.watch_by_originate.remove(&action_id);
        }
    }

    /// The end: everyone who waits is told, and nothing is taken in any more.
    pub(crate) fn link_lost(&mut self, reason: &CloseReason) {
        self.silence(Beginning::Nothing);
        self.closed = Some(reason.clone());
        for (_, pending) in self.pending.drain() {
            let (reply, items) = match pending {
                Pending::One(reply) => (reply, Vec::new()),
                Pending::List { reply, items, .. } => (reply, items),
            };
            // A caller that has gone away needs no answer.
            let _ = reply.send(Reply::Lost { reason: reason.clone(), items });
        }
        self.watches.values().for_each(|watched| watched.mailbox.end(reason.clone()));
        self.events.end(reason.clone());
    }

    /// Whether an event waits for the line to fall silent.
    pub(crate) fn holds(&self) -> bool {
        self.held.is_some() || !self.tainted.is_empty()
    }

    /// The line was silent; `beginning` is how the unfinished block starts, if one has begun.
    pub(crate) fn silence(&mut self, beginning: Beginning) {
        match beginning {
            Beginning::Nothing => {
                self.release_held(true);
                self.tainted.clear();
            }
            Beginning::Proper => self.release_held(true),
            Beginning::Foreign => self.release_held(false),
        }
    }

    pub(crate) fn oversized(&mut self) {
        self.release_held(false);
        self.report(Tampering { kind: TamperKind::Oversized, event: None, message: None });
    }

    pub(crate) fn block(&mut self, message: Message) {
        match message.kind() {
            MessageKind::Neither => {
                self.release_held(false);
                self.tampered(TamperKind::ForeignHead, message);
            }
            MessageKind::Response(_) => {
                self.release_held(true);
                self.response(message);
            }
            MessageKind::Event(_) => {
                self.release_held(true);
                match self.list_of(&message) {
                    Some(action_id) => self.list_event(&action_id, message),
                    None => self.event(message),
                }
            }
        }
    }

    fn release_held(&mut self, well: bool) {
        match self.held.take() {
            Some((event, _)) if well => self.events.put(EventItem::Event(event)),
            Some((_, message)) => self.tampered(TamperKind::BrokenBehind, message),
            None => {}
        }
    }

    fn response(&mut self, message: Message) {
        // astman_send_response_full writes the ActionID directly behind `Response:`.
        let second = message.headers().get(1).filter(|header| header.name() == b"ActionID");
        let Some(action_id) = second.map(|header| header.text().into_owned()) else {
            return self.tampered(TamperKind::UnknownActionId, message);
        };
        if message.malformed_lines() > 0 {
            return self.tampered(TamperKind::NotAHeader, message);
        }
        if message.all("ActionID").count() > 1 || message.all("Response").count() > 1 {
            return self.tampered(TamperKind::Doubled, message);
        }
        let list_starts = message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"start"));
        match self.pending.get_mut(&action_id) {
            Some(Pending::List { started, .. }) if list_starts && !*started => *started = true,
            Some(Pending::List { started: true, .. }) => self.tampered(TamperKind::Doubled, message),
            Some(_) => match self.pending.remove(&action_id) {
                Some(Pending::One(reply) | Pending::List { reply, .. }) => {
                    let _ = reply.send(Reply::One(message));
                }
                None => {}
            },
            None if self.abandoned.contains(&action_id) => {
                tracing::debug!(action_id, "an answer came after its action was given up");
            }
            None => self.tampered(TamperKind::UnknownActionId, message),
        }
    }

    /// The list in flight that the event names, if any.
    fn list_of(&self, message: &Message) -> Option<String> {
        message.all("ActionID").map(String::from_utf8_lossy).map(|id| id.into_owned()).find(|id| {
            matches!(self.pending.get(id), Some(Pending::List { .. })) || self.abandoned.contains(id)
        })
    }

    fn list_event(&mut self, action_id: &str, message: Message) {
        let Some(Pending::List { items, spoiled, .. }) = self.pending.get_mut(action_id) else {
            return; // Of a list that was given up.
        };
        match list_role(&message) {
            Some(ListRole::Item) if items.len() < self.list_items_max => items.push(message),
            Some(ListRole::Item) => *spoiled = true,
            Some(ListRole::End { complete, count }) => {
                if let Some(Pending::List { reply, items, spoiled, .. }) = self.pending.remove(action_id) {
                    let short = spoiled || count.is_some_and(|count| count != items.len());
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
                self.tampered(TamperKind::ForgedListEvent, message);
            }
        }
    }

    fn event(&mut self, message: Message) {
        let event = match Event::read(message.clone()) {
            Ok(event) => event,
            Err((kind, message)) => return self.tampered(kind, message),
        };
        if let Event::OriginateResponse { .. } = event {
            let action_id = message.text("ActionID").unwrap_or_default();
            let ours = self.watch_by_originate.get(action_id.as_ref()).and_then(|id| self.watches.get(id));
            return match ours {
                Some(watched) => watched.mailbox.put(WatchItem::Event(event)),
                None => self.hold(event, message),
            };
        }
        match self.belonging(&message) {
            Belonging::Nobody => self.hold(event, message),
            Belonging::Mismatched => self.tampered(TamperKind::Mismatched, message),
            Belonging::Ours { id, channel } => self.deliver(&id, channel, event, message),
        }
    }

    fn deliver(&mut self, id: &str, channel: Option<String>, event: Event, message: Message) {
        if self.tainted.contains(id) {
            return self.tampered(TamperKind::TaintedTail, message);
        }
        let Some(watched) = self.watches.get_mut(id) else { return };
        if let (None, Some(channel)) = (&watched.channel, channel) {
            watched.channel = Some(channel.clone());
            self.ids_by_channel.insert(channel, id.to_owned());
        }
        watched.mailbox.put(WatchItem::Event(event));
    }

    fn hold(&mut self, event: Event, message: Message) {
        self.held = Some((event, message));
    }

    /// Whose event a well-formed one is, by id and by channel name, which must agree.
    fn belonging(&self, message: &Message) -> Belonging {
        let mut ours = None;
        for (id_header, channel_header) in [("Uniqueid", "Channel"), ("DestUniqueid", "DestChannel")] {
            let Some(id) = message.text(id_header) else { continue };
            let channel = message.text(channel_header).map(|channel| channel.into_owned());
            let named = channel.as_ref().and_then(|channel| self.ids_by_channel.get(channel));
            let known = self.watches.get(id.as_ref());
            let expected = known.and_then(|watched| watched.channel.as_ref());
            let agrees = match (known, named) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(_), _) => expected.is_none() || channel.is_none() || expected == channel.as_ref(),
            };
            if !agrees {
                return Belonging::Mismatched;
            }
            if known.is_some() && ours.is_none() {
                ours = Some(Belonging::Ours { id: id.into_owned(), channel });
            }
        }
        ours.unwrap_or(Belonging::Nobody)
    }

    /// Counts, tells the reader of events, and tells every watch that the block touches.
    fn tampered(&mut self, kind: TamperKind, message: Message) {
        let values = |names: [&'static str; 2]| {
            let named = move |header: &&Header| names.iter().any(|name| header.is(name));
            message.headers().iter().filter(named).map(Header::text)
        };
        let watched = |id: &Cow<'_, str>| self.watches.contains_key(id.as_ref());
        let touched: HashSet<String> =
            values(["Uniqueid", "DestUniqueid"]).filter(watched).map(Cow::into_owned).collect();
        let named: Vec<String> = values(["Channel", "DestChannel"])
            .filter_map(|channel| self.ids_by_channel.get(channel.as_ref()))
            .filter(|id| !touched.contains(*id))
            .cloned()
            .collect();
        // A block with our id is the tail that the taint waited for; one with our channel's name alone is
        // a head whose tail is still to come.
        self.tainted.retain(|id| !touched.contains(id));
        self.tainted.extend(named);
        let tampering = Tampering::of(kind, message);
        for id in touched {
            if let Some(watched) = self.watches.get(&id) {
                watched.mailbox.put(WatchItem::Tampered(tampering.clone()));
            }
        }
        self.report(tampering);
    }

    fn report(&self, tampering: Tampering) {
        self.counters.count(tampering.kind);
        tracing::warn!(
            kind = tampering.kind.as_str(),
            event = tampering.event.as_deref().unwrap_or("-"),
            "a stranger's text broke an AMI block"
        );
        self.events.put(EventItem::Tampered(tampering));
    }
}

enum Belonging {
    Nobody,
    Mismatched,
    Ours { id: String, channel: Option<String> },
}
