//! Sounds on this node: what a control plane asks to place is there already, or is fetched from it, checked against
//! its hash and put into the folder that Asterisk plays `ringward/…` from.
//!
//! Nothing is answered as placed that is not on the disk whole. A folder that cannot be written, a full disk and a
//! control plane that sends something else are told in the answer; the call goes to another node then, and what is
//! amiss with the folder is a finding of the node.
//!
//! Each control plane has turns of its own, and what is placed ahead of any call has turns apart from what a call
//! waits for: one that hangs holds up nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use controlplane_core::sound::SoundHash;
use node_agent_protocol::{
    FindingSeen, PlaneUrl, Text, audio_path,
    sounds::{SOUND_MAX, SoundError, SoundFolder, Wanted},
};
use rustls::ClientConfig;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    task::spawn_blocking,
    time::{Instant, interval},
};

use crate::{
    clock::Clock,
    dial::{self, DialError},
    gate::Gate,
    metrics::{Metrics, SoundResult},
    settings::AudioSettings,
};

/// Fetched from one control plane at a time, for calls that wait: of more, each would take longer.
const FETCHES_MAX: usize = 4;
/// And ahead of calls.
const FETCHES_AHEAD_MAX: usize = 2;
/// How long a finding stands after the last time that it was met.
const AMISS_FOR: Duration = Duration::from_secs(600);
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

/// What is amiss with the folder, and when that was last met. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Amiss(Arc<Mutex<Option<(Instant, FindingSeen)>>>);

impl Amiss {
    fn note(&self, placed: &Result<(), SoundError>) {
        let finding = |kind: &str, subject: String, fix: &str| FindingSeen {
            finding: Text::cut(kind),
            subject: Text::cut(&subject),
            fix: Text::cut(fix),
        };
        let found = match placed {
            Ok(()) => None,
            Err(error @ SoundError::Full { .. }) => Some(finding(
                "sounds_full",
                error.to_string(),
                "Raise audio.bytes_max of the agent: live calls play all that fits in it. Until then calls that play \
                 something else go to other nodes",
            )),
            Err(error @ SoundError::Io { .. }) => Some(finding(
                "sounds_not_written",
                error.to_string(),
                "Let the agent write its folder of sounds, and make room on its disk. Until then calls go to other \
                 nodes",
            )),
            // The control plane's fault.
            Err(SoundError::WrongHash(_)) => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found.map(|found| (Instant::now(), found));
    }

    /// What stands now.
    pub(crate) fn finding(&self) -> Option<FindingSeen> {
        let amiss = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        amiss.as_ref().filter(|(at, _)| at.elapsed() < AMISS_FOR).map(|(_, finding)| finding.clone())
    }
}

/// Sounds under way, each with the one who fetches it.
type UnderWay = HashMap<SoundHash, Weak<AsyncMutex<()>>>;

/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Sounds {
    folder: Arc<SoundFolder>,
    age_max: Duration,
    gate: Gate,
    amiss: Amiss,
    metrics: Arc<Metrics>,
    turns: Arc<Semaphore>,
    turns_ahead: Arc<Semaphore>,
    /// One fetch of each sound at a time from one control plane; whoever else asks finds it there.
    under_way: Arc<Mutex<UnderWay>>,
    clock: Clock,
}

impl Sounds {
    pub(crate) fn new(
        settings: &AudioSettings,
        gate: Gate,
        amiss: Amiss,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self {
            folder: Arc::new(SoundFolder::new(settings.folder.clone(), settings.bytes_max)),
            age_max: Duration::from_secs(u64::from(settings.keep_days) * 86_400),
            gate,
            amiss,
            metrics,
            turns: Arc::new(Semaphore::new(FETCHES_MAX)),
            turns_ahead: Arc::new(Semaphore::new(FETCHES_AHEAD_MAX)),
            under_way: Arc::default(),
            clock,
        }
    }

