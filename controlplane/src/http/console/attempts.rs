//! How often a sign-in may be refused to one address. Keys are 256 random bits, so that this keeps nobody from guessing
//! one; it keeps the database and the audit log from whoever tries.
//!
//! In memory, per replica: a replica more is so many tries more.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use time::{Duration, OffsetDateTime};

use crate::doors::holder;

/// Refusals of an address within [`WINDOW`]; what follows is not looked at.
const REFUSALS_MAX: u32 = 10;
/// Counted from the first of them.
const WINDOW: Duration = Duration::MINUTE;
/// Addresses that are told apart; further ones share one count.
const ADDRESSES_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    Others,
}

struct Counted {
    since: OffsetDateTime,
    refused: u32,
}

/// See the module.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<Who, Counted>>);

impl Attempts {
    /// Whether a sign-in from this address is looked at now.
    ///
    /// # Errors
    /// In how many seconds it is again.
    pub(super) fn may(&self, address: IpAddr, now: OffsetDateTime) -> Result<(), u32> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counts.get(&Who::Address(holder(address)));
        let counted = counted.or_else(|| counts.get(&Who::Others).filter(|_| counts.len() >= ADDRESSES_MAX));
        match counted {
            Some(counted) if counted.refused >= REFUSALS_MAX && now < counted.since + WINDOW => {
                let left = (counted.since + WINDOW - now).whole_seconds() + 1;
                Err(u32::try_from(left).unwrap_or(1))
            }
            _ => Ok(()),
        }
    }

    /// A sign-in was refused.
    pub(super) fn refused(&self, address: IpAddr, now: OffsetDateTime) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut who = Who::Address(holder(address));
        if !counts.contains_key(&who) && counts.len() >= ADDRESSES_MAX {
            counts.retain(|_, counted| now < counted.since + WINDOW);
            if counts.len() >= ADDRESSES_MAX {
                who = Who::Others;
            }
        }
        let counted = counts.entry(who).or_insert(Counted { since: now, refused: 0 });
        if now >= counted.since + WINDOW {
            *counted = Counted { since: now, refused: 0 };
        }
        counted.refused += 1;
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn an_address_is_refused_so_often_and_looked_at_again_a_minute_later() {
        let attempts = Attempts::default();
        for _ in 0..REFUSALS_MAX {
            assert_eq!(attempts.may(address(1), NOW), Ok(()));
            attempts.refused(address(1), NOW);
        }
        assert_eq!(attempts.may(address(1), NOW + Duration::seconds(20)), Err(41));
        assert_eq!(attempts.may(address(2), NOW), Ok(()), "nobody else is");
        assert_eq!(attempts.may(address(1), NOW + WINDOW), Ok(()));
        attempts.refused(address(1), NOW + WINDOW);
        assert_eq!(attempts.may(address(1), NOW + WINDOW), Ok(()), "counted anew");
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let attempts = Attempts::default();
        let of = |n: u32| format!("2001:db8:0:7::{n}").parse::<IpAddr>().unwrap();
        (0..REFUSALS_MAX).for_each(|n| attempts.refused(of(n), NOW));
        assert!(attempts.may(of(99), NOW).is_err());
        assert!(attempts.may("2001:db8:0:8::1".parse().unwrap(), NOW).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let attempts = Attempts::default();
        for n in 0..5_000 {
            attempts.refused(address(n), NOW);
        }
        assert_eq!(attempts.0.lock().unwrap().len(), ADDRESSES_MAX + 1);
        assert!(attempts.may(address(4_999), NOW).is_err(), "those beyond share a count");
        assert!(attempts.may(address(1), NOW).is_ok());
        attempts.refused(address(5_001), NOW + WINDOW);
        assert_eq!(attempts.0.lock().unwrap().len(), 1);
    }
}
