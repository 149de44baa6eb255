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
    /// Anything whose name is not in the form, each name once: for hints whose forms differ by version.
    Rest,
    /// Anything whose name is not in the form, repeats allowed: UserEvent's body.
    Free,
}
use Part::{Channel, Free, Many, Maybe, MaybeChannel, One, Rest};

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

const SECURITY: &[Part] = &[One("EventTV"), One("Severity"), One("Service"), One("EventVersion"), One("AccountID"),
    One("SessionID"), One("LocalAddress"), One("RemoteAddress")];

/// Event name, its own headers behind the preamble.
const EVENTS: &[(&str, &[Part])] = &[
    ("Newchannel", &[Channel("")]),
    ("Newstate", &[Channel("")]),
    ("Hangup", &[Channel(""), One("Cause"), One("Cause-txt"), Maybe("TechCause")]),
    ("HangupRequest", &[Channel(""), Maybe("Cause"), Maybe("TechCause")]),
    ("SoftHangupRequest", &[Channel(""), Maybe("Cause"), Maybe("TechCause")]),
    ("DialBegin", &[MaybeChannel(""), Channel("Dest"), One("DialString")]),
    ("DialState", &[MaybeChannel(""), Channel("Dest"), One("DialStatus"), Maybe("Forward")]),
    ("DialEnd", &[MaybeChannel(""), Channel("Dest"), One("DialStatus"), Maybe("Forward")]),
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
    ("FullyBooted", &[Maybe("Uptime"), Maybe("LastReload"), One("Status"), Maybe("Uptime"), Maybe("LastReload")]),
    ("Shutdown", &[One("Shutdown"), One("Restart")]),
    ("ContactStatus", &[One("URI"), One("ContactStatus"), One("AOR"), One("EndpointName"), Rest]),
    ("PeerStatus", &[One("ChannelType"), One("Peer"), One("PeerStatus"), Rest]),
    ("Registry", &[One("ChannelType"), Maybe("Username"), One("Domain"), One("Status"), Maybe("Cause")]),
    ("UserEvent", &[MaybeChannel(""), One("UserEvent"), Free]),
    ("FailedACL", &[Part::Security, Maybe("Module"), Maybe("ACLName"), Maybe("SessionTV")]),
];
