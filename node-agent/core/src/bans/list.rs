//! Lists as plain text: one address or network a line, `#` or `;` begins a comment.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Bans, By, Change, Order, Refusal, is_single};
use crate::moment::UnixMs;

/// Lines that one import may have.
pub const LINES_MAX: usize = 500_000;
/// Complaints that one import tells in full.
pub const COMPLAINTS_MAX: usize = 1000;

/// What came of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// For the kernel's sets.
    pub change: Change,
    /// Lines that held a net.
    pub nets: usize,
    /// The first [`COMPLAINTS_MAX`] lines that were not taken, by number from 1.
    pub complaints: Vec<Complaint>,
    /// Lines that were not taken.
    pub not_taken: usize,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Complaint {
    /// From 1.
    pub line: usize,
    /// Why.
    pub problem: Problem,
}

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is no address and no network.
    #[error("no address and no network")]
    NoNet,
    /// It may not be banned.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The list is too long; nothing from here on was read.
    #[error("a list has at most 500000 lines")]
    TooLong,
}

/// Reads a line: nothing, a net, or neither.
#[must_use]
pub fn net_of(line: &str) -> Option<Result<IpNet, Problem>> {
    let text = line.split(['#', ';']).next().unwrap_or_default().trim();
    if text.is_empty() {
        return None;
    }
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    Some(net.map_err(|_| Problem::NoNet))
}

impl Bans {
    /// Bans every net of a list, for the same time and reason. What cannot be banned is told by line; the rest is.
    pub fn import(&mut self, text: &str, seconds: Option<u32>, by: &By, now: UnixMs) -> Imported {
        let mut imported = Imported::default();
        for (at, line) in text.lines().enumerate() {
            let outcome = match net_of(line) {
                _ if at >= LINES_MAX => Err(Problem::TooLong),
                None => continue,
                Some(Err(problem)) => Err(problem),
                Some(Ok(net)) => {
                    imported.nets += 1;
                    let order = Order { net, seconds, by: by.clone(), jail: None };
                    self.ban(order, now).map_err(Problem::from)
                }
            };
            match outcome {
                Ok(change) => imported.change.join(change),
                Err(problem) => {
                    imported.not_taken += 1;
                    if imported.complaints.len() < COMPLAINTS_MAX {
                        imported.complaints.push(Complaint { line: at + 1, problem });
                    }
                    if at >= LINES_MAX {
                        break;
                    }
                }
            }
        }
        imported
    }

    /// All bans as such a list, by address.
    #[must_use]
    pub fn export(&self) -> String {
        self.all().map(|ban| line_of(&ban.net)).collect()
    }
}

/// The line of a net.
#[must_use]
pub fn line_of(net: &IpNet) -> String {
    match net {
        IpNet::V4(v4) if is_single(net) => format!("{}\n", v4.addr()),
        IpNet::V4(_) | IpNet::V6(_) => format!("{net}\n"),
    }
}
