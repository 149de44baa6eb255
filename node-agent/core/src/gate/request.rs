//! An action of the control plane, parsed into types, and written anew for Asterisk.

use node_agent_ami::{EndpointName, Message};

use super::{originate::Originate, refusal::RefusalKind};
use crate::attempt_id::AttemptId;

/// Longest ActionID; the client's have 32 characters.
const ACTION_ID_MAX: usize = 64;
/// The family of the flight recorder.
const FAMILY: &[u8] = b"ringward";
/// Longest name of an AOR or a contact.
const OBJECT_MAX: usize = 128;

/// Correlates an answer. Letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ActionId(String);

impl ActionId {
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let fits = (1..=ACTION_ID_MAX).contains(&value.len()) && value.iter().all(word);
        fits.then(|| Self(String::from_utf8_lossy(value).into_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a Getvar asks: the parts of a trunk's configuration that its check reads, and no secret of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// `PJSIP_ENDPOINT(name,aors)`.
    Aors(EndpointName),
    /// `PJSIP_ENDPOINT(name,outbound_proxy)`.
    OutboundProxy(EndpointName),
    /// `PJSIP_AOR(name,contact)`.
    Contacts(String),
    /// `PJSIP_CONTACT(name,uri)`.
    Uri(String),
}

impl Question {
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (function, rest) = text.split_once('(')?;
        let (object, field) = rest.strip_suffix(')')?.split_once(',')?;
        match (function, field) {
            ("PJSIP_ENDPOINT", "aors") => EndpointName::parse(object).ok().map(Self::Aors),
            ("PJSIP_ENDPOINT", "outbound_proxy") => EndpointName::parse(object).ok().map(Self::OutboundProxy),
            ("PJSIP_AOR", "contact") => is_object(object).then(|| Self::Contacts(object.to_owned())),
            ("PJSIP_CONTACT", "uri") => is_object(object).then(|| Self::Uri(object.to_owned())),
            _ => None,
        }
    }

    fn variable(&self) -> String {
        match self {
            Self::Aors(endpoint) => format!("PJSIP_ENDPOINT({endpoint},aors)"),
            Self::OutboundProxy(endpoint) => format!("PJSIP_ENDPOINT({endpoint},outbound_proxy)"),
            Self::Contacts(aor) => format!("PJSIP_AOR({aor},contact)"),
            Self::Uri(contact) => format!("PJSIP_CONTACT({contact},uri)"),
        }
    }
}

/// A name that can stand in a function's argument and mean nothing else there.
pub(super) fn is_object(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b':' | b'+');
    (1..=OBJECT_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// An action that is on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Login,
    Logoff,
    Ping,
    CoreStatus,
    Status(AttemptId),
    Hangup { attempt: AttemptId, cause: u8 },
    DbGet(AttemptId),
    Getvar(Question),
    Originate(Box<Originate>),
}

/// The ActionID, where one can be told at all, and what was asked or why it is refused.
pub(super) fn parse(message: &Message) -> (Option<ActionId>, Result<Request, RefusalKind>) {
    let headers = message.headers();
    let second = headers.get(1).filter(|header| header.name() == b"ActionID");
    let id = second.and_then(|header| ActionId::parse(header.value()));
    let first = headers.first().filter(|header| header.name() == b"Action");
    let (Some(action), Some(_), 0) = (first, &id, message.malformed_lines()) else {
        return (id, Err(RefusalKind::Malformed));
    };
    // Bare CR, NUL and whatever a terminal or a C string would take for more than a character.
    let plain = |bytes: &[u8]| bytes.iter().all(|b| (b' '..=b'~').contains(b));
    if !headers.iter().all(|header| plain(header.name()) && plain(header.value())) {
        return (id, Err(RefusalKind::Malformed));
    }
    let fields = Fields { message };
    let request = match action.value() {
        b"Login" => fields.only(&["Username", "Secret", "Events"]).map(|()| Request::Login),
        b"Logoff" => fields.only(&[]).map(|()| Request::Logoff),
        b"Ping" => fields.only(&[]).map(|()| Request::Ping),
        b"CoreStatus" => fields.only(&[]).map(|()| Request::CoreStatus),
        b"Status" => fields.only(&["Channel"]).and_then(|()| fields.attempt("Channel")).map(Request::Status),
        b"Hangup" => fields.hangup(),
        b"DBGet" => fields.db_get(),
        b"Getvar" => fields.only(&["Variable"]).and_then(|()| {
            Question::parse(fields.one("Variable")?).map(Request::Getvar).ok_or(RefusalKind::NotOurs)
        }),
        b"Originate" => Originate::parse(&fields).map(|originate| Request::Originate(Box::new(originate))),
        _ => Err(RefusalKind::UnknownAction),
    };
    (id, request)
}

/// The headers behind `Action` and `ActionID`.
pub(super) struct Fields<'a> {
    message: &'a Message,
}

