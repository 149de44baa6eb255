//! A sound gets to the node that is about to play it: through its agent, or into a folder that the fleet declares.
//!
//! It is asked for before each attempt, and ahead for the nodes that the call's route names first, so that a
//! failover finds it there. A node that cannot have it is passed over, and its health is not charged: it can carry
//! other calls. It comes after all other nodes then (`shunned`), until a probe beside the calls finds that it can.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{fleet::Fleet, names::NodeName, number::E164, sound::SoundHash};
use controlplane_store::Store;
use node_agent_protocol::sounds::{InUse, SoundFolder, Wanted};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, interval, sleep, timeout},
};

use super::{
    Playable,
    metrics::{AudioMetrics, PlaceResult},
    shunned::{Prober, Shunned},
};
use crate::{
    agents::{Links, PlaceAudioError},
    clock::Clock,
    registry::Registry,
};

/// How long a call waits for its sound on one node before it goes to another.
pub(crate) const PLACE_MAX: Duration = Duration::from_secs(5);
/// Nodes on which a call's sound is placed ahead.
const AHEAD_MAX: usize = 4;
/// Ahead there is no hurry: a slow node shall have it for the next round.
const AHEAD_WITHIN: Duration = Duration::from_secs(30);
/// Threads that one folder may hold up: a share can hang.
const FOLDER_TURNS: usize = 4;
/// Most bytes of the sounds in a folder that this program writes.
const FOLDER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// What was not asked for within so long goes from a folder.
const FOLDER_AGE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Between two notes in such folders that a live call plays a sound; well below `HELD_FOR`, by which other replicas go.
const IN_USE_NOTED: Duration = Duration::from_secs(10);

/// Why a node cannot play a sound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("the fleet has no such node")]
    NotDeclared,
    #[error("it has neither an agent nor an `audio_folder` in the fleet file: it plays builtin sounds alone")]
    NoWay,
    #[error(transparent)]
    Agent(#[from] PlaceAudioError),
    #[error("its folder could not be written: {0}")]
    Folder(String),
    #[error("its folder was not written in time")]
    Late,
    #[error("the sound is not kept any more")]
    Gone,
}

/// Ways to nodes.
pub(crate) struct Placing {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    links: Arc<Links>,
    clock: Clock,
    folders: Mutex<HashMap<PathBuf, Folder>>,
    shunned: Shunned,
    /// What this replica's attempts play, and how many.
    in_use: Mutex<HashMap<SoundHash, usize>>,
    pub(super) metrics: AudioMetrics,
}

/// An attempt plays this; until it is dropped.
pub(crate) struct Playing {
    placing: Arc<Placing>,
    sound: SoundHash,
}

impl Drop for Playing {
    fn drop(&mut self) {
        let mut in_use = self.placing.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempts) = in_use.get_mut(&self.sound) {
            *attempts -= 1;
            if *attempts == 0 {
                in_use.remove(&self.sound);
            }
        }
    }
}

#[derive(Clone)]
struct Folder {
    folder: Arc<SoundFolder>,
    turns: Arc<Semaphore>,
}

