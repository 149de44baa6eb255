//! From where a request comes, also through proxies.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::settings::Door;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Most proxies between; more is somebody's game.
const HOPS_MAX: usize = 16;

/// Who asks, as far as the network tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// Whether what it sends is encrypted until here, or until the trusted proxy before this.
    pub(crate) is_secure: bool,
}

impl Client {
    /// Of the connection's other end, and of what it says if it is a trusted proxy: the last address in `X-Forwarded-For`
    /// that is not a trusted proxy's, since each proxy appends what it saw and everything before that can be invented.
    pub(crate) fn of(door: &Door, peer: SocketAddr, by_tls: bool, headers: &HeaderMap) -> Self {
        let peer = peer.ip().to_canonical();
        if !door.trusts(peer) {
            return Self { ip: peer, is_secure: by_tls };
        }
        let said = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = said.flat_map(|value| value.split(',')).collect();
        let mut ip = peer;
        for hop in hops.iter().rev().take(HOPS_MAX) {
            let Some(before) = address(hop.trim()) else { break };
            ip = before;
            if !door.trusts(ip) {
                break;
            }
        }
        let schemes = headers.get_all(FORWARDED_PROTO).iter().map(|value| value.to_str().unwrap_or(""));
        let mut schemes = schemes.flat_map(|value| value.split(',')).peekable();
        let all_https =
            schemes.peek().is_some() && schemes.all(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
        Self { ip, is_secure: all_https || (by_tls && !headers.contains_key(FORWARDED_PROTO)) }
    }
}

/// Whether a request passed a proxy on its way, trusted or not.
pub(crate) fn came_by_proxy(headers: &HeaderMap) -> bool {
    let tells = |name: &HeaderName| {
        [header::FORWARDED, header::VIA].contains(name)
            || name == "x-real-ip"
            || name.as_str().starts_with("x-forwarded-")
    };
    headers.keys().any(tells)
}

/// An address, also with a port or in brackets, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, by_tls: bool, said: &[(&'static str, &str)]) -> (String, bool) {
        let door = Door {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
            ..crate::settings::Settings::default().api
        };
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, value.parse().unwrap());
        }
        let client = Client::of(&door, peer.parse().unwrap(), by_tls, &headers);
        (client.ip.to_string(), client.is_secure)
    }

    const FOR: &str = "x-forwarded-for";
    const PROTO: &str = "x-forwarded-proto";

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_what_it_saw() {
        let ip = |peer: &str, said: &[(&'static str, &str)]| client(peer, false, said).0;
        assert_eq!(ip("192.0.2.1:5", &[(FOR, "198.51.100.9")]), "192.0.2.1", "a stranger invents");
        assert_eq!(ip("10.0.0.1:5", &[]), "10.0.0.1");
        assert_eq!(ip("10.0.0.1:5", &[(FOR, "198.51.100.9")]), "198.51.100.9");
        assert_eq!(
            ip("10.0.0.1:5", &[(FOR, "1.1.1.1, 198.51.100.9")]),
            "198.51.100.9",
            "1.1.1.1 is the client's tale"
        );
        assert_eq!(ip("10.0.0.1:5", &[(FOR, "1.1.1.1"), (FOR, "198.51.100.9,10.0.0.7")]), "198.51.100.9");
        assert_eq!(ip("10.0.0.1:5", &[(FOR, "10.0.0.9, 10.0.0.7")]), "10.0.0.9", "all are proxies");
        assert_eq!(
            ip("10.0.0.1:5", &[(FOR, "198.51.100.9, nonsense")]),
            "10.0.0.1",
            "what it wrote cannot be read"
        );
        assert_eq!(ip("[::ffff:10.0.0.1]:5", &[(FOR, "::ffff:198.51.100.9")]), "198.51.100.9");
        assert_eq!(ip("[2001:db8::1]:5", &[(FOR, "[2001:db8:1::9]:443")]), "2001:db8:1::9");
        assert_eq!(ip("10.0.0.1:5", &[(FOR, "198.51.100.9:1234")]), "198.51.100.9");
        let long = vec!["10.1.1.1"; 2_000].join(",");
        assert_eq!(ip("10.0.0.1:5", &[(FOR, &format!("198.51.100.9,{long}"))]), "10.1.1.1", "bounded");
    }

    #[test]
    fn it_is_secure_by_tls_or_as_a_trusted_proxy_says() {
        let secure = |peer: &str, tls: bool, said: &[(&'static str, &str)]| client(peer, tls, said).1;
        assert!(secure("192.0.2.1:5", true, &[]));
        assert!(!secure("192.0.2.1:5", false, &[(PROTO, "https")]), "a stranger invents");
        assert!(secure("192.0.2.1:5", true, &[(PROTO, "http")]), "and takes nothing away");
        assert!(secure("10.0.0.1:5", false, &[(PROTO, "HTTPS")]));
        assert!(!secure("10.0.0.1:5", true, &[(PROTO, "http")]), "in the clear as far as the proxy");
        assert!(!secure("10.0.0.1:5", false, &[(PROTO, "https, http")]));
        assert!(!secure("10.0.0.1:5", false, &[]));
        assert!(secure("10.0.0.1:5", true, &[]));
    }
}
