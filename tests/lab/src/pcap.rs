//! Reads UDP packets out of a capture file that another process is still writing.
use std::net::Ipv4Addr;
use std::time::Duration;

/// Length of the header of a capture file.
pub(crate) const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const ETHERNET: usize = 14;
const UDP: usize = 8;

/// One UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    /// When it passed, since 1970.
    pub(crate) at: Duration,
    pub(crate) source: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv4Addr,
    pub(crate) payload: &'a [u8],
}

/// Splits `bytes` (what follows the file's header, from a record's start) into packets and calls
/// `each`; gives how many bytes were whole records. The rest comes with the next read.
pub(crate) fn read<'a>(bytes: &'a [u8], mut each: impl FnMut(Packet<'a>)) -> usize {
    let mut done = 0;
    while let Some(length) = word(bytes, done + 8) {
        let start = done + RECORD_HEADER;
        let Some(frame) = bytes.get(start..start + length) else { break };
        if let Some(packet) = moment(bytes, done).and_then(|at| udp(at, frame)) {
            each(packet);
        }
        done = start + length;
    }
    done
}

/// A little-endian word: tcpdump writes in the order of the machine, and the lab runs on such ones.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

/// Of the record that begins there: seconds and microseconds, as tcpdump writes by itself.
fn moment(bytes: &[u8], at: usize) -> Option<Duration> {
    let (seconds, micros) = (word(bytes, at)?, word(bytes, at + 4)?);
    Some(Duration::from_secs(seconds as u64) + Duration::from_micros(micros as u64))
}

fn udp(at: Duration, frame: &[u8]) -> Option<Packet<'_>> {
    if frame.get(12..14)? != [0x08, 0x00] {
        return None;
    }
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
    if *ip.get(9)? != 17 {
        return None;
    }
    let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
    Some(Packet {
        at,
        source: source.into(),
        source_port: u16::from_be_bytes(ip.get(header..header + 2)?.try_into().ok()?),
        destination: destination.into(),
        payload: ip.get(header + UDP..total)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        record_at(Duration::from_micros(2_000_005), [192, 0, 2, 11], [192, 0, 2, 21], payload)
    }

    /// A record of a capture file with one UDP packet.
    pub(crate) fn record_at(at: Duration, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0];
        ip.extend(u16::try_from(28 + payload.len()).unwrap().to_be_bytes());
        ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        ip.extend([source, destination].concat());
        ip.extend([0x13, 0xc4, 0, 0, 0, 0, 0, 0]);
        ip.extend(payload);
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(ip);
        let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
        let seconds = u32::try_from(at.as_secs()).unwrap().to_le_bytes();
        [&seconds[..], &at.subsec_micros().to_le_bytes(), &length, &length, &frame].concat()
    }

    #[test]
    fn whole_records_are_read_and_a_half_one_waits() {
        let bytes = [record(b"OPTIONS"), record(b"INVITE")].concat();
        let mut seen = Vec::new();
        let done = read(&bytes[..bytes.len() - 1], |packet| seen.push(packet.payload.to_vec()));
        assert_eq!((done, seen.as_slice()), (record(b"OPTIONS").len(), &[b"OPTIONS".to_vec()][..]));
        let last = |packet: Packet<'_>| {
            assert_eq!((packet.payload, packet.source_port), (&b"INVITE"[..], 5060));
            assert_eq!(packet.at, Duration::from_micros(2_000_005));
        };
        assert_eq!(read(&bytes[done..], last), bytes.len() - done);
    }
}
