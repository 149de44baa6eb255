//! One entry of the journal, as `journalctl -o json` prints it, as a line that a filter can read.
//!
//! **Who wrote it** is told by the fields whose names begin with `_`: journald takes them from the kernel, and no
//! client can set them. Everything else (`SYSLOG_IDENTIFIER`, `PRIORITY`, `MESSAGE`) is what the client says of itself:
//! any local user may call himself sshd. So an entry counts only if its process ran as root and, as far as
//! journald was in time to see that, is sshd by its program and by its unit. A process that has ended before journald
//! looked has no `_EXE`, `_COMM` and unit; its `_UID` comes with the message itself, and root is not the adversary here.

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::moment::UnixMs;

/// Names under which sshd speaks to the journal, for `journalctl` to choose by. Not evidence.
pub const IDENTIFIERS: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// An entry that sshd wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the journal goes on.
    pub cursor: String,
    /// When journald took it.
    pub at: UnixMs,
    /// As the filter `sshd` reads lines: stamp, host, program, message.
    pub line: Vec<u8>,
}

/// What one line of `journalctl`'s is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Sshd's.
    Entry(Entry),
    /// Somebody else's, who calls himself sshd: counts against nobody.
    Stranger {
        /// Where the journal goes on.
        cursor: String,
    },
    /// No entry.
    Unreadable,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime_us: String,
    #[serde(rename = "_UID")]
    uid: Option<String>,
    #[serde(rename = "_PID")]
    pid: Option<String>,
    #[serde(rename = "_COMM")]
    comm: Option<String>,
    #[serde(rename = "_EXE")]
    exe: Option<String>,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Option<String>,
    #[serde(rename = "MESSAGE", default, deserialize_with = "message")]
    message: Option<Vec<u8>>,
}

/// Text, or an array of bytes where it is no text; `null` where it was too long to be printed.
fn message<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
        Other(IgnoredAny),
    }
    Ok(match Form::deserialize(d)? {
        Form::Text(text) => Some(text.into_bytes()),
        Form::Bytes(bytes) => Some(bytes),
        Form::Other(_) => None,
    })
}

/// Reads one line that `journalctl -o json` printed.
#[must_use]
pub fn read(json: &[u8]) -> Told {
    let Ok(fields) = serde_json::from_slice::<Fields>(json) else { return Told::Unreadable };
    let (Some(at), Some(message)) = (fields.at(), &fields.message) else { return Told::Unreadable };
    if !fields.is_sshd() {
        return Told::Stranger { cursor: fields.cursor };
    }
    let pid = fields.pid.as_deref().filter(|pid| pid.bytes().all(|b| b.is_ascii_digit())).unwrap_or("0");
    let mut line = format!("{} journal sshd[{pid}]: ", iso(at)).into_bytes();
    line.extend_from_slice(message);
    Told::Entry(Entry { cursor: fields.cursor, at, line })
}

impl Fields {
    fn at(&self) -> Option<UnixMs> {
        Some(UnixMs(self.realtime_us.parse::<u64>().ok()? / 1000))
    }

    fn is_sshd(&self) -> bool {
        let known = |field: &Option<String>, is: fn(&str) -> bool| field.as_deref().is_none_or(is);
        self.uid.as_deref() == Some("0")
            && known(&self.comm, |comm| IDENTIFIERS.contains(&comm))
            && known(&self.exe, is_sshd_program)
            && known(&self.unit, is_sshd_unit)
    }
}

/// In a folder that root alone can write, by the name of one of sshd's programs.
fn is_sshd_program(path: &str) -> bool {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let is_system =
        ["/usr/", "/sbin", "/lib/", "/libexec/", "/opt/"].iter().any(|root| folder.starts_with(root));
    is_system && IDENTIFIERS.contains(&name)
}

/// `ssh.service`, `sshd.service`, one of a socket's (`ssh@3-192.0.2.1:22-….service`), or the session into which a login
/// was moved.
fn is_sshd_unit(unit: &str) -> bool {
    let is_service = ["ssh", "sshd"].iter().any(|name| {
        unit.strip_prefix(name)
            .is_some_and(|rest| rest == ".service" || (rest.starts_with('@') && rest.ends_with(".service")))
    });
    is_service || (unit.starts_with("session-") && unit.ends_with(".scope"))
}

