//! What the agent, as the gate before its PBX, says of an attempt.

use serde::{Deserialize, Serialize};

/// The answer to `bar(attempt)`. Only [`BarAnswer::Barred`] proves that the Originate was not and will not be
/// sent, on any stream, even one of a replica that was frozen and wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarAnswer {
    /// Its Originate went through the gate: ask Asterisk what became of it.
    Admitted,
    /// It has not gone through, and never will.
    Barred,
    /// The agent cannot know: it was started after the attempt may have been sent.
    #[serde(other)]
    Unknown,
}
