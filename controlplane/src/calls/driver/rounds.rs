//! The call's rounds: when one may begin, and what follows one that is over.

use controlplane_core::{
    call::{Outcome, Reason, Tried as Reached},
    failover,
    redial::{self, Round},
    selection::Tried,
};
use controlplane_store::calls::{CallEnd, EndCall, Follows, RedialCall, Written};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};

use super::{AGAIN_MIN, Driver, Step};
use crate::calls::late;

/// What is known of a number's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// Nothing: to be asked, once.
    Unasked,
    /// It is not held; the write that begins an attempt says more.
    Free,
    /// It is held until then.
    Held(OffsetDateTime),
}

impl Driver<'_> {
    /// Waits for what keeps a round from its first attempt: its beginning, its turn among the calls to its number,
    /// and what that number's windows say. `false`: something has changed, look again.
    pub(super) async fn may_begin(&mut self, now: Instant, deadline: Instant) -> bool {
        if !self.endings.is_empty() {
            return true;
        }
        if let Some(redial_at) = self.call.redial_at {
            let until = self.at(redial_at, now);
            if until > now {
                self.pause(until.min(deadline)).await;
                return false;
            }
        }
        let throttle = self.calls.rules.throttle(&self.call.org);
        if throttle.is_off() {
            return true;
        }
        // While it waits for its number it keeps nobody from a trunk.
        if self.turn.is_none() || self.window != Window::Free {
            self.in_line = None;
        }
        if !self.takes_turn(deadline).await {
            return false;
        }
        if self.window == Window::Unasked {
            let (org, to) = (&self.call.org, &self.call.request.to);
            let held = self.calls.store.number_held(org, to, &throttle, self.calls.clock.now()).await;
            // Where it cannot be read now, the write that begins the attempt decides.
            self.window = held.ok().flatten().map_or(Window::Free, Window::Held);
        }
        let Window::Held(until) = self.window else { return true };
        self.late = Reason::Throttled;
        let calls = self.turn.as_ref().map_or(0, |turn| turn.hold(until));
        self.count_held(calls);
        tracing::debug!(call = %self.call.id, %until, calls, "its number was dialled too often");
        let until = self.at(until, Instant::now());
        self.pause(until.min(deadline)).await;
        if Instant::now() >= until {
            self.window = Window::Unasked;
        }
        false
    }

    /// Waits until no older call is to dial the number. `false`: it did not come to that.
    async fn takes_turn(&mut self, deadline: Instant) -> bool {
        if self.turn.is_none() {
            let number = (self.call.org.clone(), self.call.request.to.clone());
            let now = self.calls.clock.now();
            let turn = self.calls.turns.join(number, &self.call.id, self.was_held, now);
            if turn.is_held() && !self.was_held {
                self.was_held = true;
                self.count_held(1);
            }
            self.turn = Some(turn);
        }
        let Some(turn) = &self.turn else { return false };
        tokio::select! {
            biased;
            () = turn.comes() => true,
            _ = self.canceled.changed() => false,
            () = sleep_until(deadline) => {
                if turn.is_held() {
                    self.late = Reason::Throttled;
                }
                false
            }
        }
    }

    /// Lets the next call to its number try.
    pub(super) fn leave_turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.was_held |= turn.is_held();
        }
    }

    /// Counts calls that are held back for the first time.
    fn count_held(&self, calls: usize) {
        if calls > 0 {
            self.calls.metrics.calls_throttled(calls);
            tracing::info!(call = %self.call.id, to = ?self.call.request.to, calls, "their number was dialled too often");
        }
    }

    /// Why it ends when no trunk is left for it.
    pub(super) fn without_trunk(&self) -> Reason {
        match self.endings.last() {
            None if self.is_unplaced => Reason::MediaError,
            None => Reason::NoHealthyRoute,
            Some(last) => failover::exhausted(*last, self.call.request.on_unknown),
        }
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
        let policy = request.redial.as_ref().filter(|_| !self.is_canceled());
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
                self.window = Window::Unasked;
                self.late = Reason::DeadlineExceeded;
                self.calls.metrics.call_redialled();
                Step::Next
            }
            Follows::End(end) => {
                self.calls.metrics.call_ended(end.reason);
                self.calls.traces.ended(&self.call.id);
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
        let epoch = self.call.claim.epoch;
        let store = &self.calls.store;
        let written = match follows {
            Follows::End(end) => {
                tracing::info!(%call, %reason, "call ended");
                let end = EndCall { call, epoch, end, at, event_id };
                self.calls.durably("end a call", || store.end_call(end.clone())).await
            }
            Follows::Round { at: redial_at } => {
                tracing::info!(%call, %reason, %redial_at, "round ended");
                let redial = RedialCall { call, epoch, redial_at, at, event_id };
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
