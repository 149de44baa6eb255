//! One AMI stream: a WebSocket to the control plane, a session of its own at Asterisk, the gate between them.
//!
//! Asterisk cuts off whoever does not read, so reading from it waits for nobody: what is for the control plane
//! goes into a bounded queue, and a control plane that lags further behind loses the stream.

use std::{io, time::Duration};

use bytes::Bytes;
use controlplane_core::ids::StreamId;
use futures_util::{SinkExt, StreamExt};
use node_agent_ami::{Block, Decoder, Limits};
use node_agent_core::gate::{Passed, Stream};
use node_agent_protocol::{AMI_CHUNK_MAX, PlaneUrl, ami_path};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    dial::{self, DialError},
    gate::Gate,
    settings::Login,
};

/// Chunks that wait for the control plane.
const QUEUE_MAX: usize = 1024;
/// Portions of actions that wait for Asterisk.
const ORDERS_MAX: usize = 1024;
/// Banner and login.
const LOGIN_MAX: Duration = Duration::from_secs(5);
/// The client at the other end pings every 5 s. A stream on which it is silent for so long is of a replica that
/// is frozen or gone: it must not wake up on it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Asterisk takes an action at once or is stuck.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// What the session hears; manager.conf lets fewer through.
const EVENTS: &str = "call,user,system";

