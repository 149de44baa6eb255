//! Customers' receivers of events, what is to be delivered to them, and what came of it.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, CallId, EndpointId, EventId, OrgId},
    request::{EventFilter, EventKind},
    webhook::{DisabledReason, Next},
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Most endpoints of an organisation.
pub const ENDPOINTS_MAX: u16 = 50;
/// Lanes of one organisation that a look goes through. Its lanes beyond are sent to when they get something
/// new, and looked at when the ones before have nothing left.
pub const LANES_SEEN_MAX: u16 = 1_000;
/// Deliveries that wait are counted no further than this.
pub const PENDING_COUNTED_MAX: u32 = 10_000;
/// Tries of one delivery that the log keeps.
pub const LOGGED_MAX: u16 = 20;

/// A secret that signs events, as it is kept: sealed, by whoever uses this store.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What signs: the current secret, and the former one for as long as receivers may still know only that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// The current one.
    pub current: Secret,
    /// The former one, and until when it signs too.
    pub previous: Option<(Secret, OffsetDateTime)>,
}

/// Which row holds secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// An endpoint.
    Endpoint(OrgId, EndpointId),
    /// An organisation, for its calls' callbacks.
    Callback(OrgId),
}

impl Holder {
    /// Its row's key: of all rows with secrets one has it.
    #[must_use]
    pub fn row(&self) -> &str {
        match self {
            Self::Endpoint(_, id) => id.as_str(),
            Self::Callback(org) => org.as_str(),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Endpoint(_, id) => write!(f, "the secret of endpoint {id}"),
            Self::Callback(org) => write!(f, "the callback secret of {org}"),
        }
    }
}

/// A row's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which row.
    pub holder: Holder,
    /// The current one.
    pub current: Secret,
    /// The former one.
    pub previous: Option<Secret>,
}

/// A customer's receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is.
    pub org: OrgId,
    /// Where events are sent.
    pub url: String,
    /// In its owner's words, maybe empty.
    pub description: String,
    /// Which events.
    pub events: Vec<EventFilter>,
    /// What signs them.
    pub secrets: Secrets,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Since when every try has failed, without a break.
    pub failing_since: Option<OffsetDateTime>,
    /// Since when, and why, it gets no events.
    pub disabled: Option<(OffsetDateTime, DisabledReason)>,
}

/// Who changes something, and when: for the audit row in the same transaction.
#[derive(Debug, Clone)]
pub struct Change {
    /// Whose it is.
    pub org: OrgId,
    /// Now.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What of an endpoint is to be another way. `None`: it stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Where events are sent.
    pub url: Option<String>,
    /// In its owner's words.
    pub description: Option<String>,
    /// Which events.
    pub events: Option<Vec<EventFilter>>,
    /// Whether it gets events. Enabling forgets how long it has been failing.
    pub enabled: Option<bool>,
}

/// A new secret.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// What signs from now on.
    pub secret: Secret,
    /// Until when the former one signs too.
    pub previous_until: OffsetDateTime,
}

/// Where a delivery goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// An endpoint.
    Endpoint(EndpointId),
    /// The `callback` of the call itself.
    Callback,
}

const CALLBACK: &str = "callback";

impl Target {
    /// As in the column and in JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Endpoint(id) => id.as_str(),
            Self::Callback => CALLBACK,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Target {
    type Err = controlplane_core::ids::InvalidId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == CALLBACK { Ok(Self::Callback) } else { text.parse().map(Self::Endpoint) }
    }
}

/// What is held up together where a receiver hangs: an endpoint, or an organisation's callbacks to one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Whose.
    pub org: OrgId,
    /// Its name, which no other organisation's lane has.
    pub name: String,
}

/// A claim on what is due in a lane.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Which lane.
    pub lane: Lane,
    /// Who claims, for people who look into the database.
    pub owner: String,
    /// Now.
    pub now: OffsetDateTime,
    /// Until when nobody else may.
    pub until: OffsetDateTime,
    /// At most this many.
    pub limit: u16,
    /// The organisation's secret for callbacks, if it has none yet.
    pub callback_secret: Secret,
}

/// A delivery to be sent now, by whoever claimed it.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Which event.
    pub event: EventId,
    /// Where to.
    pub target: Target,
    /// Whose.
    pub org: OrgId,
    /// The address.
    pub url: String,
    /// What signs it.
    pub secrets: Secrets,
    /// Tries so far.
    pub tries: u32,
    /// The fence: an answer under an older one is refused.
    pub epoch: i64,
}

/// What came of a try.
#[derive(Debug, Clone)]
pub struct Settle {
    /// Which event.
    pub event: EventId,
    /// Where to.
    pub target: Target,
    /// The claim's fence.
    pub epoch: i64,
    /// When the answer was there.
    pub at: OffsetDateTime,
    /// How long it took, in ms.
    pub took_ms: i64,
    /// The receiver's status.
    pub status: Option<u16>,
    /// What went wrong, in words.
    pub error: Option<String>,
    /// What follows.
    pub next: Next,
    /// Id of the audit row, should the endpoint be disabled by this.
    pub audit_id: AuditId,
    /// Id of the event that tells so.
    pub disabled_id: EventId,
}

