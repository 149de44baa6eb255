//! Every call that reached a carrier, with its moments, by the clock of this machine, which is that of every
//! program of the lab too. Where [`Seen`](crate::Seen) counts, this tells when, and from which PBX.
use crate::{Carrier, LabError, pcap, sip};
use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

/// One call as the wire of its carrier had it. Moments are since 1970, in microseconds' steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    /// Where its INVITE came from.
    pub from: Ipv4Addr,
    /// The number that it asks for, without `+`.
    pub number: String,
    /// Its first INVITE.
    pub at: Duration,
    /// The first 180 that the carrier sent.
    pub rang_at: Option<Duration>,
    /// The final answer that the carrier sent first.
    pub ended: Option<(u16, Duration)>,
}

impl Dialog {
    /// When the callee's phone made itself heard: at the 180, or at the answer where none came before.
    #[must_use]
    pub fn heard_at(&self) -> Option<Duration> {
        let answered = self.ended.filter(|(code, _)| *code == 200).map(|(_, at)| at);
        self.rang_at.or(answered)
    }
}

impl Carrier {
    /// Every call that its wire has had since its start, in the order of their INVITEs. What a silent or deaf
    /// carrier was sent, or said in vain, is among it.
    ///
    /// # Errors
    /// The capture cannot be read.
    pub fn dialogs(&self) -> Result<Vec<Dialog>, LabError> {
        let path = self.capture();
        let bytes = fs::read(&path).map_err(LabError::file("read", path))?;
        Ok(read(bytes.get(pcap::FILE_HEADER..).unwrap_or_default(), &[self.address, self.second_address]))
    }
}

fn read(bytes: &[u8], own: &[Ipv4Addr]) -> Vec<Dialog> {
    let mut dialogs: Vec<Dialog> = Vec::new();
    let mut by_call: HashMap<(String, Ipv4Addr), usize> = HashMap::new();
    pcap::read(bytes, |packet| {
        let Some(message) = sip::parse(packet.payload) else { return };
        let arrived = own.contains(&packet.destination);
        let here = if arrived { packet.destination } else { packet.source };
        let key = (message.call_id.to_owned(), here);
        match message.kind {
            sip::Kind::Request { method: "INVITE", user } if arrived && !message.in_dialog => {
                by_call.entry(key).or_insert_with(|| {
                    dialogs.push(Dialog {
                        from: packet.source,
                        number: user.trim_start_matches('+').to_owned(),
                        at: packet.at,
                        rang_at: None,
                        ended: None,
                    });
                    dialogs.len() - 1
                });
            }
            sip::Kind::Request { .. } => {}
            sip::Kind::Answer(_) if arrived || message.cseq_method != "INVITE" => {}
            sip::Kind::Answer(code) => {
                let Some(dialog) = by_call.get(&key).and_then(|at| dialogs.get_mut(*at)) else { return };
                if code == 180 {
                    dialog.rang_at.get_or_insert(packet.at);
                }
                if code >= 200 {
                    dialog.ended.get_or_insert((code, packet.at));
                }
            }
        }
    });
    dialogs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcap::tests::record_at;

    const PBX: [u8; 4] = [192, 0, 2, 11];
    const CARRIER: [u8; 4] = [192, 0, 2, 21];

    fn answer(at_ms: u64, code: u16, call: &str) -> Vec<u8> {
        let text =
            format!("SIP/2.0 {code} x\r\nTo: <sip:x@y>;tag=1\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n\r\n");
        record_at(Duration::from_millis(at_ms), CARRIER, PBX, text.as_bytes())
    }

    fn invite(at_ms: u64, call: &str) -> Vec<u8> {
        let text = format!(
            "INVITE sip:+48222000001@c SIP/2.0\r\nTo: <sip:x@y>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        record_at(Duration::from_millis(at_ms), PBX, CARRIER, text.as_bytes())
    }

    #[test]
    fn the_first_of_each_word_counts_with_its_moment() {
        let bytes = [
            invite(10, "one"),
            invite(510, "one"),
            answer(520, 180, "one"),
            answer(1_500, 180, "one"),
            answer(1_600, 200, "one"),
            answer(2_100, 200, "one"),
            invite(3_000, "two"),
            answer(3_010, 503, "two"),
            answer(3_020, 180, "of nobody"),
        ]
        .concat();
        let dialogs = read(&bytes, &[CARRIER.into()]);
        let ms = Duration::from_millis;
        assert_eq!(dialogs.len(), 2);
        assert_eq!((dialogs[0].at, dialogs[0].heard_at()), (ms(10), Some(ms(520))));
        assert_eq!(dialogs[0].ended, Some((200, ms(1_600))));
        assert_eq!((dialogs[1].from, dialogs[1].heard_at()), (PBX.into(), None));
        assert_eq!(dialogs[1].ended, Some((503, ms(3_010))));
    }
}
