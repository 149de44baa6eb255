//! Sounds on SQLite.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, OrgId, RecordingId},
    sound::SoundHash,
};
use serde_json::json;
use sqlx::{SqliteConnection, types::time::OffsetDateTime};

use super::{SqliteStore, audit};
use crate::{
    AudioStore, StoreError,
    audio::{
        KeptSpeech, NewRecording, NewSpeech, PruneAudio, Recorded, Recording, RecordingsPage, Sound, Speech,
    },
    audio_rows::{RecordingRow, SoundRow, SpeechRow, page, select_recordings},
    calls::Actor,
    columns::{Micros, kept},
    error::Failure,
};

#[async_trait]
impl AudioStore for SqliteStore {
    async fn create_recording(&self, new: NewRecording) -> Result<Recorded, StoreError> {
        self.writer.write("keep a recording", new, |c, new| Box::pin(create(c, new))).await
    }

    async fn recording(&self, org: &OrgId, id: &RecordingId) -> Result<Option<Recording>, StoreError> {
        let row = sqlx::query_as::<_, RecordingRow>(select_recordings!("WHERE r.id = $1 AND r.org_id = $2"))
            .bind(id.as_str())
            .bind(org.as_str())
            .fetch_optional(&self.readers)
            .await;
        let found = row.and_then(|row| row.map(Recording::try_from).transpose());
        found.map_err(|error| self.failed("find a recording", error))
    }

    async fn recordings(
        &self,
        org: &OrgId,
        asked: RecordingsPage,
    ) -> Result<(Vec<Recording>, bool), StoreError> {
        let backwards = asked.ending_before.is_some() && asked.starting_after.is_none();
        // Ids sort by time. '~' is above every id, '' below.
        let sql = if backwards {
            select_recordings!(
                "WHERE r.org_id = $1 AND r.deleted_at IS NULL AND r.id < coalesce($2, '~')
                 AND r.id > coalesce($3, '') ORDER BY r.id ASC LIMIT $4"
            )
        } else {
            select_recordings!(
                "WHERE r.org_id = $1 AND r.deleted_at IS NULL AND r.id < coalesce($2, '~')
                 AND r.id > coalesce($3, '') ORDER BY r.id DESC LIMIT $4"
            )
        };
        let rows = sqlx::query_as::<_, RecordingRow>(sql)
            .bind(org.as_str())
            .bind(asked.starting_after.as_ref().map(RecordingId::as_str))
            .bind(asked.ending_before.as_ref().map(RecordingId::as_str))
            .bind(i64::from(asked.limit) + 1)
            .fetch_all(&self.readers)
            .await;
        rows.and_then(|rows| page(rows, asked.limit.into(), backwards))
            .map_err(|error| self.failed("list recordings", error))
    }

    async fn delete_recording(
        &self,
        org: &OrgId,
        id: &RecordingId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError> {
        let input = (org.clone(), id.clone(), at, actor, audit_id);
        self.writer
            .write("delete a recording", input, |c, (org, id, at, actor, audit_id)| {
                Box::pin(delete(c, org, id, *at, actor, audit_id))
            })
            .await
    }

    async fn sound(&self, sha256: &SoundHash) -> Result<Option<Sound>, StoreError> {
        let row = sqlx::query_as::<_, SoundRow>("SELECT sha256, length_ms, wav FROM audio WHERE sha256 = $1")
            .bind(sha256.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await;
        let sound = row.and_then(|row| row.map(Sound::try_from).transpose());
        sound.map_err(|error| self.failed("read a sound", error))
    }

    async fn speech(&self, key: &[u8; 32]) -> Result<Option<Speech>, StoreError> {
        let row = sqlx::query_as::<_, SpeechRow>("SELECT sha256, last_used_at FROM speech WHERE key = $1")
            .bind(key.as_slice())
            .fetch_optional(&self.readers)
            .await;
        let speech = row.and_then(|row| row.map(Speech::try_from).transpose());
        speech.map_err(|error| self.failed("find a spoken text", error))
    }

    async fn keep_speech(&self, new: NewSpeech) -> Result<KeptSpeech, StoreError> {
        self.writer.write("keep a spoken text", new, |c, new| Box::pin(keep(c, new))).await
    }

    async fn use_speech(&self, key: [u8; 32], at: OffsetDateTime) -> Result<(), StoreError> {
        self.writer.write("use a spoken text", (key, at), |c, (key, at)| Box::pin(touch(c, key, *at))).await
    }

    async fn prune_audio(&self, prune: PruneAudio) -> Result<u64, StoreError> {
        self.writer.write("prune sounds", prune, |c, prune| Box::pin(erase(c, *prune))).await
    }
}

async fn put(c: &mut SqliteConnection, sound: &Sound) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO audio (sha256, bytes, length_ms, wav) VALUES ($1, $2, $3, $4)
         ON CONFLICT (sha256) DO NOTHING",
    )
    .bind(sound.sha256.as_bytes().as_slice())
    .bind(i64::try_from(sound.wav.len()).unwrap_or(i64::MAX))
    .bind(i64::from(sound.length_ms))
    .bind(&*sound.wav)
    .execute(c)
    .await?;
    Ok(())
}

