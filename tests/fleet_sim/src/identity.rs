//! A node's certificate, and the connections that it dials with it: from the node's own address.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use node_agent_protocol::{JOIN_PATH, JoinRequest, JoinResponse, JoinToken, PlaneUrl, tls};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, client::Resumption};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite::protocol::WebSocketConfig};

/// From the first SYN to a link that can be used, as the agent's.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// What a WebSocket of thousands reads at a time.
const READ_BUFFER: usize = 4 * 1024;

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What a node has of its joining.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Where each control plane's agents' door is.
    urls: Vec<PlaneUrl>,
    source: Ipv4Addr,
    config: Arc<ClientConfig>,
}

async fn dial(
    url: &PlaneUrl,
    source: Ipv4Addr,
    config: Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let host: IpAddr = url.host().parse().context("the agents' door is named by its address")?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let tcp = socket.connect(SocketAddr::new(host, url.port())).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(config).connect(tls::server_name()?, tcp).await?)
}

/// As `ringward-agent join`.
pub(crate) async fn join(token: &JoinToken, source: Ipv4Addr) -> anyhow::Result<Identity> {
    let key = KeyPair::generate()?;
    let csr_pem = CertificateParams::default().serialize_request(&key)?.pem()?;
    let request = JoinRequest { secret: token.secret.clone(), node: token.node.clone(), csr_pem };
    let body = serde_json::to_string(&request)?;
    let url = token.urls.first().context("a token without an address")?;
    let asking = async {
        let mut stream = dial(url, source, Arc::new(tls::joining(token.ca_sha256)?)).await?;
        let head = format!(
            "POST {JOIN_PATH} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            url.authority(),
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        // An end without a goodbye of TLS may follow the whole answer: what came is what counts.
        let _ = stream.read_to_end(&mut answer).await;
        anyhow::Ok(String::from_utf8(answer)?)
    };
    let answer = timeout(DIAL_MAX, asking).await.context("joining took too long")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer to a join")?;
    ensure!(head.split(' ').nth(1) == Some("201"), "a join was refused: {answer}");
    let joined: JoinResponse = serde_json::from_str(body)?;
    let mut config = tls::joined(&joined.ca_pem, &joined.certificate_pem, &key.serialize_pem())?;
    // The agent makes its TLS anew for each dial: it resumes nothing.
    config.resumption = Resumption::disabled();
    Ok(Identity { urls: token.urls.clone(), source, config: Arc::new(config) })
}

impl Identity {
    /// How many control planes it dials.
    pub(crate) fn planes(&self) -> usize {
        self.urls.len()
    }

    /// A WebSocket at `path` of a control plane, with messages of at most `message_max` bytes.
    pub(crate) async fn web_socket(
        &self,
        plane: usize,
        path: &str,
        message_max: usize,
    ) -> anyhow::Result<Socket> {
        let url = self.urls.get(plane).context("no such control plane")?;
        let opening = async {
            let stream = dial(url, self.source, Arc::clone(&self.config)).await?;
            let limits = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .write_buffer_size(0)
                .max_message_size(Some(message_max))
                .max_frame_size(Some(message_max));
            let url = format!("wss://{}{path}", url.authority());
            let (socket, _) = client_async_with_config(url, stream, Some(limits)).await?;
            anyhow::Ok(socket)
        };
        timeout(DIAL_MAX, opening).await.context("the control plane did not answer in time")?
    }
}
