//! The program's one clock and one source of chance, so that tests can hold both.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use controlplane_core::ids::{
    AttemptId, AuditId, CallId, EndpointId, EventId, HookId, IncidentId, KeyId, NoticeId, OrgId, RecordingId,
    ReplicaId, RequestId, StreamId,
};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use time::OffsetDateTime;

/// Wall-clock time, for what is stored and shown. What is waited for goes by tokio's clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> OffsetDateTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        #[allow(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
        Self(Arc::new(OffsetDateTime::now_utc))
    }

    /// A clock of the test's own.
    pub fn of(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now, in UTC.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }
}

/// How far the database's clock is ahead of this machine's, in microseconds. Replicas read each other's moments: all of them go by
/// the one clock that they have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offset(Arc<AtomicI64>);

impl Offset {
    pub(crate) fn get(&self) -> time::Duration {
        time::Duration::microseconds(self.0.load(Ordering::Relaxed))
    }

    /// Says that the other clock was at `there` at some moment between two of this one. What they differ less in than is known so
    /// well is no difference. `true`: it was changed.
    pub(crate) fn compare(
        &self,
        before: OffsetDateTime,
        there: OffsetDateTime,
        after: OffsetDateTime,
    ) -> bool {
        let between: time::Duration = after - before;
        let offset: time::Duration = there - (before + between / 2);
        let difference: time::Duration = offset - self.get();
        let moves = difference.abs() > between;
        if moves {
            self.0.store(i64::try_from(offset.whole_microseconds()).unwrap_or(0), Ordering::Relaxed);
        }
        moves
    }
}

impl Clock {
    /// This clock, put right by what is found out about it.
    pub(crate) fn by(&self, offset: &Offset) -> Self {
        let (clock, offset) = (self.clone(), offset.clone());
        Self::of(move || clock.now() + offset.get())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A cryptographic generator behind a lock: ids that nobody outside may guess, secrets of keys, jitter.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn from_os() -> std::io::Result<Self> {
        Ok(Self::from_rng(StdRng::try_from_os_rng().map_err(std::io::Error::other)?))
    }

    /// From a seed that a test prints. Guessable: tests only.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::from_rng(StdRng::seed_from_u64(seed))
    }

    fn from_rng(rng: StdRng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// 32 random bytes: the secret of a key.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.with(|rng| {
            let mut bytes = [0; 32];
            rng.fill_bytes(&mut bytes);
            bytes
        })
    }

    /// A random time below `most`, so that many do not all come at once.
    #[must_use]
    pub fn up_to(&self, most: Duration) -> Duration {
        self.with(|rng| most.mul_f64(rng.random::<f64>()))
    }

    /// A generator of its own for a task.
    #[must_use]
    pub fn fork(&self) -> StdRng {
        self.with(StdRng::from_rng)
    }

    /// A new AMI stream's id.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.with(StreamId::new)
    }

    /// The id of one run of a replica.
    #[must_use]
    pub fn replica_id(&self) -> ReplicaId {
        self.with(ReplicaId::new)
    }

    /// A new attempt's id.
    #[must_use]
    pub fn attempt_id(&self) -> AttemptId {
        self.with(AttemptId::new)
    }

    /// A new call's id.
    #[must_use]
    pub fn call_id(&self, now: OffsetDateTime) -> CallId {
        self.with(|rng| CallId::new(now, rng))
    }

    /// A new key's id.
    #[must_use]
    pub fn key_id(&self, now: OffsetDateTime) -> KeyId {
        self.with(|rng| KeyId::new(now, rng))
    }

    /// A new organisation's id.
    #[must_use]
    pub fn org_id(&self, now: OffsetDateTime) -> OrgId {
        self.with(|rng| OrgId::new(now, rng))
    }

    /// A new request's id.
    #[must_use]
    pub fn request_id(&self, now: OffsetDateTime) -> RequestId {
        self.with(|rng| RequestId::new(now, rng))
    }

    /// A new event's id.
    #[must_use]
    pub fn event_id(&self, now: OffsetDateTime) -> EventId {
        self.with(|rng| EventId::new(now, rng))
    }

    /// A new recording's id.
    #[must_use]
    pub fn recording_id(&self, now: OffsetDateTime) -> RecordingId {
        self.with(|rng| RecordingId::new(now, rng))
    }

    /// A new endpoint's id.
    #[must_use]
    pub fn endpoint_id(&self, now: OffsetDateTime) -> EndpointId {
        self.with(|rng| EndpointId::new(now, rng))
    }

    /// A new hook's id.
    #[must_use]
    pub fn hook_id(&self, now: OffsetDateTime) -> HookId {
        self.with(|rng| HookId::new(now, rng))
    }

    /// A new incident's id.
    #[must_use]
    pub fn incident_id(&self, now: OffsetDateTime) -> IncidentId {
        self.with(|rng| IncidentId::new(now, rng))
    }

    /// A new notice's id.
    #[must_use]
    pub fn notice_id(&self, now: OffsetDateTime) -> NoticeId {
        self.with(|rng| NoticeId::new(now, rng))
    }

    /// A new audit row's id.
    #[must_use]
    pub fn audit_id(&self, now: OffsetDateTime) -> AuditId {
        self.with(|rng| AuditId::new(now, rng))
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_clock_that_is_off_is_put_right_by_what_is_known_of_the_other_one() {
        let here = datetime!(2026-11-24 12:00 UTC);
        let (clock, offset) = (Clock::of(move || here), Offset::default());
        let right = clock.by(&offset);
        let (ms, minutes) = (time::Duration::milliseconds, time::Duration::minutes);
        // An answer that took four milliseconds tells no difference of three.
        assert!(!offset.compare(here - ms(4), here + ms(1), here));
        assert_eq!(right.now(), here);
        assert!(offset.compare(here - ms(4), here + minutes(7), here));
        assert_eq!(right.now(), here + minutes(7) + ms(2));
        // Nor one that took four seconds, since its process stood still.
        assert!(!offset.compare(here - ms(4_000), here + minutes(7), here));
        assert!(offset.compare(here - ms(4), here - minutes(7), here));
        assert_eq!(right.now(), here - minutes(7) + ms(2));
    }
}
