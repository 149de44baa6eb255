//! Rows of webhooks' tables, as both databases give them.

use controlplane_core::{
    ids::{CallId, EndpointId, EventId, OrgId},
    request::{Callback, EventFilter, EventKind},
    webhook::{DisabledReason, Failing},
};
use serde_json::{Value, json};
use sqlx::{FromRow, types::Json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    columns::{Micros, Stored, Word},
    rows::moment,
    webhooks::{
        Claimed, Delivery, ENDPOINTS_MAX, Endpoint, Held, Holder, Secret, Secrets, Settle, Target, Try,
    },
};

/// Most deliveries of one event: to every endpoint, and to the call's callback.
pub(crate) const RECEIVERS_MAX: usize = ENDPOINTS_MAX as usize + 1;

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_endpoints {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, url, description, events, secret, previous_secret, previous_until, created_at, \
                 failing_since, disabled_at, disabled_reason FROM webhook_endpoint ",
            $rest
        )
    };
}
pub(crate) use select_endpoints;

/// As above.
macro_rules! select_deliveries {
    ($rest:literal) => {
        concat!(
            "SELECT event_id, target, org_id, call_id, sequence, kind, created_at, due_at, tries, last_status, \
                 last_error, delivered_at, dead_at, position FROM webhook_delivery ",
            $rest
        )
    };
}
pub(crate) use select_deliveries;

/// A query on `lanes`: of each organisation the lanes in which something waits, at most `$1` of them, endpoints'
/// before callbacks' (`we_` is above `org_`). It steps along an index from lane to lane, and reads nothing of what
/// waits in them.
macro_rules! from_lanes {
    ($rest:literal) => {
        concat!(
            "WITH RECURSIVE lanes (org_id, lane, place) AS (
                 SELECT o.org_id, (SELECT max(d.lane) FROM webhook_delivery d
                     WHERE d.org_id = o.org_id AND d.delivered_at IS NULL AND d.dead_at IS NULL AND d.due_at IS NOT NULL), 1
                 FROM org o
                 UNION ALL
                 SELECT l.org_id, (SELECT max(d.lane) FROM webhook_delivery d
                     WHERE d.org_id = l.org_id AND d.lane < l.lane AND d.delivered_at IS NULL AND d.dead_at IS NULL
                         AND d.due_at IS NOT NULL),
                     l.place + 1
                 FROM lanes l WHERE l.lane IS NOT NULL AND l.place < $1) ",
            $rest
        )
    };
}
pub(crate) use from_lanes;

#[derive(Debug, FromRow)]
pub(crate) struct SecretsRow {
    secret: Vec<u8>,
    previous_secret: Option<Vec<u8>>,
    previous_until: Option<Micros>,
}

