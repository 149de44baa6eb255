//! On-call: what hooks are told becomes incidents, and incidents become calls until somebody acknowledges.
//!
//! - [`intake`](self) opens, notes and resolves incidents: what it answers is durable;
//! - `driver` looks once a second, and when it is nudged, for incidents whose time has come or whose call has ended.
//!
//! Who is phoned next is decided by `controlplane_core::oncall::escalation`. The database is the truth: the machine's state is
//! written before what follows from it is done, under a version, so that nobody writes over what he has not read. A call is
//! asked for under a key of its incident and step, so that a process which died in between asks again and it is one call.
//! Within this process the hook's turn keeps an incident from being resolved between the look and the call.

mod driver;
mod intake;
mod metrics;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use controlplane_core::{
    access::Mode,
    chat,
    ids::{CallId, HookId, IncidentId, OrgId},
    oncall::{
        IncidentStatus,
        escalation::{Action, Event},
    },
};
use controlplane_store::{
    Store, StoreError,
    calls::Actor,
    oncall::{Incident, SaveIncident, Told},
    webhooks::Change,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard, Notify};

pub(crate) use self::{
    intake::{Heard, Receipt, TakeError},
    metrics::OnCallMetrics,
};
use crate::{
    calls::{Calls, chain},
    chat::Chat,
    clock::{Chance, Clock},
};

/// Between two looks without a nudge.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Incidents that one look takes.
const LOOK_MAX: u16 = 200;
/// Incidents that are worked on at a time.
const AT_ONCE: usize = 16;
/// Turns that hooks share.
const TURNS: usize = 64;
/// How often a change is tried that meets another one.
const TRIES_MAX: usize = 5;

/// What came of asking for a step's call.
#[derive(Debug)]
pub(crate) enum Placing {
    /// It is accepted, now or before.
    Accepted {
        /// Which it is.
        call: CallId,
        /// What it says.
        said: Option<String>,
    },
    /// It is not.
    Refused {
        /// The problem's code.
        problem: String,
        /// Whether asking again may help.
        for_now: bool,
    },
}

/// Who takes calls: the same acceptance as the customers' door.
pub(crate) trait Placer: Send + Sync + 'static {
    /// Asks for the call of a step.
    fn place(
        &self,
        incident: &Incident,
        step: u16,
    ) -> impl Future<Output = Result<Placing, StoreError>> + Send;
    /// The call of a step, if it was accepted.
    fn find(
        &self,
        incident: &Incident,
        step: u16,
    ) -> impl Future<Output = Result<Option<CallId>, StoreError>> + Send;
}

/// See the module.
pub struct OnCall {
    store: Arc<dyn Store>,
    calls: Arc<Calls>,
    clock: Clock,
    chance: Chance,
    metrics: OnCallMetrics,
    chat: Arc<Chat>,
    nudge: Notify,
    turns: [Mutex<()>; TURNS],
}

/// What somebody says of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// He has taken note.
    Acknowledge,
    /// It is over.
    Resolve,
}

impl Act {
    const fn action(self) -> &'static str {
        match self {
            Self::Acknowledge => "incident.acknowledge",
            Self::Resolve => "incident.resolve",
        }
    }

    const fn event(self) -> Event {
        match self {
            Self::Acknowledge => Event::Acknowledge,
            Self::Resolve => Event::Resolve,
        }
    }
}

/// What an operator is called in what customers read.
pub(crate) const AN_OPERATOR: &str = "operator";

