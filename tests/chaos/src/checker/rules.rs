//! The rules, one function each.
use std::{collections::BTreeSet, time::Duration};

use controlplane_core::{
    call::{CallStatus, OnUnknown, Rang, Reason},
    ending::EndingClass,
};

use super::{Matter, Rule, SETTLE, Verdict};
use crate::{
    faults::Subject,
    history::{Asked, History, Route, Told},
};

/// An INVITE is late if it comes so long after its call's end: before, it may have been on its way.
const LATE: Duration = Duration::from_secs(1);

pub(super) fn accepted(asked: &Asked, calls: &[&Told], verdict: &mut Verdict) {
    if let Some(id) = &asked.id
        && !calls.iter().any(|call| call.id == *id)
    {
        verdict.add(Rule::Lost, &asked.number, format!("{id} was accepted and does not exist"));
    }
    if calls.len() > 1 {
        let how = format!("{} calls of {} equal POSTs", calls.len(), asked.posts);
        verdict.add(Rule::Doubled, &asked.number, how);
    }
}

pub(super) fn ended(matter: &Matter<'_>, verdict: &mut Verdict) {
    let Matter { number, told, .. } = matter;
    if !told.status.is_terminal() {
        verdict.add(Rule::NotEnded, number, format!("{} is {}", told.id, told.status));
    }
    let gap = told.log.iter().zip(1..).find(|(entry, n)| entry.sequence != *n);
    if let Some((entry, n)) = gap {
        verdict.add(Rule::LogBroken, number, format!("{}: {} where {n} belongs", told.id, entry.sequence));
    }
    let last = told.log.last();
    if last.map(|entry| (entry.sequence, entry.status)) != Some((told.sequence, told.status)) {
        verdict.add(Rule::LogBroken, number, format!("{}: its log ends with {last:?}", told.id));
    }
    let ends = told.log.iter().filter(|entry| entry.status.is_terminal()).count();
    if told.status.is_terminal() && ends != 1 {
        verdict.add(Rule::LogBroken, number, format!("{} ended {ends} times", told.id));
    }
}

/// The routes that were written or seen.
pub(super) fn routes<'a>(matter: &Matter<'a>) -> BTreeSet<&'a Route> {
    let seen = matter.seen.iter().map(|dialog| &dialog.route);
    matter.told.attempts.iter().map(|attempt| &attempt.route).chain(seen).collect()
}

pub(super) fn written(matter: &Matter<'_>, verdict: &mut Verdict) {
    for route in routes(matter) {
        let written = matter.told.attempts.iter().filter(|attempt| attempt.route == *route).count();
        let seen = matter.seen.iter().filter(|dialog| dialog.route == *route).count();
        if seen > written {
            let how = format!(
                "{seen} INVITEs from {} at carrier {}, {written} attempts of {}",
                route.node, route.carrier, matter.told.id
            );
            verdict.add(Rule::NotWritten, matter.number, how);
        }
    }
}

pub(super) fn rings(asked: &Asked, matter: &Matter<'_>, history: &History, verdict: &mut Verdict) {
    let first = matter.seen.iter().filter_map(|dialog| dialog.heard_at).min();
    if let Some(ended_at) = matter.told.ended_at {
        verdict.late += matter.seen.iter().filter(|dialog| dialog.at > ended_at + LATE).count();
    }
    match asked.on_unknown {
        // With a deadline of its own a call may be over before the control plane is back.
        OnUnknown::Retry if asked.kind.rings() && !asked.canceled && asked.deadline_at.is_none() => {
            let fit = history.routes.iter().find(|route| is_fit(route, matter.told, history));
            match (fit, first) {
                (Some(_), Some(_)) => verdict.retry_judged += 1,
                (Some(route), None) => {
                    verdict.retry_judged += 1;
                    let told = matter.told;
                    let how = format!(
                        "never heard, while {} could reach carrier {}: {} ended {:?} after {:?}, attempts {:?}",
                        route.node,
                        route.carrier,
                        told.id,
                        told.reason,
                        told.ended_at.map(|at| at.saturating_sub(told.created_at)),
                        told.attempts
                    );
                    verdict.add(Rule::Unrung, matter.number, how);
                }
                (None, None) => verdict.retry_excused += 1,
                (None, Some(_)) => {}
            }
        }
        OnUnknown::Retry | OnUnknown::Fail => {}
    }
}

/// Whether nothing was the matter with a way for as long as a call lived, and for some time before.
fn is_fit(route: &Route, told: &Told, history: &History) -> bool {
    let Some(ended_at) = told.ended_at else { return false };
    let touched = history.broken.iter().any(|broken| {
        let here = match &broken.subject {
            Subject::Plane(_) => false,
            Subject::Node(node) => *node == route.node,
            Subject::Carrier(carrier) => *carrier == route.carrier,
        };
        let healed = broken.until.map(|until| until + SETTLE);
        here && broken.from <= ended_at && healed.is_none_or(|healed| healed >= told.created_at)
    });
    !touched
}

