//! How much room there is on a carrier's account that several replicas share: rules over what is counted of it, in its turn.

use std::{collections::HashMap, time::Duration};

use controlplane_core::names::CarrierName;

use super::{
    Account, Begun,
    news::{News, Told, Verdict},
};

const SECOND_US: i64 = 1_000_000;

/// What is counted of an account.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Attempts under way, and canaries.
    pub(crate) channels: i64,
    /// How long ago the starts of the last second left, microseconds, the newest first; 0: not yet.
    pub(crate) starts_us: Vec<i64>,
}

/// Why the account takes no further attempt now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// Until a start is free; `None`: until an attempt ends.
    pub(crate) wait: Option<Duration>,
}

impl Room {
    /// Why there is none for one more, if that is so.
    pub(crate) fn is_full(&self, account: Account) -> Option<NoRoom> {
        if account.channels_max.is_some_and(|max| self.channels >= i64::from(max)) {
            return Some(NoRoom { wait: None });
        }
        // Of as many starts as a second may have the first one: a second after it there is room for another.
        let first = (account.cps_max?.max(1) - 1) as usize;
        let wait = SECOND_US - self.starts_us.get(first)?;
        let wait = u64::try_from(wait).ok().filter(|us| *us > 0)?;
        Some(NoRoom { wait: Some(Duration::from_micros(wait)) })
    }

    /// The same, for who is told of it.
    pub(crate) fn ago(&self) -> Vec<Duration> {
        self.starts_us.iter().map(|us| Duration::from_micros(u64::try_from(*us).unwrap_or(0))).collect()
    }

    /// One more starts now.
    pub(crate) fn start(&mut self) {
        self.channels += 1;
        self.starts_us.insert(0, 0);
    }
}

/// What becomes of news about which the rest is decided, given the room of the accounts, of which it takes its part.
pub(crate) fn within<'a>(
    verdict: Verdict<'a>,
    news: &News,
    rooms: &mut HashMap<CarrierName, Room>,
) -> Verdict<'a> {
    let Some((carrier, account)) = news.account() else { return verdict };
    let begins = match verdict {
        Verdict::Write(_) => true,
        Verdict::Tell(Told::Begun(Begun::Held { .. })) => false,
        Verdict::Tell(_) => return verdict,
    };
    let room = rooms.entry(carrier.clone()).or_default();
    match room.is_full(account) {
        Some(NoRoom { wait }) => Verdict::Tell(Told::Begun(Begun::Full { wait, ago: room.ago() })),
        None => {
            if begins {
                room.start();
            }
            verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Account = Account { cps_max: None, channels_max: None };

    fn waits_us(room: &Room, cps_max: u32) -> Option<u128> {
        let full = room.is_full(Account { cps_max: Some(cps_max), ..NONE })?;
        Some(full.wait.expect("a start is free some time").as_micros())
    }

    #[test]
    fn a_second_has_so_many_starts() {
        let mut room = Room { channels: 0, starts_us: vec![200_000, 700_000, 999_999] };
        assert_eq!(waits_us(&room, 4), None);
        assert_eq!(waits_us(&room, 3), Some(1));
        assert_eq!(waits_us(&room, 2), Some(300_000));
        assert_eq!(waits_us(&room, 1), Some(800_000));
        room.start();
        assert_eq!(waits_us(&room, 4), Some(1));
        assert_eq!(waits_us(&room, 1), Some(1_000_000));
        // The clock goes on between the look and its answer.
        assert_eq!(waits_us(&Room { channels: 0, starts_us: vec![1_000_000] }, 1), None);
        assert_eq!(Room::default().is_full(Account { cps_max: Some(1), ..NONE }), None);
    }

    #[test]
    fn an_account_has_so_many_attempts_at_a_time() {
        let mut room = Room { channels: 1, starts_us: Vec::new() };
        let account = Account { channels_max: Some(2), ..NONE };
        assert_eq!(room.is_full(account), None);
        room.start();
        assert_eq!(room.is_full(account), Some(NoRoom { wait: None }));
        assert_eq!(room.is_full(NONE), None);
        // Both are full: until an attempt ends nothing else helps.
        let both = Account { cps_max: Some(1), ..account };
        assert_eq!(room.is_full(both), Some(NoRoom { wait: None }));
    }
}
