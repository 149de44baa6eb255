//! Who is phoned next about an incident.
//!
//! ```text
//!                 due             accepted            ended by the key 1
//!   waiting ────────────► placing ────────► calling ─────────────────────► (idle) acknowledged
//!      ▲                     │ refused         │ ended otherwise
//!      └─────────────────────┴─────────────────┴──── no number is left ──► (idle) unanswered
//!
//!   any of them, and unanswered: acknowledged or resolved by other means ─► (idle)
//! ```
//!
//! One step at a time: a number is phoned once the call before has ended. `placing` is durable before the call is asked for, and
//! the call is asked for under a key made of the incident and the step: however often that is done, it is one call. A process
//! that dies in between leaves `placing` behind, and the next asks again. Where the incident was over by then, it only looks
//! whether there is such a call, and ends it.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{IncidentStatus, StepResult, hook::HookSettings};
use crate::{
    call::{Outcome, Reason},
    ids::CallId,
    number::E164,
};

/// Before a call that was refused for now is asked for again.
pub const ASK_AGAIN: Duration = Duration::seconds(2);

/// One number that was phoned, or is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The round; the first is 1.
    pub round: u16,
    /// The number.
    pub to: E164,
    /// When its turn began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// The call, once it is accepted.
    pub call: Option<CallId>,
    /// What the call says.
    #[serde(default)]
    pub said: Option<String>,
    /// When its turn was over.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// What came of it.
    pub result: Option<StepResult>,
    /// Why it was refused, by its code.
    pub problem: Option<String>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The next step's turn.
    Waiting {
        /// When it comes.
        until: OffsetDateTime,
    },
    /// The step's call is asked for.
    Placing {
        /// Not before.
        again_at: OffsetDateTime,
    },
    /// The step's call.
    Calling {
        /// Which.
        call: CallId,
        /// When it is ended, unless somebody has answered; `None`: that was looked at.
        until: Option<OffsetDateTime>,
    },
    /// Nothing.
    Idle,
}

/// The machine of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// Where the incident is.
    pub status: IncidentStatus,
    /// What is waited for.
    pub phase: Phase,
    /// What was done so far, in order; of the last one the phase tells.
    pub steps: Vec<Step>,
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time goes on; whether the call that is under way was answered.
    Tick {
        /// Whether somebody listens.
        answered: bool,
    },
    /// The step's call was accepted, now or before.
    Placed(CallId),
    /// It was not.
    Refused {
        /// The problem's code.
        problem: String,
        /// Whether asking again may help.
        for_now: bool,
    },
    /// The step's call, looked for where the incident was over: there is one, or none.
    Found(Option<CallId>),
    /// The call has ended.
    Ended(StepResult),
    /// Somebody has taken note in another way.
    Acknowledge,
    /// It is over.
    Resolve,
}

/// What is to be done, after the machine's new state is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for the call of this step, the first of which is 1.
    Place {
        /// Which.
        step: u16,
    },
    /// Look whether the call of this step was accepted.
    Find {
        /// Which.
        step: u16,
    },
    /// End this call.
    Cancel(CallId),
}

/// What a call that has ended means to its step.
#[must_use]
pub const fn result(reason: Reason, outcome: Outcome) -> StepResult {
    match (reason, outcome) {
        (Reason::Acknowledged, _) | (_, Outcome::Acknowledged) => StepResult::Acknowledged,
        (Reason::Escalated, _) => StepResult::PassedOn,
        (Reason::Api, _) => StepResult::Canceled,
        (_, Outcome::Answered) => StepResult::NotAcknowledged,
        (_, Outcome::Machine) => StepResult::Machine,
        (_, Outcome::NotReached | Outcome::NotTried | Outcome::Unknown) => StepResult::NotReached,
    }
}

impl Escalation {
    /// Of an incident that begins.
    #[must_use]
    pub const fn new(now: OffsetDateTime) -> Self {
        Self { status: IncidentStatus::Escalating, phase: Phase::Waiting { until: now }, steps: Vec::new() }
    }

