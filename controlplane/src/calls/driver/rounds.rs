//! The call's rounds: when one may begin, and what follows one that is over.

use std::time::Duration;

use controlplane_core::{
    call::{Outcome, Reason, Tried as Reached},
    redial::{self, Round},
    selection::Tried,
};
use controlplane_store::calls::{CallEnd, EndCall, Follows, RedialCall, Written};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{AGAIN_MIN, Driver, Step};
use crate::calls::late;

/// Calls that wait for the same window of one number are spread over so long, so that they do not all ask at once.
const THROTTLE_SPREAD: Duration = Duration::from_secs(2);

impl Driver<'_> {
    /// Until when nothing is dialled: the next round's beginning, then what its number's windows say.
    pub(super) async fn held(&mut self, now: Instant) -> Option<Instant> {
        if !self.endings.is_empty() {
            return None;
        }
        if let Some(redial_at) = self.call.redial_at {
            let until = self.at(redial_at, now);
            if until > now {
                return Some(until);
            }
        }
        if let Some(until) = self.hold.take() {
            return Some(self.throttled(until));
        }
        if self.calls.throttle.is_off() {
            return None;
        }
        let (org, to, throttle) = (&self.call.org, &self.call.request.to, &self.calls.throttle);
        let held = self.calls.store.number_held(org, to, throttle, self.calls.clock.now()).await;
        // Where it cannot be read now, the write that begins the attempt decides.
        held.ok().flatten().map(|until| self.throttled(until))
    }

    /// Waits for a window of its number, and a little longer than others that wait for the same.
    fn throttled(&mut self, until: OffsetDateTime) -> Instant {
        self.late = Reason::Throttled;
        self.calls.metrics.call_throttled();
        tracing::info!(call = %self.call.id, to = ?self.call.request.to, %until, "its number was dialled too often");
        self.at(until, Instant::now()) + self.calls.chance.up_to(THROTTLE_SPREAD)
    }

    /// How the call ends by a key that was found after its attempt had ended, here or by an earlier process.
    pub(super) fn decided(&self) -> Option<Reason> {
        let found = self.calls.open().get(&self.call.id).and_then(|task| task.decided);
        found.or_else(|| late::reason(self.call.acknowledgement?.action))
    }

    /// What follows a round that ended so.
    pub(super) fn after_round(&self, reason: Reason, now: OffsetDateTime) -> Follows {
        let (request, call) = (&self.call.request, &self.call);
        // A cancel that comes later ends the call while it waits.
        let policy = request.redial.as_ref().filter(|_| !*self.canceled.borrow());
        let round = Round { number: call.round, reason, endings: &self.endings, ended: now };
        match redial::next_round(policy, round, call.deadline_at) {
            Some(at) => Follows::Round { at },
            None => Follows::End(CallEnd { reason, outcome: self.outcome(reason) }),
        }
    }

    /// Goes where the database says that the call is by now.
    pub(super) fn follow(&mut self, follows: Follows) -> Step {
        match follows {
            Follows::Attempt => Step::Next,
            Follows::Round { at } => {
                self.call.round += 1;
                self.call.redial_at = Some(at);
                self.earlier.append(&mut self.endings);
                (self.tried, self.spent, self.again) = (Tried::default(), Tried::default(), AGAIN_MIN);
                (self.nothing_left_since, self.unusable_since) = (None, None);
                self.late = Reason::DeadlineExceeded;
                self.calls.metrics.call_redialled();
                Step::Next
            }
            Follows::End(end) => {
                self.calls.metrics.call_ended(end.reason);
                Step::Ended
            }
        }
    }

    fn outcome(&self, reason: Reason) -> Outcome {
        reason.outcome(Reached::of(self.earlier.iter().chain(&self.endings)))
    }

    /// Closes a round that has no attempt under way: with the call's end, or with another round.
    pub(super) async fn close(&mut self, reason: Reason) -> Step {
        let at = self.calls.clock.now();
        let follows = self.after_round(self.decided().unwrap_or(reason), at);
        let (call, event_id) = (self.call.id.clone(), self.calls.chance.event_id(at));
        let store = &self.calls.store;
        let written = match follows {
            Follows::End(end) => {
                tracing::info!(%call, %reason, "call ended");
                let end = EndCall { call, end, at, event_id };
                self.calls.durably("end a call", || store.end_call(end.clone())).await
            }
            Follows::Round { at: redial_at } => {
                tracing::info!(%call, %reason, %redial_at, "round ended");
                let redial = RedialCall { call, redial_at, at, event_id };
                self.calls.durably("redial a call", || store.redial_call(redial.clone())).await
            }
            Follows::Attempt => return Step::Next,
        };
        match written {
            Some(Written::Yes { .. }) => self.follow(follows),
            Some(Written::AlreadyEnded) | None => Step::Ended,
        }
    }
}
