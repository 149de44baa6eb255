//! Sounds: customers' recordings, and what texts became when they were spoken.
//!
//! A sound is kept once, named by its hash, however many recordings and texts it is; it goes when none is left.

use std::sync::Arc;

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, OrgId, RecordingId},
    sound::SoundHash,
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// A sound with its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// The hash of `wav`.
    pub sha256: SoundHash,
    /// A WAV of 8 kHz, mono, 16 bits.
    pub wav: Arc<[u8]>,
    /// How long it plays, in ms.
    pub length_ms: u32,
}

/// A customer's recording, without its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Its id.
    pub id: RecordingId,
    /// Whose.
    pub org: OrgId,
    /// Which sound.
    pub sha256: SoundHash,
    /// Length of the sound's file.
    pub bytes: u64,
    /// How long it plays, in ms.
    pub length_ms: u32,
    /// When it was uploaded.
    pub created_at: OffsetDateTime,
    /// When it was deleted: it is shown no more, and calls accepted before may still play it.
    pub deleted_at: Option<OffsetDateTime>,
}

/// A recording about to be kept.
#[derive(Debug, Clone)]
pub struct NewRecording {
    /// Its id.
    pub id: RecordingId,
    /// Whose.
    pub org: OrgId,
    /// What.
    pub sound: Sound,
    /// Now.
    pub at: OffsetDateTime,
    /// Most bytes of all recordings of the organisation together, those not yet erased among them.
    pub org_bytes_max: u64,
    /// Most bytes of the recordings of all organisations, counted so.
    pub bytes_max: u64,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What came of [`AudioStore::create_recording`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It is kept.
    Done(Recording),
    /// The organisation has no room for it. Nothing was written.
    Full,
    /// All organisations together have no room for it. Nothing was written.
    AllFull,
}

/// Which of an organisation's recordings, newest first.
#[derive(Debug, Clone, Default)]
pub struct RecordingsPage {
    /// At most so many.
    pub limit: u16,
    /// Older than this one.
    pub starting_after: Option<RecordingId>,
    /// Newer than this one: those nearest to it.
    pub ending_before: Option<RecordingId>,
}

/// What a text became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// The sound.
    pub sha256: SoundHash,
    /// When it was last used, to within what callers write.
    pub last_used_at: OffsetDateTime,
}

/// A spoken text about to be kept.
#[derive(Debug, Clone)]
pub struct NewSpeech {
    /// A hash of engine, language and text.
    pub key: [u8; 32],
    /// Whose call asked for it first.
    pub org: OrgId,
    /// What it became.
    pub sound: Sound,
    /// Now.
    pub at: OffsetDateTime,
    /// Texts that were used since then stay: open calls need them.
    pub stays_since: OffsetDateTime,
    /// Most bytes of the texts that the organisation asked for first.
    pub org_bytes_max: u64,
    /// Most bytes of all texts.
    pub bytes_max: u64,
}

/// What came of [`AudioStore::keep_speech`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptSpeech {
    /// The text is this sound.
    Sound(SoundHash),
    /// The organisation's open calls need all its room. Nothing was written.
    Full,
    /// All open calls together need all the room. Nothing was written.
    AllFull,
}

/// What need not be kept.
#[derive(Debug, Clone, Copy)]
pub struct PruneAudio {
    /// Texts that were last used before.
    pub speech_before: OffsetDateTime,
    /// Most bytes of all spoken texts together; those used longest ago go first.
    pub speech_bytes_max: u64,
    /// Texts that were used since then stay, however many there are: an open call may need them.
    pub speech_stays_since: OffsetDateTime,
    /// Recordings that were deleted before, unless an open call plays them.
    pub deleted_before: OffsetDateTime,
}

/// Sounds.
#[async_trait]
pub trait AudioStore {
    /// Keeps a recording with its audit row, if the organisation has room.
    async fn create_recording(&self, new: NewRecording) -> Result<Recorded, StoreError>;
    /// One recording, deleted or not, as long as it is kept.
    async fn recording(&self, org: &OrgId, id: &RecordingId) -> Result<Option<Recording>, StoreError>;
    /// A page of those not deleted, newest first, and whether there are more.
    async fn recordings(
        &self,
        org: &OrgId,
        page: RecordingsPage,
    ) -> Result<(Vec<Recording>, bool), StoreError>;
    /// Deletes a recording, with an audit row. `false`: there is none, or it was deleted before.
    async fn delete_recording(
        &self,
        org: &OrgId,
        id: &RecordingId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError>;
    /// A sound with its file.
    async fn sound(&self, sha256: &SoundHash) -> Result<Option<Sound>, StoreError>;
    /// What the text with this key became.
    async fn speech(&self, key: &[u8; 32]) -> Result<Option<Speech>, StoreError>;
    /// Keeps what a text became; the first to do so counts, and what counts is answered. Texts that were used longest
    /// ago make room.
    async fn keep_speech(&self, new: NewSpeech) -> Result<KeptSpeech, StoreError>;
    /// Notes that a text was used.
    async fn use_speech(&self, key: [u8; 32], at: OffsetDateTime) -> Result<(), StoreError>;
    /// Erases what need not be kept, and sounds that nothing refers to. How many sounds.
    async fn prune_audio(&self, prune: PruneAudio) -> Result<u64, StoreError>;
}
