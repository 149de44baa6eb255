//! Whether what was answered is in the database.

use std::collections::HashSet;

use anyhow::Context as _;
use serde_json::json;
use sqlx::{Connection as _, PgConnection, SqliteConnection, types::Json};

/// Ids that are looked for at once.
const AT_ONCE: usize = 10_000;

/// Prints `{"answered", "found", "calls"}`: distinct ids of the file, how many of them there are, and all calls there are.
pub(crate) async fn run(url: &str, ids: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(ids).context("read the ids")?;
    let ids: HashSet<&str> = text.lines().collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let all = "SELECT count(*) FROM call";
    let mut found = 0;
    let calls: i64 = if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await?;
        for part in ids.chunks(AT_ONCE) {
            let these = "SELECT count(*) FROM call WHERE id IN (SELECT value FROM json_each($1))";
            found += sqlx::query_scalar::<_, i64>(these).bind(Json(part)).fetch_one(&mut connection).await?;
        }
        sqlx::query_scalar(all).fetch_one(&mut connection).await?
    } else {
        let mut connection = PgConnection::connect(url).await?;
        for part in ids.chunks(AT_ONCE) {
            let these = "SELECT count(*) FROM call WHERE id = ANY($1)";
            found +=
                sqlx::query_scalar::<_, i64>(these).bind(part.to_vec()).fetch_one(&mut connection).await?;
        }
        sqlx::query_scalar(all).fetch_one(&mut connection).await?
    };
    println!("{}", json!({"answered": ids.len(), "found": found, "calls": calls}));
    Ok(())
}
