//! Wishes that a call ends, on PostgreSQL.

use serde_json::json;
use sqlx::PgConnection;

use super::{audit, calls::load};
use crate::{
    calls::{CancelRequested, RequestCancel},
    columns::Micros,
    error::Failure,
    rows::{CallHead, select_head},
};

pub(super) async fn request(
    c: &mut PgConnection,
    cancel: &RequestCancel,
) -> Result<CancelRequested, Failure> {
    let call = sqlx::query_as::<_, CallHead>(select_head!("WHERE id = $1 AND org_id = $2 FOR NO KEY UPDATE"))
        .bind(cancel.call.as_str())
        .bind(cancel.org.as_str())
        .fetch_optional(&mut *c)
        .await?;
    let Some(call) = call else { return Ok(CancelRequested::NotFound) };
    if call.status.0.is_terminal() {
        return load(c, &cancel.org, &cancel.call).await.map(CancelRequested::AlreadyEnded);
    }
    let recorded =
        sqlx::query("UPDATE call SET cancel_requested_at = $1 WHERE id = $2 AND cancel_requested_at IS NULL")
            .bind(Micros::from(cancel.at))
            .bind(cancel.call.as_str())
            .execute(&mut *c)
            .await?;
    if recorded.rows_affected() > 0 {
        let entry = audit::Entry {
            id: &cancel.audit_id,
            org: Some(&cancel.org),
            at: cancel.at,
            actor: &cancel.actor,
            action: "call.cancel",
            target_type: "call",
            target_id: cancel.call.as_str(),
            changes: &json!({}),
        };
        audit::write(c, entry).await?;
    }
    load(c, &cancel.org, &cancel.call).await.map(CancelRequested::Recorded)
}
