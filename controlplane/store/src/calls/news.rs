//! What becomes of news of calls: rules over what is written of a call and its attempt, whatever database keeps them.

mod found;

use controlplane_core::{
    call::{AttemptStatus, CallStatus, Rang},
    ending::EndingClass,
    ids::{AttemptId, CallId, EventId, OrgId},
    names::CarrierName,
    number::E164,
    request::{Key, KeyAction},
    throttle::Throttle,
};
use time::OffsetDateTime;

pub(crate) use self::found::Found;
use super::{Account, Advance, BeginAttempt, Begun, CallEnd, EndAttempt, Follows, Hear, Written};
use crate::{
    StoreError,
    error::Failure,
    progress::{self, ACKNOWLEDGED, ATTEMPT_FAILED, event},
};

/// What happens to an attempt.
#[derive(Debug)]
pub(crate) enum News {
    Begin(BeginAttempt),
    Advance(Advance),
    Hear(Hear),
    End(EndAttempt),
}

/// What is answered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Begun(Begun),
    Written(Written),
}

impl Told {
    /// To an attempt that begins.
    pub(crate) fn begun(self, operation: &'static str) -> Result<Begun, StoreError> {
        match self {
            Self::Begun(begun) => Ok(begun),
            Self::Written(written) => Err(astray(operation, written)),
        }
    }

    /// To all else.
    pub(crate) fn written(self, operation: &'static str) -> Result<Written, StoreError> {
        match self {
            Self::Written(written) => Ok(written),
            Self::Begun(begun) => Err(astray(operation, begun)),
        }
    }
}

/// An answer to other news than those that were told.
fn astray(operation: &'static str, answer: impl std::fmt::Debug) -> StoreError {
    StoreError::Corrupt { operation, detail: format!("{answer:?} is no answer to it") }
}

/// What is to be done about news.
#[derive(Debug)]
pub(crate) enum Verdict<'a> {
    /// Nothing.
    Tell(Told),
    Write(Change<'a>),
}

/// What is to be written.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) attempt: Of<'a>,
    /// The call's next step, where it makes one.
    pub(crate) step: Option<Step<'a>>,
    /// What is told when it is written.
    pub(crate) told: Told,
}

/// What is written of the attempt.
#[derive(Debug)]
pub(crate) enum Of<'a> {
    /// It begins.
    New {
        begin: &'a BeginAttempt,
        ordinal: i64,
        round: i32,
        /// Whether its number's start is counted with it.
        counts: bool,
    },
    /// It goes on, or ends.
    Known(Known<'a>),
}

/// An attempt that there is, after the news.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) id: &'a AttemptId,
    pub(crate) status: AttemptStatus,
    pub(crate) rang: Rang,
    /// The first one stays.
    pub(crate) ringing_at: Option<OffsetDateTime>,
    /// The first one stays.
    pub(crate) answered_at: Option<OffsetDateTime>,
    pub(crate) end: Option<&'a EndAttempt>,
    /// The first one stays.
    pub(crate) key: Option<Key>,
    /// A key that decides the call, as it is written of the call.
    pub(crate) decided: Option<&'a Hear>,
}

impl<'a> Known<'a> {
    /// As it was.
    const fn at(id: &'a AttemptId, (status, rang): (AttemptStatus, Rang)) -> Self {
        Self { id, status, rang, ringing_at: None, answered_at: None, end: None, key: None, decided: None }
    }
}

/// A step of a call's log, its row and the outbox.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) event: &'a EventId,
    pub(crate) kind: &'static str,
    pub(crate) org: OrgId,
    pub(crate) call: &'a CallId,
    pub(crate) sequence: i64,
    pub(crate) status: CallStatus,
    pub(crate) end: Option<CallEnd>,
    pub(crate) attempt: &'a AttemptId,
    pub(crate) ending: Option<EndingClass>,
    /// A key that acknowledges.
    pub(crate) key: Option<Key>,
    /// Another round follows, then.
    pub(crate) redial_at: Option<OffsetDateTime>,
    pub(crate) at: OffsetDateTime,
}

