//! Points by source, in memory that is bounded: a bucket takes its own when its first source comes, and keeps it.
//!
//! A keyed hash sends each source to one bucket of [`WAYS`] slots. A newcomer to a full bucket takes its own
//! points from the weakest slot there, and only a slot that has none left gives up its place. So a crowd of
//! sources that offend once each wears out its own kind, while whoever offends more often than a share of
//! 1/[`WAYS`] of what his bucket sees stays (the argument of Misra and Gries, per bucket). Nobody can aim at a
//! bucket without the seed. Slots that saw a login are no crowd's to take: they go oldest first, and only when a
//! bucket holds nothing else.

use std::hash::{DefaultHasher, Hasher};

use crate::{
    moment::UnixMs,
    offence::{Account, Source},
    rules::jail::{Jail, Leak},
};

/// Slots in a bucket.
pub(super) const WAYS: usize = 16;
/// Accounts of one source that are told apart; what comes after counts as new each time.
pub(super) const ACCOUNTS: usize = 8;

/// So many quick repeats are one exchange of an honest phone: the first request, the answer to its challenge, and a
/// stale nonce or a retransmission.
const QUICK_MAX: u8 = 3;
/// So long a login keeps its slot from being a crowd's.
const LOGIN_KEPT_MS: u64 = 86_400_000;

/// A hash that strangers cannot work out beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hash([u64; 2]);

impl Hash {
    pub(super) fn seeded(seed: [u64; 2]) -> Self {
        Self(seed)
    }

    fn hasher(self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.0.iter().for_each(|half| hasher.write_u64(*half));
        hasher
    }

    fn source(self, source: Source) -> u64 {
        let mut hasher = self.hasher();
        std::hash::Hash::hash(&source, &mut hasher);
        hasher.finish()
    }

    /// Never 0, which stands for none.
    #[allow(clippy::cast_possible_truncation, reason = "32 bits of a hash are meant")]
    pub(super) fn account(self, account: &Account) -> u32 {
        let mut hasher = self.hasher();
        hasher.write(account.as_str().as_bytes());
        (hasher.finish() as u32).max(1)
    }
}

/// What is remembered of one source in one jail.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    key: Option<(Source, u8)>,
    /// As of `last`; leaks.
    pub(super) milli_points: u32,
    /// The last offence, or when the slot was last brought up to date.
    last: UnixMs,
    last_offence: Option<UnixMs>,
    /// The last login from there.
    pub(super) success: Option<UnixMs>,
    /// When an old password was last warned of.
    pub(super) warned: Option<UnixMs>,
    /// Offences since there were no points.
    pub(super) offences: u32,
    accounts: [u32; ACCOUNTS],
    next_account: u8,
    named: u8,
    /// The account of the last offence.
    pub(super) last_account: Option<u32>,
    /// Repeats without a pause in a row.
    quick: u8,
    /// Failures of that one account in a row.
    pub(super) repeats: u16,
}

impl Slot {
    /// Counts an offence.
    pub(super) fn take(&mut self, weight: u32, account: Option<u32>, jail: &Jail, now: UnixMs) {
        let pause_ms = self.last_offence.map_or(u64::MAX, |at| now.since_ms(at));
        let is_new = account.is_none_or(|account| !self.accounts.contains(&account));
        let is_quick = pause_ms < u64::from(jail.repeat_pause_ms);
        self.quick = if is_quick && !is_new { self.quick.saturating_add(1) } else { 0 };
        let share_percent = match (is_new, self.quick > QUICK_MAX) {
            (true, _) => 100,
            (false, false) => jail.repeat_slow_percent,
            (false, true) => jail.repeat_fast_percent,
        };
        let points = u64::from(weight) * u64::from(share_percent) / 100;
        self.milli_points = self.milli_points.saturating_add(u32::try_from(points).unwrap_or(u32::MAX));
        self.offences = self.offences.saturating_add(1);
        self.repeats = if account.is_some() && account == self.last_account {
            self.repeats.saturating_add(1)
        } else {
            0
        };
        if let (true, Some(account)) = (is_new, account) {
            if let Some(place) = self.accounts.get_mut(usize::from(self.next_account) % ACCOUNTS) {
                *place = account;
            }
            self.next_account = self.next_account.wrapping_add(1);
            self.named = self.named.saturating_add(1);
        }
        self.last_account = account;
        self.last_offence = Some(now);
    }

    /// Lets points leak until `now`. Without points nothing of the run is left but its last account.
    fn leak(&mut self, leak: Leak, now: UnixMs) {
        let ms = now.since_ms(self.last);
        self.last = self.last.max(now);
        if self.milli_points > 0 || self.offences > 0 {
            self.milli_points = self.milli_points.saturating_sub(leak.over(ms));
            // An account is forgotten only after a whole findtime without offences: a phone that tries each
            // minute has no points in between, but is no newcomer each time.
            let idle = self.last_offence.is_none_or(|at| now.since_ms(at) >= leak.findtime_ms());
            if self.milli_points == 0 && idle {
                self.clear_run();
            }
        }
    }

    /// Accounts named in this run, as far as they are told apart.
    pub(super) fn accounts_named(&self) -> u8 {
        self.named
    }

    /// After a ban: what it was banned for is paid.
    pub(super) fn clear_points(&mut self) {
        self.milli_points = 0;
        self.clear_run();
    }

