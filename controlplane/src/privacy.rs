//! Retention of what is of people: calls, the numbers and texts in them, recordings. Events have their own
//! (`webhooks`), and so has the audit log (`audit`).
//!
//! A look an hour, in batches, each a transaction of its own: killed anywhere, the next look goes on. Several replicas
//! do the same work without harm: what one has taken, the other does not find.

use std::{sync::Arc, time::Duration};

use controlplane_core::{ids::OrgId, number::E164};
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
    settings::RetentionSettings,
};

/// Between two looks for what is old.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Calls that one transaction works on: others wait no longer than for that.
const BATCH: u16 = 200;
/// Between two such transactions.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub struct Privacy {
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Chance,
    settings: RetentionSettings,
    /// What numbers are hashed with where they are told of.
    salt: [u8; 32],
}

/// What goes by age.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Calls,
    Parts(Part),
    Recordings,
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
        settings: RetentionSettings,
        salt: [u8; 32],
    ) -> Arc<Self> {
        Arc::new(Self { store, clock, chance, settings, salt })
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
        let RetentionSettings { calls_days, numbers_days, texts_days, recordings_days } = self.settings;
        let calls = self.erase(Kind::Calls, calls_days, now).await?;
        // What goes with its call needs no step of its own.
        let numbers = if numbers_days < calls_days {
            self.erase(Kind::Parts(Part::Number), numbers_days, now).await?
        } else {
            0
        };
        let texts = if texts_days < calls_days {
            self.erase(Kind::Parts(Part::Text), texts_days, now).await?
        } else {
            0
        };
        let recordings =
            if recordings_days > 0 { self.erase(Kind::Recordings, recordings_days, now).await? } else { 0 };
        if calls + numbers + texts + recordings == 0 {
            return Ok(());
        }
        tracing::info!(calls, numbers, texts, recordings, "erased by age");
        let changes = json!({"calls": calls, "numbers": numbers, "texts": texts, "recordings": recordings});
        let row = self.row(now, Actor::default(), "retention.erase", "fleet", changes);
        self.store.record_audit(vec![row]).await
    }

    /// All that is so many days old, in batches; how many.
    async fn erase(&self, kind: Kind, days: u16, now: OffsetDateTime) -> Result<u64, StoreError> {
        let by = now - time::Duration::days(i64::from(days));
        let mut all = 0;
        loop {
            let done = match kind {
                Kind::Calls => self.store.erase_calls(by, BATCH).await?,
                Kind::Parts(part) => self.store.strip_calls(part, by, now, BATCH).await?,
                Kind::Recordings => self.store.retire_recordings(by, now, BATCH).await?,
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
