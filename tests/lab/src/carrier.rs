//! A carrier of the lab: an Asterisk whose dialplan turns the number into a behaviour, with packet
//! rules for what Asterisk cannot do (be silent, be deaf), and a capture that tells what it saw.
use crate::asterisk::Asterisk;
use crate::network::CableRules;
use crate::{HostName, KeySent, LabError, Seen, Subnet, clock, keys, network, render, seen, wire};
use minijinja::context;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Ringing before an answer.
const RING_S: &str = "0.2";
/// Talk before the carrier hangs up by itself.
const TALK_S: &str = "120";
/// How long a callee listens before he presses a key: `silence/3` of Asterisk's sounds.
const PRESS_S: &str = "3";

/// What a carrier does with every call, whatever its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// By the number (see [`crate::numbers`]).
    Normal,
    /// Rings and answers.
    Answer,
    /// 486.
    Busy,
    /// 180 for ever.
    Ring,
    /// 100 and no more.
    Trying,
    /// Drops every INVITE; OPTIONS are answered as ever.
    Silent,
    /// Rings, but whatever it says about a call is lost on the way; OPTIONS are answered as ever.
    Deaf,
    /// 180 after 4 s, answer 2 s later.
    Slow,
    /// Its cable is out.
    Dead,
    /// Its first address rings and fails with 503, its second rings and answers.
    Srv,
    /// 503 to half of the calls by chance; the others ring and are answered.
    Half,
    /// Answers, presses 1 after 3 s, stays.
    Press,
    /// Answers, presses 2 after 3 s, stays.
    Press2,
    /// Answers, presses `*` after 3 s and 1 after 3 more, stays.
    Again,
    /// Answers and says nothing.
    Mute,
    /// Answers, says a short word, waits.
    Human,
    /// Answers with a greeting of some 5 s and a beep, and listens.
    Voicemail,
    /// This SIP code, at once: any 4xx, 5xx, 6xx.
    Code(u16),
}

impl std::str::FromStr for Behaviour {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word {
            "normal" => Behaviour::Normal,
            "answer" => Behaviour::Answer,
            "busy" => Behaviour::Busy,
            "ring" => Behaviour::Ring,
            "trying" => Behaviour::Trying,
            "silent" => Behaviour::Silent,
            "deaf" => Behaviour::Deaf,
            "slow" => Behaviour::Slow,
            "dead" => Behaviour::Dead,
            "srv" => Behaviour::Srv,
            "half" => Behaviour::Half,
            "press" => Behaviour::Press,
            "press2" => Behaviour::Press2,
            "again" => Behaviour::Again,
            "mute" => Behaviour::Mute,
            "human" => Behaviour::Human,
            "voicemail" => Behaviour::Voicemail,
            code => match code.parse() {
                Ok(code @ 400..=699) => Behaviour::Code(code),
                Ok(_) | Err(_) => {
                    return Err(
                        "normal, answer, busy, ring, trying, silent, deaf, slow, dead, srv, half, press, press2, \
                                again, mute, human, voicemail or a SIP code from 400 to 699"
                            .into(),
                    );
                }
            },
        })
    }
}

impl Behaviour {
    /// The word that the carrier's dialplan knows it by; empty where the number decides.
    fn dialplan_word(self) -> String {
        match self {
            Behaviour::Normal | Behaviour::Silent | Behaviour::Dead => String::new(),
            Behaviour::Answer => "answer".into(),
            Behaviour::Busy => "busy".into(),
            Behaviour::Ring => "ring".into(),
            Behaviour::Trying => "trying".into(),
            Behaviour::Deaf => "deaf".into(),
            Behaviour::Slow => "slow".into(),
            Behaviour::Srv => "srv".into(),
            Behaviour::Half => "half".into(),
            Behaviour::Press => "press".into(),
            Behaviour::Press2 => "press2".into(),
            Behaviour::Again => "again".into(),
            Behaviour::Mute => "mute".into(),
            Behaviour::Human => "human".into(),
            Behaviour::Voicemail => "voicemail".into(),
            Behaviour::Code(code) => code.to_string(),
        }
    }
}

