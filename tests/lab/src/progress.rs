//! Says on standard error what the lab is doing, so that nobody waits before a silent screen.
#![allow(clippy::print_stderr, reason = "the lab is a command-line program; progress goes to standard error")]

/// One line of progress.
pub(crate) fn say(line: &str) {
    eprintln!("lab: {line}");
}
