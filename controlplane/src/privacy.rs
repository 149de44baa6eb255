//! Retention of what is of people, of each organisation as long as an operator has said: calls, the numbers and texts in them,
//! recordings, and events where they are not kept as long as they may be (`webhooks` erases what is older than that). The
//! audit log has its own (`audit`).
//!
//! A look every ten minutes, in batches, each a transaction of its own: killed anywhere, the next look goes on. Several replicas
//! do the same work without harm: what one has taken, the other does not find.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    ids::OrgId,
    number::E164,
    retention::{EVENTS_DAYS_MAX, Retention},
};
use controlplane_store::{
    Store, StoreError,
    audit::{ActorType, AuditOutcome, NewAuditRow},
    calls::Actor,
    privacy::{ForgetNumber, Part},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    calls::chain,
    clock::{Chance, Clock},
    rules::Rules,
};

/// Between two looks for what is old.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Calls that one transaction works on: others wait no longer than for that.
const BATCH: u16 = 200;
/// Between two such transactions.
const PAUSE: Duration = Duration::from_millis(50);
/// Organisations that are read at once.
const ORGS_AT_ONCE: u16 = 100;

/// See the module.
pub struct Privacy {
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Chance,
    /// Where nothing is set for an organisation, and the most that is.
    server: Retention,
    rules: Arc<Rules>,
    /// What numbers are hashed with where they are told of.
    salt: [u8; 32],
}

/// What goes by age.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Calls,
    Parts(Part),
    Recordings,
    Events,
    Incidents,
}

/// How much was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    calls: u64,
    numbers: u64,
    texts: u64,
    recordings: u64,
    events: u64,
    incidents: u64,
}

/// What was made of a number's calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Erased {
    /// What stands for the number in the audit log.
    pub(crate) reference: String,
    /// Calls from which number and texts were taken.
    pub(crate) calls: u64,
    /// Calls to it that have not ended, and are as they were.
    pub(crate) open: u64,
}