    fn clear_run(&mut self) {
        self.accounts = [0; ACCOUNTS];
        self.next_account = 0;
        self.named = 0;
        self.offences = 0;
        self.repeats = 0;
        self.last_account = None;
    }
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Table {
    buckets: Box<[Option<Box<[Slot; WAYS]>>]>,
}

impl Table {
    /// Room for at least so many sources.
    pub(super) fn new(sources_max: u32) -> Self {
        let buckets = (sources_max as usize).div_ceil(WAYS).max(1);
        Self { buckets: vec![None; buckets].into_boxed_slice() }
    }

    /// What it takes when every bucket has seen a source.
    pub(super) fn bytes(&self) -> usize {
        self.buckets.len() * (size_of::<Option<Box<[Slot; WAYS]>>>() + size_of::<[Slot; WAYS]>())
    }

    #[allow(clippy::cast_possible_truncation, reason = "a bucket's number is below the length of a slice")]
    fn bucket(&mut self, source: Source, hash: &Hash) -> Option<&mut Option<Box<[Slot; WAYS]>>> {
        let at = (hash.source(source) % self.buckets.len() as u64) as usize;
        self.buckets.get_mut(at)
    }

    /// The slots of the source's bucket; none where it has seen nobody.
    fn seen(&mut self, source: Source, hash: &Hash) -> &mut [Slot] {
        match self.bucket(source, hash) {
            Some(Some(slots)) => &mut slots[..],
            Some(None) | None => &mut [],
        }
    }

    pub(super) fn find(&mut self, source: Source, jail: u8, hash: &Hash) -> Option<&Slot> {
        self.seen(source, hash).iter().find(|slot| slot.key == Some((source, jail)))
    }

    pub(super) fn forget(&mut self, source: Source, hash: &Hash) {
        for slot in self.seen(source, hash) {
            if slot.key.is_some_and(|(of, _)| of == source) {
                *slot = Slot::default();
            }
        }
    }

    /// The source's slot, brought up to date. `None`: its bucket is full of stronger ones, the weakest of which
    /// has lost the newcomer's points.
    pub(super) fn place(
        &mut self,
        source: Source,
        jail: u8,
        weight: u32,
        leak: Leak,
        now: UnixMs,
        hash: &Hash,
    ) -> Option<&mut Slot> {
        let bucket = self.bucket(source, hash)?.get_or_insert_with(|| Box::new([Slot::default(); WAYS]));
        let key = Some((source, jail));
        let at = match bucket.iter().position(|slot| slot.key == key) {
            Some(at) => at,
            None => {
                let at = weakest(&bucket[..], leak, now)?;
                let slot = bucket.get_mut(at)?;
                slot.milli_points = slot.milli_points.saturating_sub(weight);
                if slot.key.is_some() && slot.milli_points > 0 {
                    return None;
                }
                *slot = Slot { key, last: now, ..Slot::default() };
                at
            }
        };
        let slot = bucket.get_mut(at)?;
        slot.leak(leak, now);
        Some(slot)
    }
}

/// Free ones first; then without a login before with one; then by points; then by age.
fn weakest(bucket: &[Slot], leak: Leak, now: UnixMs) -> Option<usize> {
    let strength = |slot: &Slot| {
        let points = slot.milli_points.saturating_sub(leak.over(now.since_ms(slot.last)));
        let login = slot.success.filter(|at| now.since_ms(*at) < LOGIN_KEPT_MS);
        (slot.key.is_some(), login, points, slot.last)
    };
    (0..bucket.len()).min_by_key(|at| bucket.get(*at).map(strength))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_seen_takes_no_memory() {
        let (hash, leak, now) = (Hash::seeded([1, 2]), Jail::default().leak(), UnixMs(1_790_000_000_000));
        let mut table = Table::new(16_384);
        let taken = |table: &Table| table.buckets.iter().flatten().count();
        assert!(table.find(Source::V6(1), 0, &hash).is_none());
        table.forget(Source::V6(1), &hash);
        assert_eq!(taken(&table), 0);
        for _ in 0..100 {
            table.place(Source::V6(1), 0, 0, leak, now, &hash).unwrap();
        }
        assert_eq!(taken(&table), 1);
        for n in 0..100_000 {
            let _ = table.place(Source::V6(n), 0, 0, leak, now, &hash);
        }
        assert_eq!(taken(&table), 1_024, "and a crowd no more than all");
    }

    #[test]
    fn a_crowd_wears_the_weakest_out_and_takes_no_strong_one_s_and_no_login_s_place() {
        let (hash, leak, now) = (Hash::seeded([1, 2]), Jail::default().leak(), UnixMs(1_790_000_000_000));
        let mut table = Table::new(16);
        let source = |n: u64| Source::V6(n);
        for n in 0..16 {
            table.place(source(n), 0, 0, leak, now, &hash).unwrap().milli_points = 50_000;
        }
        let known = table.place(source(0), 0, 0, leak, now, &hash).unwrap();
        (known.milli_points, known.success) = (0, Some(now));
        // Two newcomers wear one of the fifteen down, the third takes its place; the login's is not to be had.
        let placed: Vec<_> =
            (100..103).map(|n| table.place(source(n), 0, 22_000, leak, now, &hash).is_some()).collect();
        assert_eq!(placed, [false, false, true]);
        assert!(table.find(source(0), 0, &hash).is_some(), "the login was flushed");
        assert_eq!((1..16).filter(|n| table.find(source(*n), 0, &hash).is_some()).count(), 14);
        for n in 200..1200 {
            let _ = table.place(source(n), 0, 22_000, leak, now, &hash);
        }
        assert!(table.find(source(0), 0, &hash).is_some(), "the login was flushed by a crowd");
    }
}
