//! What a call does next, trunk by trunk, until its one end.

use std::time::Duration;

use controlplane_core::{
    attempt::Attempt,
    call::{Outcome, Rang, Reason},
    ending::{Ending, EndingClass, Reading},
    failover::{self, Next, Policy},
    fleet::{OnRefusal, Trunk},
    selection::Tried,
};
use controlplane_store::calls::{
    Attempt as Stored, BeginAttempt, Call, CallEnd, EndAttempt, EndCall, Written,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Calls,
    attempt::{Run, limits},
};
use crate::registry::{Assignment, Refused, Reserved};

/// Follows a call to its end. Returns when the end is durable.
pub(super) async fn drive(calls: &Calls, call: Call, canceled: watch::Receiver<bool>) {
    let mut driver = Driver {
        policy: Policy {
            on_unknown: call.request.on_unknown,
            attempts_max: call.request.failover.attempts_max,
            on_480: OnRefusal::Stop,
            on_603: OnRefusal::Stop,
        },
        calls,
        call,
        canceled,
        tried: Tried::default(),
        endings: Vec::new(),
        last_rang: Rang::No,
    };
    if let Some(reason) = driver.run().await {
        driver.end(reason).await;
    }
}

struct Driver<'a> {
    calls: &'a Calls,
    call: Call,
    canceled: watch::Receiver<bool>,
    policy: Policy,
    tried: Tried,
    /// How this call's attempts ended, in order.
    endings: Vec<EndingClass>,
    last_rang: Rang,
}

