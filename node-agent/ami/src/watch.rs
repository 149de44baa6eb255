//! The two ways to hear events: a [`Watch`] for a channel of ours, [`Events`] for the rest.

use std::fmt;
use std::sync::Arc;

use crate::event::Event;
use crate::link::{CloseReason, Shared};
use crate::mailbox::Slot;
use crate::names::ChannelId;
use crate::router::{EventBox, WatchBox};
use crate::tamper::Tampering;

/// What [`Watch::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// An event of the watched channel.
    Event(Event),
    /// A block with the watched id that is not as Asterisk writes it: ask for facts.
    Tampered(Tampering),
    /// So many items came while the watch was full: ask for facts.
    Overflowed {
        /// How many were not kept.
        lost: u64,
    },
    /// The session is over; yielded for ever after.
    LinkLost(CloseReason),
}

/// What [`Events::next`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// An event of no watch.
    Event(Event),
    /// Strangers' text, of whatever channel.
    Tampered(Tampering),
    /// So many items came at this place while the reader was slow.
    Lost(u64),
    /// The session is over; yielded for ever after.
    Closed(CloseReason),
}

/// All events of one channel of ours, from before its Originate on. Dropping it ends the watching.
pub struct Watch {
    pub(crate) id: ChannelId,
    pub(crate) mailbox: Arc<WatchBox>,
    pub(crate) shared: Arc<Shared>,
}

impl Watch {
    /// The next item. Cancel-safe. Takes `&self`, so that one may read while an originate still runs: an event
    /// may come before the answer to its action.
    pub async fn next(&self) -> WatchItem {
        match self.mailbox.take().await {
            Ok(Slot::Item(item)) => item,
            Ok(Slot::Lost(lost)) => WatchItem::Overflowed { lost },
            Err(reason) => WatchItem::LinkLost(reason),
        }
    }

    /// The channel that is watched.
    #[must_use]
    pub fn id(&self) -> &ChannelId {
        &self.id
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.router().unwatch(self.id.as_str());
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.id)
    }
}

/// Everything that no watch claims, in order.
#[derive(Debug)]
pub struct Events {
    pub(crate) mailbox: Arc<EventBox>,
}

impl Events {
    /// The next item. Cancel-safe.
    pub async fn next(&mut self) -> EventItem {
        match self.mailbox.take().await {
            Ok(Slot::Item(item)) => item,
            Ok(Slot::Lost(lost)) => EventItem::Lost(lost),
            Err(reason) => EventItem::Closed(reason),
        }
    }
}

/// Why there is no watch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {id} is watched already")]
pub struct AlreadyWatched {
    /// The channel.
    pub id: ChannelId,
}
