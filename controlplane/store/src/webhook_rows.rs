//! Rows of webhooks' tables, as both databases give them.

use controlplane_core::{
    ids::{CallId, EndpointId, EventId, OrgId},
    request::{Callback, EventFilter, EventKind},
    webhook::DisabledReason,
};
use sqlx::{FromRow, types::Json};

use crate::{
    columns::{Micros, Stored, Word},
    rows::moment,
    webhooks::{Claimed, Delivery, Endpoint, Secret, Secrets, Target, Try},
};

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
                 last_error, delivered_at, dead_at FROM webhook_delivery ",
            $rest
        )
    };
}
pub(crate) use select_deliveries;

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

#[derive(Debug, FromRow)]
pub(crate) struct ClaimedRow {
    event_id: Word<EventId>,
    target: Word<Target>,
    org_id: Word<OrgId>,
    pub(crate) call_id: String,
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
    call_id: Word<CallId>,
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
            call: row.call_id.0,
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
