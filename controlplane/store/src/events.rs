//! Events in one order that no reader can be wrong about, and what is erased when it is old.

use async_trait::async_trait;
use controlplane_core::{
    ids::{EventId, OrgId},
    request::EventKind,
};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    StoreError,
    calls::{Call, Transition},
    webhooks::Lane,
};

/// What one numbering did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Events that were numbered.
    pub events: u64,
    /// Lanes that got something to deliver.
    pub lanes: Vec<Lane>,
    /// Organisations that have news.
    pub orgs: Vec<OrgId>,
    /// Another replica numbers events now: whether any are left is known after it.
    pub is_busy: bool,
}

/// An event, and from what it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place among all events: a later one is never numbered below it.
    pub position: i64,
    /// Its id.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// Its place in the call; 1 where it is of none.
    pub sequence: i64,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What it happened to.
    pub subject: Subject,
}

/// What an event is of.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A call, as it is by now, and its log up to this event.
    Call(Box<Call>, Vec<Transition>),
    /// A receiver, as it was.
    Endpoint(serde_json::Value),
}

/// Events in order.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// Those that can be read.
    pub events: Vec<Event>,
    /// Up to here nothing else follows, whoever asks again.
    pub through: i64,
    /// Whether there are more behind it.
    pub has_more: bool,
    /// Events that were passed over because they cannot be read.
    pub passed_over: u64,
}

/// What was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Events, each with its deliveries.
    pub events: u64,
    /// Idempotency keys.
    pub keys: u64,
}

/// Events.
#[async_trait]
pub trait EventStore {
    /// Changes whenever something was written: a nudge without content, for whoever looks for work.
    fn written(&self) -> watch::Receiver<u64>;
    /// Whether an event waits for its number.
    async fn is_unsealed(&self) -> Result<bool, StoreError>;
    /// Numbers events of at most `limit` calls, in the order of each call, and makes their deliveries.
    async fn seal_events(&self, at: OffsetDateTime, limit: u16) -> Result<Sealed, StoreError>;
    /// An organisation's events after a position, in order, at most `limit`. One that cannot be read is logged
    /// and passed over: the page is filled with what follows it.
    async fn events(&self, org: &OrgId, after: i64, limit: u16) -> Result<EventPage, StoreError>;
    /// An organisation's events by their ids, in no order. One that is not there, or cannot be read, which is logged, is left out.
    async fn events_of(&self, org: &OrgId, ids: &[EventId]) -> Result<Vec<Event>, StoreError>;
    /// The position of an organisation's event. `None`: it has none of that id (any more).
    async fn event_position(&self, org: &OrgId, id: &EventId) -> Result<Option<i64>, StoreError>;
    /// The last position given.
    async fn last_position(&self) -> Result<i64, StoreError>;
    /// Erases events from before `before` that nothing waits for, and idempotency keys that have expired by
    /// `now`; at most `limit` of each.
    async fn purge(
        &self,
        before: OffsetDateTime,
        now: OffsetDateTime,
        limit: u16,
    ) -> Result<Purged, StoreError>;
}
