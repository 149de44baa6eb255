//! The join token: what an operator carries from the control plane to a node.
//!
//! `rwj_` and lower-case base32 of: version, SHA-256 of the CA's certificate, secret, node, addresses, and four
//! bytes of checksum, so that a token cut short in copying is told from a wrong one. Letters and digits only:
//! one click selects it whole.

use std::{fmt, str::FromStr};

use controlplane_core::names::NodeName;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "rwj_";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
/// Most addresses in a token.
const URLS_MAX: usize = 8;
/// Longest address.
const URL_MAX: usize = 200;
/// The door's port where an address names none.
const PORT: u16 = 8443;

/// The secret of a token, 256 random bits. Shown by nothing but [`TokenSecret::expose`] and serialization.
#[derive(Clone, Eq)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// From random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the control plane keeps of it.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

impl Serialize for TokenSecret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for TokenSecret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wrong = || de::Error::custom("64 hex digits");
        let text = String::deserialize(d)?;
        if text.len() != 64 {
            return Err(wrong());
        }
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

/// Where a replica's agents' door is: `https://HOST[:PORT]`, port 8443 if none is named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlaneUrl {
    host: String,
    port: u16,
}

impl PlaneUrl {
    /// Host name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in a URL or for a resolver.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for PlaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for PlaneUrl {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let wrong = || InvalidToken::Url(text.chars().take(URL_MAX).collect());
        if text.len() > URL_MAX {
            return Err(wrong());
        }
        let authority = text.strip_prefix("https://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (host, port.strip_prefix(':'))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b':';
        if host.is_empty() || !host.bytes().all(named) {
            return Err(wrong());
        }
        let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl Serialize for PlaneUrl {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlaneUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Something else, or a part of one.
    #[error("not a whole join token: copy all of `rwj_…` as `ringward node token NAME` printed it")]
    Damaged,
    /// Made by a newer control plane.
    #[error("a join token of version {0}: this agent is older than the control plane, update it")]
    Newer(u8),
    /// An address that none can be.
    #[error("{0:?} is not an address of a control plane: https://HOST:PORT")]
    Url(String),
    /// No address, or too many.
    #[error("a join token carries 1 to {URLS_MAX} addresses")]
    Urls,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Every replica's door.
    pub urls: Vec<PlaneUrl>,
    /// SHA-256 of the CA's certificate (DER): whoever answers must show a chain that ends in it.
    pub ca_sha256: [u8; 32],
    /// Single use.
    pub secret: TokenSecret,
    /// Whose certificate it gets.
    pub node: NodeName,
}

impl JoinToken {
    /// The text form. Whoever has it can join as this node, once.
    ///
    /// # Errors
    /// [`InvalidToken::Urls`] if there are none or too many.
    pub fn to_text(&self) -> Result<String, InvalidToken> {
        if !(1..=URLS_MAX).contains(&self.urls.len()) {
            return Err(InvalidToken::Urls);
        }
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.ca_sha256);
        bytes.extend_from_slice(self.secret.expose());
        let node = self.node.to_string();
        for text in std::iter::once(node).chain(self.urls.iter().map(PlaneUrl::to_string)) {
            bytes.push(u8::try_from(text.len()).map_err(|_| InvalidToken::Url(text.clone()))?);
            bytes.extend_from_slice(text.as_bytes());
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_LEN]);
        Ok(format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase()))
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken::Damaged)?;
        let bytes = BASE32_NOPAD.decode(body.to_uppercase().as_bytes()).map_err(|_| InvalidToken::Damaged)?;
        let at = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(InvalidToken::Damaged)?;
        let (content, checksum) = bytes.split_at(at);
        if Sha256::digest(content)[..CHECKSUM_LEN] != *checksum {
            return Err(InvalidToken::Damaged);
        }
        let (version, rest) = content.split_first().ok_or(InvalidToken::Damaged)?;
        if *version != VERSION {
            return Err(InvalidToken::Newer(*version));
        }
        let (ca_sha256, rest) = rest.split_first_chunk::<32>().ok_or(InvalidToken::Damaged)?;
        let (secret, mut rest) = rest.split_first_chunk::<32>().ok_or(InvalidToken::Damaged)?;
        let mut texts = Vec::new();
        while let Some((len, after)) = rest.split_first() {
            let (text, after) = after.split_at_checked(usize::from(*len)).ok_or(InvalidToken::Damaged)?;
            texts.push(std::str::from_utf8(text).map_err(|_| InvalidToken::Damaged)?);
            rest = after;
        }
        let (node, urls) = texts.split_first().ok_or(InvalidToken::Damaged)?;
        let node = node.parse().map_err(|_| InvalidToken::Damaged)?;
        let urls = urls.iter().map(|url| url.parse()).collect::<Result<Vec<_>, _>>()?;
        if !(1..=URLS_MAX).contains(&urls.len()) {
            return Err(InvalidToken::Urls);
        }
        Ok(Self { urls, ca_sha256: *ca_sha256, secret: TokenSecret::new(*secret), node })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            urls: vec!["https://192.0.2.1:8443".parse().unwrap(), "https://[2001:db8::1]".parse().unwrap()],
            ca_sha256: [7; 32],
            secret: TokenSecret::new([9; 32]),
            node: "waw-1".parse().unwrap(),
        }
    }

    #[test]
    fn a_token_survives_its_text_and_shows_no_secret() {
        let text = token().to_text().unwrap();
        assert!(text.starts_with("rwj_") && text[4..].bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
        assert_eq!(text.parse::<JoinToken>().unwrap(), token());
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token());
        assert!(format!("{:?}", token()).contains("TokenSecret(…)"));
        assert_eq!(token().urls[1].to_string(), "https://[2001:db8::1]:8443");
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        let bad = [
            "http://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a:x",
            "https://a b",
            "https://[a]",
        ];
        for bad in bad {
            assert!(bad.parse::<PlaneUrl>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_token_is_told(at in 0_usize..200, by in 1_u8..31) {
            let text = token().to_text().unwrap();
            let mut bytes = text.clone().into_bytes();
            let at = 4 + at % (bytes.len() - 4);
            let letters = b"abcdefghijklmnopqrstuvwxyz234567";
            let old = letters.iter().position(|b| *b == bytes[at]).unwrap();
            bytes[at] = letters[(old + usize::from(by)) % 32];
            let damaged = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(damaged.parse::<JoinToken>(), Err(InvalidToken::Damaged));
            prop_assert_eq!(text[..at].parse::<JoinToken>(), Err(InvalidToken::Damaged));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text.parse::<JoinToken>();
            let mut bytes = bytes;
            let checksum = Sha256::digest(&bytes);
            bytes.extend_from_slice(&checksum[..4]);
            let _ = format!("rwj_{}", BASE32_NOPAD.encode(&bytes)).parse::<JoinToken>();
        }
    }
}
