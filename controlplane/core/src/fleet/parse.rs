//! Reads `fleet.toml`, keeping the line of every key for the errors.
//!
//! Three passes, each only when the one before found nothing: the file is TOML with the five tables; each
//! entry is read alone, so that one wrong entry does not hide the next; then [`super::check`].

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use toml::Spanned;

use super::{
    Document, Fleet, FleetError, Noun, Problem,
    check::{Contradiction, contradictions},
    error::did_you_mean,
};

type Entry = Spanned<BTreeMap<String, Spanned<toml::Value>>>;

/// The file with the place of each key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    #[serde(default)]
    carrier: Vec<Entry>,
    #[serde(default)]
    node: Vec<Entry>,
    #[serde(default)]
    trunk: Vec<Entry>,
    #[serde(default)]
    route: Vec<Entry>,
    #[serde(default)]
    management: Vec<Entry>,
}

pub(super) fn parse(text: &str) -> Result<Fleet, FleetError> {
    let layout: Layout = toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| line_at(text, span.start));
        FleetError::one(Problem { line, key: String::new(), message: said(e.message()) })
    })?;
    let mut problems = Vec::new();
    let document = Document {
        carrier: entries(text, Noun::Carrier, &layout.carrier, &mut problems),
        node: entries(text, Noun::Node, &layout.node, &mut problems),
        trunk: entries(text, Noun::Trunk, &layout.trunk, &mut problems),
        route: entries(text, Noun::Route, &layout.route, &mut problems),
        management: entries(text, Noun::Management, &layout.management, &mut problems),
    };
    FleetError::none_or(problems)?;
    let problems = contradictions(&document).into_iter().map(|c| {
        let line = layout.line_of(text, &c);
        c.into_problem(line)
    });
    FleetError::none_or(problems.collect())?;
    Ok(document.into())
}

/// Reads each entry of a table; what cannot be read becomes a problem.
fn entries<T: DeserializeOwned>(
    text: &str,
    noun: Noun,
    entries: &[Entry],
    problems: &mut Vec<Problem>,
) -> Vec<T> {
    let read = entries.iter().enumerate().filter_map(|(index, entry)| {
        let table = entry.get_ref().iter().map(|(k, v)| (k.clone(), v.get_ref().clone())).collect();
        serde_path_to_error::deserialize(toml::Value::Table(table))
            .map_err(|e| problems.push(problem(text, noun, index, entry, &e)))
            .ok()
    });
    read.collect()
}

fn problem(
    text: &str,
    noun: Noun,
    index: usize,
    entry: &Entry,
    error: &serde_path_to_error::Error<toml::de::Error>,
) -> Problem {
    let path = error.path().to_string();
    let key = path.split(['.', '[']).next().unwrap_or_default();
    let at = entry.get_ref().get(key).map_or(entry.span(), Spanned::span);
    let named = ["name", "prefix"].iter().find_map(|k| entry.get_ref().get(*k)?.get_ref().as_str());
    let of = named.map_or(String::new(), |n| format!("{noun} {n:?}: "));
    let path = if path == "." { String::new() } else { format!(".{path}") };
    let message = said(error.inner().message());
    Problem {
        line: Some(line_at(text, at.start)),
        key: format!("{noun}[{index}]{path}"),
        message: format!("{of}{message}"),
    }
}

/// A message of serde or TOML as one line, with the likely word when it is about an unknown one.
fn said(message: &str) -> String {
    let message = message.trim().replace('\n', ": ");
    // "unknown field `regoin`, expected one of `name`, `region`, …"
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = match quoted.next() {
        Some(word) if message.starts_with("unknown ") => did_you_mean(word, quoted),
        Some(_) | None => String::new(),
    };
    format!("{message}{hint}")
}

impl Layout {
    fn line_of(&self, text: &str, c: &Contradiction) -> Option<usize> {
        let table = match c.noun {
            Noun::Carrier => &self.carrier,
            Noun::Node => &self.node,
            Noun::Trunk => &self.trunk,
            Noun::Route => &self.route,
            Noun::Management => &self.management,
        };
        let entry = table.get(c.index)?;
        let span = entry.get_ref().get(c.key).map_or(entry.span(), Spanned::span);
        // The last: what stands twice is wrong the second time.
        let within = text.get(span.clone()).and_then(|t| t.rfind(&format!("\"{}\"", c.value)));
        Some(line_at(text, span.start + within.unwrap_or(0)))
    }
}

/// The line, from 1, of a byte.
fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}
