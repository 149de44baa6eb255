//! What a session's watch tells, in the words of the attempt machine.

use controlplane_core::{
    attempt::{Answer, Event},
    request::Key,
};
use node_agent_ami::{CallNews, ChannelState, DialStatus, Event as AmiEvent, WatchItem};

use super::reconcile;

/// What an item of the watch means to the machine; `None`: nothing.
pub(super) fn translate(item: &WatchItem) -> Option<Event> {
    match item {
        WatchItem::LinkLost(_) | WatchItem::Overflowed { .. } | WatchItem::Tampered(_) => Some(Event::Cut),
        WatchItem::Event(event) => match event {
            AmiEvent::Newchannel(_) | AmiEvent::DialBegin { .. } => Some(Event::Channel),
            AmiEvent::Newstate(channel) => match channel.state {
                ChannelState::Ringing => Some(Event::Ringing),
                ChannelState::Up => Some(Event::Answered),
                ChannelState::Down
                | ChannelState::Dialing
                | ChannelState::Ring
                | ChannelState::OtherState => None,
            },
            AmiEvent::DialState { status, .. } => match status {
                DialStatus::Ringing => Some(Event::Ringing),
                DialStatus::Progress => Some(Event::Progress),
                DialStatus::Proceeding
                | DialStatus::Answer
                | DialStatus::Busy
                | DialStatus::NoAnswer
                | DialStatus::Cancel
                | DialStatus::Congestion
                | DialStatus::ChanUnavail
                | DialStatus::Other(_) => None,
            },
            AmiEvent::DialEnd { status, .. } => (*status == DialStatus::Answer).then_some(Event::Answered),
            AmiEvent::Hangup { cause, tech_cause, .. } => {
                Some(Event::HungUp(Answer { sip_code: *tech_cause, q850: *cause }))
            }
            AmiEvent::OriginateResponse { success: true, .. } => Some(Event::Answered),
            AmiEvent::OriginateResponse { success: false, reason, .. } => {
                Some(Event::OriginateFailed { timed_out: *reason == Some(REASON_NO_ANSWER) })
            }
            AmiEvent::Call { news, .. } => match news {
                CallNews::Answered => Some(Event::Answered),
                CallNews::Key(key) => Key::try_from(*key).ok().map(Event::Key),
                CallNews::Machine(verdict) => Some(Event::Machine(reconcile::detection(*verdict))),
                CallNews::Played => Some(Event::Played),
                CallNews::NoMedia => Some(Event::NoMedia),
            },
            AmiEvent::HangupRequest { .. }
            | AmiEvent::FullyBooted
            | AmiEvent::Shutdown
            | AmiEvent::ContactStatus { .. }
            | AmiEvent::Registry { .. }
            | AmiEvent::PeerStatus { .. }
            | AmiEvent::UserEvent { .. }
            | AmiEvent::Security { .. }
            | AmiEvent::Other(_) => None,
        },
    }
}

/// `Reason` of an Originate whose own `Timeout` ran out (AST_CONTROL_RINGING).
const REASON_NO_ANSWER: u16 = 3;
