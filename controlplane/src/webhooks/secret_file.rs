//! A secret that an operator keeps in a file, as Standard Webhooks writes them: `whsec_` and base64.

use std::{io, path::Path};

use data_encoding::BASE64;

use super::sealing::{Opened, OpenedSecrets};

/// Shortest secret that signs, in bytes (Standard Webhooks: 24 to 64).
const LEN_MIN: usize = 24;
/// Longest.
const LEN_MAX: usize = 64;

/// Why a file has no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The system's error.
    #[error("{0}")]
    File(#[from] io::Error),
    /// What is in it.
    #[error(
        "one line: whsec_ and 24 to 64 bytes in base64, as `echo whsec_$(openssl rand -base64 32)` gives"
    )]
    Malformed,
}

/// The file's secret.
pub(crate) fn secret_of(file: &Path) -> Result<OpenedSecrets, SecretError> {
    let text = std::fs::read_to_string(file)?;
    let bytes = text.trim().strip_prefix("whsec_").and_then(|body| BASE64.decode(body.as_bytes()).ok());
    let bytes = bytes.filter(|bytes| (LEN_MIN..=LEN_MAX).contains(&bytes.len()));
    let current = Opened(bytes.ok_or(SecretError::Malformed)?);
    Ok(OpenedSecrets { current, previous: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_whsec_and_base64_of_some_length() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, is_one) in [
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", true),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false),
            ("whsec_AAAA", false),
            ("whsec_!", false),
            ("", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(secret_of(&file).is_ok(), is_one, "{text}");
        }
        assert!(secret_of(&folder.path().join("none")).unwrap_err().to_string().contains("No such file"));
    }
}
