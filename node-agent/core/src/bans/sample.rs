//! Which bans a look at the kernel asks for: never all of very many, and nothing is walked through to find them.

use std::{collections::BTreeSet, ops::Bound};

use ipnet::IpNet;

use super::{Ban, Bans, is_single};

impl Bans {
    /// The next bans behind this one, by address, and on from the beginning: each once.
    pub fn after(&self, last: Option<IpNet>) -> impl Iterator<Item = &Ban> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.bans.range((from, Bound::Unbounded));
        let before = last.into_iter().flat_map(|last| self.bans.range(..=last));
        behind.chain(before).map(|(_, ban)| ban.as_ref())
    }

    /// Of each of the kernel's sets the ban that lasts longest.
    pub fn longest(&self) -> impl Iterator<Item = &Ban> {
        self.ends.values().filter_map(BTreeSet::last).filter_map(|(_, net)| self.get(net))
    }

    /// Bans of networks, of each set by their end.
    pub fn networks(&self) -> impl Iterator<Item = &Ban> {
        let nets = self.ends.values().filter(|ends| ends.first().is_some_and(|(_, net)| !is_single(net)));
        nets.flatten().filter_map(|(_, net)| self.get(net))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bans::{By, Order, Widths},
        moment::UnixMs,
        protected::Protected,
    };

    const NOW: UnixMs = UnixMs(1_790_000_000_000);

    fn net(bits: u32, prefix: u8) -> IpNet {
        IpNet::new(std::net::Ipv4Addr::from_bits(0x2000_0000 + (bits << 8)).into(), prefix).unwrap()
    }

    fn bans(of: &[(u32, u8, Option<u32>)]) -> Bans {
        let mut bans = Bans::new("pbx1", Widths::default(), Protected::default());
        let by = By { origin: "pbx1".to_owned(), author: "anna".to_owned(), reason: "r".to_owned() };
        for (bits, prefix, seconds) in of {
            let order = Order { net: net(*bits, *prefix), seconds: *seconds, by: by.clone(), jail: None };
            // One in a network that is banned already is refused.
            let _ = bans.ban(order, NOW);
        }
        bans
    }

    proptest! {
        #[test]
        fn parts_come_to_all_in_turn_and_none_twice(
            of in prop::collection::vec((0..40_u32, prop::sample::select(vec![24_u8, 28, 32]), prop::option::of(1..900_u32)), 0..40),
            count in 1..9_usize,
        ) {
            let bans = bans(&of);
            let all: BTreeSet<IpNet> = bans.all().map(|ban| ban.net).collect();
            let (mut seen, mut last) = (Vec::new(), None);
            for _ in 0..all.len().div_ceil(count) {
                seen.extend(bans.after(last).take(count).map(|ban| ban.net));
                last = seen.last().copied();
            }
            let round: Vec<_> = seen.iter().take(all.len()).copied().collect();
            prop_assert_eq!(&round, &all.iter().copied().collect::<Vec<_>>());
            prop_assert!(seen.len() < all.len() + count);
            prop_assert_eq!(bans.after(last).count(), all.len());

            let networks: BTreeSet<IpNet> = bans.networks().map(|ban| ban.net).collect();
            prop_assert_eq!(networks, all.iter().filter(|net| !is_single(net)).copied().collect());

            for singles in [true, false] {
                let of_it = |ban: &&Ban| is_single(&ban.net) == singles;
                let ends = |ban: &Ban| ban.ends.unwrap_or(UnixMs(u64::MAX));
                let longest: Vec<_> = bans.longest().filter(of_it).map(ends).collect();
                let wanted: Vec<_> = bans.all().filter(of_it).map(ends).max().into_iter().collect();
                prop_assert_eq!(longest, wanted);
            }
        }
    }
}
