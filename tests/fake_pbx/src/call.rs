//! One call, from Newchannel to Hangup: the event sequences that Asterisk 22.10.1 was recorded to raise, and
//! the flight record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::pbx::{Channel, Dialog, Seen, Shared};
use crate::script::{Ending, Fault, Plan, Said, Script};
use crate::talk::{Next, Talk};
use crate::wire::Packet;

const DOWN: (&str, u8) = ("Down", 0);
const RINGING: (&str, u8) = ("Ringing", 5);
const UP: (&str, u8) = ("Up", 6);

/// How a call that became no answer is told about.
struct End {
    cause: u16,
    tech_cause: Option<u16>,
    dial_status: Option<&'static str>,
    reason: u16,
    hangup_request: bool,
}

pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) script: Script,
    pub(crate) plan: Plan,
    pub(crate) id: String,
    pub(crate) action: Packet,
    pub(crate) number: String,
    pub(crate) endpoint: String,
    pub(crate) changed: Arc<Notify>,
    pub(crate) boots: u64,
}

/// What Asterisk tells of a channel in each of its events.
pub(crate) fn snapshot(prefix: &str, id: &str, channel: &Channel) -> Vec<(String, String)> {
    let (word, number) = channel.state;
    let (number, unknown) = (number.to_string(), "<unknown>");
    let pairs = [
        ("Channel", channel.name.as_str()),
        ("ChannelState", &number),
        ("ChannelStateDesc", word),
        ("CallerIDNum", &channel.caller),
        ("CallerIDName", unknown),
        ("ConnectedLineNum", &channel.caller),
        ("ConnectedLineName", unknown),
        ("Language", "en"),
        ("AccountCode", ""),
        ("Context", "in"),
        ("Exten", "s"),
        ("Priority", "1"),
        ("Uniqueid", id),
        ("Linkedid", id),
    ];
    pairs.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value.to_owned())).collect()
}

/// Q.850 cause and DialStatus of a SIP answer (hangup_sip2cause of chan_pjsip).
fn meaning(code: u16) -> (u16, &'static str) {
    match code {
        486 | 600 => (17, "BUSY"),
        401 | 403 | 407 | 603 => (21, "NOANSWER"),
        404 | 485 | 604 => (1, "CHANUNAVAIL"),
        408 => (18, "NOANSWER"),
        410 => (22, "CHANUNAVAIL"),
        480 => (19, "NOANSWER"),
        484 => (28, "CHANUNAVAIL"),
        488 | 606 => (58, "CONGESTION"),
        500 => (41, "CONGESTION"),
        502 => (38, "CONGESTION"),
        503 => (34, "CONGESTION"),
        _ => (127, "CONGESTION"),
    }
}

impl Call {
    /// False where no channel comes to be: contact down, or an id that is a prefix of a living one.
    pub(crate) fn begin(&self) -> bool {
        let channel = {
            let mut state = self.shared.state();
            let taken = state.channels.keys().any(|live| {
                let head = live.get(..self.id.len());
                head.is_some_and(|head| head.eq_ignore_ascii_case(&self.id))
            });
            let down =
                self.plan.ending == Ending::ContactDown || state.down_endpoints.contains(&self.endpoint);
            if taken || down || state.boots != self.boots {
                return false;
            }
            state.next_channel += 1;
            let name = format!("PJSIP/{}-{:08x}", self.endpoint, state.next_channel);
            let caller = self.action.get("CallerID").unwrap_or("<unknown>").to_owned();
            let is_dialog = self.script.keeps_dialogs && self.plan.ending != Ending::DnsFailure;
            let dialog = is_dialog.then(|| {
                state.dialogs.push(Dialog {
                    number: self.number.clone(),
                    endpoint: self.endpoint.clone(),
                    at: Instant::now(),
                    rang_at: None,
                    answered_at: None,
                    code: None,
                    keys: Vec::new(),
                    ended_at: None,
                });
                state.dialogs.len() - 1
            });
            let channel = Channel {
                name,
                number: self.number.clone(),
                caller,
                state: DOWN,
                hangup: None,
                changed: self.changed.clone(),
                talk: Talk::default(),
                dialog,
            };
            state.channels.insert(self.id.clone(), channel.clone());
            channel
        };
        self.raise(Packet::event("Newchannel", "call").extend(snapshot("", &self.id, &channel)));
        if self.plan.ending != Ending::DnsFailure {
            self.count(|seen| seen.invites += 1);
            let begin = Packet::event("DialBegin", "call").extend(snapshot("Dest", &self.id, &channel));
            self.raise(begin.add("DialString", format!("{}@{}", channel.number, self.endpoint)));
        }
        true
    }

