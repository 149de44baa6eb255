//! Rows of events, as both databases give them. One that cannot be read is logged and left out.

use std::collections::{HashMap, HashSet};

use controlplane_core::{
    ids::{CallId, EventId},
    request::EventKind,
};
use serde_json::Value;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type, types::Json};

use crate::{
    calls::{Call, Transition},
    columns::{Micros, Word},
    events::{Event, EventPage, Subject},
    readable,
    rows::TransitionRow,
};

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_events {
    ($rest:literal) => {
        concat!("SELECT position, id, call_id, sequence, kind, created_at, data FROM outbox ", $rest)
    };
}
pub(crate) use select_events;

#[derive(Debug, FromRow)]
pub(crate) struct EventRow {
    position: i64,
    id: Word<EventId>,
    call_id: Option<Word<CallId>>,
    sequence: i64,
    kind: Word<EventKind>,
    created_at: Micros,
    data: Option<Json<Value>>,
}

impl EventRow {
    /// The call that it is of.
    pub(crate) fn call(&self) -> Option<&str> {
        self.call_id.as_ref().map(|call| call.0.as_str())
    }
}

/// A transition, and whose it is.
#[derive(Debug, FromRow)]
pub(crate) struct LogRow {
    call_id: Word<CallId>,
    #[sqlx(flatten)]
    transition: TransitionRow,
}

/// Calls' logs. One with a transition that cannot be read is passed over whole: without it, its events would
/// tell something else.
pub(crate) fn logs<R: Row>(rows: &[R]) -> HashMap<CallId, Vec<Transition>>
where
    for<'r> LogRow: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let (mut logs, mut unreadable) = (HashMap::<CallId, Vec<Transition>>::new(), HashSet::new());
    for row in rows {
        match LogRow::from_row(row) {
            Ok(row) => logs.entry(row.call_id.0).or_default().push(row.transition.into()),
            Err(error) => {
                let call = readable::text(row, "call_id").unwrap_or_default();
                tracing::error!(%call, %error, "this call's events are passed over: its log cannot be read");
                unreadable.insert(call);
            }
        }
    }
    logs.retain(|call, _| !unreadable.contains(call.as_str()));
    logs
}

/// Puts events together with their calls and logs.
pub(crate) fn assemble(
    rows: Vec<EventRow>,
    calls: Vec<Call>,
    logs: &HashMap<CallId, Vec<Transition>>,
) -> Vec<Event> {
    let calls: HashMap<CallId, Call> = calls.into_iter().map(|call| (call.id.clone(), call)).collect();
    let subject = |row: &EventRow| match (&row.call_id, &row.data) {
        (Some(call), _) => {
            let (call, mut log) = (calls.get(&call.0)?.clone(), logs.get(&call.0)?.clone());
            log.retain(|transition| transition.sequence <= row.sequence);
            Some(Subject::Call(Box::new(call), log))
        }
        (None, Some(data)) => Some(Subject::Endpoint(data.0.clone())),
        (None, None) => None,
    };
    let read = |row: EventRow| {
        let Some(subject) = subject(&row) else {
            tracing::error!(event = %row.id.0, "this event is passed over: its call cannot be read");
            return None;
        };
        Some(Event {
            position: row.position,
            id: row.id.0,
            kind: row.kind.0,
            sequence: row.sequence,
            at: row.created_at.0,
            subject,
        })
    };
    rows.into_iter().filter_map(read).collect()
}

/// A page under way: filled until it has one more than asked for, which tells whether there is more.
pub(crate) struct Filling {
    limit: usize,
    page: EventPage,
}

impl Filling {
    pub(crate) fn after(position: i64, limit: u16) -> Self {
        let page = EventPage { events: Vec::new(), through: position, has_more: false, passed_over: 0 };
        Self { limit: usize::from(limit), page }
    }

    /// Rows to be read next, and after which position.
    pub(crate) fn wants(&self) -> (usize, i64) {
        (self.limit + 1 - self.page.events.len(), self.page.through)
    }

    /// What became of `rows` rows, of which the last one has this position. Whether the page is done.
    pub(crate) fn takes(&mut self, rows: usize, last: Option<i64>, events: Vec<Event>) -> bool {
        let was_last = rows < self.wants().0;
        self.page.passed_over += (rows - events.len()) as u64;
        self.page.through = last.unwrap_or(self.page.through);
        self.page.events.extend(events);
        was_last || self.page.events.len() > self.limit
    }

    pub(crate) fn page(mut self) -> EventPage {
        self.page.has_more = self.page.events.len() > self.limit;
        if self.page.has_more {
            self.page.events.truncate(self.limit);
            self.page.through = self.page.events.last().map_or(self.page.through, |event| event.position);
        }
        self.page
    }
}
