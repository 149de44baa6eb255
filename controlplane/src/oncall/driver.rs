//! Phones whose turn it is.

use std::sync::Arc;

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, IncidentId},
    oncall::{
        IncidentStatus, StepResult,
        escalation::{Action, Event, Phase, result},
    },
    request::KeyAction,
};
use controlplane_store::{StoreError, calls::Actor, oncall::Incident};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::{AT_ONCE, LOOK_EVERY, LOOK_MAX, OnCall, Placer, Placing};
use crate::calls::chain;

impl OnCall {
    /// Starts phoning. What an earlier process left goes on with the first look.
    pub(crate) fn keep<P: Placer>(self: Arc<Self>, placer: P) -> AbortHandle {
        tokio::spawn(async move {
            let mut every = interval(LOOK_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = every.tick() => {}
                    () = self.nudge.notified() => {}
                }
                // One replica phones: two would ask for the same calls, under the same keys.
                if self.calls.membership.leads()
                    && let Err(error) = self.look(&placer).await
                {
                    self.metrics.failed();
                    tracing::error!(error = %chain(&error), "incidents could not be read, trying again");
                }
            }
        })
        .abort_handle()
    }

    /// Takes note for whoever pressed a key behind a cut, of which the node has told after the call's end.
    async fn hear_late(&self) -> Result<(), StoreError> {
        for seen in self.store.heard_incidents(LOOK_MAX).await? {
            let _turn = self.turn(&seen.hook).await;
            let Some(mut incident) = self.store.incident(None, &seen.id).await? else { continue };
            let Some(call) = self.acknowledged_by(&incident).await? else { continue };
            let now = self.clock.now();
            let from = incident.status();
            let action = incident.escalation.handle(&incident.plan, Event::Acknowledge, now);
            if incident.status() == from {
                continue;
            }
            let changes = json!({"from": from, "call": call, "heard_late": true});
            let told = self.told("incident.acknowledge", Actor::default(), changes, now);
            if self.save(&mut incident, action, Some(told), call.as_str(), now).await? {
                tracing::warn!(incident = %incident.id, %call, "a key was heard late: somebody had taken note");
            }
        }
        Ok(())
    }

    /// The call of an incident in which a key was pressed that acknowledges, whatever became of the call.
    async fn acknowledged_by(&self, incident: &Incident) -> Result<Option<CallId>, StoreError> {
        for id in incident.escalation.steps.iter().filter_map(|step| step.call.as_ref()) {
            let Some(call) = self.store.call(&incident.org, id).await? else { continue };
            let Some(wanted) = &call.request.acknowledgement else { continue };
            let keys = call.attempts.iter().filter_map(|attempt| attempt.key);
            if keys.filter_map(|key| wanted.meaning(key)).any(|action| action == KeyAction::Acknowledge) {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }

    async fn look<P: Placer>(&self, placer: &P) -> Result<(), StoreError> {
        let due = self.store.due_incidents(self.clock.now(), LOOK_MAX).await?;
        stream::iter(due)
            .for_each_concurrent(AT_ONCE, async |incident| {
                let id = incident.id.clone();
                if let Err(error) = self.go_on(placer, incident).await {
                    self.metrics.failed();
                    tracing::error!(incident = %id, error = %chain(&error), "an incident does not go on, trying again");
                }
            })
            .await;
        self.hear_late().await
    }

    /// One step of an incident's way.
    async fn go_on<P: Placer>(&self, placer: &P, seen: Incident) -> Result<(), StoreError> {
        let _turn = self.turn(&seen.hook).await;
        // Read again: it may have changed since it was seen.
        let Some(mut incident) = self.store.incident(None, &seen.id).await? else { return Ok(()) };
        let (event, by) = self.event(&incident).await?;
        match self.feed(&mut incident, event, &by).await? {
            Some(Action::Place { step }) => {
                let event = match placer.place(&incident, step).await? {
                    Placing::Accepted { call, said } => {
                        incident.escalation.keep_said(said);
                        Event::Placed(call)
                    }
                    Placing::Refused { problem, for_now } => {
                        self.metrics.refused();
                        tracing::warn!(incident = %incident.id, step, problem, "a call about an incident was refused");
                        Event::Refused { problem, for_now }
                    }
                };
                self.feed(&mut incident, event, "").await?;
            }
            Some(Action::Find { step }) => {
                let found = placer.find(&incident, step).await?;
                self.feed(&mut incident, Event::Found(found), "").await?;
            }
            Some(Action::Cancel(_)) | None => {}
        }
        Ok(())
    }

    /// What has happened to an incident, and by which call.
    async fn event(&self, incident: &Incident) -> Result<(Event, String), StoreError> {
        let Phase::Calling { call: id, .. } = &incident.escalation.phase else {
            return Ok((Event::Tick { answered: false }, String::new()));
        };
        let call = self.store.call(&incident.org, id).await?;
        let event = match call {
            // Nobody erases a call that early.
            None => Event::Ended(StepResult::NotReached),
            Some(call) => match (call.reason, call.outcome) {
                (Some(reason), Some(outcome)) => Event::Ended(result(reason, outcome)),
                (Some(_) | None, _) => Event::Tick { answered: call.status == CallStatus::InProgress },
            },
        };
        Ok((event, id.to_string()))
    }

    /// Feeds the machine and writes what it has become. `None`: nothing follows, or another has written.
    async fn feed(
        &self,
        incident: &mut Incident,
        event: Event,
        by: &str,
    ) -> Result<Option<Action>, StoreError> {
        let (now, before) = (self.clock.now(), incident.escalation.clone());
        let action = incident.escalation.handle(&incident.plan, event, now);
        if incident.escalation == before {
            return Ok(action);
        }
        let told = match incident.status() {
            status if status == before.status => None,
            IncidentStatus::Acknowledged => {
                let to = incident.escalation.steps.last().map(|step| step.to.shortened());
                let changes = json!({"from": before.status, "call": by, "to": to});
                Some(self.told("incident.acknowledge", Actor::default(), changes, now))
            }
            IncidentStatus::Unanswered => {
                tracing::warn!(incident = %incident.id, steps = before.steps.len(), "nobody acknowledged an incident");
                let changes = json!({"from": before.status, "steps": incident.escalation.steps.len()});
                Some(self.told("incident.unanswered", Actor::default(), changes, now))
            }
            IncidentStatus::Escalating | IncidentStatus::Resolved => None,
        };
        let id: IncidentId = incident.id.clone();
        let is_saved = self.save(incident, action.clone(), told, by, now).await?;
        if !is_saved {
            tracing::debug!(incident = %id, "another has changed it meanwhile");
        }
        Ok(action.filter(|_| is_saved))
    }
}
