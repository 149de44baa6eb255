//! One try: a POST within bounds, and what came of it.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use controlplane_core::webhook::{Answer, Failure};
use reqwest::{Certificate, Client, Response, Url, header::RETRY_AFTER, redirect::Policy};
use tokio::time::{Instant, timeout, timeout_at};

use super::guard::{Blocked, Checked, Guard, Lookup, Unresolved};

/// A try takes no longer than this in all.
pub(super) const TRY_MAX: Duration = Duration::from_secs(15);
/// Most bytes of an answer that are read, only to be thrown away.
const ANSWER_MAX: usize = 64 * 1024;
/// Idle connections that are kept per receiver.
const IDLE_MAX: usize = 2;
/// How long they are kept.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Longest text of an error in the delivery log.
const ERROR_MAX: usize = 300;

/// The HTTP client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of further CAs.
    #[error("webhooks.ca_file {path}: {text}")]
    CaFile {
        /// Its path.
        path: String,
        /// What is wrong with it.
        text: String,
    },
    /// TLS cannot be set up.
    #[error("the HTTP client for webhooks: {0}")]
    Client(#[from] reqwest::Error),
}

/// What came of a try.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) answer: Answer,
    pub(crate) failure: Option<Failure>,
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
}

impl Tried {
    pub(crate) fn status(&self) -> Option<u16> {
        match self.answer {
            Answer::Status { code, .. } => Some(code),
            Answer::None => None,
        }
    }
}

/// The client of all receivers.
pub(crate) struct Sender {
    client: Client,
    guard: Arc<Guard>,
}

impl Sender {
    pub(super) fn new(
        guard: Arc<Guard>,
        lookup: Arc<dyn Lookup>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ClientError> {
        let mut client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .https_only(!guard.allows_http())
            .dns_resolver(Arc::new(Checked { guard: Arc::clone(&guard), lookup }))
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("Ringward-Webhooks/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = ca_file {
            let refused = |text: String| ClientError::CaFile { path: path.display().to_string(), text };
            let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
            for certificate in
                Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.to_string()))?
            {
                client = client.add_root_certificate(certificate);
            }
        }
        Ok(Self { client: client.build()?, guard })
    }

    /// Posts a body with these headers. The address is looked at here too, since the client connects to a
    /// host that is an address without asking the resolver.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: impl IntoIterator<Item = (&'static str, String)>,
        body: String,
    ) -> Tried {
        let start = Instant::now();
        let done = match self.guard.url(url) {
            Ok(url) => match timeout(TRY_MAX, self.answer(url, headers, body)).await {
                Ok(Ok(response)) => {
                    let answer = read_status(&response);
                    // The status decides; the rest is read so that the connection can be used again.
                    let _ = timeout_at(start + TRY_MAX, throw_away(response)).await;
                    Ok(answer)
                }
                Ok(Err(error)) => Err((class(&error), describe(&error))),
                Err(_) => Err((Failure::Timeout, "no answer within 15 s".to_owned())),
            },
            Err(blocked) => Err((Failure::Refused, blocked.to_string())),
        };
        let took = start.elapsed();
        match done {
            Ok(answer @ Answer::Status { code: 200..=299, .. }) => {
                Tried { answer, failure: None, error: None, took }
            }
            Ok(answer) => {
                let error = match answer {
                    Answer::Status { code, .. } => format!("answered {code}"),
                    Answer::None => "no answer".to_owned(),
                };
                Tried { answer, failure: Some(Failure::Status), error: Some(error), took }
            }
            Err((failure, error)) => {
                Tried { answer: Answer::None, failure: Some(failure), error: Some(error), took }
            }
        }
    }

    async fn answer(
        &self,
        url: Url,
        headers: impl IntoIterator<Item = (&'static str, String)>,
        body: String,
    ) -> reqwest::Result<Response> {
        let mut request = self.client.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send().await
    }
}

