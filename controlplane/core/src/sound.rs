//! What names a sound: the hash of its file.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de};

use crate::schema::text_schema;

/// The SHA-256 of a sound's file, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SoundHash([u8; 32]);

/// Not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sound's name is the 64 lower-case hexadecimal digits of its SHA-256")]
pub struct InvalidSoundHash;

impl SoundHash {
    /// Of these bytes of a hash.
    #[must_use]
    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SoundHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SoundHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SoundHash {
    type Err = InvalidSoundHash;

    fn from_str(text: &str) -> Result<Self, InvalidSoundHash> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidSoundHash)?;
        bytes.try_into().map(Self).map_err(|_| InvalidSoundHash)
    }
}

impl Serialize for SoundHash {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SoundHash {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

text_schema!(SoundHash, "^[0-9a-f]{64}$", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_64_lower_case_digits_and_never_a_path() {
        let text = "ab".repeat(32);
        let hash: SoundHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(serde_json::from_str::<SoundHash>(&format!("{text:?}")).unwrap(), hash);
        for bad in ["", "..", &"AB".repeat(32), &"ab".repeat(31), &"ab".repeat(33), &"/a".repeat(32)] {
            assert!(bad.parse::<SoundHash>().is_err(), "{bad}");
        }
    }
}