    /// The same folder, with turns of its own: for another control plane.
    pub(crate) fn for_another(&self) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(FETCHES_MAX)),
            turns_ahead: Arc::new(Semaphore::new(FETCHES_AHEAD_MAX)),
            under_way: Arc::default(),
            ..self.clone()
        }
    }

    /// Sees to it that Asterisk can play the sound, from `url` where it is not there.
    pub(crate) async fn place(
        &self,
        url: &PlaneUrl,
        config: ClientConfig,
        sound: SoundHash,
        wanted: Wanted,
    ) -> Result<(), PlaceError> {
        let placed = self.place_once(url, config, sound, wanted).await;
        self.metrics.sound(match &placed {
            Ok(true) => SoundResult::Fetched,
            Ok(false) => SoundResult::Present,
            Err(PlaceError::Folder(SoundError::Full { .. })) => SoundResult::Full,
            Err(PlaceError::Folder(_) | PlaceError::Fetch(_) | PlaceError::Broke(_)) => SoundResult::Failed,
        });
        placed.map(|_| ())
    }

    /// Whether it had to be fetched.
    async fn place_once(
        &self,
        url: &PlaneUrl,
        config: ClientConfig,
        sound: SoundHash,
        wanted: Wanted,
    ) -> Result<bool, PlaceError> {
        // A call that waits does not queue behind what is fetched ahead, slow as that may be.
        let one = (wanted == Wanted::Now).then(|| self.one(sound));
        let _one = match &one {
            Some(one) => Some(one.lock().await),
            None => None,
        };
        if self.on_disk(move |folder, now| folder.has(&sound, now, wanted)).await?? {
            return Ok(false);
        }
        let turns = match wanted {
            Wanted::Now => &self.turns,
            Wanted::Ahead => &self.turns_ahead,
        };
        let _turn = turns.acquire().await.map_err(|error| PlaceError::Broke(error.to_string()))?;
        let wav = dial::get(url, &audio_path(&sound), config, SOUND_MAX, FETCH_WITHIN).await?;
        let in_use = self.gate.sounds_in_use();
        let put = self.on_disk(move |folder, now| folder.put(&sound, &wav, now, wanted, &in_use)).await?;
        self.amiss.note(&put);
        put?;
        tracing::info!(%sound, ?wanted, "a sound was placed");
        Ok(true)
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
    ) -> Result<Result<T, SoundError>, PlaceError> {
        let (folder, now) = (Arc::clone(&self.folder), self.clock.now().into());
        let done = spawn_blocking(move || work(&folder, now)).await;
        done.map_err(|error| PlaceError::Broke(error.to_string()))
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

#[cfg(test)]
mod tests {
    use node_agent_protocol::tls;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{clock::Chance, identity::StateDir, settings::Settings, spool::Spool};

    #[tokio::test]
    async fn a_control_plane_that_hangs_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new().unwrap()));
        let state = StateDir::open(dir.path()).unwrap();
        let spool = Spool::open(&state, clock.clone(), Chance::seeded(1)).unwrap();
        let gate = Gate::new(settings.gate.clone(), None, spool, Arc::clone(&metrics));
        let audio = AudioSettings { folder: dir.path().join("sounds"), ..settings.audio };
        let sounds = Sounds::new(&audio, gate, Amiss::default(), metrics, clock);
        // It takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |listener: &TcpListener| {
            format!("https://{}", listener.local_addr().unwrap()).parse::<PlaneUrl>().unwrap()
        };
        let (hangs, refuses) = (url(&silent), url(&closed));
        drop(closed);
        let config = || tls::joining([0; 32]).unwrap();
        let sound = |n: u8| SoundHash::new([n; 32]);
        let first = sounds.for_another();
        let mut waiting = Vec::new();
        for n in 0..10 {
            let (first, hangs, config) = (first.clone(), hangs.clone(), config());
            waiting
                .push(tokio::spawn(async move { first.place(&hangs, config, sound(n), Wanted::Now).await }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // The other answers at once, even of a sound that the first is asked for.
        let second = sounds.for_another();
        for n in [0, 100] {
            let asked = second.place(&refuses, config(), sound(n), Wanted::Now);
            let answer = tokio::time::timeout(Duration::from_secs(2), asked).await.unwrap();
            assert!(matches!(answer, Err(PlaceError::Fetch(_))), "{answer:?}");
        }
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
