//! What the control plane may hear: answers to what it asked, and events of channels of ours.
//!
//! Strangers write into events (see `node_agent_ami::check_event`). A block that departs from its form is
//! not forwarded as it was written: in its place goes one that holds nothing of a stranger's and that the
//! client at the other end takes for tampering all the same, of the same channel. So the control plane
//! reconciles that call by facts, exactly as on a direct session:
//! - it names our channel's id: an `Event: Hangup` with nothing but that id (a truncated one);
//! - it names our channel by name only: an `Event: Newstate` with nothing but that name, which taints it;
//! - neither: a block that begins with neither `Event:` nor `Response:`.

use std::time::Instant;

use node_agent_ami::{Block, Event, Message, MessageKind, TamperKind};

use super::{
    ledger::Ledger,
    request::{ActionId, Question, is_object},
    stream::{Passed, Report, Stream},
};
use crate::attempt_id::AttemptId;

/// Names learned of one stream's channels; those of ended calls are dropped first.
const NAMES_MAX: usize = 16 * 1024;
/// AORs and contacts learned.
const OBJECTS_MAX: usize = 4096;
/// Blocks that go out in the place of one with strangers' text.
const STUBS_MAX: usize = 4;
/// Of whole channels: forwarded where every channel in it is ours.
const CHANNEL_EVENTS: [&str; 8] =
    ["Newchannel", "Newstate", "DialBegin", "DialState", "DialEnd", "HangupRequest", "Hangup", "UserEvent"];
/// Of Asterisk as a whole: hints that a control plane confirms by asking.
const SYSTEM_EVENTS: [&str; 2] = ["FullyBooted", "Shutdown"];

/// What an answer is awaited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    One,
    Status(AttemptId),
    DbGet(AttemptId),
    Getvar(Question),
    Originate(AttemptId),
}

impl Pending {
    fn is_list(&self) -> bool {
        match self {
            Self::Status(_) | Self::DbGet(_) => true,
            Self::One | Self::Getvar(_) | Self::Originate(_) => false,
        }
    }
}

impl Stream {
    /// Bytes of Asterisk. They may end anywhere.
    pub fn asterisk_wrote(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) -> Passed {
        let mut passed = Passed::default();
        self.from_asterisk.push(bytes);
        loop {
            match self.from_asterisk.next_block() {
                Ok(Some(Block::Message(message))) => self.block(&message, ledger, now, &mut passed),
                Ok(Some(Block::Banner(_))) => {}
                Ok(None) => return passed,
                Err(_) => foreign(TamperKind::Oversized, &mut passed),
            }
        }
    }

    fn block(&mut self, message: &Message, ledger: &mut Ledger, now: Instant, passed: &mut Passed) {
        match message.kind() {
            MessageKind::Neither => self.tampered(TamperKind::ForeignHead, message, passed),
            MessageKind::Response(_) => self.response(message, ledger, now, passed),
            MessageKind::Event(name) => match self.list_of(&name, message) {
                Some((id, pending)) => self.list_event(&id, &pending, message, passed),
                None => self.event(&name, message, ledger, now, passed),
            },
        }
    }

    fn response(&mut self, message: &Message, ledger: &mut Ledger, now: Instant, passed: &mut Passed) {
        // Asterisk writes the ActionID directly behind `Response:`.
        let second = message.headers().get(1).filter(|header| header.name() == b"ActionID");
        let id = second.and_then(|header| ActionId::parse(header.value()));
        let once = message.all("ActionID").count() == 1 && message.all("Response").count() == 1;
        let known = id.and_then(|id| self.pending.get(&id).cloned().map(|pending| (id, pending)));
        let Some((id, pending)) = known.filter(|_| once && message.malformed_lines() == 0) else {
            return foreign(TamperKind::UnknownActionId, passed);
        };
        let list_starts = message.get("EventList").is_some_and(|value| value.eq_ignore_ascii_case(b"start"));
        if !(list_starts && pending.is_list()) {
            self.pending.remove(&id);
        }
        let is_error = message.get("Response") == Some(b"Error");
        match pending {
            Pending::Originate(attempt) if is_error => {
                self.originates.remove(&id);
                ledger.rejected(attempt, now);
            }
            Pending::Getvar(question) if !is_error => {
                self.learn(&question, &message.text("Value").unwrap_or_default());
            }
            Pending::One
            | Pending::Status(_)
            | Pending::DbGet(_)
            | Pending::Getvar(_)
            | Pending::Originate(_) => {}
        }
        passed.to_control_plane.extend(message.encode());
    }

