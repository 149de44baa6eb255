//! All that the programs log in a test, at their most talkative, against every secret that the test has met.
//!
//! A test runs in a process of its own, so that what is here is one test's.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
    thread,
};

use serde_json::Value;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Everything at `debug`, which is the most that an operator would turn on, statements of the database included.
const FILTER: &str = "debug";
/// A shorter text is no secret, and may be there by chance.
const SECRET_MIN: usize = 8;

static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
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
    if secret.len() < SECRET_MIN {
        return;
    }
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    if !secrets.iter().any(|known| known == secret) {
        secrets.push(secret.to_owned());
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
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said);
    for secret in SECRETS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(line) = said.lines().find(|line| line.contains(secret.as_str())) {
            panic!("a secret was logged: {}", line.replace(secret.as_str(), "<SECRET>"));
        }
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
