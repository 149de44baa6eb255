//! Why the store could not do what was asked.

use controlplane_core::ids::AttemptId;

/// A failed operation, named, with its source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or its disk is full or not writable: worth another try later.
    #[error("{operation}: the database {database} is not available: {source}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The file, or the server and database. Never a password.
        database: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// The database answered, but not as its schema promises.
    #[error("{operation}: the database holds something unexpected ({detail})")]
    Corrupt {
        /// What was being done.
        operation: &'static str,
        /// What was found.
        detail: String,
    },
    /// Who writes is not the owner any more: a later claim has a newer epoch. Nothing was written.
    #[error("{operation}: this process no longer owns the row")]
    Fenced {
        /// What was being done.
        operation: &'static str,
    },
    /// What the write speaks of was never stored. Nothing was written.
    #[error("{operation}: there is no {id}")]
    Missing {
        /// What was being done.
        operation: &'static str,
        /// The id that was not found.
        id: String,
    },
    /// The call cannot end apart from its attempt, which has not ended. Nothing was written.
    #[error("{operation}: attempt {attempt} has not ended: end it, and the call with it")]
    AttemptOpen {
        /// What was being done.
        operation: &'static str,
        /// The attempt under way.
        attempt: AttemptId,
    },
    /// The database cannot be opened or migrated at start: the text names the file or server and what to do.
    #[error("{0}")]
    Open(String),
}

impl StoreError {
    /// The same, for another one whom it concerns.
    #[must_use]
    pub fn again(&self) -> Self {
        match self {
            Self::Unavailable { operation, database, source } => {
                let source = sqlx::Error::Io(std::io::Error::other(source.to_string()));
                Self::Unavailable { operation, database: database.clone(), source }
            }
            Self::Corrupt { operation, detail } => Self::Corrupt { operation, detail: detail.clone() },
            Self::Fenced { operation } => Self::Fenced { operation },
            Self::Missing { operation, id } => Self::Missing { operation, id: id.clone() },
            Self::AttemptOpen { operation, attempt } => {
                Self::AttemptOpen { operation, attempt: attempt.clone() }
            }
            Self::Open(text) => Self::Open(text.clone()),
        }
    }
}

/// What goes wrong inside a transaction, before the operation's name is put to it.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(sqlx::Error),
    Missing(String),
    AttemptOpen(AttemptId),
    Fenced,
    Unexpected(String),
}

impl From<sqlx::Error> for Failure {
    fn from(source: sqlx::Error) -> Self {
        Self::Sql(source)
    }
}

impl Failure {
    /// In words, for a log or for others whom it concerns.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Sql(error) => error.to_string(),
            Self::Missing(_) | Self::AttemptOpen(_) | Self::Fenced | Self::Unexpected(_) => {
                format!("{self:?}")
            }
        }
    }

    /// Whether the database refused what was asked of it, which may be for a part of it: asked alone, the rest may be done.
    pub(crate) const fn is_of_what_was_asked(&self) -> bool {
        match self {
            Self::Sql(error) => !was_not_answered(error),
            Self::Missing(_) | Self::AttemptOpen(_) | Self::Fenced | Self::Unexpected(_) => true,
        }
    }

    pub(crate) fn named(self, operation: &'static str, database: &str) -> StoreError {
        match self {
            Self::Sql(source) if is_unavailable(&source) => {
                StoreError::Unavailable { operation, database: database.to_owned(), source }
            }
            Self::Sql(source) => StoreError::Corrupt { operation, detail: source.to_string() },
            Self::Missing(id) => StoreError::Missing { operation, id },
            Self::AttemptOpen(attempt) => StoreError::AttemptOpen { operation, attempt },
            Self::Fenced => StoreError::Fenced { operation },
            Self::Unexpected(detail) => StoreError::Corrupt { operation, detail },
        }
    }
}

/// Whether the database failed, rather than what was asked of it.
fn is_unavailable(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(answer) = error {
        return answer.code().is_some_and(|code| sqlite_unavailable(&code) || postgres_unavailable(&code));
    }
    was_not_answered(error)
}

/// Whether the database did not answer.
const fn was_not_answered(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

/// Primary result codes (the low byte), <https://sqlite.org/rescode.html>: BUSY, LOCKED, NOMEM, READONLY,
/// IOERR, FULL, CANTOPEN, PROTOCOL.
fn sqlite_unavailable(code: &str) -> bool {
    code.len() < 5 && code.parse::<u32>().is_ok_and(|c| matches!(c & 0xff, 5..=8 | 10 | 13..=15))
}

/// Five characters, <https://www.postgresql.org/docs/current/errcodes-appendix.html>: connection, rolled
/// back, resources, operator intervention (time-outs too), system; read-only, a transaction that stood still for too long (idle in
/// it, or as a whole: this process was frozen, and the session is gone), lock not available.
fn postgres_unavailable(code: &str) -> bool {
    const CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];
    const CODES: [&str; 4] = ["25006", "25P03", "25P04", "55P03"];
    code.len() == 5 && (CLASSES.contains(&&code[..2]) || CODES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        // FULL, IOERR_FSYNC (10 | 4 << 8), READONLY; CONSTRAINT_UNIQUE and ERROR are not.
        assert!(["13", "1034", "8"].iter().all(|c| sqlite_unavailable(c)));
        assert!(!["2067", "1", "53300"].iter().any(|c| sqlite_unavailable(c)));
        assert!(
            ["08006", "53300", "57014", "57P05", "55P03", "40001", "25P03"]
                .iter()
                .all(|c| postgres_unavailable(c))
        );
        assert!(!["23505", "13", "42601", "25P02"].iter().any(|c| postgres_unavailable(c)));
    }
}
