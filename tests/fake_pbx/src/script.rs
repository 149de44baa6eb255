//! What a test may ask of the PBX.

use std::time::Duration;

/// How long a callee stays who does something while he listens.
const STAYS: Duration = Duration::from_secs(60);

/// How the callee and his carrier behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Rings, is answered, and the PBX hangs up after `talk` (Cause 16).
    Answer {
        /// From the answer to the end.
        talk: Duration,
    },
    /// Rings, is answered, and the callee says BYE after `talk` (Cause 0, no TechCause).
    AnswerThenBye {
        /// From the answer to the BYE.
        talk: Duration,
    },
    /// Rings, then 486.
    Busy486,
    /// Rings, then 603.
    Declined603,
    /// This SIP answer at once, without ringing.
    Sip(u16),
    /// 180, then this SIP answer.
    RingThenSip(u16),
    /// 183, then this SIP answer.
    ProgressThenSip(u16),
    /// Rings until the Originate's time-out.
    NoAnswer,
    /// 100 and nothing more until the Originate's time-out.
    SilentTrying,
    /// Nothing at all: a local 408 after [`Script::timer_b`].
    Silent,
    /// The contact is unreachable or the endpoint unknown: no channel, no INVITE.
    ContactDown,
    /// The contact's name does not resolve: a channel, TechCause 503, no INVITE.
    DnsFailure,
    /// `Response: Error` with these words.
    Rejected(String),
}

impl Ending {
    /// Answered, with a short talk.
    #[must_use]
    pub fn answer() -> Self {
        Self::Answer { talk: Duration::from_millis(50) }
    }
}

/// What goes wrong between the PBX and its client, apart from how the call itself ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call goes on, but the link is cut right after "queued" was written.
    DropAfterQueued,
    /// The call goes on, but the link is cut instead of an answer.
    DropBeforeAnswer,
    /// The link is cut instead of an answer, and no call is made.
    DropWithoutCall,
    /// The call goes on and the action is never answered.
    NeverAnswered,
    /// The call goes on and the answer bears another ActionID.
    WrongActionId,
    /// Newchannel and DialBegin come before the response.
    EventsBeforeResponse,
    /// OriginateResponse comes after Hangup.
    OriginateResponseLast,
    /// Hangup never comes.
    NoHangupEvent,
    /// Every link is cut when a key has been recorded and before it is told; the call goes on.
    DropAtKey,
    /// A key is recorded, and its event is lost.
    NoKeyEvent,
}

/// What the dialplan tells of an answered call. It ends the call where the real one would: after a key of
/// `RINGWARD_KEYS`, after `machine` where `RINGWARD_AMD` is `hangup`, after `Played` and `NoMedia`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The callee presses this key.
    Key(char),
    /// AMD()'s verdict: `human`, `machine` or `notsure`. Not told of a call without `RINGWARD_AMD`.
    Machine(&'static str),
    /// The message was played to its last repeat.
    Played,
    /// The sound is not on this PBX.
    NoMedia,
}

/// An ending, what the dialplan tells before it, and what goes wrong around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How the call ends.
    pub ending: Ending,
    /// What the dialplan tells, each so long after the answer. [`Ending::Answer`] tells `Played` at its end by itself.
    pub says: Vec<(Duration, Said)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn of(ending: Ending) -> Self {
        Self { ending, says: Vec::new(), faults: Vec::new() }
    }

    /// Answered, and the callee presses this key so long after it; he stays on the line for a minute.
    #[must_use]
    pub fn pressing(key: char, after: Duration) -> Self {
        Self::of(Ending::Answer { talk: STAYS }).saying(after, Said::Key(key))
    }

    /// And the dialplan tells this, so long after the answer.
    #[must_use]
    pub fn saying(mut self, after: Duration, said: Said) -> Self {
        self.says.push((after, said));
        self.says.sort_by_key(|(after, _)| *after);
        self
    }

    /// And this goes wrong.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl From<Ending> for Plan {
    fn from(ending: Ending) -> Self {
        Self::of(ending)
    }
}

/// How `CoreStatus` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreStatus {
    /// As Asterisk does.
    Answers,
    /// Not at all.
    Silent,
    /// As for a manager user without the classes for it.
    Refused,
}

/// The PBX as it starts. Everything but the login can be changed later.
#[derive(Debug, Clone)]
pub struct Script {
    /// Manager user.
    pub username: String,
    /// Its secret.
    pub secret: String,
    /// What a number means by its digits, where it has no plan of its own.
    pub of_number: Option<fn(&str) -> Option<Plan>>,
    /// For all other numbers.
    pub default: Plan,
    /// Between one thing and the next in a call.
    pub step: Duration,
    /// How long a wholly silent carrier is waited for.
    pub timer_b: Duration,
    /// Before the banner.
    pub banner_delay: Duration,
    /// Writes every byte apart, with a yield between, so that clients see half lines.
    pub half_lines: bool,
    /// Whether the dialplan has a flight recorder (it runs if the Originate pushes a hangup handler).
    pub flight_recorder: bool,
    /// Whether the dialplan hears keys. One of before that does not, and its records are of version 1.
    pub hears_keys: bool,
    /// What `TechCause` is left out for: versions before 20.17 and 22.7.
    pub tech_cause: bool,
    /// How `CoreStatus` is answered.
    pub core_status: CoreStatus,
    /// Whether [`crate::FakePbx::actions`] tells of every action that came. One that is pinged for hours should not.
    pub keeps_actions: bool,
    /// Whether [`crate::FakePbx::dialogs`] tells of every call.
    pub keeps_dialogs: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            username: "ringward".to_owned(),
            secret: "secret".to_owned(),
            of_number: None,
            default: Plan::of(Ending::answer()),
            step: Duration::from_millis(2),
            timer_b: Duration::from_millis(300),
            banner_delay: Duration::ZERO,
            half_lines: false,
            flight_recorder: true,
            hears_keys: true,
            tech_cause: true,
            core_status: CoreStatus::Answers,
            keeps_actions: true,
            keeps_dialogs: false,
        }
    }
}
