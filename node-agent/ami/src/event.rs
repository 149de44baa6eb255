//! Events as types, once they have passed their form. `Other` keeps every header.
//!
//! Events are hints. What one claims about a node or a trunk (`Shutdown`, `ContactStatus`, `Registry`) is to
//! be confirmed by an action before it counts; what one claims about a channel counts only by way of a
//! [`crate::Watch`], whose id nobody outside can guess.

use crate::call_news::{self, CallNews};
use crate::flight_record::ChannelState;
use crate::message::{Message, MessageKind};
use crate::names::ChannelId;
use crate::schema;
use crate::tamper::TamperKind;

/// What every channel event tells of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Asterisk's name for it, such as `PJSIP/acme-0000002a`.
    pub name: String,
    /// Its state when the event was raised.
    pub state: ChannelState,
    /// Its id: ours, for channels that we originated.
    pub uniqueid: String,
    /// The id of the oldest channel it is connected with.
    pub linkedid: String,
}

/// An event that has the form which Asterisk gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A channel was made: an INVITE is about to leave.
    Newchannel(Channel),
    /// A channel's state changed: `Ringing` is a 180, `Up` an answer.
    Newstate(Channel),
    /// An INVITE goes out.
    DialBegin {
        /// The channel that dials.
        dest: Channel,
        /// Number and endpoint.
        dial_string: String,
    },
    /// The callee's side answered provisionally.
    DialState {
        /// The channel that dials.
        dest: Channel,
        /// What it said.
        status: DialStatus,
    },
    /// Dialling is over.
    DialEnd {
        /// The channel that dialled.
        dest: Channel,
        /// How.
        status: DialStatus,
    },
    /// A channel is gone.
    Hangup {
        /// The channel; its state tells whether it rang.
        channel: Channel,
        /// Q.850.
        cause: Option<u16>,
        /// SIP, from Asterisk 20.17 and 22.7 on; absent after a BYE.
        tech_cause: Option<u16>,
    },
    /// The far side wants the channel gone; comes before `Hangup`.
    HangupRequest {
        /// The channel.
        channel: Channel,
        /// Q.850.
        cause: Option<u16>,
        /// SIP.
        tech_cause: Option<u16>,
    },
    /// An asynchronous Originate is over. The reason tells nothing about the ending.
    OriginateResponse {
        /// Whether the channel was answered.
        success: bool,
        /// `Reason`, as it is: 0 for 486 and 503 alike.
        reason: Option<u16>,
        /// The channel's id; absent where no channel came to be.
        uniqueid: Option<String>,
    },
    /// Asterisk is ready.
    FullyBooted,
    /// Asterisk says that it ends. To be confirmed: a stranger can write this.
    Shutdown,
    /// Qualify found a contact up or down. To be confirmed.
    ContactStatus {
        /// The PJSIP endpoint.
        endpoint: String,
        /// `Reachable`, `Unreachable`, `NonQualified`, `Created`, `Removed`, `Updated`.
        status: String,
        /// Round trip of OPTIONS in microseconds.
        roundtrip_us: Option<u64>,
    },
    /// A registration changed. To be confirmed.
    Registry {
        /// The registrar, as a SIP URI.
        domain: String,
        /// `Registered`, `Rejected`, `Unregistered`, …
        status: String,
    },
    /// An endpoint's state changed. To be confirmed.
    PeerStatus {
        /// Such as `PJSIP/acme`.
        peer: String,
        /// `Reachable`, `Unreachable`, …
        status: String,
    },
    /// Our dialplan tells of a call; the event's channel is that very attempt.
    Call {
        /// The attempt.
        attempt: ChannelId,
        /// What happened.
        news: CallNews,
    },
    /// Raised by another dialplan.
    UserEvent {
        /// The dialplan's name for it.
        name: String,
        /// The channel's id, where a channel raised it.
        uniqueid: Option<String>,
        /// All headers.
        message: Message,
    },
    /// One of Asterisk's security events. May hold a credential (`ExpectedResponse`): `Debug` hides it.
    Security {
        /// `InvalidAccountID`, `ChallengeResponseFailed`, …
        name: String,
        /// All headers.
        message: Message,
    },
    /// Every other event, with all headers; its form was not checked.
    Other(Message),
}

/// `DialStatus`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialStatus {
    /// 180.
    Ringing,
    /// 183: whether it rings is unknown.
    Progress,
    /// 100-ish, on other technologies.
    Proceeding,
    /// 200.
    Answer,
    /// Busy.
    Busy,
    /// Not answered in time.
    NoAnswer,
    /// Canceled.
    Cancel,
    /// Congestion.
    Congestion,
    /// Channel unavailable.
    ChanUnavail,
    /// Any other word.
    Other(String),
}

