//! What operators allow customers: policies, limits and how long things are kept, in memory as they are in the database, and the pace of requests.
//!
//! Read at start and set through here, so that a change is in force with the next request. What is not set for an
//! organisation is as the server's settings say.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use controlplane_core::{
    guard::{Alarm, Country, Policy, Watch},
    ids::{AuditId, KeyId, OrgId},
    limits::{KeyLimits, OrgLimits},
    pacing::Window,
    retention::OrgRetention,
    throttle::Throttle,
};
use controlplane_store::{
    Store, StoreError,
    calls::{Actor, DayMax, OpenMax},
    guard::{RuleKind, SetRules, StoredRules},
    keys::{Made, Rotation},
};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use crate::calls::Limits;

/// Alarms that are shown; older ones are in the log.
const ALARMS_MAX: usize = 1_000;

/// See the module.
pub struct Rules {
    store: Arc<dyn Store>,
    /// Where an organisation has none of its own.
    policy: Arc<Policy>,
    server: Limits,
    state: Mutex<State>,
    /// One change at a time, from the database to here.
    changing: tokio::sync::Mutex<()>,
}

/// One entry per organisation or key for which an operator has set something.
#[derive(Default)]
struct State {
    policies: HashMap<String, Arc<Policy>>,
    orgs: HashMap<String, Arc<OrgLimits>>,
    keys: HashMap<String, KeyLimits>,
    retentions: HashMap<String, OrgRetention>,
    /// The last second's requests of those that have a limit.
    requests: HashMap<String, Window>,
    /// What has been phoned lately, since the start.
    watch: Watch,
    /// Newest last.
    alarms: VecDeque<Raised>,
}

/// An alarm that was raised.
#[derive(Debug, Clone)]
pub struct Raised {
    /// Whose calls raised it.
    pub org: OrgId,
    /// When.
    pub at: OffsetDateTime,
    /// About what.
    pub alarm: Alarm,
    /// Whether it refuses calls.
    pub blocks: bool,
}

/// How the pace of requests stands after one of them, for the headers of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Requests in any one second.
    pub max: u32,
    /// How many more the second has room for.
    pub left: u32,
    /// Whether this one had room.
    pub admitted: bool,
}

impl Rules {
    /// Reads them.
    ///
    /// # Errors
    /// The database. Rules that cannot be read are logged; their organisation is closed then.
    pub async fn read(
        store: Arc<dyn Store>,
        policy: Policy,
        server: Limits,
    ) -> Result<Arc<Self>, StoreError> {
        let mut state = State::default();
        for rules in store.rules().await? {
            state.take(rules);
        }
        let (policy, state) = (Arc::new(policy), Mutex::new(state));
        Ok(Arc::new(Self { store, policy, server, state, changing: tokio::sync::Mutex::default() }))
    }

    /// Reads them again: another replica has changed some.
    ///
    /// # Errors
    /// The database; what was in force stays so.
    pub(crate) async fn read_again(&self) -> Result<(), StoreError> {
        let _one = self.changing.lock().await;
        let mut read = State::default();
        for rules in self.store.rules().await? {
            read.take(rules);
        }
        let mut state = self.state();
        let State { policies, orgs, keys, retentions, .. } = read;
        (state.policies, state.orgs, state.keys, state.retentions) = (policies, orgs, keys, retentions);
        Ok(())
    }

    /// Where they are.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Puts rules in force. `false`: there is no such organisation or key. Run it in a task of its own: an asker who
    /// leaves must not part what the database took from what is in force.
    ///
    /// # Errors
    /// The database; what was in force stays so.
    pub async fn set(&self, set: SetRules) -> Result<bool, StoreError> {
        let _one = self.changing.lock().await;
        let rules = StoredRules {
            subject: set.subject.as_str().to_owned(),
            kind: set.kind.as_str().to_owned(),
            document: set.document.clone(),
        };
        let known = self.store.set_rules(set).await?;
        if known {
            self.state().take(rules);
            self.store.nudge().await;
        }
        Ok(known)
    }

