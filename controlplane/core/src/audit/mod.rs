//! The audit log's chain: what a row's hash covers, what is signed, and how a log is proved to be whole.
//!
//! Rows are numbered from 1 without gaps, and each hash covers the row and the hash before it: to change a row, all
//! that follow have to be written anew. Heads (a number and its hash) are signed and lie outside the database, so that
//! a log that was written anew, or cut, shows. What retention erases leaves a signed [`Checkpoint`], so that the rest is
//! proved as before.

mod canonical;
mod verify;

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

pub use self::verify::{FINDINGS_MAX, Finding, Place, Report, Verifier};

/// The chain that every row is in.
pub const CHAIN: &str = "main";

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first row is linked to.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}

/// Bytes as hexadecimal digits: keys and signatures.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hex {
    type Err = data_encoding::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HEXLOWER.decode(text.as_bytes()).map(Self)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// What a row tells: who did what to what, when, from where, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `aud_…`.
    pub id: String,
    /// Whose; `None` for the fleet's own.
    pub org: Option<String>,
    /// When, in µs since 1970.
    pub occurred_at_us: i64,
    /// `customer`, `operator`, `agent` or `system`.
    pub actor_type: String,
    /// A key's id, or a node's name.
    pub actor_id: Option<String>,
    /// The first characters of the key.
    pub key_prefix: Option<String>,
    /// `api_key`, `certificate` or `token`; `None` for the system, and for who proved nothing.
    pub auth_method: Option<String>,
    /// `call.create`, `key.revoke`, …
    pub action: String,
    /// What kind of thing it was done to.
    pub target_type: String,
    /// Which one.
    pub target_id: String,
    /// `success`, `denied` or `failure`.
    pub outcome: String,
    /// Why it was denied or failed.
    pub reason: Option<String>,
    /// Where from.
    pub ip: Option<String>,
    /// With what.
    pub user_agent: Option<String>,
    /// `req_…`.
    pub request_id: Option<String>,
    /// What changed, redacted.
    pub changes: Value,
}

/// A row's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// From 1, without gaps.
    pub seq: i64,
    /// The hash of the row before; [`Hash::ZERO`] for the first.
    pub prev_hash: Hash,
    /// This row's.
    pub hash: Hash,
}

impl Link {
    /// The place of a row behind `(seq, hash)`.
    #[must_use]
    pub fn after(seq: i64, prev_hash: Hash, record: &Record) -> Self {
        let seq = seq.saturating_add(1);
        Self { seq, prev_hash, hash: canonical::hash(seq, &prev_hash, record) }
    }
}

/// The end of the chain as it was once: signed, and kept outside of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last row's number.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
    /// When that was, in µs since 1970.
    pub at_us: i64,
}

/// Rows that retention erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The first of them.
    pub from_seq: i64,
    /// The last of them.
    pub to_seq: i64,
    /// What the first was linked to.
    pub prev_hash: Hash,
    /// The hash of the last: what the row after them is linked to.
    pub hash: Hash,
    /// What was older than this was erased, in µs since 1970.
    pub before_us: i64,
}

impl Checkpoint {
    /// One checkpoint for these rows and for those erased right before and after them; and the `from_seq` of those
    /// that it replaces.
    #[must_use]
    pub fn joined(mut self, others: &[Self]) -> (Self, Vec<i64>) {
        let mut replaced = Vec::new();
        while let Some(other) = others.iter().find(|other| {
            !replaced.contains(&other.from_seq)
                && (other.to_seq.saturating_add(1) == self.from_seq
                    || self.to_seq.saturating_add(1) == other.from_seq)
        }) {
            if other.from_seq < self.from_seq {
                (self.from_seq, self.prev_hash) = (other.from_seq, other.prev_hash);
            } else {
                (self.to_seq, self.hash) = (other.to_seq, other.hash);
            }
            self.before_us = self.before_us.max(other.before_us);
            replaced.push(other.from_seq);
        }
        (self, replaced)
    }
}

/// What is signed of heads and checkpoints: a text of their own, that nothing else is mistaken for.
pub trait Statement {
    /// The bytes under the signature.
    fn signed_bytes(&self) -> Vec<u8>;
}

impl Statement for Head {
    fn signed_bytes(&self) -> Vec<u8> {
        format!("ringward audit head 1\n{CHAIN}\n{}\n{}\n{}\n", self.seq, self.hash, self.at_us).into_bytes()
    }
}

impl Statement for Checkpoint {
    fn signed_bytes(&self) -> Vec<u8> {
        let Self { from_seq, to_seq, prev_hash, hash, before_us } = self;
        format!(
            "ringward audit checkpoint 1\n{CHAIN}\n{from_seq}\n{to_seq}\n{prev_hash}\n{hash}\n{before_us}\n"
        )
        .into_bytes()
    }
}

/// A statement with its Ed25519 signature (RFC 8032).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    /// What is said.
    #[serde(flatten)]
    pub statement: T,
    /// The public key, 32 bytes.
    pub key: Hex,
    /// 64 bytes.
    pub signature: Hex,
}

/// One line of an export, and of the file of heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Line {
    /// The first line: whether it is the whole log, of what is not yet out of sight.
    AuditExport {
        /// Rows are left out by a filter: the chain cannot be proved.
        filtered: bool,
        /// Older rows are out of sight, in µs since 1970.
        after_us: i64,
    },
    /// Rows that are not here: erased, or out of sight.
    AuditCheckpoint(Signed<Checkpoint>),
    /// A row.
    AuditRow {
        /// Its place.
        #[serde(flatten)]
        link: Link,
        /// What it tells.
        #[serde(flatten)]
        record: Box<Record>,
    },
    /// The last line: without it, the export is torn off.
    AuditEnd {
        /// Rows before it.
        rows: u64,
    },
    /// A head.
    AuditHead(Signed<Head>),
}
