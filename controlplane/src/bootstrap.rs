//! The proof that whoever asks for an operator key without having one holds the data directory.
//!
//! An address proves nothing: behind a reverse proxy on the same host every request comes from loopback. So
//! there is a token in a file of the data directory, readable by its owner alone. Each is for one use; the
//! file is never without one, so that a lost key is never the end.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use data_encoding::BASE32_NOPAD;
use tokio::sync::Mutex;

use crate::{clock::Chance, keys};

/// In the data directory.
const FILE: &str = "bootstrap.token";
/// A shorter text is no token that was written here.
const LEN_MIN: usize = 52;

/// The token's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("bootstrap token {file}: {source}", file = .file.display())]
pub struct TokenError {
    file: PathBuf,
    source: io::Error,
}

/// The token of now.
pub struct Bootstrap {
    file: PathBuf,
    chance: Chance,
    /// One use at a time.
    turn: Mutex<()>,
}

/// Reads the token in force.
///
/// # Errors
/// There is none, or it is not for this user to read.
pub fn read(data_dir: &Path) -> Result<String, TokenError> {
    let file = data_dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(TokenError { file, source }),
    }
}

impl Bootstrap {
    /// Writes a new token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(data_dir: &Path, chance: Chance) -> Result<Self, TokenError> {
        let bootstrap = Self { file: data_dir.join(FILE), chance, turn: Mutex::new(()) };
        bootstrap.renew()?;
        Ok(bootstrap)
    }

    /// Takes a token, once: afterwards another one is in force.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub async fn redeem(&self, token: &str) -> Result<bool, TokenError> {
        let _turn = self.turn.lock().await;
        let in_force = fs::read_to_string(&self.file).map_err(|source| self.failed(source))?;
        let in_force = in_force.trim();
        // Of hashes, so that the time it takes tells nothing of the token.
        let right = in_force.len() >= LEN_MIN && keys::hash(in_force) == keys::hash(token);
        if right {
            self.renew()?;
        }
        Ok(right)
    }

    fn renew(&self) -> Result<(), TokenError> {
        let token = BASE32_NOPAD.encode(&self.chance.secret()).to_lowercase();
        self.write(&token).map_err(|source| self.failed(source))
    }

    /// Beside it and then in its place: nobody reads half a token, and its mode is right from the start.
    fn write(&self, token: &str) -> io::Result<()> {
        let beside = self.file.with_extension("token.new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)
    }

    fn failed(&self, source: io::Error) -> TokenError {
        TokenError { file: self.file.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_token_is_for_one_use_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let bootstrap = Bootstrap::open(folder.path(), Chance::seeded(7)).unwrap();
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = read(folder.path()).unwrap();
        for wrong in ["", " ", &first[1..], &first.to_uppercase()] {
            assert!(!bootstrap.redeem(wrong).await.unwrap(), "{wrong:?}");
        }
        assert_eq!(read(folder.path()).unwrap(), first, "a wrong one spends nothing");
        assert!(bootstrap.redeem(&first).await.unwrap());
        assert!(!bootstrap.redeem(&first).await.unwrap());
        assert!(bootstrap.redeem(&read(folder.path()).unwrap()).await.unwrap());
        // An empty file lets nobody in.
        fs::write(folder.path().join(FILE), "\n").unwrap();
        assert!(!bootstrap.redeem("").await.unwrap());
    }
}
