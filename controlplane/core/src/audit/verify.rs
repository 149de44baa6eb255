//! Proves that a log is whole, and names what is not.
//!
//! Takes an export's lines in their order, and heads in any. What is missing is judged at the end, since an erasure may
//! come while an export is written.

use std::{collections::BTreeMap, fmt};

use super::{Checkpoint, Hash, Head, Hex, Line, Link, Record, Signed, Statement};

/// Findings that are kept; of more, the report has the number.
pub const FINDINGS_MAX: usize = 100;
/// Heads and checkpoints that are kept. A head a minute is 130,000 in 90 days.
const STATEMENTS_MAX: usize = 1_000_000;

/// Where a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number.
    pub seq: i64,
    /// Its id.
    pub id: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} ({})", self.seq, self.id)
    }
}

/// Something is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A row's content is not what its hash covers.
    Changed(Place),
    /// A row's hash is not the one that the row after it is linked to: the row, or all before it, was written anew.
    Replaced {
        /// The row.
        row: Place,
        /// The row that is linked to another hash.
        next: Place,
    },
    /// The first row is linked to something that is not there.
    NoBeginning(Place),
    /// Rows are not there, and no checkpoint tells of them.
    Missing {
        /// The first.
        from_seq: i64,
        /// The last.
        to_seq: i64,
        /// The row before them.
        after: Option<Place>,
        /// The row behind them.
        before: Option<Place>,
    },
    /// The end was cut off: a head tells of rows that are not there.
    Cut {
        /// The first that is missing.
        from_seq: i64,
        /// The last that a head tells of.
        to_seq: i64,
        /// When that head was signed, in µs since 1970.
        signed_at_us: i64,
        /// The last row that is there.
        after: Option<Place>,
    },
    /// A signed head has another hash for a row: it, or one before it, was written anew after that.
    Rewritten {
        /// The row.
        row: Place,
        /// When the head was signed, in µs since 1970.
        signed_at_us: i64,
    },
    /// Rows do not come by their numbers.
    Disordered(Place),
    /// A head or checkpoint with a wrong signature, or of a key that is not trusted.
    Untrusted {
        /// What it says it is.
        what: &'static str,
        /// Of which row.
        seq: i64,
    },
    /// There is no last line, or it counts other rows.
    Torn,
    /// A line that is none.
    Unreadable {
        /// From 1.
        line: u64,
    },
    /// A filter left rows out.
    Filtered,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = |place: &Option<Place>, none: &str| {
            place.as_ref().map_or_else(|| none.to_owned(), Place::to_string)
        };
        match self {
            Self::Changed(row) => write!(f, "{row} was changed: its content is not what its hash covers"),
            Self::Replaced { row, next } => write!(
                f,
                "{row} was written anew: {next} is linked to another hash than the one that it has now"
            ),
            Self::NoBeginning(row) => {
                write!(f, "{row} is linked to a row that is neither there nor in a checkpoint")
            }
            Self::Missing { from_seq, to_seq, after, before } => write!(
                f,
                "rows {from_seq} to {to_seq} are missing, between {} and {}, and no checkpoint tells of them",
                beside(after, "the beginning"),
                beside(before, "the end")
            ),
            Self::Cut { from_seq, to_seq, signed_at_us, after } => write!(
                f,
                "the end was cut off: rows {from_seq} to {to_seq} are missing behind {}; the head signed at {} tells \
                 of them",
                beside(after, "the beginning"),
                moment(*signed_at_us)
            ),
            Self::Rewritten { row, signed_at_us } => write!(
                f,
                "{row}, or a row before it, was written anew since {}: the head signed then has another hash",
                moment(*signed_at_us)
            ),
            Self::Disordered(row) => write!(f, "{row} does not come in the order of numbers"),
            Self::Untrusted { what, seq } => {
                write!(
                    f,
                    "the {what} of row {seq} has a wrong signature, or one of a key that is not trusted"
                )
            }
            Self::Torn => {
                f.write_str("the export is torn off: its last line is missing or counts other rows")
            }
            Self::Unreadable { line } => write!(f, "line {line} cannot be read"),
            Self::Filtered => f.write_str("the export is a part of the log, by a filter: export it whole"),
        }
    }
}

fn moment(us: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000).ok();
    let text = at.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("{us} µs"))
}

/// What a log turned out to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub findings_total: u64,
    /// Rows that were looked at.
    pub rows: u64,
    /// The first of them.
    pub first: Option<Place>,
    /// The last of them.
    pub last: Option<Place>,
    /// Rows of which checkpoints tell.
    pub erased: i64,
    /// Heads that agree.
    pub heads: u64,
}

impl Report {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings_total == 0
    }
}

/// Rows that are not there.
struct Gap {
    from_seq: i64,
    to_seq: i64,
    prev_hash: Hash,
    next_hash: Hash,
    after: Option<Place>,
    before: Place,
}

/// See the module. `V` tells whether a signature of a key for some bytes is good.
pub struct Verifier<V> {
    is_signed: V,
    trusted: Vec<Hex>,
    heads: BTreeMap<i64, (Hash, i64)>,
    checkpoints: BTreeMap<i64, Checkpoint>,
    gaps: Vec<Gap>,
    last: Option<(Place, Hash)>,
    lines: u64,
    ended: bool,
    report: Report,
}

impl<V: Fn(&Hex, &[u8], &Hex) -> bool> Verifier<V> {
    /// For the signatures of these keys.
    pub fn new(trusted: Vec<Hex>, is_signed: V) -> Self {
        Self {
            is_signed,
            trusted,
            heads: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            gaps: Vec::new(),
            last: None,
            lines: 0,
            ended: false,
            report: Report::default(),
        }
    }

