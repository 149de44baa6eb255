//! What a run leaves behind: what was asked, what was told of it, what the carriers saw, what was broken when.
use std::time::Duration;

use controlplane_core::{
    call::{CallStatus, OnUnknown, Rang, Reason},
    ending::EndingClass,
    request::Redial,
};

use crate::{
    faults::{Subject, What},
    load::Kind,
};

/// Moments are since 1970, by the one clock of the machine.
pub type Moment = Duration;

/// A call that a customer asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its own number, with `+`.
    pub number: String,
    /// What a carrier does with it.
    pub kind: Kind,
    /// The customer's choice.
    pub on_unknown: OnUnknown,
    /// How often it was asked for, with the same `Idempotency-Key`, until an answer came.
    pub posts: u32,
    /// The id that the answer told; `None`: no answer ever came.
    pub id: Option<String>,
    /// Whether its cancellation was asked for.
    pub canceled: bool,
    /// When the cancellation was known to be heard.
    pub canceled_at: Option<Moment>,
    /// When its callee was to be dialled again.
    pub redial: Option<Redial>,
    /// Its deadline, where the customer named one.
    pub deadline_at: Option<Moment>,
}

/// A call as the API told it in the end.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// Whom it phones, with `+`.
    pub number: String,
    /// Where it is.
    pub status: CallStatus,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// The number of its last transition.
    pub sequence: i64,
    /// Acceptance.
    pub created_at: Moment,
    /// End.
    pub ended_at: Option<Moment>,
    /// Until when it may be dialled.
    pub deadline_at: Moment,
    /// The key that acknowledged it, and when that was heard.
    pub acknowledged: Option<(char, Moment)>,
    /// Its attempts, in the order of their sending.
    pub attempts: Vec<Attempt>,
    /// Its durable log, in order.
    pub log: Vec<Entry>,
}

/// An attempt as told.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its id.
    pub id: String,
    /// By which way.
    pub route: Route,
    /// How it ended.
    pub ending: Option<EndingClass>,
    /// What is told of ringing.
    pub rang: Rang,
    /// Of which round it is; the first is 1.
    pub round: u16,
    /// When it was written, just before it was sent.
    pub started_at: Moment,
    /// Its end.
    pub ended_at: Option<Moment>,
}

/// One row of a call's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1, 2, 3, …
    pub sequence: i64,
    /// The call's status after it.
    pub status: CallStatus,
    /// Whether it tells of an attempt. Of what does not, nobody is told, but of the end.
    pub of_attempt: bool,
}

/// A way that calls take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The node.
    pub node: String,
    /// The carrier.
    pub carrier: String,
}

/// A call as a carrier's wire had it.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// Which way it came.
    pub route: Route,
    /// Whom it phones, with `+`.
    pub number: String,
    /// Its INVITE.
    pub at: Moment,
    /// The phone rang, or was picked up at once.
    pub heard_at: Option<Moment>,
    /// The carrier's final answer.
    pub code: Option<u16>,
}

/// A key that a callee pressed, as the carrier's wire had it.
#[derive(Clone, Debug)]
pub struct Pressed {
    /// The carrier.
    pub carrier: String,
    /// Of the call to this number, with `+`.
    pub number: String,
    /// Which.
    pub key: char,
    /// When it was let go.
    pub at: Moment,
}

/// An event that was posted to the customers' webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// `webhook-id`.
    pub id: String,
    /// Of which call.
    pub call: String,
    /// Its place among the call's steps.
    pub sequence: i64,
    /// `call.ringing`, …
    pub kind: String,
    /// The call's status in it.
    pub status: Option<CallStatus>,
    /// The body as it came, as a fingerprint: the same event is the same bytes.
    pub body: u64,
    /// When it came.
    pub at: Moment,
    /// When it was answered with 2xx; `None`: it was refused, or left to hang.
    pub taken_at: Option<Moment>,
    /// Whether it was signed with the endpoint's secret.
    pub signed: bool,
}

/// Something was broken for a while.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Whom it happened to.
    pub subject: Subject,
    /// What it was.
    pub what: What,
    /// The run of the control plane that it happened to, where there are several.
    pub replica: Option<String>,
    /// Just before it began.
    pub from: Moment,
    /// Just after it was mended; `None`: never.
    pub until: Option<Moment>,
}

/// A call of a control plane that was broken, which another went on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// What had happened to its owner.
    pub what: What,
    /// From that to the claim, as the database shows it.
    pub took: Duration,
}

/// What a carrier's account allows, and what of it was used.
#[derive(Clone, Debug)]
pub struct Account {
    /// The carrier.
    pub carrier: String,
    /// Starts in a second.
    pub cps_max: u32,
    /// Channels at a time.
    pub channels_max: u32,
    /// Most channels that the carrier had at any look.
    pub channels: u32,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What customers asked for.
    pub asked: Vec<Asked>,
    /// What the API told at the end of the run: every call that it knows.
    pub told: Vec<Told>,
    /// What the carriers saw.
    pub seen: Vec<Dialog>,
    /// What callees pressed.
    pub pressed: Vec<Pressed>,
    /// What was posted to the customers' webhook, in the order of its coming.
    pub posted: Vec<Posted>,
    /// What was broken.
    pub broken: Vec<Broken>,
    /// Where there were several control planes: calls that one took over from another.
    pub takeovers: Vec<Takeover>,
    /// Accounts whose limits were looked at.
    pub accounts: Vec<Account>,
    /// The ways that there are.
    pub routes: Vec<Route>,
    /// Channels that were open after everything had ended, by node that lives. (A carrier goes on ringing for one that died.)
    pub left: Vec<(String, u32)>,
}
