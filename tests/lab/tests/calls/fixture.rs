//! A lab, a control plane on it, and words for what is expected of calls.

use std::time::Duration;

use clap::ValueEnum as _;
use lab::{AsteriskVersion, ControlPlane, Lab, Plan, Reach, Seen, Setup, TrunkLayout};
use serde_json::{Value, json};
use tempfile::TempDir;

/// No packet for so long: nothing more comes.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

/// A fleet under test.
pub(crate) struct Fleet {
    // In this order: the control plane ends before its fleet, the folder goes last.
    pub(crate) plane: ControlPlane,
    pub(crate) lab: Lab,
    pub(crate) folder: TempDir,
}

/// Which Asterisk the PBXes run.
pub(crate) fn asterisk() -> AsteriskVersion {
    let wanted = std::env::var("RINGWARD_LAB_ASTERISK").unwrap_or_else(|_| "22".into());
    AsteriskVersion::from_str(&wanted, true).expect("RINGWARD_LAB_ASTERISK is 22 or 16")
}

/// Two PBXes, two carriers, and a trunk for every pair.
pub(crate) fn full() -> Plan {
    Plan { trunks: TrunkLayout::Full, asterisk: asterisk(), ..Plan::default() }
}

/// The same, with an agent on each PBX and AMI on its loopback only.
pub(crate) fn over_links(plan: Plan) -> Plan {
    Plan { reach: Reach::Agent, ..plan }
}

/// Two PBXes with a carrier of its own each.
pub(crate) fn diagonal() -> Plan {
    Plan { asterisk: asterisk(), ..Plan::default() }
}

impl Fleet {
    pub(crate) fn up(plan: Plan) -> Self {
        Self::up_with(plan, |setup| setup)
    }

    /// With the control plane set up otherwise.
    pub(crate) fn up_with(plan: Plan, change: impl FnOnce(Setup) -> Setup) -> Self {
        let lab = Lab::up(plan).unwrap();
        let folder = TempDir::new().unwrap();
        let plane = ControlPlane::start_with(&lab, change(Setup::new(folder.path()))).unwrap();
        Self { plane, lab, folder }
    }

    /// Places a call that plays a beep, with more members.
    pub(crate) fn place(&self, to: &str, more: Value) -> String {
        let mut body = json!({"to": to, "message": {"audio_id": "builtin:beep"}});
        for (member, value) in more.as_object().unwrap() {
            body[member] = value.clone();
        }
        self.plane.place(&body).unwrap()
    }

    /// Places one and waits for its end.
    pub(crate) fn placed(&self, to: &str, more: Value) -> Value {
        let id = self.place(to, more);
        self.ended(&id)
    }

    pub(crate) fn ended(&self, id: &str) -> Value {
        self.plane.ended(id, Duration::from_secs(90)).unwrap_or_else(|error| {
            panic!("{error}\n{}\n{}", self.plane.call(id).unwrap_or_default(), self.log_tail())
        })
    }

    /// What a carrier saw, once its wire is quiet.
    pub(crate) fn seen(&self, carrier: &str) -> Seen {
        self.lab.carrier(carrier).unwrap().seen_when_quiet(QUIET).unwrap()
    }

    /// What all carriers saw, once their wires are quiet: look once, ask often.
    pub(crate) fn truth(&self) -> Truth {
        Truth(self.lab.carriers().iter().map(|carrier| self.seen(carrier.name())).collect())
    }

    /// The end of the control plane's log, for a failed test.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.plane.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// What all carriers saw.
pub(crate) struct Truth(Vec<Seen>);

impl Truth {
    /// INVITEs of a number at all carriers.
    pub(crate) fn invites(&self, number: &str) -> u32 {
        self.0.iter().map(|seen| seen.of(number).invites).sum()
    }

    /// How often the phone of a number was reached at all carriers.
    pub(crate) fn reached(&self, number: &str) -> u32 {
        self.0.iter().map(|seen| seen.of(number).reached).sum()
    }
}

/// `status/reason/outcome` of an ended call.
pub(crate) fn end(call: &Value) -> String {
    let word = |member: &str| call[member].as_str().unwrap_or("-").to_owned();
    format!("{}/{}/{}", word("status"), word("reason"), word("outcome"))
}

/// A member of each attempt, in order.
pub(crate) fn attempts<'a>(call: &'a Value, member: &str) -> Vec<&'a str> {
    call["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt[member].as_str().unwrap_or("-"))
        .collect()
}

/// Milliseconds since 1970 of an RFC 3339 member.
pub(crate) fn at_ms(value: &Value) -> i128 {
    let text = value.as_str().unwrap();
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    at.unix_timestamp_nanos() / 1_000_000
}
