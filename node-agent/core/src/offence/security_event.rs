//! From a security event of AMI, whole or broken by a stranger, to what it counts for and against whom.
//!
//! **What a stranger can write.** In these events two fields are his: `AccountID`, which Asterisk takes from the
//! percent-decoded user part of his From and which may therefore hold line breaks, and `SessionID`, his Call-ID,
//! which cannot (neither can anything of an Authorization header). Asterisk 13 to 22 copy that user part into
//! [`STRANGER_BYTES_MAX`] bytes (`pjsip_distributor.c` holds it in an array of `AST_UUID_STR_LEN`).
//!
//! **Why the tail can be told.** Behind `AccountID` Asterisk writes `SessionID`, `LocalAddress` and
//! `RemoteAddress`, always in this order and in the same block as the end of his text. To write these three
//! himself with an address in them a stranger needs 59 bytes at the very least, and has 36. So wherever the three
//! stand together in one block, Asterisk wrote them, whatever stands before; and his bytes are counted: a block
//! that holds more of them than Asterisk is known to let through counts against nobody, for then nothing is
//! known of how it cuts.
//!
//! `ExpectedResponse` is a credential; nothing here reads it.

use node_agent_ami::{Event, EventItem, Message, Tampering};

use super::{Account, Finding, Kind, Nobody, Offence, Remote, Source, Success};

/// The most bytes of his own that a stranger gets into an event, as Asterisk 16.28 and 22.10.1 were measured to
/// cut them.
pub const STRANGER_BYTES_MAX: usize = 36;

/// The tail that Asterisk writes behind a stranger's text.
const TAIL: [&[u8]; 3] = [b"SessionID", b"LocalAddress", b"RemoteAddress"];

/// What the form of every security event has before the stranger's text, whatever stands between.
const HEAD: [&[u8]; 5] = [b"Privilege", b"EventTV", b"Severity", b"Service", b"EventVersion"];

/// What the forms of security events put behind the tail.
const BEHIND: [&[u8]; 14] = [
    b"Module",
    b"SessionTV",
    b"ACLName",
    b"RequestType",
    b"RequestParams",
    b"AccountID",
    b"AuthMethod",
    b"UsingPassword",
    b"ExpectedAddress",
    b"Challenge",
    b"Response",
    b"ExpectedResponse",
    b"ReceivedChallenge",
    b"ReceivedHash",
];

/// What a session that receives class `security` alone says in one item.
#[must_use]
pub fn finding(item: &EventItem) -> Finding {
    match item {
        EventItem::Event(Event::Security { name, message }) => whole(name, message),
        // A name without a known form, chosen by a stranger, whose tail is Asterisk's.
        EventItem::Event(Event::Other(message)) if tail(message).is_some() => broken(message),
        EventItem::Tampered(tampering) => tampered(tampering),
        EventItem::Event(_) | EventItem::Lost(_) | EventItem::Closed(_) => Finding::Neutral,
    }
}

/// An event that has the form which Asterisk gives it.
#[must_use]
pub fn whole(name: &str, message: &Message) -> Finding {
    let kind = match name {
        "ChallengeSent" => return Finding::Neutral,
        // Without a password nothing was proven, and by UDP not even the address.
        "SuccessfulAuth" if message.get("UsingPassword") != Some(b"1") => return Finding::Neutral,
        "SuccessfulAuth" => None,
        // An account that does not exist has an event of its own; this one comes with it.
        "ChallengeResponseFailed" if message.get("AccountID") == Some(b"<unknown>") => {
            return Finding::Neutral;
        }
        "InvalidAccountID" => Some(Kind::InvalidAccount),
        "ChallengeResponseFailed" => Some(Kind::ChallengeResponseFailed),
        "InvalidPassword" => Some(Kind::InvalidPassword),
        "FailedACL" => Some(Kind::FailedAcl),
        "RequestNotAllowed" => Some(Kind::RequestNotAllowed),
        "RequestBadFormat" => Some(Kind::RequestBadFormat),
        "RequestNotSupported" => Some(Kind::RequestNotSupported),
        "AuthMethodNotAllowed" => Some(Kind::AuthMethodNotAllowed),
        "InvalidTransport" => Some(Kind::InvalidTransport),
        "UnexpectedAddress" => Some(Kind::UnexpectedAddress),
        "SessionLimit" => Some(Kind::SessionLimit),
        "MemoryLimit" => Some(Kind::MemoryLimit),
        "LoadAverageLimit" => Some(Kind::LoadAverageLimit),
        _ => return Finding::Neutral,
    };
    if !is_known_service(message) {
        return Finding::Nobody(Nobody::UnknownService);
    }
    let (source, transport) = match who(message.get("RemoteAddress").unwrap_or_default()) {
        Ok(who) => who,
        Err(nobody) => return Finding::Nobody(nobody),
    };
    let account = message.get("AccountID").and_then(Account::of);
    match kind {
        Some(kind) => Finding::Offence(Offence { kind, source, transport, account }),
        None => Finding::Success(Success { source, transport, account }),
    }
}

