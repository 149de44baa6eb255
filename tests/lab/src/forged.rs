//! Requests whose source address is somebody else's: IP packets written by hand in the attacker's namespace. They go to one
//! PBX of the lab, whose answers to addresses that nobody has end at the bridge. Bounded in count and rate.
use crate::request::Request;
use crate::{Attacker, LabError, Pbx, clock, hardened};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const SIP_PORT: u16 = 5060;
/// Most packets of one run, and in a second.
const COUNT_MAX: usize = 20_000;
const PER_S_MAX: u32 = 1_000;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP_PROTOCOL: u8 = 17;

/// A REGISTER that pretends to come from somewhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forged {
    /// Whose address it carries.
    pub source: Ipv4Addr,
    /// The account that it names.
    pub account: String,
}

impl Forged {
    /// The `n`-th of the addresses that nobody has: 198.18.0.0/15, never the network's own.
    #[must_use]
    pub fn nobody(n: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 1).to_bits() + u32::from(n))
    }
}

impl Attacker {
    /// Sends these to a PBX, so many a second. Only addresses of the lab, and those that nobody has, are forged.
    ///
    /// # Errors
    /// An address is neither, there are too many, or nothing can be sent.
    pub fn forge(&self, forged: &[Forged], target: &Pbx, per_s: u32) -> Result<Duration, LabError> {
        let is_of_lab = |address: Ipv4Addr| address.octets().get(..3) == target.address().octets().get(..3);
        if forged.len() > COUNT_MAX {
            return Err(LabError::Machine(format!("at most {COUNT_MAX} forged packets")));
        }
        if let Some(other) =
            forged.iter().find(|of| !is_of_lab(of.source) && !hardened::is_nobodys(of.source))
        {
            return Err(LabError::Machine(format!("{} is neither of the lab nor nobody's", other.source)));
        }
        let failed = LabError::file("send from", format!("/run/netns/{}", self.host().namespace()));
        self.host().inside(|| send(forged, target.address(), per_s.clamp(1, PER_S_MAX)).map_err(failed))
    }
}

fn send(forged: &[Forged], target: Ipv4Addr, per_s: u32) -> std::io::Result<Duration> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?;
    let to = SocketAddrV4::new(target, 0);
    let (start, gap) = (clock::now(), Duration::from_secs(1) / per_s);
    let run = clock::since_1970().as_micros();
    for (n, Forged { source, account }) in (0_u32..).zip(forged) {
        let tag = format!("forged-{n}-{run:x}");
        let request = Request::register(account, *source, SIP_PORT, target, &tag).text();
        let packet = packet(*source, target, request.as_bytes());
        rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to)?;
        // By the clock, not by pauses: those are longer than asked for.
        clock::pause((start + gap * (n + 1)).saturating_duration_since(clock::now()));
    }
    Ok(start.elapsed())
}

/// One UDP packet; the kernel fills the IP header's checksum and number in.
fn packet(source: Ipv4Addr, target: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![0x45, 0];
    packet.extend(length(IP_HEADER + UDP_HEADER + payload.len()));
    packet.extend([0, 0, 0, 0, 64, UDP_PROTOCOL, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(SIP_PORT.to_be_bytes());
    packet.extend(SIP_PORT.to_be_bytes());
    packet.extend(length(UDP_HEADER + payload.len()));
    // No checksum: allowed over IPv4.
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_packet_names_its_source_and_its_length() {
        let packet = packet(Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(192, 0, 2, 11), b"REGISTER");
        assert_eq!(packet.len(), 36);
        assert_eq!((&packet[2..4], &packet[12..20]), (&[0, 36][..], &[198, 18, 0, 1, 192, 0, 2, 11][..]));
        assert_eq!((&packet[22..26], &packet[28..]), (&[19, 196, 0, 16][..], &b"REGISTER"[..]));
        assert!(hardened::is_nobodys(Forged::nobody(u16::MAX)) && hardened::is_nobodys(Forged::nobody(0)));
        assert!(!hardened::is_nobodys(Ipv4Addr::new(198, 20, 0, 0)));
    }
}
