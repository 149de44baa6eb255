//! What callees hear: texts that are spoken, recordings that customers upload, and how either gets to a PBX.
//!
//! - `engine` runs the program that speaks; `speech` sees to it that each text is spoken once;
//! - `convert` makes what every Asterisk plays of whatever an engine or a customer wrote;
//! - `placing` puts a sound on the node that is about to play it.
//!
//! A sound is named by the SHA-256 of its file and lies in the database, so that every replica has it. Asterisk
//! plays it as `ringward/<sha256>` below its sounds folder. A text is spoken when its call begins, not when the
//! customer waits for an answer; a call taken up after a restart asks for it again, and finds it or has it spoken.

mod convert;
mod engine;
mod placing;
mod speech;

use std::{fmt, sync::Arc, time::Duration};

use controlplane_core::{
    ids::OrgId,
    request::{AudioId, Builtin, Content},
    sound::SoundHash,
};
use controlplane_store::{Store, StoreError, audio::PruneAudio};
use tokio::{
    task::AbortHandle,
    time::{interval, sleep},
};

pub(crate) use self::{
    convert::{Converted, Format, convert, format_of},
    engine::check,
    placing::PLACE_MAX,
};
use self::{placing::Placing, speech::Speeches};
use crate::{agents::Links, clock::Clock, registry::Registry, settings::AudioSettings};

/// Longest sound, in s; then it is some 4.8 MB.
pub(crate) const LENGTH_MAX_S: u32 = 300;
/// Between two looks at what need not be kept.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// Recordings stay so long after they are deleted: longer than any call can wait for its end.
const DELETED_KEPT: time::Duration = time::Duration::hours(48);
/// Spoken texts stay so long after their last use, however many there are: a call may wait for a day.
const SPEECH_STAYS: time::Duration = time::Duration::hours(26);
/// Between two tries of a database that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// What a call plays, ready to be placed on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Playable {
    /// Every Asterisk has it.
    Builtin(Builtin),
    /// By its hash.
    Sound(SoundHash),
}

/// As the dialplan names it, below Asterisk's sounds folder and without its ending.
impl fmt::Display for Playable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(builtin) => f.write_str(builtin.sound()),
            Self::Sound(hash) => write!(f, "ringward/{hash}"),
        }
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This field is at fault.
    Field(&'static str, String),
    /// Too many texts wait to be spoken.
    Busy,
}

/// A call has nothing to play; in words for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NothingToPlay(String);

/// See the module.
pub(crate) struct Audio {
    store: Arc<dyn Store>,
    clock: Clock,
    settings: AudioSettings,
    speeches: Speeches,
    placing: Arc<Placing>,
}

impl Audio {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        links: Arc<Links>,
        clock: Clock,
        settings: AudioSettings,
    ) -> Self {
        let speeches = Speeches::new(Arc::clone(&store), clock.clone(), settings.speech.clone());
        let placing = Arc::new(Placing::new(Arc::clone(&store), registry, links, clock.clone()));
        Self { store, clock, settings, speeches, placing }
    }

    /// Most bytes of one organisation's recordings.
    pub(crate) fn org_bytes_max(&self) -> u64 {
        self.settings.org_bytes_max
    }

    /// Whether a call with this message can be taken.
    ///
    /// # Errors
    /// The database could not be read.
    pub(crate) async fn check(
        &self,
        org: &OrgId,
        content: &Content,
    ) -> Result<Result<(), Refusal>, StoreError> {
        match content {
            Content::Audio(AudioId::Builtin(_)) => Ok(Ok(())),
            Content::Audio(AudioId::Recording(id)) => {
                let found = self.store.recording(org, id).await?;
                let is_there = found.is_some_and(|recording| recording.deleted_at.is_none());
                let refusal = || Refusal::Field("message.audio_id", format!("There is no recording {id}."));
                Ok(if is_there { Ok(()) } else { Err(refusal()) })
            }
            Content::Text { language, .. } => Ok(self.speeches.check(language).await),
        }
    }

    /// What a call plays; a text that was never spoken is spoken now. Takes as long as it takes.
    ///
    /// # Errors
    /// There is nothing, and will not be.
    pub(crate) async fn ready(&self, org: &OrgId, content: &Content) -> Result<Playable, NothingToPlay> {
        match content {
            Content::Audio(AudioId::Builtin(builtin)) => Ok(Playable::Builtin(*builtin)),
            Content::Audio(AudioId::Recording(id)) => loop {
                match self.store.recording(org, id).await {
                    // Deleted ones too: the call was accepted before.
                    Ok(Some(recording)) => return Ok(Playable::Sound(recording.sha256)),
                    Ok(None) => return Err(NothingToPlay(format!("there is no recording {id}"))),
                    Err(error) => tracing::warn!(%error, "a recording could not be looked up"),
                }
                sleep(AGAIN).await;
            },
            Content::Text { text, language } => {
                let spoken = self.speeches.spoken(text, language).await;
                spoken.map(Playable::Sound).map_err(|error| NothingToPlay(error.to_string()))
            }
        }
    }

    /// Sees to it that a node can play it.
    pub(crate) fn placing(&self) -> &Arc<Placing> {
        &self.placing
    }

    /// Erases what need not be kept, now and then.
    pub(crate) fn keep(self: &Arc<Self>) -> AbortHandle {
        let audio = Arc::clone(self);
        let keep = async move {
            let mut tick = interval(PRUNE_EVERY);
            loop {
                tick.tick().await;
                audio.prune().await;
            }
        };
        tokio::spawn(keep).abort_handle()
    }

    async fn prune(&self) {
        let now = self.clock.now();
        let speech = &self.settings.speech;
        let prune = PruneAudio {
            speech_before: now - time::Duration::days(speech.keep_days.into()),
            speech_bytes_max: speech.bytes_max,
            speech_stays_since: now - SPEECH_STAYS,
            deleted_before: now - DELETED_KEPT,
        };
        match self.store.prune_audio(prune).await {
            Ok(0) => {}
            Ok(sounds) => tracing::info!(sounds, "sounds that nothing needs were erased"),
            Err(error) => tracing::warn!(%error, "sounds could not be pruned"),
        }
    }
}
