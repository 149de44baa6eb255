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
//! merely guesses our channel's name gains one reconciliation by facts, never an outcome. The channel's
//! name is learned from its first event, which is safe for `Newchannel` alone: it precedes the INVITE, so
//! nobody outside has had a say. An `eventfilter` must therefore let `Newchannel` through.
//!
//! **Everything else** is a hint. It is held until the next block begins properly or the line is silent,
//! so that an event that was ended early shows itself by its own remains.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::decoder::Beginning;
use crate::event::Event;
use crate::link::CloseReason;
use crate::mailbox::Mailbox;
use crate::message::{Header, Message, MessageKind};
use crate::pending::{PendingActions, Reply, Want};
use crate::tamper::{TamperCounters, TamperKind, Tampering};
use crate::watch::{EventItem, WatchItem};

pub(crate) type WatchBox = Mailbox<WatchItem, CloseReason>;
pub(crate) type EventBox = Mailbox<EventItem, CloseReason>;

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
    pending: PendingActions,
    watches: HashMap<String, Watched>,
    ids_by_channel: HashMap<String, String>,
    watch_by_originate: HashMap<String, String>,
    /// Watched ids whose channel was named by a broken block since its last own one or silence.
    tainted: HashSet<String>,
    held: Option<(Event, Message)>,
    events: Arc<EventBox>,
    counters: Arc<TamperCounters>,
    closed: Option<CloseReason>,
}

impl Router {
    pub(crate) fn new(events: Arc<EventBox>, counters: Arc<TamperCounters>, list_items_max: usize) -> Self {
        Self {
            pending: PendingActions::new(list_items_max),
            watches: HashMap::new(),
            ids_by_channel: HashMap::new(),
            watch_by_originate: HashMap::new(),
            tainted: HashSet::new(),
            held: None,
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
        let answer = self.pending.add(action_id, want);
        if let Some((id, watched)) = originate.and_then(|id| Some((id, self.watches.get_mut(id)?))) {
            watched.originates.push(action_id.to_owned());
            self.watch_by_originate.insert(action_id.to_owned(), id.to_owned());
        }
        Ok(answer)
    }

    /// The caller no longer waits. Hands out what had come of a list.
    pub(crate) fn abandon(&mut self, action_id: &str) -> Vec<Message> {
        self.pending.abandon(action_id)
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
        self.pending.fail_all(reason);
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
                let taken = self.pending.response(message);
                self.tell_forgery(taken);
            }
            MessageKind::Event(name) => {
                // An Originate's event bears the ActionID of an action that may be given up already.
                let of_list = name != "OriginateResponse" && self.pending.is_of_list(&message);
                self.release_held(true);
                if of_list {
                    let taken = self.pending.list_event(message);
                    self.tell_forgery(taken);
                } else {
                    self.event(message);
                }
            }
        }
    }

    fn tell_forgery(&mut self, taken: Result<(), (TamperKind, Message)>) {
        if let Err((kind, message)) = taken {
            self.tampered(kind, message);
        }
    }

    fn release_held(&mut self, well: bool) {
        match self.held.take() {
            Some((event, _)) if well => self.events.put(EventItem::Event(event)),
            Some((_, message)) => self.tampered(TamperKind::BrokenBehind, message),
            None => {}
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
        // The form of `Other` was not checked: it may not say which name is ours.
        let checked = !matches!(event, Event::Other(_));
        if let (None, Some(channel), true) = (&watched.channel, channel, checked) {
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
                (Some(_), Some(other)) => other.as_str() == id,
                (Some(_), None) => expected.is_none() || channel.is_none(),
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
        // Whoever reads the counters alarms; a line per block would let strangers write our log.
        tracing::debug!(
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
