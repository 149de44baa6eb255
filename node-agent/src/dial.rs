//! Connections to a control plane: TCP, TLS, and on it one HTTP request or a WebSocket.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use node_agent_protocol::{PlaneUrl, tls};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// From the first SYN to a link that can be used, or to an answer.
pub const DIAL_MAX: Duration = Duration::from_secs(10);
/// Longest silence in a body: a control plane that hangs is left sooner than one that is slow.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Largest answer to a request for a certificate.
const ANSWER_MAX: usize = 256 * 1024;

/// A WebSocket to a control plane.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Why there is no connection or no answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection, or no TLS on it.
    #[error("cannot reach {url}: {source}")]
    Unreachable {
        /// Whom.
        url: PlaneUrl,
        /// Why.
        source: io::Error,
    },
    /// Not within [`DIAL_MAX`].
    #[error("{0} did not answer in time")]
    Late(PlaneUrl),
    /// TLS cannot be set up with what there is.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// No WebSocket.
    #[error("{url} opens no link: {source}")]
    WebSocket {
        /// Whom.
        url: PlaneUrl,
        /// Why.
        source: Box<tungstenite::Error>,
    },
    /// The request failed.
    #[error("{url} answers no HTTP: {reason}")]
    Http {
        /// Whom.
        url: PlaneUrl,
        /// Why.
        reason: String,
    },
    /// The control plane says no.
    #[error("{url} refused ({status}, {code}): {detail}")]
    Refused {
        /// Whom.
        url: PlaneUrl,
        /// HTTP.
        status: u16,
        /// The problem's stable code.
        code: String,
        /// In words.
        detail: String,
    },
}

#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

/// The control plane's own words, if these are.
fn refused(url: &PlaneUrl, status: StatusCode, body: &[u8]) -> DialError {
    let Problem { code, detail } = serde_json::from_slice(body).unwrap_or_default();
    DialError::Refused { url: url.clone(), status: status.as_u16(), code, detail }
}

async fn secure(url: &PlaneUrl, config: ClientConfig) -> Result<TlsStream<TcpStream>, DialError> {
    let failed = |source| DialError::Unreachable { url: url.clone(), source };
    let stream = TcpStream::connect((url.host(), url.port())).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let name = tls::server_name()?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(failed)
}

/// Opens a WebSocket at `path`; messages of at most `message_max` bytes.
///
/// # Errors
/// [`DialError`].
pub async fn web_socket(
    url: &PlaneUrl,
    path: &str,
    config: ClientConfig,
    message_max: usize,
) -> Result<Socket, DialError> {
    let open = async {
        let stream = secure(url, config).await?;
        let failed = |source| DialError::WebSocket { url: url.clone(), source: Box::new(source) };
        let request = format!("wss://{}{path}", url.authority()).into_client_request().map_err(failed)?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(message_max))
            .max_frame_size(Some(message_max))
            .max_write_buffer_size(4 * message_max.max(128 * 1024));
        match client_async_with_config(request, stream, Some(limits)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                Err(refused(url, answer.status(), answer.body().as_deref().unwrap_or_default()))
            }
            Err(error) => Err(failed(error)),
        }
    };
    timeout(DIAL_MAX, open).await.unwrap_or_else(|_| Err(DialError::Late(url.clone())))
}

/// Sends one JSON body and reads one.
///
/// # Errors
/// [`DialError`].
pub async fn post<A: DeserializeOwned>(
    url: &PlaneUrl,
    path: &str,
    config: ClientConfig,
    body: &impl Serialize,
) -> Result<A, DialError> {
    let failed = |reason: String| DialError::Http { url: url.clone(), reason };
    let body = serde_json::to_vec(body).map_err(|error| failed(error.to_string()))?;
    let request = Request::post(path)
        .header(header::HOST, url.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(error.to_string()))?;
    let answer = ask(url, config, request, ANSWER_MAX);
    let answer = timeout(DIAL_MAX, answer).await.unwrap_or_else(|_| Err(DialError::Late(url.clone())))?;
    serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))
}

/// Reads what is at `path`, of at most `max` bytes, within `limit`.
///
/// # Errors
/// [`DialError`].
pub async fn get(
    url: &PlaneUrl,
    path: &str,
    config: ClientConfig,
    max: usize,
    limit: Duration,
) -> Result<Bytes, DialError> {
    let request = Request::get(path)
        .header(header::HOST, url.authority())
        .body(Full::default())
        .map_err(|error| DialError::Http { url: url.clone(), reason: error.to_string() })?;
    let answer = ask(url, config, request, max);
    timeout(limit, answer).await.unwrap_or_else(|_| Err(DialError::Late(url.clone())))
}

async fn ask(
    url: &PlaneUrl,
    config: ClientConfig,
    request: Request<Full<Bytes>>,
    max: usize,
) -> Result<Bytes, DialError> {
    let failed = |reason: String| DialError::Http { url: url.clone(), reason };
    let begin = async {
        let stream = secure(url, config).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        // Ended with the answer, also where nobody waits for it any more.
        let driving = AbortOnDropHandle(tokio::spawn(connection));
        let answer = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
        Ok((answer, driving))
    };
    let begun = timeout(DIAL_MAX, begin).await.unwrap_or_else(|_| Err(DialError::Late(url.clone())));
    let (answer, _driving) = begun?;
    let status = answer.status();
    let (mut frames, mut body) = (Limited::new(answer.into_body(), max), BytesMut::new());
    while let Some(frame) =
        timeout(SILENT_MAX, frames.frame()).await.map_err(|_| DialError::Late(url.clone()))?
    {
        let frame = frame.map_err(|error| failed(error.to_string()))?;
        body.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    let body = body.freeze();
    if status != StatusCode::OK && status != StatusCode::CREATED {
        return Err(refused(url, status, &body));
    }
    Ok(body)
}

/// A task that ends when this is dropped.
struct AbortOnDropHandle<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDropHandle<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