    /// When it is to be looked at; `None`: when its call has ended, or never.
    #[must_use]
    pub const fn due(&self) -> Option<OffsetDateTime> {
        match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Placing { again_at } => Some(again_at),
            Phase::Calling { until, .. } => until,
            Phase::Idle => None,
        }
    }

    /// The number of the latest step; 0: there was none.
    #[must_use]
    pub fn step(&self) -> u16 {
        u16::try_from(self.steps.len()).unwrap_or(u16::MAX)
    }

    /// Keeps what the latest step's call says.
    pub fn keep_said(&mut self, text: Option<String>) {
        if let Some(step) = self.steps.last_mut() {
            step.said = text;
        }
    }

    /// What follows an event.
    pub fn handle(&mut self, plan: &HookSettings, event: Event, now: OffsetDateTime) -> Option<Action> {
        match event {
            Event::Tick { answered } => self.tick(plan, answered, now),
            Event::Placed(call) => self.placed(plan, call, now),
            Event::Refused { problem, for_now } => {
                self.refused(plan, problem, for_now, now);
                None
            }
            Event::Found(call) => self.found(call, now),
            Event::Ended(result) => {
                if matches!(self.phase, Phase::Calling { .. }) {
                    self.over(plan, result, now);
                }
                None
            }
            Event::Acknowledge => match self.status {
                IncidentStatus::Escalating | IncidentStatus::Unanswered => {
                    self.stop(IncidentStatus::Acknowledged, now)
                }
                IncidentStatus::Acknowledged | IncidentStatus::Resolved => None,
            },
            Event::Resolve => match self.status {
                IncidentStatus::Resolved => None,
                IncidentStatus::Escalating | IncidentStatus::Unanswered | IncidentStatus::Acknowledged => {
                    self.stop(IncidentStatus::Resolved, now)
                }
            },
        }
    }

    fn tick(&mut self, plan: &HookSettings, answered: bool, now: OffsetDateTime) -> Option<Action> {
        let escalates = self.status == IncidentStatus::Escalating;
        match self.phase {
            Phase::Waiting { until } if escalates && now >= until => {
                let step = self.step().saturating_add(1);
                let Some(to) = plan.number(step).cloned() else {
                    (self.status, self.phase) = (IncidentStatus::Unanswered, Phase::Idle);
                    return None;
                };
                let round = plan.round(step);
                self.steps.push(Step {
                    round,
                    to,
                    started_at: now,
                    call: None,
                    said: None,
                    ended_at: None,
                    result: None,
                    problem: None,
                });
                self.phase = Phase::Placing { again_at: now };
                Some(Action::Place { step })
            }
            Phase::Placing { again_at } if now >= again_at => {
                let step = self.step();
                // Nobody was there for longer than it may take: its time begins anew.
                if let Some(last) =
                    self.steps.last_mut().filter(|last| now >= plan.step_ends(last.started_at))
                {
                    last.started_at = now;
                }
                Some(if escalates { Action::Place { step } } else { Action::Find { step } })
            }
            Phase::Calling { ref call, until: Some(until) } if now >= until => {
                let call = call.clone();
                self.phase = Phase::Calling { call: call.clone(), until: None };
                (!answered).then_some(Action::Cancel(call))
            }
            Phase::Waiting { .. } | Phase::Placing { .. } | Phase::Calling { .. } | Phase::Idle => None,
        }
    }

    fn placed(&mut self, plan: &HookSettings, call: CallId, now: OffsetDateTime) -> Option<Action> {
        if !matches!(self.phase, Phase::Placing { .. }) {
            return None;
        }
        if self.status != IncidentStatus::Escalating {
            return self.found(Some(call), now);
        }
        let step = self.steps.last_mut()?;
        step.call = Some(call.clone());
        self.phase = Phase::Calling { call, until: Some(plan.step_ends(step.started_at)) };
        None
    }

    fn refused(&mut self, plan: &HookSettings, problem: String, for_now: bool, now: OffsetDateTime) {
        if !matches!(self.phase, Phase::Placing { .. }) {
            return;
        }
        let Some(step) = self.steps.last_mut() else { return };
        step.problem = Some(problem);
        let again_at = now + ASK_AGAIN;
        if for_now && self.status == IncidentStatus::Escalating && again_at < plan.step_ends(step.started_at)
        {
            self.phase = Phase::Placing { again_at };
        } else {
            self.over(plan, StepResult::Refused, now);
        }
    }

    fn found(&mut self, call: Option<CallId>, now: OffsetDateTime) -> Option<Action> {
        if self.status == IncidentStatus::Escalating || !matches!(self.phase, Phase::Placing { .. }) {
            return None;
        }
        self.phase = Phase::Idle;
        if let Some(step) = self.steps.last_mut() {
            step.call.clone_from(&call);
        }
        self.end_step(StepResult::Canceled, now);
        call.map(Action::Cancel)
    }

    /// The step is over; whose turn is it?
    fn over(&mut self, plan: &HookSettings, result: StepResult, now: OffsetDateTime) {
        self.end_step(result, now);
        let next = self.step().saturating_add(1);
        if self.status != IncidentStatus::Escalating {
            self.phase = Phase::Idle;
        } else if result == StepResult::Acknowledged {
            (self.status, self.phase) = (IncidentStatus::Acknowledged, Phase::Idle);
        } else if next > plan.steps() {
            (self.status, self.phase) = (IncidentStatus::Unanswered, Phase::Idle);
        } else {
            self.phase = Phase::Waiting { until: now + plan.pause(next) };
        }
    }

    /// Nobody else is phoned, and what rings is ended.
    fn stop(&mut self, status: IncidentStatus, now: OffsetDateTime) -> Option<Action> {
        self.status = status;
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Calling { call, .. } => {
                self.end_step(StepResult::Canceled, now);
                Some(Action::Cancel(call))
            }
            // Whether there is a call nobody knows yet.
            Phase::Placing { .. } => {
                self.phase = Phase::Placing { again_at: now };
                None
            }
            Phase::Waiting { .. } | Phase::Idle => None,
        }
    }

    fn end_step(&mut self, result: StepResult, now: OffsetDateTime) {
        if let Some(step) = self.steps.last_mut().filter(|step| step.ended_at.is_none()) {
            (step.ended_at, step.result) = (Some(now), Some(result));
            if result != StepResult::Refused {
                step.problem = None;
            }
        }
    }
}

#[cfg(test)]
#[path = "escalation_tests.rs"]
mod tests;
