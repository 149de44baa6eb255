//! The flight record: what the dialplan wrote about an attempt, read back from AstDB.
//!
//! Family `ringward`, key = the attempt's channel id, value
//! `2|<phase>|<channel state>|<sip code>|<q850>|<epoch seconds>|<key>|<human, machine or notsure>|<ending>`, where the
//! ending is `played`, `nomedia` or `stopped`,
//! with `-` for "none", such as `2|end|Ringing|486|17|1790000000|-|-|-` or `2|up|Up|-|-|1790000000|1|human|-`.
//! Version 1, of dialplans before it, ends with the seconds. Digits, keys and fixed words only, so that nothing
//! of a stranger's can ride in it.

use std::fmt;

use crate::call_news::{Verdict, key as key_word};

/// The AstDB family of all records.
pub const FLIGHT_RECORD_FAMILY: &str = "ringward";

/// How far the call had come when the record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlightPhase {
    /// Answered and alive at the time of writing.
    Up,
    /// Ended: written by the hangup handler, for answered and unanswered calls.
    End,
}

/// Asterisk's channel states, by its own words (`ast_state2str`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChannelState {
    /// Nothing has come back, or the channel is reserved only.
    Down,
    /// An INVITE is out or a call came in and no answer but 100 (or 183) was seen.
    Dialing,
    /// The callee's phone rings (180).
    Ringing,
    /// Asterisk itself is ringing on an inbound leg.
    Ring,
    /// Answered.
    Up,
    /// One of Asterisk's rarer states (`Rsrvd`, `OffHook`, `Busy`, `Dialing Offhook`, `Pre-ring`, `Unknown`).
    OtherState,
}

impl ChannelState {
    /// Reads `ChannelStateDesc` or `CHANNEL(state)`; `None` for a word that no Asterisk writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Down" => Some(Self::Down),
            "Dialing" => Some(Self::Dialing),
            "Ringing" => Some(Self::Ringing),
            "Ring" => Some(Self::Ring),
            "Up" => Some(Self::Up),
            "Rsrvd" | "OffHook" | "Busy" | "Dialing Offhook" | "Pre-ring" | "Mute" | "Unknown" => {
                Some(Self::OtherState)
            }
            _ => None,
        }
    }

    /// Asterisk's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "Down",
            Self::Dialing => "Dialing",
            Self::Ringing => "Ringing",
            Self::Ring => "Ring",
            Self::Up => "Up",
            Self::OtherState => "Unknown",
        }
    }
}

/// A parsed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightRecord {
    /// By which dialplan: 1, which hears no keys and asks for no machine, or 2.
    pub version: u8,
    /// Up or ended.
    pub phase: FlightPhase,
    /// The channel's state when it was written: `Ringing` at the end means that the phone rang.
    pub state: ChannelState,
    /// The carrier's final SIP answer, where one came.
    pub sip_code: Option<u16>,
    /// Q.850 cause, where one is known.
    pub q850: Option<u16>,
    /// When, by the PBX's clock, in seconds of the Unix epoch. Not to be compared with another host's.
    pub written_at_epoch_s: u64,
    /// The last key that the callee pressed: one that ended the call, if one did.
    pub key: Option<char>,
    /// What AMD() made of the answer, where it was asked.
    pub machine: Option<Verdict>,
    /// The message was played to its last repeat and no key ended the call.
    pub played: bool,
    /// The sound was not on the node, or could not be played.
    pub no_media: bool,
    /// Asterisk itself has ended the answered call, before its time and before the message was played: it stops.
    pub stopped: bool,
}

/// Why a value is no flight record; it names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flight record: {field} is missing or malformed")]
pub struct InvalidFlightRecord {
    /// Which field.
    pub field: &'static str,
}

impl FlightRecord {
    /// Whether it would tell of a key that was pressed.
    #[must_use]
    pub const fn tells_keys(&self) -> bool {
        self.version > 1
    }

