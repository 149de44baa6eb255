//! Where events may be sent: only to the public Internet, unless an operator has allowed more.
//!
//! An address is looked at twice. Its text is refused for what it says (`url`), when it is stored and before
//! every try; and the addresses that its name has are refused at the moment of connecting (`Checked`): the
//! HTTP client connects to what that answer holds and to nothing else, so a name that is public now and
//! 127.0.0.1 in the next moment reaches nothing.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use controlplane_core::webhook::{Refusal, refused};
use futures_util::future::BoxFuture;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::settings::WebhookSettings;

/// Longest address.
const URL_MAX: usize = 2_048;

/// Why nothing is sent to an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Blocked {
    /// Not an address at all.
    #[error("not an address of the form https://HOST/PATH of at most 2048 bytes")]
    Malformed,
    /// Neither https nor, where allowed, http.
    #[error("only https addresses")]
    Scheme,
    /// A user or password in it.
    #[error("no user and no password in the address")]
    Credentials,
    /// A part after `#`, which is never sent.
    #[error("no fragment (#…) in the address")]
    Fragment,
    /// A well-known port of something else.
    #[error("only port 443, 80 where http is allowed, and ports from 1024")]
    Port,
    /// A name that ends in a dot.
    #[error("no dot at the end of the host")]
    TrailingDot,
    /// The address is not of the public Internet.
    #[error("{0} is not an address of the public Internet ({1})")]
    Address(IpAddr, Refusal),
}

/// The operator's settings as they are used.
#[derive(Debug, Clone)]
pub(crate) struct Guard(WebhookSettings);

impl Guard {
    pub(crate) fn new(settings: WebhookSettings) -> Self {
        Self(settings)
    }

    /// Whether http is allowed.
    pub(crate) fn allows_http(&self) -> bool {
        self.0.allow_http
    }

