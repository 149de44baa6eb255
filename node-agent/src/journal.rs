//! Ids that went through the gate, on disk, so that a killed agent's successor can still answer `bar`.
//!
//! Appended before the Originate leaves, not synced: what a process has written outlives it, and a host that
//! lost its memory has lost its calls too. So the journal is good as long as the host has not rebooted, which
//! the first line tells: the kernel's boot id, since when (in seconds of that boot) every id is there, and when
//! this file began. Two files take turns, an hour each. Where the journal cannot be written (a full disk), it is
//! emptied, so that no successor takes it for whole, and calls go on without it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use node_agent_core::{attempt_id::AttemptId, gate::REMEMBERED_AT_LEAST};

use crate::identity::StateDir;

const CURRENT: &str = "attempts";
const BEFORE: &str = "attempts.before";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const UPTIME: &str = "/proc/uptime";

/// How far back every id is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// No Originate ever went through a gate on this host that is not among them.
    Ever,
    /// For so long.
    For(Duration),
}

/// What an earlier process left.
#[derive(Debug, PartialEq, Eq)]
pub struct Past {
    /// Ids that it let through, of the last hour or two.
    pub admitted: Vec<AttemptId>,
    /// How far back these are all.
    pub whole: Whole,
}

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    boot_id: String,
    /// Every id since then is there, in s of this boot; 0: since ever.
    whole_since_s: u64,
    began_s: u64,
}

impl Head {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let boot_id = words.next().filter(|id| !id.is_empty())?.to_owned();
        let (whole_since_s, began_s) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { boot_id, whole_since_s, began_s })
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.boot_id, self.whole_since_s, self.began_s)
    }
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    state: StateDir,
    file: File,
    head: Head,
}

impl Journal {
    /// Reads what is there and goes on writing.
    ///
    /// # Errors
    /// The system's: there is no journal then, and attempts from before this process are unknown.
    pub fn open(state: &StateDir) -> io::Result<(Self, Past)> {
        let boot_id = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Self::open_at(state, &boot_id, uptime_s()?)
    }

    fn open_at(state: &StateDir, boot_id: &str, now_s: u64) -> io::Result<(Self, Past)> {
        let mut admitted = Vec::new();
        let mut head = None;
        let mut is_there = false;
        for name in [BEFORE, CURRENT] {
            let text = match fs::read_to_string(state.path(name)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            is_there = true;
            let mut lines = text.lines();
            // The current file's head speaks for both.
            head = lines.next().and_then(Head::parse).filter(|head| head.boot_id == boot_id);
            admitted.extend(lines.filter_map(|line| line.parse::<AttemptId>().ok()));
        }
        let go_on = head.is_some();
        let whole_since_s = if is_there { now_s.max(1) } else { 0 };
        let head =
            head.unwrap_or_else(|| Head { boot_id: boot_id.to_owned(), whole_since_s, began_s: now_s });
        let whole = match head.whole_since_s {
            0 => Whole::Ever,
            since => Whole::For(Duration::from_secs(now_s.saturating_sub(since))),
        };
        let file = begin(state, &head, go_on)?;
        Ok((Self { state: state.clone(), file, head }, Past { admitted, whole }))
    }

    /// Notes an id, before the Originate leaves.
    ///
    /// # Errors
    /// The system's, such as a full disk: call [`Journal::give_up`].
    pub fn note(&mut self, attempt: AttemptId) -> io::Result<()> {
        // One write: a kill leaves a line or none.
        self.file.write_all(format!("{attempt}\n").as_bytes())
    }

    /// Leaves nothing behind that looks whole.
    ///
    /// # Errors
    /// The system's.
    pub fn give_up(self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// The files take turns when it is time.
    ///
    /// # Errors
    /// The system's, such as a full disk: call [`Journal::give_up`].
    pub fn turn(&mut self) -> io::Result<()> {
        self.turn_at(uptime_s()?)
    }

    fn turn_at(&mut self, now_s: u64) -> io::Result<()> {
        if now_s.saturating_sub(self.head.began_s) <= REMEMBERED_AT_LEAST.as_secs() {
            return Ok(());
        }
        fs::rename(self.state.path(CURRENT), self.state.path(BEFORE))?;
        // What was in the file before last is gone.
        let whole_since_s = match fs::exists(self.state.path(BEFORE)) {
            Ok(true) | Err(_) => self.head.whole_since_s.max(self.head.began_s.max(1)),
            Ok(false) => self.head.whole_since_s,
        };
        self.head = Head { whole_since_s, began_s: now_s, ..self.head.clone() };
        self.file = begin(&self.state, &self.head, false)?;
        Ok(())
    }
}

/// Seconds since this boot, suspension included.
fn uptime_s() -> io::Result<u64> {
    let text = fs::read_to_string(UPTIME)?;
    let seconds = text.split('.').next().and_then(|seconds| seconds.parse().ok());
    seconds.ok_or_else(|| io::Error::other("/proc/uptime cannot be read"))
}

fn begin(state: &StateDir, head: &Head, go_on: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let mut file = options.open(state.path(CURRENT))?;
    if !go_on {
        file.set_len(0)?;
        file.write_all(head.line().as_bytes())?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = REMEMBERED_AT_LEAST.as_secs();

    fn past(state: &StateDir, boot_id: &str, now_s: u64) -> (Journal, usize, Whole) {
        let (journal, past) = Journal::open_at(state, boot_id, now_s).unwrap();
        (journal, past.admitted.len(), past.whole)
    }

    #[test]
    fn a_successor_knows_all_and_for_how_long() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (mut journal, count, whole) = past(&state, "boot-1", 100);
        assert_eq!((count, whole), (0, Whole::Ever));
        journal.note(AttemptId::from_bits(7)).unwrap();
        drop(journal);
        let (mut journal, count, whole) = past(&state, "boot-1", 200);
        assert_eq!((count, whole), (1, Whole::Ever));
        journal.turn_at(100 + HOUR).unwrap();
        assert!(!state.path(BEFORE).exists(), "too early");
        journal.turn_at(101 + HOUR).unwrap();
        journal.note(AttemptId::from_bits(8)).unwrap();
        drop(journal);
        // From here on older files go, and with them the word "ever".
        let (mut journal, count, whole) = past(&state, "boot-1", 200 + HOUR);
        assert_eq!((count, whole), (2, Whole::For(Duration::from_secs(100 + HOUR))));
        journal.turn_at(300 + 2 * HOUR).unwrap();
        let (_, count, whole) = past(&state, "boot-1", 300 + 2 * HOUR);
        assert_eq!((count, whole), (1, Whole::For(Duration::from_secs(199 + HOUR))));
    }

    #[test]
    fn after_a_reboot_or_a_full_disk_the_past_is_a_hole_until_it_is_an_hour_old() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        drop(past(&state, "boot-1", 5000));
        let (journal, _, whole) = past(&state, "boot-2", 40);
        assert_eq!(whole, Whole::For(Duration::ZERO));
        drop(journal);
        let (journal, _, whole) = past(&state, "boot-2", 60);
        assert_eq!(whole, Whole::For(Duration::from_secs(20)), "a restart must not make it whole");
        journal.give_up().unwrap();
        let (_, _, whole) = past(&state, "boot-2", 90);
        assert_eq!(whole, Whole::For(Duration::ZERO));
    }
}
