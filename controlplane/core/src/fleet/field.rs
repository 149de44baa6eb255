//! Values of single fields in `fleet.toml`, parsed once into types that cannot be wrong.

use std::{
    borrow::Borrow,
    fmt,
    path::{Component, PathBuf},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest `number_prefix`, in digits: carrier selection codes have up to 6, an outside line's 0 or 9 added.
const NUMBER_PREFIX_MAX: usize = 8;
/// Longest country code (ITU-T E.164).
const COUNTRY_CODE_MAX: usize = 3;
/// Longest route prefix: the longest number.
const ROUTE_PREFIX_MAX: usize = 15;
/// Longest AMI user, and longest host name (RFC 1035).
const USERNAME_MAX: usize = 64;
const HOST_MAX: usize = 253;
/// Widest network that is believed to be a carrier's or an office's. Such networks pass the firewall before its bans,
/// so `0.0.0.0/0` here would let everybody in.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;

/// Why a text is no value for its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidField(&'static str);

fn is_digits(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_country_code(text: &str) -> bool {
    is_digits(text, COUNTRY_CODE_MAX) && !text.starts_with('0')
}

fn is_number_prefix(text: &str) -> bool {
    is_digits(text, NUMBER_PREFIX_MAX)
}

fn is_route_prefix(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|d| is_digits(d, ROUTE_PREFIX_MAX) && !d.starts_with('0'))
}

/// Bytes that can stand in an AMI header's value: no control characters, so no line can be added.
fn is_username(text: &str) -> bool {
    (1..=USERNAME_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

macro_rules! text_field {
    ($(#[$doc:meta])* $name:ident, $check:ident, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as it is written in the file.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidField;

            fn from_str(text: &str) -> Result<Self, InvalidField> {
                if $check(text) { Ok(Self(text.into())) } else { Err(InvalidField($rule)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_field!(
    /// Digits that go before every number a trunk dials; empty for none.
    NumberPrefix, is_number_prefix, "write up to 8 digits, as in \"0\""
);
text_field!(
    /// The country whose numbers a trunk dials in their national form; empty where none is.
    CountryCode, is_country_code, "write up to 3 digits without a plus or zeros before them, as in \"48\""
);
text_field!(
    /// What the numbers of a route begin with: `+` for all of them.
    RoutePrefix, is_route_prefix, "write + or + and up to 15 digits, as in \"+48\""
);
text_field!(
    /// A user in a node's `manager.conf`.
    AmiUsername, is_username, "write 1 to 64 visible ASCII characters"
);

impl Default for NumberPrefix {
    fn default() -> Self {
        Self("".into())
    }
}

impl Default for CountryCode {
    fn default() -> Self {
        Self("".into())
    }
}

/// Ordered, compared and hashed as its text is.
impl Borrow<str> for RoutePrefix {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Where a node's AMI listens: `host:port`, with brackets around an IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AmiAddress {
    host: Box<str>,
    port: u16,
}

impl AmiAddress {
    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for AmiAddress {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        const RULE: InvalidField =
            InvalidField("write host:port, as in 192.0.2.11:5038 or [2001:db8::1]:5038");
        let (host, port) = text.rsplit_once(':').ok_or(RULE)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or(RULE)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok().then_some(v6),
            None => {
                let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
                ((1..=HOST_MAX).contains(&host.len()) && host.bytes().all(ok)).then_some(host)
            }
        };
        Ok(Self { host: host.ok_or(RULE)?.into(), port })
    }
}

impl fmt::Display for AmiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for AmiAddress {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AmiAddress {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// An integer from `MIN` to `MAX`.
pub(super) fn bounded<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    d: D,
) -> Result<u32, D::Error> {
    let value = i64::deserialize(d)?;
    u32::try_from(value)
        .ok()
        .filter(|v| (MIN..=MAX).contains(v))
        .ok_or_else(|| de::Error::custom(format!("{value} is out of bounds: write {MIN} to {MAX}")))
}

/// As [`bounded`], for a field that may be absent.
pub(super) fn bounded_option<'de, D: Deserializer<'de>, const MIN: u32, const MAX: u32>(
    d: D,
) -> Result<Option<u32>, D::Error> {
    bounded::<D, MIN, MAX>(d).map(Some)
}

/// An absolute path without `..`: what else it is, the file system knows.
pub(super) fn absolute_folder<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(d)?;
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && is_plain {
        Ok(Some(path))
    } else {
        Err(de::Error::custom("must be an absolute path without `..`"))
    }
}

/// The networks of a carrier, or of a management entry.
pub(super) fn networks<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(d)?.iter().map(|t| network(t).map_err(de::Error::custom)).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().map_err(|_| match text.parse::<std::net::IpAddr>() {
        Ok(address) => format!("{text:?} is an address: write {}", IpNet::from(address)),
        Err(_) => format!("{text:?} is not a network: write as in 192.0.2.0/24 or 2001:db8::/32"),
    })?;
    let widest = if net.addr().is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
    if net.prefix_len() < widest {
        return Err(format!("{net} is too wide for a network that is never banned: at least /{widest}"));
    }
    if net.trunc() != net {
        let alone = IpNet::from(net.addr());
        return Err(format!("{net} has bits set behind its prefix: write {} or {alone}", net.trunc()));
    }
    Ok(net)
}
