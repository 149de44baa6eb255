//! Where the doors listen, and what they believe of whoever comes.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Most connections that may be set: what the shipped unit's `LimitNOFILE` leaves beside agents and the database.
const CONNECTIONS_MAX: u32 = 20_000;

/// The customers' or the operators' listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// Address and port.
    pub listen: SocketAddr,
    /// Speaks TLS itself, with this certificate; absent: plain HTTP, for a proxy on this machine or in a trusted network.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Proxies that stand before it: what they say in `X-Forwarded-For` and `X-Forwarded-Proto` is believed, and of nobody else.
    #[serde(default)]
    pub trusted_proxies: Vec<IpNet>,
    /// Connections at a time. One address may hold a quarter of them; loopback and trusted proxies all.
    pub connections_max: u32,
}

impl Door {
    /// Plain HTTP there, for whoever is not behind a proxy.
    #[must_use]
    pub fn at(listen: SocketAddr) -> Self {
        Self { listen, tls: None, trusted_proxies: Vec::new(), connections_max: 4_096 }
    }

    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        if self.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
            return Err(format!(
                "{name}.trusted_proxies: a network of everybody lets everybody choose their address"
            ));
        }
        if !(8..=CONNECTIONS_MAX).contains(&self.connections_max) {
            return Err(format!("{name}.connections_max: 8 to {CONNECTIONS_MAX}"));
        }
        Ok(())
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }
}

/// A certificate in files, which are read again while it runs: a renewed one is shown within half a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate and what leads to its CA, PEM.
    pub certificate_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// What pages of other origins may do at the customers' door.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsSettings {
    /// Origins whose pages may ask, as `https://app.example`. Empty: none.
    pub origins: Vec<WebOrigin>,
}

/// An origin as browsers write it (RFC 6454 section 6.2): scheme, host and, where it is not the scheme's own, port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebOrigin(String);

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<WebOrigin> for String {
    fn from(origin: WebOrigin) -> Self {
        origin.0
    }
}

impl TryFrom<String> for WebOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = reqwest::Url::parse(&text).map_err(|error| format!("{text:?} is no origin: {error}"))?;
        let written = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "https" | "http") {
            return Err(format!("{text:?}: an origin begins with https:// or http://"));
        }
        if text.contains('*') {
            return Err(format!("{text:?}: name each origin whole"));
        }
        if written != text {
            return Err(format!("{text:?}: write it as browsers do, {written:?}"));
        }
        Ok(Self(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for right in ["https://app.example", "http://localhost:3000", "https://[::1]:8443"] {
            assert_eq!(WebOrigin::try_from(right.to_owned()).unwrap().to_string(), right);
        }
        for wrong in [
            "*",
            "null",
            "",
            "app.example",
            "https://app.example/",
            "https://app.example/x",
            "https://App.example",
            "https://app.example:443",
            "https://u@app.example",
            "ftp://app.example",
            "https://*.app.example",
        ] {
            assert!(WebOrigin::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_can_be_told_to_trust_everybody() {
        let door = |net: &str| Door {
            trusted_proxies: vec![net.parse().unwrap()],
            ..Door::at(([127, 0, 0, 1], 1).into())
        };
        assert!(door("10.0.0.0/8").check("api").is_ok());
        assert!(door("0.0.0.0/0").check("api").unwrap_err().contains("api.trusted_proxies"));
        assert!(door("::/0").check("api").is_err());
        assert!(
            Door { connections_max: 7, ..door("10.0.0.0/8") }
                .check("api")
                .unwrap_err()
                .contains("connections_max")
        );
    }
}
