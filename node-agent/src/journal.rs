//! Ids that went through the gate, on disk, so that a killed agent's successor can still answer `bar`.
//!
//! Appended before the Originate leaves, not synced: what a process has written outlives it, and a host that
//! lost its memory has lost its calls too. So the journal is whole as long as the host has not rebooted since
//! it began, which its first line, the kernel's boot id, tells. Two files take turns, an hour each.

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

/// What an earlier process left.
#[derive(Debug, PartialEq, Eq)]
pub struct Past {
    /// Ids that it let through, of the last hour or two.
    pub admitted: Vec<AttemptId>,
    /// Whether every id of the last hour is among them.
    pub is_whole: bool,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    state: StateDir,
    file: File,
    boot_id: String,
    age: Duration,
}

impl Journal {
    /// Reads what is there and goes on writing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(state: &StateDir) -> io::Result<(Self, Past)> {
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Self::open_of(state, boot_id)
    }

    fn open_of(state: &StateDir, boot_id: String) -> io::Result<(Self, Past)> {
        let mut admitted = Vec::new();
        let mut is_whole = true;
        let mut is_there = false;
        for name in [BEFORE, CURRENT] {
            let text = match fs::read_to_string(state.path(name)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            is_there = true;
            let mut lines = text.lines();
            // No kernel to ask: nothing is certain.
            is_whole &= lines.next() == Some(boot_id.as_str()) && !boot_id.is_empty();
            admitted.extend(lines.filter_map(|line| line.parse::<AttemptId>().ok()));
        }
        // The first start on this host: no Originate ever went through a gate here.
        let is_whole = is_whole || !is_there;
        let file = begin(state, &boot_id, is_there && is_whole)?;
        Ok((Self { state: state.clone(), file, boot_id, age: Duration::ZERO }, Past { admitted, is_whole }))
    }

    /// Notes an id. Must succeed before the Originate leaves.
    ///
    /// # Errors
    /// The system's, such as a full disk.
    pub fn note(&mut self, attempt: AttemptId) -> io::Result<()> {
        // One write: a kill leaves a line or none.
        self.file.write_all(format!("{attempt}\n").as_bytes())
    }

    /// Time has passed: the files take turns when it is time.
    ///
    /// # Errors
    /// The system's.
    pub fn turn(&mut self, passed: Duration) -> io::Result<()> {
        self.age += passed;
        if self.age <= REMEMBERED_AT_LEAST {
            return Ok(());
        }
        fs::rename(self.state.path(CURRENT), self.state.path(BEFORE))?;
        self.file = begin(&self.state, &self.boot_id, false)?;
        self.age = Duration::ZERO;
        Ok(())
    }
}

fn begin(state: &StateDir, boot_id: &str, go_on: bool) -> io::Result<File> {
    let path = state.path(CURRENT);
    let mut file =
        OpenOptions::new().create(true).write(true).append(go_on).truncate(!go_on).mode(0o600).open(path)?;
    if file.metadata()?.len() == 0 {
        file.write_all(format!("{boot_id}\n").as_bytes())?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_knows_and_a_reboot_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let id = AttemptId::from_bits(7);
        let (mut first, past) = Journal::open_of(&state, "boot-1".to_owned()).unwrap();
        assert_eq!(past, Past { admitted: vec![], is_whole: true });
        first.note(id).unwrap();
        drop(first);
        let (mut second, past) = Journal::open_of(&state, "boot-1".to_owned()).unwrap();
        assert_eq!(past, Past { admitted: vec![id], is_whole: true });
        second.turn(REMEMBERED_AT_LEAST + Duration::from_secs(1)).unwrap();
        second.note(AttemptId::from_bits(8)).unwrap();
        drop(second);
        let (_, past) = Journal::open_of(&state, "boot-1".to_owned()).unwrap();
        assert_eq!(past.admitted.len(), 2);
        let (_, past) = Journal::open_of(&state, "boot-2".to_owned()).unwrap();
        assert!(!past.is_whole);
    }
}
