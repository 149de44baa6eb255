//! All that the programs log in the tests, at their most talkative, against every secret that the tests have met.
//!
//! Tests may share a process, and what one of them has met no other may log. Of what is logged the words are kept, runs of letters,
//! digits and `_`: a secret is looked for by its longest word.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use serde_json::Value;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Everything of ours at `debug`, which is the most that an operator would turn on. What libraries say at that level is much, and
/// holds nothing that they were given: sqlx tells statements without their values.
const FILTER: &str =
    "debug,sqlx=info,hyper=info,hyper_util=info,h2=info,rustls=info,tungstenite=info,reqwest=info";
/// A shorter word is no secret, and may be there by chance.
const SECRET_MIN: usize = 8;
/// So much is kept of a line, in characters.
const LINE_MAX: usize = 400;

/// What was logged and must not be, by its words.
#[derive(Default)]
struct Heard {
    /// Each word with the first line that had it.
    words: HashMap<Box<str>, Arc<str>>,
    secrets: HashSet<Box<str>>,
}

static HEARD: Mutex<Option<Heard>> = Mutex::new(None);

/// Does something with what was heard so far.
fn with<T>(work: impl FnOnce(&mut Heard) -> T) -> T {
    let mut heard: MutexGuard<'_, Option<Heard>> = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
    work(heard.get_or_insert_default())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() >= SECRET_MIN)
}

/// A text that left the program, and is held to what is asked of logs.
pub fn hear(line: &str) {
    let mut kept: Option<Arc<str>> = None;
    with(|heard| {
        for word in words(line) {
            if !heard.words.contains_key(word) {
                let line = kept.get_or_insert_with(|| line.chars().take(LINE_MAX).collect::<String>().into());
                heard.words.insert(word.into(), Arc::clone(line));
            }
        }
    });
}

struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        hear(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Ear {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Looks at its end whether something was logged that must not be.
#[must_use]
pub struct Listening(());

impl Drop for Listening {
    fn drop(&mut self) {
        if !thread::panicking() {
            check();
        }
    }
}

/// Begins to listen.
pub fn listen() -> Listening {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(FILTER)).with_writer(Ear);
        subscriber.with_ansi(false).init();
    });
    Listening(())
}

/// A text that no log may hold. One that is too short to be a secret is passed over.
pub fn remember(secret: &str) {
    if let Some(longest) = words(secret).max_by_key(|word| word.len()) {
        with(|heard| heard.secrets.insert(longest.into()));
    }
}

/// What an answer shows of secrets.
pub fn remember_shown(answer: &Value) {
    if let Some(fields) = answer.as_object() {
        for (name, value) in fields {
            match value.as_str() {
                Some(text) if ["secret", "token"].contains(&name.as_str()) => remember(text),
                _ => remember_shown(value),
            }
        }
    }
    answer.as_array().into_iter().flatten().for_each(remember_shown);
}

/// Panics if a secret was logged: with the line, in which it is blotted out.
fn check() {
    let found = with(|heard| {
        let found = heard.secrets.iter().find_map(|secret| Some((secret, heard.words.get(secret)?)));
        found.map(|(secret, line)| line.replace(&**secret, "<SECRET>"))
    });
    if let Some(line) = found {
        panic!("a secret was logged: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_and_must_not_be_is_found_and_not_said_again() {
        let listening = listen();
        remember_shown(&serde_json::json!({"data": [{"secret": "rw_live_ABCDEFGH"}]}));
        tracing::debug!(name = "rw_live_ABCDEF", "its prefix may be");
        check();
        tracing::debug!(key = "rw_live_ABCDEFGH", "asked");
        let found = std::panic::catch_unwind(|| drop(listening)).unwrap_err();
        let found = found.downcast_ref::<String>().unwrap();
        assert!(found.contains("<SECRET>") && !found.contains("ABCDEFGH"), "{found}");
    }
}
