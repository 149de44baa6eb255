//! Facts that wait to be acknowledged: in memory to be sent, on disk to outlive this process.
//!
//! Bounded by number. When it is full the *oldest are kept*: the beginning of an incident says more than its
//! hundredth repetition, and what was promised to be sent is sent. What does not fit is counted, and one fact
//! says how many were lost once there is room again. On disk it is one line of JSON per fact, appended; lines
//! of acknowledged facts go when the file is written anew. A full disk loses the copy, not the fact.

use std::{
    collections::{HashSet, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use controlplane_core::ids::FactId;
use node_agent_protocol::{FACTS_PER_MESSAGE, Fact, FactBody, Spool as SpoolCounts, Text, fact_kind};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    clock::{Chance, Clock},
    identity::StateDir,
};

const FILE: &str = "facts";
/// Most facts that wait.
pub const FACTS_MAX: usize = 10_000;
/// Bytes of facts in one message, well under its bound.
const MESSAGE_BYTES: usize = 512 * 1024;

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Fact>,
    file: Option<File>,
    lines: usize,
    lost: u64,
    lost_untold: u64,
}

/// The spool. Clones share it.
#[derive(Debug, Clone)]
pub struct Spool {
    inner: Arc<Mutex<Inner>>,
    state: StateDir,
    clock: Clock,
    chance: Chance,
    /// Counts what was added, so that links wake up.
    added: watch::Sender<u64>,
    facts_max: usize,
}

