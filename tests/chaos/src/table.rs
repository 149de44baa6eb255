//! The result of a run, for a person.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{
    checker::{Verdict, most_in_a_second},
    faults::What,
    history::{History, Takeover, Told},
};

/// Most violations that are written out.
const SHOWN_MAX: usize = 20;

/// A short table.
#[must_use]
pub fn table(history: &History, verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        writeln!(text, "  {name:<44}{value:>8}").ok();
    };
    let again = history.asked.iter().filter(|asked| asked.posts > 1).count();
    row("calls asked for", history.asked.len().to_string());
    row("  of them asked for more than once", again.to_string());
    row("  of them with on_unknown: fail", verdict.fail.to_string());
    row("calls told", history.told.len().to_string());
    row("attempts", history.told.iter().map(|call| call.attempts.len()).sum::<usize>().to_string());
    row("INVITEs that carriers saw", history.seen.len().to_string());
    row("  of them after their call's end", verdict.late.to_string());
    row("retry that had to ring, and was judged", verdict.retry_judged.to_string());
    row("  unrung, but no route was fit all along", verdict.retry_excused.to_string());
    row("acknowledged by a key that was seen", verdict.acknowledged.to_string());
    row(
        "calls that asked for redials",
        history.asked.iter().filter(|asked| asked.redial.is_some()).count().to_string(),
    );
    row("  rounds after the first", verdict.redials.to_string());
    row("  cut short by their deadline", verdict.hurried.to_string());
    row("calls that were canceled", history.asked.iter().filter(|asked| asked.canceled).count().to_string());
    let refused = history.posted.iter().filter(|posted| posted.taken_at.is_none()).count();
    row("events that arrived, each try", verdict.posted.to_string());
    row("  of them refused or left to hang", refused.to_string());
    row("calls with one call.finished", verdict.finished.to_string());
    for (name, value) in takeovers(&history.takeovers) {
        row(&name, value);
    }
    for account in &history.accounts {
        row(
            &format!("most channels at carrier {}, of {}", account.carrier, account.channels_max),
            account.channels.to_string(),
        );
        let starts = most_in_a_second(history, &account.carrier).to_string();
        row(&format!("  starts in a second, of {}", account.cps_max), starts);
    }
    for (end, calls) in ends(&history.told) {
        row(&end, calls.to_string());
    }
    let mut faults: BTreeMap<_, usize> = BTreeMap::new();
    for broken in &history.broken {
        *faults.entry(broken.what).or_default() += 1;
    }
    let faults: Vec<_> = faults.into_iter().map(|(what, times)| format!("{what:?} {times}")).collect();
    writeln!(text, "  faults: {}", faults.join(", ")).ok();
    for violation in verdict.violations.iter().take(SHOWN_MAX) {
        writeln!(text, "VIOLATION {violation}").ok();
    }
    if verdict.violations.len() > SHOWN_MAX {
        writeln!(text, "… {} violations in all: {:?}", verdict.violations.len(), verdict.by_rule()).ok();
    }
    text
}

/// How soon others went on with the calls of one that was broken, by what was done to it.
fn takeovers(takeovers: &[Takeover]) -> Vec<(String, String)> {
    let mut by_what: BTreeMap<_, Vec<u128>> = BTreeMap::new();
    for takeover in takeovers {
        by_what.entry(takeover.what).or_default().push(takeover.took.as_millis());
    }
    let row = |(what, mut took): (What, Vec<u128>)| {
        took.sort_unstable();
        let at = |part: usize| took.get((took.len() * part / 100).min(took.len() - 1)).copied().unwrap_or(0);
        let value = format!("{} / {} / {}", at(50), at(99), at(100));
        (format!("taken over after {what:?}: {}, ms p50/p99/most", took.len()), value)
    };
    by_what.into_iter().map(row).collect()
}

fn ends(told: &[Told]) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for call in told {
        let reason = call.reason.map_or("-", |reason| reason.as_str());
        *ends.entry(format!("{} {reason}", call.status)).or_default() += 1;
    }
    ends
}