    pub(crate) async fn go_on(self, going: oneshot::Receiver<()>, begun: bool) {
        // Whether the answer could be written does not change the call.
        let _ = going.await;
        if !begun && !self.begin() {
            return self.originate_response(false, 0);
        }
        let (step, limit) = (self.script.step, self.limit());
        match self.plan.ending.clone() {
            Ending::Answer { talk } => self.answered(talk, Some(Said::Played), 16).await,
            Ending::AnswerThenBye { talk } => self.answered(talk, None, 0).await,
            Ending::Busy486 => self.rings_then_says(486).await,
            Ending::Declined603 => self.rings_then_says(603).await,
            Ending::RingThenSip(code) => self.rings_then_says(code).await,
            Ending::Sip(code) => {
                if self.passes(step).await {
                    self.refused(code);
                }
            }
            Ending::ProgressThenSip(code) => {
                if self.passes(step).await {
                    self.dial_state("PROGRESS");
                    if self.passes(step).await {
                        self.refused(code);
                    }
                }
            }
            Ending::NoAnswer => {
                if self.passes(step).await && self.ring() && self.passes(limit).await {
                    self.timed_out();
                }
            }
            Ending::SilentTrying => {
                if self.passes(limit).await {
                    self.timed_out();
                }
            }
            Ending::Silent if limit < self.script.timer_b => {
                if self.passes(limit).await {
                    self.timed_out();
                }
            }
            Ending::Silent => {
                if self.passes(self.script.timer_b).await {
                    self.refused(408);
                }
            }
            Ending::DnsFailure => {
                if self.passes(step).await {
                    self.refused(503);
                }
            }
            // Neither comes this far.
            Ending::ContactDown | Ending::Rejected(_) => {}
        }
    }

    fn limit(&self) -> Duration {
        let millis = self.action.get("Timeout").and_then(|millis| millis.parse().ok()).unwrap_or(30_000);
        Duration::from_millis(millis)
    }

    /// Waits; false if the call ended meanwhile, by a Hangup or a restart.
    async fn passes(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let asked = {
                let state = self.shared.state();
                match state.channels.get(&self.id) {
                    Some(channel) if state.boots == self.boots => channel.hangup,
                    Some(_) | None => return false,
                }
            };
            if let Some(cause) = asked {
                self.hung_up_here(cause);
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            // Waking up by time-out is as good as by change: both look again.
            let _ = timeout(left, self.changed.notified()).await;
        }
    }

    async fn rings_then_says(&self, code: u16) {
        let step = self.script.step;
        if self.passes(step).await && self.ring() && self.passes(step).await {
            self.refused(code);
        }
    }

    async fn answered(&self, talk: Duration, last: Option<Said>, cause: u16) {
        let step = self.script.step;
        if !(self.passes(step).await && self.ring() && self.passes(step).await) {
            return;
        }
        self.count(|seen| seen.answers += 1);
        self.tell(|dialog, now| (dialog.answered_at, dialog.code) = (Some(now), Some(200)));
        let Some(channel) = self.set_state(UP) else { return };
        self.raise(Packet::event("Newstate", "call").extend(snapshot("", &self.id, &channel)));
        let end = Packet::event("DialEnd", "call").extend(snapshot("Dest", &self.id, &channel));
        self.raise(end.add("DialStatus", "ANSWER"));
        self.record_up();
        if !self.plan.has(Fault::OriginateResponseLast) {
            self.originate_response(true, 4);
        }
        self.user_event("RingwardAnswered", &[]);
        let answered = Instant::now();
        let ends =
            |cause| End { cause, tech_cause: None, dial_status: None, reason: 4, hangup_request: false };
        let says = self.plan.says.iter().copied().map(|(after, said)| (after, Some(said)));
        for (after, said) in says.filter(|(after, _)| *after < talk).chain([(talk, last)]) {
            if !self.passes((answered + after).saturating_duration_since(Instant::now())).await {
                return;
            }
            match said.map(|said| self.say(said)) {
                Some(Next::Ends) => return self.end(&ends(16)),
                Some(Next::GoesOn) | None => {}
            }
        }
        self.end(&ends(cause));
    }

    fn ring(&self) -> bool {
        self.count(|seen| seen.rings += 1);
        self.tell(|dialog, now| dialog.rang_at = Some(now));
        let Some(channel) = self.set_state(RINGING) else { return false };
        self.raise(Packet::event("Newstate", "call").extend(snapshot("", &self.id, &channel)));
        self.dial_state("RINGING");
        true
    }

    fn dial_state(&self, status: &str) {
        let channel = self.shared.state().channels.get(&self.id).cloned();
        if let Some(channel) = channel {
            let packet = Packet::event("DialState", "call").extend(snapshot("Dest", &self.id, &channel));
            self.raise(packet.add("DialStatus", status));
        }
    }