impl News {
    pub(crate) const fn call(&self) -> &CallId {
        match self {
            Self::Begin(begin) => &begin.call,
            Self::Advance(advance) => &advance.call,
            Self::Hear(hear) => &hear.call,
            Self::End(end) => &end.call,
        }
    }

    pub(crate) const fn attempt(&self) -> &AttemptId {
        match self {
            Self::Begin(begin) => &begin.attempt,
            Self::Advance(advance) => &advance.attempt,
            Self::Hear(hear) => &hear.attempt,
            Self::End(end) => &end.attempt,
        }
    }

    const fn epoch(&self) -> i64 {
        match self {
            Self::Begin(begin) => begin.epoch,
            Self::Advance(advance) => advance.epoch,
            Self::Hear(hear) => hear.epoch,
            Self::End(end) => end.epoch,
        }
    }

    /// The number whose starts bound when it may be dialled, if they do.
    pub(crate) fn counted(&self) -> Option<(&E164, &Throttle, OffsetDateTime)> {
        match self {
            Self::Begin(begin) if !begin.throttle.is_off() => Some((&begin.to, &begin.throttle, begin.at)),
            Self::Begin(_) | Self::Advance(_) | Self::Hear(_) | Self::End(_) => None,
        }
    }

    /// The account that it takes a place on, where several replicas share that.
    pub(crate) fn account(&self) -> Option<(&CarrierName, Account)> {
        match self {
            Self::Begin(begin) => begin.account.map(|account| (&begin.carrier, account)),
            Self::Advance(_) | Self::Hear(_) | Self::End(_) => None,
        }
    }

    /// Whether nothing is held up when its writing waits for company for some milliseconds: a phone rings or is answered, or
    /// a call is over. What another attempt or a key waits for may not.
    pub(crate) fn may_rest(&self) -> bool {
        match self {
            Self::Advance(advance) => {
                matches!(advance.status, AttemptStatus::Ringing | AttemptStatus::InProgress)
            }
            Self::End(end) => matches!(end.follows, Follows::End(_)),
            Self::Begin(_) | Self::Hear(_) => false,
        }
    }

    /// By what it is known again when it comes twice.
    pub(crate) const fn step(&self) -> Option<&EventId> {
        match self {
            Self::Begin(_) | Self::Advance(_) => None,
            Self::Hear(hear) => Some(&hear.event_id),
            Self::End(end) => Some(&end.event_id),
        }
    }
}

const fn tell(written: Written) -> Verdict<'static> {
    Verdict::Tell(Told::Written(written))
}

fn written<'a>(attempt: Known<'a>, step: Step<'a>) -> Verdict<'a> {
    let told = Told::Written(Written::Yes { sequence: step.sequence });
    Verdict::Write(Change { attempt: Of::Known(attempt), step: Some(step), told })
}

/// What is to be done about `news`, of whose call this is found.
pub(crate) fn decide<'a>(news: &'a News, found: Option<&Found>) -> Result<Verdict<'a>, Failure> {
    let found = found.ok_or_else(|| Failure::Missing(news.call().to_string()))?;
    if found.call.lease_epoch != news.epoch() {
        return Err(Failure::Fenced);
    }
    match news {
        News::Begin(begin) => Ok(begins(news, begin, found)),
        News::Advance(advance) => advances(news, advance, found),
        News::Hear(hear) => hears(news, hear, found),
        News::End(end) => ends(news, end, found),
    }
}

