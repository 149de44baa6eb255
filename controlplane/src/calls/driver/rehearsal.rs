//! Calls of test keys: their whole life, told as any call's, of which nothing leaves this process.
//!
//! No registry, session or sound is asked here. Attempts are written on a trunk that no fleet has; one that an earlier
//! process began is played through again, which never goes backwards.

use std::{str::FromStr, sync::LazyLock};

use controlplane_core::{
    call::{AttemptStatus, Rang, Reason},
    ending::{Ending, EndingClass},
    failover::{self, Next, Policy},
    fleet::OnRefusal,
    ids::AttemptId,
    names::{CarrierName, NodeName, TrunkName},
    rehearsal::{self, Act, BEAT, Scene},
};
use controlplane_store::calls::{Advance, EndAttempt, Follows, Hear};
use tokio::time::{Instant, sleep};

use super::{Driver, Step};
use crate::calls::place::Place;

/// What stands for node, trunk and carrier in an attempt.
const NOWHERE: &str = "rehearsal";

#[allow(clippy::expect_used, reason = "a constant name; any test of this file would fail")]
fn nowhere<T: FromStr>() -> T {
    NOWHERE.parse().ok().expect("a name")
}

static NODE: LazyLock<NodeName> = LazyLock::new(nowhere);
static TRUNK: LazyLock<TrunkName> = LazyLock::new(nowhere);
static CARRIER: LazyLock<CarrierName> = LazyLock::new(nowhere);

fn place(id: &AttemptId) -> Place<'_> {
    Place { id, node: &NODE, trunk: &TRUNK, carrier: &CARRIER, declared: None }
}

impl Driver<'_> {
    /// As [`Driver::run`].
    pub(super) async fn rehearse(&mut self) -> Option<Reason> {
        loop {
            if self.is_canceled() {
                return Some(Reason::Api);
            }
            let now = Instant::now();
            let deadline = self.at(self.call.deadline_at, now);
            if now >= deadline {
                return Some(self.late);
            }
            if let Some(redial_at) = self.call.redial_at.filter(|_| self.endings.is_empty()) {
                let until = self.at(redial_at, now);
                if until > now {
                    self.pause(until.min(deadline)).await;
                    continue;
                }
            }
            match rehearsal::scene(&self.call.request, self.endings.len()) {
                Scene::End(reason) => return Some(reason),
                Scene::Wait(reason) => {
                    self.late = reason;
                    self.pause(deadline).await;
                }
                Scene::Attempt(act) => {
                    let id = self.calls.chance.attempt_id();
                    let step = match self.begin(&place(&id), None).await {
                        Ok(_) => self.perform(&id, act).await,
                        Err(step) => step,
                    };
                    if step == Step::Ended {
                        return None;
                    }
                }
            }
        }
    }

    /// Plays an attempt through that an earlier process began.
    pub(super) async fn rehearse_again(&mut self, id: &AttemptId) -> Step {
        match rehearsal::scene(&self.call.request, self.endings.len()) {
            Scene::Attempt(act) => self.perform(id, act).await,
            Scene::End(_) | Scene::Wait(_) => {
                self.end_rehearsal(id, Ending::without_answer(EndingClass::NotSent, Rang::No)).await
            }
        }
    }

    async fn perform(&mut self, id: &AttemptId, act: Act) -> Step {
        let canceled = |rang| Ending::without_answer(EndingClass::Canceled, rang);
        self.tell(id, AttemptStatus::Initiated, Rang::No).await;
        let mut rang = Rang::No;
        if !self.goes_on(BEAT).await {
            return self.end_rehearsal(id, canceled(rang)).await;
        }
        if let Some(rings) = act.rings {
            rang = Rang::Yes;
            self.tell(id, AttemptStatus::Ringing, rang).await;
            if !self.goes_on(rings).await {
                return self.end_rehearsal(id, canceled(rang)).await;
            }
        }
        if act.is_answered {
            self.tell(id, AttemptStatus::InProgress, rang).await;
            if !self.goes_on(BEAT).await {
                return self.end_rehearsal(id, canceled(rang)).await;
            }
        }
        if let Some((key, action)) = act.key {
            let (call, attempt, at) = (self.call.id.clone(), id.clone(), self.calls.clock.now());
            let event_id = self.calls.chance.event_id(at);
            let epoch = self.call.claim.epoch;
            let hear = Hear { call, epoch, attempt, key, action, at, event_id };
            let _ = self.calls.durably("hear a key", || self.calls.store.hear(hear.clone())).await;
        }
        self.end_rehearsal(id, act.ending).await
    }

    /// Waits so long. `false`: the customer wants the call ended.
    async fn goes_on(&mut self, wait: std::time::Duration) -> bool {
        tokio::select! {
            biased;
            _ = self.canceled.wait_for(|canceled| *canceled) => false,
            () = sleep(wait) => true,
        }
    }

    async fn tell(&self, id: &AttemptId, status: AttemptStatus, rang: Rang) {
        let (call, attempt, at) = (self.call.id.clone(), id.clone(), self.calls.clock.now());
        let event_id = self.calls.chance.event_id(at);
        let epoch = self.call.claim.epoch;
        let advance = Advance { call, epoch, attempt, status, rang, at, event_id };
        // One that has ended is found so by the write of its end.
        let _ = self.calls.durably("advance an attempt", || self.calls.store.advance(advance.clone())).await;
    }

    /// Decides what follows, by the rules for all calls.
    async fn end_rehearsal(&mut self, id: &AttemptId, ending: Ending) -> Step {
        let (on_480, on_603) = (OnRefusal::Stop, OnRefusal::Stop);
        let policy = Policy { request: &self.call.request, canceled: self.is_canceled(), on_480, on_603 };
        let next = failover::next(&ending, &self.endings, policy);
        let at = self.calls.clock.now();
        self.endings.push(ending.class);
        let follows = match next {
            Next::Other => Follows::Attempt,
            Next::Stop(reason) => self.after_round(reason, at),
        };
        tracing::info!(call = %self.call.id, attempt = %id, ending = %ending.class, ?follows, "attempt rehearsed");
        let end = EndAttempt {
            call: self.call.id.clone(),
            epoch: self.call.claim.epoch,
            attempt: id.clone(),
            ending: ending.class,
            sip_code: ending.sip_code,
            q850: ending.q850,
            rang: ending.rang,
            talk: ending.talk,
            at,
            follows,
            event_id: self.calls.chance.event_id(at),
        };
        let written = self.write_end(&end).await;
        self.after_end(written, end.follows)
    }
}