impl Spool {
    /// Reads what an earlier process left.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(state: &StateDir, clock: Clock, chance: Chance) -> io::Result<Self> {
        Self::with_room(state, clock, chance, FACTS_MAX)
    }

    fn with_room(state: &StateDir, clock: Clock, chance: Chance, facts_max: usize) -> io::Result<Self> {
        let text = match std::fs::read_to_string(state.path(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // The last line may be half of one.
        let waiting: VecDeque<Fact> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).take(facts_max).collect();
        let inner = Inner { waiting, file: None, lines: 0, lost: 0, lost_untold: 0 };
        let spool = Self {
            inner: Arc::new(Mutex::new(inner)),
            state: state.clone(),
            clock,
            chance,
            added: watch::Sender::new(0),
            facts_max,
        };
        spool.rewrite(&mut spool.lock());
        Ok(spool)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened. A body over its bound is replaced by a note of that.
    pub fn add(&self, kind: &str, body: Value) {
        let fact = self.fact(kind, body);
        let mut inner = self.lock();
        if inner.waiting.len() >= self.facts_max {
            inner.lost += 1;
            inner.lost_untold += 1;
            return;
        }
        self.append(&mut inner, fact);
        drop(inner);
        self.added.send_modify(|count| *count += 1);
    }

    fn fact(&self, kind: &str, body: Value) -> Fact {
        let body = FactBody::new(body)
            .or_else(|_| FactBody::new(json!({"left_out": "too large"})))
            .unwrap_or_default();
        Fact {
            id: self.chance.fact_id(self.clock.now()),
            fact_kind: Text::cut(kind),
            at_unix_ms: self.clock.unix_ms(),
            body,
        }
    }

    fn append(&self, inner: &mut Inner, fact: Fact) {
        if let (Some(file), Ok(mut line)) = (&mut inner.file, serde_json::to_vec(&fact)) {
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                tracing::warn!(%error, "a fact is kept in memory only");
            }
            inner.lines += 1;
        }
        inner.waiting.push_back(fact);
    }

    /// These are durable elsewhere.
    pub fn acknowledge(&self, ids: &[FactId]) {
        let ids: HashSet<&FactId> = ids.iter().collect();
        let mut inner = self.lock();
        inner.waiting.retain(|fact| !ids.contains(&fact.id));
        let lost = std::mem::take(&mut inner.lost_untold);
        if lost > 0 && inner.waiting.len() < self.facts_max {
            let fact = self.fact(fact_kind::SPOOL_OVERFLOW, json!({"lost": lost}));
            self.append(&mut inner, fact);
            self.added.send_modify(|count| *count += 1);
        } else {
            inner.lost_untold = lost;
        }
        let is_mostly_old = inner.lines > 2 * inner.waiting.len() + 64;
        if is_mostly_old || (inner.waiting.is_empty() && inner.lines > 0) {
            self.rewrite(&mut inner);
        }
    }

    /// The file as the memory is.
    fn rewrite(&self, inner: &mut Inner) {
        let lines: Vec<u8> = inner
            .waiting
            .iter()
            .filter_map(|fact| serde_json::to_vec(fact).ok())
            .flat_map(|line| [line, vec![b'\n']].concat())
            .collect();
        let open = || {
            self.state.write(FILE, &lines)?;
            OpenOptions::new().append(true).mode(0o600).open(self.state.path(FILE))
        };
        match open() {
            Ok(file) => (inner.file, inner.lines) = (Some(file), inner.waiting.len()),
            Err(error) => tracing::warn!(%error, "facts are kept in memory only"),
        }
    }

    /// The oldest that are not among `sent`, as many as fit into one message.
    #[must_use]
    pub fn next(&self, sent: &HashSet<FactId>) -> Vec<Fact> {
        let mut bytes = 0;
        let fits = |fact: &&Fact| {
            bytes += fact.body.value().to_string().len() + 200;
            bytes <= MESSAGE_BYTES
        };
        let inner = self.lock();
        let unsent = inner.waiting.iter().filter(|fact| !sent.contains(&fact.id));
        unsent.take(FACTS_PER_MESSAGE).take_while(fits).cloned().collect()
    }

    /// Wakes whoever sends.
    #[must_use]
    pub fn added(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// For observations and metrics.
    #[must_use]
    pub fn counts(&self) -> SpoolCounts {
        let inner = self.lock();
        let age = |fact: &Fact| self.clock.unix_ms().saturating_sub(fact.at_unix_ms).max(0).unsigned_abs();
        SpoolCounts {
            facts: inner.waiting.len() as u64,
            lost: inner.lost,
            oldest_ms: inner.waiting.front().map_or(0, age),
        }
    }

    /// Makes what was appended durable. Blocks: call it where that harms nobody.
    pub fn sync(&self) {
        let file = self.lock().file.as_ref().and_then(|file| file.try_clone().ok());
        if let Some(Err(error)) = file.map(|file| file.sync_data()) {
            tracing::warn!(%error, "facts could not be synced");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path, room: usize) -> Spool {
        let state = StateDir::open(dir).unwrap();
        Spool::with_room(&state, Clock::system(), Chance::seeded(1), room).unwrap()
    }

    #[test]
    fn facts_outlive_the_process_until_they_are_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 10);
        (0..3).for_each(|n| spool.add(fact_kind::FINDING, json!({"n": n})));
        let ids: Vec<FactId> = spool.next(&HashSet::new()).into_iter().map(|fact| fact.id).collect();
        spool.acknowledge(&ids[..1]);
        drop(spool);
        // A kill in the middle of a line.
        OpenOptions::new().append(true).open(dir.path().join(FILE)).unwrap().write_all(b"{\"fact_i").unwrap();
        // The acknowledged one may come again: the store knows it by its id.
        let again = open(dir.path(), 10);
        let left: HashSet<FactId> = again.next(&HashSet::new()).into_iter().map(|fact| fact.id).collect();
        assert!(ids[1..].iter().all(|id| left.contains(id)));
        assert!(again.next(&left).is_empty());
        again.acknowledge(&ids);
        assert_eq!(again.counts().facts, 0);
    }

    #[test]
    fn when_it_is_full_the_oldest_stay_and_the_loss_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 3);
        (0..5).for_each(|n| spool.add(fact_kind::FINDING, json!({"n": n})));
        let kept = spool.next(&HashSet::new());
        assert_eq!(kept.iter().map(|fact| fact.body.value()["n"].clone()).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spool.counts().lost, 2);
        spool.acknowledge(&[kept[0].id.clone()]);
        let told = spool.next(&HashSet::new()).pop().unwrap();
        assert_eq!(
            (told.fact_kind.as_str(), told.body.value()),
            (fact_kind::SPOOL_OVERFLOW, &json!({"lost": 2}))
        );
    }
}