    /// Looks at an address as it is written. A host that is an address is looked at as one, in whatever way
    /// it is spelt (the URL standard reads 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1).
    pub(crate) fn url(&self, text: &str) -> Result<Url, Blocked> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        if text.len() > URL_MAX || !plain {
            return Err(Blocked::Malformed);
        }
        let url = Url::parse(text).map_err(|_| Blocked::Malformed)?;
        match url.scheme() {
            "https" => {}
            "http" if self.0.allow_http => {}
            _ => return Err(Blocked::Scheme),
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Blocked::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return Err(Blocked::Credentials);
        }
        if url.fragment().is_some() {
            return Err(Blocked::Fragment);
        }
        match url.port_or_known_default() {
            Some(443 | 1024..) => {}
            Some(80) if self.0.allow_http => {}
            _ => return Err(Blocked::Port),
        }
        if host.ends_with('.') {
            return Err(Blocked::TrailingDot);
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            self.address(address)?;
        }
        Ok(url)
    }

    /// Looks at an address that would be connected to.
    fn address(&self, address: IpAddr) -> Result<(), Blocked> {
        // A net that is allowed is meant as IPv4 in the mapped spelling too.
        let allowed = |address| self.0.allow_nets.iter().any(|net| net.contains(&address));
        match refused(address) {
            Some(why) if !allowed(address) && !allowed(address.to_canonical()) => {
                Err(Blocked::Address(address, why))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        self.0.allow_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// What is between the scheme and the path: an empty user is not seen in the parsed address any more.
fn authority(text: &str) -> &str {
    let after = text.split_once("://").map_or(text, |(_, after)| after);
    after.split(['/', '?', '#']).next().unwrap_or(after)
}

/// Finds a name's addresses.
pub(crate) trait Lookup: Send + Sync + 'static {
    /// Every address of a name.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Look-ups under way at a time. The system's may take a thread for half a minute, and cannot be ended.
const LOOKUPS_MAX: usize = 128;
/// A name that is not found within this time has no address.
const LOOKUP_MAX: Duration = Duration::from_secs(10);

/// As the system does, but no longer and no more of them than bounded.
pub(crate) struct SystemLookup(Bounded);

impl SystemLookup {
    pub(crate) fn new() -> Self {
        Self(Bounded { places: Arc::new(Semaphore::new(LOOKUPS_MAX)), find: system })
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.0.lookup(host)
    }
}

fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Look-ups that block, each on a thread, bounded in number and time.
struct Bounded {
    places: Arc<Semaphore>,
    find: fn(&str) -> io::Result<Vec<IpAddr>>,
}

impl Bounded {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let (places, find) = (Arc::clone(&self.places), self.find);
        Box::pin(async move {
            let looking = async {
                let place = places.acquire_owned().await.map_err(io::Error::other)?;
                let found = spawn_blocking(move || {
                    // The place is the thread's: whoever stops waiting does not free it.
                    let _place = place;
                    find(&host)
                });
                found.await.map_err(io::Error::other)?
            };
            timeout(LOOKUP_MAX, looking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// A name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name {host} has no address: {source}")]
pub(crate) struct Unresolved {
    host: String,
    source: io::Error,
}

/// The resolver of the HTTP client: what it gives back is what is connected to.
pub(crate) struct Checked {
    pub(crate) guard: Arc<Guard>,
    pub(crate) lookup: Arc<dyn Lookup>,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, looking) = (Arc::clone(&self.guard), self.lookup.lookup(name.as_str().to_owned()));
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let unresolved = |source| -> Box<dyn Error + Send + Sync> {
                Box::new(Unresolved { host: host.clone(), source })
            };
            let found = looking.await.map_err(unresolved)?;
            let (mut good, mut why) = (Vec::new(), None);
            for address in found {
                match guard.address(address) {
                    Err(blocked) if !guard.allows_host(&host) => why = Some(blocked),
                    Err(_) | Ok(()) => good.push(SocketAddr::new(address, 0)),
                }
            }
            match why {
                // One good address among bad ones is how a name is made to look harmless: none is used.
                Some(blocked) => Err(blocked.into()),
                None if good.is_empty() => Err(unresolved(io::ErrorKind::NotFound.into())),
                None => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn guard(allow_http: bool, nets: &[&str]) -> Guard {
        Guard::new(WebhookSettings {
            allow_http,
            allow_nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..WebhookSettings::default()
        })
    }

    /// Names that hang take the places there are, and give them back when the threads end, not before.
    #[tokio::test]
    async fn look_ups_are_bounded_in_number_and_time() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        #[allow(clippy::disallowed_methods, reason = "it blocks its thread, as a look-up does")]
        fn slow(_: &str) -> io::Result<Vec<IpAddr>> {
            let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
            MOST.fetch_max(running, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(300));
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            Ok(vec!["8.8.8.8".parse().unwrap()])
        }
        let bounded = Bounded { places: Arc::new(Semaphore::new(2)), find: slow };
        let looking: Vec<_> = (0..6).map(|n| bounded.lookup(format!("{n}.test"))).collect();
        // Who stops waiting leaves the thread behind.
        let gone = timeout(Duration::from_millis(20), bounded.lookup("gone.test".to_owned())).await;
        assert!(gone.is_err());
        for found in futures_util::future::join_all(looking).await {
            assert_eq!(found.unwrap().len(), 1);
        }
        assert_eq!(MOST.load(Ordering::SeqCst), 2);
        assert_eq!(bounded.places.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_hangs_has_no_address_after_ten_seconds() {
        let bounded = Bounded { places: Arc::new(Semaphore::new(0)), find: |_| Ok(Vec::new()) };
        let start = tokio::time::Instant::now();
        let error = bounded.lookup("hung.test".to_owned()).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, LOOKUP_MAX));
    }

    #[test]
    fn public_addresses_are_taken() {
        for text in [
            "https://example.com/hook?x=1",
            "https://example.com/team@example.com?to=a@b",
            "https://example.com:8443/",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/x",
            "https://EXAMPLE.com",
            "https://xn--bcher-kva.example/",
        ] {
            assert!(guard(false, &[]).url(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn every_spelling_of_an_inner_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.1.",
            "0",
            "0.0.0.0",
            "10.0.0.1",
            "0xa.0.0.1",
            "167772161",
            "169.254.169.254",
            "2852039166",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::1]",
            "[fe80::1]",
            "[fd00::1]",
            "[ff02::1]",
            "[::127.0.0.1]",
            "[0:0:0:0:0:0:0:1]",
            "%31%32%37.0.0.1",
            "127。0。0。1",
        ] {
            let refused = guard(true, &[]).url(&format!("http://{host}:8080/")).unwrap_err();
            let is_address = matches!(refused, Blocked::Address(..));
            assert!(is_address || (refused == Blocked::Malformed && !host.is_ascii()), "{host}: {refused}");
        }
        for text in
            ["https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://256.1.1.1/", "https://0x/a b"]
        {
            assert!(guard(true, &[]).url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_plain_https_address_is_refused() {
        for (text, why) in [
            ("http://example.com/", Blocked::Scheme),
            ("ftp://example.com/", Blocked::Scheme),
            ("file:///etc/passwd", Blocked::Scheme),
            ("gopher://example.com:443/", Blocked::Scheme),
            ("https://user@example.com/", Blocked::Credentials),
            ("https://user:pw@example.com/", Blocked::Credentials),
            ("https://@example.com/", Blocked::Credentials),
            ("https://example.com/#x", Blocked::Fragment),
            ("https://example.com:22/", Blocked::Port),
            ("https://example.com:80/", Blocked::Port),
            ("https://example.com:25/", Blocked::Port),
            ("https://example.com./", Blocked::TrailingDot),
            ("https://localhost./", Blocked::TrailingDot),
            ("https:///x y", Blocked::Malformed),
            ("example.com/hook", Blocked::Malformed),
            ("https://example.com\\@127.0.0.1/", Blocked::Malformed),
            ("", Blocked::Malformed),
        ] {
            assert_eq!(guard(false, &[]).url(text).unwrap_err(), why, "{text}");
        }
        assert_eq!(
            guard(false, &[]).url(&format!("https://a.b/{}", "x".repeat(2_048))),
            Err(Blocked::Malformed)
        );
    }

    #[test]
    fn an_operator_can_allow_a_net() {
        let inner = guard(true, &["10.1.0.0/16", "fd00::/8"]);
        for text in ["http://10.1.2.3/", "https://[fd00::1]/", "http://[::ffff:10.1.2.3]/"] {
            assert!(inner.url(text).is_ok(), "{text}");
        }
        for text in ["http://10.2.0.1/", "http://127.0.0.1:8080/"] {
            assert!(inner.url(text).is_err(), "{text}");
        }
    }
}
