//! Secrets at rest: sealed with a key that is not in the database, so that a copy of it signs nothing.
//!
//! ChaCha20-Poly1305 with a random nonce of 96 bits; a key seals far fewer than the 2^32 secrets for which that is safe
//! (NIST SP 800-38D section 8.3, the same bound). The organisation and the row are authenticated with it: a sealed
//! secret that is moved to another row does not open there.
//!
//! The keys are lines of a file, base64 of 32 bytes each; the first seals, all open. To change the key, put a new one
//! on the first line and start again: what the others sealed is sealed anew, and then their lines can go. Each
//! replica needs the same file.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use controlplane_store::{
    Store, StoreError,
    calls::Actor,
    webhooks::{Held, Holder, Secret, Secrets},
};
use data_encoding::{BASE64, HEXLOWER};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::clock::{Chance, Clock};

/// In the data directory, where no other is named.
const FILE: &str = "secrets.key";
/// What every sealed secret begins with: the format, and then the key's id.
const MAGIC: &[u8; 4] = b"rws1";
const KEY_ID_LEN: usize = 4;
/// A secret of a release that sealed none.
const BARE_LEN: usize = 32;
/// Keys of one file.
const KEYS_MAX: usize = 16;
/// Rows that are sealed anew in one write.
const AT_ONCE: u16 = 200;

/// Why secrets cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file.
    #[error("keys of secrets {file}: {source}", file = .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// What is in it.
    #[error("keys of secrets {file}: {rule}", file = .file.display())]
    Malformed {
        /// Which.
        file: PathBuf,
        /// What it should be.
        rule: &'static str,
    },
    /// It was sealed with a key that is not among them, or moved to another row.
    #[error("{holder} does not open with the keys of {file}: bring back the file that it was sealed with, or its line", file = .file.display())]
    Unopened {
        /// Which row.
        holder: String,
        /// Where the keys are.
        file: PathBuf,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A secret as it signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened(pub(crate) Vec<u8>);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

/// As [`Secrets`], opened.
#[derive(Debug, Clone)]
pub(crate) struct OpenedSecrets {
    pub(crate) current: Opened,
    pub(crate) previous: Option<(Opened, OffsetDateTime)>,
}

struct SealKey {
    id: [u8; KEY_ID_LEN],
    key: LessSafeKey,
}

/// The keys.
pub struct Seals {
    file: PathBuf,
    keys: Vec<SealKey>,
    chance: Chance,
}

impl Seals {
    /// What tells the keys from others, the one that seals first. Of a key of 256 random bits it tells nothing else.
    pub(crate) fn prints(&self) -> String {
        self.keys.iter().map(|key| HEXLOWER.encode(&key.id)).collect::<Vec<_>>().join(",")
    }
}

fn associated(holder: &Holder) -> Vec<u8> {
    match holder {
        Holder::Endpoint(org, id) => format!("webhook_endpoint\n{org}\n{id}"),
        Holder::Callback(org) => format!("callback_secret\n{org}"),
    }
    .into_bytes()
}

fn parse(file: &Path, text: &str) -> Result<Vec<SealKey>, SealError> {
    let malformed = |rule| SealError::Malformed { file: file.to_owned(), rule };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut keys = Vec::new();
    for line in lines {
        let rule = "a line is 32 bytes in base64, as `openssl rand -base64 32` gives";
        let bytes = BASE64.decode(line.as_bytes()).map_err(|_| malformed(rule))?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| malformed(rule))?;
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&Sha256::digest(&bytes)[..KEY_ID_LEN]);
        keys.push(SealKey { id, key: LessSafeKey::new(key) });
    }
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(malformed("it has 1 to 16 lines of keys"));
    }
    Ok(keys)
}