    /// Reads a record; strict, since it decides whether a phone may ring again.
    ///
    /// # Errors
    /// [`InvalidFlightRecord`] names the first field that is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidFlightRecord> {
        let bad = |field| InvalidFlightRecord { field };
        let mut parts = text.split('|');
        let mut next = |field| parts.next().ok_or(bad(field));
        let version = match next("version")? {
            "1" => 1,
            "2" => 2,
            _ => return Err(bad("version")),
        };
        let phase = match next("phase")? {
            "up" => FlightPhase::Up,
            "end" => FlightPhase::End,
            _ => return Err(bad("phase")),
        };
        let state = ChannelState::parse(next("state")?).ok_or(bad("state"))?;
        let sip_code = code(next("sip_code")?, 100..=699).ok_or(bad("sip_code"))?;
        let q850 = code(next("q850")?, 0..=255).ok_or(bad("q850"))?;
        let epoch = next("written_at")?;
        let digits = !epoch.is_empty() && epoch.len() <= 12 && epoch.bytes().all(|b| b.is_ascii_digit());
        let written_at_epoch_s = if digits { epoch.parse().ok() } else { None }.ok_or(bad("written_at"))?;
        let (mut key, mut machine, mut ending) = (None, None, "-");
        if version > 1 {
            key = word(next("key")?, key_word).ok_or(bad("key"))?;
            machine = word(next("machine")?, Verdict::parse).ok_or(bad("machine"))?;
            ending = next("played")?;
        }
        let (played, no_media, stopped) = match ending {
            "-" => (false, false, false),
            "played" => (true, false, false),
            "nomedia" => (false, true, false),
            "stopped" => (false, false, true),
            _ => return Err(bad("played")),
        };
        match parts.next() {
            Some(_) => Err(bad("end of record")),
            None => Ok(Self {
                version,
                phase,
                state,
                sip_code,
                q850,
                written_at_epoch_s,
                key,
                machine,
                played,
                no_media,
                stopped,
            }),
        }
    }
}

impl fmt::Display for FlightRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            FlightPhase::Up => "up",
            FlightPhase::End => "end",
        };
        let or_dash = |code: Option<u16>| code.map_or_else(|| "-".to_owned(), |c| c.to_string());
        let (sip, q850) = (or_dash(self.sip_code), or_dash(self.q850));
        let key = self.key.unwrap_or('-');
        let machine = self.machine.map_or("-", Verdict::as_str);
        let ending = match (self.played, self.no_media, self.stopped) {
            (_, true, _) => "nomedia",
            (true, false, _) => "played",
            (false, false, true) => "stopped",
            (false, false, false) => "-",
        };
        let (version, state, at) = (self.version, self.state.as_str(), self.written_at_epoch_s);
        write!(f, "{version}|{phase}|{state}|{sip}|{q850}|{at}")?;
        if version > 1 { write!(f, "|{key}|{machine}|{ending}") } else { Ok(()) }
    }
}

/// `-` is none; `None`: neither that nor a word.
fn word<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { read(text).map(Some) }
}

fn code(text: &str, range: std::ops::RangeInclusive<u16>) -> Option<Option<u16>> {
    if text == "-" {
        return Some(None);
    }
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value.filter(|v| range.contains(v)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_answered_and_unanswered_calls_read_back() {
        for text in [
            "2|end|Ringing|486|17|1790000000|-|-|-",
            "2|up|Up|-|-|1790000000|1|-|-",
            "2|up|Up|-|-|1790000000|*|human|-",
            "2|end|Up|200|16|1790000000|#|notsure|played",
            "2|end|Up|200|16|1790000000|-|machine|nomedia",
            "2|end|Down|-|0|1|-|-|-",
            "2|end|Up|200|0|1790000000|-|-|stopped",
        ] {
            let record = FlightRecord::parse(text).unwrap();
            assert_eq!(record.to_string(), text);
        }
    }

    #[test]
    fn a_record_of_an_older_dialplan_is_read_and_knows_of_no_talk() {
        for text in ["1|end|Ringing|486|17|1790000000", "1|up|Up|-|-|1790000000", "1|end|Down|-|0|1"] {
            let record = FlightRecord::parse(text).unwrap();
            assert_eq!(
                (record.key, record.machine, record.played, record.no_media),
                (None, None, false, false)
            );
            assert_eq!((record.version, record.to_string()), (1, text.to_owned()));
        }
    }

    #[test]
    fn anything_else_is_refused_and_the_field_named() {
        for (text, field) in [
            ("", "version"),
            ("3|end|Up|-|-|1|-|-|-", "version"),
            ("1|ended|Up|-|-|1", "phase"),
            ("1|end|up|-|-|1", "state"),
            ("1|end|Up|+86|-|1", "sip_code"),
            ("1|end|Up|99|-|1", "sip_code"),
            ("1|end|Up|486|256|1", "q850"),
            ("1|end|Up|486|17", "written_at"),
            ("1|end|Up|486|17|-1", "written_at"),
            ("1|end|Up|486|17|1|", "end of record"),
            ("1|end|Up|486|17|1|-|-|-", "end of record"),
            ("2|end|Up|-|-|1", "key"),
            ("2|end|Up|-|-|1||-|-", "key"),
            ("2|end|Up|-|-|1|11|-|-", "key"),
            ("2|end|Up|-|-|1|A|-|-", "key"),
            ("2|end|Up|-|-|1|1", "machine"),
            ("2|end|Up|-|-|1|1|HUMAN|-", "machine"),
            ("2|end|Up|-|-|1|1|-", "played"),
            ("2|end|Up|-|-|1|1|-|yes", "played"),
            ("2|end|Up|-|-|1|1|-|played|", "end of record"),
        ] {
            assert_eq!(FlightRecord::parse(text), Err(InvalidFlightRecord { field }), "{text}");
        }
    }
}
