//! An agent's key and certificate, and its requests for them.

use node_agent_protocol::{
    JOIN_PATH, JoinRequest, JoinResponse, JoinToken, PlaneUrl, RENEW_PATH, RenewRequest, tls,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use serde_json::Value;
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) url: PlaneUrl,
    pub(crate) response: JoinResponse,
    pub(crate) key_pem: String,
}

/// The status and code of a refusal.
pub(crate) type Refusal = (u16, String);

pub(crate) fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) async fn dial(url: &PlaneUrl, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(url.authority()).await?;
    TlsConnector::from(Arc::new(config)).connect(tls::server_name().unwrap(), tcp).await
}

/// One request over TLS; `Err` where there is no answer at all.
pub(crate) async fn post(
    url: &PlaneUrl,
    config: ClientConfig,
    path: &str,
    body: &str,
) -> io::Result<(u16, Value)> {
    let mut stream = dial(url, config).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        url.authority(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Ok(_) => {}
        // The server closed without a goodbye of TLS after the whole answer.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        Err(error) => return Err(error),
    }
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

fn taken(answer: (u16, Value)) -> Result<JoinResponse, Refusal> {
    let (status, body) = answer;
    match status {
        201 => Ok(serde_json::from_value(body).unwrap()),
        _ => Err((status, body["code"].as_str().unwrap_or_default().to_owned())),
    }
}

/// Sends a signing request of any text with a token.
pub(crate) async fn ask(token: &JoinToken, csr_pem: String) -> Result<JoinResponse, Refusal> {
    let request = JoinRequest { secret: token.secret.clone(), node: token.node.clone(), csr_pem };
    let body = serde_json::to_string(&request).unwrap();
    let config = tls::joining(token.ca_sha256).unwrap();
    taken(post(&token.urls[0], config, JOIN_PATH, &body).await.unwrap())
}

/// As `ringward-agent join`.
pub(crate) async fn join(token: &JoinToken) -> Result<Identity, Refusal> {
    let key = KeyPair::generate().unwrap();
    let response = ask(token, csr(&key)).await?;
    Ok(Identity { url: token.urls[0].clone(), response, key_pem: key.serialize_pem() })
}

impl Identity {
    pub(crate) fn config(&self) -> ClientConfig {
        tls::joined(&self.response.ca_pem, &self.response.certificate_pem, &self.key_pem).unwrap()
    }

    /// Asks for the next certificate, with a new key. `Err(None)`: no TLS, no answer.
    pub(crate) async fn renew(&self) -> Result<Self, Option<Refusal>> {
        let key = KeyPair::generate().unwrap();
        let body = serde_json::to_string(&RenewRequest { csr_pem: csr(&key) }).unwrap();
        let answer = post(&self.url, self.config(), RENEW_PATH, &body).await.map_err(|_| None)?;
        let response = taken(answer).map_err(Some)?;
        Ok(Self { url: self.url.clone(), response, key_pem: key.serialize_pem() })
    }
}
