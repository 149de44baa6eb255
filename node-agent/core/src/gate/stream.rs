//! One AMI stream: what the control plane asks on its way to Asterisk.
//!
//! The shell logs in at Asterisk by itself, sends [`Stream::greeting`], and then pumps bytes both ways
//! through this machine. It does no I/O and reads no clock.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use node_agent_ami::{Block, Decoder, Limits, Message, TamperKind};

use super::{
    answers::Pending,
    ledger::Ledger,
    refusal::RefusalKind,
    request::{self, ActionId, Question, Request},
};
use crate::attempt_id::AttemptId;

/// Bounds of an action: ours have 40 headers at most, and Asterisk takes no line over 1,024 bytes.
const ACTION_LIMITS: Limits = Limits { line_bytes_max: 1022, headers_max: 64, block_bytes_max: 8 * 1024 };
/// Actions in flight on one stream.
const PENDING_MAX: usize = 4096;

/// What came of some bytes. Write `to_asterisk` and `to_control_plane` out whole and in this order.
#[derive(Debug, Default)]
pub struct Passed {
    /// For Asterisk.
    pub to_asterisk: Vec<u8>,
    /// For the control plane.
    pub to_control_plane: Vec<u8>,
    /// For metrics, facts and log.
    pub reports: Vec<Report>,
    /// Attempts whose Originate is in `to_asterisk`: for the journal, before the bytes leave.
    pub admitted: Vec<AttemptId>,
    /// The control plane logged off.
    pub is_over: bool,
}

/// Something to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// An action was refused.
    Refused {
        /// Why.
        kind: RefusalKind,
        /// The action's name, letters and digits only, 32 at most.
        action: String,
    },
    /// A block of Asterisk's held strangers' text and was not forwarded as it was written.
    Tampered(TamperKind),
    /// An event of a channel that is none of ours was kept back.
    Hidden,
}

/// The machine of one stream.
#[derive(Debug)]
pub struct Stream {
    from_control_plane: Decoder,
    pub(super) from_asterisk: Decoder,
    is_logged_in: bool,
    pub(super) pending: HashMap<ActionId, Pending>,
    /// Originates that were sent, until their OriginateResponse.
    pub(super) originates: HashMap<ActionId, AttemptId>,
    /// Asterisk's names of our channels on this stream.
    pub(super) names: HashMap<Vec<u8>, AttemptId>,
    /// Channels whose name a broken block held since their last own one.
    pub(super) tainted: HashSet<AttemptId>,
    /// AORs and contacts that declared endpoints were found to have: what may be asked further.
    pub(super) aors: HashSet<String>,
    pub(super) contacts: HashSet<String>,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    /// For a session that is logged in at Asterisk, banner and login's answer already read.
    #[must_use]
    pub fn new() -> Self {
        Self {
            from_control_plane: Decoder::past_banner(ACTION_LIMITS),
            from_asterisk: Decoder::past_banner(Limits::default()),
            is_logged_in: false,
            pending: HashMap::new(),
            originates: HashMap::new(),
            names: HashMap::new(),
            tainted: HashSet::new(),
            aors: HashSet::new(),
            contacts: HashSet::new(),
        }
    }

    /// The first bytes for the control plane: Asterisk's banner, if it is one.
    #[must_use]
    pub fn greeting(banner: &[u8]) -> Vec<u8> {
        let version = banner.strip_prefix(b"Asterisk Call Manager/").unwrap_or_default();
        let clean = |b: &&u8| b.is_ascii_digit() || **b == b'.';
        let version: Vec<u8> = version.iter().take(16).take_while(clean).copied().collect();
        [b"Asterisk Call Manager/", version.as_slice(), b"\r\n"].concat()
    }

    /// Bytes of the control plane. They may end anywhere.
    pub fn control_plane_wrote(&mut self, bytes: &[u8], ledger: &mut Ledger, now: Instant) -> Passed {
        let mut passed = Passed::default();
        self.from_control_plane.push(bytes);
        loop {
            match self.from_control_plane.next_block() {
                Ok(Some(Block::Message(message))) => self.action(&message, ledger, now, &mut passed),
                // `past_banner` yields none.
                Ok(Some(Block::Banner(_))) => {}
                Ok(None) => return passed,
                Err(_) => refuse(None, RefusalKind::Oversized, String::new(), &mut passed),
            }
            if passed.is_over {
                return passed;
            }
        }
    }

