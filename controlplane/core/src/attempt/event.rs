//! What an attempt is told, and what it answers.

use crate::{
    call::{AttemptStatus, Detection},
    ending::{Ending, Talk},
    request::Key,
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Asterisk has queued the Originate.
    Accepted,
    /// Asterisk refused it.
    Rejected,
    /// No byte of it left.
    NotSent,
    /// It may have left, and no answer came.
    Unresolved,
    /// A channel exists.
    Channel,
    /// 183.
    Progress,
    /// 180.
    Ringing,
    /// Answered.
    Answered,
    /// The callee let go of a key.
    Key(Key),
    /// Who answered, as it seems.
    Machine(Detection),
    /// The message was played to its last repeat.
    Played,
    /// The node does not have the message.
    NoMedia,
    /// The channel is gone.
    HungUp(Answer),
    /// `OriginateResponse: Failure`.
    OriginateFailed {
        /// `Reason: 3`: the Originate's own `Timeout` ran out at the PBX. Ours are shorter, so this happens
        /// only when this process slept.
        timed_out: bool,
    },
    /// The link was lost, or events of it were.
    Cut,
    /// The customer wants it ended.
    Cancel,
    /// The flight recorder's answer to [`Do::AskRecord`].
    Recorded(Option<Record>),
    /// What reconciliation found.
    Settled(Settlement),
}

/// The codes of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// SIP code.
    pub sip_code: Option<u16>,
    /// Q.850 cause.
    pub q850: Option<u16>,
}

/// A flight record: what the dialplan wrote of the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The channel's state when it was written.
    pub state: Live,
    /// Written by the hangup handler; otherwise at the answer.
    pub ended: bool,
    /// The codes it holds.
    pub answer: Answer,
    /// What happened after the answer, as far as it tells: the last key, whatever it means.
    pub talk: Talk,
    /// Whether it would tell of a key: one of an older dialplan does not, since that hears none.
    pub tells_keys: bool,
    /// Its own Asterisk ended it, answered, because that stops: the callee had no hand in it.
    pub stopped: bool,
}

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Down: dialled.
    Dialling,
    /// Ringing.
    Ringing,
    /// Up.
    Up,
}

/// What reconciliation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The channel lives, under the incarnation of Asterisk that it was sent to.
    Living(Live),
    /// The flight recorder tells of it, and the channel is gone.
    Recorded(Record),
    /// Neither channel nor record. Without an agent's `bar` this proves nothing of the past.
    Absent,
    /// The node's gate let no Originate of it through, and will let none through.
    Barred,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Make this status durable and tell the customer.
    Report(AttemptStatus),
    /// Make this key durable and tell the customer: it decides the call, whatever happens next.
    Heard(Key),
    /// End the channel.
    HangUp,
    /// Read the flight record.
    AskRecord,
    /// Find out: the channel's status, then the flight record, as soon as the node answers.
    Reconcile,
    /// It is over.
    End(Ending),
}
