//! Rows of events, as both databases give them. One that cannot be read is logged and left out.

use std::collections::HashMap;

use controlplane_core::{
    ids::{CallId, EventId},
    request::EventKind,
};
use sqlx::FromRow;

use crate::{
    calls::{Call, Transition},
    columns::{Micros, Word},
    events::Event,
    rows::TransitionRow,
};

#[derive(Debug, FromRow)]
pub(crate) struct EventRow {
    pub(crate) position: i64,
    id: String,
    pub(crate) call_id: String,
    sequence: i64,
    kind: String,
    created_at: Micros,
}

/// A transition, and whose it is.
#[derive(Debug, FromRow)]
pub(crate) struct LogRow {
    call_id: Word<CallId>,
    #[sqlx(flatten)]
    transition: TransitionRow,
}

/// Puts events together with their calls and logs.
pub(crate) fn assemble(rows: Vec<EventRow>, calls: Vec<Call>, log: Vec<LogRow>) -> Vec<Event> {
    let mut logs: HashMap<CallId, Vec<Transition>> = HashMap::new();
    for row in log {
        logs.entry(row.call_id.0).or_default().push(row.transition.into());
    }
    let calls: HashMap<CallId, Call> = calls.into_iter().map(|call| (call.id.clone(), call)).collect();
    let read = |row: EventRow| {
        let (id, kind) = (row.id.parse::<EventId>().ok()?, row.kind.parse::<EventKind>().ok()?);
        let call = calls.get(&row.call_id.parse().ok()?)?.clone();
        let mut log = logs.get(&call.id)?.clone();
        log.retain(|transition| transition.sequence <= row.sequence);
        let event = Event {
            position: row.position,
            id,
            kind,
            sequence: row.sequence,
            at: row.created_at.0,
            call,
            log,
        };
        Some(event)
    };
    rows.into_iter()
        .filter_map(|row| {
            let id = row.id.clone();
            let event = read(row);
            if event.is_none() {
                tracing::error!(event = %id, "this event is passed over: it, or its call, cannot be read");
            }
            event
        })
        .collect()
}
