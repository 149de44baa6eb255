//! Calls that are followed by a trace: their place in it, and whether their spans were sent.

use async_trait::async_trait;
use controlplane_core::{
    ids::CallId,
    trace::{Place, SpanId, TraceId, TraceState},
};
use sqlx::FromRow;
use time::OffsetDateTime;

use crate::{StoreError, calls::Call, columns::Word, error::Failure};

/// A call that is followed, with all that its spans are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// Where it stands.
    pub place: Place,
    /// The call with its attempts.
    pub call: Call,
}

/// Traces of calls. The place itself is written with the call ([`crate::calls::NewCall::trace`]).
#[async_trait]
pub trait TraceStore: Sync {
    /// Where a call stands, if it is followed.
    async fn trace(&self, call: &CallId) -> Result<Option<Place>, StoreError>;
    /// Of these calls those that are followed, have ended, and were not sent.
    async fn unsent_traces(&self, calls: &[CallId]) -> Result<Vec<Traced>, StoreError>;
    /// Calls that are followed, had ended by then, and were not sent: the oldest, so many at most.
    async fn overdue_traces(&self, ended_by: OffsetDateTime, limit: u16) -> Result<Vec<CallId>, StoreError>;
    /// These were sent, or are given up.
    async fn traces_sent(&self, calls: Vec<CallId>, at: OffsetDateTime) -> Result<(), StoreError>;
    /// Gives up what had ended by then and was not sent. How many that were.
    async fn give_up_traces(&self, ended_by: OffsetDateTime, at: OffsetDateTime) -> Result<u64, StoreError>;
}

/// A row of `trace`.
#[derive(Debug, FromRow)]
pub(crate) struct TraceRow {
    call_id: Word<CallId>,
    trace_id: Vec<u8>,
    parent_id: Option<Vec<u8>>,
    state: Option<String>,
}

impl TraceRow {
    /// Its call's id.
    pub(crate) fn call(&self) -> &str {
        self.call_id.0.as_str()
    }

    /// `None`: it is not what this program writes.
    fn read(self) -> Option<(CallId, Place)> {
        let span = |bytes: Vec<u8>| bytes.try_into().ok().and_then(SpanId::new);
        let place = Place {
            trace: self.trace_id.try_into().ok().and_then(TraceId::new)?,
            parent: match self.parent_id {
                Some(bytes) => Some(span(bytes)?),
                None => None,
            },
            state: self.state.as_deref().and_then(TraceState::read),
        };
        Some((self.call_id.0, place))
    }

    pub(crate) fn place(self) -> Result<Place, Failure> {
        let id = self.call_id.0.clone();
        let read = self.read().map(|(_, place)| place);
        read.ok_or_else(|| Failure::Unexpected(format!("the trace of {id} cannot be read")))
    }
}

/// The calls of these rows, in the rows' order.
pub(crate) fn traced(rows: Vec<TraceRow>, mut calls: Vec<Call>) -> Vec<Traced> {
    let traced = |(id, place): (CallId, Place)| {
        let at = calls.iter().position(|call| call.id == id)?;
        Some(Traced { place, call: calls.swap_remove(at) })
    };
    rows.into_iter().filter_map(TraceRow::read).filter_map(traced).collect()
}
