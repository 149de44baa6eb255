//! A backup in the place of a PostgreSQL database, under the lock that a control plane has, from the first change to the last.
//!
//! ```text
//!  public ── set_aside ──▶ ringward_restoring ── finish ──▶ ringward_replaced
//!                             │      ▲
//!                  take_back ─┘      └─ set_aside again, after one that was killed
//! ```
//! While there is a `ringward_restoring`, no control plane starts: what was loaded beside it is not held yet. So it does not
//! matter when this is killed, or loses its lock: the former database is there, and restoring again goes on from it.

use std::str::FromStr;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use super::{
    open::{self, RESTORING},
    restoring,
    sole::{self, Hold},
};
use crate::{
    StoreError,
    error::Failure,
    restoring::HoldOpen,
    rows::{HeldWorkRow, SELECT_HELD},
};

/// The schema that has what was there before the last restore.
pub const REPLACED: &str = "ringward_replaced";

/// A database that nobody else has, for as long as this lives.
pub struct Replacing {
    connection: PgConnection,
    place: String,
    /// The schema in which the control plane has its tables.
    schema: String,
}

impl Replacing {
    /// Takes the database from whoever might serve it. What is in it may be of any version, damaged, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the server cannot be reached, or a control plane uses the database.
    pub async fn begin(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::Open(format!("the database URL cannot be read: {error}")))?;
        let options = options.application_name("ringward restore").disable_statement_logging();
        let place = crate::place::on_server(&options);
        let mut connection = open::connect(&place, &sole::session(&options)).await?;
        sole::take(&place, &mut connection, Hold::Alone).await?;
        let schema = sqlx::query_scalar::<_, Option<String>>("SELECT current_schema()::text");
        let schema = schema.fetch_one(&mut connection).await.map_err(|error| refused(&place, &error))?;
        Ok(Self { connection, place, schema: schema.unwrap_or_else(|| "public".to_owned()) })
    }

    /// The schema that the backup is to be loaded into, and out of.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Makes room: the tables that are there are kept beside it, and an empty schema is in their place.
    ///
    /// # Errors
    /// [`StoreError::Open`]: this user must not rename the schema. Nothing was changed then.
    pub async fn set_aside(&mut self) -> Result<(), StoreError> {
        let away = if open::is_restoring(&mut self.connection).await.map_err(|e| refused(&self.place, &e))? {
            // One before was killed: what it loaded is nothing that anybody has used.
            "DROP SCHEMA IF EXISTS {schema} CASCADE"
        } else {
            "ALTER SCHEMA {schema} RENAME TO {restoring}"
        };
        // As a new database has it.
        self.run(&[away, "CREATE SCHEMA {schema}", "GRANT USAGE ON SCHEMA {schema} TO PUBLIC"]).await
    }

    /// Puts back what was there before.
    ///
    /// # Errors
    /// [`StoreError::Open`]: the server is away. No control plane starts before another restore.
    pub async fn take_back(&mut self) -> Result<(), StoreError> {
        self.run(&["DROP SCHEMA {schema} CASCADE", "ALTER SCHEMA {restoring} RENAME TO {schema}"]).await
    }

    /// Brings what was loaded up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`]: nothing of a control plane was loaded, or of a newer one.
    pub async fn migrate(&mut self) -> Result<(), StoreError> {
        let there = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
        if !there.fetch_one(&mut self.connection).await.map_err(|error| refused(&self.place, &error))? {
            return Err(StoreError::Open(format!(
                "the backup has no tables of a control plane in the schema {}",
                self.schema
            )));
        }
        open::migrate(&self.place, &mut self.connection).await
    }

    /// Holds what is open and lets control planes in again, both at once; how many are held. What was there before is kept as
    /// [`REPLACED`], what was kept so by an earlier restore is gone.
    ///
    /// # Errors
    /// The server is away: no control plane starts before another restore.
    pub async fn finish(mut self, hold: &HoldOpen) -> Result<usize, StoreError> {
        let named = |failure: Failure| failure.named("hold what is open", &self.place);
        let mut transaction = self.connection.begin().await.map_err(|error| named(error.into()))?;
        restoring::hold_all(&mut transaction, hold).await.map_err(named)?;
        let held = sqlx::query_as::<_, HeldWorkRow>(SELECT_HELD).fetch_all(&mut *transaction).await;
        let held = held.map_err(|error| named(error.into()))?.len();
        for sql in
            ["DROP SCHEMA IF EXISTS {replaced} CASCADE", "ALTER SCHEMA {restoring} RENAME TO {replaced}"]
        {
            let sql = AssertSqlSafe(written(sql, &self.schema));
            sqlx::raw_sql(sql).execute(&mut *transaction).await.map_err(|error| named(error.into()))?;
        }
        transaction.commit().await.map_err(|error| named(error.into()))?;
        Ok(held)
    }

    async fn run(&mut self, statements: &[&str]) -> Result<(), StoreError> {
        let place = self.place.clone();
        let refused = |error| refused(&place, &error);
        let mut transaction = self.connection.begin().await.map_err(refused)?;
        for sql in statements {
            let sql = AssertSqlSafe(written(sql, &self.schema));
            sqlx::raw_sql(sql).execute(&mut *transaction).await.map_err(refused)?;
        }
        transaction.commit().await.map_err(refused)
    }
}

/// A statement with the names of schemas, quoted.
fn written(sql: &str, schema: &str) -> String {
    let schema = format!("\"{}\"", schema.replace('"', "\"\""));
    sql.replace("{schema}", &schema).replace("{restoring}", RESTORING).replace("{replaced}", REPLACED)
}

fn refused(place: &str, error: &sqlx::Error) -> StoreError {
    StoreError::Open(format!(
        "a backup cannot be put in the place of the PostgreSQL database {place}: {error}. The user must own the database \
         (ALTER DATABASE … OWNER TO …) and, before PostgreSQL 15, its schema too (ALTER SCHEMA public OWNER TO …)"
    ))
}