/// A carrier.
#[derive(Clone, Debug)]
pub struct Carrier {
    pub(crate) asterisk: Asterisk,
    pub(crate) address: Ipv4Addr,
    pub(crate) second_address: Ipv4Addr,
    pub(crate) reader: Arc<Mutex<seen::Reader>>,
}

impl Carrier {
    pub(crate) fn new(asterisk: Asterisk, address: Ipv4Addr) -> Self {
        let second_address = second_of(address);
        let capture = asterisk.host.folder().join("sip.pcap");
        let reader = seen::Reader::new(capture, [address, second_address]);
        Carrier { asterisk, address, second_address, reader: Arc::new(Mutex::new(reader)) }
    }

    /// Its name: `a`, `b`, `c`.
    pub fn name(&self) -> &str {
        self.asterisk.host.as_str()
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its second address, used by the trunk whose contact is a name.
    pub fn second_address(&self) -> Ipv4Addr {
        self.second_address
    }

    /// Its host: namespace and folder.
    pub fn host(&self) -> &HostName {
        &self.asterisk.host
    }

    /// The capture of its SIP, for Wireshark.
    pub fn capture(&self) -> PathBuf {
        self.asterisk.host.folder().join("sip.pcap")
    }

    /// Runs one line on its Asterisk's console.
    pub fn console(&self, line: &str) -> Result<String, LabError> {
        self.asterisk.console(line)
    }

    /// Changes what it does with every call from now on. Calls in flight go on as they began, except
    /// that *dead* and *deaf* concern the wire. While *dead* its dialplan stays as it was, and it has its
    /// new word before its cable is in again: an INVITE sent again meanwhile is never answered by its number.
    pub fn behave(&self, behaviour: Behaviour) -> Result<(), LabError> {
        if behaviour == Behaviour::Dead {
            return network::set_cable(self.name(), false);
        }
        let word = format!("dialplan set global BEHAVIOUR {}", quoted(&behaviour.dialplan_word()));
        self.console(&word)?;
        network::set_host_rules(self.name(), &rules_inside(behaviour == Behaviour::Silent))?;
        let rules = CableRules { sent: rules_of_cable(behaviour), ..CableRules::default() };
        network::set_cable_rules(self.name(), rules)?;
        network::set_cable(self.name(), true)
    }

    /// What it saw since its start or the last [`Carrier::reset_counts`], up to this moment.
    pub fn seen(&self) -> Result<Seen, LabError> {
        lock(&self.reader).read()
    }

    /// What it saw, once nothing new has come for `quiet`; at most 30 s.
    pub fn seen_when_quiet(&self, quiet: Duration) -> Result<Seen, LabError> {
        const AT_MOST: Duration = Duration::from_secs(30);
        let start = clock::now();
        let mut last = self.seen()?;
        loop {
            clock::pause(quiet);
            let next = self.seen()?;
            if next == last || start.elapsed() > AT_MOST {
                return Ok(next);
            }
            last = next;
        }
    }

    /// The keys that its callees pressed since its start or the last [`Carrier::reset_counts`], in the order in
    /// which they were let go. A key that a callee wanted to press when the call was gone is not among them.
    pub fn keys_sent(&self) -> Result<Vec<KeySent>, LabError> {
        let mut keys = lock(&self.reader).keys()?;
        keys.extend(keys::noted(&self.console("database show keys")?)?);
        keys.sort_by_key(|key| key.let_go_at);
        Ok(keys)
    }

    /// Forgets what was counted so far. Call it when no call is in flight.
    pub fn reset_counts(&self) -> Result<(), LabError> {
        self.console("database deltree keys")?;
        lock(&self.reader).reset()
    }

    /// How many calls it has open now.
    pub fn channels(&self) -> Result<u32, LabError> {
        let said = self.console("core show channels count")?;
        let number = said.split_whitespace().next().and_then(|word| word.parse().ok());
        number.ok_or_else(|| LabError::Machine(format!("carrier {} said: {said}", self.name())))
    }

    /// Hangs up every call it has open.
    pub fn hang_up_all(&self) -> Result<(), LabError> {
        self.console("channel request hangup all").map(|_| ())
    }

    pub(crate) fn configure(&self, subnet: Subnet) -> Result<(), LabError> {
        let extensions = render::CARRIER_EXTENSIONS.render(context! {
            ring_s => RING_S,
            talk_s => TALK_S,
            press_s => PRESS_S,
            second_address => self.second_address.to_string(),
        })?;
        let pjsip = render::CARRIER_PJSIP.render(context! {
            subnet => subnet.to_string(),
            address => self.address.to_string(),
            second_address => self.second_address.to_string(),
        })?;
        self.asterisk.configure(&[
            ("pjsip.conf", pjsip),
            ("extensions.conf", extensions),
            ("manager.conf", "[general]\nenabled = no\n".to_owned()),
        ])
    }

    /// Starts the capture and lays the packet rules; before Asterisk, so that nothing is missed.
    pub(crate) fn start_watching(&self) -> Result<(), LabError> {
        network::set_host_rules(self.name(), &rules_inside(false))?;
        let filter = format!("udp port 5060 or {}", keys::CAPTURED);
        wire::capture(self.host(), &format!("tcpdump-{}", self.name()), &self.capture(), &filter)
    }
}

/// 192.0.2.21 has 192.0.2.31 beside it.
fn second_of(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d + 10)
}

