//! A sound gets to the node that is about to play it: through its agent, or into a folder that the fleet declares.
//!
//! It is asked for before each attempt, and ahead for the nodes that the call's route names first, so that a
//! failover finds it there. A node that cannot have it is passed over, and its health is not charged: it can carry
//! other calls.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{fleet::Fleet, names::NodeName, number::E164, sound::SoundHash};
use controlplane_store::Store;
use node_agent_protocol::sounds::SoundFolder;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::Playable;
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
}

/// Ways to nodes.
pub(crate) struct Placing {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    links: Arc<Links>,
    clock: Clock,
    folders: Mutex<HashMap<PathBuf, Folder>>,
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
    ) -> Self {
        Self { store, registry, links, clock, folders: Mutex::default() }
    }

    /// Sees to it that the node can play this, within `limit`.
    ///
    /// # Errors
    /// [`PlaceError`], each for people to read.
    pub(crate) async fn place(
        &self,
        node: &NodeName,
        playable: &Playable,
        limit: Duration,
    ) -> Result<(), PlaceError> {
        let Playable::Sound(sound) = playable else { return Ok(()) };
        let (fleet, _) = self.registry.fleet();
        let declared = fleet.node(node).ok_or(PlaceError::NotDeclared)?;
        match (&declared.audio_folder, &declared.ami) {
            (Some(folder), _) => {
                timeout(limit, self.write(folder, *sound)).await.unwrap_or(Err(PlaceError::Late))
            }
            (None, Some(_)) => Err(PlaceError::NoWay),
            (None, None) => Ok(self.links.place_audio(node, sound, limit).await?),
        }
    }

    /// Places it on the first nodes of the number's route, beside the call.
    pub(crate) fn ahead(self: &Arc<Self>, to: &E164, playable: &Playable) {
        if matches!(playable, Playable::Builtin(_)) {
            return;
        }
        let (fleet, _) = self.registry.fleet();
        for node in first_nodes(&fleet, to) {
            let (placing, playable) = (Arc::clone(self), playable.clone());
            tokio::spawn(async move {
                if let Err(error) = placing.place(&node, &playable, AHEAD_WITHIN).await {
                    tracing::debug!(%node, %error, "a sound was not placed ahead");
                }
            });
        }
    }

    async fn write(&self, path: &Path, sound: SoundHash) -> Result<(), PlaceError> {
        let failed = |error: &dyn std::fmt::Display| PlaceError::Folder(error.to_string());
        let Folder { folder, turns } = self.folder(path);
        let turn = turns.acquire_owned().await.map_err(|error| failed(&error))?;
        let now = self.clock.now().into();
        let has = Arc::clone(&folder);
        let (is_there, turn) =
            spawn_blocking(move || (has.has(&sound, now), turn)).await.map_err(|error| failed(&error))?;
        if is_there.map_err(|error| failed(&error))? {
            return Ok(());
        }
        let found = self.store.sound(&sound).await.map_err(|error| failed(&error))?;
        let found = found.ok_or_else(|| PlaceError::Folder("the sound is not kept any more".to_owned()))?;
        // The turn goes with the thread: one that hangs keeps it.
        let put = move || {
            let _turn = turn;
            if let Err(error) = folder.prune(now, FOLDER_AGE_MAX) {
                tracing::warn!(folder = %folder.path().display(), %error, "old sounds could not be removed");
            }
            folder.put(&sound, &found.wav, now)
        };
        spawn_blocking(put).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
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
