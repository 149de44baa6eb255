//! Refusals of what would have changed something: in the audit log, and bounded, so that nobody fills a disk with them.
//!
//! The first of a kind (who, what, why) is written within a second; what follows of it within a minute is counted, and
//! the count is written then. Whoever has no key shares one budget of rows, and whoever has one shares another, so that a
//! stranger hides no customer's refusals. What is beyond a budget is counted in one row an hour.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use controlplane_core::ids::AuditId;
use controlplane_store::{
    audit::{ActorType, AuditOutcome, NewAuditRow},
    calls::Actor,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

/// What follows within this time is counted.
const WINDOW: Duration = Duration::MINUTE;
/// Kinds that are told apart at a time.
const KINDS_MAX: usize = 1_000;
/// Rows of a budget at once.
const BURST: u32 = 100;
/// And one more of them every so often: some 600 an hour, a few hundred bytes each.
const REFILL: Duration = Duration::seconds(6);
/// Between two rows for what was beyond a budget.
const BEYOND_EVERY: Duration = Duration::HOUR;
/// Rows that wait for a database that is away.
const WAITING_MAX: usize = 1_000;

/// A refusal, or a failure.
#[derive(Debug, Clone)]
pub(crate) struct Denial {
    /// At which door, where no key tells.
    pub(crate) actor_type: ActorType,
    /// Who asked, as far as it was found out.
    pub(crate) actor: Actor,
    /// What for.
    pub(crate) action: String,
    /// Of which kind.
    pub(crate) target_type: &'static str,
    /// Which one.
    pub(crate) target_id: String,
    /// Refused, or failed.
    pub(crate) outcome: AuditOutcome,
    /// The stable word of the answer.
    pub(crate) reason: String,
}

#[derive(PartialEq, Eq, Hash)]
struct Kind {
    at: &'static str,
    who: Option<String>,
    action: String,
    target_type: &'static str,
    reason: String,
}

struct Counted {
    since: OffsetDateTime,
    count: u64,
    last: Denial,
}

/// A budget of rows.
#[derive(Default)]
struct Budget {
    spent: u32,
    refilled_at: Option<OffsetDateTime>,
    /// What was not written.
    beyond: u64,
    told_at: Option<OffsetDateTime>,
}

impl Budget {
    fn take(&mut self, now: OffsetDateTime) -> bool {
        let since = self.refilled_at.get_or_insert(now);
        while self.spent > 0 && now - *since >= REFILL {
            *since += REFILL;
            self.spent -= 1;
        }
        if self.spent == 0 {
            *since = now;
        }
        let free = self.spent < BURST;
        self.spent += u32::from(free);
        free
    }
}

#[derive(Default)]
struct Inner {
    kinds: HashMap<Kind, Counted>,
    /// To be written: what came first of its kind.
    fresh: Vec<(OffsetDateTime, Denial, u64)>,
    /// To be written with the next.
    waiting: Vec<NewAuditRow>,
    strangers: Budget,
    known: Budget,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Denials(Mutex<Inner>);

impl Denials {
    fn held(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a refusal.
    pub(crate) fn note(&self, now: OffsetDateTime, denial: Denial) {
        let mut inner = self.held();
        let inner = &mut *inner;
        let who = denial.actor.key.as_ref().map(|key| key.as_str().to_owned()).or(denial.actor.ip.clone());
        let at = denial.actor_type.as_str();
        let (action, target_type) = (denial.action.clone(), denial.target_type);
        let kind = Kind { at, who, action, target_type, reason: denial.reason.clone() };
        if let Some(counted) = inner.kinds.get_mut(&kind) {
            counted.count += 1;
            counted.last = denial;
            return;
        }
        let budget = if denial.actor.key.is_some() { &mut inner.known } else { &mut inner.strangers };
        if inner.kinds.len() >= KINDS_MAX || !budget.take(now) {
            budget.beyond += 1;
            return;
        }
        inner.kinds.insert(kind, Counted { since: now, count: 0, last: denial.clone() });
        inner.fresh.push((now, denial, 1));
    }

    /// Rows to be written now.
    pub(crate) fn due(&self, now: OffsetDateTime, mut id: impl FnMut() -> AuditId) -> Vec<NewAuditRow> {
        let mut inner = self.held();
        let inner = &mut *inner;
        let mut rows = std::mem::take(&mut inner.waiting);
        let mut due = std::mem::take(&mut inner.fresh);
        // A clock that was set back ends the window too.
        let is_over = |counted: &Counted| !(Duration::ZERO..WINDOW).contains(&(now - counted.since));
        for (_, counted) in inner.kinds.extract_if(|_, counted| is_over(counted)) {
            if counted.count > 0 {
                due.push((now, counted.last, counted.count));
            }
        }
        rows.extend(due.into_iter().map(|(at, denial, count)| NewAuditRow {
            id: id(),
            org: None,
            at,
            actor_type: denial.actor_type,
            actor: denial.actor,
            action: denial.action,
            target_type: denial.target_type.to_owned(),
            target_id: denial.target_id,
            outcome: denial.outcome,
            reason: Some(denial.reason),
            changes: if count > 1 { json!({"count": count}) } else { json!({}) },
        }));
        for (budget, who) in [(&mut inner.strangers, "without_key"), (&mut inner.known, "with_key")] {
            let is_due = budget.told_at.is_none_or(|at| now - at >= BEYOND_EVERY);
            if budget.beyond > 0 && is_due {
                budget.told_at = Some(now);
                let count = std::mem::take(&mut budget.beyond);
                rows.push(NewAuditRow {
                    id: id(),
                    org: None,
                    at: now,
                    actor_type: ActorType::System,
                    actor: Actor::default(),
                    action: "audit.denials_counted".to_owned(),
                    target_type: "audit_log".to_owned(),
                    target_id: who.to_owned(),
                    outcome: AuditOutcome::Denied,
                    reason: Some("too_many_denials".to_owned()),
                    changes: json!({"count": count}),
                });
            }
        }
        rows
    }

    /// Keeps rows that go with the next ones: of the system, or such as the database did not take.
    pub(crate) fn keep(&self, rows: Vec<NewAuditRow>) {
        let mut inner = self.held();
        let inner = &mut *inner;
        let free = WAITING_MAX.saturating_sub(inner.waiting.len());
        inner.strangers.beyond += rows.len().saturating_sub(free) as u64;
        inner.waiting.extend(rows.into_iter().take(free));
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn denial(ip: u32) -> Denial {
        Denial {
            actor_type: ActorType::Customer,
            actor: Actor { ip: Some(ip.to_string()), ..Actor::default() },
            action: "call.create".to_owned(),
            target_type: "call",
            target_id: "-".to_owned(),
            outcome: AuditOutcome::Denied,
            reason: "unauthenticated".to_owned(),
        }
    }

    fn counts(rows: &[NewAuditRow]) -> Vec<u64> {
        rows.iter().map(|row| row.changes["count"].as_u64().unwrap_or(1)).collect()
    }

    #[test]
    fn the_first_is_told_at_once_and_the_rest_is_counted() {
        let (denials, mut rng) = (Denials::default(), StdRng::seed_from_u64(1));
        let mut due = |at| denials.due(at, || AuditId::new(at, &mut rng));
        for _ in 0..50 {
            denials.note(NOON, denial(1));
        }
        denials.note(NOON, denial(2));
        assert_eq!(counts(&due(NOON)), [1, 1]);
        assert_eq!(counts(&due(NOON + Duration::seconds(59))), [0u64; 0]);
        assert_eq!(counts(&due(NOON + Duration::MINUTE)), [49]);
        denials.note(NOON + Duration::MINUTE, denial(1));
        let again = due(NOON + Duration::MINUTE);
        assert_eq!(counts(&again), [1]);
        denials.keep(again.clone());
        assert_eq!(due(NOON + Duration::MINUTE), again);
    }

    #[test]
    fn strangers_without_number_leave_so_many_rows_and_hide_nobody_with_a_key() {
        let (denials, mut rng) = (Denials::default(), StdRng::seed_from_u64(1));
        let (mut rows, mut told) = (0, 0);
        let hours = 3;
        for second in 0..hours * 3_600 {
            let at = NOON + Duration::seconds(second);
            for i in 0..20 {
                denials.note(at, denial(u32::try_from(second).unwrap() * 20 + i));
            }
            let due = denials.due(at, || AuditId::new(at, &mut rng));
            rows += due.len();
            told += counts(&due).iter().sum::<u64>();
        }
        assert!(rows <= 100 + 602 * 3, "{rows}");
        assert!(told > 20 * 3_600, "{told}");
        let mut known = denial(0);
        known.actor.key = Some(controlplane_core::ids::KeyId::new(NOON, &mut rng));
        denials.note(NOON, known);
        let due = denials.due(NOON, || AuditId::new(NOON, &mut rng));
        assert!(due.iter().any(|row| row.actor.key.is_some()));
    }
}