async fn create(c: &mut SqliteConnection, new: &NewRecording) -> Result<Recorded, Failure> {
    // What was deleted lies there until it is erased, and counts until then.
    let (held, all): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(a.bytes) FILTER (WHERE r.org_id = $1), 0), coalesce(sum(a.bytes), 0)
         FROM recording r JOIN audio a ON a.sha256 = r.sha256",
    )
    .bind(new.org.as_str())
    .fetch_one(&mut *c)
    .await?;
    let bytes = new.sound.wav.len() as u64;
    if held.unsigned_abs().saturating_add(bytes) > new.org_bytes_max {
        return Ok(Recorded::Full);
    }
    if all.unsigned_abs().saturating_add(bytes) > new.bytes_max {
        return Ok(Recorded::AllFull);
    }
    put(c, &new.sound).await?;
    sqlx::query("INSERT INTO recording (id, org_id, sha256, created_at) VALUES ($1, $2, $3, $4)")
        .bind(new.id.as_str())
        .bind(new.org.as_str())
        .bind(new.sound.sha256.as_bytes().as_slice())
        .bind(Micros::from(new.at))
        .execute(&mut *c)
        .await?;
    let entry = audit::Entry {
        id: &new.audit_id,
        org: Some(&new.org),
        at: new.at,
        actor: &new.actor,
        action: "audio.create",
        target_type: "audio",
        target_id: new.id.as_str(),
        changes: &json!({"sha256": new.sound.sha256, "bytes": bytes}),
    };
    audit::write(c, entry).await?;
    Ok(Recorded::Done(Recording {
        id: new.id.clone(),
        org: new.org.clone(),
        sha256: new.sound.sha256,
        bytes,
        length_ms: new.sound.length_ms,
        created_at: kept(new.at),
        deleted_at: None,
    }))
}