fn begins<'a>(news: &'a News, begin: &'a BeginAttempt, found: &Found) -> Verdict<'a> {
    let call = &found.call;
    let tell = |begun| Verdict::Tell(Told::Begun(begun));
    if call.status.0.is_terminal() {
        return tell(Begun::AlreadyEnded);
    }
    match (&found.open_attempt, call.too_late(begin.at)) {
        (None, None) => {}
        (None, Some(why)) => return tell(Begun::TooLate { why, is_open: false }),
        // The same write again, by a caller that did not hear the first one's answer.
        (Some(attempt), late) if attempt.0 == begin.attempt => {
            let yes = Begun::Yes { sequence: call.sequence };
            return tell(late.map_or(yes, |why| Begun::TooLate { why, is_open: true }));
        }
        (Some(_), _) => return tell(Begun::AlreadyEnded),
    }
    if found.attempt.attempt_of.is_some() {
        // This attempt has ended.
        return tell(Begun::AlreadyEnded);
    }
    let counted = news.counted().filter(|_| !found.round_begun);
    if let Some((_, throttle, now)) = counted
        && let Some(until) = throttle.held_until(&found.starts(), now)
    {
        return tell(Begun::Held { until });
    }
    let status = CallStatus::Initiated;
    let step = found.next(news, &begin.event_id, event(status), status, begin.at);
    let told = Told::Begun(Begun::Yes { sequence: step.sequence });
    let attempt = Of::New { begin, ordinal: found.ordinal + 1, round: call.round, counts: counted.is_some() };
    Verdict::Write(Change { attempt, step: Some(step), told })
}

fn advances<'a>(news: &'a News, advance: &'a Advance, found: &Found) -> Result<Verdict<'a>, Failure> {
    let Some((status, rang)) = found.living(&advance.attempt)? else {
        return Ok(tell(Written::AlreadyEnded));
    };
    if advance.status == AttemptStatus::Ended {
        return Err(Failure::Unexpected("an advance cannot end an attempt".to_owned()));
    }
    let Some(progress) = progress::next(status, rang, advance.status, advance.rang) else {
        return Ok(found.unchanged());
    };
    let now_at = |status| (progress.status == status).then_some(advance.at);
    let attempt = Known {
        ringing_at: now_at(AttemptStatus::Ringing),
        answered_at: now_at(AttemptStatus::InProgress),
        ..Known::at(&advance.attempt, (progress.status, progress.rang))
    };
    Ok(match progress.call {
        Some(status) => {
            written(attempt, found.next(news, &advance.event_id, event(status), status, advance.at))
        }
        None => Verdict::Write(Change {
            attempt: Of::Known(attempt),
            step: None,
            told: Told::Written(Written::Yes { sequence: found.call.sequence }),
        }),
    })
}

fn hears<'a>(news: &'a News, hear: &'a Hear, found: &Found) -> Result<Verdict<'a>, Failure> {
    let status = found.call.status.0;
    let step =
        Step { key: Some(hear.key), ..found.next(news, &hear.event_id, ACKNOWLEDGED, status, hear.at) };
    let Some(living) = found.living(&hear.attempt)? else { return Ok(tell(found.repeated(&step))) };
    if found.attempt.heard_key.is_some() {
        return Ok(found.unchanged());
    }
    let attempt = Known { key: Some(hear.key), decided: Some(hear), ..Known::at(&hear.attempt, living) };
    Ok(match hear.action {
        KeyAction::Acknowledge => written(attempt, step),
        KeyAction::Escalate | KeyAction::Repeat => Verdict::Write(Change {
            attempt: Of::Known(attempt),
            step: None,
            told: Told::Written(Written::Yes { sequence: found.call.sequence }),
        }),
    })
}

fn ends<'a>(news: &'a News, end: &'a EndAttempt, found: &Found) -> Result<Verdict<'a>, Failure> {
    let (status, kind) = match end.follows {
        Follows::End(end) => (end.reason.status(), event(end.reason.status())),
        Follows::Round { .. } => (CallStatus::Queued, ATTEMPT_FAILED),
        Follows::Attempt => (found.call.status.0, ATTEMPT_FAILED),
    };
    let step = Step {
        end: end.follows.end(),
        ending: Some(end.ending),
        redial_at: end.follows.redial_at(),
        ..found.next(news, &end.event_id, kind, status, end.at)
    };
    let Some((_, rang)) = found.living(&end.attempt)? else { return Ok(tell(found.repeated(&step))) };
    let rang = progress::rang_at_end(rang, end.rang);
    let attempt =
        Known { end: Some(end), key: end.talk.key, ..Known::at(&end.attempt, (AttemptStatus::Ended, rang)) };
    Ok(written(attempt, step))
}
