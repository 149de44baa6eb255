//! Evidence and what is made of it: who did what, and whether he is banned.
//!
//! ```text
//!   security: AMI's security events ─┐
//!   journald: sshd's entries ────────┼─▶ findings ─▶ judge: Rules::weigh ─▶ the ward: a ban in the kernel
//!   files: lines of logs ────────────┘   (bounded)        └─▶ facts, metrics, findings for the operator
//! ```
//!
//! Every source waits when the queue is full: a log is read later, the journal's child stops writing, and of
//! security events the session's own bounded queue counts what was lost. None of them holds rules: these are in
//! `node_agent_core`.

mod files;
mod journald;
mod judge;
pub(crate) mod lines;
pub(crate) mod metrics;
mod security;
mod tail;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use node_agent_ami::ActionIds;
use node_agent_core::{
    moment::UnixMs,
    observe::ForeignCall,
    offence::Finding,
    patterns::{Filter, InvalidFilter, Matcher},
    rules::{InvalidJail, Jail, JailName, RulesSettings},
};
use node_agent_protocol::fact_kind;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use self::metrics::EvidenceMetrics;
use crate::{
    clock::{Chance, Clock},
    identity::StateDir,
    metrics::Metrics,
    settings::Settings,
    spool::Spool,
    ward::Ward,
};

/// Findings that wait to be weighed.
const PIECES_MAX: usize = 1024;

/// The program that reads the journal.
const JOURNALCTL: &str = "/usr/bin/journalctl";
/// The jail of AMI's security events.
const AMI_JAIL: &str = "asterisk";

/// Why the hardening does not start.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJails {
    /// A jail's numbers.
    #[error("rules: {0}")]
    Rules(#[from] InvalidJail),
    /// A filter.
    #[error("jail {jail}: {error}")]
    Filter {
        /// Of which jail.
        jail: JailName,
        /// What is wrong.
        error: InvalidFilter,
    },
    /// A file with a filter cannot be read.
    #[error("jail {jail}: patterns {}: {error}", path.display())]
    Unreadable {
        /// Of which jail.
        jail: JailName,
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A jail has sources and nothing that reads or weighs them.
    #[error("jail {jail}: {problem}")]
    Jail {
        /// Which.
        jail: JailName,
        /// What is missing.
        problem: &'static str,
    },
}

/// What all of it works with.
pub(crate) struct Parts {
    pub(crate) node: String,
    pub(crate) ward: Ward,
    pub(crate) spool: Spool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) state: StateDir,
    pub(crate) sources: Sources,
    pub(crate) ids: ActionIds,
}

/// Starts every source that is switched on, and the judge.
pub(crate) fn start(settings: &Settings, parts: Parts, tasks: &mut JoinSet<()>) -> Result<(), InvalidJails> {
    let Parts { node, ward, spool, metrics, clock, chance, state, sources, ids } = parts;
    sources.begin(&settings.rules);
    let (intake, pieces) =
        Intake::new(Arc::clone(&metrics), sources, spool.clone(), state.clone(), clock.clone());
    settings.rules.jails.keys().for_each(|jail| metrics.evidence.begin(jail));
    let judge = judge::Judge::new(
        judge::Parts { node, ward, spool, metrics, clock, state },
        &settings.rules,
        &chance,
    )?;
    tasks.spawn(judge.weigh(pieces));
    let enabled = |jail: &JailName| settings.rules.jails.get(jail).is_some_and(|jail| jail.enabled);
    for jail in settings.rules.jails.keys().filter(|jail| jail.as_str() == AMI_JAIL && enabled(jail)) {
        let (login, ids) = (settings.security.clone(), ids.clone());
        tasks.spawn(security::listen(jail.clone(), login, ids, chance.clone(), intake.clone()));
    }
    for (jail, of) in settings.jails.iter().filter(|(jail, _)| enabled(jail)) {
        if of.journal {
            let program = PathBuf::from(JOURNALCTL);
            let matcher = matcher(jail, of.patterns.as_ref())?;
            let journald =
                journald::Journald { jail: jail.clone(), program, matcher, intake: intake.clone() };
            tasks.spawn(journald.read());
        }
        if !of.files.is_empty() {
            let matcher = matcher(jail, of.patterns.as_ref())?;
            tasks.spawn(files::read(jail.clone(), of.files.clone(), matcher, intake.clone()));
        }
    }
    Ok(())
}

