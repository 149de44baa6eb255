//! An AMI stream: binary messages of a WebSocket on one side, bytes on the other.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::ws::{Message, WebSocket},
};
use node_agent_protocol::HEARTBEAT;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, split},
    time::{MissedTickBehavior, interval, timeout},
};

use super::links::{Admission, DialledFor};

/// An agent, or a session here, that does not take bytes for so long is gone. Sessions read always.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Between a WebSocket and its session, each way. Answers are short, and there are thousands of streams.
const PIPE: usize = 8 * 1024;

/// Gives the stream to who asked for it, and carries bytes until either side ends or the node is revoked.
pub(super) async fn carry(mut socket: WebSocket, mut admission: Admission, asked: DialledFor) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    if asked.give(theirs) {
        tokio::select! {
            biased;
            _ = admission.over() => {}
            () = pump(&mut socket, ours) => {}
        }
    }
    // It may be gone already.
    let _ = timeout(WRITE_MAX, socket.send(Message::Close(None))).await;
}

async fn pump(socket: &mut WebSocket, stream: DuplexStream) {
    let (mut reading, mut writing) = split(stream);
    let mut buffer = vec![0; PIPE];
    // Keeps what is between awake, and finds out that the other host is gone.
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            read = reading.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(n) => Message::Binary(Bytes::copy_from_slice(&buffer[..n])),
            },
            _ = heartbeat.tick() => Message::Ping(Bytes::new()),
            message = socket.recv() => {
                match message {
                    Some(Ok(Message::Binary(bytes))) => {
                        if !matches!(timeout(WRITE_MAX, writing.write_all(&bytes)).await, Ok(Ok(()))) {
                            return;
                        }
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return,
                }
                continue;
            }
        };
        if !matches!(timeout(WRITE_MAX, socket.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}
