//! Logs hold no secret: every log of Ringward's programs is looked through when its lab or control plane ends.

use std::{fs, path::Path};

/// How a secret of ours begins (`docs/keys.md`, `node_agent_protocol::JoinToken`). Six characters of a key may be shown.
const BEGINNINGS: [&str; 5] = ["rw_live_", "rw_test_", "rw_op_", "whsec_", "rwj_"];
/// So many characters after the beginning are more than may be shown.
const SHOWN_MAX: usize = 10;
/// How a private key begins in PEM.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// The first secret in a text: one that looks like ours, or is one of those that are known.
fn secret_in<'t>(text: &'t str, known: &'t [String]) -> Option<&'t str> {
    let ours = BEGINNINGS.iter().find_map(|beginning| {
        text.match_indices(beginning).find_map(|(at, _)| {
            let rest = &text[at + beginning.len()..];
            let more =
                rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
            (more > SHOWN_MAX).then(|| &text[at..at + beginning.len() + more])
        })
    });
    let known = || {
        known.iter().find(|secret| !secret.is_empty() && text.contains(secret.as_str())).map(String::as_str)
    };
    ours.or_else(known).or_else(|| text.contains(PRIVATE_KEY).then_some(PRIVATE_KEY))
}

/// Fails if the log holds a secret, without saying it again. A log that is not there holds none; a test that fails
/// anyway is left alone.
#[allow(clippy::panic, reason = "it is called as a lab ends, where nobody takes an error")]
pub(crate) fn look_through(log: &Path, known: &[String]) {
    if std::thread::panicking() {
        return;
    }
    let Ok(text) = fs::read(log) else { return };
    for line in String::from_utf8_lossy(&text).lines() {
        if let Some(secret) = secret_in(line, known) {
            panic!("{} holds a secret: {}", log.display(), line.replace(secret, "<SECRET>"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_and_what_may_be_shown_is_not() {
        let known = ["f00dfeed".to_owned()];
        let found = |text: &str| secret_in(text, &known).map(str::to_owned);
        assert_eq!(found("key rw_live_ABCDEF was used by org_1"), None);
        let key = format!("rw_op_{}", "A2".repeat(29));
        assert_eq!(found(&format!("prefix rw_op_ABCDEF, bearer {key}, ok")), Some(key));
        assert_eq!(
            found("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())
        );
        assert!(found("ringward-agent join rwj_aebagbafaydqqcik").is_some());
        assert!(found("Secret: f00dfeed").is_some());
        assert!(found("-----BEGIN PRIVATE KEY-----").is_some());
        assert_eq!(found("rw_live_ whsec_ rwj_… keys and tokens"), None);
    }
}