impl Privacy {
    /// Everything but its task, which [`Privacy::keep`] starts. `salt` is secret, and the same after a restart.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        chance: Chance,
        server: Retention,
        rules: Arc<Rules>,
        salt: [u8; 32],
    ) -> Arc<Self> {
        Arc::new(Self { store, clock, chance, server, rules, salt })
    }

    /// As long as anything is kept on this server.
    #[must_use]
    pub fn longest(&self) -> Retention {
        self.server
    }

    /// Starts erasing.
    #[must_use]
    pub fn keep(self: &Arc<Self>) -> AbortHandle {
        tokio::spawn(Arc::clone(self).watch()).abort_handle()
    }

    async fn watch(self: Arc<Self>) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if let Err(error) = self.look().await {
                tracing::error!(error = %chain(&error), "what is old could not be erased, trying again");
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (mut counts, mut after) = (Counts::default(), None);
        loop {
            let (orgs, has_more) = self.store.list_orgs(ORGS_AT_ONCE, after.as_ref()).await?;
            for org in &orgs {
                self.erase_of(&org.id, now, &mut counts).await?;
            }
            after = orgs.into_iter().next_back().map(|org| org.id);
            if !has_more || after.is_none() {
                break;
            }
        }
        if counts == Counts::default() {
            return Ok(());
        }
        let Counts { calls, numbers, texts, recordings, events, incidents } = counts;
        tracing::info!(calls, numbers, texts, recordings, events, incidents, "erased by age");
        let changes = json!({
            "calls": calls, "numbers": numbers, "texts": texts, "recordings": recordings, "events": events,
            "incidents": incidents,
        });
        let row = self.row(now, Actor::default(), "retention.erase", "fleet", changes);
        self.store.record_audit(vec![row]).await
    }

    /// All of an organisation that is too old. What goes with its call needs no step of its own.
    async fn erase_of(
        &self,
        org: &OrgId,
        now: OffsetDateTime,
        counts: &mut Counts,
    ) -> Result<(), StoreError> {
        let Retention { calls_days, numbers_days, texts_days, recordings_days, events_days } =
            self.rules.retention(org).within(self.server);
        counts.calls += self.erase(org, Kind::Calls, calls_days, now).await?;
        if numbers_days < calls_days {
            counts.numbers += self.erase(org, Kind::Parts(Part::Number), numbers_days, now).await?;
        }
        if texts_days < calls_days {
            counts.texts += self.erase(org, Kind::Parts(Part::Text), texts_days, now).await?;
        }
        // It has numbers and texts of its own, and says little without them.
        let incidents_days = calls_days.min(numbers_days).min(texts_days);
        counts.incidents += self.erase(org, Kind::Incidents, incidents_days, now).await?;
        if recordings_days > 0 {
            counts.recordings += self.erase(org, Kind::Recordings, recordings_days, now).await?;
        }
        if events_days < EVENTS_DAYS_MAX {
            counts.events += self.erase(org, Kind::Events, events_days, now).await?;
        }
        Ok(())
    }

    /// All that is so many days old, in batches; how many.
    async fn erase(
        &self,
        org: &OrgId,
        kind: Kind,
        days: u16,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        let by = now - time::Duration::days(i64::from(days));
        let mut all = 0;
        loop {
            let done = match kind {
                Kind::Calls => self.store.erase_calls(org, by, BATCH).await?,
                Kind::Parts(part) => self.store.strip_calls(org, part, by, now, BATCH).await?,
                Kind::Recordings => self.store.retire_recordings(org, by, now, BATCH).await?,
                Kind::Events => self.store.erase_events(org, by, BATCH).await?,
                Kind::Incidents => self.store.erase_incidents(org, by, BATCH).await?,
            };
            all += done;
            if done < u64::from(BATCH) {
                return Ok(all);
            }
            sleep(PAUSE).await;
        }
    }

    /// Makes a number's ended calls nobody's.
    ///
    /// # Errors
    /// The database; what was done until then stays done, and asking again goes on.
    pub(crate) async fn forget(
        &self,
        org: Option<OrgId>,
        number: &E164,
        actor: Actor,
    ) -> Result<Erased, StoreError> {
        let at = self.clock.now();
        let mut erased = Erased { reference: self.reference(number), calls: 0, open: 0 };
        // Before the batches: killed between them, what was begun is in the log.
        let row = |erased: &Erased, changes| NewAuditRow {
            org: org.clone(),
            ..self.row(self.clock.now(), actor.clone(), "number.erase", &erased.reference, changes)
        };
        self.store.record_audit(vec![row(&erased, json!({"begun": true}))]).await?;
        let mut forget =
            ForgetNumber { org: org.clone(), number: number.clone(), after: None, limit: BATCH, at };
        loop {
            let part = self.store.forget_number(forget.clone()).await?;
            erased.calls += part.calls;
            erased.open += part.open;
            let Some(next) = part.next else { break };
            forget.after = Some(next);
        }
        let changes = json!({"calls": erased.calls, "open_calls": erased.open});
        self.store.record_audit(vec![row(&erased, changes)]).await?;
        Ok(erased)
    }

    /// What stands for a number where it is told of: without the secret, trying all numbers tells nothing.
    fn reference(&self, number: &E164) -> String {
        let mac = ring::hmac::sign(
            &ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.salt),
            number.as_str().as_bytes(),
        );
        format!("number_{}", data_encoding::HEXLOWER.encode(&mac.as_ref()[..8]))
    }

    fn row(
        &self,
        at: OffsetDateTime,
        actor: Actor,
        action: &str,
        target: &str,
        changes: serde_json::Value,
    ) -> NewAuditRow {
        NewAuditRow {
            id: self.chance.audit_id(at),
            org: None,
            at,
            actor_type: ActorType::System,
            actor,
            action: action.to_owned(),
            target_type: action.split('.').next().unwrap_or_default().to_owned(),
            target_id: target.to_owned(),
            outcome: AuditOutcome::Success,
            reason: None,
            changes,
        }
    }
}

/// A secret of its own out of another one.
pub(crate) fn salt(secret: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"ringward numbers 1\n");
    hash.update(secret);
    hash.finalize().into()
}