/// The jail's own filter, or the shipped one of its name.
pub(crate) fn matcher(jail: &JailName, patterns: Option<&PathBuf>) -> Result<Matcher, InvalidJails> {
    let wrong = |error| InvalidJails::Filter { jail: jail.clone(), error };
    let filter = match patterns {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| InvalidJails::Unreadable {
                jail: jail.clone(),
                path: path.clone(),
                error,
            })?;
            Filter::parse(&text).map_err(wrong)?
        }
        None => {
            let shipped = Filter::shipped().map_err(wrong)?;
            let of_name = shipped.into_iter().find(|filter| filter.name == *jail);
            let problem = "has sources, but no filter is shipped for it: name one in patterns";
            of_name.ok_or(InvalidJails::Jail { jail: jail.clone(), problem })?
        }
    };
    Matcher::new(&filter).map_err(wrong)
}

/// One finding of one jail.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) jail: JailName,
    pub(crate) finding: Finding,
}

/// How sources and jails stand, for people. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    sources: BTreeMap<String, String>,
    jails: Vec<(JailName, &'static str)>,
    foreign_calls: BTreeMap<String, u32>,
    hung_up: BTreeMap<String, u64>,
}

impl Sources {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, rules: &RulesSettings) {
        let mode = |jail: &Jail| match (jail.enabled, jail.simulate) {
            (false, _) => "off",
            (true, true) => "simulate",
            (true, false) => "on",
        };
        self.lock().jails = rules.jails.iter().map(|(name, jail)| (name.clone(), mode(jail))).collect();
    }

    /// For `status` and `jail status`.
    pub(crate) fn seen(&self, metrics: &EvidenceMetrics) -> serde_json::Value {
        let standing = self.lock();
        let jail = |(name, mode): &(JailName, &str)| {
            let mut seen = metrics.seen(name);
            seen["mode"] = json!(mode);
            (name.to_string(), seen)
        };
        let jails: serde_json::Map<_, _> = standing.jails.iter().map(jail).collect();
        let foreign = json!({"now": standing.foreign_calls, "hung_up": standing.hung_up});
        json!({"sources": standing.sources, "jails": jails, "foreign_calls": foreign})
    }

    /// Calls that go out over trunks and that Ringward did not place, at the last reading.
    pub(crate) fn foreign_calls(&self, calls: &[ForeignCall]) {
        let mut counts = BTreeMap::new();
        calls.iter().for_each(|call| *counts.entry(call.endpoint.clone()).or_default() += 1);
        self.lock().foreign_calls = counts;
    }

    /// They are hung up on these trunks: counted from 0, so that the first one is an increase.
    pub(crate) fn hangs_up(&self, endpoints: &BTreeSet<&str>) {
        let counted = &mut self.lock().hung_up;
        for endpoint in endpoints {
            counted.entry((*endpoint).to_owned()).or_default();
        }
    }

    /// One of them was hung up.
    pub(crate) fn hung_up(&self, endpoint: &str) {
        *self.lock().hung_up.entry(endpoint.to_owned()).or_default() += 1;
    }

    pub(crate) fn show(&self, metrics: &EvidenceMetrics) {
        let standing = self.lock();
        metrics.foreign_calls(&standing.foreign_calls, &standing.hung_up);
    }

    /// Says whether that is news.
    fn set(&self, source: &str, state: &str) -> bool {
        let before = self.lock().sources.insert(source.to_owned(), state.to_owned());
        before.as_deref() != Some(state)
    }
}

/// Where sources bring what they found.
#[derive(Debug, Clone)]
pub(crate) struct Intake {
    pieces: mpsc::Sender<Piece>,
    metrics: Arc<Metrics>,
    sources: Sources,
    spool: Spool,
    state: StateDir,
    clock: Clock,
}

impl Intake {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        sources: Sources,
        spool: Spool,
        state: StateDir,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Piece>) {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        (Self { pieces, metrics, sources, spool, state, clock }, receiver)
    }

    fn now(&self) -> UnixMs {
        now(&self.clock)
    }

    /// Waits while the queue is full. What says nothing is not brought.
    async fn bring(&self, jail: &JailName, finding: Finding) {
        if finding != Finding::Neutral {
            // The judge is gone only while the program ends.
            let _ = self.pieces.send(Piece { jail: jail.clone(), finding }).await;
        }
    }

    /// A source is read.
    fn is_up(&self, source: &str, words: &str) {
        self.metrics.evidence.up(source, true);
        if self.sources.set(source, words) {
            tracing::info!(source, state = words, "evidence");
        }
    }

    /// A source is not read. Told once for each reason, with what mends it.
    fn is_down(&self, source: &str, why: &str, fix: &str) {
        self.metrics.evidence.up(source, false);
        if self.sources.set(source, why) {
            tracing::warn!(source, why, fix, "no evidence from there");
            let body = json!({"finding": "evidence_missing", "subject": source, "why": why, "fix": fix});
            self.spool.add(fact_kind::FINDING, body);
        }
    }
}

fn now(clock: &Clock) -> UnixMs {
    UnixMs(u64::try_from(clock.unix_ms()).unwrap_or_default())
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod evidence_tests;
