//! Searching among all calls on SQLite.

use async_trait::async_trait;
use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
    number::E164,
};
use sqlx::SqliteConnection;

use super::{SqliteStore, reading};
use crate::{
    SearchStore, StoreError,
    calls::Call,
    error::Failure,
    search::{CallSearch, CallsFound, LOOK, Looking},
};

#[async_trait]
impl SearchStore for SqliteStore {
    async fn call_of_any(&self, id: &CallId) -> Result<Option<Call>, StoreError> {
        let operation = "read any call";
        let mut moment = self.reading(operation).await?;
        let calls = reading::by_ids(&mut moment, &[id.as_str()]).await;
        Ok(calls.map_err(|failure| self.failed(operation, failure))?.pop())
    }

    async fn search_calls(&self, search: CallSearch) -> Result<CallsFound, StoreError> {
        let operation = "search calls";
        let mut moment = self.reading(operation).await?;
        find(&mut moment, &search).await.map_err(|failure| self.failed(operation, failure))
    }
}

/// By its number an index leads to a call; by nothing else.
const TO_NUMBER: &str = "SELECT id, ($2 IS NULL OR org_id = $2) AND ($3 IS NULL OR status = $3)
             AND ($4 IS NULL OR EXISTS (SELECT 1 FROM json_each(request, '$.metadata')
                 WHERE value = $4 AND ($5 IS NULL OR key = $5)))
         FROM call WHERE json_extract(request, '$.to') = $7 AND id < coalesce($1, '~') ORDER BY id DESC LIMIT $6";
const ANY: &str = "SELECT id, ($2 IS NULL OR org_id = $2) AND ($3 IS NULL OR status = $3)
             AND ($4 IS NULL OR EXISTS (SELECT 1 FROM json_each(request, '$.metadata')
                 WHERE value = $4 AND ($5 IS NULL OR key = $5)))
         FROM call WHERE id < coalesce($1, '~') ORDER BY id DESC LIMIT $6";

async fn find(c: &mut SqliteConnection, search: &CallSearch) -> Result<CallsFound, Failure> {
    let mut looking = Looking::new(search);
    let noted = search.metadata.as_ref();
    loop {
        let sql = if search.to.is_some() { TO_NUMBER } else { ANY };
        let look = sqlx::query_as::<_, (String, bool)>(sql)
            .bind(looking.below())
            .bind(search.org.as_ref().map(OrgId::as_str))
            .bind(search.status.map(CallStatus::as_str))
            .bind(noted.map(|noted| noted.value.as_str()))
            .bind(noted.and_then(|noted| noted.key.as_deref()))
            .bind(i64::try_from(LOOK).unwrap_or(i64::MAX));
        let look = match search.to.as_ref().map(E164::as_str) {
            Some(to) => look.bind(to),
            None => look,
        };
        if looking.take(look.fetch_all(&mut *c).await?) {
            break;
        }
    }
    let calls = reading::by_ids(c, &looking.fits()).await?;
    Ok(looking.found(calls))
}
