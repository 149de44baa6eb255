//! Why the store could not do what was asked.

/// A failed operation, named, with its source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or its disk is full or not writable: worth another try later.
    #[error("{operation}: the database is not available")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
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
    /// The writer is another one by now: its lease has a newer epoch. Nothing was written.
    #[error("{operation}: this process no longer owns the row")]
    Fenced {
        /// What was being done.
        operation: &'static str,
    },
    /// The database cannot be opened or migrated at start: the text names the file or server and what to do.
    #[error("{0}")]
    Open(String),
}
