//! What a hook was told becomes an incident, or belongs to one.

use std::sync::Arc;

use controlplane_core::{
    access::Mode,
    ids::IncidentId,
    oncall::{
        Signal,
        escalation::{Escalation, Event, Phase},
        note,
    },
};
use controlplane_store::{
    StoreError,
    calls::Actor,
    oncall::{Hook, Incident, Opened, SaveIncident},
};
use serde_json::json;

use super::{OnCall, TRIES_MAX, changing};

/// What was made of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A new incident.
    Opened,
    /// Of one that is open; nobody is phoned anew.
    Noted,
    /// One is over.
    Resolved,
    /// Nothing: what is over was not known.
    Ignored,
}

/// A signal's incident, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) heard: Heard,
    pub(crate) incident: Option<IncidentId>,
}

/// Why a signal was not taken. Those before it were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("too many incidents are open")]
    Full,
}

impl OnCall {
    /// Takes what a hook was told. When this returns, it is durable.
    ///
    /// # Errors
    /// The database, or too many open incidents: whoever tells of it is to do so again.
    pub(crate) async fn take(
        self: Arc<Self>,
        hook: Hook,
        mode: Mode,
        actor: Actor,
        signals: Vec<Signal>,
    ) -> Result<Vec<Receipt>, TakeError> {
        let _turn = self.turn(&hook.id).await;
        let mut receipts = Vec::with_capacity(signals.len());
        for signal in &signals {
            receipts.push(self.take_one(&hook, mode, &actor, signal).await?);
        }
        self.nudge.notify_one();
        Ok(receipts)
    }

    async fn take_one(
        &self,
        hook: &Hook,
        mode: Mode,
        actor: &Actor,
        signal: &Signal,
    ) -> Result<Receipt, TakeError> {
        for _ in 0..TRIES_MAX {
            let taken = match self.store.open_of_group(&hook.id, mode, &signal.key).await? {
                None if signal.is_over => Some(Receipt { heard: Heard::Ignored, incident: None }),
                None => self.open(hook, mode, actor, signal).await?,
                Some(incident) if signal.is_over => self.resolve(incident, actor, signal).await?,
                Some(incident) => {
                    self.calls.wanted_again(incident.id.as_str(), actor).await?;
                    if let Phase::Calling { call, .. } = &incident.escalation.phase {
                        self.calls.wanted_again(call.as_str(), actor).await?;
                    }
                    self.note(incident, actor, signal).await?
                }
            };
            if let Some(receipt) = taken {
                return Ok(receipt);
            }
        }
        Err(changing(&self.chance.incident_id(self.clock.now())).into())
    }

    /// `None`: another has opened it.
    async fn open(
        &self,
        hook: &Hook,
        mode: Mode,
        actor: &Actor,
        signal: &Signal,
    ) -> Result<Option<Receipt>, TakeError> {
        let now = self.clock.now();
        let mut alerts = Vec::new();
        note(&mut alerts, &signal.alerts);
        let seen = signal.alerts.len();
        let incident = Incident {
            id: self.chance.incident_id(now),
            org: hook.org.clone(),
            hook: hook.id.clone(),
            mode,
            key: signal.key.clone(),
            plan: hook.settings.clone(),
            escalation: Escalation::new(now),
            alerts,
            alerts_seen: i64::try_from(seen).unwrap_or(i64::MAX),
            opened_by: actor.key.clone(),
            opened_at: now,
            acknowledged_at: None,
            acknowledged_by: None,
            unanswered_at: None,
            resolved_at: None,
            resolved_by: None,
            version: 1,
        };
        let (id, status) = (incident.id.clone(), incident.status());
        let told = self.told(
            "incident.open",
            actor.clone(),
            json!({"hook": hook.id, "alerts": seen, "mode": mode}),
            now,
        );
        match self.store.open_incident(incident, told).await? {
            Opened::Yes => {
                self.metrics.became(status);
                self.tell(&id, mode, status);
                Ok(Some(Receipt { heard: Heard::Opened, incident: Some(id) }))
            }
            Opened::Exists => Ok(None),
            Opened::Full => Err(TakeError::Full),
        }
    }

    async fn resolve(
        &self,
        mut incident: Incident,
        actor: &Actor,
        signal: &Signal,
    ) -> Result<Option<Receipt>, TakeError> {
        let (now, from) = (self.clock.now(), incident.status());
        note(&mut incident.alerts, &signal.alerts);
        incident.alerts.iter_mut().for_each(|alert| alert.firing = false);
        let action = incident.escalation.handle(&incident.plan, Event::Resolve, now);
        let told = self.told("incident.resolve", actor.clone(), json!({"from": from}), now);
        let by = incident.hook.to_string();
        let is_saved = self.save(&mut incident, action, Some(told), &by, now).await?;
        Ok(is_saved.then_some(Receipt { heard: Heard::Resolved, incident: Some(incident.id) }))
    }

    async fn note(
        &self,
        mut incident: Incident,
        actor: &Actor,
        signal: &Signal,
    ) -> Result<Option<Receipt>, TakeError> {
        let (now, before) = (self.clock.now(), incident.alerts.clone());
        let new = note(&mut incident.alerts, &signal.alerts);
        let receipt = Receipt { heard: Heard::Noted, incident: Some(incident.id.clone()) };
        if incident.alerts == before {
            return Ok(Some(receipt));
        }
        let count = |alerts: usize| i64::try_from(alerts).unwrap_or(i64::MAX);
        // Of those beyond what is kept, how many are in one post is all that is known.
        incident.alerts_seen =
            (incident.alerts_seen.saturating_add(count(new))).max(count(signal.alerts.len()));
        let changes = json!({"new_alerts": new});
        let told = (new > 0).then(|| self.told("incident.note", actor.clone(), changes, now));
        let save = SaveIncident { incident, cancel: None, told, at: now };
        Ok(self.store.save_incident(save).await?.then_some(receipt))
    }
}
