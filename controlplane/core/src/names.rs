//! Names that operators give: nodes, trunks, carriers, regions, management networks and PJSIP endpoints.
//!
//! A name is the identity of what it names: a renamed trunk is another trunk, with health and history of
//! its own. All go into metrics as label values and into AMI as parts of a channel's name, so the
//! characters are few.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};

use crate::schema::text_schema;

/// Longest name of a node, trunk, carrier or region: a DNS label's.
const NAME_MAX: usize = 63;
/// Longest endpoint: Asterisk cuts a channel's name at 80 characters.
const ENDPOINT_MAX: usize = 60;
/// What `is_slug` lets pass, as a pattern.
const SLUG: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// What `is_endpoint` lets pass, as a pattern.
const ENDPOINT: &str = "^[A-Za-z0-9._-]{1,60}$";

/// Why a text is not a name of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?}: {rule}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

/// Which of these names somebody may have meant by `word`; `None` where none is close to it.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, names have little but their length in common (Jaro-Winkler, 0 to 1).
    const CLOSE: f64 = 0.8;
    let scored = candidates.into_iter().map(|name| (strsim::jaro_winkler(word, name), name));
    let close = scored.filter(|(score, _)| *score >= CLOSE);
    close.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, name)| name)
}

fn is_slug(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(ok)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_endpoint(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    (1..=ENDPOINT_MAX).contains(&text.len()) && text.bytes().all(ok)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident, $rule:literal, $pattern:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as it is written everywhere.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if $check(text) {
                    Ok(Self(text.into()))
                } else {
                    // Bounded, since this goes into errors and logs.
                    let text = text.chars().take(80).collect();
                    Err(InvalidName { kind: $kind, text, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        text_schema!($name, $pattern, concat!($kind, "-1"));
    };
}

name!(
    /// A PBX host.
    NodeName, "node", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// One carrier account as configured on one node.
    TrunkName, "trunk", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// A SIP provider.
    CarrierName, "carrier", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// A place whose nodes tend to fail together.
    RegionName, "region", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// A place from where operators reach nodes.
    ManagementName, "management", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// A customer organisation, as commands call it.
    OrgSlug, "organisation", is_slug, "1 to 63 of a-z, 0-9 and -, not beginning or ending with -", SLUG
);
name!(
    /// A PJSIP endpoint on a node.
    EndpointName, "endpoint", is_endpoint, "1 to 60 of letters, digits, -, _ and .", ENDPOINT
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_mean_something_to_asterisk_are_refused() {
        for bad in ["", "a b", "a/b", "a@b", "a,b", "a)b", "a&b", "a\r\nb", "a\0b", "a;b", "é", "${X}"] {
            assert!(bad.parse::<EndpointName>().is_err(), "{bad:?}");
            assert!(bad.parse::<TrunkName>().is_err(), "{bad:?}");
        }
        assert!("acme.eu_1-a".parse::<EndpointName>().is_ok());
        assert!("acme-waw-1".parse::<TrunkName>().is_ok());
        assert!("-acme".parse::<TrunkName>().is_err());
        assert!("Acme".parse::<TrunkName>().is_err());
    }

    #[test]
    fn an_error_names_the_kind_and_the_rule_and_is_bounded() {
        let error = "x".repeat(5_000).parse::<NodeName>().unwrap_err().to_string();
        assert!(error.starts_with("node ") && error.contains("1 to 63") && error.len() < 300, "{error}");
    }
}
