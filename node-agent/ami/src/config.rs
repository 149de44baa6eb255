//! How to reach one Asterisk, as whom, for what, and within which times and bounds.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use crate::decoder::Limits;

/// A manager user's secret. `Debug` shows nothing, and the memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the secret over.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The source of ActionIDs: 128 bits each from a cryptographic generator, since an answer and an
/// OriginateResponse are believed by nothing else. Clones share the generator.
#[derive(Clone)]
pub struct ActionIds(Arc<Mutex<StdRng>>);

impl ActionIds {
    /// Seeded by the operating system; what programs use.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn from_os() -> Result<Self, std::io::Error> {
        let rng = StdRng::try_from_os_rng().map_err(std::io::Error::other)?;
        Ok(Self(Arc::new(Mutex::new(rng))))
    }

    /// From a seed that a test can print. Guessable: tests only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub(crate) fn next_id(&self) -> String {
        let mut id = [0; 16];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
        HEXLOWER.encode(&id)
    }
}

impl fmt::Debug for ActionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActionIds")
    }
}

/// What a session is for. Sessions are apart by purpose, so that the one that originates never hears
/// what strangers write to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Places calls; hears `call` events by name.
    Originate,
    /// Watches trunks; hears `system`.
    Observe,
    /// Collects security events; can change nothing.
    Security,
}

impl Purpose {
    /// For logs and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Originate => "originate",
            Self::Observe => "observe",
            Self::Security => "security",
        }
    }
}

/// TLS towards Asterisk's `tlsbindaddr` (5039).
#[derive(Clone)]
pub struct Tls {
    /// Roots and client certificate.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the certificate must hold.
    pub server_name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.server_name)
    }
}

/// Everything a connection needs. [`ConnectConfig::new`] sets the defaults.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// `host:port`; every address of the host is tried.
    pub address: String,
    /// Manager user.
    pub username: String,
    /// Its secret.
    pub secret: Secret,
    /// Plain TCP if absent: loopback only.
    pub tls: Option<Tls>,
    /// `Events:` of the login: classes such as `call` or `system,call`, `off` for none.
    pub events: String,
    /// For logs.
    pub purpose: Purpose,
    /// From the first SYN to the login's answer.
    pub connect_timeout: Duration,
    /// From a call of [`crate::Session::action`] to its answer; lists as a whole.
    pub action_timeout: Duration,
    /// Time between pings.
    pub ping_interval: Duration,
    /// A ping unanswered for so long ends the session.
    pub ping_timeout: Duration,
    /// The line must be silent for so long before an event counts as complete that no other block
    /// follows. Applies to events of no watch only. Asterisk writes an event and what a stranger made of
    /// its tail with one `write`, so the tail is a scheduling delay away on loopback, a lost segment's
    /// retransmission (200 ms on Linux) at worst elsewhere; hints may wait, and 50 ms is below any timer
    /// that acts on them.
    pub quiet: Duration,
    /// Most actions waiting for an answer; more wait in line, and their time-out is a `NotSent`.
    pub in_flight_max: usize,
    /// Most events kept for a slow reader of [`crate::Events`].
    pub events_max: usize,
    /// Most events kept for each [`crate::Watch`]; an Originate raises 19, unfiltered.
    pub watch_events_max: usize,
    /// Most items of one list.
    pub list_items_max: usize,
    /// Bounds of the decoder.
    pub limits: Limits,
    /// Where ActionIDs come from.
    pub ids: ActionIds,
}

impl ConnectConfig {
    /// The defaults: plain TCP, `call` events, 5 s to connect, 10 s per action, a ping every 5 s.
    #[must_use]
    pub fn new(
        address: impl Into<String>,
        username: impl Into<String>,
        secret: Secret,
        ids: ActionIds,
    ) -> Self {
        Self {
            address: address.into(),
            username: username.into(),
            secret,
            tls: None,
            events: "call".to_owned(),
            purpose: Purpose::Originate,
            connect_timeout: Duration::from_secs(5),
            action_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(5),
            ping_timeout: Duration::from_secs(5),
            quiet: Duration::from_millis(50),
            in_flight_max: 4096,
            events_max: 4096,
            watch_events_max: 64,
            list_items_max: 50_000,
            limits: Limits::default(),
            ids,
        }
    }
}
