//! Sounds on this node: what a control plane asks to place is there already, or is fetched from it, checked against
//! its hash and put into the folder that Asterisk plays `ringward/…` from.
//!
//! Nothing is answered as placed that is not on the disk whole. A folder that cannot be written, a full disk and a
//! control plane that sends something else are told in the answer; the call goes to another node then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use controlplane_core::sound::SoundHash;
use node_agent_protocol::{
    PlaneUrl, audio_path,
    sounds::{SOUND_MAX, SoundError, SoundFolder},
};
use rustls::ClientConfig;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    task::spawn_blocking,
    time::interval,
};

use crate::{
    clock::Clock,
    dial::{self, DialError},
    settings::AudioSettings,
};

/// Fetched at a time: of more, each would take longer.
const FETCHES_MAX: usize = 4;
/// How long one may take to come: the largest over 1 Mbit/s.
const FETCH_WITHIN: Duration = Duration::from_secs(45);
/// Between two looks at what is too old.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Why a sound is not placed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("the sound did not come: {0}")]
    Fetch(#[from] DialError),
    #[error(transparent)]
    Folder(#[from] SoundError),
    #[error("placing broke: {0}")]
    Broke(String),
}

/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Sounds {
    folder: Arc<SoundFolder>,
    age_max: Duration,
    turns: Arc<Semaphore>,
    /// One fetch of each sound at a time; whoever else asks finds it there.
    under_way: Arc<Mutex<HashMap<SoundHash, Weak<AsyncMutex<()>>>>>,
    clock: Clock,
}

impl Sounds {
    pub(crate) fn new(settings: &AudioSettings, clock: Clock) -> Self {
        Self {
            folder: Arc::new(SoundFolder::new(settings.folder.clone(), settings.bytes_max)),
            age_max: Duration::from_secs(u64::from(settings.keep_days) * 86_400),
            turns: Arc::new(Semaphore::new(FETCHES_MAX)),
            under_way: Arc::default(),
            clock,
        }
    }

    /// Sees to it that Asterisk can play the sound, from `url` where it is not there.
    pub(crate) async fn place(
        &self,
        url: &PlaneUrl,
        config: ClientConfig,
        sound: SoundHash,
    ) -> Result<(), PlaceError> {
        let one = self.one(sound);
        let _one = one.lock().await;
        if self.on_disk(move |folder, now| folder.has(&sound, now)).await? {
            return Ok(());
        }
        let _turn = self.turns.acquire().await.map_err(|error| PlaceError::Broke(error.to_string()))?;
        let wav = dial::get(url, &audio_path(&sound), config, SOUND_MAX, FETCH_WITHIN).await?;
        self.on_disk(move |folder, now| folder.put(&sound, &wav, now)).await?;
        tracing::info!(%sound, "a sound was placed");
        Ok(())
    }

    fn one(&self, sound: SoundHash) -> Arc<AsyncMutex<()>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|_, one| one.strong_count() > 0);
        let known = under_way.get(&sound).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let one = Arc::new(AsyncMutex::new(()));
            under_way.insert(sound, Arc::downgrade(&one));
            one
        })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SoundFolder, std::time::SystemTime) -> Result<T, SoundError> + Send + 'static,
    ) -> Result<T, PlaceError> {
        let (folder, now) = (Arc::clone(&self.folder), self.clock.now().into());
        let done = spawn_blocking(move || work(&folder, now)).await;
        Ok(done.map_err(|error| PlaceError::Broke(error.to_string()))??)
    }

    /// Removes what was not asked for in a long time, for as long as the program runs.
    pub(crate) async fn keep_pruned(self) {
        let mut tick = interval(PRUNE_EVERY);
        loop {
            tick.tick().await;
            let (folder, now, age_max) = (Arc::clone(&self.folder), self.clock.now().into(), self.age_max);
            match spawn_blocking(move || folder.prune(now, age_max)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(sounds)) => tracing::info!(sounds, "old sounds were removed"),
                Ok(Err(error)) => tracing::warn!(%error, "old sounds could not be removed"),
                Err(error) => tracing::error!(%error, "removing old sounds broke"),
            }
        }
    }
}
