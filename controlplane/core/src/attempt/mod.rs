//! One Originate, from sending to its ending.
//!
//! ```text
//!            accepted            183              180             answer
//!  Sending ───────────▶ Dialling ───▶ Progressing ───▶ Ringing ───────────▶ Up
//!     │                    │               │             │                  │
//!     │ not sent,          │ progress      │ ring        │ ring             │ time limit
//!     │ rejected           │ time-out      │ time-out    │ time-out         │
//!     ▼                    ▼               ▼             ▼                  ▼
//!   Ended ◀── Hangup ── HangingUp ◀────────┴─────────────┴──────────────────┘
//!
//!  OriginateResponse Failure ─▶ AwaitingHangup ─▶ AskingRecord ─▶ Ended
//!  link or events lost, Originate unresolved ─▶ Reconciling ─▶ any living state | Ended
//!                                                   (barred by the node's gate: not sent)
//! ```
//!
//! The machine is fed with what one AMI session says of one channel id, in whatever order it comes (an event
//! may precede the response of the action that caused it; `OriginateResponse` precedes `Hangup` nine times
//! of ten, measured), and answers with what to do. It never takes silence for an ending: what is not told
//! is asked for, first the flight recorder, then by reconciliation, and what cannot be settled within
//! [`Limits::reconcile`] ends as unknown or interrupted.

mod event;
mod settling;
mod talking;

use std::time::{Duration, Instant};

pub use self::{
    event::{Answer, Do, Event, Live, Record, Settlement},
    talking::Listening,
};

use crate::{
    call::{AttemptStatus, Rang},
    ending::{EndedBy, Ending, EndingClass, Evidence, Reading, Talk, classify, rang},
    request::Keys,
};

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From acceptance to 180 or 183.
    pub progress: Duration,
    /// From the first 180 (or 183) to the answer.
    pub ring: Duration,
    /// From the answer to the end, whatever the dialplan does.
    pub talk: Duration,
    /// From a cut to the verdict.
    pub reconcile: Duration,
}

/// From `OriginateResponse: Failure` without any channel seen to the question whether there was one: events
/// of one session overtake each other by less than a millisecond (measured), this is a hundred of them.
const CHANNEL_GRACE: Duration = Duration::from_millis(100);
/// From `OriginateResponse: Failure` to the missing `Hangup`, and from our Hangup to Asterisk's.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// How often a channel that does not end is told to, before it is given up.
const HANG_UPS_MAX: u8 = 3;
/// For the flight recorder's answer.
const RECORD_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    Dialling { since: Instant },
    Progressing { since: Instant },
    Ringing { since: Instant },
    Up { since: Instant },
    HangingUp { since: Instant },
    AwaitingHangup { since: Instant },
    AskingRecord { since: Instant, answer: Answer },
    Reconciling { since: Instant },
    Ended,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Attempt {
    state: State,
    limits: Limits,
    reading: Reading,
    begun: Instant,
    accepted: Option<Instant>,
    channel: bool,
    progress: bool,
    ringing: bool,
    answered: bool,
    listening: Listening,
    talk: Talk,
    ended_by: EndedBy,
    /// Nobody watched for a while: a 183 may have been missed.
    blind: bool,
    hang_ups: u8,
    /// Its channel was seen to go.
    gone: bool,
    /// Its record was read, and is of a dialplan that hears no keys.
    is_deaf: bool,
    reported: AttemptStatus,
    reported_rang: Rang,
}

impl Attempt {
    /// An attempt whose Originate is about to leave.
    #[must_use]
    pub const fn new(now: Instant, limits: Limits, reading: Reading) -> Self {
        Self {
            state: State::Sending,
            limits,
            reading,
            begun: now,
            accepted: None,
            channel: false,
            progress: false,
            ringing: false,
            answered: false,
            listening: Listening { keys: Keys::NONE, machine: false },
            talk: Talk::NONE,
            ended_by: EndedBy::Carrier,
            blind: false,
            hang_ups: 0,
            gone: false,
            is_deaf: false,
            reported: AttemptStatus::Sending,
            reported_rang: Rang::No,
        }
    }

    /// An attempt that an earlier process began `age` ago: what is stored of it is where it goes on, and it
    /// is reconciled first. The age tells a carrier's 408 from Timer B.
    #[must_use]
    pub fn resumed(
        now: Instant,
        age: Duration,
        limits: Limits,
        reading: Reading,
        status: AttemptStatus,
        rang: Rang,
    ) -> Self {
        let mut attempt = Self::new(now.checked_sub(age).unwrap_or(now), limits, reading);
        attempt.blind = true;
        attempt.reported_rang = rang;
        attempt.reported = status;
        attempt.answered = status == AttemptStatus::InProgress;
        attempt.ringing = rang == Rang::Yes;
        attempt.progress = rang == Rang::Maybe;
        attempt.channel = attempt.ringing || attempt.progress;
        attempt.state = State::Reconciling { since: now };
        attempt
    }

