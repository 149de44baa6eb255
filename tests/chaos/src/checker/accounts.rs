//! Rule 12: what the carriers' accounts allow.
use std::time::Duration;

use super::{Rule, Verdict};
use crate::history::{Account, History};

/// In which starts are counted.
const WINDOW: Duration = Duration::from_secs(1);

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    for account in &history.accounts {
        let Account { carrier, cps_max, channels_max, channels } = account;
        if channels > channels_max {
            verdict.add(Rule::OverLimit, carrier, format!("{channels} channels at a time of {channels_max}"));
        }
        let starts = most_in_a_second(history, carrier);
        if starts > *cps_max as usize + 1 {
            verdict.add(Rule::OverLimit, carrier, format!("{starts} starts in a second of {cps_max}"));
        }
    }
}

/// Most calls that a carrier saw begin within a second.
pub(crate) fn most_in_a_second(history: &History, carrier: &str) -> usize {
    let seen = history.seen.iter().filter(|dialog| dialog.route.carrier == carrier);
    let mut starts: Vec<_> = seen.map(|dialog| dialog.at).collect();
    starts.sort_unstable();
    let within =
        |(first, start): (usize, &Duration)| starts.partition_point(|other| *other < *start + WINDOW) - first;
    starts.iter().enumerate().map(within).max().unwrap_or(0)
}