    fn refused(&self, code: u16) {
        let (cause, dial_status) = meaning(code);
        let dial_status = Some(dial_status);
        // Timer B is the PBX's own, not an answer.
        if code != 408 {
            self.tell(|dialog, _| dialog.code = Some(code));
        }
        self.end(&End { cause, tech_cause: Some(code), dial_status, reason: 0, hangup_request: code != 408 });
    }

    fn timed_out(&self) {
        self.end(&End {
            cause: 19,
            tech_cause: Some(480),
            dial_status: None,
            reason: 3,
            hangup_request: false,
        });
    }

    fn hung_up_here(&self, cause: u16) {
        let up = self.shared.state().channels.get(&self.id).is_some_and(|channel| channel.state == UP);
        let dial_status = if up { None } else { Some("NOANSWER") };
        self.end(&End { cause, tech_cause: None, dial_status, reason: 0, hangup_request: false });
    }

    /// The order that was measured: HangupRequest first, the recorder, OriginateResponse, then Hangup.
    fn end(&self, end: &End) {
        let channel = {
            let mut state = self.shared.state();
            let Some(channel) = state.channels.remove(&self.id) else { return };
            state.note(&channel, |dialog, now| dialog.ended_at = Some(now));
            channel
        };
        let tech_cause = end.tech_cause.filter(|_| self.script.tech_cause);
        let with_tech_cause = |packet: Packet| match tech_cause {
            Some(code) => packet.add("TechCause", code),
            None => packet,
        };
        let snap = |prefix: &str| snapshot(prefix, &self.id, &channel);
        if end.hangup_request {
            let request = Packet::event("HangupRequest", "call").extend(snap("")).add("Cause", end.cause);
            self.raise(with_tech_cause(request));
        }
        if let Some(status) = end.dial_status {
            self.raise(Packet::event("DialEnd", "call").extend(snap("Dest")).add("DialStatus", status));
        }
        let sip = end.tech_cause.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let (state, now) = (channel.state.0, self.shared.epoch_s());
        self.record(&format!("end|{state}|{sip}|{}|{now}", end.cause), channel.talk);
        let up = channel.state == UP;
        let last = self.plan.has(Fault::OriginateResponseLast);
        if !up && !last {
            self.originate_response(false, end.reason);
        }
        if !self.plan.has(Fault::NoHangupEvent) {
            let hangup = Packet::event("Hangup", "call").extend(snap("")).add("Cause", end.cause);
            self.raise(with_tech_cause(hangup.add("Cause-txt", "Unknown")));
        }
        if last {
            self.originate_response(up, if up { 4 } else { end.reason });
        }
    }

    fn originate_response(&self, success: bool, reason: u16) {
        let packet = Packet::event("OriginateResponse", "call");
        let packet = match self.action.get("ActionID") {
            Some(id) => packet.add("ActionID", id),
            None => packet,
        };
        self.raise(
            packet
                .add("Response", if success { "Success" } else { "Failure" })
                .add("Channel", self.action.get("Channel").unwrap_or_default())
                .add("Context", self.action.get("Context").unwrap_or_default())
                .add("Exten", self.action.get("Exten").unwrap_or_default())
                .add("Reason", reason)
                .add("Uniqueid", &self.id)
                .add("CallerIDNum", self.action.get("CallerID").unwrap_or("<unknown>"))
                .add("CallerIDName", "<unknown>"),
        );
    }

    pub(crate) fn record(&self, call: &str, talk: Talk) {
        let value = if self.script.hears_keys { format!("2|{call}|{talk}") } else { format!("1|{call}") };
        let pushed = self.action.all("Variable").any(|variable| variable.contains("hangup_handler_push"));
        if self.script.flight_recorder && pushed {
            self.shared.state().db.insert(("ringward".to_owned(), self.id.clone()), value);
        }
    }

    fn set_state(&self, to: (&'static str, u8)) -> Option<Channel> {
        let mut state = self.shared.state();
        let channel = state.channels.get_mut(&self.id)?;
        channel.state = to;
        Some(channel.clone())
    }

    /// Writes down what the carrier saw.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Dialog, Instant)) {
        let mut state = self.shared.state();
        if let Some(channel) = state.channels.get(&self.id).cloned() {
            state.note(&channel, change);
        }
    }

    fn count(&self, change: impl FnOnce(&mut Seen)) {
        change(self.shared.state().seen.entry(self.number.clone()).or_default());
    }

    pub(crate) fn raise(&self, packet: Packet) {
        self.shared.raise(&packet);
    }
}
