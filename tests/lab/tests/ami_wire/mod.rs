//! AMI as bytes on a socket, for tests that must not believe the product's own client.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
use lab::{AmiUser, AsteriskVersion, Pbx, Plan};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The plan of this run: `RINGWARD_LAB_ASTERISK=16` runs the PBXes on the old end of the range.
pub(crate) fn plan() -> Plan {
    let old = std::env::var("RINGWARD_LAB_ASTERISK").is_ok_and(|wanted| wanted == "16");
    Plan { asterisk: if old { AsteriskVersion::V16 } else { AsteriskVersion::V22 }, ..Plan::default() }
}

/// Headers of one event or answer, in order.
#[derive(Clone, Debug)]
pub(crate) struct Block(pub(crate) Vec<(String, String)>);

impl Block {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, event: &str, attempt: &str) -> bool {
        let id = self.get("Uniqueid").or_else(|| self.get("DestUniqueid"));
        self.get("Event") == Some(event) && id == Some(attempt)
    }
}

/// How a call ended, as events and the flight record tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) channel: bool,
    pub(crate) state: String,
    pub(crate) cause: String,
    pub(crate) tech_cause: Option<String>,
    pub(crate) reason: String,
    pub(crate) dial: Vec<String>,
    pub(crate) record: Option<String>,
}

/// One session.
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn login(pbx: &Pbx, user: AmiUser) -> Wire {
        let stream = TcpStream::connect(pbx.ami_address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut wire = Wire { stream, buffer: Vec::new() };
        let secret = pbx.secret(user).unwrap();
        let login = format!("Action: Login\r\nUsername: {}\r\nSecret: {secret}\r\n\r\n", user.username());
        wire.send(&login);
        let blocks = wire.until(Duration::from_secs(5), |block| block.get("Response").is_some());
        assert_eq!(blocks.last().and_then(|block| block.get("Response")), Some("Success"), "{blocks:?}");
        wire
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until a block answers true (it is the last) or the time is over.
    pub(crate) fn until(&mut self, at_most: Duration, mut last: impl FnMut(&Block) -> bool) -> Vec<Block> {
        let end = Instant::now() + at_most;
        let mut blocks = Vec::new();
        loop {
            while let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let bytes: Vec<u8> = self.buffer.drain(..at + 4).collect();
                let text = String::from_utf8_lossy(&bytes);
                let headers = text.split("\r\n").filter_map(|line| line.split_once(':'));
                let block = Block(headers.map(|(key, value)| (key.into(), value.trim().into())).collect());
                let is_last = last(&block);
                blocks.push(block);
                if is_last {
                    return blocks;
                }
            }
            if Instant::now() > end {
                return blocks;
            }
            let mut bytes = [0_u8; 65_536];
            match self.stream.read(&mut bytes) {
                Ok(0) => return blocks,
                Ok(length) => self.buffer.extend_from_slice(&bytes[..length]),
                Err(_) => {}
            }
        }
    }

    /// Sends an Originate and gives the attempt's id.
    pub(crate) fn originate(&mut self, endpoint: &str, number: &str, timeout_ms: u32) -> String {
        self.originate_with(endpoint, number, timeout_ms, "RINGWARD_AUDIO=hello-world RINGWARD_REPEAT=1")
    }

    /// The same with these variables, parted by blanks.
    pub(crate) fn originate_with(
        &mut self,
        endpoint: &str,
        number: &str,
        timeout_ms: u32,
        variables: &str,
    ) -> String {
        let attempt = format!("att_{:06}{:020}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let variables: String =
            variables.split_whitespace().map(|variable| format!("Variable: {variable}\r\n")).collect();
        self.send(&format!(
            "Action: Originate\r\nActionID: o-{attempt}\r\nChannel: PJSIP/{number}@{endpoint}\r\n\
             Context: ringward-call\r\nExten: s\r\nPriority: 1\r\nTimeout: {timeout_ms}\r\nAsync: true\r\n\
             ChannelId: {attempt}\r\nVariable: RINGWARD_ATTEMPT={attempt}\r\n{variables}\
             Variable: CHANNEL(hangup_handler_push)=\"ringward-record,s,1\"\r\n\r\n"
        ));
        attempt
    }

    /// Places one call and waits for its end, at most 15 s.
    pub(crate) fn place(&mut self, pbx: &Pbx, endpoint: &str, number: &str, timeout_ms: u32) -> Ending {
        let attempt = self.originate(endpoint, number, timeout_ms);
        let (mut channel, mut hangup, mut response) = (false, false, false);
        let blocks = self.until(Duration::from_secs(15), |block| {
            channel |= block.is("Newchannel", &attempt);
            hangup |= block.is("Hangup", &attempt);
            response |= block.get("Event") == Some("OriginateResponse")
                && block.get("ActionID") == Some(format!("o-{attempt}").as_str());
            response && (hangup || !channel)
        });
        let mut ending = Ending { channel, ..Ending::default() };
        for block in &blocks {
            if block.is("Hangup", &attempt) {
                ending.state = block.get("ChannelStateDesc").unwrap_or_default().into();
                ending.cause = block.get("Cause").unwrap_or_default().into();
                ending.tech_cause = block.get("TechCause").map(Into::into);
            } else if block.is("DialState", &attempt) || block.is("DialEnd", &attempt) {
                ending.dial.push(block.get("DialStatus").unwrap_or_default().into());
            } else if block.get("Event") == Some("OriginateResponse") {
                ending.reason = block.get("Reason").unwrap_or_default().into();
            }
        }
        ending.record = pbx.flight_record(&attempt).unwrap();
        ending
    }
}

/// The record without its time: `2|end|Ringing|486|17|-|-|-`.
pub(crate) fn without_time(record: Option<&str>) -> Option<String> {
    let mut parts: Vec<&str> = record?.split('|').collect();
    (parts.len() == 9).then(|| parts.remove(5))?;
    Some(parts.join("|"))
}