impl From<SecretsRow> for Secrets {
    fn from(row: SecretsRow) -> Self {
        let previous = row.previous_secret.zip(row.previous_until);
        Self {
            current: Secret(row.secret),
            previous: previous.map(|(secret, until)| (Secret(secret), until.0)),
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct HeldRow {
    holder: String,
    org_id: Word<OrgId>,
    secret: Vec<u8>,
    previous_secret: Option<Vec<u8>>,
}

impl TryFrom<HeldRow> for Held {
    type Error = sqlx::Error;

    fn try_from(row: HeldRow) -> Result<Self, sqlx::Error> {
        let holder = if row.holder == row.org_id.0.as_str() {
            Holder::Callback(row.org_id.0)
        } else {
            let id = row.holder.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Holder::Endpoint(row.org_id.0, id)
        };
        let previous = row.previous_secret.map(Secret);
        Ok(Self { holder, current: Secret(row.secret), previous })
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct EndpointRow {
    id: Word<EndpointId>,
    org_id: Word<OrgId>,
    url: String,
    description: String,
    events: Json<Vec<EventFilter>>,
    #[sqlx(flatten)]
    secrets: SecretsRow,
    created_at: Micros,
    failing_since: Option<Micros>,
    disabled_at: Option<Micros>,
    disabled_reason: Option<Word<DisabledReason>>,
}

impl From<EndpointRow> for Endpoint {
    fn from(row: EndpointRow) -> Self {
        let disabled = row.disabled_at.zip(row.disabled_reason);
        Self {
            id: row.id.0,
            org: row.org_id.0,
            url: row.url,
            description: row.description,
            events: row.events.0,
            secrets: row.secrets.into(),
            created_at: row.created_at.0,
            failing_since: moment(row.failing_since),
            disabled: disabled.map(|(at, reason)| (at.0, reason.0)),
        }
    }
}

/// How long an endpoint has been failing.
#[derive(Debug, FromRow)]
pub(crate) struct FailingRow {
    failing_since: Option<Micros>,
    failed_at: Option<Micros>,
    failing_tries: i32,
}

impl FailingRow {
    pub(crate) fn failing(&self) -> Option<Failing> {
        let (since, last) = self.failing_since.zip(self.failed_at)?;
        Some(Failing { since: since.0, last: last.0, tries: self.failing_tries.unsigned_abs() })
    }
}

/// What an endpoint's end is told with: the endpoint without its secrets, and the last answer.
pub(crate) fn disabled(endpoint: &Endpoint, settle: &Settle) -> Value {
    let moment = |at: OffsetDateTime| at.format(&Rfc3339).ok();
    json!({
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "description": endpoint.description,
        "events": endpoint.events,
        "enabled": false,
        "disabled_at": endpoint.disabled.and_then(|(at, _)| moment(at)),
        "disabled_reason": endpoint.disabled.map(|(_, reason)| reason),
        "failing_since": endpoint.failing_since.and_then(moment),
        "last_status": settle.status,
        "last_error": settle.error,
    })
}

#[derive(Debug, FromRow)]
pub(crate) struct ClaimedRow {
    event_id: Word<EventId>,
    target: Word<Target>,
    org_id: Word<OrgId>,
    pub(crate) call_id: Option<String>,
    tries: i32,
    lease_epoch: i64,
    sequence: i64,
    due_at: Micros,
}

impl ClaimedRow {
    pub(crate) fn org(&self) -> &OrgId {
        &self.org_id.0
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target.0
    }

    /// What is due first is sent first.
    pub(crate) fn turn(&self) -> (time::OffsetDateTime, i64) {
        (self.due_at.0, self.sequence)
    }

    pub(crate) fn to(self, url: String, secrets: Secrets) -> Claimed {
        Claimed {
            event: self.event_id.0,
            target: self.target.0,
            org: self.org_id.0,
            url,
            secrets,
            tries: self.tries.unsigned_abs(),
            epoch: self.lease_epoch,
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct CallbackRow {
    callback: Stored<Callback>,
}

impl CallbackRow {
    pub(crate) fn url(self) -> String {
        self.callback.0.url
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct DeliveryRow {
    event_id: Word<EventId>,
    target: Word<Target>,
    org_id: Word<OrgId>,
    call_id: Option<Word<CallId>>,
    sequence: i64,
    kind: Word<EventKind>,
    created_at: Micros,
    due_at: Micros,
    tries: i32,
    last_status: Option<i32>,
    last_error: Option<String>,
    delivered_at: Option<Micros>,
    dead_at: Option<Micros>,
}

/// The columns' writers keep statuses within u16.
fn status(status: Option<i32>) -> Option<u16> {
    status.and_then(|status| u16::try_from(status).ok())
}

impl DeliveryRow {
    pub(crate) fn event(&self) -> &str {
        self.event_id.0.as_str()
    }
}

impl From<DeliveryRow> for Delivery {
    /// Still without its log.
    fn from(row: DeliveryRow) -> Self {
        Self {
            event: row.event_id.0,
            target: row.target.0,
            org: row.org_id.0,
            call: row.call_id.map(|call| call.0),
            sequence: row.sequence,
            kind: row.kind.0,
            created_at: row.created_at.0,
            due_at: row.due_at.0,
            tries: row.tries.unsigned_abs(),
            last_status: status(row.last_status),
            last_error: row.last_error,
            delivered_at: moment(row.delivered_at),
            dead_at: moment(row.dead_at),
            log: Vec::new(),
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct TryRow {
    event_id: Word<EventId>,
    target: Word<Target>,
    at: Micros,
    took_ms: i64,
    status: Option<i32>,
    error: Option<String>,
}

/// Of rows with these numbers, newest first: how many are of events that are there whole, and below which number
/// to go on. What the limit may have torn apart is read with what follows.
pub(crate) fn whole(positions: &[i64], is_end: bool) -> (usize, i64) {
    let Some(last) = positions.last() else { return (0, 0) };
    if is_end {
        return (positions.len(), *last);
    }
    (positions.iter().take_while(|position| *position != last).count(), last + 1)
}

/// Where a page of about `limit` ends: with an event's last delivery, since it goes on after that event.
pub(crate) fn page_end(rows: &[DeliveryRow], limit: usize) -> usize {
    let Some(last) = rows.get(limit.saturating_sub(1)) else { return rows.len() };
    let rest = rows[limit..].iter().take_while(|row| row.event_id.0 == last.event_id.0).count();
    limit + rest
}

/// Deliveries with their log. `tries` is in the order of ordinals.
pub(crate) fn with_log(rows: Vec<DeliveryRow>, tries: Vec<TryRow>) -> Vec<Delivery> {
    let mut deliveries: Vec<Delivery> = rows.into_iter().map(Delivery::from).collect();
    for row in tries {
        let of = deliveries.iter_mut().find(|d| d.event == row.event_id.0 && d.target == row.target.0);
        if let Some(delivery) = of {
            delivery.log.push(Try {
                at: row.at.0,
                took_ms: row.took_ms,
                status: status(row.status),
                error: row.error,
            });
        }
    }
    deliveries
}