    fn action(&mut self, message: &Message, ledger: &mut Ledger, now: Instant, passed: &mut Passed) {
        let (id, request) = request::parse(message);
        let admitted = request.and_then(|request| {
            let id = id.clone().ok_or(RefusalKind::Malformed)?;
            self.admit(&id, &request, ledger, now).map(|()| (id, request))
        });
        match admitted {
            Ok((id, Request::Login)) => {
                answer(Some(&id), "Success", "Authentication accepted", &mut passed.to_control_plane);
            }
            Ok((id, Request::Logoff)) => {
                answer(Some(&id), "Goodbye", "Thanks for all the fish.", &mut passed.to_control_plane);
                passed.is_over = true;
            }
            Ok((id, request)) => {
                if let Request::Originate(originate) = &request {
                    passed.admitted.push(originate.attempt);
                }
                passed.to_asterisk.extend(request.encode(&id).unwrap_or_default());
                self.expect(id, request);
            }
            Err(kind) => refuse(id.as_ref(), kind, name(message), passed),
        }
    }

    fn admit(
        &mut self,
        id: &ActionId,
        request: &Request,
        ledger: &mut Ledger,
        now: Instant,
    ) -> Result<(), RefusalKind> {
        if let Request::Login = request {
            // Its user and secret mean nothing here: the agent has logged in with its own.
            self.is_logged_in = true;
            return Ok(());
        }
        if !self.is_logged_in {
            return Err(RefusalKind::NotLoggedIn);
        }
        if self.pending.contains_key(id) || self.originates.contains_key(id) {
            return Err(RefusalKind::RepeatedActionId);
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(RefusalKind::Busy);
        }
        match request {
            Request::Login | Request::Logoff | Request::Ping | Request::CoreStatus => Ok(()),
            Request::Status(_) | Request::Hangup { .. } | Request::DbGet(_) => Ok(()),
            Request::Getvar(question) => self.may_ask(question, ledger),
            Request::Originate(originate) => ledger.admit(originate, now),
        }
    }

    /// A declared endpoint, and what it was found to consist of.
    fn may_ask(&self, question: &Question, ledger: &Ledger) -> Result<(), RefusalKind> {
        let (may, otherwise) = match question {
            Question::Aors(endpoint) | Question::OutboundProxy(endpoint) => {
                (ledger.is_declared(endpoint), RefusalKind::NotDeclared)
            }
            Question::Contacts(aor) => (self.aors.contains(aor), RefusalKind::NotOurs),
            Question::Uri(contact) => (self.contacts.contains(contact), RefusalKind::NotOurs),
        };
        if may { Ok(()) } else { Err(otherwise) }
    }

    fn expect(&mut self, id: ActionId, request: Request) {
        let pending = match request {
            Request::Login | Request::Logoff => return,
            Request::Ping | Request::CoreStatus | Request::Hangup { .. } => Pending::One,
            Request::Status(attempt) => Pending::Status(attempt),
            Request::DbGet(attempt) => Pending::DbGet(attempt),
            Request::Getvar(question) => Pending::Getvar(question),
            Request::Originate(originate) => {
                self.originates.insert(id.clone(), originate.attempt);
                Pending::Originate(originate.attempt)
            }
        };
        self.pending.insert(id, pending);
    }
}

/// What was asked for, so that it can go into a log and a fact.
fn name(message: &Message) -> String {
    let text = message.text("Action").unwrap_or_default();
    text.chars().take(32).map(|c| if c.is_ascii_alphanumeric() { c } else { '?' }).collect()
}

fn refuse(id: Option<&ActionId>, kind: RefusalKind, action: String, passed: &mut Passed) {
    answer(id, "Error", &format!("Refused by the node's gate: {kind}"), &mut passed.to_control_plane);
    passed.reports.push(Report::Refused { kind, action });
}

fn answer(id: Option<&ActionId>, word: &str, text: &str, out: &mut Vec<u8>) {
    let id = id.map(|id| ("ActionID", id.as_str()));
    let headers = [("Response", word)].into_iter().chain(id).chain([("Message", text)]);
    out.extend(Message::from_pairs(headers).encode());
}
