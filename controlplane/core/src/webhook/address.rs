//! Which addresses a customer may make us call: those of the public Internet alone.
//!
//! After the IANA special-purpose registries (RFC 6890 and its successors): whatever is not globally
//! reachable is refused, and so is every form in which an IPv6 address carries an IPv4 one, since what is
//! behind the translator cannot be seen here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::call::{UnknownWord, words};

words! {
    /// What is wrong with an address.
    Refusal {
        /// 0.0.0.0/8 and ::.
        Unspecified = "unspecified",
        /// 127.0.0.0/8 and ::1.
        Loopback = "loopback",
        /// RFC 1918 and unique local addresses.
        Private = "private",
        /// 169.254.0.0/16 (where clouds keep their metadata) and fe80::/10.
        LinkLocal = "link_local",
        /// 100.64.0.0/10, between a carrier and its customers.
        CarrierNat = "carrier_nat",
        /// 224.0.0.0/4 and ff00::/8.
        Multicast = "multicast",
        /// Documentation and benchmarks.
        Documentation = "documentation",
        /// An IPv6 address that carries an IPv4 one: mapped, NAT64, 6to4, Teredo.
        Embedded = "embedded",
        /// Reserved for protocols or for the future.
        Reserved = "reserved",
    }
}

/// Why no event is sent to this address. `None`: it is of the public Internet.
#[must_use]
pub fn refused(address: IpAddr) -> Option<Refusal> {
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Option<Refusal> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, _, _) => Some(Refusal::Unspecified),
        (127, _, _) => Some(Refusal::Loopback),
        (10, _, _) | (172, 16..=31, _) | (192, 168, _) => Some(Refusal::Private),
        (169, 254, _) => Some(Refusal::LinkLocal),
        (100, 64..=127, _) => Some(Refusal::CarrierNat),
        (224..=239, _, _) => Some(Refusal::Multicast),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) | (198, 18..=19, _) => Some(Refusal::Documentation),
        (192, 0, 0) | (192, 88, 99) | (240..=255, _, _) => Some(Refusal::Reserved),
        _ => None,
    }
}

fn v6(address: Ipv6Addr) -> Option<Refusal> {
    let [a, b, c, d, e, f, ..] = address.segments();
    if address.is_unspecified() {
        return Some(Refusal::Unspecified);
    }
    if address.is_loopback() {
        return Some(Refusal::Loopback);
    }
    // ::/96 (compatible), ::ffff:0:0/96 (mapped), ::ffff:0:0:0/96 (translated).
    let begins_with_zeros = [a, b, c, d] == [0; 4];
    match (a, b) {
        (0, 0) if begins_with_zeros && matches!((e, f), (0, 0 | 0xffff) | (0xffff, 0)) => {
            Some(Refusal::Embedded)
        }
        (0x64, 0xff9b) | (0x2002, _) | (0x2001, 0) => Some(Refusal::Embedded),
        (0x2001, 0xdb8) | (0x3fff, 0..=0x0fff) | (0x2001, 2) => Some(Refusal::Documentation),
        (0x2001, 0..=0x01ff) => Some(Refusal::Reserved),
        (0xfc00..=0xfdff, _) => Some(Refusal::Private),
        (0xfe80..=0xfeff, _) => Some(Refusal::LinkLocal),
        (0xff00..=0xffff, _) => Some(Refusal::Multicast),
        (0x2000..=0x3fff, _) => None,
        _ => Some(Refusal::Reserved),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_special_block_is_refused_at_both_its_ends() {
        for (first, last, why) in [
            ("0.0.0.0", "0.255.255.255", Refusal::Unspecified),
            ("10.0.0.0", "10.255.255.255", Refusal::Private),
            ("100.64.0.0", "100.127.255.255", Refusal::CarrierNat),
            ("127.0.0.0", "127.255.255.255", Refusal::Loopback),
            ("169.254.0.0", "169.254.169.254", Refusal::LinkLocal),
            ("172.16.0.0", "172.31.255.255", Refusal::Private),
            ("192.0.0.0", "192.0.0.255", Refusal::Reserved),
            ("192.0.2.0", "192.0.2.255", Refusal::Documentation),
            ("192.168.0.0", "192.168.255.255", Refusal::Private),
            ("198.18.0.0", "198.19.255.255", Refusal::Documentation),
            ("198.51.100.0", "198.51.100.255", Refusal::Documentation),
            ("203.0.113.0", "203.0.113.255", Refusal::Documentation),
            ("224.0.0.0", "239.255.255.255", Refusal::Multicast),
            ("240.0.0.0", "255.255.255.255", Refusal::Reserved),
            ("::", "::", Refusal::Unspecified),
            ("::1", "::1", Refusal::Loopback),
            ("::2", "::255.255.255.255", Refusal::Embedded),
            ("::ffff:0.0.0.0", "::ffff:8.8.8.8", Refusal::Embedded),
            ("::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", Refusal::Embedded),
            ("64:ff9b::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Refusal::Embedded),
            ("100::", "100::ffff", Refusal::Reserved),
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Refusal::Embedded),
            ("2001:10::", "2001:1ff:ffff::", Refusal::Reserved),
            ("2001:db8::", "2001:db8:ffff::1", Refusal::Documentation),
            ("2002::", "2002:ffff::1", Refusal::Embedded),
            ("3fff::", "3fff:fff::1", Refusal::Documentation),
            ("5f00::", "5f00::1", Refusal::Reserved),
            ("fc00::", "fdff:ffff::1", Refusal::Private),
            ("fe80::", "febf:ffff::1", Refusal::LinkLocal),
            ("fec0::", "feff::1", Refusal::LinkLocal),
            ("ff00::", "ffff::1", Refusal::Multicast),
        ] {
            for text in [first, last] {
                assert_eq!(refused(text.parse().unwrap()), Some(why), "{text}");
            }
        }
    }

    #[test]
    fn neighbours_of_the_blocks_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "3ffe::1",
        ] {
            assert_eq!(refused(text.parse().unwrap()), None, "{text}");
        }
    }

    proptest! {
        /// No IPv6 spelling opens what IPv4 refuses.
        #[test]
        fn no_ipv4_address_is_let_through_inside_of_ipv6(bits: u32) {
            let inner = Ipv4Addr::from(bits);
            prop_assert!(refused(inner.to_ipv6_mapped().into()).is_some());
            prop_assert!(refused(inner.to_ipv6_compatible().into()).is_some());
            let [a, b, c, d] = inner.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for outer in [
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !high, !low),
            ] {
                prop_assert!(refused(outer.into()).is_some(), "{outer}");
            }
        }
    }
}
