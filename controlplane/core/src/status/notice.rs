//! What an operator says to everybody: something is wrong, or will be, and how it goes on.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::ids::NoticeId;

/// Longest title, in characters.
pub const TITLE_MAX: usize = 120;
/// Longest text, in characters.
pub const TEXT_MAX: usize = 2_000;
/// Most texts of one notice.
pub const UPDATES_MAX: usize = 50;

/// What was said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// In the operator's words.
    pub text: String,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its id.
    pub id: NoticeId,
    /// In one line.
    pub title: String,
    /// What was said of it, oldest first.
    pub updates: Vec<Update>,
    /// Since when, which may lie ahead.
    pub started_at: OffsetDateTime,
    /// When it was over.
    pub ended_at: Option<OffsetDateTime>,
}

/// Why nothing can be said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: 1 to {most} characters, no control characters")]
pub struct Unsayable {
    /// `title` or `text`.
    pub field: &'static str,
    most: usize,
}

/// A title in one line.
///
/// # Errors
/// Empty, too long, or with control characters.
pub fn title(text: &str) -> Result<String, Unsayable> {
    said(text, "title", TITLE_MAX, |_| false)
}

/// A text, which may have lines.
///
/// # Errors
/// Empty, too long, or with control characters other than the ends of lines.
pub fn text(text: &str) -> Result<String, Unsayable> {
    // Forms send ends of lines as CR LF.
    said(&text.replace("\r\n", "\n"), "text", TEXT_MAX, |c| c == '\n')
}

fn said(
    text: &str,
    field: &'static str,
    most: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<String, Unsayable> {
    let text = text.trim();
    let is_odd = |c: char| c.is_control() && !allowed(c);
    if text.is_empty() || text.chars().count() > most || text.chars().any(is_odd) {
        return Err(Unsayable { field, most });
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said() {
        assert_eq!(title("  Calls to Poland are slow ").unwrap(), "Calls to Poland are slow");
        assert_eq!(text("We know.\r\nMore soon.").unwrap(), "We know.\nMore soon.");
        for wrong in ["", "  ", "a\u{0}b", "two\nlines"] {
            assert_eq!(title(wrong).unwrap_err().field, "title");
        }
        assert!(title(&"ü".repeat(TITLE_MAX)).is_ok() && title(&"ü".repeat(TITLE_MAX + 1)).is_err());
        assert!(text(&"x".repeat(TEXT_MAX + 1)).is_err() && text("bell \u{7}").is_err());
    }
}