pub(super) fn told(asked: &Asked, matter: &Matter<'_>, verdict: &mut Verdict) {
    let told = matter.told;
    if told.status == CallStatus::Canceled && !asked.canceled {
        verdict.add(
            Rule::ToldWrong,
            matter.number,
            format!("{} is canceled, and nobody asked for it", told.id),
        );
    }
    for attempt in told.attempts.iter().filter(|attempt| attempt.ending.is_none()) {
        if told.status.is_terminal() {
            verdict.add(Rule::NotEnded, matter.number, format!("{} of {} is open", attempt.id, told.id));
        }
    }
    for pair in told.attempts.windows(2).filter(|pair| pair[0].round == pair[1].round) {
        if let Some(ending) = pair[0].ending.filter(|ending| settled_by_callee(*ending)) {
            let how = format!("{} ended {ending}, and was followed: {:?}", pair[0].id, told.attempts);
            verdict.add(Rule::DialledAgain, matter.number, how);
        }
    }
    for route in routes(matter) {
        let attempts = || told.attempts.iter().filter(|attempt| attempt.route == *route);
        let heard =
            matter.seen.iter().filter(|dialog| dialog.route == *route && dialog.heard_at.is_some()).count();
        let yes = attempts().filter(|attempt| attempt.rang == Rang::Yes).count();
        let possible = attempts().filter(|attempt| attempt.rang != Rang::No).count();
        if heard < yes || heard > possible {
            let how = format!(
                "{} at carrier {}: heard {heard} times, told yes {yes} times and not no {possible} times: {:?}",
                route.node, route.carrier, told.attempts
            );
            verdict.add(Rule::ToldWrong, matter.number, how);
        }
    }
    let code = |wanted: &[u16]| {
        matter.seen.iter().any(|dialog| dialog.code.is_some_and(|code| wanted.contains(&code)))
    };
    let holds = match told.status {
        CallStatus::Completed => code(&[200]),
        CallStatus::Busy => code(&[486, 600, 603]),
        CallStatus::NoAnswer if told.reason == Some(Reason::RingTimeout) => {
            matter.seen.iter().any(|dialog| dialog.heard_at.is_some())
        }
        CallStatus::NoAnswer
        | CallStatus::Queued
        | CallStatus::Initiated
        | CallStatus::Ringing
        | CallStatus::InProgress
        | CallStatus::Canceled
        | CallStatus::Failed => true,
    };
    if !holds {
        let how = format!("{} ended {} {:?}, seen: {:?}", told.id, told.status, told.reason, matter.seen);
        verdict.add(Rule::ToldWrong, matter.number, how);
    }
}

/// Whether an ending tells what the callee did: nobody dials him again for it.
fn settled_by_callee(ending: EndingClass) -> bool {
    matches!(
        ending,
        EndingClass::Answered
            | EndingClass::UserBusy
            | EndingClass::Declined
            | EndingClass::RingTimeout
            | EndingClass::EndedAfterRinging
    )
}

/// The key that acknowledges.
const KEY: char = '1';

pub(super) fn keys(asked: &Asked, matter: &Matter<'_>, history: &History, verdict: &mut Verdict) {
    let told = matter.told;
    let pressed = || history.pressed.iter().filter(|pressed| pressed.number == matter.number);
    if (told.reason == Some(Reason::Acknowledged)) != told.acknowledged.is_some() {
        let how = format!("{} ended {:?}, acknowledged by {:?}", told.id, told.reason, told.acknowledged);
        verdict.add(Rule::ToldWrong, matter.number, how);
    }
    match told.acknowledged {
        Some((key, _)) if pressed().any(|pressed| pressed.key == key) => verdict.acknowledged += 1,
        Some((key, _)) => {
            let how = format!("{} is acknowledged by {key}, which nobody pressed", told.id);
            verdict.add(Rule::NotPressed, matter.number, how);
        }
        None if asked.kind.is_to_press() && !asked.canceled => {
            let heard = pressed().filter(|pressed| pressed.key == KEY).find(|pressed| {
                let by = matter.seen.iter().rev().find(|dialog| {
                    dialog.route.carrier == pressed.carrier
                        && dialog.code == Some(200)
                        && dialog.at < pressed.at
                });
                by.is_some_and(|dialog| is_fit(&dialog.route, told, history))
            });
            if let Some(heard) = heard {
                let how = format!("{} ended {:?}, and was pressed: {heard:?}", told.id, told.reason);
                verdict.add(Rule::Unheard, matter.number, how);
            }
        }
        None => {}
    }
}
