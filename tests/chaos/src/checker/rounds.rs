//! The rules of redials: how many rounds, how soon, after what, and what ends them.
use std::time::Duration;

use controlplane_core::{
    call::{OnUnknown, Rang, Reason},
    ending::EndingClass,
    request::{Redial, RedialOn},
};

use super::{Matter, Rule, Verdict};
use crate::history::{Asked, Attempt, Moment};

/// What a timer may be early by, and what is cut off where moments are written.
const EARLY: Duration = Duration::from_millis(2);
/// An attempt may be under way for so long when a cancel or a deadline comes.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// So long before its deadline a call may end as what its last round was: another one would have come too late.
const NEAR_DEADLINE: Duration = Duration::from_secs(1);

/// The attempts of each round, in order.
pub(super) fn rounds(attempts: &[Attempt]) -> impl Iterator<Item = &[Attempt]> + Clone {
    attempts.chunk_by(|a, b| a.round == b.round)
}

pub(super) fn check(asked: &Asked, matter: &Matter<'_>, verdict: &mut Verdict) {
    let told = matter.told;
    let numbers: Vec<u16> = rounds(&told.attempts).map(|round| round[0].round).collect();
    let redials = asked.redial.as_ref().map_or(0, |redial| u16::from(redial.max));
    let last = numbers.last().copied().unwrap_or(0);
    verdict.redials += usize::from(last.saturating_sub(1));
    if last > redials + 1 || !numbers.iter().copied().eq(1..=last) {
        let how = format!("{}: rounds {numbers:?}, asked for {redials} after the first", told.id);
        verdict.add(Rule::RoundsOver, matter.number, how);
    }
    over(asked, matter, verdict);
    let Some(redial) = &asked.redial else { return };
    let all: Vec<_> = rounds(&told.attempts).collect();
    for pair in all.windows(2) {
        followed(redial, matter, pair[0], pair[1], verdict);
    }
    wanted(asked, redial, matter, last, verdict);
}

/// A round that was followed by another: after what the customer named, not before the delay.
fn followed(
    redial: &Redial,
    matter: &Matter<'_>,
    round: &[Attempt],
    next: &[Attempt],
    verdict: &mut Verdict,
) {
    let (Some(last), Some(first)) = (round.last(), next.first()) else { return };
    if !may_follow(redial, round) {
        let how = format!("{}: {:?} was followed by another round, {redial:?}", matter.told.id, last.ending);
        verdict.add(Rule::DialledAgain, matter.number, how);
    }
    let Some(ended_at) = last.ended_at else { return };
    let not_before = ended_at + Duration::from_secs(redial.delay_s.into());
    if first.started_at + EARLY < not_before {
        let how = format!(
            "{}: round {} began {:?} after the end of the one before, not {} s",
            matter.told.id,
            first.round,
            first.started_at.saturating_sub(ended_at),
            redial.delay_s
        );
        verdict.add(Rule::RedialEarly, matter.number, how);
    }
    // As the wire has it: until then a way had no more INVITEs than the rounds before have attempts.
    let earlier = || matter.told.attempts.iter().filter(|attempt| attempt.round < first.round);
    for route in super::rules::routes(matter) {
        let written = earlier().filter(|attempt| attempt.route == *route).count();
        let on_it = matter.seen.iter().filter(|dialog| dialog.route == *route);
        let seen = on_it.filter(|dialog| dialog.at + EARLY < not_before).count();
        if seen > written {
            let how = format!(
                "{}: {seen} INVITEs from {} at carrier {} before round {} was due, {written} attempts before it",
                matter.told.id, route.node, route.carrier, first.round
            );
            verdict.add(Rule::RedialEarly, matter.number, how);
        }
    }
}

/// Whether the customer named what a round ended with.
fn may_follow(redial: &Redial, round: &[Attempt]) -> bool {
    use EndingClass as C;
    let on = |word| redial.on.contains(&word);
    let Some(last) = round.last() else { return false };
    match last.ending {
        Some(C::UserBusy) => on(RedialOn::Busy),
        Some(C::RingTimeout | C::EndedAfterRinging | C::Unreachable) => on(RedialOn::NoAnswer),
        Some(C::Answered) => on(RedialOn::AnsweredNoAck),
        Some(C::Declined | C::Canceled | C::InvalidNumber) => false,
        // What failed to reach him is no reason, but that he had been reached before.
        Some(_) => {
            on(RedialOn::Interrupted) && round.iter().any(|attempt| attempt.ending == Some(C::Interrupted))
                || on(RedialOn::NoAnswer) && last.rang == Rang::Yes
        }
        None => false,
    }
}

