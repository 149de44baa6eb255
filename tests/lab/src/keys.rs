//! The keys that callees pressed, as their carrier knows: what every acknowledgement is compared with.
//!
//! - *RFC 4733*: from the capture of the carrier's wire. The first packet with the end bit is the moment at which
//!   the key was let go; whose call it is tells the port in the carrier's SDP.
//! - *tones* and *SIP INFO*: from what the carrier's dialplan notes in its AstDB once it has sent the key, since the
//!   capture holds no audio.
use crate::{LabError, pcap, sip};
use serde::Serialize;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// RTP's fixed header.
const RTP: usize = 12;
/// Payload type that Asterisk offers for telephone-event.
const TELEPHONE_EVENT: u8 = 101;
/// What the capture takes besides SIP: RTP packets (`udp[8]`, version 2) of that payload type.
pub(crate) const CAPTURED: &str =
    "(udp portrange 10000-20000 and udp[8] & 0xc0 = 0x80 and udp[9] & 0x7f = 101)";

/// How a key went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum KeyWay {
    /// RTP telephone-events.
    Rfc4733,
    /// Tones in the audio.
    Tones,
    /// SIP INFO.
    Info,
}

/// A key that left the carrier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeySent {
    /// Of the call to this number, without `+`.
    pub number: String,
    /// `0` to `9`, `*`, `#`.
    pub key: char,
    /// How it went out.
    pub way: KeyWay,
    /// When it was let go, since 1970 by the machine's clock. Of tones and INFO: when the dialplan had sent it,
    /// some ms later.
    pub let_go_at: Duration,
}

/// Keys seen on the wire.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// Whose audio leaves from a port now.
    numbers: HashMap<(Ipv4Addr, u16), String>,
    /// The last key of each stream, by SSRC: the timestamp is the same in all packets of a key.
    last: HashMap<u32, u32>,
    sent: Vec<KeySent>,
}

impl Wire {
    /// The carrier says in an answer to the call to `number` where its audio comes from.
    pub(crate) fn answered(&mut self, from: Ipv4Addr, message: &sip::Message<'_>, number: &str) {
        if let Some(port) = message.media_port {
            self.numbers.insert((from, port), number.to_owned());
        }
    }

    pub(crate) fn count(&mut self, packet: &pcap::Packet<'_>) {
        let Some(event) = event(packet.payload) else { return };
        let Some(number) = self.numbers.get(&(packet.source, packet.source_port)) else { return };
        if self.last.insert(event.stream, event.timestamp) != Some(event.timestamp) {
            let sent = KeySent {
                number: number.clone(),
                key: event.key,
                way: KeyWay::Rfc4733,
                let_go_at: packet.at,
            };
            self.sent.push(sent);
        }
    }

    pub(crate) fn sent(&self) -> &[KeySent] {
        &self.sent
    }

    pub(crate) fn forget(&mut self) {
        self.sent.clear();
    }
}

struct Event {
    stream: u32,
    timestamp: u32,
    key: char,
}

/// The end of a key, if the packet is one.
fn event(payload: &[u8]) -> Option<Event> {
    let word = |at: usize| Some(u32::from_be_bytes(payload.get(at..at + 4)?.try_into().ok()?));
    let is_end = payload.get(RTP + 1)? & 0x80 != 0;
    if payload.first()? & 0xc0 != 0x80 || payload.get(1)? & 0x7f != TELEPHONE_EVENT || !is_end {
        return None;
    }
    let key = "0123456789*#".chars().nth((*payload.get(RTP)?).into())?;
    Some(Event { stream: word(8)?, timestamp: word(4)?, key })
}

/// Reads `database show keys` of the carrier's console: `/keys/<number>/<channel>-<n> : <key>|<how>|<epoch>`. What
/// went out as RTP events is left to the wire.
pub(crate) fn noted(said: &str) -> Result<Vec<KeySent>, LabError> {
    let mut keys = Vec::new();
    for line in said.lines().map(str::trim).filter(|line| line.starts_with("/keys/")) {
        let read = || {
            let (name, value) = line.split_once(": ")?;
            let number = name.strip_prefix("/keys/")?.split('/').next()?.to_owned();
            let mut parts = value.trim().split('|');
            let key = parts.next()?.parse().ok()?;
            let way = match parts.next()? {
                "auto" => return Some(None),
                "inband" => KeyWay::Tones,
                "info" => KeyWay::Info,
                _ => return None,
            };
            let (seconds, millis) = parts.next()?.split_once('.')?;
            let let_go_at =
                Duration::from_secs(seconds.parse().ok()?) + Duration::from_millis(millis.parse().ok()?);
            Some(Some(KeySent { number, key, way, let_go_at }))
        };
        match read() {
            Some(key) => keys.extend(key),
            None => return Err(LabError::Machine(format!("a carrier's dialplan noted: {line}"))),
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARRIER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 21);

    fn packet(payload: &[u8], port: u16) -> pcap::Packet<'_> {
        let destination = Ipv4Addr::new(192, 0, 2, 11);
        pcap::Packet {
            source: CARRIER,
            source_port: port,
            destination,
            payload,
            at: Duration::from_millis(7),
        }
    }

    fn rtp(timestamp: u8, key: u8, end: bool) -> Vec<u8> {
        let mut bytes = vec![0x80, 101, 0, 1, 0, 0, 0, timestamp, 0, 0, 0, 9];
        bytes.extend([key, if end { 0x8a } else { 0x0a }, 3, 0xc0]);
        bytes
    }

    #[test]
    fn a_key_is_counted_once_at_its_first_end_and_for_the_call_of_its_port() {
        let ok = b"SIP/2.0 200 OK\r\nTo: <sip:x@y>;tag=1\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n\r\nv=0\r\n\
                   m=audio 14002 RTP/AVP 0 101\r\n";
        let mut wire = Wire::default();
        wire.answered(CARRIER, &sip::parse(ok).unwrap(), "48222100001");
        for (payload, port) in [
            (rtp(1, 1, false), 14_002),
            (rtp(1, 1, true), 14_002),
            (rtp(1, 1, true), 14_002),
            (rtp(2, 10, true), 14_002),
            (rtp(3, 2, true), 14_004),
            (rtp(4, 16, true), 14_002),
        ] {
            wire.count(&packet(&payload, port));
        }
        let keys: Vec<char> = wire.sent().iter().map(|sent| sent.key).collect();
        assert_eq!(keys, ['1', '*']);
        assert_eq!(wire.sent()[0].number, "48222100001");
    }

    #[test]
    fn what_a_dialplan_noted_is_read() {
        let said = "/keys/48222100001/carrier-1795545987.0-0          : 1|auto|1795545991.409    \n\
                    /keys/48222130001/carrier-1795545992.1-0          : *|inband|1795545995.933  \n2 results found.";
        let keys = noted(said).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].number.as_str(), keys[0].key, keys[0].way), ("48222130001", '*', KeyWay::Tones));
        assert_eq!(keys[0].let_go_at, Duration::from_millis(1_795_545_995_933));
        assert!(noted("/keys/4822/x-0 : 1|smoke|1").is_err());
    }
}