    fn learn(&mut self, question: &Question, value: &str) {
        let objects = match question {
            Question::Aors(_) => &mut self.aors,
            Question::Contacts(_) => &mut self.contacts,
            Question::OutboundProxy(_) | Question::Uri(_) => return,
        };
        for object in value.split(',').map(str::trim).filter(|object| is_object(object)) {
            if objects.len() < OBJECTS_MAX {
                objects.insert(object.to_owned());
            }
        }
    }

    /// The list in flight that the event belongs to, if any.
    fn list_of(&self, name: &str, message: &Message) -> Option<(ActionId, Pending)> {
        if name == "OriginateResponse" {
            return None;
        }
        message.all("ActionID").filter_map(ActionId::parse).find_map(|id| {
            let pending = self.pending.get(&id).filter(|pending| pending.is_list())?;
            Some((id, pending.clone()))
        })
    }

    fn list_event(&mut self, id: &ActionId, pending: &Pending, message: &Message, passed: &mut Passed) {
        let once = |name: &str| message.all(name).count() == 1;
        let sound = message.malformed_lines() == 0 && once("Event") && once("ActionID");
        let holds = |name: &str, value: &str| once(name) && message.get(name) == Some(value.as_bytes());
        let is_end = message.get("EventList").is_some();
        let is_wanted = is_end
            || match pending {
                Pending::Status(attempt) => holds("Uniqueid", &attempt.to_string()),
                Pending::DbGet(attempt) => holds("Family", "ringward") && holds("Key", &attempt.to_string()),
                Pending::One | Pending::Getvar(_) | Pending::Originate(_) => false,
            };
        if !sound || !is_wanted {
            return foreign(TamperKind::ForgedListEvent, passed);
        }
        if is_end {
            self.pending.remove(id);
        }
        passed.to_control_plane.extend(message.encode());
    }

    fn event(
        &mut self,
        name: &str,
        message: &Message,
        ledger: &mut Ledger,
        now: Instant,
        passed: &mut Passed,
    ) {
        let event = match Event::read(message.clone()) {
            Ok(event) => event,
            Err((kind, message)) => return self.tampered(kind, &message, passed),
        };
        if name == "OriginateResponse" {
            return self.originate_response(&event, message, ledger, now, passed);
        }
        if SYSTEM_EVENTS.contains(&name) {
            return passed.to_control_plane.extend(message.encode());
        }
        if let Event::UserEvent { name, .. } = &event
            && !name.starts_with("Ringward")
        {
            return passed.reports.push(Report::Hidden);
        }
        match self.whose(message) {
            Whose::Mismatched => self.tampered(TamperKind::Mismatched, message, passed),
            Whose::Ours(attempt, channel) if CHANNEL_EVENTS.contains(&name) => {
                self.our_event(&event, attempt, channel, ledger, now);
                passed.to_control_plane.extend(message.encode());
            }
            Whose::Ours(..) | Whose::Another => passed.reports.push(Report::Hidden),
        }
    }

    fn our_event(
        &mut self,
        event: &Event,
        attempt: AttemptId,
        channel: Option<Vec<u8>>,
        ledger: &mut Ledger,
        now: Instant,
    ) {
        if self.tainted.remove(&attempt) {
            // Its head may be a stranger's. The control plane's client knows by itself; the count waits for
            // Asterisk's list.
            return;
        }
        if let Event::Hangup { .. } = event {
            ledger.hung_up(attempt, now);
            self.names.retain(|_, named| *named != attempt);
            return;
        }
        ledger.channel_seen(attempt);
        if let Some(channel) = channel.filter(|_| ledger.is_live(attempt)) {
            if self.names.len() >= NAMES_MAX {
                self.names.retain(|_, named| ledger.is_live(*named));
            }
            self.names.entry(channel).or_insert(attempt);
        }
    }

