//! Sounds on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, OrgId, RecordingId},
    sound::SoundHash,
};
use serde_json::json;
use sqlx::{PgConnection, types::time::OffsetDateTime};

use super::{PostgresStore, audit};
use crate::{
    AudioStore, StoreError,
    audio::{NewRecording, PruneAudio, Recorded, Recording, RecordingsPage, Sound, Speech},
    audio_rows::{RecordingRow, SoundRow, SpeechRow, page, select_recordings},
    calls::Actor,
    columns::{Micros, kept},
    error::Failure,
};

#[async_trait]
impl AudioStore for PostgresStore {
    async fn create_recording(&self, new: NewRecording) -> Result<Recorded, StoreError> {
        self.transaction("keep a recording", new, |c, new| Box::pin(create(c, new))).await
    }

    async fn recording(&self, org: &OrgId, id: &RecordingId) -> Result<Option<Recording>, StoreError> {
        let row = sqlx::query_as::<_, RecordingRow>(select_recordings!("WHERE r.id = $1 AND r.org_id = $2"))
            .bind(id.as_str())
            .bind(org.as_str())
            .fetch_optional(&self.pool)
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
            .fetch_all(&self.pool)
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
        self.transaction("delete a recording", input, |c, (org, id, at, actor, audit_id)| {
            Box::pin(delete(c, org, id, *at, actor, audit_id))
        })
        .await
    }

    async fn sound(&self, sha256: &SoundHash) -> Result<Option<Sound>, StoreError> {
        let row = sqlx::query_as::<_, SoundRow>("SELECT sha256, length_ms, wav FROM audio WHERE sha256 = $1")
            .bind(sha256.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await;
        let sound = row.and_then(|row| row.map(Sound::try_from).transpose());
        sound.map_err(|error| self.failed("read a sound", error))
    }

    async fn speech(&self, key: &[u8; 32]) -> Result<Option<Speech>, StoreError> {
        let row = sqlx::query_as::<_, SpeechRow>("SELECT sha256, last_used_at FROM speech WHERE key = $1")
            .bind(key.as_slice())
            .fetch_optional(&self.pool)
            .await;
        let speech = row.and_then(|row| row.map(Speech::try_from).transpose());
        speech.map_err(|error| self.failed("find a spoken text", error))
    }

    async fn keep_speech(
        &self,
        key: [u8; 32],
        sound: Sound,
        at: OffsetDateTime,
    ) -> Result<SoundHash, StoreError> {
        let input = (key, sound, at);
        self.transaction("keep a spoken text", input, |c, (key, sound, at)| {
            Box::pin(keep(c, key, sound, *at))
        })
        .await
    }

    async fn use_speech(&self, key: [u8; 32], at: OffsetDateTime) -> Result<(), StoreError> {
        self.transaction("use a spoken text", (key, at), |c, (key, at)| Box::pin(touch(c, key, *at))).await
    }

    async fn prune_audio(&self, prune: PruneAudio) -> Result<u64, StoreError> {
        self.transaction("prune sounds", prune, |c, prune| Box::pin(erase(c, *prune))).await
    }
}

/// An update where it is there already: that keeps it from being pruned before it is referred to.
async fn put(c: &mut PgConnection, sound: &Sound) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO audio (sha256, bytes, length_ms, wav) VALUES ($1, $2, $3, $4)
         ON CONFLICT (sha256) DO UPDATE SET bytes = excluded.bytes",
    )
    .bind(sound.sha256.as_bytes().as_slice())
    .bind(i64::try_from(sound.wav.len()).unwrap_or(i64::MAX))
    .bind(i64::from(sound.length_ms))
    .bind(&*sound.wav)
    .execute(c)
    .await?;
    Ok(())
}

async fn create(c: &mut PgConnection, new: &NewRecording) -> Result<Recorded, Failure> {
    // Uploads of one organisation wait for each other, so that no two count the same room.
    sqlx::query("SELECT 1 FROM org WHERE org_id = $1 FOR NO KEY UPDATE")
        .bind(new.org.as_str())
        .execute(&mut *c)
        .await?;
    let held: i64 = sqlx::query_scalar(
        "SELECT coalesce(sum(a.bytes), 0)::bigint FROM recording r JOIN audio a ON a.sha256 = r.sha256
         WHERE r.org_id = $1 AND r.deleted_at IS NULL",
    )
    .bind(new.org.as_str())
    .fetch_one(&mut *c)
    .await?;
    let bytes = new.sound.wav.len() as u64;
    if held.unsigned_abs().saturating_add(bytes) > new.org_bytes_max {
        return Ok(Recorded::Full);
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
    c: &mut PgConnection,
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

async fn keep(
    c: &mut PgConnection,
    key: &[u8; 32],
    sound: &Sound,
    at: OffsetDateTime,
) -> Result<SoundHash, Failure> {
    put(c, sound).await?;
    sqlx::query(
        "INSERT INTO speech (key, sha256, created_at, last_used_at) VALUES ($1, $2, $3, $3)
         ON CONFLICT (key) DO UPDATE SET last_used_at = excluded.last_used_at",
    )
    .bind(key.as_slice())
    .bind(sound.sha256.as_bytes().as_slice())
    .bind(Micros::from(at))
    .execute(&mut *c)
    .await?;
    let row = sqlx::query_as::<_, SpeechRow>("SELECT sha256, last_used_at FROM speech WHERE key = $1")
        .bind(key.as_slice())
        .fetch_one(c)
        .await?;
    Ok(Speech::try_from(row)?.sha256)
}

async fn touch(c: &mut PgConnection, key: &[u8; 32], at: OffsetDateTime) -> Result<(), Failure> {
    sqlx::query("UPDATE speech SET last_used_at = $1 WHERE key = $2 AND last_used_at < $1")
        .bind(Micros::from(at))
        .bind(key.as_slice())
        .execute(c)
        .await?;
    Ok(())
}

async fn erase(c: &mut PgConnection, prune: PruneAudio) -> Result<u64, Failure> {
    sqlx::query("DELETE FROM speech WHERE last_used_at < $1")
        .bind(Micros::from(prune.speech_before))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "DELETE FROM speech WHERE key IN (SELECT key FROM (
             SELECT s.key, sum(a.bytes) OVER (ORDER BY s.last_used_at DESC, s.key) AS newer, s.last_used_at
             FROM speech s JOIN audio a ON a.sha256 = s.sha256) sized WHERE newer > $1::bigint AND last_used_at < $2)",
    )
    .bind(i64::try_from(prune.speech_bytes_max).unwrap_or(i64::MAX))
    .bind(Micros::from(prune.speech_stays_since))
    .execute(&mut *c)
    .await?;
    sqlx::query("DELETE FROM recording WHERE deleted_at < $1")
        .bind(Micros::from(prune.deleted_before))
        .execute(&mut *c)
        .await?;
    let erased = sqlx::query(
        "DELETE FROM audio
         WHERE NOT EXISTS (SELECT 1 FROM speech s WHERE s.sha256 = audio.sha256)
           AND NOT EXISTS (SELECT 1 FROM recording r WHERE r.sha256 = audio.sha256)",
    )
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}