impl DialStatus {
    fn parse(text: &str) -> Self {
        match text {
            "RINGING" => Self::Ringing,
            "PROGRESS" => Self::Progress,
            "PROCEEDING" => Self::Proceeding,
            "ANSWER" => Self::Answer,
            "BUSY" => Self::Busy,
            "NOANSWER" => Self::NoAnswer,
            "CANCEL" => Self::Cancel,
            "CONGESTION" => Self::Congestion,
            "CHANUNAVAIL" => Self::ChanUnavail,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Event {
    /// Judges the form and reads the values.
    ///
    /// # Errors
    /// The kind of tampering that the block shows.
    pub fn read(message: Message) -> Result<Self, (TamperKind, Message)> {
        let name = match message.kind() {
            MessageKind::Event(name) => name.into_owned(),
            MessageKind::Response(_) | MessageKind::Neither => {
                return Err((TamperKind::ForeignHead, message));
            }
        };
        if let Err(kind) = schema::check_event(&name, &message) {
            return Err((kind, message));
        }
        if name == "UserEvent"
            && let Some(read) = call_news::read(&message)
        {
            return match read {
                Some((attempt, _)) if message.get("Uniqueid") != Some(attempt.as_str().as_bytes()) => {
                    Err((TamperKind::Mismatched, message))
                }
                Some((attempt, news)) => Ok(Self::Call { attempt, news }),
                None => Err((TamperKind::BadValue, message)),
            };
        }
        match typed(&name, &message) {
            Some(Some(event)) => Ok(event),
            Some(None) => Err((TamperKind::BadValue, message)),
            None if schema::is_security(&name) => Ok(Self::Security { name, message }),
            None => Ok(Self::Other(message)),
        }
    }

    /// The id of the channel that the event is about, if it is about one.
    #[must_use]
    pub fn uniqueid(&self) -> Option<&str> {
        match self {
            Self::Newchannel(channel)
            | Self::Newstate(channel)
            | Self::Hangup { channel, .. }
            | Self::HangupRequest { channel, .. } => Some(&channel.uniqueid),
            Self::DialBegin { dest, .. } | Self::DialState { dest, .. } | Self::DialEnd { dest, .. } => {
                Some(&dest.uniqueid)
            }
            Self::Call { attempt, .. } => Some(attempt.as_str()),
            Self::OriginateResponse { uniqueid, .. } | Self::UserEvent { uniqueid, .. } => {
                uniqueid.as_deref()
            }
            Self::FullyBooted
            | Self::Shutdown
            | Self::ContactStatus { .. }
            | Self::Registry { .. }
            | Self::PeerStatus { .. }
            | Self::Security { .. }
            | Self::Other(_) => None,
        }
    }
}

/// `None`: no type for this name. `Some(None)`: a value cannot be what its header says.
fn typed(name: &str, message: &Message) -> Option<Option<Event>> {
    let text = |header: &str| message.text(header).map(|value| value.into_owned());
    Some(match name {
        "Newchannel" => channel(message, "").map(Event::Newchannel),
        "Newstate" => channel(message, "").map(Event::Newstate),
        "Hangup" => causes(message).and_then(|(cause, tech_cause)| {
            channel(message, "").map(|channel| Event::Hangup { channel, cause, tech_cause })
        }),
        "HangupRequest" => causes(message).and_then(|(cause, tech_cause)| {
            channel(message, "").map(|channel| Event::HangupRequest { channel, cause, tech_cause })
        }),
        "DialBegin" => channel(message, "Dest")
            .zip(text("DialString"))
            .map(|(dest, dial_string)| Event::DialBegin { dest, dial_string }),
        "DialState" => dial(message).map(|(dest, status)| Event::DialState { dest, status }),
        "DialEnd" => dial(message).map(|(dest, status)| Event::DialEnd { dest, status }),
        "OriginateResponse" => originate_response(message),
        "FullyBooted" => Some(Event::FullyBooted),
        "Shutdown" => Some(Event::Shutdown),
        "ContactStatus" => text("EndpointName").zip(text("ContactStatus")).map(|(endpoint, status)| {
            let roundtrip_us = text("RoundtripUsec").and_then(|value| value.parse().ok());
            Event::ContactStatus { endpoint, status, roundtrip_us }
        }),
        "Registry" => {
            text("Domain").zip(text("Status")).map(|(domain, status)| Event::Registry { domain, status })
        }
        "PeerStatus" => {
            text("Peer").zip(text("PeerStatus")).map(|(peer, status)| Event::PeerStatus { peer, status })
        }
        "UserEvent" => text("UserEvent").map(|name| Event::UserEvent {
            name,
            uniqueid: text("Uniqueid"),
            message: message.clone(),
        }),
        _ => return None,
    })
}

fn channel(message: &Message, prefix: &str) -> Option<Channel> {
    let text = |header: &str| message.text(&format!("{prefix}{header}")).map(|value| value.into_owned());
    Some(Channel {
        name: text("Channel")?,
        state: ChannelState::parse(&text("ChannelStateDesc")?)?,
        uniqueid: text("Uniqueid")?,
        linkedid: text("Linkedid")?,
    })
}

fn dial(message: &Message) -> Option<(Channel, DialStatus)> {
    channel(message, "Dest").zip(message.text("DialStatus").map(|status| DialStatus::parse(&status)))
}

/// Absent is fine, anything but a small number is not.
fn causes(message: &Message) -> Option<(Option<u16>, Option<u16>)> {
    Some((number(message, "Cause")?, number(message, "TechCause")?))
}

fn number(message: &Message, header: &str) -> Option<Option<u16>> {
    match message.text(header) {
        None => Some(None),
        Some(text) if text.is_empty() => Some(None),
        Some(text) if text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok().map(Some)
        }
        Some(_) => None,
    }
}

fn originate_response(message: &Message) -> Option<Event> {
    let success = match message.text("Response")?.as_ref() {
        "Success" => true,
        "Failure" => false,
        _ => return None,
    };
    let reason = number(message, "Reason")?;
    let uniqueid =
        message.text("Uniqueid").map(|id| id.into_owned()).filter(|id| id != "<null>" && !id.is_empty());
    Some(Event::OriginateResponse { success, reason, uniqueid })
}