impl Placing {
    pub(super) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        links: Arc<Links>,
        clock: Clock,
        metrics: AudioMetrics,
    ) -> Self {
        let (folders, in_use) = Default::default();
        Self { store, registry, links, clock, folders, shunned: Shunned::default(), in_use, metrics }
    }

    /// Keeps it where it is, for as long as an attempt plays it.
    pub(crate) fn playing(self: &Arc<Self>, playable: &Playable) -> Option<Playing> {
        let Playable::Sound(sound) = playable else { return None };
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner).entry(*sound).or_default() += 1;
        Some(Playing { placing: Arc::clone(self), sound: *sound })
    }

    /// Nodes that could not get what calls play, and are not known to be able to again.
    pub(crate) fn shunned(&self, playable: &Playable) -> Vec<NodeName> {
        match playable {
            Playable::Builtin(_) => Vec::new(),
            Playable::Sound(_) => self.shunned.nodes(),
        }
    }

    /// Sees to it that the node can play this, within `limit`.
    ///
    /// # Errors
    /// [`PlaceError`], each for people to read.
    pub(crate) async fn place(
        self: &Arc<Self>,
        node: &NodeName,
        playable: &Playable,
        limit: Duration,
    ) -> Result<(), PlaceError> {
        let Playable::Sound(sound) = playable else { return Ok(()) };
        let placed = self.place_sound(node, *sound, Wanted::Now, limit).await;
        match &placed {
            Ok(()) => self.shunned.placed(node),
            // The sound's fault, not the node's.
            Err(PlaceError::Gone | PlaceError::NotDeclared) => {}
            Err(_) => {
                if let Some(prober) = self.shunned.failed(node) {
                    tracing::warn!(%node, "a node cannot get what calls play: others are preferred until it can");
                    tokio::spawn(Arc::clone(self).probe(node.clone(), prober, *sound));
                }
            }
        }
        placed
    }

    /// Asks the node beside all calls, ever less often, until it can have a sound again.
    async fn probe(self: Arc<Self>, node: NodeName, prober: Prober, sound: SoundHash) {
        while let Some(wait) = self.shunned.wait(&node, prober) {
            sleep(wait).await;
            match self.place_sound(&node, sound, Wanted::Ahead, PLACE_MAX).await {
                Ok(()) => {
                    tracing::info!(%node, "a node can get what calls play again");
                    self.shunned.placed(&node);
                    self.registry.nudge();
                }
                // It is no node any more, or the sound is gone: calls find out themselves.
                Err(PlaceError::NotDeclared | PlaceError::Gone) => self.shunned.placed(&node),
                Err(_) => self.shunned.probe_failed(&node, prober),
            }
        }
    }

    async fn place_sound(
        &self,
        node: &NodeName,
        sound: SoundHash,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<(), PlaceError> {
        let began = Instant::now();
        let placed = self.by_its_way(node, sound, wanted, limit).await;
        let result = match &placed {
            Ok(()) => PlaceResult::Placed,
            Err(PlaceError::Late | PlaceError::Agent(PlaceAudioError::TimedOut)) => PlaceResult::Late,
            Err(_) => PlaceResult::Failed,
        };
        self.metrics.placed(wanted, result, began.elapsed());
        placed
    }

    async fn by_its_way(
        &self,
        node: &NodeName,
        sound: SoundHash,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<(), PlaceError> {
        let (fleet, _) = self.registry.fleet();
        let declared = fleet.node(node).ok_or(PlaceError::NotDeclared)?;
        match (&declared.audio_folder, &declared.ami) {
            (Some(folder), _) => {
                timeout(limit, self.write(folder, sound, wanted)).await.unwrap_or(Err(PlaceError::Late))
            }
            (None, Some(_)) => Err(PlaceError::NoWay),
            (None, None) => Ok(self.links.place_audio(node, &sound, wanted, limit).await?),
        }
    }

    /// Places it on the first nodes of the number's route, beside the call.
    pub(crate) fn ahead(self: &Arc<Self>, to: &E164, playable: &Playable) {
        let Playable::Sound(sound) = *playable else { return };
        let (fleet, _) = self.registry.fleet();
        let shunned = self.shunned.nodes();
        for node in first_nodes(&fleet, to).into_iter().filter(|node| !shunned.contains(node)) {
            let placing = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = placing.place_sound(&node, sound, Wanted::Ahead, AHEAD_WITHIN).await {
                    tracing::debug!(%node, %error, "a sound was not placed ahead");
                }
            });
        }
    }

    async fn write(&self, path: &Path, sound: SoundHash, wanted: Wanted) -> Result<(), PlaceError> {
        let failed = |error: &dyn std::fmt::Display| PlaceError::Folder(error.to_string());
        let Folder { folder, turns } = self.folder(path);
        let turn = turns.acquire_owned().await.map_err(|error| failed(&error))?;
        let now = self.clock.now().into();
        let has = Arc::clone(&folder);
        let (is_there, turn) = spawn_blocking(move || (has.has(&sound, now, wanted), turn))
            .await
            .map_err(|error| failed(&error))?;
        if is_there.map_err(|error| failed(&error))? {
            return Ok(());
        }
        let found = self.store.sound(&sound).await.map_err(|error| failed(&error))?;
        let found = found.ok_or(PlaceError::Gone)?;
        let in_use = self.in_use();
        // The turn goes with the thread: one that hangs keeps it.
        let put = move || {
            let _turn = turn;
            if let Err(error) = folder.prune(now, FOLDER_AGE_MAX) {
                tracing::warn!(folder = %folder.path().display(), %error, "old sounds could not be removed");
            }
            folder.put(&sound, &found.wav, now, wanted, &in_use)
        };
        spawn_blocking(put).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn in_use(&self) -> InUse {
        InUse::These(self.in_use.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect())
    }

    /// Other replicas write the same folders: they see by its time that a sound is in use.
    pub(super) async fn keep_in_use(self: Arc<Self>) {
        let mut tick = interval(IN_USE_NOTED);
        loop {
            tick.tick().await;
            let InUse::These(sounds) = self.in_use() else { continue };
            let folders: Vec<_> =
                self.folders.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            for Folder { folder, turns } in folders.into_iter().filter(|_| !sounds.is_empty()) {
                // One that hangs has no turn left, and is left alone.
                let Ok(turn) = turns.try_acquire_owned() else { continue };
                let (sounds, now) = (sounds.clone(), self.clock.now().into());
                spawn_blocking(move || {
                    let _turn = turn;
                    for sound in &sounds {
                        if let Err(error) = folder.has(sound, now, Wanted::Now) {
                            tracing::debug!(%error, "the use of a sound was not noted");
                        }
                    }
                });
            }
        }
    }

    fn folder(&self, path: &Path) -> Folder {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Folder {
            folder: Arc::new(SoundFolder::new(path.to_owned(), FOLDER_BYTES_MAX)),
            turns: Arc::new(Semaphore::new(FOLDER_TURNS)),
        };
        folders.entry(path.to_owned()).or_insert_with(new).clone()
    }
}

/// In the order of the route's tiers.
fn first_nodes(fleet: &Fleet, to: &E164) -> Vec<NodeName> {
    let mut nodes: Vec<NodeName> = Vec::new();
    let trunks = fleet.route_for(to).into_iter().flat_map(|route| route.tiers.iter().flatten());
    for trunk in trunks.filter_map(|name| fleet.trunk(name)) {
        if !nodes.contains(&trunk.node) {
            nodes.push(trunk.node.clone());
        }
        if nodes.len() == AHEAD_MAX {
            break;
        }
    }
    nodes
}