fn iso(at: UnixMs) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        offence::{Finding, Kind},
        patterns::{Filter, Line, Matcher},
    };

    const INVALID: &str = "Invalid user oracle from 192.0.2.66 port 40022";

    /// As journald 252 of Debian 12 tells of sshd.
    fn entry(changes: &[(&str, Value)]) -> Vec<u8> {
        let mut entry = json!({
            "__CURSOR": "s=5b1e;i=1f4;b=ab;m=1;t=2;x=3", "__REALTIME_TIMESTAMP": "1795522722523000",
            "__MONOTONIC_TIMESTAMP": "91822523000", "_BOOT_ID": "ab", "_TRANSPORT": "syslog", "PRIORITY": "6",
            "SYSLOG_FACILITY": "4", "SYSLOG_IDENTIFIER": "sshd", "SYSLOG_PID": "812", "_PID": "812", "_UID": "0",
            "_GID": "0", "_COMM": "sshd", "_EXE": "/usr/sbin/sshd", "_CMDLINE": "sshd: unknown [priv]",
            "_SYSTEMD_UNIT": "ssh.service", "MESSAGE": INVALID,
        });
        for (name, value) in changes {
            entry[*name] = value.clone();
        }
        entry.to_string().into_bytes()
    }

    fn offence(told: Told) -> Option<(Kind, String)> {
        let Told::Entry(entry) = told else { return None };
        let sshd =
            Filter::shipped().unwrap().into_iter().find(|filter| filter.name.as_str() == "sshd").unwrap();
        let Line::Matched { at, finding: Finding::Offence(offence), .. } =
            Matcher::new(&sshd).unwrap().read(&entry.line, UnixMs(0))
        else {
            return None;
        };
        assert_eq!(at.unwrap().0 / 1000, entry.at.0 / 1000);
        Some((offence.kind, offence.source.to_string()))
    }

    #[test]
    fn sshd_s_own_entries_are_read_by_sshd_s_filter() {
        let expected = Some((Kind::InvalidAccount, "192.0.2.66".to_owned()));
        let gone = [("_COMM", Value::Null), ("_EXE", Value::Null), ("_SYSTEMD_UNIT", Value::Null)];
        let newer = [("_COMM", json!("sshd-session")), ("_EXE", json!("/usr/lib/openssh/sshd-session"))];
        let of_socket = [("_SYSTEMD_UNIT", json!("ssh@3-192.0.2.1:22-192.0.2.66:40022.service"))];
        let upgraded = [("_EXE", json!("/usr/sbin/sshd (deleted)"))];
        for changes in [&[][..], &gone, &newer, &of_socket, &upgraded] {
            assert_eq!(offence(read(&entry(changes))), expected, "{changes:?}");
        }
        let bytes: Vec<u8> = INVALID.replace("oracle", "or\u{ff}").into_bytes();
        assert_eq!(offence(read(&entry(&[("MESSAGE", json!(bytes))]))), expected);
    }

    #[test]
    fn who_merely_calls_himself_sshd_is_a_stranger() {
        for changes in [
            &[("_UID", json!("1000"))][..],
            &[("_UID", Value::Null)],
            &[("_COMM", json!("logger"))],
            &[("_EXE", json!("/usr/bin/logger"))],
            &[("_EXE", json!("/home/mallory/sshd"))],
            &[("_EXE", json!("/tmp/usr/sbin/sshd"))],
            &[("_EXE", json!("sshd"))],
            &[("_SYSTEMD_UNIT", json!("cron.service"))],
            &[("_SYSTEMD_UNIT", json!("ssh-x.service"))],
            &[("_SYSTEMD_UNIT", json!("user@1000.service"))],
        ] {
            let told = read(&entry(changes));
            assert!(matches!(told, Told::Stranger { .. }), "{changes:?} {told:?}");
        }
    }

    #[test]
    fn line_breaks_in_a_message_begin_no_line_and_what_is_no_entry_is_unreadable() {
        let forged = format!("x\n2026-11-24T12:18:42Z journal sshd[1]: {INVALID}");
        assert_eq!(offence(read(&entry(&[("MESSAGE", json!(forged))]))), None);
        assert_eq!(read(&entry(&[("MESSAGE", Value::Null)])), Told::Unreadable);
        assert_eq!(read(&entry(&[("MESSAGE", json!([1, 300]))])), Told::Unreadable);
        for bad in [&b""[..], b"{}", b"[]", b"{\"__CURSOR\":1}", b"\xff", b"-- No entries --"] {
            assert_eq!(read(bad), Told::Unreadable);
        }
    }
}