fn read_status(response: &Response) -> Answer {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after_s = after.and_then(|text| text.trim().parse().ok());
    Answer::Status { code: response.status().as_u16(), retry_after_s }
}

async fn throw_away(mut response: Response) {
    let mut length = 0;
    while let Ok(Some(part)) = response.chunk().await {
        length += part.len();
        if length > ANSWER_MAX {
            return;
        }
    }
}

fn caused_by<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn class(error: &reqwest::Error) -> Failure {
    if caused_by::<Blocked>(error) {
        Failure::Refused
    } else if caused_by::<Unresolved>(error) {
        Failure::Dns
    } else if error.is_timeout() {
        Failure::Timeout
    } else {
        Failure::Connect
    }
}

/// The cause in words, without the address: whoever reads it knows that.
fn describe(error: &reqwest::Error) -> String {
    let mut deepest: &dyn Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string().chars().take(ERROR_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{IpAddr, Ipv4Addr, SocketAddr},
        sync::Mutex,
    };

    use futures_util::future::BoxFuture;
    use reqwest::dns::Resolve;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    use super::*;
    use crate::settings::WebhookSettings;

    /// A name server that says something else each time; the last answer stays.
    struct Names(Mutex<Vec<Vec<IpAddr>>>);

    impl Names {
        fn say(answers: &[&[&str]]) -> Arc<Self> {
            let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
            Arc::new(Self(Mutex::new(answers.iter().rev().map(parse).collect())))
        }
    }

    impl Lookup for Names {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
            Box::pin(async move { Ok(answer.unwrap_or_default()) })
        }
    }

    fn guard(nets: &[&str]) -> Arc<Guard> {
        let allow_nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        Arc::new(Guard::new(WebhookSettings { allow_http: true, allow_nets, ..WebhookSettings::default() }))
    }

    fn sender(nets: &[&str], names: Arc<Names>) -> Sender {
        Sender::new(guard(nets), names, None).unwrap()
    }

    fn headers() -> [(&'static str, String); 3] {
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| (name, "x".to_owned()))
    }

    async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Reads a request's head, and answers with this.
    async fn answer(stream: &mut TcpStream, text: &[u8]) {
        let mut head = Vec::new();
        while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let mut part = [0; 1_024];
            let length = stream.read(&mut part).await.unwrap();
            assert_ne!(length, 0, "no whole request came");
            head.extend_from_slice(&part[..length]);
        }
        stream.write_all(text).await.unwrap();
    }

    fn answers(listener: TcpListener, text: &'static [u8]) -> JoinHandle<()> {
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            answer(&mut stream, text).await;
        })
    }

    #[tokio::test]
    async fn a_name_that_turns_inward_after_it_was_checked_reaches_nothing() {
        let names = Names::say(&[&["8.8.8.8"], &["127.0.0.1"]]);
        let checked = Checked { guard: guard(&[]), lookup: Arc::clone(&names) as Arc<dyn Lookup> };
        let first: Vec<_> = checked.resolve("rebinding.test".parse().unwrap()).await.unwrap().collect();
        assert_eq!(first, [SocketAddr::from(([8, 8, 8, 8], 0))]);
        let (listener, at) = listen().await;
        let tried = sender(&[], names)
            .post(&format!("http://rebinding.test:{}/", at.port()), headers(), "{}".to_owned())
            .await;
        assert_eq!((tried.failure, tried.status()), (Some(Failure::Refused), None), "{tried:?}");
        assert!(tried.error.unwrap().contains("loopback"));
        let came = timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(came.is_err(), "somebody connected");
    }

    /// The same way, where an operator allows it: what the test above sees is the refusal, not a broken way.
    #[tokio::test]
    async fn what_a_name_says_is_what_is_connected_to() {
        let (listener, at) = listen().await;
        let served = answers(listener, b"HTTP/1.1 204 No Content\r\n\r\n");
        let sender = sender(&["127.0.0.0/8"], Names::say(&[&["127.0.0.1"]]));
        let url = format!("http://allowed.test:{}/", at.port());
        let tried = sender.post(&url, headers(), "{}".to_owned()).await;
        assert_eq!((tried.failure, tried.status()), (None, Some(204)), "{tried:?}");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn a_good_address_does_not_excuse_a_bad_one() {
        for answer in
            [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["2606:4700::1111", "::ffff:10.0.0.1"]]
        {
            let sender = sender(&[], Names::say(&[&answer]));
            let tried = sender.post("https://mixed.test/", headers(), "{}".to_owned()).await;
            assert_eq!(tried.failure, Some(Failure::Refused), "{answer:?}: {tried:?}");
        }
        let tried =
            sender(&[], Names::say(&[&[]])).post("https://none.test/", headers(), "{}".to_owned()).await;
        assert_eq!(tried.failure, Some(Failure::Dns), "{tried:?}");
    }

    #[tokio::test]
    async fn an_address_that_was_stored_is_looked_at_again() {
        let (listener, at) = listen().await;
        let sender = sender(&[], Names::say(&[&["8.8.8.8"]]));
        for url in
            [format!("http://{at}/"), format!("http://2130706433:{}/", at.port()), "nonsense".to_owned()]
        {
            let tried = sender.post(&url, headers(), "{}".to_owned()).await;
            assert_eq!(tried.failure, Some(Failure::Refused), "{url}: {tried:?}");
        }
        assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    }

    #[tokio::test]
    async fn an_endless_answer_is_read_within_bounds() {
        let (listener, at) = listen().await;
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            answer(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            let mut sent = 0_usize;
            while stream.write_all(&[b'x'; 16_384]).await.is_ok() {
                sent += 16_384;
            }
            sent
        });
        let sender = sender(&["127.0.0.0/8"], Names::say(&[&[]]));
        let tried = sender.post(&format!("http://{at}/"), headers(), "{}".to_owned()).await;
        assert_eq!((tried.failure, tried.status()), (None, Some(200)), "{tried:?}");
        // What the kernel holds in between is some megabytes at most.
        let sent = timeout(Duration::from_secs(10), served).await.expect("it is read on and on").unwrap();
        assert!((ANSWER_MAX..100_000_000).contains(&sent), "{sent}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_hangs_is_left_after_fifteen_seconds() {
        let (listener, at) = listen().await;
        let sender = sender(&["127.0.0.0/8"], Names::say(&[&[]]));
        let start = Instant::now();
        let tried = sender.post(&format!("http://{at}/"), headers(), "{}".to_owned()).await;
        assert_eq!(tried.failure, Some(Failure::Timeout), "{tried:?}");
        assert_eq!(start.elapsed().as_secs(), 15);
        drop(listener);
        let tried = sender.post(&format!("http://{at}/"), headers(), "{}".to_owned()).await;
        assert_eq!(tried.failure, Some(Failure::Connect), "{tried:?}");
    }

    #[test]
    #[allow(clippy::result_large_err, reason = "figment's own test harness asks for its error type")]
    fn proxies_of_the_environment_are_not_used() {
        figment::Jail::expect_with(|jail| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let ((proxy, proxy_at), (listener, at)) = (listen().await, listen().await);
                for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
                    jail.set_env(name, format!("http://{proxy_at}"));
                }
                let url = format!("http://{at}/");
                let proxied = answers(proxy, b"HTTP/1.1 299 Proxied\r\ncontent-length: 0\r\n\r\n");
                let usual = Client::builder().build().unwrap().post(&url).send().await.unwrap();
                assert_eq!(usual.status(), 299, "others do use it");
                proxied.await.unwrap();
                let served = answers(listener, b"HTTP/1.1 204 No Content\r\n\r\n");
                let sender = sender(&["127.0.0.0/8"], Names::say(&[&[]]));
                let tried = sender.post(&url, headers(), "{}".to_owned()).await;
                assert_eq!((tried.failure, tried.status()), (None, Some(204)), "{tried:?}");
                served.await.unwrap();
            });
            Ok(())
        });
    }
}