/// Why there is no session for a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No TCP, or it broke.
    #[error("AMI at {address}: {source}")]
    Io {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Not within five seconds.
    #[error("AMI at {0} did not answer in time")]
    Late(std::net::SocketAddr),
    /// Not a manager, or the login was refused.
    #[error("AMI at {address} let no one in: {reason}")]
    Refused {
        /// Where.
        address: std::net::SocketAddr,
        /// Asterisk's words.
        reason: String,
    },
    /// The control plane could not be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// A session that is logged in.
struct Session {
    tcp: TcpStream,
    banner: Vec<u8>,
    /// What came behind the login's answer.
    rest: Vec<u8>,
}

async fn log_in(login: &Login, action_id: &str) -> Result<Session, StreamError> {
    let address = login.address;
    let failed = |source| StreamError::Io { address, source };
    let refused = |reason: String| StreamError::Refused { address, reason };
    let secret = login.secret().map_err(failed)?;
    if [&login.username, &secret].iter().any(|text| text.bytes().any(|b| b < b' ')) {
        return Err(refused("user or secret holds a control character".to_owned()));
    }
    let mut tcp = TcpStream::connect(address).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let action = format!(
        "Action: Login\r\nActionID: {action_id}\r\nUsername: {}\r\nSecret: {secret}\r\nEvents: {EVENTS}\r\n\r\n",
        login.username
    );
    let mut read = Vec::new();
    let mut is_asked = false;
    loop {
        let line = read.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        let block = find(read.get(line..).unwrap_or_default(), b"\r\n\r\n").map(|at| line + at + 4);
        match (line, block) {
            (1.., _) if !is_asked => {
                is_asked = true;
                tcp.write_all(action.as_bytes()).await.map_err(failed)?;
            }
            (1.., Some(end)) => {
                let mut decoder = Decoder::new(Limits::default());
                decoder.push(read.get(..end).unwrap_or_default());
                let banner = match decoder.next_block() {
                    Ok(Some(Block::Banner(banner))) if banner.starts_with(b"Asterisk Call Manager/") => {
                        banner
                    }
                    _ => return Err(refused("it is no Asterisk manager".to_owned())),
                };
                let Ok(Some(Block::Message(answer))) = decoder.next_block() else {
                    return Err(refused("it is no Asterisk manager".to_owned()));
                };
                let is_ours = answer.get("ActionID") == Some(action_id.as_bytes());
                if answer.get("Response") != Some(b"Success") || !is_ours {
                    return Err(refused(answer.text("Message").unwrap_or_default().into_owned()));
                }
                let rest = read.split_off(end);
                return Ok(Session { tcp, banner: banner.to_vec(), rest });
            }
            _ if read.len() > AMI_CHUNK_MAX => return Err(refused("it is no Asterisk manager".to_owned())),
            _ => {}
        }
        let mut chunk = [0; 4096];
        match tcp.read(&mut chunk).await.map_err(failed)? {
            0 => return Err(refused("it ended the connection".to_owned())),
            count => read.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

/// Writes actions until there are no more, or Asterisk takes none.
async fn order(mut tcp: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(actions) = waiting.recv().await {
        if !matches!(timeout(WRITE_MAX, tcp.write_all(&actions)).await, Ok(Ok(()))) {
            return;
        }
    }
    // It may have ended by itself.
    let _ = tcp.shutdown().await;
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A stream that is asked for.
#[derive(Debug)]
pub struct Asked {
    /// By whom.
    pub url: PlaneUrl,
    /// Which.
    pub stream_id: StreamId,
    /// With what to dial.
    pub tls: ClientConfig,
}

/// Opens the session first, then the WebSocket, then carries until either ends.
///
/// # Errors
/// [`StreamError`] if it did not come about; how it ends later is logged.
pub async fn carry(asked: Asked, login: &Login, gate: &Gate, action_id: &str) -> Result<(), StreamError> {
    let session = timeout(LOGIN_MAX, log_in(login, action_id))
        .await
        .map_err(|_| StreamError::Late(login.address))??;
    let socket = dial::web_socket(&asked.url, &ami_path(&asked.stream_id), asked.tls, AMI_CHUNK_MAX).await?;
    gate.stream(1);
    tracing::info!(url = %asked.url, "an AMI stream is open");
    let why = pump(session, socket, gate).await;
    gate.stream(-1);
    tracing::info!(url = %asked.url, why, "an AMI stream is over");
    Ok(())
}

async fn pump(session: Session, socket: dial::Socket, gate: &Gate) -> String {
    let (mut read_tcp, write_tcp) = session.tcp.into_split();
    let (mut sink, mut frames) = socket.split();
    let (queue, mut waiting) = mpsc::channel::<Bytes>(QUEUE_MAX);
    let writer = tokio::spawn(async move {
        while let Some(chunk) = waiting.recv().await {
            if sink.send(Frame::Binary(chunk)).await.is_err() {
                return;
            }
        }
        // The far side may be gone already.
        let _ = timeout(Duration::from_secs(1), sink.close()).await;
    });
    // Asterisk reads and writes a session with one thread: whoever waited here for it to take an action, and did
    // not read meanwhile, would wait for ever.
    let (orders, waiting_orders) = mpsc::channel::<Vec<u8>>(ORDERS_MAX);
    let mut ordering = tokio::spawn(order(write_tcp, waiting_orders));
    let say = |bytes: Vec<u8>| -> Result<(), String> {
        let bytes = Bytes::from(bytes);
        let chunks = (0..bytes.len()).step_by(AMI_CHUNK_MAX);
        for at in chunks {
            let chunk = bytes.slice(at..bytes.len().min(at + AMI_CHUNK_MAX));
            queue.try_send(chunk).map_err(|_| "the control plane reads too slowly".to_owned())?;
        }
        Ok(())
    };
    let mut stream = Stream::new();
    let mut buffer = vec![0; 16 * 1024];
    let mut silent_at = Instant::now() + SILENCE_MAX;
    let why = async {
        say(Stream::greeting(&session.banner))?;
        say(gate.asterisk_wrote(&mut stream, &session.rest).to_control_plane)?;
        loop {
            tokio::select! {
                read = read_tcp.read(&mut buffer) => match read {
                    Ok(0) => return Err("Asterisk closed it".to_owned()),
                    Ok(count) => {
                        let bytes = buffer.get(..count).unwrap_or_default();
                        say(gate.asterisk_wrote(&mut stream, bytes).to_control_plane)?;
                    }
                    Err(error) => return Err(format!("reading from Asterisk failed: {error}")),
                },
                frame = frames.next() => {
                    let bytes = match frame {
                        Some(Ok(Frame::Binary(bytes))) => bytes,
                        // Pongs are written with what is sent next; the far side pings by AMI as well.
                        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                        Some(Ok(Frame::Text(_) | Frame::Frame(_) | Frame::Close(_))) | None => {
                            return Err("the control plane closed it".to_owned());
                        }
                        Some(Err(error)) => return Err(format!("the control plane is gone: {error}")),
                    };
                    silent_at = Instant::now() + SILENCE_MAX;
                    let Passed { to_asterisk, to_control_plane, is_over, .. } = gate.control_plane_wrote(&mut stream, &bytes);
                    if !to_asterisk.is_empty() {
                        orders.try_send(to_asterisk).map_err(|_| "Asterisk takes no actions".to_owned())?;
                    }
                    say(to_control_plane)?;
                    if is_over {
                        return Err("the control plane logged off".to_owned());
                    }
                }
                _ = &mut ordering => return Err("Asterisk takes no actions".to_owned()),
                () = sleep_until(silent_at) => return Err("the control plane was silent".to_owned()),
            }
        }
    }
    .await;
    drop(queue);
    // The last bytes, such as the answer to Logoff; a stuck far side is not waited for.
    if timeout(Duration::from_secs(1), writer).await.is_err() {
        tracing::debug!("an AMI stream ended with bytes unsent");
    }
    why.map_or_else(|why| why, |never: std::convert::Infallible| match never {})
}
