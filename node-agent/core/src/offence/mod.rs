//! What an offence is: somebody at an address did something that honest phones seldom do.
//!
//! The way through it: [`security_event`] reads what Asterisk's manager interface tells, [`crate::patterns`] what
//! log files tell; both give a [`Finding`], which [`crate::rules`] weighs. An address stands in a finding only
//! if Asterisk (or the logger) itself wrote it.

pub mod once;
pub mod security_event;
mod source;

use serde::{Deserialize, Serialize};
pub use source::{Remote, Source};

use crate::words::words;

words! {
    /// What somebody did.
    Kind {
        /// Named an account that does not exist.
        InvalidAccount = "invalid_account",
        /// Answered a challenge wrongly: the account exists.
        ChallengeResponseFailed = "challenge_response_failed",
        /// Gave a wrong password in clear: the account exists.
        InvalidPassword = "invalid_password",
        /// A login failed, and the log does not say whether the account exists.
        LoginFailed = "login_failed",
        /// Came from an address that an access list refuses.
        FailedAcl = "failed_acl",
        /// Asked for what its account may not do.
        RequestNotAllowed = "request_not_allowed",
        /// Sent what is no proper request.
        RequestBadFormat = "request_bad_format",
        /// Asked for what is not supported.
        RequestNotSupported = "request_not_supported",
        /// Wanted to log in by a method that is switched off.
        AuthMethodNotAllowed = "auth_method_not_allowed",
        /// Came over a transport that its account may not use.
        InvalidTransport = "invalid_transport",
        /// Came from another address than at its login.
        UnexpectedAddress = "unexpected_address",
        /// Holds more sessions than it may.
        SessionLimit = "session_limit",
        /// Met a PBX that was short of memory: no fault of its own.
        MemoryLimit = "memory_limit",
        /// Met a PBX that was overloaded: no fault of its own.
        LoadAverageLimit = "load_average_limit",
        /// Asked a web server for what only scanners ask for.
        Probe = "probe",
        /// Wrote line breaks into a field, to forge what is told of it. No honest phone does.
        Tampering = "tampering",
    }
}

words! {
    /// What carried it.
    Transport {
        /// The source address may be forged.
        Udp = "udp",
        /// A handshake proves the source address.
        Tcp = "tcp",
        /// TCP with TLS.
        Tls = "tls",
        /// WebSocket.
        Ws = "ws",
        /// WebSocket over TLS.
        Wss = "wss",
        /// Not told: taken as forgeable.
        Unknown = "unknown",
    }
}

impl Transport {
    /// Whether somebody may have written another's source address.
    #[must_use]
    pub const fn is_forgeable(self) -> bool {
        match self {
            Self::Udp | Self::Unknown => true,
            Self::Tcp | Self::Tls | Self::Ws | Self::Wss => false,
        }
    }
}

/// The longest account name that is kept, in bytes.
pub const ACCOUNT_BYTES_MAX: usize = 64;

/// The account that somebody named: a stranger's text, made harmless. For people and for counting alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Account(String);

impl Account {
    /// Cuts it and replaces everything but printable ASCII; nothing is left of an empty one.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let kept = bytes.iter().take(ACCOUNT_BYTES_MAX);
        let text: String =
            kept.map(|&b| if b.is_ascii_graphic() || b == b' ' { char::from(b) } else { '?' }).collect();
        (!text.is_empty() && text != "<unknown>").then_some(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One offence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// What.
    pub kind: Kind,
    /// Who, as far as the network tells.
    pub source: Source,
    /// By what.
    pub transport: Transport,
    /// Which account was named.
    pub account: Option<Account>,
}

/// A login that succeeded: good evidence for its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// Who.
    pub source: Source,
    /// By what.
    pub transport: Transport,
    /// Which account.
    pub account: Option<Account>,
}

/// What one event or log line amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Somebody did something.
    Offence(Offence),
    /// Somebody proved who he is.
    Success(Success),
    /// Says nothing for or against anybody.
    Neutral,
    /// Something happened that counts against no address.
    Nobody(Nobody),
}

words! {
    /// Why it counts against no address.
    Nobody {
        /// A stranger's text broke it, and Asterisk's own tail is not there in one piece.
        NoTail = "no_tail",
        /// More foreign text than Asterisk lets through: how it cuts is not as known, so nothing is believed.
        TooMuchText = "too_much_text",
        /// What stands where the address belongs is none.
        NoAddress = "no_address",
        /// An address that nobody outside has, or that everybody on the link shares (link-local).
        NotBannable = "not_bannable",
        /// A log line that can be read in several ways: a stranger may have chosen the address.
        Ambiguous = "ambiguous",
        /// Of a part of Asterisk whose events are not known well enough.
        UnknownService = "unknown_service",
    }
}
