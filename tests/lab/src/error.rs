//! What can go wrong in the lab, each naming the thing and what to do about it.
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A command-line tool ended with an error.
    #[error("{what}: `{command}` ended with {status}: {output}")]
    Command {
        /// What the lab was doing.
        what: String,
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A command-line tool could not be started.
    #[error("{what}: cannot start `{program}`: {source}")]
    Start {
        /// What the lab was doing.
        what: String,
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// `read`, `write`, `create`, …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something did not become true in time.
    #[error("waited {} ms for {what}; {hint}", waited.as_millis())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// Where to look.
        hint: String,
    },
    /// A name that is no host of this lab.
    #[error("no {kind} named `{name}` in this lab; there are: {known}")]
    NoSuch {
        /// `PBX`, `carrier`, …
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// A plan that cannot be built.
    #[error("this plan cannot be built: {0}")]
    Plan(String),
    /// A configuration template that does not render.
    #[error("template {name}: {source}")]
    Template {
        /// Which template.
        name: &'static str,
        /// Why.
        source: minijinja::Error,
    },
    /// No lab is running.
    #[error("no lab is running; start one with `cargo lab up`")]
    NotRunning,
    /// The machine cannot hold a lab.
    #[error("{0}")]
    Machine(String),
}

impl LabError {
    /// Wraps an I/O error on `path`.
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| LabError::File { doing, path, source }
    }
}
