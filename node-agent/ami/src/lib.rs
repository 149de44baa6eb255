//! Asterisk Manager Interface: codec and client that treat every byte as chosen by a stranger.
//!
//! The way through it: [`Supervisor`] (or [`Session::connect`]) gives a [`Session`] and its [`Events`].
//! [`Session::watch`] a [`ChannelId`], then [`Session::originate`], then read the [`Watch`]; settle what
//! stays open with [`Session::channel_status`] and [`Session::db_get`] under one [`Incarnation`].
//!
//! What may be believed: answers, since their ActionIDs are random; events of a watched channel, since
//! its id is; nothing else (see `router.rs` for the argument and `schema.rs` for the forms).

mod action;
mod answer;
mod ask;
mod call_news;
mod config;
mod connect;
mod decoder;
mod event;
mod flight_record;
mod link;
mod list_form;
mod mailbox;
mod message;
mod names;
mod originate;
mod pending;
mod router;
mod schema;
mod session;
mod supervisor;
mod tamper;
mod watch;

pub use action::{ACTION_HEADERS_MAX, ACTION_LINE_MAX, Action, InvalidValue};
pub use answer::{ActionError, List, ListEnd, ListError, NotSent, Response, Unresolved};
pub use ask::{AskError, ChannelPresence, CoreStatus, HangupAnswer, Incarnation};
pub use call_news::{CallNews, Verdict};
pub use config::{ActionIds, ConnectConfig, Purpose, Secret, Tls};
pub use connect::ConnectError;
pub use decoder::{Beginning, Block, Decoder, Limits, OverBound};
pub use event::{Channel, DialStatus, Event};
pub use flight_record::{ChannelState, FLIGHT_RECORD_FAMILY, FlightPhase, FlightRecord, InvalidFlightRecord};
pub use link::CloseReason;
pub use message::{Header, Message, MessageKind};
pub use names::{
    AccountCode, ChannelId, ContextName, DbFamily, DbKey, DialDigits, EndpointName, Extension, InvalidName,
    VariableName, VariableValue,
};
pub use originate::{ADMITTED_BEFORE, EarlyMedia, HangupHandler, Originate, OriginateOutcome};
pub use schema::check_event;
pub use session::Session;
pub use supervisor::{BackOff, Connect, DownReason, LinkChange, Supervisor};
pub use tamper::{TamperCounters, TamperKind, Tampering};
pub use watch::{AlreadyWatched, EventItem, Events, Watch, WatchItem};
