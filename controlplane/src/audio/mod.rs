//! What callees hear: texts that are spoken, recordings that customers upload, and how either gets to a PBX.
//!
//! - `engine` runs the program that speaks; `speech` sees to it that each text is spoken once, `turns` to it that
//!   organisations take turns;
//! - `convert` makes what every Asterisk plays of whatever an engine or a customer wrote;
//! - `placing` puts a sound on the node that is about to play it, `shunned` remembers nodes that could not have one.
//!
//! A sound is named by the SHA-256 of its file and lies in the database, so that every replica has it. Asterisk
//! plays it as `ringward/<sha256>` below its sounds folder. A text is spoken when its call begins, not when the
//! customer waits for an answer; a call taken up after a restart asks for it again, and finds it or has it spoken.

mod convert;
mod engine;
mod metrics;
mod placing;
mod shunned;
mod speech;
mod turns;

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
    metrics::AudioMetrics,
    placing::PLACE_MAX,
    speech::TextInUse,
};
use self::{
    placing::Placing,
    speech::{STAYS, Speeches, USE_NOTED},
};
use crate::{agents::Links, clock::Clock, registry::Registry, settings::AudioSettings};

/// Longest sound, in s; then it is some 4.8 MB.
pub(crate) const LENGTH_MAX_S: u32 = 300;
/// Between two looks at what need not be kept. Deleted recordings count until then.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Recordings stay so long after they are deleted, and then for as long as open calls play them: a call that was
/// checked just before is accepted within less.
const DELETED_KEPT: time::Duration = time::Duration::minutes(2);
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
    /// Too many texts of all organisations wait to be spoken.
    Busy,
    /// Too many of this organisation do.
    OrgBusy,
    /// There is no room for a text that was not spoken before.
    Full,
    /// This organisation has none.
    OrgFull,
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
        metrics: AudioMetrics,
    ) -> Self {
        let speeches =
            Speeches::new(Arc::clone(&store), clock.clone(), settings.speech.clone(), metrics.clone());
        let placing = Arc::new(Placing::new(Arc::clone(&store), registry, links, clock.clone(), metrics));
        Self { store, clock, settings, speeches, placing }
    }

    /// Most bytes of one organisation's recordings.
    pub(crate) fn org_bytes_max(&self) -> u64 {
        self.settings.org_bytes_max
    }

    /// Most bytes of the recordings of all organisations.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.settings.bytes_max
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
            Content::Text { text, language } => self.speeches.check(org, text, language).await,
        }
    }

    /// What a call plays, and what keeps it for as long as the call is open; a text that was never spoken is spoken
    /// now. Takes as long as it takes.
    ///
    /// # Errors
    /// There is nothing, and will not be.
    pub(crate) async fn ready(
        &self,
        org: &OrgId,
        content: &Content,
    ) -> Result<(Playable, Option<TextInUse>), NothingToPlay> {
        match content {
            Content::Audio(AudioId::Builtin(builtin)) => Ok((Playable::Builtin(*builtin), None)),
            Content::Audio(AudioId::Recording(id)) => loop {
                match self.store.recording(org, id).await {
                    // Deleted ones too: the call was accepted before.
                    Ok(Some(recording)) => return Ok((Playable::Sound(recording.sha256), None)),
                    Ok(None) => return Err(NothingToPlay(format!("there is no recording {id}"))),
                    Err(error) => tracing::warn!(%error, "a recording could not be looked up"),
                }
                sleep(AGAIN).await;
            },
            Content::Text { text, language } => {
                let spoken = self.speeches.spoken(org, text, language).await;
                let (sound, in_use) = spoken.map_err(|error| NothingToPlay(error.to_string()))?;
                Ok((Playable::Sound(sound), Some(in_use)))
            }
        }
    }

    /// Sees to it that a node can play it.
    pub(crate) fn placing(&self) -> &Arc<Placing> {
        &self.placing
    }

    /// Notes what is in use, and erases what need not be kept, now and then.
    pub(crate) fn keep(self: &Arc<Self>) -> [AbortHandle; 2] {
        let audio = Arc::clone(self);
        let keep = async move {
            let (mut prune, mut note) = (interval(PRUNE_EVERY), interval(USE_NOTED));
            loop {
                tokio::select! {
                    _ = prune.tick() => audio.prune().await,
                    _ = note.tick() => audio.speeches.note_use().await,
                }
            }
        };
        let in_use = Arc::clone(&self.placing).keep_in_use();
        [tokio::spawn(keep).abort_handle(), tokio::spawn(in_use).abort_handle()]
    }

    async fn prune(&self) {
        let now = self.clock.now();
        let speech = &self.settings.speech;
        let prune = PruneAudio {
            speech_before: now - time::Duration::days(speech.keep_days.into()),
            speech_bytes_max: speech.bytes_max,
            speech_stays_since: now - STAYS,
            deleted_before: now - DELETED_KEPT,
        };
        match self.store.prune_audio(prune).await {
            Ok(0) => {}
            Ok(sounds) => tracing::info!(sounds, "sounds that nothing needs were erased"),
            Err(error) => tracing::warn!(%error, "sounds could not be pruned"),
        }
    }
}
