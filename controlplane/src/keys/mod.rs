//! API keys: `rw_live_…` and `rw_test_…` for customers, `rw_op_…` for operators.
//!
//! A key is its kind, 256 random bits in base32, and a checksum of 30 bits, so that a mistyped key is told
//! from an unknown one without asking the database, and scanners for leaked secrets find it. Only its
//! SHA-256 is stored: 256 random bits need no slow hash.

mod lookup;
mod uses;

use controlplane_core::{
    access::Mode,
    ids::{KeyId, OrgId},
};
use controlplane_store::keys::Key;
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

pub use self::{lookup::Lookup, uses::Uses};
use crate::clock::Chance;

/// Characters of the random part: 256 bits in base32.
const RANDOM_LEN: usize = 52;
/// Characters of the checksum.
const CHECKSUM_LEN: usize = 6;
/// Characters after the kind that are kept, by which people recognise a key.
const PREFIX_LEN: usize = 6;

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A customer's, for `/v1`.
    Customer(Mode),
    /// An operator's, for `/admin/v1`.
    Operator,
}

impl KeyKind {
    const ALL: [Self; 3] = [Self::Customer(Mode::Live), Self::Customer(Mode::Test), Self::Operator];

    const fn word(self) -> &'static str {
        match self {
            Self::Customer(Mode::Live) => "rw_live_",
            Self::Customer(Mode::Test) => "rw_test_",
            Self::Operator => "rw_op_",
        }
    }

    const fn mode(self) -> Mode {
        match self {
            Self::Customer(mode) => mode,
            Self::Operator => Mode::Live,
        }
    }

    /// A stored key's.
    #[must_use]
    pub const fn of(key: &Key) -> Self {
        match key.org {
            Some(_) => Self::Customer(key.mode),
            None => Self::Operator,
        }
    }
}

/// A key to be made.
pub struct Wanted {
    /// Whose.
    pub kind: KeyKind,
    /// A customer's organisation.
    pub org: Option<OrgId>,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// The key that it takes the place of.
    pub rotated_from: Option<KeyId>,
}

/// A key that was just made: the secret is shown once and not kept.
pub struct NewKey {
    /// What is stored.
    pub key: Key,
    /// What its owner gets.
    pub secret: String,
}

fn checksum(text: &str) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(text.as_bytes())).to_lowercase().chars().take(CHECKSUM_LEN).collect()
}

/// The hash by which a key is found.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether a text can be a key at all.
#[must_use]
pub fn is_well_formed(secret: &str) -> bool {
    KeyKind::ALL.iter().any(|kind| {
        secret.strip_prefix(kind.word()).is_some_and(|body| {
            body.len() == RANDOM_LEN + CHECKSUM_LEN
                && body.is_ascii()
                && checksum(&secret[..secret.len() - CHECKSUM_LEN]) == body[RANDOM_LEN..]
        })
    })
}

/// Makes a key.
#[must_use]
pub fn make(wanted: Wanted, now: OffsetDateTime, chance: &Chance) -> NewKey {
    let Wanted { kind, org, name, scopes, expires_at, rotated_from } = wanted;
    let body = BASE32_NOPAD.encode(&chance.secret()).to_lowercase();
    let unsealed = format!("{}{body}", kind.word());
    let secret = format!("{unsealed}{}", checksum(&unsealed));
    let key = Key {
        id: chance.key_id(now),
        org,
        mode: kind.mode(),
        name,
        prefix: format!("{}{}", kind.word(), &body[..PREFIX_LEN]),
        secret_sha256: hash(&secret),
        scopes,
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
        rotated_from,
        suspended_at: None,
    };
    NewKey { key, secret }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_mistyped_key_is_noticed_and_the_stored_part_does_not_hold_the_secret() {
        let wanted = Wanted {
            kind: KeyKind::Customer(Mode::Live),
            org: None,
            name: "n".into(),
            scopes: vec![],
            expires_at: None,
            rotated_from: None,
        };
        let new = make(wanted, datetime!(2026-11-24 10:00 UTC), &Chance::seeded(7));
        assert!(is_well_formed(&new.secret));
        assert!(new.secret.starts_with("rw_live_") && new.secret.len() == 8 + 58);
        let mut wrong = new.secret.clone().into_bytes();
        wrong[12] = if wrong[12] == b'a' { b'b' } else { b'a' };
        assert!(!is_well_formed(std::str::from_utf8(&wrong).unwrap()));
        assert!(!is_well_formed("rw_live_"));
        assert!(!is_well_formed("ü".repeat(33).as_str()));
        assert!(new.key.prefix.len() < 16);
        assert_eq!(new.key.secret_sha256, hash(&new.secret));
    }
}
