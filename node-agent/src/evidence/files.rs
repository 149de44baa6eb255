//! Log files of one jail: which ones there are, what their lines say, and where each was read up to.
//!
//! Twenty times a second each file is looked at; what its lines amount to is brought before the look after the next, so
//! that a full queue makes this reader wait, and the log waits on the disk. Places are kept on disk every few seconds: after a crash
//! the last few seconds are read again, which harms nobody, since points do not outlive a restart either.

use std::{
    collections::BTreeMap,
    io, mem,
    path::{Path, PathBuf},
    time::Duration,
};

use node_agent_core::{
    moment::UnixMs,
    offence::Finding,
    patterns::{Line, Matcher},
    rules::JailName,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    Intake,
    metrics::{Lost, Read},
    tail::{Begin, Look, Place, Tail},
};

/// Between two looks at a file.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks in one round, as long as there is more: the way to another thread and back costs as much as one of them. Several files share
/// them, and each has one: what a round finds is held in memory.
const LOOKS_MAX: usize = 4;
/// Between two searches for files of a pattern.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// Between two savings of places.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Files of one jail.
const FILES_MAX: usize = 64;
/// A place that was left longer ago is given up: its lines would be weighed as if they were of now, which is right
/// within the ten minutes in which points leak away.
const LEFT_MAX_MS: u64 = 600_000;
const FIX: &str = "name the log's path in [jails.NAME] files, and let the agent read it";

/// On disk, by path.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Places {
    /// When they were saved.
    at: UnixMs,
    places: BTreeMap<PathBuf, Place>,
}

/// What one round over all files found.
#[derive(Default)]
struct Round {
    findings: Vec<Finding>,
    read: [u64; Read::ALL.len()],
    look: Look,
    unreadable: u64,
}

/// The files, and the matcher that reads their lines.
struct Reader {
    patterns: Vec<PathBuf>,
    matcher: Matcher,
    tails: BTreeMap<PathBuf, Tail>,
    /// Of an earlier process.
    left: BTreeMap<PathBuf, Place>,
    /// Files that appear later are new, and read whole.
    has_searched: bool,
    /// What could not be read when it was last looked at.
    failed: BTreeMap<PathBuf, String>,
}

/// Reads for as long as the program runs.
pub(crate) async fn read(jail: JailName, patterns: Vec<PathBuf>, matcher: Matcher, intake: Intake) {
    let name = format!("places.{jail}.json");
    let left = restore(&intake, &name);
    let mut reader = Reader {
        patterns,
        matcher,
        tails: BTreeMap::new(),
        left,
        has_searched: false,
        failed: BTreeMap::new(),
    };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut searched, mut saved, mut more) = (None, Instant::now(), false);
    let mut found = Vec::new();
    loop {
        if !more {
            ticks.tick().await;
        }
        if searched.is_none_or(|at: Instant| at.elapsed() >= SEARCH_EVERY) {
            searched = Some(Instant::now());
            (reader, ()) = blocking(reader, Reader::search).await;
            tell(&jail, &reader, &intake);
        }
        let now = intake.now();
        // What was found before is weighed while the next lines are read, and no further ahead.
        let mut round;
        ((reader, round), ()) = tokio::join!(
            blocking(reader, move |reader| reader.round(now)),
            bring(&jail, mem::take(&mut found), &intake),
        );
        more = round.look.more;
        count(&jail, &round, &intake);
        found = mem::take(&mut round.findings);
        if !more {
            bring(&jail, mem::take(&mut found), &intake).await;
        }
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            let (state, name, at) = (intake.state.clone(), name.clone(), intake.now());
            let kept;
            (reader, kept) = blocking(reader, move |reader| {
                let places = Places { at, places: reader.places() };
                state.write(&name, &serde_json::to_vec(&places)?)
            })
            .await;
            if let Err(error) = kept {
                tracing::warn!(%jail, %error, "where logs were read up to is not kept");
            }
        }
    }
}

async fn bring(jail: &JailName, findings: Vec<Finding>, intake: &Intake) {
    for finding in findings {
        intake.bring(jail, finding).await;
    }
}

/// Runs where waiting for a disk harms nobody.
async fn blocking<T: Send + 'static>(
    mut reader: Reader,
    work: impl FnOnce(&mut Reader) -> T + Send + 'static,
) -> (Reader, T) {
    let done = tokio::task::spawn_blocking(move || {
        let done = work(&mut reader);
        (reader, done)
    });
    match done.await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(_) => std::future::pending().await,
    }
}