/// A block into which a stranger wrote: an offence of the address in the tail if Asterisk's own tail is there.
#[must_use]
pub fn tampered(tampering: &Tampering) -> Finding {
    match (&tampering.message, tampering.kind) {
        (None, _) => Finding::Nobody(Nobody::NoTail),
        // Whole in form, but something foreign follows: nothing in it is sure to be Asterisk's.
        (Some(_), node_agent_ami::TamperKind::BrokenBehind) => Finding::Nobody(Nobody::NoTail),
        (Some(message), _) => broken(message),
    }
}

fn broken(message: &Message) -> Finding {
    let Some(at) = tail(message) else { return Finding::Nobody(Nobody::NoTail) };
    if own_head(message).is_some() && !is_known_service(message) {
        return Finding::Nobody(Nobody::UnknownService);
    }
    if stranger_bytes(message, at) > STRANGER_BYTES_MAX {
        return Finding::Nobody(Nobody::TooMuchText);
    }
    let value =
        |index: usize| message.headers().get(index).map(node_agent_ami::Header::value).unwrap_or_default();
    match Remote::parse(value(at + 1)).and_then(|_| who(value(at + 2))) {
        Ok((source, transport)) => {
            Finding::Offence(Offence { kind: Kind::Tampering, source, transport, account: None })
        }
        Err(nobody) => Finding::Nobody(nobody),
    }
}

/// Of chan_sip and others it is not known how much of a stranger's text they let through.
fn is_known_service(message: &Message) -> bool {
    matches!(message.get("Service"), Some(b"PJSIP" | b"AMI"))
}

fn who(remote: &[u8]) -> Result<(Source, super::Transport), Nobody> {
    let remote = Remote::parse(remote)?;
    let source = Source::of(remote.address).ok_or(Nobody::NotBannable)?;
    Ok((source, remote.transport))
}

/// Where Asterisk's tail begins: the three together, once, with nothing behind them that does not belong there.
fn tail(message: &Message) -> Option<usize> {
    let headers = message.headers();
    let is_tail =
        |window: &[node_agent_ami::Header]| window.iter().zip(TAIL).all(|(h, name)| h.name() == name);
    let mut places = headers.windows(TAIL.len()).enumerate().filter(|(_, window)| is_tail(window));
    let (at, _) = places.next()?;
    let is_only = places.next().is_none();
    let behind = headers.iter().skip(at + TAIL.len()).all(|header| BEHIND.contains(&header.name()));
    (is_only && behind).then_some(at)
}

/// At least so many bytes before the tail are a stranger's.
fn stranger_bytes(message: &Message, tail_at: usize) -> usize {
    let before = message.headers().get(..tail_at).unwrap_or_default();
    let own = own_head(message).map_or(0, |account_at| account_at + 1);
    let account =
        own.checked_sub(1).and_then(|last| before.get(last)).map_or(0, |header| header.value().len());
    // Each line took its name, a colon, its value and a line feed; a line without a colon at least a line feed.
    let lines = before.iter().skip(own).map(|header| header.name().len() + 1 + header.value().len() + 1);
    account + lines.sum::<usize>() + message.malformed_lines()
}

/// Where `AccountID` is, if all that comes before it is Asterisk's: five headers are more than a stranger can write.
fn own_head(message: &Message) -> Option<usize> {
    let headers = message.headers();
    let account_at = headers.iter().position(|header| header.name() == b"AccountID")?;
    let mut names = headers.iter().take(account_at).map(node_agent_ami::Header::name);
    let is_event = names.next() == Some(b"Event");
    (is_event && HEAD.iter().all(|wanted| names.any(|name| name == *wanted))).then_some(account_at)
}

#[cfg(test)]
#[path = "injection_tests.rs"]
mod injection_tests;