impl<'a> Fields<'a> {
    /// Names are compared in exact case: the client writes them so, and nobody else has a claim to leniency.
    pub(super) fn only(&self, allowed: &[&str]) -> Result<(), RefusalKind> {
        for (at, header) in self.message.headers().iter().enumerate().skip(2) {
            if header.is("Application") || header.is("Data") {
                return Err(RefusalKind::Application);
            }
            let Some(name) = allowed.iter().find(|name| name.as_bytes() == header.name()) else {
                let again = self
                    .message
                    .headers()
                    .iter()
                    .take(at)
                    .any(|h| h.name().eq_ignore_ascii_case(header.name()));
                return Err(if again { RefusalKind::RepeatedHeader } else { RefusalKind::UnknownHeader });
            };
            if *name != "Variable" && self.message.all(name).count() > 1 {
                return Err(RefusalKind::RepeatedHeader);
            }
        }
        Ok(())
    }

    pub(super) fn one(&self, name: &str) -> Result<&'a [u8], RefusalKind> {
        self.message.get(name).ok_or(RefusalKind::MissingHeader)
    }

    pub(super) fn maybe(&self, name: &str) -> Option<&'a [u8]> {
        self.message.get(name)
    }

    pub(super) fn all(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.message.all(name)
    }

    /// A number without sign, blanks or leading zeros.
    pub(super) fn number(&self, name: &str, max: u32) -> Result<u32, RefusalKind> {
        number(self.one(name)?).filter(|value| *value <= max).ok_or(RefusalKind::BadValue)
    }

    pub(super) fn attempt(&self, name: &str) -> Result<AttemptId, RefusalKind> {
        AttemptId::parse(self.one(name)?).map_err(|_| RefusalKind::NotOurs)
    }

    fn hangup(&self) -> Result<Request, RefusalKind> {
        self.only(&["Channel", "Cause"])?;
        let attempt = self.attempt("Channel")?;
        let cause = u8::try_from(self.number("Cause", 127)?).map_err(|_| RefusalKind::BadValue)?;
        Ok(Request::Hangup { attempt, cause })
    }

    fn db_get(&self) -> Result<Request, RefusalKind> {
        self.only(&["Family", "Key"])?;
        if self.one("Family")? != FAMILY {
            return Err(RefusalKind::NotOurs);
        }
        self.attempt("Key").map(Request::DbGet)
    }
}

pub(super) fn number(text: &[u8]) -> Option<u32> {
    let digits = (1..=10).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let canonical = text.len() == 1 || text.first() != Some(&b'0');
    std::str::from_utf8(text).ok().filter(|_| digits && canonical)?.parse().ok()
}

impl Request {
    /// The bytes for Asterisk, written from the types. `None` for what the gate answers itself.
    pub(super) fn encode(&self, id: &ActionId) -> Option<Vec<u8>> {
        let (name, headers): (&str, Vec<(&str, String)>) = match self {
            Self::Login | Self::Logoff => return None,
            Self::Ping => ("Ping", Vec::new()),
            Self::CoreStatus => ("CoreStatus", Vec::new()),
            Self::Status(attempt) => ("Status", vec![("Channel", attempt.to_string())]),
            Self::Hangup { attempt, cause } => {
                ("Hangup", vec![("Channel", attempt.to_string()), ("Cause", cause.to_string())])
            }
            Self::DbGet(attempt) => {
                ("DBGet", vec![("Family", "ringward".to_owned()), ("Key", attempt.to_string())])
            }
            Self::Getvar(question) => ("Getvar", vec![("Variable", question.variable())]),
            Self::Originate(originate) => ("Originate", originate.headers()),
        };
        let own = [("Action", name.to_owned()), ("ActionID", id.as_str().to_owned())];
        Some(Message::from_pairs(own.into_iter().chain(headers)).encode())
    }
}