    /// Makes a key that takes another one's place, which has the former one's limits.
    ///
    /// # Errors
    /// The database.
    pub async fn rotate_key(
        &self,
        rotation: Rotation,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<Made, StoreError> {
        let _one = self.changing.lock().await;
        let (old, new) = (rotation.id.clone(), rotation.new.id.clone());
        let made = self.store.rotate_key(rotation, actor, audit_id).await?;
        if made == Made::Yes {
            let mut state = self.state();
            if let Some(limits) = state.keys.get(old.as_str()).copied() {
                state.keys.insert(new.as_str().to_owned(), limits);
            }
        }
        Ok(made)
    }

    /// What an organisation may phone.
    #[must_use]
    pub fn policy(&self, org: &OrgId) -> Arc<Policy> {
        self.state().policies.get(org.as_str()).map_or_else(|| Arc::clone(&self.policy), Arc::clone)
    }

    /// Counts a call that is to be placed. `Some`: it raises an alarm.
    #[must_use]
    pub fn observe(&self, org: &OrgId, country: &Country, now: OffsetDateTime) -> Option<Raised> {
        let policy = self.policy(org);
        let mut state = self.state();
        let alarm = state.watch.observe(org, country, &policy.velocity, now)?;
        let raised = Raised { org: org.clone(), at: now, alarm, blocks: policy.velocity.block };
        if raised.alarm.is_first {
            if state.alarms.len() == ALARMS_MAX {
                state.alarms.pop_front();
            }
            state.alarms.push_back(raised.clone());
        }
        Some(raised)
    }

    /// Whether a call that is to be placed would raise one.
    #[must_use]
    pub fn is_unusual(&self, org: &OrgId, country: &Country, now: OffsetDateTime) -> bool {
        let policy = self.policy(org);
        self.state().watch.is_unusual(org, country, &policy.velocity, now)
    }

    /// Takes back what was observed of a call at that moment: it is not placed.
    pub fn take_back(&self, org: &OrgId, country: &Country, observed: OffsetDateTime) {
        self.state().watch.take_back(org, country, observed);
    }

    /// The latest alarms, newest first.
    #[must_use]
    pub fn alarms(&self) -> Vec<Raised> {
        self.state().alarms.iter().rev().cloned().collect()
    }

    /// Whether nobody may phone anything.
    #[must_use]
    pub fn all_closed(&self) -> bool {
        self.policy.is_closed() && self.state().policies.values().all(|policy| policy.is_closed())
    }

    /// What was set for an organisation.
    #[must_use]
    pub fn limits(&self, org: &OrgId) -> Arc<OrgLimits> {
        self.state().orgs.get(org.as_str()).map(Arc::clone).unwrap_or_default()
    }

    /// How long an operator has said that an organisation's things are kept.
    #[must_use]
    pub fn retention(&self, org: &OrgId) -> OrgRetention {
        self.state().retentions.get(org.as_str()).copied().unwrap_or_default()
    }

    /// What was set for a key.
    #[must_use]
    pub fn key_limits(&self, key: &KeyId) -> KeyLimits {
        self.state().keys.get(key.as_str()).copied().unwrap_or_default()
    }

    /// How many calls an organisation may have open.
    #[must_use]
    pub fn open_max(&self, org: &OrgId) -> OpenMax {
        let (limits, server) = (self.limits(org), self.server.open);
        OpenMax {
            org: limits.open_calls_max.map_or(server.org, |max| max.min(server.org)),
            number: limits.number_open_calls_max.map_or(server.number, |max| max.min(server.number)),
        }
    }

    /// How many calls are accepted in a day.
    #[must_use]
    pub fn day_max(&self, org: &OrgId, key: Option<&KeyId>) -> DayMax {
        DayMax {
            org: self.limits(org).calls_per_day,
            key: key.and_then(|key| self.key_limits(key).calls_per_day),
        }
    }

    /// How often an organisation may dial one number.
    #[must_use]
    pub fn throttle(&self, org: &OrgId) -> Throttle {
        self.limits(org).throttle.clone().unwrap_or_else(|| self.server.throttle.clone())
    }

    /// Counts a request of a key of an organisation; of several limits the one with least room is told. `None`: there is no limit.
    /// What is refused does not count.
    #[must_use]
    pub fn request(&self, org: &OrgId, key: &KeyId, now: Instant) -> Option<Pace> {
        let mut state = self.state();
        let of_org = state.orgs.get(org.as_str()).and_then(|limits| limits.requests_per_s);
        let of_key = state.keys.get(key.as_str()).and_then(|limits| limits.requests_per_s);
        let asked = [(org.as_str(), of_org), (key.as_str(), of_key)];
        let limited: Vec<_> = asked.into_iter().filter_map(|(subject, max)| Some((subject, max?))).collect();
        let mut admitted = true;
        for (subject, max) in &limited {
            let window = state.requests.entry((*subject).to_owned()).or_insert_with(|| Window::new(*max));
            window.set_max(*max);
            admitted &= window.check(now).is_ok();
        }
        let paces = limited.iter().filter_map(|(subject, max)| {
            let window = state.requests.get_mut(*subject)?;
            if admitted {
                window.take(now);
            }
            Some(Pace { max: *max, left: window.left(now), admitted })
        });
        paces.min_by_key(|pace| (pace.left, pace.max))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, rules: StoredRules) {
        let StoredRules { subject, kind, document } = rules;
        if kind == RuleKind::Policy.as_str() {
            let policy = read(&subject, document);
            self.policies.insert(subject, Arc::new(policy));
        } else if kind == RuleKind::Retention.as_str() {
            let retention = read(&subject, document);
            self.retentions.insert(subject, retention);
        } else if subject.starts_with(OrgId::PREFIX) {
            let limits = read(&subject, document);
            self.orgs.insert(subject, Arc::new(limits));
        } else {
            let limits = read(&subject, document);
            self.keys.insert(subject, limits);
        }
    }
}

/// A later release may have written what this one does not know: a policy is closed then.
fn read<T: DeserializeOwned + Default>(subject: &str, document: serde_json::Value) -> T {
    serde_json::from_value(document).unwrap_or_else(|error| {
        tracing::error!(subject, %error, "rules cannot be read; they are taken for none");
        T::default()
    })
}