    fn found(&mut self, finding: Finding) {
        self.report.findings_total += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    fn is_good<T: Statement>(&self, signed: &Signed<T>) -> bool {
        self.trusted.contains(&signed.key)
            && (self.is_signed)(&signed.key, &signed.statement.signed_bytes(), &signed.signature)
    }

    /// A head, from outside of the database. All heads come before the export's lines.
    pub fn head(&mut self, signed: &Signed<Head>) {
        let Head { seq, hash, at_us } = signed.statement;
        if !self.is_good(signed) {
            return self.found(Finding::Untrusted { what: "head", seq });
        }
        if self.heads.len() < STATEMENTS_MAX {
            self.heads.entry(seq).or_insert((hash, at_us));
        }
    }

    /// An export's next line, as text.
    pub fn line(&mut self, text: &str) {
        self.lines += 1;
        let line = self.lines;
        match serde_json::from_str::<Line>(text) {
            Ok(Line::AuditExport { filtered, .. }) => {
                if filtered {
                    self.found(Finding::Filtered);
                }
            }
            Ok(Line::AuditCheckpoint(signed)) => self.checkpoint(&signed),
            Ok(Line::AuditRow { link, record }) => self.row(&link, &record),
            Ok(Line::AuditEnd { rows }) => self.ended = rows == self.report.rows,
            Ok(Line::AuditHead(signed)) => self.head(&signed),
            Err(_) => self.found(Finding::Unreadable { line }),
        }
    }

    /// What was erased.
    pub fn checkpoint(&mut self, signed: &Signed<Checkpoint>) {
        if !self.is_good(signed) {
            return self.found(Finding::Untrusted { what: "checkpoint", seq: signed.statement.to_seq });
        }
        let new = &signed.statement;
        // A later one of the same beginning tells of more.
        let known = self.checkpoints.get(&new.from_seq);
        if known.is_none_or(|known| known.to_seq < new.to_seq) && self.checkpoints.len() < STATEMENTS_MAX {
            self.checkpoints.insert(new.from_seq, new.clone());
        }
    }

    /// The next row.
    pub fn row(&mut self, link: &Link, record: &Record) {
        let place = Place { seq: link.seq, id: record.id.clone() };
        let (last_seq, last_hash) =
            self.last.as_ref().map_or((0, Hash::ZERO), |(place, hash)| (place.seq, *hash));
        self.report.rows += 1;
        if link.seq <= last_seq {
            return self.found(Finding::Disordered(place));
        }
        if Link::after(link.seq - 1, link.prev_hash, record).hash != link.hash {
            self.found(Finding::Changed(place.clone()));
        }
        let after = self.last.as_ref().map(|(place, _)| place.clone());
        if link.seq > last_seq + 1 {
            if self.gaps.len() < STATEMENTS_MAX {
                self.gaps.push(Gap {
                    from_seq: last_seq + 1,
                    to_seq: link.seq - 1,
                    prev_hash: last_hash,
                    next_hash: link.prev_hash,
                    after,
                    before: place.clone(),
                });
            }
        } else if link.prev_hash != last_hash {
            self.found(match after {
                Some(row) => Finding::Replaced { row, next: place.clone() },
                None => Finding::NoBeginning(place.clone()),
            });
        }
        if let Some((hash, at_us)) = self.heads.remove(&link.seq) {
            if hash == link.hash {
                self.report.heads += 1;
            } else {
                self.found(Finding::Rewritten { row: place.clone(), signed_at_us: at_us });
            }
        }
        self.report.first.get_or_insert_with(|| place.clone());
        self.last = Some((place, link.hash));
    }

    /// Whether checkpoints, one after the other, tell of all of a gap's rows.
    fn is_told(&self, gap: &Gap) -> bool {
        let (mut at, mut hash) = (gap.from_seq, gap.prev_hash);
        while at <= gap.to_seq {
            // A gap may begin within what a joined checkpoint tells of: rows that were exported and erased after that.
            let told = self.checkpoints.values().rev().find(|c| c.from_seq <= at && at <= c.to_seq);
            let Some(told) = told else { return false };
            if told.from_seq == at && told.prev_hash != hash {
                return false;
            }
            (at, hash) = (told.to_seq.saturating_add(1), told.hash);
        }
        // A checkpoint that tells of rows which are there as well says nothing of the link within it.
        at > gap.to_seq.saturating_add(1) || hash == gap.next_hash
    }

    /// Says what came of it. Without an end, what is there may be the half of it.
    pub fn finish(mut self) -> Report {
        for gap in std::mem::take(&mut self.gaps) {
            if self.is_told(&gap) {
                self.report.erased += gap.to_seq - gap.from_seq + 1;
            } else {
                self.found(Finding::Missing {
                    from_seq: gap.from_seq,
                    to_seq: gap.to_seq,
                    after: gap.after,
                    before: Some(gap.before),
                });
            }
        }
        let last_seq = self.last.as_ref().map_or(0, |(place, _)| place.seq);
        let last_hash = self.last.as_ref().map_or(Hash::ZERO, |(_, hash)| *hash);
        // All may have been erased: then a checkpoint goes on where rows end.
        let (mut end, mut hash) = (last_seq, last_hash);
        while let Some(told) = self.checkpoints.get(&(end + 1)).filter(|told| told.prev_hash == hash) {
            self.report.erased += told.to_seq - end;
            (end, hash) = (told.to_seq, told.hash);
        }
        if let Some((&to_seq, &(_, at_us))) = self.heads.last_key_value()
            && to_seq > end
        {
            let after = self.last.as_ref().map(|(place, _)| place.clone());
            self.found(Finding::Cut { from_seq: end + 1, to_seq, signed_at_us: at_us, after });
        }
        if !self.ended {
            self.found(Finding::Torn);
        }
        self.report.last = self.last.map(|(place, _)| place);
        self.report
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
