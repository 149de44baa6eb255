//! A folder that Asterisk plays sounds from: `<sha256>.wav`, each written whole or not at all.
//!
//! Used by the agent on its node, and by a control plane that reaches a node's folder itself. A sound is what its
//! name says or it is not there: its hash is checked before it is written, and again when its file has changed
//! since.
//!
//! When room is wanted, what was asked for least recently goes first. Three things stay: what a live call plays
//! ([`InUse`]), what was asked for within [`HELD_FOR`], since its call is about to leave, and, where nobody knows what
//! live calls play, what was asked for within [`KEPT_MIN`]. Everything else may go at once.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, FileTimes},
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use controlplane_core::sound::SoundHash;
use sha2::{Digest, Sha256};

/// Largest sound, in bytes: five minutes and a header, with room to spare.
pub const SOUND_MAX: usize = 5 * 1024 * 1024;
/// From the word that a sound is there to the channel that plays it, generously.
pub const HELD_FOR: Duration = Duration::from_secs(30);
/// A call that was placed lasts an hour at most.
pub const KEPT_MIN: Duration = Duration::from_secs(2 * 3_600);

/// Why a sound is not in the folder.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The folder cannot be read or written, or its disk is full.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes are not what their name says.
    #[error("the sound that came is not the one that was asked for: its hash is {0}")]
    WrongHash(SoundHash),
    /// Nothing that is there may go.
    #[error("the sounds in {} may take {max} bytes, and all of them are in use", path.display())]
    Full {
        /// Which folder.
        path: PathBuf,
        /// Its bound.
        max: u64,
    },
}

/// For what a sound is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A call is about to play it.
    Now,
    /// A call may come to play it: it will be asked for again before that.
    Ahead,
}

/// Sounds that live calls play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUse {
    /// These, and no others.
    These(HashSet<SoundHash>),
    /// Nobody knows: the program was just started.
    Unknown,
}

impl InUse {
    fn may_go(&self, found: &Found, now: SystemTime) -> bool {
        let idle = age(found.modified, now);
        match (self, &found.hash) {
            (Self::These(sounds), Some(hash)) => idle >= HELD_FOR && !sounds.contains(hash),
            (Self::These(_), None) => idle >= HELD_FOR,
            (Self::Unknown, _) => idle > KEPT_MIN,
        }
    }
}

/// What tells one state of a file from another.
type State = (u64, u64, i64, i64);

/// The folder. Its methods wait for the disk.
#[derive(Debug)]
pub struct SoundFolder {
    path: PathBuf,
    bytes_max: u64,
    /// Files whose hash was found right, in this state.
    known: Mutex<HashMap<SoundHash, State>>,
    temporary: AtomicU64,
    /// One writer at a time, so that two do not count the same room.
    writing: Mutex<()>,
}

