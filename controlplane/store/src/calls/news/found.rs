//! What is looked up before it is decided what becomes of news.

use controlplane_core::{
    call::{AttemptStatus, CallStatus, Rang},
    ending::EndingClass,
    ids::{AttemptId, CallId, EventId},
    request::Key,
    throttle::lie_ahead,
};
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;

use super::{News, Step, Verdict, tell};
use crate::{
    calls::Written,
    columns::{Micros, Word, kept},
    error::Failure,
    rows::CallHead,
};

/// What is written of the call and of the attempt that news are of.
#[derive(Debug, FromRow)]
pub(crate) struct Found {
    #[sqlx(flatten)]
    pub(crate) call: CallHead,
    #[sqlx(flatten)]
    pub(crate) attempt: FoundAttempt,
    /// Its attempt that has not ended.
    #[sqlx(default)]
    pub(crate) open_attempt: Option<Word<AttemptId>>,
    /// Of its latest attempt, 0 without one.
    #[sqlx(default)]
    pub(crate) ordinal: i64,
    /// Whether an attempt of its present round was made.
    #[sqlx(default)]
    pub(crate) round_begun: bool,
    /// When rounds to its number began, where that counts; microseconds since 1970, newest first.
    #[sqlx(default)]
    pub(crate) starts: Option<Json<Vec<i64>>>,
    /// The step of a log that has the news' id: this very write, before.
    #[sqlx(flatten)]
    pub(crate) step: FoundStep,
}

/// The attempt that has the news' id, if there is one.
#[derive(Debug, FromRow)]
pub(crate) struct FoundAttempt {
    pub(super) attempt_of: Option<Word<CallId>>,
    attempt_status: Option<Word<AttemptStatus>>,
    rang: Option<Word<Rang>>,
    pub(super) heard_key: Option<Word<Key>>,
}

#[derive(Debug, Default, FromRow)]
pub(crate) struct FoundStep {
    #[sqlx(default)]
    step_of: Option<String>,
    #[sqlx(default)]
    step_sequence: Option<i64>,
    #[sqlx(default)]
    step_reason: Option<String>,
    #[sqlx(default)]
    step_attempt: Option<String>,
    #[sqlx(default)]
    step_ending: Option<String>,
    #[sqlx(default)]
    step_key: Option<Word<Key>>,
    #[sqlx(default)]
    step_redial_at: Option<Micros>,
}

impl Found {
    /// When rounds to its number began.
    pub(super) fn starts(&self) -> Vec<OffsetDateTime> {
        let micros = self.starts.iter().flat_map(|starts| &starts.0).map(|&at| i128::from(at));
        micros.filter_map(|at| OffsetDateTime::from_unix_timestamp_nanos(at * 1_000).ok()).collect()
    }

    /// Whether starts lie ahead of its moment, which then become starts of that moment: they are of a clock that was ahead.
    pub(crate) fn starts_lie_ahead(&self, news: &News) -> bool {
        let counted = news.counted().filter(|_| !self.round_begun);
        counted.is_some_and(|(.., now)| lie_ahead(&self.starts(), now))
    }

    /// The attempt, while neither it nor its call has ended.
    pub(super) fn living(&self, id: &AttemptId) -> Result<Option<(AttemptStatus, Rang)>, Failure> {
        match (&self.attempt.attempt_of, &self.attempt.attempt_status, &self.attempt.rang) {
            (Some(of), Some(status), Some(rang)) if of.0 == self.call.id.0 => {
                let over = self.call.status.0.is_terminal() || status.0 == AttemptStatus::Ended;
                Ok((!over).then_some((status.0, rang.0)))
            }
            _ => Err(Failure::Missing(id.to_string())),
        }
    }

    /// What to answer to an end or a key that finds its work done: `Yes` if that was this very write, known by its
    /// event's id, whose caller did not hear the answer.
    pub(super) fn repeated(&self, step: &Step<'_>) -> Written {
        let found = &self.step;
        let same = found.step_of.as_deref() == Some(step.call.as_str())
            && found.step_reason.as_deref() == step.end.map(|end| end.reason.as_str())
            && found.step_attempt.as_deref() == Some(step.attempt.as_str())
            && found.step_ending.as_deref() == step.ending.map(EndingClass::as_str)
            && found.step_key.as_ref().map(|key| key.0) == step.key
            && found.step_redial_at.map(|at| at.0) == step.redial_at.map(kept);
        match found.step_sequence {
            Some(sequence) if same => Written::Yes { sequence },
            Some(_) | None => Written::AlreadyEnded,
        }
    }

    /// The call's next step, of which nothing more is told yet.
    pub(super) fn next<'a>(
        &self,
        news: &'a News,
        event: &'a EventId,
        kind: &'static str,
        status: CallStatus,
        at: OffsetDateTime,
    ) -> Step<'a> {
        Step {
            event,
            kind,
            org: self.call.org_id.0.clone(),
            call: news.call(),
            sequence: self.call.sequence + 1,
            status,
            end: None,
            attempt: news.attempt(),
            ending: None,
            key: None,
            redial_at: None,
            at,
        }
    }

    pub(super) fn unchanged(&self) -> Verdict<'static> {
        tell(Written::Yes { sequence: self.call.sequence })
    }
}
