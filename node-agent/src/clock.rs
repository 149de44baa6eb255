//! The program's one wall clock and one source of chance, so that tests can hold both.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use controlplane_core::ids::FactId;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use time::OffsetDateTime;

/// Wall-clock time, for what is written and shown. What is waited for goes by tokio's clock.
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

    /// Now.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        (self.0)()
    }

    /// Now, in ms since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> i64 {
        i64::try_from(self.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Now, in s since 1970.
    #[must_use]
    pub fn unix_s(&self) -> i64 {
        self.now().unix_timestamp()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// A cryptographic generator behind a lock.
#[derive(Clone)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn from_os() -> io::Result<Self> {
        let rng = StdRng::try_from_os_rng().map_err(io::Error::other)?;
        Ok(Self(Arc::new(Mutex::new(rng))))
    }

    /// From a seed that a test prints.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A generator of its own for a task.
    #[must_use]
    pub fn fork(&self) -> StdRng {
        self.with(StdRng::from_rng)
    }

    /// 128 random bits in hex: an ActionID, an incarnation.
    #[must_use]
    pub fn word(&self) -> String {
        let mut bytes = [0; 16];
        self.with(|rng| rng.fill_bytes(&mut bytes));
        data_encoding::HEXLOWER.encode(&bytes)
    }

    /// A new fact's id.
    #[must_use]
    pub fn fact_id(&self, now: OffsetDateTime) -> FactId {
        self.with(|rng| FactId::new(now, rng))
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}