impl SoundFolder {
    /// A folder whose sounds may take `bytes_max` bytes. It need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf, bytes_max: u64) -> Self {
        let (known, temporary, writing) = (Mutex::default(), AtomicU64::new(0), Mutex::default());
        Self { path, bytes_max, known, temporary, writing }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, hash: &SoundHash) -> PathBuf {
        self.path.join(format!("{hash}.wav"))
    }

    /// Whether the sound is there, as it should be; notes that it is wanted.
    ///
    /// # Errors
    /// [`SoundError::Io`]: there is something that cannot be read.
    pub fn has(&self, hash: &SoundHash, now: SystemTime, wanted: Wanted) -> Result<bool, SoundError> {
        let path = self.file(hash);
        let failed = |source| SoundError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(failed)?,
        };
        let state = state(&file).map_err(failed)?;
        let is_known = self.known().get(hash) == Some(&state);
        if !is_known {
            let mut found = Sha256::new();
            // No more than a sound can have: a larger file is none of ours.
            let mut bounded = io::Read::take(&file, SOUND_MAX as u64 + 1);
            io::copy(&mut bounded, &mut found).map_err(failed)?;
            if SoundHash::new(found.finalize().into()) != *hash {
                return Ok(false);
            }
        }
        let wanted_at = wanted.as_of(now);
        if file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)? < wanted_at {
            // Who may read but not write it can play it all the same.
            let _ = file.set_times(FileTimes::new().set_modified(wanted_at));
        }
        let state = self::state(&file).map_err(failed)?;
        self.known().insert(*hash, state);
        Ok(true)
    }

    /// Puts a sound there, in the place of others where there is no room.
    ///
    /// # Errors
    /// [`SoundError`]; nothing is left behind then.
    pub fn put(
        &self,
        hash: &SoundHash,
        wav: &[u8],
        now: SystemTime,
        wanted: Wanted,
        in_use: &InUse,
    ) -> Result<(), SoundError> {
        let found = SoundHash::new(Sha256::digest(wav).into());
        if found != *hash {
            return Err(SoundError::WrongHash(found));
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let of_folder = |source| SoundError::Io { path: self.path.clone(), source };
        fs::create_dir_all(&self.path).map_err(of_folder)?;
        let keep = self.bytes_max.saturating_sub(wav.len() as u64);
        if wav.len() as u64 > self.bytes_max || self.make_room(keep, now, in_use).map_err(of_folder)? > keep {
            return Err(SoundError::Full { path: self.path.clone(), max: self.bytes_max });
        }
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let beside = self.path.join(format!(".{hash}.{}.{number}", std::process::id()));
        let path = self.file(hash);
        let written = write(&beside, wav, wanted.as_of(now)).and_then(|state| {
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()?;
            Ok(state)
        });
        match written {
            Ok(state) => {
                self.known().insert(*hash, state);
                Ok(())
            }
            Err(source) => {
                // It may not have been made.
                let _ = fs::remove_file(&beside);
                Err(SoundError::Io { path, source })
            }
        }
    }

    /// Removes what was not asked for within `age_max`, and what a crash left half written. How many sounds.
    ///
    /// # Errors
    /// The folder cannot be read; that there is none is no error.
    pub fn prune(&self, now: SystemTime, age_max: Duration) -> io::Result<u64> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let age_max = age_max.max(KEPT_MIN);
        let mut pruned = 0;
        for found in self.list()? {
            if age(found.modified, now) > age_max {
                self.remove(&found)?;
                pruned += u64::from(found.hash.is_some());
            }
        }
        Ok(pruned)
    }

    /// Removes the oldest until `keep` bytes are left, as far as that may be; what is left.
    fn make_room(&self, keep: u64, now: SystemTime, in_use: &InUse) -> io::Result<u64> {
        let mut all = self.list()?;
        let mut bytes: u64 = all.iter().map(|found| found.bytes).sum();
        all.sort_by_key(|found| found.modified);
        for found in all.iter().filter(|found| in_use.may_go(found, now)) {
            if bytes <= keep {
                break;
            }
            self.remove(found)?;
            bytes -= found.bytes;
        }
        Ok(bytes)
    }

    fn remove(&self, found: &Found) -> io::Result<()> {
        if let Some(hash) = &found.hash {
            self.known().remove(hash);
        }
        match fs::remove_file(&found.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Our files; nobody else's are counted or touched.
    fn list(&self) -> io::Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hash = name.strip_suffix(".wav").and_then(|stem| stem.parse().ok());
            let half = name.strip_prefix('.').and_then(|rest| rest.split('.').next());
            let is_half = half.is_some_and(|stem| stem.parse::<SoundHash>().is_ok());
            // One that went meanwhile is none.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && (hash.is_some() || is_half) {
                let modified = metadata.modified()?;
                all.push(Found { path: entry.path(), hash, bytes: metadata.len(), modified });
            }
        }
        Ok(all)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<SoundHash, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Found {
    path: PathBuf,
    /// `None`: half written.
    hash: Option<SoundHash>,
    bytes: u64,
    modified: SystemTime,
}

/// What seems to be of the future is of a clock that was set back: old, or it would stay for ever.
fn age(modified: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(modified)
        .unwrap_or_else(|ahead| if ahead.duration() > HELD_FOR { Duration::MAX } else { Duration::ZERO })
}

impl Wanted {
    /// When a sound that is wanted so counts as asked for.
    fn as_of(self, now: SystemTime) -> SystemTime {
        match self {
            Self::Now => now,
            Self::Ahead => now - HELD_FOR,
        }
    }
}

