//! Operators who have signed in to the console. Only hashes of what their browsers hold are kept.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, KeyId};
use time::{Duration, OffsetDateTime};

use crate::{StoreError, calls::Actor, keys::Key};

/// Most sessions of a key: the next one ends the oldest.
pub const SESSIONS_MAX: u16 = 20;
/// How long a session lasts, however much it is used.
pub const SESSION_LASTS: Duration = Duration::hours(12);
/// How long a session lasts that is not used.
pub const SESSION_IDLE_MAX: Duration = Duration::hours(1);
/// How often a session's use is written down at most.
pub const SESSION_SEEN_EVERY: Duration = Duration::MINUTE;

/// A session to be opened.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// SHA-256 of what the browser holds (256 random bits need no slow hash).
    pub token_sha256: [u8; 32],
    /// The operator's key that was shown.
    pub key: KeyId,
    /// Now.
    pub at: OffsetDateTime,
}

/// A session as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The key that opened it, as it is now.
    pub key: Key,
    /// About when it was used last.
    pub seen_at: OffsetDateTime,
    /// When it ends, however much it is used.
    pub ends_at: OffsetDateTime,
}

impl Session {
    /// Whether its time is over. Whether its key still opens anything is the key's to tell.
    #[must_use]
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        now >= self.ends_at || now >= self.seen_at + SESSION_IDLE_MAX
    }
}

/// Sessions of the console.
#[async_trait]
pub trait SessionStore {
    /// Opens a session, with its audit row, forgets those whose time is over, and ends the key's oldest where it has
    /// [`SESSIONS_MAX`]. `false`: it is no living operator's key; nothing was written.
    async fn open_session(
        &self,
        session: NewSession,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError>;
    /// The session with this hash, over or not.
    async fn session(&self, token_sha256: &[u8; 32]) -> Result<Option<Session>, StoreError>;
    /// Notes that a session was used; an earlier moment than the noted one changes nothing.
    async fn see_session(&self, token_sha256: &[u8; 32], at: OffsetDateTime) -> Result<(), StoreError>;
    /// Ends a session, with its audit row. `false`: there is none.
    async fn end_session(
        &self,
        token_sha256: &[u8; 32],
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError>;
}