impl Driver<'_> {
    /// `Some`: the call ends so, without an attempt under way. `None`: its end is written.
    async fn run(&mut self) -> Option<Reason> {
        if let Some(ended) = self.take_up().await {
            return ended;
        }
        let mut changes = self.calls.registry.changes();
        let mut unusable_since: Option<Instant> = None;
        loop {
            if *self.canceled.borrow() {
                return Some(Reason::Api);
            }
            let now = Instant::now();
            let deadline = self.deadline(now);
            let attempt = self.calls.chance.attempt_id();
            changes.borrow_and_update();
            let request = &self.call.request;
            let reserved = self.calls.registry.reserve(
                &request.to,
                request.from.as_ref(),
                &self.tried,
                &attempt,
                now.into_std(),
            );
            let (until, late) = match reserved {
                Reserved::Trunk(to) => {
                    unusable_since = None;
                    let ended = self.attempt(&attempt, &to).await;
                    self.calls.registry.release(&to.trunk.name, &to.trunk.carrier, &attempt);
                    match ended {
                        Step::Next => continue,
                        Step::Ended => return None,
                    }
                }
                Reserved::Refused(Refused::NoRoute) => return Some(Reason::NoHealthyRoute),
                Reserved::Refused(Refused::NothingLeft) => return Some(self.without_trunk()),
                Reserved::Refused(Refused::NothingUsable) => {
                    let since = *unusable_since.get_or_insert(now);
                    (Some(since + self.calls.patience.trunk), self.without_trunk())
                }
                Reserved::Refused(Refused::Wait { until }) => {
                    unusable_since = None;
                    (until.map(Instant::from_std), Reason::Throttled)
                }
            };
            let waits_for_limit = late == Reason::Throttled;
            if now >= deadline {
                return Some(if waits_for_limit { late } else { Reason::DeadlineExceeded });
            }
            if !waits_for_limit && until.is_some_and(|until| now >= until) {
                return Some(late);
            }
            let wake = until.map_or(deadline, |until| until.min(deadline));
            tokio::select! {
                () = sleep_until(wake) => {}
                _ = changes.changed() => {}
                _ = self.canceled.changed() => {}
            }
        }
    }

    /// Why it ends when no trunk is left for it.
    fn without_trunk(&self) -> Reason {
        match self.endings.last() {
            None => Reason::NoHealthyRoute,
            Some(last) => failover::exhausted(*last, self.policy.on_unknown),
        }
    }

    /// The call's deadline by the clock that waits.
    fn deadline(&self, now: Instant) -> Instant {
        let left = self.call.deadline_at - self.calls.clock.now();
        now + Duration::try_from(left).unwrap_or_default()
    }

    /// Takes up what an earlier process left: endings that were written, and an attempt that was open.
    /// `Some`: the call is over with it.
    async fn take_up(&mut self) -> Option<Option<Reason>> {
        let (fleet, _) = self.calls.registry.fleet();
        let stored = std::mem::take(&mut self.call.attempts);
        for attempt in &stored {
            self.tried.add_names(&attempt.trunk, &attempt.node, &attempt.carrier, &fleet);
        }
        for attempt in stored {
            match attempt.ending {
                Some(ending) => {
                    self.endings.push(ending);
                    self.last_rang = attempt.rang;
                }
                None => {
                    let step = self.resume(&attempt, fleet.trunk(&attempt.trunk)).await;
                    if matches!(step, Step::Ended) {
                        return Some(None);
                    }
                }
            }
        }
        // It died between an ending and what follows from it: that is decided now, by the same rule.
        let last = *self.endings.last()?;
        let earlier = &self.endings[..self.endings.len() - 1];
        match failover::next(&Ending::without_answer(last, self.last_rang), earlier, self.policy) {
            Next::Other => None,
            Next::Stop(reason) => Some(Some(reason)),
        }
    }

    async fn resume(&mut self, stored: &Stored, trunk: Option<&Trunk>) -> Step {
        self.calls.registry.adopt(&stored.trunk, &stored.carrier, &stored.id);
        let (fleet, _) = self.calls.registry.fleet();
        let timer_b = fleet
            .node(&stored.node)
            .map_or(Duration::from_secs(32), |node| Duration::from_millis(node.timer_b_ms.into()));
        let reading = Reading {
            early_media: trunk
                .map_or(controlplane_core::ending::EarlyMedia::Maybe, |trunk| trunk.early_media),
            timer_b,
        };
        let limits = limits(&self.call.request, self.calls.patience.reconcile);
        let machine =
            Attempt::resumed(Instant::now().into_std(), limits, reading, stored.status, stored.rang);
        tracing::info!(call = %self.call.id, attempt = %stored.id, node = %stored.node, status = %stored.status,
            "taking up an attempt that an earlier process began");
        let run = Run {
            calls: self.calls,
            call: &self.call.id,
            id: &stored.id,
            node: &stored.node,
            sent_to: stored.incarnation.as_deref(),
            canceled: &mut self.canceled,
        };
        let ending = run
            .resume(machine)
            .await
            .unwrap_or_else(|| Ending::without_answer(EndingClass::Unknown, Rang::Maybe));
        let step = self
            .ended(
                &stored.id,
                stored.node.clone(),
                stored.trunk.clone(),
                stored.carrier.clone(),
                trunk,
                ending,
            )
            .await;
        self.calls.registry.release(&stored.trunk, &stored.carrier, &stored.id);
        step
    }

    async fn attempt(&mut self, id: &controlplane_core::ids::AttemptId, to: &Assignment) -> Step {
        let trunk = &to.trunk;
        let at = self.calls.clock.now();
        let begin = BeginAttempt {
            call: self.call.id.clone(),
            attempt: id.clone(),
            node: trunk.node.clone(),
            trunk: trunk.name.clone(),
            carrier: trunk.carrier.clone(),
            incarnation: Some(to.incarnation.as_str().to_owned()),
            at,
            event_id: self.calls.chance.event_id(at),
        };
        match self.calls.durably("begin an attempt", || self.calls.store.begin_attempt(begin.clone())).await {
            Some(Written::Yes { .. }) => {}
            // Somebody else ended it: nothing is sent, and nothing more is to be written.
            Some(Written::AlreadyEnded) => return Step::Ended,
            None => return Step::Ended,
        }
        if self.endings.is_empty() {
            self.calls.metrics.setup((at - self.call.created_at).as_seconds_f64());
        }
        tracing::info!(call = %self.call.id, attempt = %id, node = %trunk.node, trunk = %trunk.name,
            to = ?self.call.request.to, "dialling");
        let reading = Reading { early_media: trunk.early_media, timer_b: to.timer_b };
        let run = Run {
            calls: self.calls,
            call: &self.call.id,
            id,
            node: &trunk.node,
            sent_to: Some(to.incarnation.as_str()),
            canceled: &mut self.canceled,
        };
        let ending = run.send(&self.call.request, to, reading).await;
        self.tried.add_names(&trunk.name, &trunk.node, &trunk.carrier, &self.calls.registry.fleet().0);
        if ending.class == EndingClass::Congestion {
            self.calls.registry.slow_down_if_busy(&trunk.name, Instant::now().into_std());
        }
        self.ended(id, trunk.node.clone(), trunk.name.clone(), trunk.carrier.clone(), Some(trunk), ending)
            .await
    }

    /// Decides what follows an ending, and makes both durable together.
    async fn ended(
        &mut self,
        id: &controlplane_core::ids::AttemptId,
        node: controlplane_core::names::NodeName,
        name: controlplane_core::names::TrunkName,
        carrier: controlplane_core::names::CarrierName,
        trunk: Option<&Trunk>,
        ending: Ending,
    ) -> Step {
        let policy = Policy {
            on_480: trunk.map_or(OnRefusal::Stop, |trunk| trunk.on_480),
            on_603: trunk.map_or(OnRefusal::Stop, |trunk| trunk.on_603),
            ..self.policy
        };
        self.policy = policy;
        let next = failover::next(&ending, &self.endings, policy);
        if may_live_on(&ending) {
            self.calls.registry.abandon(&node, id.clone());
        }
        self.calls.metrics.attempt_ended(&node, &name, &carrier, ending.class);
        self.endings.push(ending.class);
        self.last_rang = ending.rang;
        let call_end = match next {
            Next::Other => None,
            Next::Stop(reason) => Some(CallEnd { reason, outcome: self.outcome(reason) }),
        };
        tracing::info!(call = %self.call.id, attempt = %id, %node, trunk = %name, ending = %ending.class, rang = %ending.rang,
            sip = ending.sip_code, q850 = ending.q850, next = ?next, "attempt ended");
        let at = self.calls.clock.now();
        let end = EndAttempt {
            call: self.call.id.clone(),
            attempt: id.clone(),
            ending: ending.class,
            sip_code: ending.sip_code,
            q850: ending.q850,
            rang: ending.rang,
            at,
            call_end,
            event_id: self.calls.chance.event_id(at),
        };
        let written =
            self.calls.durably("end an attempt", || self.calls.store.end_attempt(end.clone())).await;
        match (written, call_end) {
            (Some(Written::Yes { .. }), None) => Step::Next,
            (Some(Written::Yes { .. }), Some(end)) => {
                self.calls.metrics.call_ended(end.reason);
                Step::Ended
            }
            (Some(Written::AlreadyEnded) | None, _) => Step::Ended,
        }
    }

    fn outcome(&self, reason: Reason) -> Outcome {
        let reached = self.endings.iter().any(|class| class.may_have_reached_carrier());
        let unsettled = self.endings.iter().any(|class| class.is_unsettled());
        reason.outcome(reached, unsettled)
    }

    async fn end(&mut self, reason: Reason) {
        let at = self.calls.clock.now();
        let end = EndCall {
            call: self.call.id.clone(),
            end: CallEnd { reason, outcome: self.outcome(reason) },
            at,
            event_id: self.calls.chance.event_id(at),
        };
        tracing::info!(call = %self.call.id, %reason, "call ended");
        if self.calls.durably("end a call", || self.calls.store.end_call(end.clone())).await.is_some() {
            self.calls.metrics.call_ended(reason);
        }
    }
}

/// Whether nobody saw its channel go: it is hung up if it turns up on its node later.
fn may_live_on(ending: &Ending) -> bool {
    let ended_by_us =
        matches!(ending.class, EndingClass::Canceled | EndingClass::RingTimeout | EndingClass::NoProgress);
    let untold = ending.sip_code.is_none() && ending.q850.is_none();
    matches!(ending.class, EndingClass::Unknown | EndingClass::Interrupted) || (ended_by_us && untold)
}

/// What follows an attempt.
enum Step {
    /// Another trunk.
    Next,
    /// The call is over, and that is written.
    Ended,
}