    fn originate_response(
        &mut self,
        event: &Event,
        message: &Message,
        ledger: &mut Ledger,
        now: Instant,
        passed: &mut Passed,
    ) {
        let id = message.get("ActionID").and_then(ActionId::parse);
        let Some(attempt) = id.and_then(|id| self.originates.remove(&id)) else {
            return passed.reports.push(Report::Hidden);
        };
        let Event::OriginateResponse { success, uniqueid, .. } = event else { return };
        if uniqueid.as_ref().is_some_and(|uniqueid| *uniqueid != attempt.to_string()) {
            return self.tampered(TamperKind::Mismatched, message, passed);
        }
        if !success {
            ledger.originate_failed(attempt, now);
        }
        passed.to_control_plane.extend(message.encode());
    }

    /// Whose event a well-formed one is, by ids and by names, which must agree.
    fn whose(&self, message: &Message) -> Whose {
        let mut ours = None;
        let mut another = false;
        for (id, channel) in [("Uniqueid", "Channel"), ("DestUniqueid", "DestChannel")] {
            let channel = message.get(channel);
            let named = channel.and_then(|channel| self.names.get(channel)).copied();
            match message.get(id).map(AttemptId::parse) {
                None => {}
                Some(Ok(attempt)) if named.is_none_or(|named| named == attempt) => {
                    ours.get_or_insert((attempt, channel.map(<[u8]>::to_vec)));
                }
                Some(Ok(_)) => return Whose::Mismatched,
                Some(Err(_)) if named.is_some() => return Whose::Mismatched,
                Some(Err(_)) => another = true,
            }
        }
        match ours {
            Some((attempt, channel)) if !another => Whose::Ours(attempt, channel),
            Some(_) | None => Whose::Another,
        }
    }

    fn tampered(&mut self, kind: TamperKind, message: &Message, passed: &mut Passed) {
        let values = |names: [&'static str; 2]| {
            message.headers().iter().filter(move |h| names.iter().any(|name| h.is(name))).map(|h| h.value())
        };
        // Asterisk writes its own ids behind what strangers filled: the last ones count, and a stranger who
        // wrote hundreds gets no hundreds of blocks out of it.
        let mut ids: Vec<AttemptId> =
            values(["Uniqueid", "DestUniqueid"]).filter_map(|value| AttemptId::parse(value).ok()).collect();
        ids.drain(..ids.len().saturating_sub(STUBS_MAX));
        ids.dedup();
        let named: Vec<(Vec<u8>, AttemptId)> = values(["Channel", "DestChannel"])
            .filter_map(|name| self.names.get_key_value(name))
            .filter(|(_, attempt)| !ids.contains(attempt))
            .map(|(name, attempt)| (name.clone(), *attempt))
            .take(STUBS_MAX)
            .collect();
        self.tainted.retain(|attempt| !ids.contains(attempt));
        if ids.is_empty() && named.is_empty() {
            return foreign(kind, passed);
        }
        passed.reports.push(Report::Tampered(kind));
        for id in &ids {
            let block = Message::from_pairs([("Event", "Hangup"), ("Uniqueid", &id.to_string())]);
            passed.to_control_plane.extend(block.encode());
        }
        for (name, attempt) in named {
            self.tainted.insert(attempt);
            let block = Message::from_pairs([(&b"Event"[..], &b"Newstate"[..]), (b"Channel", &name)]);
            passed.to_control_plane.extend(block.encode());
        }
    }
}

enum Whose {
    Ours(AttemptId, Option<Vec<u8>>),
    Another,
    Mismatched,
}

/// In the place of a block that names no channel of ours.
fn foreign(kind: TamperKind, passed: &mut Passed) {
    passed.reports.push(Report::Tampered(kind));
    passed.to_control_plane.extend(Message::from_pairs([("Tampered", kind.as_str())]).encode());
}