async fn delete(
    c: &mut SqliteConnection,
    org: &OrgId,
    id: &RecordingId,
    at: OffsetDateTime,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<bool, Failure> {
    let deleted = sqlx::query(
        "UPDATE recording SET deleted_at = $1 WHERE id = $2 AND org_id = $3 AND deleted_at IS NULL",
    )
    .bind(Micros::from(at))
    .bind(id.as_str())
    .bind(org.as_str())
    .execute(&mut *c)
    .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    let entry = audit::Entry {
        id: audit_id,
        org: Some(org),
        at,
        actor,
        action: "audio.delete",
        target_type: "audio",
        target_id: id.as_str(),
        changes: &json!({}),
    };
    audit::write(c, entry).await?;
    Ok(true)
}

async fn keep(c: &mut SqliteConnection, new: &NewSpeech) -> Result<KeptSpeech, Failure> {
    let known = sqlx::query_as::<_, SpeechRow>("SELECT sha256, last_used_at FROM speech WHERE key = $1")
        .bind(new.key.as_slice())
        .fetch_optional(&mut *c)
        .await?;
    if let Some(known) = known {
        touch(c, &new.key, new.at).await?;
        return Ok(KeptSpeech::Sound(Speech::try_from(known)?.sha256));
    }
    let bytes = new.sound.wav.len() as u64;
    for (org, max, full) in
        [(Some(&new.org), new.org_bytes_max, KeptSpeech::Full), (None, new.bytes_max, KeptSpeech::AllFull)]
    {
        let Some(left) = max.checked_sub(bytes) else { return Ok(full) };
        if !make_room(c, org, left, new.stays_since).await? {
            return Ok(full);
        }
    }
    put(c, &new.sound).await?;
    sqlx::query(
        "INSERT INTO speech (key, org_id, sha256, created_at, last_used_at) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(new.key.as_slice())
    .bind(new.org.as_str())
    .bind(new.sound.sha256.as_bytes().as_slice())
    .bind(Micros::from(new.at))
    .execute(&mut *c)
    .await?;
    Ok(KeptSpeech::Sound(new.sound.sha256))
}

/// Erases texts that were used longest ago, of one organisation or of all, until they take no more than `left`
/// bytes. `false`: what open calls need takes more.
async fn make_room(
    c: &mut SqliteConnection,
    org: Option<&OrgId>,
    left: u64,
    stays_since: OffsetDateTime,
) -> Result<bool, Failure> {
    let org = org.map(OrgId::as_str);
    let left = i64::try_from(left).unwrap_or(i64::MAX);
    let (held, needed): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(a.bytes), 0), coalesce(sum(a.bytes) FILTER (WHERE s.last_used_at >= $2), 0)
         FROM speech s JOIN audio a ON a.sha256 = s.sha256 WHERE $1 IS NULL OR s.org_id = $1",
    )
    .bind(org)
    .bind(Micros::from(stays_since))
    .fetch_one(&mut *c)
    .await?;
    if needed > left {
        return Ok(false);
    }
    if held > left {
        sqlx::query(
            "DELETE FROM speech WHERE key IN (SELECT key FROM (
                 SELECT s.key, sum(a.bytes) OVER (ORDER BY s.last_used_at DESC, s.key) AS newer, s.last_used_at
                 FROM speech s JOIN audio a ON a.sha256 = s.sha256 WHERE $1 IS NULL OR s.org_id = $1) sized
             WHERE newer > $2 AND last_used_at < $3)",
        )
        .bind(org)
        .bind(left)
        .bind(Micros::from(stays_since))
        .execute(&mut *c)
        .await?;
        erase_unused(c).await?;
    }
    Ok(true)
}

async fn touch(c: &mut SqliteConnection, key: &[u8; 32], at: OffsetDateTime) -> Result<(), Failure> {
    sqlx::query("UPDATE speech SET last_used_at = $1 WHERE key = $2 AND last_used_at < $1")
        .bind(Micros::from(at))
        .bind(key.as_slice())
        .execute(c)
        .await?;
    Ok(())
}

async fn erase(c: &mut SqliteConnection, prune: PruneAudio) -> Result<u64, Failure> {
    sqlx::query("DELETE FROM speech WHERE last_used_at < $1")
        .bind(Micros::from(prune.speech_before))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "DELETE FROM speech WHERE key IN (SELECT key FROM (
             SELECT s.key, sum(a.bytes) OVER (ORDER BY s.last_used_at DESC, s.key) AS newer, s.last_used_at
             FROM speech s JOIN audio a ON a.sha256 = s.sha256) sized WHERE newer > $1 AND last_used_at < $2)",
    )
    .bind(i64::try_from(prune.speech_bytes_max).unwrap_or(i64::MAX))
    .bind(Micros::from(prune.speech_stays_since))
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "DELETE FROM recording WHERE deleted_at < $1 AND NOT EXISTS (
             SELECT 1 FROM call c WHERE c.ended_at IS NULL AND json_extract(c.request, '$.message.audio_id') = recording.id)",
    )
    .bind(Micros::from(prune.deleted_before))
    .execute(&mut *c)
    .await?;
    erase_unused(c).await
}

/// Sounds that nothing refers to. How many.
async fn erase_unused(c: &mut SqliteConnection) -> Result<u64, Failure> {
    let erased = sqlx::query(
        "DELETE FROM audio
         WHERE NOT EXISTS (SELECT 1 FROM speech s WHERE s.sha256 = audio.sha256)
           AND NOT EXISTS (SELECT 1 FROM recording r WHERE r.sha256 = audio.sha256)",
    )
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}