    /// What is known of ringing by now.
    #[must_use]
    pub fn rang(&self) -> Rang {
        rang(&self.evidence(self.begun, Answer::default()), self.reading.early_media)
    }

    /// Whether a channel of it may live although it has ended with `ending`: nobody saw it go.
    #[must_use]
    pub const fn may_live_on(&self, ending: &Ending) -> bool {
        !self.gone && ending.class.may_have_reached_carrier()
    }

    /// Whether its node is being asked what became of it.
    #[must_use]
    pub const fn is_reconciling(&self) -> bool {
        matches!(self.state, State::Reconciling { .. })
    }

    /// When [`Self::on_deadline`] wants to be called. `None` only while the Originate's own time-out runs
    /// and after the end.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let after = |since: Instant, limit| Some(since + limit);
        match self.state {
            State::Sending | State::Ended => None,
            State::Dialling { since } => after(since, self.limits.progress),
            State::Progressing { since } | State::Ringing { since } => after(since, self.limits.ring),
            State::Up { since } => after(since, self.limits.talk),
            State::HangingUp { since } => after(since, HANGUP_GRACE),
            State::AwaitingHangup { since } if self.channel => after(since, HANGUP_GRACE),
            State::AwaitingHangup { since } => after(since, CHANNEL_GRACE),
            State::AskingRecord { since, .. } => after(since, RECORD_GRACE),
            State::Reconciling { since } => after(since, self.limits.reconcile),
        }
    }

    /// A deadline has come (calling it early does nothing).
    #[must_use]
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Do> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match self.state {
            State::Sending | State::Ended => Vec::new(),
            State::Dialling { .. } => self.hang_up(now, EndedBy::ProgressTimeout),
            // A 183 that is known not to ring was no more than a longer way to nothing.
            State::Progressing { .. } if self.rang() == Rang::No => {
                self.hang_up(now, EndedBy::ProgressTimeout)
            }
            State::Progressing { .. } | State::Ringing { .. } => self.hang_up(now, EndedBy::RingTimeout),
            State::Up { .. } => self.hang_up(now, EndedBy::TimeLimit),
            State::HangingUp { .. } => self.reconcile(now),
            State::AwaitingHangup { .. } => self.ask_record(now, Answer::default()),
            State::AskingRecord { answer, .. } if self.waits_for_a_key() && self.answered => {
                self.end_untold(now, answer)
            }
            State::AskingRecord { answer, .. } => self.end(now, answer),
            State::Reconciling { .. } => self.give_up_unasked(now),
        }
    }

    /// Takes what happened and says what to do.
    #[must_use]
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Do> {
        match (self.state, event) {
            (State::Ended, _) => Vec::new(),
            (State::Sending, Event::NotSent) => self.finish(EndingClass::NotSent),
            (State::Sending, Event::Rejected) => self.finish(EndingClass::Rejected),
            (State::Sending, Event::Unresolved | Event::Cut) => self.reconcile(now),
            (_, Event::NotSent | Event::Rejected | Event::Unresolved) => Vec::new(),
            (_, Event::Accepted) => self.accepted(now),
            (State::Reconciling { .. }, Event::Settled(found)) => self.settled(now, found),
            (_, Event::Settled(_)) => Vec::new(),
            (State::AskingRecord { answer, .. }, Event::Recorded(record)) => {
                self.recorded(now, answer, record)
            }
            (_, Event::Recorded(_)) => Vec::new(),
            (State::Reconciling { .. }, Event::Cut) => Vec::new(),
            (_, Event::Cut) => self.reconcile(now),
            (_, Event::Channel) => {
                self.channel = true;
                self.accepted(now)
            }
            (_, Event::Progress) => self.progressed(now),
            (_, Event::Ringing) => self.rings(now),
            (_, Event::Answered) => self.up(now),
            (_, Event::Key(_) | Event::Machine(_) | Event::Played | Event::NoMedia) => self.talks(now, event),
            (_, Event::HungUp(answer)) => self.hung_up(now, answer),
            (State::HangingUp { .. } | State::AskingRecord { .. }, Event::OriginateFailed { .. }) => {
                Vec::new()
            }
            (_, Event::OriginateFailed { timed_out }) => {
                if timed_out && !self.answered {
                    let rings = self.rang() != Rang::No;
                    self.ended_by = if rings { EndedBy::RingTimeout } else { EndedBy::ProgressTimeout };
                }
                self.state = State::AwaitingHangup { since: now };
                Vec::new()
            }
            (_, Event::Cancel) => self.cancel(now),
        }
    }

    fn accepted(&mut self, now: Instant) -> Vec<Do> {
        self.accepted.get_or_insert(now);
        if self.state != State::Sending {
            return Vec::new();
        }
        if self.ended_by == EndedBy::Cancel {
            return self.hang_up(now, EndedBy::Cancel);
        }
        self.state = State::Dialling { since: now };
        self.report(AttemptStatus::Initiated)
    }

    fn progressed(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = self.accepted(now);
        self.channel = true;
        self.progress = true;
        if matches!(self.state, State::Dialling { .. }) {
            self.state = State::Progressing { since: now };
            if self.rang() == Rang::Yes {
                todo.extend(self.report(AttemptStatus::Ringing));
            }
        }
        // That it may have rung must outlive this process.
        if self.rang() != self.reported_rang {
            self.reported_rang = self.rang();
            todo.push(Do::Report(self.reported));
        }
        todo
    }

    fn rings(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = self.accepted(now);
        self.channel = true;
        self.ringing = true;
        if matches!(self.state, State::Dialling { .. } | State::Progressing { .. }) {
            self.state = State::Ringing { since: now };
        }
        todo.extend(self.report(AttemptStatus::Ringing));
        todo
    }

    fn up(&mut self, now: Instant) -> Vec<Do> {
        let mut todo = self.accepted(now);
        self.channel = true;
        match self.state {
            State::Dialling { .. } | State::Progressing { .. } | State::Ringing { .. } => {
                self.answered = true;
                self.state = State::Up { since: now };
                todo.extend(self.report(AttemptStatus::InProgress));
            }
            // The answer crossed our Hangup: the callee picked up, and hears nothing. It rang; it is not
            // an answered call.
            State::HangingUp { .. } => self.ringing = true,
            State::Sending
            | State::Up { .. }
            | State::AwaitingHangup { .. }
            | State::AskingRecord { .. }
            | State::Reconciling { .. }
            | State::Ended => self.answered = true,
        }
        todo
    }

    fn hung_up(&mut self, now: Instant, answer: Answer) -> Vec<Do> {
        self.channel = true;
        self.gone = true;
        if let State::AskingRecord { since, answer: known } = self.state
            && self.may_have_missed_a_key()
        {
            // It is being read.
            let answer =
                Answer { sip_code: known.sip_code.or(answer.sip_code), q850: known.q850.or(answer.q850) };
            self.state = State::AskingRecord { since, answer };
            return Vec::new();
        }
        let tells = answer.sip_code.is_some() || self.answered || self.ended_by != EndedBy::Carrier;
        if tells && !self.may_have_missed_a_key() && !self.may_have_been_stopped(answer) {
            self.end(now, answer)
        } else {
            self.ask_record(now, answer)
        }
    }

    fn hang_up(&mut self, now: Instant, by: EndedBy) -> Vec<Do> {
        self.ended_by = by;
        self.hang_ups += 1;
        self.state = State::HangingUp { since: now };
        vec![Do::HangUp]
    }

    fn cancel(&mut self, now: Instant) -> Vec<Do> {
        match self.state {
            // The Originate is on its way: it is ended when it has arrived.
            State::Sending => {
                self.ended_by = EndedBy::Cancel;
                Vec::new()
            }
            State::Dialling { .. } | State::Progressing { .. } | State::Ringing { .. } | State::Up { .. } => {
                self.hang_up(now, EndedBy::Cancel)
            }
            // Ended as soon as it is found.
            State::Reconciling { .. } => {
                if self.ended_by == EndedBy::Carrier {
                    self.ended_by = EndedBy::Cancel;
                }
                Vec::new()
            }
            State::HangingUp { .. }
            | State::AwaitingHangup { .. }
            | State::AskingRecord { .. }
            | State::Ended => Vec::new(),
        }
    }

    fn evidence(&self, now: Instant, answer: Answer) -> Evidence {
        Evidence {
            channel: self.channel,
            progress: self.progress,
            ringing: self.ringing,
            answered: self.answered,
            talk: self.talk,
            is_deaf: self.is_deaf && self.waits_for_a_key(),
            blind: self.blind,
            sip_code: answer.sip_code,
            q850: answer.q850,
            dialled: now.saturating_duration_since(self.accepted.unwrap_or(self.begun)),
            ended_by: self.ended_by,
        }
    }

    fn end(&mut self, now: Instant, answer: Answer) -> Vec<Do> {
        let ending = classify(&self.evidence(now, answer), self.reading);
        self.state = State::Ended;
        vec![Do::End(ending)]
    }

    fn finish(&mut self, class: EndingClass) -> Vec<Do> {
        let rang = match (class, self.rang()) {
            (EndingClass::Unknown, Rang::No) => Rang::Maybe,
            (_, rang) => rang,
        };
        self.state = State::Ended;
        vec![Do::End(Ending { talk: self.talk, ..Ending::without_answer(class, rang) })]
    }

    fn report(&mut self, status: AttemptStatus) -> Vec<Do> {
        if status <= self.reported {
            return Vec::new();
        }
        self.reported = status;
        self.reported_rang = self.rang();
        vec![Do::Report(status)]
    }
}

#[cfg(test)]
mod tests;