fn state(file: &File) -> io::Result<State> {
    let metadata = file.metadata()?;
    Ok((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Asterisk runs as a user of its own: anyone who may enter the folder may read.
fn write(path: &Path, wav: &[u8], now: SystemTime) -> io::Result<State> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(wav)?;
    file.set_times(FileTimes::new().set_modified(now))?;
    file.sync_all()?;
    state(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(1_800_000_000);

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOON + Duration::from_secs(hours * 3_600)
    }

    fn sound(byte: u8) -> (SoundHash, Vec<u8>) {
        let wav = vec![byte; 1_000];
        (SoundHash::new(Sha256::digest(&wav).into()), wav)
    }

    fn names(folder: &SoundFolder) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_sound_is_there_whole_and_readable_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = SoundFolder::new(place.path().join("a/b"), 10_000);
        let (hash, wav) = sound(1);
        assert!(!folder.has(&hash, at(0), Wanted::Now).unwrap());
        let lie = folder.put(&hash, b"something else", at(0), Wanted::Now, &InUse::Unknown).unwrap_err();
        assert!(matches!(lie, SoundError::WrongHash(_)), "{lie}");
        assert!(!folder.path().exists());
        folder.put(&hash, &wav, at(0), Wanted::Now, &InUse::Unknown).unwrap();
        assert!(folder.has(&hash, at(0), Wanted::Now).unwrap());
        assert_eq!(names(&folder), [format!("{hash}.wav")]);
        let file = folder.path().join(format!("{hash}.wav"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        // Cut or changed by whatever: found out, and mended by the next.
        fs::write(&file, &wav[..500]).unwrap();
        assert!(!folder.has(&hash, at(0), Wanted::Now).unwrap());
        folder.put(&hash, &wav, at(0), Wanted::Now, &InUse::Unknown).unwrap();
        assert!(folder.has(&hash, at(0), Wanted::Now).unwrap());
        // By a folder that never wrote it, too.
        let another = SoundFolder::new(folder.path().to_owned(), 10_000);
        assert!(another.has(&hash, at(0), Wanted::Now).unwrap());
    }

    #[test]
    fn room_is_made_by_what_was_not_asked_for_longest_and_never_by_what_may_play() {
        let place = tempfile::tempdir().unwrap();
        let folder = SoundFolder::new(place.path().to_owned(), 3_500);
        fs::write(place.path().join("mine.wav"), "not ours").unwrap();
        let all: Vec<_> = (1..=5).map(sound).collect();
        for (n, (hash, wav)) in (0..3).zip(&all) {
            folder.put(hash, wav, at(n), Wanted::Now, &InUse::Unknown).unwrap();
        }
        assert!(folder.has(&all[0].0, at(4), Wanted::Now).unwrap());
        folder.put(&all[3].0, &all[3].1, at(4), Wanted::Now, &InUse::Unknown).unwrap();
        let is_there: Vec<_> =
            all.iter().map(|(hash, _)| folder.has(hash, at(4), Wanted::Now).unwrap()).collect();
        assert_eq!(is_there, [true, false, true, true, false]);
        let full = folder.put(&all[4].0, &all[4].1, at(5), Wanted::Now, &InUse::Unknown).unwrap_err();
        assert!(matches!(full, SoundError::Full { .. }), "{full}");
        // What a crash left goes with the old ones.
        fs::write(place.path().join(format!(".{}.1.0", all[4].0)), "half").unwrap();
        let year = SystemTime::UNIX_EPOCH + 2 * NOON;
        assert_eq!(folder.prune(year, Duration::ZERO).unwrap(), 3);
        assert_eq!(names(&folder), ["mine.wav"]);
    }

    #[test]
    fn a_full_folder_makes_room_for_what_is_wanted_unless_a_live_call_plays_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = SoundFolder::new(place.path().to_owned(), 3_500);
        let (start, soon) = (at(0), at(0) + HELD_FOR);
        let all: Vec<_> = (1..=7).map(sound).collect();
        let these = |n: &[usize]| InUse::These(n.iter().map(|n| all[*n].0).collect());
        let put =
            |n: usize, now, wanted, in_use: &InUse| folder.put(&all[n].0, &all[n].1, now, wanted, in_use);
        let is_there = |n: usize| place.path().join(format!("{}.wav", all[n].0)).exists();
        for n in 0..3 {
            put(n, start, Wanted::Now, &these(&[])).unwrap();
        }
        // Their calls are about to leave.
        assert!(matches!(put(3, start, Wanted::Now, &these(&[])), Err(SoundError::Full { .. })));
        // One call has left and lives; the others of this moment are not waited for any longer.
        put(3, soon, Wanted::Now, &these(&[0])).unwrap();
        assert!(is_there(0) && is_there(3) && [1, 2].iter().filter(|n| is_there(**n)).count() == 1);
        // All are played: there is no room for anybody.
        let full = put(4, soon + HELD_FOR, Wanted::Now, &these(&[0, 1, 2, 3])).unwrap_err();
        assert!(matches!(full, SoundError::Full { .. }), "{full}");
        // Their calls are over: they go at once. What is placed ahead goes for what is wanted now.
        let later = soon + 2 * HELD_FOR;
        for n in [4, 5, 6] {
            put(n, later, Wanted::Ahead, &these(&[])).unwrap();
        }
        assert!(folder.has(&all[5].0, later, Wanted::Now).unwrap());
        assert!(folder.has(&all[5].0, later, Wanted::Ahead).unwrap(), "still wanted now");
        put(0, later, Wanted::Now, &these(&[])).unwrap();
        put(1, later, Wanted::Now, &these(&[])).unwrap();
        assert_eq!([0, 1, 4, 5, 6].map(is_there), [true, true, false, true, false]);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let folder = SoundFolder::new(place.path().to_owned(), 1_500);
        let (first, second) = (sound(1), sound(2));
        folder.put(&first.0, &first.1, at(9), Wanted::Now, &InUse::These(HashSet::new())).unwrap();
        folder.put(&second.0, &second.1, at(1), Wanted::Now, &InUse::These(HashSet::new())).unwrap();
        assert!(!folder.has(&first.0, at(1), Wanted::Now).unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let folder = SoundFolder::new(place.path().join("file"), 10_000);
        let (hash, wav) = sound(1);
        let error = folder.put(&hash, &wav, at(0), Wanted::Now, &InUse::Unknown).unwrap_err();
        assert!(matches!(error, SoundError::Io { .. }), "{error}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
