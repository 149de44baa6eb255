//! What each event looks like, header by header, in Asterisk's own order.
//!
//! Values hold bytes that strangers chose, line breaks among them (a SIP user part is percent-decoded and
//! written unescaped). A stranger can therefore add lines to an event and end it early; he cannot take away
//! what Asterisk writes behind his text, and he cannot change the order. So each known event has one form,
//! and whatever departs from it is evidence instead of an event.
//!
//! Forms were taken from Asterisk 22.10.1's wire and from manager.c, manager_channels.c; what older
//! versions lack (TechCause, Language) is optional.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::message::Message;
use crate::tamper::TamperKind;

#[derive(Debug, Clone, Copy)]
enum Part {
    /// Exactly once, here.
    One(&'static str),
    /// Once or not at all, here.
    Maybe(&'static str),
    /// Any number, here.
    Many(&'static str),
    /// A channel snapshot with this prefix.
    Channel(&'static str),
    /// A channel snapshot with this prefix, or nothing.
    MaybeChannel(&'static str),
    /// What every security event begins with.
    Security,
    /// Anything whose name is not in the form, repeats allowed: UserEvent's body.
    Free,
}
use Part::{Channel, Free, Many, Maybe, MaybeChannel, One, Security};

/// ast_manager_build_channel_state_string_prefix.
const SNAPSHOT: &[Part] = &[
    One("Channel"),
    One("ChannelState"),
    One("ChannelStateDesc"),
    One("CallerIDNum"),
    One("CallerIDName"),
    One("ConnectedLineNum"),
    One("ConnectedLineName"),
    Maybe("Language"),
    One("AccountCode"),
    One("Context"),
    One("Exten"),
    One("Priority"),
    One("Uniqueid"),
    One("Linkedid"),
    Many("ChanVariable"),
    Maybe("TenantID"),
];

/// What `manager.c` may put between the privilege and the event's own headers, by configuration.
const PREAMBLE: &[Part] = &[
    One("Privilege"),
    Maybe("SequenceNumber"),
    Maybe("File"),
    Maybe("Line"),
    Maybe("Func"),
    Maybe("Timestamp"),
    Maybe("SystemName"),
];

/// security_events.c: the required elements in their order; what is optional comes behind an event's own.
const SECURITY: &[Part] = &[
    One("EventTV"),
    One("Severity"),
    One("Service"),
    One("EventVersion"),
    One("AccountID"),
    One("SessionID"),
    One("LocalAddress"),
    One("RemoteAddress"),
];

/// Event name, its own headers behind the preamble.
const EVENTS: &[(&str, &[Part])] = &[
    ("Newchannel", &[Channel("")]),
    ("Newstate", &[Channel("")]),
    ("Hangup", &[Channel(""), One("Cause"), One("Cause-txt"), Maybe("TechCause")]),
    ("HangupRequest", &[Channel(""), Maybe("Cause"), Maybe("TechCause")]),
    ("SoftHangupRequest", &[Channel(""), Maybe("Cause"), Maybe("TechCause")]),
    ("DialBegin", &[MaybeChannel(""), Channel("Dest"), One("DialString")]),
    ("DialState", &[MaybeChannel(""), Channel("Dest"), Maybe("Forward"), One("DialStatus")]),
    ("DialEnd", &[MaybeChannel(""), Channel("Dest"), Maybe("Forward"), One("DialStatus")]),
    ("NewConnectedLine", &[Channel("")]),
    ("NewCallerid", &[Channel(""), One("CID-CallingPres")]),
    ("Newexten", &[Channel(""), One("Extension"), One("Application"), One("AppData")]),
    (
        "OriginateResponse",
        &[
            Maybe("ActionID"),
            One("Response"),
            One("Channel"),
            One("Context"),
            One("Exten"),
            Maybe("Application"),
            Maybe("Data"),
            One("Reason"),
            One("Uniqueid"),
            One("CallerIDNum"),
            One("CallerIDName"),
        ],
    ),
    (
        "FullyBooted",
        &[Maybe("Uptime"), Maybe("LastReload"), One("Status"), Maybe("Uptime"), Maybe("LastReload")],
    ),
    ("Shutdown", &[One("Shutdown"), One("Restart")]),
    (
        "ContactStatus",
        &[
            One("URI"),
            One("ContactStatus"),
            One("AOR"),
            One("EndpointName"),
            Maybe("RoundtripUsec"),
            Maybe("UserAgent"),
            Maybe("RegExpire"),
            Maybe("ViaAddress"),
            Maybe("CallID"),
        ],
    ),
    (
        "PeerStatus",
        &[
            One("ChannelType"),
            One("Peer"),
            One("PeerStatus"),
            Maybe("Cause"),
            Maybe("Address"),
            Maybe("Port"),
            Maybe("Time"),
        ],
    ),
    ("Registry", &[One("ChannelType"), Maybe("Username"), One("Domain"), One("Status"), Maybe("Cause")]),
    ("UserEvent", &[MaybeChannel(""), One("UserEvent"), Free]),
    // Of our own dialplan (extensions_ringward.conf): nothing is free in them.
    ("UserEvent RingwardAnswered", &[Channel(""), One("UserEvent"), One("Attempt")]),
    ("UserEvent RingwardKey", &[Channel(""), One("UserEvent"), One("Attempt"), One("Key")]),
    (
        "UserEvent RingwardMachine",
        &[Channel(""), One("UserEvent"), One("Attempt"), One("Verdict"), One("Cause")],
    ),
    ("UserEvent RingwardPlayed", &[Channel(""), One("UserEvent"), One("Attempt")]),
    ("UserEvent RingwardMedia", &[Channel(""), One("UserEvent"), One("Attempt")]),
    ("FailedACL", &[Security, Maybe("Module"), Maybe("SessionTV"), Maybe("ACLName")]),
    ("InvalidAccountID", &[Security, Maybe("Module"), Maybe("SessionTV")]),
    ("SessionLimit", &[Security, Maybe("Module"), Maybe("SessionTV")]),
    ("MemoryLimit", &[Security, Maybe("Module"), Maybe("SessionTV")]),
    ("LoadAverageLimit", &[Security, Maybe("Module"), Maybe("SessionTV")]),
    ("RequestNotSupported", &[Security, One("RequestType"), Maybe("Module"), Maybe("SessionTV")]),
    (
        "RequestNotAllowed",
        &[Security, One("RequestType"), Maybe("Module"), Maybe("SessionTV"), Maybe("RequestParams")],
    ),
    ("AuthMethodNotAllowed", &[Security, One("AuthMethod"), Maybe("Module"), Maybe("SessionTV")]),
    (
        "RequestBadFormat",
        &[
            Security,
            One("RequestType"),
            Maybe("Module"),
            Maybe("SessionTV"),
            Maybe("AccountID"),
            Maybe("RequestParams"),
        ],
    ),
    ("SuccessfulAuth", &[Security, One("UsingPassword"), Maybe("Module"), Maybe("SessionTV")]),
    ("UnexpectedAddress", &[Security, One("ExpectedAddress"), Maybe("Module"), Maybe("SessionTV")]),
    (
        "ChallengeResponseFailed",
        &[
            Security,
            One("Challenge"),
            One("Response"),
            One("ExpectedResponse"),
            Maybe("Module"),
            Maybe("SessionTV"),
        ],
    ),
    (
        "InvalidPassword",
        &[
            Security,
            Maybe("Module"),
            Maybe("SessionTV"),
            Maybe("Challenge"),
            Maybe("ReceivedChallenge"),
            Maybe("ReceivedHash"),
        ],
    ),
    ("ChallengeSent", &[Security, One("Challenge"), Maybe("Module"), Maybe("SessionTV")]),
    ("InvalidTransport", &[Security, One("AttemptedTransport"), Maybe("Module"), Maybe("SessionTV")]),
];

#[derive(Debug)]
enum Step {
    One(String),
    Maybe(String),
    Many(String),
    /// Skip this many steps unless the next header has this name.
    SkipUnless(String, usize),
    Free,
}

static FORMS: LazyLock<HashMap<&'static str, Vec<Step>>> = LazyLock::new(|| {
    let compile = |parts: &[Part]| {
        let mut steps = Vec::new();
        for part in PREAMBLE.iter().chain(parts) {
            expand(*part, "", &mut steps);
        }
        steps
    };
    EVENTS.iter().map(|(event, parts)| (*event, compile(parts))).collect()
});

fn expand(part: Part, prefix: &str, steps: &mut Vec<Step>) {
    let named = |name: &str| format!("{prefix}{name}");
    match part {
        One(name) => steps.push(Step::One(named(name))),
        Maybe(name) => steps.push(Step::Maybe(named(name))),
        Many(name) => steps.push(Step::Many(named(name))),
        Channel(of) => SNAPSHOT.iter().for_each(|part| expand(*part, of, steps)),
        MaybeChannel(of) => {
            steps.push(Step::SkipUnless(format!("{of}Channel"), SNAPSHOT.len()));
            expand(Channel(of), prefix, steps);
        }
        Security => SECURITY.iter().for_each(|part| expand(*part, prefix, steps)),
        Free => steps.push(Step::Free),
    }
}

/// Judges an event by its form.
///
/// # Errors
/// The kind of departure. An event of a name that is not listed has no form to depart from and passes,
/// unless a line of it is no header or `Event` comes again.
pub fn check_event(event: &str, message: &Message) -> Result<(), TamperKind> {
    if message.malformed_lines() > 0 {
        return Err(TamperKind::NotAHeader);
    }
    if message.all("Event").count() > 1 {
        return Err(TamperKind::Doubled);
    }
    // Whichever of two `UserEvent` headers names the form: both forms take one only.
    let own = match event {
        "UserEvent" => {
            FORMS.get(format!("UserEvent {}", message.text("UserEvent").unwrap_or_default()).as_str())
        }
        _ => None,
    };
    match own.or_else(|| FORMS.get(event)) {
        Some(form) => walk(form, message),
        None => Ok(()),
    }
}

fn walk(form: &[Step], message: &Message) -> Result<(), TamperKind> {
    let headers = message.headers();
    let mut at = 0;
    for (index, header) in headers.iter().enumerate().skip(1) {
        let departure = || {
            let seen =
                headers.iter().take(index).any(|earlier| header_names_equal(earlier.name(), header.name()));
            if seen { TamperKind::Doubled } else { TamperKind::Foreign }
        };
        let is = |name: &str| header.name() == name.as_bytes();
        loop {
            match form.get(at) {
                Some(Step::One(name)) if is(name) => {
                    at += 1;
                    break;
                }
                Some(Step::One(_)) | None => return Err(departure()),
                Some(Step::Maybe(name)) => {
                    at += 1;
                    if is(name) {
                        break;
                    }
                }
                Some(Step::Many(name)) if is(name) => break,
                Some(Step::Many(_)) => at += 1,
                Some(Step::SkipUnless(first, steps)) => at += if is(first) { 1 } else { 1 + steps },
                Some(Step::Free) if in_form(form, header.name()) => return Err(departure()),
                Some(Step::Free) => break,
            }
        }
    }
    let missing = form.iter().skip(at).any(|step| match step {
        Step::One(_) => true,
        Step::Maybe(_) | Step::Many(_) | Step::SkipUnless(..) | Step::Free => false,
    });
    if missing { Err(TamperKind::Truncated) } else { Ok(()) }
}

fn header_names_equal(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn in_form(form: &[Step], name: &[u8]) -> bool {
    form.iter().any(|step| match step {
        Step::One(of) | Step::Maybe(of) | Step::Many(of) => header_names_equal(of.as_bytes(), name),
        Step::SkipUnless(..) | Step::Free => false,
    })
}

/// Whether this is one of the security events.
pub(crate) fn is_security(event: &str) -> bool {
    EVENTS.iter().any(|(name, parts)| *name == event && matches!(parts.first(), Some(Security)))
}
