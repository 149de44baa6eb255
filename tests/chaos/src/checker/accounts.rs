//! Rule 12: what the carriers' accounts allow.
use std::{collections::HashMap, time::Duration};

use super::{Rule, Verdict};
use crate::history::{Account, History, Moment};

/// In which starts are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// A start as a carrier saw it.
#[derive(Clone, Copy)]
struct Start {
    at: Moment,
    /// Since its attempt was to begin: the account counted it at a moment between.
    lag: Duration,
}

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let begun = begun(history);
    for account in &history.accounts {
        let Account { carrier, cps_max, channels_max, channels } = account;
        if channels > channels_max {
            verdict.add(Rule::OverLimit, carrier, format!("{channels} channels at a time of {channels_max}"));
        }
        // One more than a second may have, and certainly within one, whatever their way to the carrier took.
        let more = *cps_max as usize + 1;
        if let Some(group) = starts(history, &begun, carrier).windows(more).find(|group| is_within(group)) {
            let first = group.first().map(|start| start.at).unwrap_or_default();
            verdict.add(Rule::OverLimit, carrier, format!("{more} starts in the second from {first:?}"));
        }
    }
}

fn is_within(group: &[Start]) -> bool {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return false };
    let lag = group.iter().map(|start| start.lag).max().unwrap_or_default();
    last.at.saturating_sub(first.at) + lag < WINDOW
}

/// When the attempts of each number were to begin.
fn begun(history: &History) -> HashMap<&str, Vec<Moment>> {
    let mut begun: HashMap<&str, Vec<Moment>> = HashMap::new();
    for call in &history.told {
        begun.entry(&call.number).or_default().extend(call.attempts.iter().map(|attempt| attempt.started_at));
    }
    begun
}

/// A carrier's, in the order in which it saw them.
fn starts(history: &History, begun: &HashMap<&str, Vec<Moment>>, carrier: &str) -> Vec<Start> {
    let start = |number: &str, at: Moment| {
        let before = begun.get(number).and_then(|all| all.iter().filter(|begun| **begun <= at).max());
        Start { at, lag: before.map_or(WINDOW, |begun| at.saturating_sub(*begun)) }
    };
    let seen = history.seen.iter().filter(|dialog| dialog.route.carrier == carrier);
    let mut starts: Vec<_> = seen.map(|dialog| start(&dialog.number, dialog.at)).collect();
    starts.sort_unstable_by_key(|start| start.at);
    starts
}

/// Most calls that a carrier saw begin within a second.
pub(crate) fn most_in_a_second(history: &History, carrier: &str) -> usize {
    let starts = starts(history, &HashMap::new(), carrier);
    let within = |(first, start): (usize, &Start)| {
        starts.partition_point(|other| other.at < start.at + WINDOW) - first
    };
    starts.iter().enumerate().map(within).max().unwrap_or(0)
}