impl Seals {
    /// Reads the keys, or makes the first one where the file in the data directory is missing.
    ///
    /// # Errors
    /// They cannot be read, are not keys, or others than the owner can read them.
    pub fn open(named: Option<&Path>, data_dir: &Path, chance: Chance) -> Result<Self, SealError> {
        let file = named.map_or_else(|| data_dir.join(FILE), Path::to_owned);
        let failed = |source| SealError::File { file: file.clone(), source };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
                make(&file, &chance).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        if fs::metadata(&file).map_err(failed)?.permissions().mode() & 0o007 != 0 {
            let rule = "everybody on this machine can read it: chmod 600";
            return Err(SealError::Malformed { file, rule });
        }
        Ok(Self { keys: parse(&file, &text)?, file, chance })
    }

    fn seal_bytes(&self, holder: &Holder, plain: &[u8]) -> Option<Vec<u8>> {
        let SealKey { id, key } = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.chance.secret()[..NONCE_LEN]);
        let mut sealed = plain.to_vec();
        let aad = Aad::from(associated(holder));
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([&MAGIC[..], &id[..], &nonce[..], &sealed[..]].concat())
    }

    fn open_bytes(&self, holder: &Holder, bytes: &[u8]) -> Option<Vec<u8>> {
        if bytes.len() == BARE_LEN {
            return Some(bytes.to_vec());
        }
        let (id, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(KEY_ID_LEN)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN)?;
        let key = &self.keys.iter().find(|key| key.id == id)?.key;
        let mut opened = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.open_in_place(nonce, Aad::from(associated(holder)), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }

    fn unopened(&self, holder: &Holder) -> SealError {
        SealError::Unopened { holder: holder.to_string(), file: self.file.clone() }
    }

    /// A new secret for a row.
    ///
    /// # Errors
    /// It cannot be sealed.
    pub(crate) fn new_secret(&self, holder: &Holder) -> Result<Secret, SealError> {
        self.seal_bytes(holder, &self.chance.secret()).map(Secret).ok_or_else(|| self.unopened(holder))
    }

    /// A row's secrets, as they sign.
    ///
    /// # Errors
    /// They were sealed with another key, or for another row.
    pub(crate) fn opened(&self, holder: &Holder, secrets: &Secrets) -> Result<OpenedSecrets, SealError> {
        let open = |secret: &Secret| {
            self.open_bytes(holder, &secret.0).map(Opened).ok_or_else(|| self.unopened(holder))
        };
        let previous = match &secrets.previous {
            Some((secret, until)) => Some((open(secret)?, *until)),
            None => None,
        };
        Ok(OpenedSecrets { current: open(&secrets.current)?, previous })
    }

    fn is_current(&self, secret: &Secret) -> bool {
        let of_key =
            |key: &SealKey| secret.0.strip_prefix(MAGIC).is_some_and(|rest| rest.starts_with(&key.id));
        self.keys.first().is_some_and(of_key)
    }

    fn anew(&self, holder: &Holder, secret: &Secret) -> Result<Secret, SealError> {
        let plain = self.open_bytes(holder, &secret.0).ok_or_else(|| self.unopened(holder))?;
        self.seal_bytes(holder, &plain).map(Secret).ok_or_else(|| self.unopened(holder))
    }

    /// Seals with the first key whatever is bare or sealed with another one. Gives how many rows that were.
    ///
    /// # Errors
    /// A secret does not open, or the database failed.
    pub(crate) async fn reseal(&self, store: &Arc<dyn Store>, clock: &Clock) -> Result<u64, SealError> {
        let (mut after, mut resealed) = (String::new(), 0);
        loop {
            let page = store.held_secrets(&after, AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(resealed) };
            after = last.holder.row().to_owned();
            let mut changes = Vec::new();
            for held in page {
                let previous = held.previous.as_ref();
                if self.is_current(&held.current) && previous.is_none_or(|secret| self.is_current(secret)) {
                    continue;
                }
                let previous = previous.map(|secret| self.anew(&held.holder, secret)).transpose()?;
                let current = self.anew(&held.holder, &held.current)?;
                let new = Held { holder: held.holder.clone(), current, previous };
                changes.push((held, new));
            }
            if changes.is_empty() {
                continue;
            }
            let at = clock.now();
            let actor = Actor::default();
            resealed += store.reseal_secrets(changes, at, actor, self.chance.audit_id(at)).await?;
        }
    }
}