fn restore(intake: &Intake, name: &str) -> BTreeMap<PathBuf, Place> {
    let Ok(text) = std::fs::read(intake.state.path(name)) else { return BTreeMap::new() };
    let places: Places = serde_json::from_slice(&text).unwrap_or_default();
    if intake.now().since_ms(places.at) > LEFT_MAX_MS { BTreeMap::new() } else { places.places }
}

fn count(jail: &JailName, round: &Round, intake: &Intake) {
    let metrics = &intake.metrics.evidence;
    for (read, lines) in Read::ALL.iter().zip(round.read) {
        metrics.lines(jail, *read, lines);
    }
    metrics.lost(jail, Lost::Overlong, round.look.overlong);
    metrics.lost(jail, Lost::Half, round.look.half);
    metrics.lost(jail, Lost::SkippedBytes, round.look.skipped_bytes);
    metrics.lost(jail, Lost::Unreadable, round.unreadable);
    if round.look.skipped_bytes > 0 {
        tracing::warn!(%jail, bytes = round.look.skipped_bytes, "a log grew faster than it was read: skipped");
    }
}

fn tell(jail: &JailName, reader: &Reader, intake: &Intake) {
    let source = format!("files:{jail}");
    let open = reader.tails.values().filter(|tail| tail.is_open()).count();
    match reader.failed.first_key_value() {
        Some((path, error)) => intake.is_down(&source, &format!("{}: {error}", path.display()), FIX),
        None if open == 0 => intake.is_down(&source, "there is no such file yet", FIX),
        None => intake.is_up(&source, &format!("reads {open} files")),
    }
}

impl Reader {
    /// Looks for files. The patterns' folders may come and go.
    fn search(&mut self) {
        for path in found(&self.patterns).into_iter().take(FILES_MAX) {
            if self.tails.contains_key(&path) {
                continue;
            }
            let begin = match (self.left.remove(&path), self.has_searched) {
                (Some(place), _) => Begin::At(place),
                (None, false) => Begin::End,
                (None, true) => Begin::Start,
            };
            match Tail::new(&path, &begin) {
                Ok(tail) => {
                    self.failed.remove(&path);
                    self.tails.insert(path, tail);
                }
                Err(error) => drop(self.failed.insert(path, error.to_string())),
            }
        }
        self.has_searched = true;
    }

    /// Some looks at each file.
    fn round(&mut self, now: UnixMs) -> Round {
        let mut round = Round::default();
        let Round { findings, read: [matched, ignored, missed], look: sum, unreadable } = &mut round;
        let matcher = &mut self.matcher;
        let mut take = |line: &[u8]| match matcher.read(line, now) {
            Line::Matched { finding, .. } => {
                *matched += 1;
                findings.push(finding);
            }
            Line::Ignored(_) => *ignored += 1,
            Line::Missed => *missed += 1,
        };
        let looks = (LOOKS_MAX / self.tails.len().max(1)).max(1);
        for (path, tail) in &mut self.tails {
            let mut more = true;
            for _ in 0..looks {
                more = match tail.look(&mut take) {
                    Ok(look) => {
                        sum.overlong += look.overlong;
                        sum.half += look.half;
                        sum.skipped_bytes += look.skipped_bytes;
                        self.failed.remove(path);
                        look.more
                    }
                    Err(error) => {
                        *unreadable += 1;
                        self.failed.insert(path.clone(), error.to_string());
                        false
                    }
                };
                if !more {
                    break;
                }
            }
            sum.more |= more;
        }
        round
    }

    fn places(&self) -> BTreeMap<PathBuf, Place> {
        let place = |(path, tail): (&PathBuf, &Tail)| Some((path.clone(), tail.place().ok()??));
        self.tails.iter().filter_map(place).collect()
    }
}

/// Paths as they are, and for a `*` in a file's name the files that it fits.
fn found(patterns: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (Some((head, tail)), Some(folder)) = (name.split_once('*'), pattern.parent()) else {
            paths.push(pattern.clone());
            continue;
        };
        paths.extend(fitting(folder, head, tail).unwrap_or_default());
    }
    paths.sort();
    paths.dedup();
    paths
}

fn fitting(folder: &Path, head: &str, tail: &str) -> io::Result<Vec<PathBuf>> {
    let fits =
        |name: &str| name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail);
    let entries = std::fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(entries
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_fits_names_and_not_their_rotated_ones() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.access.log", "b.access.log", "a.access.log.1", "access.log", "error.log"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let pattern = |name: &str| folder.path().join(name);
        let names = |patterns: &[PathBuf]| {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            found(patterns).into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[pattern("*access.log")]), ["a.access.log", "access.log", "b.access.log"]);
        assert_eq!(names(&[pattern("later.log"), pattern("error.log")]), ["error.log", "later.log"]);
        assert!(names(&[folder.path().join("none/*.log")]).is_empty());
    }
}
