//! Lists in which a row that cannot be read hides no other: it is logged by its id, and passed over.

use std::collections::HashSet;

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use crate::{
    calls::Call,
    rows::{AttemptRow, CallRow, assemble},
};

/// A text column as it is.
pub(crate) fn text<R: Row>(row: &R, column: &'static str) -> Result<String, sqlx::Error>
where
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get(column)
}

/// The rows that can be read; the others are logged as this noun, by the text of this column.
pub(crate) fn rows<T, R: Row>(rows: &[R], noun: &'static str, id: &'static str) -> Vec<T>
where
    T: for<'r> FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let read = |row| match T::from_row(row) {
        Ok(read) => Some(read),
        Err(error) => {
            let id = text(row, id).unwrap_or_default();
            tracing::error!(noun, %id, %error, "this {noun} is passed over: its row cannot be read");
            None
        }
    };
    rows.iter().filter_map(read).collect()
}

/// The rows that are calls.
pub(crate) fn calls<R: Row>(rows: &[R]) -> Vec<CallRow>
where
    for<'r> CallRow: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    self::rows(rows, "call", "id")
}

/// Calls with their attempts. One with an attempt that cannot be read is passed over whole: without it, the
/// phone might be rung again.
pub(crate) fn with_attempts<R: Row>(calls: Vec<CallRow>, attempts: &[R]) -> Vec<Call>
where
    for<'r> AttemptRow: FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut unreadable = HashSet::new();
    let mut read = Vec::with_capacity(attempts.len());
    for row in attempts {
        match AttemptRow::from_row(row) {
            Ok(attempt) => read.push(attempt),
            Err(error) => {
                let (call, attempt) = (text(row, "call_id").unwrap_or_default(), text(row, "id"));
                let attempt = attempt.unwrap_or_default();
                tracing::error!(%call, %attempt, %error, "this call is passed over: its attempt cannot be read");
                unreadable.insert(call);
            }
        }
    }
    let mut calls = assemble(calls, read);
    calls.retain(|call| !unreadable.contains(call.id.as_str()));
    calls
}
