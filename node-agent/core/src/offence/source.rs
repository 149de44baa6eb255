//! Who: an address as the unit that is counted and banned.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Nobody, Transport};

/// One IPv4 address, or one IPv6 /64: who has one IPv6 address has all of its /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An address.
    V4(Ipv4Addr),
    /// The upper half of the addresses of a /64.
    V6(u64),
}

impl Source {
    /// Whose address this is. `None` for what names nobody in particular: unspecified, loopback, multicast,
    /// broadcast, and IPv6 link-local, whose one /64 holds every neighbour, routers among them.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let nobody =
                    v4.octets()[0] == 0 || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast();
                (!nobody).then_some(Self::V4(v4))
            }
            IpAddr::V6(v6) => {
                let nobody = v6.is_unspecified()
                    || v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local();
                (!nobody).then(|| Self::V6((v6.to_bits() >> 64) as u64))
            }
        }
    }

    /// As a network: /32 or /64.
    #[must_use]
    pub fn net(self) -> IpNet {
        match self {
            Self::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, 32)),
            Self::V6(upper) => {
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::from(upper) << 64), 64))
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => v4.fmt(f),
            Self::V6(_) => self.net().fmt(f),
        }
    }
}

/// An address as Asterisk's security events write it: `IPV4/UDP/192.0.2.66/5060`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The address, an IPv4 one inside IPv6 taken out.
    pub address: IpAddr,
    /// What carried it.
    pub transport: Transport,
}

impl Remote {
    /// Reads it, strictly.
    ///
    /// # Errors
    /// [`Nobody::NoAddress`] for anything else.
    pub fn parse(text: &[u8]) -> Result<Self, Nobody> {
        Self::read(text).ok_or(Nobody::NoAddress)
    }

    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split('/');
        let (family, transport, address, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || port.parse::<u16>().is_err() {
            return None;
        }
        // A link-local address comes with its interface.
        let address: IpAddr = address.split('%').next()?.parse().ok()?;
        let fits = match family {
            "IPV4" => address.is_ipv4(),
            "IPV6" => address.is_ipv6(),
            _ => false,
        };
        let transport = match transport {
            "UDP" => Transport::Udp,
            "TCP" => Transport::Tcp,
            "TLS" => Transport::Tls,
            "WS" => Transport::Ws,
            "WSS" => Transport::Wss,
            _ => Transport::Unknown,
        };
        fits.then_some(Self { address: address.to_canonical(), transport })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Option<String> {
        Source::of(text.parse().unwrap()).map(|source| source.to_string())
    }

    #[test]
    fn one_v4_address_one_v6_net_and_nobody() {
        assert_eq!(source("192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(source("::ffff:192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(source("2001:db8:1:2:3:4:5:6").unwrap(), "2001:db8:1:2::/64");
        for nobody in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert_eq!(source(nobody), None, "{nobody}");
        }
        assert_eq!(Source::of("2001:db8::1".parse().unwrap()).unwrap().net().to_string(), "2001:db8::/64");
    }

    #[test]
    fn only_asterisk_s_own_form_is_an_address() {
        let remote = Remote::parse(b"IPV6/TLS/2001:db8::1/5061").unwrap();
        assert_eq!((remote.address.to_string().as_str(), remote.transport), ("2001:db8::1", Transport::Tls));
        assert_eq!(Remote::parse(b"IPV4/UDP/192.0.2.66/5060").unwrap().transport, Transport::Udp);
        for bad in [
            &b""[..],
            b"192.0.2.1",
            b"IPV4/UDP/192.0.2.1",
            b"IPV4/UDP/192.0.2.1/5060/",
            b"IPV4/UDP/192.0.2.1/x",
            b"IPV4/UDP/2001:db8::1/5060",
            b"IPV6/UDP/192.0.2.1/5060",
            b"IPV4/UDP/192.0.2.1 /5060",
            b"IPV4/UDP/192.0.2.01/5060",
            b"IPV4/UDP/192.0.2.1/99999",
            b"IPV4/UDP/\xff/1",
        ] {
            assert_eq!(Remote::parse(bad), Err(Nobody::NoAddress), "{bad:?}");
        }
    }
}