/// Rules in the carrier's namespace. `@th,64` is where the UDP payload begins, in bits; `INVITE sip:`
/// takes 88 of them. Silent numbers are matched as `+4822000`, `4822000` and `22000`.
fn rules_inside(silent: bool) -> String {
    let invite = "udp dport 5060 @th,64,48 0x494e56495445";
    let mut rules = String::from("chain in { type filter hook prerouting priority -300;\n");
    if silent {
        rules.push_str(&format!("{invite} counter drop\n"));
    }
    for (bits, digits) in [(64, "+4822000"), (56, "4822000"), (40, "22000")] {
        let hex: String = digits.bytes().map(|byte| format!("{byte:02x}")).collect();
        rules.push_str(&format!("{invite} @th,152,{bits} 0x{hex} counter drop\n"));
    }
    rules.push('}');
    rules
}

/// Rules at the bridge's end of the carrier's cable: for *deaf*, every answer but `SIP/2.0 200` (to
/// OPTIONS, CANCEL) is lost. A deaf carrier's dialplan never answers a call, so that 200 says nothing of one.
fn rules_of_cable(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::Deaf => {
            "udp sport 5060 @th,64,72 0x5349502f322e302031 counter drop\n\
             udp sport 5060 @th,64,72 0x5349502f322e302034 counter drop\n\
             udp sport 5060 @th,64,72 0x5349502f322e302035 counter drop\n\
             udp sport 5060 @th,64,72 0x5349502f322e302036 counter drop"
        }
        Behaviour::Normal
        | Behaviour::Answer
        | Behaviour::Busy
        | Behaviour::Ring
        | Behaviour::Trying
        | Behaviour::Silent
        | Behaviour::Slow
        | Behaviour::Dead
        | Behaviour::Srv
        | Behaviour::Half
        | Behaviour::Press
        | Behaviour::Press2
        | Behaviour::Again
        | Behaviour::Mute
        | Behaviour::Human
        | Behaviour::Voicemail
        | Behaviour::Code(_) => "",
    }
}

fn quoted(word: &str) -> String {
    format!("\"{word}\"")
}

fn lock(reader: &Mutex<seen::Reader>) -> std::sync::MutexGuard<'_, seen::Reader> {
    reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
