//! A filter and its jail's rules tried on a log, without touching anything: what would match, who would be banned.

use std::fmt;

use super::{Does, Filter, InvalidFilter, Line, Matcher};
use crate::{
    moment::UnixMs,
    offence::Finding,
    protected::Protected,
    rules::{Decision, InvalidJail, JailName, Rules, RulesSettings, Verdict},
};

/// Lines that are shown of those that nothing fits.
pub const MISSED_SHOWN_MAX: usize = 20;
/// Bans that are shown.
pub const BANS_SHOWN_MAX: usize = 1000;
/// Bytes of a line that are shown.
const LINE_SHOWN_MAX: usize = 200;

/// Why a trial cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The filter.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// The jail's numbers.
    #[error(transparent)]
    Jail(#[from] InvalidJail),
    /// The filter has no jail.
    #[error("there is no jail {0}")]
    NoJail(JailName),
}

/// A ban that would have been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldBan {
    /// From 1.
    pub line: u64,
    /// By the line's stamp, or that of a line before.
    pub at: Option<UnixMs>,
    /// The ban.
    pub verdict: Verdict,
}

/// What was seen so far.
pub struct Trial {
    filter: Filter,
    matcher: Matcher,
    rules: Rules,
    now: UnixMs,
    last: Option<UnixMs>,
    /// Lines by pattern.
    pub hits: Vec<u64>,
    /// Lines that were read.
    pub lines: u64,
    /// Lines that a pattern takes for offences or logins.
    pub matched: u64,
    /// Lines that a pattern says to ignore.
    pub ignored: u64,
    /// Lines of which a stranger may have chosen the address, or that hold none.
    pub nobody: u64,
    /// The first lines that nothing fits.
    pub missed_lines: Vec<String>,
    /// Bans that would have been made; the first [`BANS_SHOWN_MAX`].
    pub bans: Vec<WouldBan>,
    /// All of them.
    pub bans_made: u64,
    /// Offences of who is protected.
    pub protected: u64,
    /// Offences of who would have been banned already.
    pub banned: u64,
    /// Bans that the breaker would have held back.
    pub held: u64,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("lines", &self.lines)
            .field("matched", &self.matched)
            .finish_non_exhaustive()
    }
}

impl Trial {
    /// Begins. The jail counts as switched on; `now` tells the year of stamps without one.
    ///
    /// # Errors
    /// The filter or its jail cannot be used.
    pub fn new(
        filter: Filter,
        settings: &RulesSettings,
        protected: Protected,
        seed: [u64; 2],
        now: UnixMs,
    ) -> Result<Self, TrialError> {
        let mut settings = settings.clone();
        let jail =
            settings.jails.get_mut(&filter.name).ok_or_else(|| TrialError::NoJail(filter.name.clone()))?;
        jail.enabled = true;
        let rules = Rules::new(&settings, protected, seed)?;
        let matcher = Matcher::new(&filter)?;
        let hits = vec![0; filter.patterns.len()];
        Ok(Self {
            filter,
            matcher,
            rules,
            now,
            last: None,
            hits,
            lines: 0,
            matched: 0,
            ignored: 0,
            nobody: 0,
            missed_lines: Vec::new(),
            bans: Vec::new(),
            bans_made: 0,
            protected: 0,
            banned: 0,
            held: 0,
        })
    }

    /// Lines that nothing fits.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.lines - self.matched - self.ignored
    }

    /// One line, without its line end.
    pub fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        match self.matcher.read(line, self.now) {
            Line::Missed => {
                if self.missed_lines.len() < MISSED_SHOWN_MAX {
                    self.missed_lines.push(shown(line));
                }
            }
            Line::Ignored(pattern) => {
                self.ignored += 1;
                self.hit(pattern);
            }
            Line::Matched { pattern, at, finding } => {
                self.matched += 1;
                self.hit(pattern);
                self.last = at.or(self.last);
                self.weigh(&finding);
            }
        }
    }

    fn hit(&mut self, pattern: usize) {
        if let Some(hits) = self.hits.get_mut(pattern) {
            *hits += 1;
        }
    }

    fn weigh(&mut self, finding: &Finding) {
        if let Finding::Nobody(_) = finding {
            self.nobody += 1;
        }
        match self.rules.weigh(&self.filter.name, finding, self.last.unwrap_or(self.now)) {
            Decision::Ban(verdict) => {
                self.bans_made += 1;
                if self.bans.len() < BANS_SHOWN_MAX {
                    self.bans.push(WouldBan { line: self.lines, at: self.last, verdict });
                }
            }
            Decision::Protected { .. } => self.protected += 1,
            Decision::Held { .. } => self.held += 1,
            Decision::Banned { .. } => self.banned += 1,
            Decision::Count { .. } | Decision::Nothing | Decision::Warn { .. } => {}
        }
    }
}

/// What a terminal can be shown of a stranger's text.
fn shown(line: &[u8]) -> String {
    let cut = line.get(..LINE_SHOWN_MAX).unwrap_or(line);
    String::from_utf8_lossy(cut).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `2026-11-24 12:18:42`, UTC.
struct At(Option<UnixMs>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.0.and_then(|at| i64::try_from(at.0 / 1000).ok());
        let Some(at) = moment.and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok()) else {
            return write!(f, "{:19}", "no time");
        };
        let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
        write!(f, "{date} {hour:02}:{minute:02}:{second:02}")
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Jail {}", self.filter.name)?;
        writeln!(f, "\nPatterns: {} lines matched", self.matched)?;
        for (at, (pattern, hits)) in self.filter.patterns.iter().zip(&self.hits).enumerate() {
            let what = match (pattern.does, pattern.kind) {
                (Does::Offend, Some(kind)) => kind.as_str(),
                (does, _) => does.as_str(),
            };
            writeln!(f, "{:>4}) [{hits}] {what}: {}", at + 1, shown(pattern.regex.as_bytes()))?;
        }
        if self.nobody > 0 {
            writeln!(
                f,
                "\n{} of them count against nobody: no address, or one that a stranger may have chosen",
                self.nobody
            )?;
        }
        if !self.missed_lines.is_empty() {
            writeln!(f, "\nMissed (the first {}):", self.missed_lines.len())?;
            self.missed_lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        writeln!(f, "\nBans: {}", self.bans_made)?;
        for WouldBan { line, at, verdict } in &self.bans {
            writeln!(f, "  {} {} for {} s at line {line}: {verdict}", At(*at), verdict.net, verdict.seconds)?;
        }
        if self.banned > 0 {
            writeln!(f, "  {} offences would not have arrived", self.banned)?;
        }
        if self.held > 0 {
            writeln!(f, "  {} times the breaker would have held a ban back", self.held)?;
        }
        if self.protected > 0 {
            writeln!(f, "  {} offences of who is never banned", self.protected)?;
        }
        let (lines, ignored, matched) = (self.lines, self.ignored, self.matched);
        write!(f, "\nLines: {lines} lines, {ignored} ignored, {matched} matched, {} missed", self.missed())
    }
}
