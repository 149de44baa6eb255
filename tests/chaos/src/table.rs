//! The result of a run, for a person.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

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
    row("  accepted in a second", format!("{:.1}", accepted_per_s(history)));
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
    let mut by_what: BTreeMap<_, Vec<Takeover>> = BTreeMap::new();
    for takeover in takeovers {
        by_what.entry(takeover.what).or_default().push(*takeover);
    }
    let row = |(what, took): (What, Vec<Takeover>)| {
        let value = [50, 99, 100].map(|part| took_ms(&took, part).to_string()).join("/");
        (format!("taken over after {what:?}: {}, ms", took.len()), value)
    };
    by_what.into_iter().map(row).collect()
}

/// So many in a hundred had another owner within so many ms.
fn took_ms(takeovers: &[Takeover], part: usize) -> u128 {
    let mut took: Vec<_> = takeovers.iter().map(|takeover| takeover.took.as_millis()).collect();
    took.sort_unstable();
    let at = (took.len() * part / 100).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or(0)
}

/// The same for a machine: what the bench of replicas is held against.
#[must_use]
pub fn figures(history: &History, verdict: &Verdict) -> Value {
    // One that is stopped in order gives its calls up; with others the lease has to end first.
    let (stopped, lost): (Vec<_>, Vec<_>) =
        history.takeovers.iter().partition(|takeover| takeover.what == What::PlaneStopped);
    let took = |takeovers: &[Takeover]| {
        let [p50, p99, most] = [50, 99, 100].map(|part| took_ms(takeovers, part));
        json!({"calls": takeovers.len(), "p50_ms": p50, "p99_ms": p99, "most_ms": most})
    };
    let accounts: Vec<_> = history
        .accounts
        .iter()
        .map(|account| {
            json!({
                "carrier": account.carrier, "cps_max": account.cps_max,
                "most_starts_in_a_second": most_in_a_second(history, &account.carrier),
                "channels_max": account.channels_max, "most_channels": account.channels,
            })
        })
        .collect();
    json!({
        "calls": history.told.len(), "accepted_per_s": (accepted_per_s(history) * 10.0).round() / 10.0, "attempts": history.told.iter().map(|call| call.attempts.len()).sum::<usize>(),
        "faults": history.broken.len(), "violations": verdict.violations.len(), "taken_over": took(&lost),
        "given_up_in_order": took(&stopped), "accounts": accounts,
    })
}

/// From the first acceptance to the last one: as fast as calls were asked for, where that was not too fast.
fn accepted_per_s(history: &History) -> f64 {
    let accepted = || history.told.iter().map(|call| call.created_at);
    let span = accepted().max().unwrap_or_default().saturating_sub(accepted().min().unwrap_or_default());
    history.told.len() as f64 / span.as_secs_f64().max(f64::EPSILON)
}

fn ends(told: &[Told]) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for call in told {
        let reason = call.reason.map_or("-", |reason| reason.as_str());
        *ends.entry(format!("{} {reason}", call.status)).or_default() += 1;
    }
    ends
}
