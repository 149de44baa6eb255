//! How many connections there may be at a time, of one address and in all.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Places for connections.
#[derive(Clone)]
pub(crate) struct Places {
    of_address_max: usize,
    max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    all: usize,
    of_address: HashMap<IpAddr, usize>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The address holds as many as one may.
    Address,
    /// All are taken.
    All,
}

impl Places {
    pub(crate) fn new(of_address_max: usize, max: usize) -> Self {
        Self { of_address_max, max, held: Arc::default() }
    }

    /// One of an address's.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, NoPlace> {
        self.take_up_to(address, self.of_address_max)
    }

    /// One for an address that stands for many.
    pub(crate) fn take_for_many(&self, address: IpAddr) -> Result<Place, NoPlace> {
        self.take_up_to(address, usize::MAX)
    }

    fn take_up_to(&self, address: IpAddr, of_address_max: usize) -> Result<Place, NoPlace> {
        let address = holder(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.all >= self.max {
            return Err(NoPlace::All);
        }
        let of_address = held.of_address.entry(address).or_default();
        if *of_address >= of_address_max {
            return Err(NoPlace::Address);
        }
        *of_address += 1;
        held.all += 1;
        drop(held);
        Ok(Place { places: self.clone(), address })
    }

    /// How many are taken.
    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// Whose an address is. An IPv6 host has a /64 of addresses at least (RFC 6177), so that is what counts as one.
pub(crate) fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// One connection's; free again when this is dropped.
pub(crate) struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(count) = held.of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.of_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_share_and_all_take_what_there_is() {
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let places = Places::new(2, 5);
        let mut held = vec![places.take(a).unwrap(), places.take(a).unwrap()];
        assert_eq!(places.take(a).err(), Some(NoPlace::Address), "and the next");
        held.push(places.take(b).unwrap());
        held.push(places.take_for_many(a).unwrap());
        held.push(places.take_for_many(a).unwrap());
        assert_eq!(places.take(b).err(), Some(NoPlace::All));
        assert_eq!(places.take_for_many(b).err(), Some(NoPlace::All));
        held.pop();
        assert_eq!(places.held(), 4);
        held.push(places.take(b).unwrap());
        held.clear();
        assert_eq!((places.held(), places.held.lock().unwrap().of_address.len()), (0, 0), "nothing stays");
    }

    #[test]
    fn a_network_of_64_bits_is_one_holder() {
        let places = Places::new(1, 9);
        let _held = places.take("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(places.take("2001:db8::ffff:2".parse().unwrap()).err(), Some(NoPlace::Address));
        let _other = places.take("2001:db8:0:1::1".parse().unwrap()).unwrap();
        let _v4 = places.take("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(places.take("::ffff:192.0.2.1".parse().unwrap()).err(), Some(NoPlace::Address));
    }
}
