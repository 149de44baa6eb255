//! Attempts that ended untold, on PostgreSQL: which they are, and what is heard of them after all.

use controlplane_core::{
    ids::{AttemptId, CallId, ReplicaId},
    names::NodeName,
    request::{CallRequest, KeyAction},
};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::{
    audit,
    calls::{Entry, finish, head, next, under_way},
};
use crate::{
    calls::{Actor, HearLate, HeardLate, Untold, Written},
    columns::{Micros, Stored, Word},
    error::Failure,
    progress::ACKNOWLEDGED,
};

/// The nodes that are to be asked.
pub(super) async fn nodes(pool: &PgPool) -> Result<Vec<NodeName>, sqlx::Error> {
    let nodes = sqlx::query_scalar::<_, Word<NodeName>>(
        "SELECT DISTINCT node FROM attempt WHERE is_untold ORDER BY node",
    )
    .fetch_all(pool)
    .await?;
    Ok(nodes.into_iter().map(|node| node.0).collect())
}

/// What one of them is to be asked of. Of open calls only those of the `replica` that asks, whose task is to hear it.
pub(super) async fn of(
    pool: &PgPool,
    node: &NodeName,
    limit: u16,
    replica: Option<&ReplicaId>,
) -> Result<Vec<Untold>, sqlx::Error> {
    type Row = (Word<CallId>, Word<AttemptId>, Option<String>, Stored<CallRequest>);
    let rows = sqlx::query_as::<_, Row>(
        "SELECT c.id, a.id, a.incarnation, c.request FROM attempt a JOIN call c ON c.id = a.call_id
         WHERE a.is_untold AND a.node = $1
             AND ($3::text IS NULL OR c.ended_at IS NOT NULL OR c.lease_owner = $3) ORDER BY a.id LIMIT $2",
    )
    .bind(node.as_str())
    .bind(i64::from(limit))
    .bind(replica.map(ReplicaId::as_str))
    .fetch_all(pool)
    .await?;
    let untold = |(call, attempt, incarnation, request): Row| Untold {
        call: call.0,
        attempt: attempt.0,
        node: node.clone(),
        incarnation,
        request: request.0,
    };
    Ok(rows.into_iter().map(untold).collect())
}

pub(super) async fn hear(c: &mut PgConnection, late: &HearLate) -> Result<HeardLate, Failure> {
    let mut call = head(c, &late.call).await?;
    let told = sqlx::query(
        "UPDATE attempt SET is_untold = FALSE, heard_key = coalesce(heard_key, $1)
         WHERE id = $2 AND call_id = $3 AND is_untold",
    )
    .bind(late.key.map(|late| late.key.to_string()))
    .bind(late.attempt.as_str())
    .bind(late.call.as_str())
    .execute(&mut *c)
    .await?;
    if told.rows_affected() == 0 {
        return Ok(HeardLate::Before);
    }
    let Some(key) = late.key else { return Ok(HeardLate::Nothing) };
    let entry = audit::Entry {
        id: &late.audit_id,
        org: Some(&call.org_id.0),
        at: late.at,
        actor: &Actor::default(),
        action: "call.hear_late",
        target_type: "call",
        target_id: late.call.as_str(),
        changes: &json!({
            "attempt": late.attempt, "key": key.key, "action": key.action, "was_over": call.status.0.is_terminal(),
        }),
    };
    audit::write(c, entry).await?;
    if call.status.0.is_terminal() {
        return Ok(HeardLate::TooLate);
    }
    // A key of another attempt may have decided it meanwhile: the first one stays.
    let decided = sqlx::query(
        "UPDATE call SET ack_key = $1, ack_action = $2, ack_at = $3 WHERE id = $4 AND ack_key IS NULL",
    )
    .bind(key.key.to_string())
    .bind(key.action.as_str())
    .bind(Micros::from(late.at))
    .bind(late.call.as_str())
    .execute(&mut *c)
    .await?;
    if decided.rows_affected() > 0 && key.action == KeyAction::Acknowledge {
        let entry = Entry {
            attempt: Some((&late.attempt, None)),
            key: Some(key.key),
            ..Entry::of(&late.event_id, ACKNOWLEDGED, late.at)
        };
        let status = call.status.0;
        let _ = next(c, call, status, entry).await?;
        call = head(c, &late.call).await?;
    }
    if under_way(c, &late.call).await?.is_some() {
        return Ok(HeardLate::Decided);
    }
    match finish(c, call, key.end, late.at, &late.end_event_id, None).await? {
        Written::Yes { .. } => Ok(HeardLate::Ended),
        Written::AlreadyEnded => Ok(HeardLate::TooLate),
    }
}
