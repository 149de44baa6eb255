//! Rows of sounds' tables, as both databases give them.

use controlplane_core::{
    ids::{OrgId, RecordingId},
    sound::SoundHash,
};
use sqlx::FromRow;

use crate::{
    audio::{Recording, Sound, Speech},
    columns::{Micros, Word},
    rows::moment,
};

fn hash(bytes: Vec<u8>) -> Result<SoundHash, sqlx::Error> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| sqlx::Error::Decode("sha256 is not 32 bytes long".into()))?;
    Ok(SoundHash::new(bytes))
}

fn length_ms(ms: i64) -> Result<u32, sqlx::Error> {
    u32::try_from(ms).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_recordings {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.org_id, r.sha256, a.bytes, a.length_ms, r.created_at, r.deleted_at
             FROM recording r JOIN audio a ON a.sha256 = r.sha256 ",
            $rest
        )
    };
}
pub(crate) use select_recordings;

#[derive(Debug, FromRow)]
pub(crate) struct RecordingRow {
    id: Word<RecordingId>,
    org_id: Word<OrgId>,
    sha256: Vec<u8>,
    bytes: i64,
    length_ms: i64,
    created_at: Micros,
    deleted_at: Option<Micros>,
}

impl TryFrom<RecordingRow> for Recording {
    type Error = sqlx::Error;

    fn try_from(row: RecordingRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.id.0,
            org: row.org_id.0,
            sha256: hash(row.sha256)?,
            bytes: row.bytes.unsigned_abs(),
            length_ms: length_ms(row.length_ms)?,
            created_at: row.created_at.0,
            deleted_at: moment(row.deleted_at),
        })
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct SoundRow {
    sha256: Vec<u8>,
    length_ms: i64,
    wav: Vec<u8>,
}

impl TryFrom<SoundRow> for Sound {
    type Error = sqlx::Error;

    fn try_from(row: SoundRow) -> Result<Self, sqlx::Error> {
        Ok(Self { sha256: hash(row.sha256)?, wav: row.wav.into(), length_ms: length_ms(row.length_ms)? })
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct SpeechRow {
    sha256: Vec<u8>,
    last_used_at: Micros,
}

impl TryFrom<SpeechRow> for Speech {
    type Error = sqlx::Error;

    fn try_from(row: SpeechRow) -> Result<Self, sqlx::Error> {
        Ok(Self { sha256: hash(row.sha256)?, last_used_at: row.last_used_at.0 })
    }
}

/// A page as asked for, from rows of which one more than the limit tells that there are more.
pub(crate) fn page(
    rows: Vec<RecordingRow>,
    limit: usize,
    backwards: bool,
) -> Result<(Vec<Recording>, bool), sqlx::Error> {
    let mut all: Vec<Recording> =
        rows.into_iter().map(Recording::try_from).collect::<Result<_, sqlx::Error>>()?;
    let has_more = all.len() > limit;
    all.truncate(limit);
    if backwards {
        all.reverse();
    }
    Ok((all, has_more))
}