/// Makes the first key, for its owner alone.
fn make(file: &Path, chance: &Chance) -> io::Result<String> {
    let text = format!("{}\n", BASE64.encode(&chance.secret()));
    let mut made = File::options().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(text.as_bytes())?;
    made.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use controlplane_core::ids::OrgId;

    use super::*;

    fn holders() -> [Holder; 3] {
        let now = time::macros::datetime!(2026-11-24 10:00 UTC);
        let chance = Chance::seeded(1);
        let (org, id) = (chance.org_id(now), chance.endpoint_id(now));
        [
            Holder::Endpoint(org.clone(), id.clone()),
            Holder::Endpoint(OrgId::first(), id),
            Holder::Callback(org),
        ]
    }

    fn secrets(current: &Secret) -> Secrets {
        Secrets { current: current.clone(), previous: None }
    }

    #[test]
    fn a_secret_opens_in_its_row_alone_and_with_its_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let seals = Seals::open(None, folder.path(), Chance::seeded(2)).unwrap();
        let file = folder.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let [own, other_org, other_row] = holders();
        let sealed = seals.new_secret(&own).unwrap();
        let plain = seals.opened(&own, &secrets(&sealed)).unwrap().current;
        assert_eq!(plain.0.len(), 32);
        assert!(!sealed.0.windows(8).any(|part| plain.0.windows(8).any(|of| of == part)));
        for other in [&other_org, &other_row] {
            assert!(seals.opened(other, &secrets(&sealed)).is_err(), "{other}");
        }
        for n in 0..sealed.0.len() {
            let mut bent = sealed.clone();
            bent.0[n] ^= 1;
            assert!(seals.opened(&own, &secrets(&bent)).is_err(), "byte {n}");
            let cut = Secret(sealed.0[..n].to_vec());
            assert!(n == BARE_LEN || seals.opened(&own, &secrets(&cut)).is_err(), "{n} bytes");
        }
        // Read again, with a new key before it: it opens, and is to be sealed anew.
        let again = Seals::open(None, folder.path(), Chance::seeded(3)).unwrap();
        assert!(again.is_current(&sealed) && again.opened(&own, &secrets(&sealed)).is_ok());
        let former = fs::read_to_string(&file).unwrap();
        let next = BASE64.encode(&[7; 32]);
        fs::write(&file, format!("# changed\n{next}\n{former}")).unwrap();
        let both = Seals::open(None, folder.path(), Chance::seeded(4)).unwrap();
        assert!(!both.is_current(&sealed));
        let anew = both.anew(&own, &sealed).unwrap();
        assert!(both.is_current(&anew));
        assert_eq!(both.opened(&own, &secrets(&anew)).unwrap().current, plain);
        fs::write(&file, format!("{next}\n")).unwrap();
        let alone = Seals::open(None, folder.path(), Chance::seeded(5)).unwrap();
        assert!(alone.opened(&own, &secrets(&sealed)).is_err());
        assert_eq!(alone.opened(&own, &secrets(&anew)).unwrap().current, plain);
    }

    #[test]
    fn files_that_are_no_keys_or_for_everybody_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("k");
        assert!(
            Seals::open(Some(&file), folder.path(), Chance::seeded(1)).is_err(),
            "a named file is not made"
        );
        let key = BASE64.encode(&[7; 32]);
        for text in ["", "# nothing\n", "short\n", &key[..40], &format!("{key}\n").repeat(KEYS_MAX + 1)] {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            let refused =
                Seals::open(Some(&file), folder.path(), Chance::seeded(1)).err().unwrap().to_string();
            assert!(refused.contains("/k: ") && !refused.contains(&key), "{refused}");
        }
        fs::write(&file, &key).unwrap();
        Seals::open(Some(&file), folder.path(), Chance::seeded(1)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(Seals::open(Some(&file), folder.path(), Chance::seeded(1)).is_err());
    }
}
