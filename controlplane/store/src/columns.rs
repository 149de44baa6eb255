//! Columns that both databases hold, each in its native type.

use std::{error::Error, fmt::Display, str::FromStr};

use serde::de::DeserializeOwned;
use sqlx::{Database, Decode, Encode, Postgres, Sqlite, Type, encode::IsNull, types::Json};
use time::OffsetDateTime;

type DynError = Box<dyn Error + Send + Sync>;

/// A moment, as exact as both databases keep it: microseconds. INTEGER on SQLite, timestamptz on PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Micros(pub(crate) OffsetDateTime);

impl From<OffsetDateTime> for Micros {
    /// Cut to microseconds, so that what is answered is what is read back.
    fn from(at: OffsetDateTime) -> Self {
        let at = at.to_offset(time::UtcOffset::UTC);
        Self(at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at))
    }
}

impl From<Micros> for OffsetDateTime {
    fn from(at: Micros) -> Self {
        at.0
    }
}

/// A moment cut to what the databases keep.
pub(crate) fn kept(at: OffsetDateTime) -> OffsetDateTime {
    Micros::from(at).0
}

impl Type<Sqlite> for Micros {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for Micros {
    fn encode_by_ref(&self, buf: &mut <Sqlite as Database>::ArgumentBuffer) -> Result<IsNull, DynError> {
        let micros = i64::try_from(self.0.unix_timestamp_nanos() / 1_000)?;
        Encode::<Sqlite>::encode(micros, buf)
    }
}

impl<'r> Decode<'r, Sqlite> for Micros {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, DynError> {
        let micros = <i64 as Decode<Sqlite>>::decode(value)?;
        Ok(Self(OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)?))
    }
}

impl Type<Postgres> for Micros {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buf: &mut <Postgres as Database>::ArgumentBuffer) -> Result<IsNull, DynError> {
        Encode::<Postgres>::encode(self.0, buf)
    }
}

impl<'r> Decode<'r, Postgres> for Micros {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, DynError> {
        Ok(Self(<OffsetDateTime as Decode<Postgres>>::decode(value)?))
    }
}

/// A typed word or id in a text column.
#[derive(Debug, Clone)]
pub(crate) struct Word<T>(pub(crate) T);

impl<T, DB: Database> Type<DB> for Word<T>
where
    String: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <String as Type<DB>>::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        <String as Type<DB>>::compatible(ty)
    }
}

impl<'r, T: FromStr<Err: Display>, DB: Database> Decode<'r, DB> for Word<T>
where
    String: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, DynError> {
        let text = <String as Decode<'r, DB>>::decode(value)?;
        text.parse().map(Self).map_err(|e: T::Err| format!("{text:?}: {e}").into())
    }
}

/// What went through a door once, in a JSON column: read without the fields of another release.
#[derive(Debug, Clone)]
pub(crate) struct Stored<T>(pub(crate) T);

impl<T, DB: Database> Type<DB> for Stored<T>
where
    Json<serde_json::Value>: Type<DB>,
{
    fn type_info() -> DB::TypeInfo {
        <Json<serde_json::Value> as Type<DB>>::type_info()
    }

    fn compatible(ty: &DB::TypeInfo) -> bool {
        <Json<serde_json::Value> as Type<DB>>::compatible(ty)
    }
}

impl<'r, T: DeserializeOwned, DB: Database> Decode<'r, DB> for Stored<T>
where
    Json<serde_json::Value>: Decode<'r, DB>,
{
    fn decode(value: DB::ValueRef<'r>) -> Result<Self, DynError> {
        let Json(value) = <Json<serde_json::Value> as Decode<'r, DB>>::decode(value)?;
        Ok(Self(crate::lenient::from_value(value)?))
    }
}
