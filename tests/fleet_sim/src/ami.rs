//! An AMI stream: a control plane's session, through the true gate, at a fake PBX.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use controlplane_core::ids::StreamId;
use futures_util::{SinkExt, StreamExt};
use node_agent_core::gate::Stream;
use node_agent_protocol::{AMI_CHUNK_MAX, AMI_LINK_USER, ami_path};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::agent::Node;

/// Between the agent and its PBX.
const PIPE: usize = 16 * 1024;
/// Banner and login.
const LOGIN_MAX: Duration = Duration::from_secs(5);

/// Serves one stream to its end.
pub(crate) async fn carry(node: Arc<Node>, plane: usize, stream_id: StreamId) -> anyhow::Result<()> {
    let (mut asterisk, pbx) = tokio::io::duplex(PIPE);
    node.pbx.serve(pbx);
    let (banner, rest) = timeout(LOGIN_MAX, log_in(&mut asterisk)).await.context("no login in time")??;
    let socket = node.identity.web_socket(plane, &ami_path(&stream_id), AMI_CHUNK_MAX).await?;
    let (mut sink, mut frames) = socket.split();
    let mut stream = Stream::new();
    sink.send(Frame::binary(Stream::greeting(&banner))).await?;
    let now = || Instant::now().into_std();
    let first = stream.asterisk_wrote(&rest, &mut node.gate(), now()).to_control_plane;
    sink.send(Frame::binary(first)).await?;
    let mut buffer = vec![0; PIPE];
    loop {
        tokio::select! {
            read = asterisk.read(&mut buffer) => {
                let bytes = match read? {
                    0 => return Ok(()),
                    count => buffer.get(..count).unwrap_or_default(),
                };
                let passed = stream.asterisk_wrote(bytes, &mut node.gate(), now());
                sleep(node.slowness()).await;
                if !passed.to_control_plane.is_empty() {
                    sink.send(Frame::binary(passed.to_control_plane)).await?;
                }
            }
            frame = frames.next() => {
                let bytes = match frame {
                    Some(Ok(Frame::Binary(bytes))) => bytes,
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                    Some(Ok(Frame::Text(_) | Frame::Frame(_) | Frame::Close(_)) | Err(_)) | None => return Ok(()),
                };
                let passed = stream.control_plane_wrote(&bytes, &mut node.gate(), now());
                asterisk.write_all(&passed.to_asterisk).await?;
                if !passed.to_control_plane.is_empty() {
                    sink.send(Frame::binary(passed.to_control_plane)).await?;
                }
                if passed.is_over {
                    return Ok(());
                }
            }
        }
    }
}

/// As the agent does it: the banner, and what came behind the login's answer.
async fn log_in(asterisk: &mut DuplexStream) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let mut read = Vec::new();
    let line = loop {
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            break end + 1;
        }
        more(asterisk, &mut read).await?;
    };
    let login = format!(
        "Action: Login\r\nActionID: 1\r\nUsername: {AMI_LINK_USER}\r\nSecret: {AMI_LINK_USER}\r\nEvents: call,user,system\r\n\r\n"
    );
    asterisk.write_all(login.as_bytes()).await?;
    loop {
        let answer = read.get(line..).unwrap_or_default();
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(line + end + 4);
            read.truncate(line);
            return Ok((read.trim_ascii_end().to_vec(), rest));
        }
        more(asterisk, &mut read).await?;
    }
}

async fn more(asterisk: &mut DuplexStream, read: &mut Vec<u8>) -> anyhow::Result<()> {
    if asterisk.read_buf(read).await? == 0 {
        bail!("the PBX closed its session");
    }
    Ok(())
}
