//! What node agent and control plane say to each other.
//!
//! The agent dials out to every replica's agents' door, with a certificate of its own:
//!
//! | Address | What for |
//! |---|---|
//! | `POST` [`JOIN_PATH`] | a [`JoinRequest`] with a token's secret gets the node its first certificate; the only address that takes no client certificate |
//! | `POST` [`RENEW_PATH`] | a [`RenewRequest`] gets the next one |
//! | `GET` [`LINK_PATH`] | the control stream: WebSocket, one JSON [`Up`] or [`Down`] per text message |
//! | `GET` [`audio_path`] | a sound that [`Down::PlaceAudio`] asked to place: a WAV |
//! | `GET` [`ami_path`] | an AMI stream: WebSocket, binary messages are bytes of AMI, their borders mean nothing |
//!
//! The first message up is [`Hello`], the first down is [`Welcome`] or [`Refused`]. Then two kinds of
//! messages. *State* ([`Observations`] up, [`Policy`] down): the latest snapshot counts, revisions only grow,
//! nothing is replayed, and observations come at changes and whole every [`HEARTBEAT`]. *Facts* up: each has
//! an id and is sent again on every new link until an [`Down::Ack`] names it. One message of facts is under way
//! at a time: the next goes up when every fact of the last is acknowledged, so that a full spool takes no more
//! of the other side than it wants to give.
//!
//! Attempts that have left something on the node, a flight record or a channel, are asked about ([`Up::Attempts`])
//! as long as it is there, and settled ones cleared away: neither side has to remember what it told the other.
//!
//! A sound is asked for when a call is about to play it ([`Down::PlaceAudio`]), every time anew: the agent answers at
//! once where it has it, and else fetches it first. Neither side has to remember what the other has.
//!
//! The fleet's bans ([`Down::Bans`]) go to an agent that says up to which revision it holds them ([`Up::Bans`]): what
//! changed since then, in pages, the next when the last is taken. See [`bans`].
//!
//! On an AMI stream the agent is a gate and logs in by itself: it sends Asterisk's banner, answers the control
//! plane's `Login` (whose user and secret are [`AMI_LINK_USER`] and mean nothing) with its own session's
//! answer, and admits what its policy admits.
//!
//! Older and newer work together: unknown members are ignored, an unknown kind of message is skipped and
//! counted ([`Decoded::Unknown`]), unknown words in a set read as its `Unknown`. Every list and every text
//! has a bound, and what is beyond it is refused as [`Malformed`].

pub mod bans;
mod bounded;
mod fact;
mod gate;
mod hello;
mod join;
mod message;
mod observations;
mod policy;
pub mod sounds;
pub mod tls;
mod token;

use std::time::Duration;

use controlplane_core::{ids::StreamId, sound::SoundHash};

pub use self::{
    bans::{
        BANS_PER_MESSAGE, BanBy, BanChanges, BanLifted, BanMade, BanPage, BanRefused, BansHeld, FleetAllow,
        FleetBan, OffenceTally, TamperingSeen,
    },
    bounded::{List, OverBound, Text},
    fact::{FACT_BODY_MAX, FACTS_PER_MESSAGE, Fact, FactBody, fact_kind},
    gate::BarAnswer,
    hello::{Capabilities, Capability, Hello, PROTOCOL, PROTOCOL_OLDEST, RefusalCode, Refused, Welcome},
    join::{JoinRequest, JoinResponse, RenewRequest},
    message::{ATTEMPTS_PER_MESSAGE, Decoded, Down, MESSAGE_MAX, Malformed, Up, decode, encode},
    observations::{
        AmiState, Asterisk, Contact, ContactStatus, EndpointSeen, FindingSeen, FirewallSeen, FirewallState,
        GateCounts, Host, Observations, Registration, RegistrationStatus, Spool,
    },
    policy::{CarrierNets, Hardening, NETS_MAX, NumberRule, Policy, TrunkPolicy},
    token::{InvalidToken, JoinToken, PlaneUrl, TokenSecret},
};

/// Where a node asks for its first certificate.
pub const JOIN_PATH: &str = "/agents/v1/join";
/// Where a node asks for its next certificate.
pub const RENEW_PATH: &str = "/agents/v1/renew";
/// The control stream.
pub const LINK_PATH: &str = "/agents/v1/link";
/// Between two whole snapshots of observations.
pub const HEARTBEAT: Duration = Duration::from_secs(2);
/// Three heartbeats missed: the link is taken for dead by either side (both send something at each
/// [`HEARTBEAT`]: the agent its observations, the control plane a WebSocket ping).
pub const SILENCE_MAX: Duration = Duration::from_secs(7);
/// How long a node's certificate lasts.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// The name in the control plane's certificate, whatever address it is reached by: its CA is its own, so that
/// the name has to tell it from a node and from nothing else.
pub const SERVER_NAME: &str = "control-plane.ringward.internal";
/// User and secret of the `Login` on an AMI stream. The gate takes any, and puts its own in their place.
pub const AMI_LINK_USER: &str = "ringward-link";
/// Largest binary message on an AMI stream.
pub const AMI_CHUNK_MAX: usize = 64 * 1024;

/// The address of a sound. Only of one that [`Down::PlaceAudio`] asks this node to place, and while it does.
#[must_use]
pub fn audio_path(sound: &SoundHash) -> String {
    format!("/agents/v1/audio/{sound}")
}

/// The address of an AMI stream, which the agent dials when [`Down::OpenAmi`] asks for it.
#[must_use]
pub fn ami_path(stream: &StreamId) -> String {
    format!("/agents/v1/ami/{stream}")
}
