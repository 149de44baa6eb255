//! The beginning of an attempt: written, and looked at once more before its Originate leaves.
//!
//! The write may take long, or be repeated until a database is back. Nothing leaves at or after the call's deadline,
//! nor once a cancel was answered: the write refuses it, and what came while it was under way is seen after it.

use controlplane_core::{
    call::{Rang, Reason},
    ending::{EndingClass, Talk},
    throttle::Throttle,
};
use controlplane_store::calls::{BeginAttempt, Begun, EndAttempt, Follows, TooLate, Written};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Driver, Step, rounds::Window};
use crate::{calls::place::Place, registry::Assignment};

/// Between two looks whether other replicas have freed a channel of an account.
pub(crate) const ACCOUNT_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

/// A shared account counts a start for twice as long, if there are no news of it: one whose beginning was written again after this may not leave.
const COUNTED_FOR: time::Duration = time::Duration::milliseconds(1_500);

impl Driver<'_> {
    /// Writes an attempt. `Ok`: the moment of the write; its Originate is to leave at once. `Err`: it must not leave,
    /// and this follows. `None`: it is only rehearsed.
    pub(super) async fn begin(
        &mut self,
        place: &Place<'_>,
        to: Option<&Assignment>,
    ) -> Result<OffsetDateTime, Step> {
        self.calls.membership.living().await;
        let at = self.calls.clock.now();
        let mut begin = BeginAttempt {
            call: self.call.id.clone(),
            epoch: self.call.claim.epoch,
            attempt: place.id.clone(),
            node: place.node.clone(),
            trunk: place.trunk.clone(),
            carrier: place.carrier.clone(),
            incarnation: to.map(|to| to.incarnation.as_str().to_owned()),
            to: self.call.request.to.clone(),
            // A number that nobody has is not dialled too often.
            throttle: to.map_or_else(Throttle::off, |_| self.calls.rules.throttle(&self.call.org)),
            account: to.and_then(|_| self.calls.account(place.carrier)),
            at,
            event_id: self.calls.chance.event_id(at),
        };
        let is_open = match self.calls.begin_attempt(&mut begin).await {
            Some(Begun::Yes { .. }) => true,
            Some(Begun::TooLate { why, is_open }) => {
                if why == TooLate::Canceled {
                    // The wish is written; the switch may turn a moment later.
                    self.call.cancel_requested_at.get_or_insert(begin.at);
                }
                is_open
            }
            // Another call to this number was faster.
            Some(Begun::Held { until }) => {
                self.window = Window::Held(until);
                return Err(Step::Next);
            }
            // Other replicas have what the carrier's account may have.
            Some(Begun::Full { wait, ago }) => {
                let again = wait.unwrap_or(ACCOUNT_AGAIN);
                self.calls.registry.carrier_is_full(place.carrier, Instant::now().into_std(), again, &ago);
                return Err(Step::Next);
            }
            // It has ended, or another attempt of it lives: nothing is sent from here.
            Some(Begun::AlreadyEnded) | None => return Err(Step::Ended),
        };
        if !is_open {
            return Err(Step::Next);
        }
        self.leave_turn();
        self.call.redial_at = None;
        // What held it back does so no more.
        self.late = Reason::DeadlineExceeded;
        // Its account may have counted it by the first write, which was not heard.
        let is_counted = begin.account.is_none() || begin.at - at <= COUNTED_FOR;
        if !self.calls.membership.lives() || !is_counted {
            // Others may take this process for dead: whoever drives the call next sends it.
            return Err(self.end_unsent(place, None).await);
        }
        if self.is_canceled() {
            return Err(self.never_sent(place, Reason::Api).await);
        }
        if self.calls.clock.now() >= self.call.deadline_at {
            return Err(self.never_sent(place, self.late).await);
        }
        Ok(begin.at)
    }

    /// Ends an attempt of which nothing has left, and the call with it. Its trunk has no part in that.
    async fn never_sent(&mut self, place: &Place<'_>, reason: Reason) -> Step {
        tracing::info!(call = %self.call.id, attempt = %place.id, %reason, "too late for its Originate");
        self.end_unsent(place, Some(reason)).await
    }

    /// The same; without a reason to end its call, that goes on.
    async fn end_unsent(&mut self, place: &Place<'_>, reason: Option<Reason>) -> Step {
        let (at, ending) = (self.calls.clock.now(), EndingClass::NotSent);
        if place.declared.is_some() {
            self.calls.metrics.fleet.attempt_ended(place.node, place.trunk, place.carrier, ending);
        }
        self.endings.push(ending);
        let follows = reason.map_or(Follows::Attempt, |reason| self.after_round(reason, at));
        let end = EndAttempt {
            call: self.call.id.clone(),
            epoch: self.call.claim.epoch,
            attempt: place.id.clone(),
            ending,
            sip_code: None,
            q850: None,
            rang: Rang::No,
            talk: Talk::NONE,
            at,
            follows,
            event_id: self.calls.chance.event_id(at),
        };
        let written = self.write_end(&end).await;
        self.after_end(written, end.follows)
    }

    /// Makes an attempt's end durable. `None`: it is refused for good, and whatever lives of the attempt is another one's to end:
    /// of the replica that has claimed the call, or of the task that takes it up again.
    pub(super) async fn write_end(&self, end: &EndAttempt) -> Option<Written> {
        self.calls.durably("end an attempt", || self.calls.store.end_attempt(end.clone())).await
    }

    /// Goes where a written end leads.
    pub(super) fn after_end(&mut self, written: Option<Written>, follows: Follows) -> Step {
        match written {
            Some(Written::Yes { .. }) => self.follow(follows),
            Some(Written::AlreadyEnded) | None => Step::Ended,
        }
    }
}
