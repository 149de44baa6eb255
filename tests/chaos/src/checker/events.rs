//! The rules of webhooks: every step of a call is told at least once, in order, under one id, signed, and as it was.
use std::collections::{BTreeMap, BTreeSet};

use super::{Matter, Rule, Verdict};
use crate::history::{Entry, History, Moment, Posted};

/// The event of a call's end.
const FINISHED: &str = "call.finished";

/// What came of each call, in the order of its coming.
pub(super) type ByCall<'a> = BTreeMap<&'a str, Vec<&'a Posted>>;

pub(super) fn by_call(history: &History) -> ByCall<'_> {
    let mut by_call = ByCall::new();
    for posted in &history.posted {
        by_call.entry(&posted.call).or_default().push(posted);
    }
    by_call
}

/// Whether customers are told of a step: not of a call that waits, unless that is because an attempt of it ended.
fn is_told(entry: &Entry) -> bool {
    entry.of_attempt || entry.status.is_terminal()
}

pub(super) fn check(matter: &Matter<'_>, posted: &[&Posted], verdict: &mut Verdict) {
    let told = matter.told;
    verdict.posted += posted.len();
    if let Some(unsigned) = posted.iter().find(|posted| !posted.signed) {
        verdict.add(Rule::Unsigned, matter.number, format!("{}: {unsigned:?}", told.id));
    }
    // When each step so far was first taken.
    let mut before: Option<(i64, Option<Moment>)> = None;
    for entry in told.log.iter().filter(|entry| is_told(entry)) {
        let of_it: Vec<_> = posted.iter().filter(|posted| posted.sequence == entry.sequence).collect();
        let first_taken = of_it.iter().filter_map(|posted| posted.taken_at).min();
        if first_taken.is_none() {
            let how = format!("{}: step {} ({}) did not arrive", told.id, entry.sequence, entry.status);
            verdict.add(Rule::Untold, matter.number, how);
        }
        let ids: BTreeSet<_> = of_it.iter().map(|posted| posted.id.as_str()).collect();
        if ids.len() > 1 {
            let how = format!("{}: step {} is told as {ids:?}", told.id, entry.sequence);
            verdict.add(Rule::ToldTwice, matter.number, how);
        }
        let first = of_it.iter().map(|posted| posted.at).min();
        if let (Some(first), Some((sequence, taken))) = (first, before)
            && taken.is_none_or(|taken| first < taken)
        {
            let how = format!(
                "{}: step {} came at {first:?}, step {sequence} was taken at {taken:?}",
                told.id, entry.sequence
            );
            verdict.add(Rule::OutOfOrder, matter.number, how);
        }
        before = Some((entry.sequence, first_taken));
        let another = of_it.iter().find(|posted| posted.status != Some(entry.status));
        if let Some(another) = another {
            let how = format!("{}: step {} is {}, told {another:?}", told.id, entry.sequence, entry.status);
            verdict.add(Rule::ToldWrong, matter.number, how);
        }
        if of_it.windows(2).any(|pair| pair[0].id == pair[1].id && pair[0].body != pair[1].body) {
            let how = format!("{}: {ids:?} came again with other bytes", told.id);
            verdict.add(Rule::ToldWrong, matter.number, how);
        }
    }
    finished(matter, posted, verdict);
    let steps: BTreeSet<i64> =
        told.log.iter().filter(|entry| is_told(entry)).map(|entry| entry.sequence).collect();
    if let Some(unknown) = posted.iter().find(|posted| !steps.contains(&posted.sequence)) {
        let how = format!("{} has no such step: {unknown:?}", told.id);
        verdict.add(Rule::ToldWrong, matter.number, how);
    }
}

/// Exactly one end by id, and it is the one that the API tells.
fn finished(matter: &Matter<'_>, posted: &[&Posted], verdict: &mut Verdict) {
    let told = matter.told;
    let ends = || posted.iter().filter(|posted| posted.kind == FINISHED);
    let ids: BTreeSet<_> = ends().map(|posted| posted.id.as_str()).collect();
    verdict.finished += usize::from(ids.len() == 1);
    if ids.len() > 1 {
        let how = format!("{} finished {} times: {ids:?}", told.id, ids.len());
        verdict.add(Rule::ToldTwice, matter.number, how);
    }
    if ids.is_empty() && told.status.is_terminal() && !posted.is_empty() {
        let how = format!("{} is {}, and no {FINISHED} came", told.id, told.status);
        verdict.add(Rule::Untold, matter.number, how);
    }
    if let Some(end) = ends().find(|posted| posted.status != Some(told.status)) {
        let how = format!("{} is {}, told {end:?}", told.id, told.status);
        verdict.add(Rule::ToldWrong, matter.number, how);
    }
}