impl OnCall {
    /// Everything but its task, which [`OnCall::keep`] starts.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        calls: Arc<Calls>,
        clock: Clock,
        chance: Chance,
        metrics: OnCallMetrics,
        chat: Arc<Chat>,
    ) -> Arc<Self> {
        let (nudge, turns) = (Notify::new(), std::array::from_fn(|_| Mutex::new(())));
        Arc::new(Self { store, calls, clock, chance, metrics, chat, nudge, turns })
    }

    /// Whoever has a hook's turn is the only one who changes what came in by it.
    async fn turn(&self, hook: &HookId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        hook.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or(0);
        self.turns[turn].lock().await
    }

    /// Acknowledges or resolves an incident. `None`: there is none.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn act(
        self: Arc<Self>,
        org: Option<OrgId>,
        id: IncidentId,
        act: Act,
        actor: Actor,
        by: String,
    ) -> Result<Option<Incident>, StoreError> {
        let Some(seen) = self.store.incident(org.as_ref(), &id).await? else { return Ok(None) };
        let _turn = self.turn(&seen.hook).await;
        for _ in 0..TRIES_MAX {
            let Some(mut incident) = self.store.incident(org.as_ref(), &id).await? else { return Ok(None) };
            let (now, before) = (self.clock.now(), incident.status());
            let action = incident.escalation.handle(&incident.plan, act.event(), now);
            if incident.status() == before {
                return Ok(Some(incident));
            }
            let told = self.told(act.action(), actor.clone(), json!({"from": before}), now);
            if self.save(&mut incident, action, Some(told), &by, now).await? {
                return Ok(Some(incident));
            }
        }
        Err(changing(&id))
    }

    /// Removes a hook, and resolves what came in by it. `false`: there is none.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn remove(self: Arc<Self>, id: HookId, change: Change) -> Result<bool, StoreError> {
        let org = change.org.clone();
        let _turn = self.turn(&id).await;
        let Some(calls) = self.store.delete_hook(id, change).await? else { return Ok(false) };
        for call in calls {
            self.end(&org, &call).await;
        }
        self.nudge.notify_one();
        Ok(true)
    }

    /// Writes an incident as it has become, and does what follows. `false`: another has changed it meanwhile.
    async fn save(
        &self,
        incident: &mut Incident,
        action: Option<Action>,
        told: Option<Told>,
        by: &str,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let became = stamp(incident, by, now);
        let cancel = match &action {
            Some(Action::Cancel(call)) => Some(call.clone()),
            Some(Action::Place { .. } | Action::Find { .. }) | None => None,
        };
        let save = SaveIncident { incident: incident.clone(), cancel: cancel.clone(), told, at: now };
        if !self.store.save_incident(save).await? {
            return Ok(false);
        }
        incident.version += 1;
        if let Some(status) = became {
            self.metrics.became(status);
            self.tell(&incident.id, incident.mode, status);
        }
        if let Some(call) = cancel {
            self.end(&incident.org, &call).await;
        }
        if incident.escalation.due().is_some_and(|due| due <= now) {
            self.nudge.notify_one();
        }
        Ok(true)
    }

    /// Tells operators' chat; of a rehearsal nothing.
    fn tell(&self, id: &IncidentId, mode: Mode, status: IncidentStatus) {
        let is_live = mode == Mode::Live;
        self.chat.note(|| is_live.then(|| chat::Change::of_incident(id, status)));
    }

    /// Tells a call's task what is durable: that it shall end.
    async fn end(&self, org: &OrgId, call: &CallId) {
        if self.calls.cancel(call) {
            return;
        }
        match self.store.call(org, call).await {
            Ok(Some(call)) => self.calls.end(call).await,
            Ok(None) => {}
            // The scan for open calls without a task finds it.
            Err(error) => {
                tracing::warn!(%call, error = %chain(&error), "a call that shall end could not be read");
            }
        }
    }

    fn told(&self, action: &'static str, actor: Actor, changes: Value, now: OffsetDateTime) -> Told {
        Told { id: self.chance.audit_id(now), actor, action, changes }
    }
}

/// Puts the moment and whose doing it was to a status that is new. Gives that.
fn stamp(incident: &mut Incident, by: &str, now: OffsetDateTime) -> Option<IncidentStatus> {
    let status = incident.status();
    let is_new = match status {
        IncidentStatus::Escalating => false,
        IncidentStatus::Acknowledged => incident.acknowledged_at.is_none(),
        IncidentStatus::Unanswered => incident.unanswered_at.is_none(),
        IncidentStatus::Resolved => incident.resolved_at.is_none(),
    };
    if !is_new {
        return None;
    }
    match status {
        IncidentStatus::Escalating => {}
        IncidentStatus::Acknowledged => {
            (incident.acknowledged_at, incident.acknowledged_by) = (Some(now), Some(by.to_owned()));
        }
        IncidentStatus::Unanswered => incident.unanswered_at = Some(now),
        IncidentStatus::Resolved => {
            (incident.resolved_at, incident.resolved_by) = (Some(now), Some(by.to_owned()));
        }
    }
    Some(status)
}

/// It was changed by others each time: not to be expected, since whoever changes it has its hook's turn.
fn changing(id: &IncidentId) -> StoreError {
    StoreError::Corrupt { operation: "change incident", detail: format!("{id} changes all the time") }
}