/// Once a call is acknowledged, canceled or past its deadline, nothing is dialled.
fn over(asked: &Asked, matter: &Matter<'_>, verdict: &mut Verdict) {
    let told = matter.told;
    let moments: [(&str, Option<Moment>); 3] = [
        ("it was acknowledged", told.acknowledged.map(|(_, at)| at)),
        ("its cancellation was heard", asked.canceled_at.map(|at| at + UNDER_WAY)),
        ("its deadline", Some(told.deadline_at + UNDER_WAY)),
    ];
    for (what, moment) in moments {
        let late = told.attempts.iter().find(|attempt| moment.is_some_and(|at| attempt.started_at > at));
        if let Some(late) = late {
            let how = format!("{}: {} began after {what}: {:?}", told.id, late.id, told.attempts);
            verdict.add(Rule::DialledWhenOver, matter.number, how);
        }
    }
    if asked.deadline_at.is_some_and(|at| at.abs_diff(told.deadline_at) > EARLY) {
        let how = format!("{}: its deadline is {:?}, not {:?}", told.id, told.deadline_at, asked.deadline_at);
        verdict.add(Rule::ToldWrong, matter.number, how);
    }
}

/// A call that ended with what its customer wanted redialled has had all its rounds, or no time for another.
fn wanted(asked: &Asked, redial: &Redial, matter: &Matter<'_>, last: u16, verdict: &mut Verdict) {
    let told = matter.told;
    let word = match told.reason {
        Some(Reason::RingTimeout | Reason::Unreachable) => RedialOn::NoAnswer,
        Some(Reason::UserBusy) => RedialOn::Busy,
        Some(Reason::AnsweredNoAck) => RedialOn::AnsweredNoAck,
        Some(Reason::Interrupted) => RedialOn::Interrupted,
        Some(_) | None => return,
    };
    if !redial.on.contains(&word) || last > u16::from(redial.max) || asked.canceled {
        return;
    }
    let room = told
        .ended_at
        .is_some_and(|at| at + Duration::from_secs(redial.delay_s.into()) + NEAR_DEADLINE < told.deadline_at);
    if room {
        let how = format!("{} ended {:?} in round {last}, {redial:?}", told.id, told.reason);
        verdict.add(Rule::NotRedialled, matter.number, how);
    } else {
        verdict.hurried += 1;
    }
}

/// With `on_unknown: fail` a phone is heard once a round at most, and nothing is dialled once it was heard in that round.
pub(super) fn heard_once_a_round(asked: &Asked, matter: &Matter<'_>, verdict: &mut Verdict) {
    if asked.on_unknown != OnUnknown::Fail {
        return;
    }
    verdict.fail += 1;
    let told = matter.told;
    // A round lasts until the next one's first attempt is written; the first begins with the call, the last never ends.
    let begins: Vec<Moment> = rounds(&told.attempts)
        .skip(1)
        .filter_map(|round| round.first())
        .map(|first| first.started_at)
        .collect();
    let round_of = |at: Moment| begins.iter().filter(|begin| **begin <= at).count();
    for round in 0..=begins.len() {
        let seen = || matter.seen.iter().filter(|dialog| round_of(dialog.at) == round);
        let heard: Vec<Moment> = seen().filter_map(|dialog| dialog.heard_at).collect();
        let first = heard.iter().min();
        if heard.len() > 1 {
            let how = format!("heard {} times in round {}: {:?}", heard.len(), round + 1, told.attempts);
            verdict.add(Rule::RangTwice, matter.number, how);
        } else if first.is_some_and(|first| seen().any(|dialog| dialog.at > *first)) {
            let how = format!("dialled after it was heard in round {}: {:?}", round + 1, told.attempts);
            verdict.add(Rule::RangTwice, matter.number, how);
        }
    }
}
