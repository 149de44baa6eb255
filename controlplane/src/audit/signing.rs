//! The key that heads and checkpoints are signed with: Ed25519, made at the first start, kept in the data directory.
//!
//! `audit-key.der` (PKCS#8, mode 0600) is the secret; `audit-key.pub` its public half in hexadecimal digits, for
//! whoever proves an export elsewhere. Who has the database alone can sign nothing.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use controlplane_core::audit::{Hex, Signed, Statement};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

const FILE: &str = "audit-key.der";
const PUBLIC_FILE: &str = "audit-key.pub";

/// There is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("the audit log's key {path}: {source}. The data directory must be writable by this user")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "the audit log's key {0} is no Ed25519 key: restore it from a backup, or move it away for a new one \
         (docs/runbooks/audit.md)"
    )]
    Invalid(PathBuf),
    /// The system makes none.
    #[error("the audit log's key: the system gives no randomness")]
    Random,
}

/// Signs.
pub(super) struct Signer {
    pair: Ed25519KeyPair,
    /// For what else needs a secret that outlives the process.
    der: Vec<u8>,
}

impl Signer {
    /// Reads the key, or makes it.
    pub(super) fn open(data_dir: &Path) -> Result<Self, KeyError> {
        let path = data_dir.join(FILE);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyError::File { path, source }
        };
        let der = match fs::read(&path) {
            Ok(der) => der,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
                let der = made.map_err(|_| KeyError::Random)?.as_ref().to_vec();
                write(&path, &der, 0o600).map_err(failed(&path))?;
                der
            }
            Err(source) => return Err(KeyError::File { path, source }),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| KeyError::Invalid(path))?;
        let signer = Self { pair, der };
        let public = data_dir.join(PUBLIC_FILE);
        write(&public, format!("{}\n", signer.public()).as_bytes(), 0o644).map_err(failed(&public))?;
        Ok(signer)
    }

    pub(super) fn public(&self) -> Hex {
        Hex(self.pair.public_key().as_ref().to_vec())
    }

    /// The secret's bytes.
    pub(super) fn secret(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn sign<T: Statement>(&self, statement: T) -> Signed<T> {
        let signature = Hex(self.pair.sign(&statement.signed_bytes()).as_ref().to_vec());
        Signed { statement, key: self.public(), signature }
    }

    /// Whether this key has signed it.
    pub(super) fn is_own<T: Statement>(&self, signed: &Signed<T>) -> bool {
        signed.key == self.public()
            && is_signed(&signed.key, &signed.statement.signed_bytes(), &signed.signature)
    }
}

/// Whether a key has signed these bytes.
#[must_use]
pub fn is_signed(key: &Hex, bytes: &[u8], signature: &Hex) -> bool {
    UnparsedPublicKey::new(&ED25519, &key.0).verify(bytes, &signature.0).is_ok()
}

/// Beside it and then in its place: nobody reads half a file, and its mode is right from the start.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use controlplane_core::audit::{Hash, Head};

    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_and_signs() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(folder.path()).unwrap();
        let again = Signer::open(folder.path()).unwrap();
        assert_eq!(signer.public(), again.public());
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut signed = signer.sign(Head { seq: 1, hash: Hash::ZERO, at_us: 2 });
        assert!(again.is_own(&signed));
        signed.statement.seq = 2;
        assert!(!again.is_own(&signed));
        fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert!(matches!(Signer::open(folder.path()), Err(KeyError::Invalid(_))));
    }
}
