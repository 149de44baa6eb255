//! Facts that wait to be acknowledged: in memory to be sent, on disk to outlive this process.
//!
//! Bounded by number. When it is full the *oldest are kept*: the beginning of an incident says more than its
//! hundredth repetition, and what was promised to be sent is sent. What does not fit is counted, and one fact
//! says how many were lost once there is room again. On disk it is one line of JSON per fact, appended; lines
//! of acknowledged facts go when all are acknowledged or when the file is written anew. A full disk loses the copy, not the
//! fact. Nobody who adds or acknowledges facts waits for a sync of the disk: a ban would.

use std::{
    collections::{HashSet, VecDeque},
    fs::{File, OpenOptions},
    io::{self, Write},
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
/// So many lines of acknowledged facts, and as many again as facts wait, may be in the file.
const OLD_LINES: usize = 64;
/// Bytes of facts in one message, well under its bound.
const MESSAGE_BYTES: usize = 512 * 1024;

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Fact>,
    file: Option<File>,
    lines: usize,
    /// While the file is written anew: lines that are not in it yet.
    meanwhile: Option<Vec<u8>>,
    lost: u64,
    lost_untold: u64,
}

impl Inner {
    fn is_mostly_old(&self) -> bool {
        self.lines > 2 * self.waiting.len() + OLD_LINES
    }
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
    /// One at a time.
    rewriting: Arc<Mutex<()>>,
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
        let inner = Inner { waiting, file: None, lines: 0, meanwhile: None, lost: 0, lost_untold: 0 };
        let spool = Self {
            inner: Arc::new(Mutex::new(inner)),
            state: state.clone(),
            clock,
            chance,
            added: watch::Sender::new(0),
            rewriting: Arc::default(),
            facts_max,
        };
        spool.rewrite();
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
            if let Some(meanwhile) = &mut inner.meanwhile {
                meanwhile.extend(line);
            }
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
        // In its place: half-done, facts come again, and whoever keeps them knows them by their id.
        if inner.waiting.is_empty()
            && inner.lines > 0
            && inner.meanwhile.is_none()
            && inner.file.as_ref().is_some_and(|file| file.set_len(0).is_ok())
        {
            inner.lines = 0;
        }
    }

    /// Whether [`Spool::sync`] would write the file anew.
    #[must_use]
    pub fn is_mostly_old(&self) -> bool {
        self.lock().is_mostly_old()
    }

    /// The file as the memory is. Others are held up only while it takes the old one's place.
    fn rewrite(&self) {
        let _one = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, count) = {
            let mut inner = self.lock();
            inner.meanwhile = Some(Vec::new());
            let lines = inner.waiting.iter().filter_map(|fact| serde_json::to_vec(fact).ok());
            (lines.flat_map(|line| [line, vec![b'\n']].concat()).collect::<Vec<u8>>(), inner.waiting.len())
        };
        let prepared = self.state.prepare(FILE, &lines);
        let done = {
            let mut inner = self.lock();
            let meanwhile = inner.meanwhile.take().unwrap_or_default();
            let put = prepared.and_then(|mut file| {
                file.write_all(&meanwhile)?;
                self.state.put(FILE)?;
                OpenOptions::new().append(true).open(self.state.path(FILE))
            });
            put.map(|file| {
                let added = meanwhile.iter().filter(|byte| **byte == b'\n').count();
                (inner.file, inner.lines) = (Some(file), count + added);
            })
        };
        if let Err(error) = done.and_then(|()| self.state.sync()) {
            tracing::warn!(%error, "facts are kept in memory only");
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

    /// Makes what was appended durable, and the file anew where most of it is old. Blocks: call it where that harms nobody.
    pub fn sync(&self) {
        if self.is_mostly_old() {
            self.rewrite();
        }
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

    /// Whoever adds a fact waits for whoever acknowledges: a ban, for two syncs of a disk.
    #[test]
    fn acknowledging_writes_no_file_anew() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 1000);
        let file = || std::fs::metadata(dir.path().join(FILE)).unwrap();
        let before = file().ino();
        let ids = |spool: &Spool| -> Vec<_> {
            spool.next(&HashSet::new()).into_iter().map(|fact| fact.id).collect()
        };
        for _ in 0..3 {
            spool.add(fact_kind::FINDING, json!({}));
            spool.acknowledge(&ids(&spool));
            assert_eq!((file().ino(), file().len()), (before, 0), "emptied in its place");
        }
        for _ in 0..200 {
            spool.add(fact_kind::FINDING, json!({}));
        }
        while spool.counts().facts > 1 {
            let mut all = ids(&spool);
            all.truncate(all.len().min(spool.counts().facts as usize - 1));
            spool.acknowledge(&all);
        }
        assert_eq!(file().ino(), before);
        spool.sync();
        assert!(file().ino() != before && file().len() < 500, "mostly old: {}", file().len());
        spool.add(fact_kind::FINDING, json!({}));
        drop(spool);
        assert_eq!(open(dir.path(), 1000).counts().facts, 2);
    }

    #[test]
    fn what_is_added_while_the_file_is_written_anew_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), 10_000);
        let (threads, each) = (2, 400);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for n in 0..each {
                        spool.add(fact_kind::FINDING, json!({"n": n}));
                        // One of two stays.
                        if n % 2 == 0
                            && let Some(fact) = spool.next(&HashSet::new()).pop()
                        {
                            spool.acknowledge(&[fact.id]);
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20 {
                    spool.rewrite();
                }
            });
        });
        let left = spool.counts().facts;
        drop(spool);
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let lines: HashSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), text.lines().count(), "none twice");
        let again = open(dir.path(), 10_000).counts().facts;
        assert!(left > 300 && again >= left, "{again} of {left}");
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
