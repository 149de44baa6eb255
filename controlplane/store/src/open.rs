//! Opening the database that a URL names.

use std::sync::Arc;

use controlplane_core::ids::ReplicaId;
use sqlx::migrate::MigrateError;

use crate::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};

/// Opens `sqlite://PATH` or `postgres://…`, and brings its schema up to date.
///
/// # Errors
/// [`StoreError::Open`], which names the file or server (never a password) and what to do.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once("://") {
        Some(("sqlite", "" | ":memory:")) => Err(StoreError::Open(
            "the database URL sqlite:// names no file: write sqlite://PATH, as in sqlite:///var/lib/ringward/ringward.db"
                .to_owned(),
        )),
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(path).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(url).await?)),
        Some((scheme, _)) => Err(StoreError::Open(format!(
            "the database URL begins with {scheme}://, which is not known: write sqlite://PATH or postgres://USER@HOST/DATABASE"
        ))),
        None => Err(StoreError::Open(
            "the database URL has no scheme: write sqlite://PATH or postgres://USER@HOST/DATABASE".to_owned(),
        )),
    }
}

/// Opens it for one of several control planes that share a PostgreSQL database.
///
/// # Errors
/// As of [`open`]. A SQLite file is refused: it has one control plane.
pub async fn open_shared(url: &str, replica: ReplicaId) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open_shared(url, replica).await?)),
        Some(("sqlite", path)) => Err(StoreError::Open(format!(
            "the database {path} is a SQLite file, which one control plane has to itself: a second one would need a server \
             that both can reach. Take replicas.enabled back, or name a PostgreSQL server with RINGWARD_DATABASE_URL"
        ))),
        _ => open(url).await,
    }
}

/// Why the schema in `database` cannot be used, and what to do.
pub(crate) fn migration_refused(database: &str, error: &MigrateError) -> String {
    if let MigrateError::VersionMissing(version) = error {
        return format!(
            "the database {database} has schema version {version}, which is newer than this program: start the \
             release that made it, or a later one"
        );
    }
    if let MigrateError::VersionMismatch(version) = error {
        return format!(
            "the database {database} was made by another build: its schema version {version} differs from this \
             program's. Start the build that made it, or restore a backup"
        );
    }
    format!("the schema of the database {database} cannot be brought up to date: {error}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_databases_have_the_same_migrations() {
        let list = |migrator: &sqlx::migrate::Migrator| -> Vec<_> {
            migrator.iter().map(|m| (m.version, m.description.to_string())).collect()
        };
        let (sqlite, postgres) = (sqlx::migrate!("migrations/sqlite"), sqlx::migrate!("migrations/postgres"));
        assert_eq!(list(&sqlite), list(&postgres));
    }
}
