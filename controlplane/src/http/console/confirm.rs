//! The page that asks before something is done that calls may feel, and says what will come of it.

use askama::Template;

use super::page::{Page, Shell};
use crate::http::problem::Problem;

/// Longest reason, in characters; the operators' API counts bytes.
const REASON_MAX: usize = 256;

/// What will come of it.
pub(super) struct Consequence {
    pub(super) text: String,
    /// It is worse than usual.
    pub(super) is_grave: bool,
}

impl Consequence {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_grave: false }
    }

    pub(super) fn grave(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_grave: true }
    }
}

/// The page. Its form goes to the page's own address.
#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct Confirm {
    pub(super) shell: Shell,
    /// The heading.
    pub(super) question: String,
    /// What the button says.
    pub(super) verb: &'static str,
    pub(super) consequences: Vec<Consequence>,
    /// What the form sends besides.
    pub(super) hidden: Vec<(&'static str, String)>,
    pub(super) asks_reason: bool,
    pub(super) is_dangerous: bool,
    /// Where one goes who leaves it.
    pub(super) back: String,
    /// The same on the command line.
    pub(super) command: Option<String>,
    reason_max: usize,
}

impl Confirm {
    /// A question with a reason, and no hidden fields.
    pub(super) fn new(shell: Shell, question: String, verb: &'static str, back: String) -> Self {
        Self {
            shell,
            question,
            verb,
            consequences: Vec::new(),
            hidden: Vec::new(),
            asks_reason: true,
            is_dangerous: true,
            back,
            command: None,
            reason_max: REASON_MAX,
        }
    }

    pub(super) fn page(self) -> Result<Page, Problem> {
        Page::of(&self)
    }
}