/// A delivery as the log shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Which event.
    pub event: EventId,
    /// Where to.
    pub target: Target,
    /// Whose.
    pub org: OrgId,
    /// Of which call, if it is of one.
    pub call: Option<CallId>,
    /// The event's place in the call.
    pub sequence: i64,
    /// What happened.
    pub kind: EventKind,
    /// When the event was numbered.
    pub created_at: OffsetDateTime,
    /// When it is tried next, if it is open.
    pub due_at: OffsetDateTime,
    /// Tries since it was made, or replayed.
    pub tries: u32,
    /// The last answer's status.
    pub last_status: Option<u16>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When it arrived.
    pub delivered_at: Option<OffsetDateTime>,
    /// When it was given up.
    pub dead_at: Option<OffsetDateTime>,
    /// The latest tries, oldest first.
    pub log: Vec<Try>,
}

/// One try.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// When its answer was there.
    pub at: OffsetDateTime,
    /// How long it took, in ms.
    pub took_ms: i64,
    /// The receiver's status.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Which deliveries, the event that was numbered last first: what comes while the list is read stands before it.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    /// Of one organisation; `None`: of all, for operators.
    pub org: Option<OrgId>,
    /// To one receiver.
    pub target: Option<Target>,
    /// Only those that wait, arrived or are dead.
    pub state: Option<DeliveryState>,
    /// Only events that were numbered before this one.
    pub starting_after: Option<EventId>,
    /// At most this many, and the rest of the last one's event.
    pub limit: u16,
}

/// Where a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Not delivered yet.
    Pending,
    /// Arrived.
    Delivered,
    /// Given up.
    Dead,
}

impl DeliveryState {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl Delivery {
    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> DeliveryState {
        match (self.delivered_at, self.dead_at) {
            (Some(_), _) => DeliveryState::Delivered,
            (None, Some(_)) => DeliveryState::Dead,
            (None, None) => DeliveryState::Pending,
        }
    }
}

/// What is told to operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookCounts {
    /// Deliveries that are neither delivered nor dead, counted up to [`PENDING_COUNTED_MAX`].
    pub pending: i64,
    /// When the longest due of them was due.
    pub oldest_due: Option<OffsetDateTime>,
    /// Endpoints that were disabled, by their owner or by themselves.
    pub disabled: i64,
}

/// Receivers and deliveries.
#[async_trait]
pub trait WebhookStore {
    /// A new endpoint with its audit row. `false`: the organisation has [`ENDPOINTS_MAX`].
    async fn create_endpoint(&self, endpoint: Endpoint, change: Change) -> Result<bool, StoreError>;
    /// An organisation's endpoints, oldest first.
    async fn endpoints(&self, org: &OrgId) -> Result<Vec<Endpoint>, StoreError>;
    /// One of them.
    async fn endpoint(&self, org: &OrgId, id: &EndpointId) -> Result<Option<Endpoint>, StoreError>;
    /// Changes an endpoint, with its audit row. Disabling gives up what is not delivered.
    async fn change_endpoint(
        &self,
        id: EndpointId,
        what: EndpointChange,
        change: Change,
    ) -> Result<Option<Endpoint>, StoreError>;
    /// Gives an endpoint a new secret, with its audit row.
    async fn rotate_endpoint(
        &self,
        id: EndpointId,
        rotation: Rotation,
        change: Change,
    ) -> Result<Option<Endpoint>, StoreError>;
    /// Removes an endpoint and its deliveries, with an audit row. `false`: there is none.
    async fn delete_endpoint(&self, id: EndpointId, change: Change) -> Result<bool, StoreError>;
    /// What signs the callbacks of an organisation's calls: what it has, or `new` from now on.
    async fn callback_secrets(&self, org: OrgId, new: Secret) -> Result<Secrets, StoreError>;
    /// Gives callbacks a new secret, with its audit row.
    async fn rotate_callback(&self, rotation: Rotation, change: Change) -> Result<Secrets, StoreError>;
    /// Every row's secrets, in the order of [`Holder::row`], from the one after this on.
    async fn held_secrets(&self, after: &str, limit: u16) -> Result<Vec<Held>, StoreError>;
    /// Puts the second of each in the place of the first, where that is still there, with one audit row for all. How
    /// many that were.
    async fn reseal_secrets(
        &self,
        changes: Vec<(Held, Held)>,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<u64, StoreError>;
    /// Lanes in which something is due, at most `each` of an organisation and `limit` in all: every
    /// organisation's first before anybody's second, and of each the one that has been due longest.
    async fn due_lanes(&self, now: OffsetDateTime, each: u16, limit: u16) -> Result<Vec<Lane>, StoreError>;
    /// Takes what is due in a lane, of each call only the first that is not settled.
    async fn claim_deliveries(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError>;
    /// Writes what came of a try, and what follows for the endpoint: the reason, if it is disabled by it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another has claimed or settled it since, or it is gone: nothing was written.
    async fn settle_delivery(&self, settle: Settle) -> Result<Option<DisabledReason>, StoreError>;
    /// Deliveries with their log, and whether more follow. One that cannot be read is logged and passed over.
    async fn deliveries(&self, page: DeliveryPage) -> Result<(Vec<Delivery>, bool), StoreError>;
    /// Sends an event again as if it had never been sent, with an audit row. `org` is `None` for operators.
    /// `false`: there is no such delivery, or its endpoint is disabled.
    async fn replay_delivery(
        &self,
        event: EventId,
        target: Target,
        org: Option<OrgId>,
        change: Change,
    ) -> Result<bool, StoreError>;
    /// What is told to operators.
    async fn webhook_counts(&self) -> Result<WebhookCounts, StoreError>;
}
