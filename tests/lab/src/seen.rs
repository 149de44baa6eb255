//! What a carrier saw and said on its wire: the truth that tests compare everything else against.
//!
//! Counted from a capture inside the carrier's namespace, never from what a program believes:
//! - *invites*: INVITEs that arrived and begin a call, by Call-ID and the address they came to;
//!   retransmissions and re-INVITEs do not count. A *silent* carrier's are seen here before they are dropped.
//! - *rings*, *early media*, *answers*, *finals*: the first 180, 183, 200 or other final answer to each,
//!   as the carrier sent it. A *deaf* carrier's are seen here before they are lost. *Reached* are those with a 180 or a
//!   200: a 180 is sent once, and what is sent as a cable is put back may not leave the machine.
//! - *cancels*, *byes*: CANCELs that arrived, BYEs either way, once per call.
//!
//! A *dead* carrier sees nothing: that is the truth as well.
use crate::{KeySent, LabError, keys, pcap, sip};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What was seen of one number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NumberSeen {
    /// New calls that arrived.
    pub invites: u32,
    /// Calls that the carrier said 180 to.
    pub rings: u32,
    /// Calls whose phone was reached: the carrier said 180 or 200.
    pub reached: u32,
    /// Calls that the carrier said 183 to.
    pub early_media: u32,
    /// Calls that the carrier answered with 200.
    pub answers: u32,
    /// Calls that were cancelled.
    pub cancels: u32,
    /// Answered calls that were hung up, by either side.
    pub byes: u32,
    /// Other final answers by code.
    pub finals: BTreeMap<u16, u32>,
}

/// What a carrier saw, by number. Numbers are as they arrived, without `+`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// By number.
    pub by_number: BTreeMap<String, NumberSeen>,
}

impl Seen {
    /// What was seen of this number (with or without `+`); zeros if it never came.
    #[must_use]
    pub fn of(&self, number: &str) -> NumberSeen {
        self.by_number.get(number.trim_start_matches('+')).cloned().unwrap_or_default()
    }

    /// The sum over all numbers.
    #[must_use]
    pub fn total(&self) -> NumberSeen {
        let mut sum = NumberSeen::default();
        for seen in self.by_number.values() {
            sum.invites += seen.invites;
            sum.rings += seen.rings;
            sum.reached += seen.reached;
            sum.early_media += seen.early_media;
            sum.answers += seen.answers;
            sum.cancels += seen.cancels;
            sum.byes += seen.byes;
            for (code, count) in &seen.finals {
                *sum.finals.entry(*code).or_default() += count;
            }
        }
        sum
    }
}

/// Reads a capture on from where it was.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    addresses: [Ipv4Addr; 2],
    offset: u64,
    numbers: HashMap<(String, Ipv4Addr), String>,
    counted: HashSet<(String, Ipv4Addr, Mark)>,
    seen: Seen,
    keys: keys::Wire,
}

/// What is counted once per call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Ring,
    Reached,
    EarlyMedia,
    Final,
    Cancel,
    Bye,
}

impl Reader {
    pub(crate) fn new(path: PathBuf, addresses: [Ipv4Addr; 2]) -> Self {
        Reader {
            path,
            addresses,
            offset: pcap::FILE_HEADER as u64,
            numbers: HashMap::new(),
            counted: HashSet::new(),
            seen: Seen::default(),
            keys: keys::Wire::default(),
        }
    }

    /// The keys that went out as RTP events since the last reset.
    pub(crate) fn keys(&mut self) -> Result<Vec<KeySent>, LabError> {
        self.read()?;
        Ok(self.keys.sent().to_vec())
    }

    /// Counts what has come since the last time and gives all.
    pub(crate) fn read(&mut self) -> Result<Seen, LabError> {
        let mut file = File::open(&self.path).map_err(LabError::file("read", &self.path))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(LabError::file("read", &self.path))?;
        let done = pcap::read(&bytes, |packet| self.count(&packet));
        self.offset += done as u64;
        Ok(self.seen.clone())
    }

    /// Forgets the counts, not the place in the capture.
    pub(crate) fn reset(&mut self) -> Result<(), LabError> {
        self.read()?;
        self.numbers.clear();
        self.counted.clear();
        self.keys.forget();
        self.seen = Seen::default();
        Ok(())
    }

    fn count(&mut self, packet: &pcap::Packet<'_>) {
        let Some(message) = sip::parse(packet.payload) else { return self.keys.count(packet) };
        let arrived = self.addresses.contains(&packet.destination);
        let own = if arrived { packet.destination } else { packet.source };
        let key = (message.call_id.to_owned(), own);
        if let (sip::Kind::Answer(_), false, Some(number)) = (&message.kind, arrived, self.numbers.get(&key))
        {
            self.keys.answered(own, &message, number);
        }
        match message.kind {
            sip::Kind::Request { method: "INVITE", user } if arrived && !message.in_dialog => {
                let number = user.trim_start_matches('+').to_owned();
                if self.numbers.insert(key, number.clone()).is_none() {
                    self.seen.by_number.entry(number).or_default().invites += 1;
                }
            }
            sip::Kind::Request { method: "CANCEL", .. } if arrived => {
                self.once(key, Mark::Cancel, |seen| seen.cancels += 1);
            }
            sip::Kind::Request { method: "BYE", .. } => self.once(key, Mark::Bye, |seen| seen.byes += 1),
            sip::Kind::Request { .. } => {}
            sip::Kind::Answer(_) if arrived || message.cseq_method != "INVITE" => {}
            sip::Kind::Answer(180) => {
                self.once(key.clone(), Mark::Reached, |seen| seen.reached += 1);
                self.once(key, Mark::Ring, |seen| seen.rings += 1);
            }
            sip::Kind::Answer(183) => self.once(key, Mark::EarlyMedia, |seen| seen.early_media += 1),
            sip::Kind::Answer(200) => {
                self.once(key.clone(), Mark::Reached, |seen| seen.reached += 1);
                self.once(key, Mark::Final, |seen| seen.answers += 1);
            }
            sip::Kind::Answer(code) if code >= 300 => {
                self.once(key, Mark::Final, |seen| *seen.finals.entry(code).or_default() += 1);
            }
            sip::Kind::Answer(_) => {}
        }
    }

    fn once(&mut self, key: (String, Ipv4Addr), mark: Mark, add: impl FnOnce(&mut NumberSeen)) {
        let Some(number) = self.numbers.get(&key) else { return };
        if self.counted.insert((key.0, key.1, mark)) {
            add(self.seen.by_number.entry(number.clone()).or_default());
        }
    }
}
