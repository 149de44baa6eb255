//! The agent's side of a link.

use std::{collections::VecDeque, time::Duration};

use controlplane_core::ids::{AttemptId, FactId, StreamId};
use futures_util::{SinkExt, StreamExt};
use node_agent_protocol::{
    AmiState, BarAnswer, Capabilities, Capability, Decoded, Down, Fact, FactBody, GateCounts, Hello, Host,
    LINK_PATH, List, Observations, Policy, RefusalCode, Spool, Text, Up, Welcome, ami_path, decode, encode,
};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use crate::{
    identity::{Identity, Refusal, dial},
    plane::node,
};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub(crate) struct Link {
    socket: Socket,
    /// AMI streams that were asked for: the control plane does at once, whatever a test is about.
    asked: VecDeque<StreamId>,
}

pub(crate) fn hello(of: &str) -> Hello {
    Hello {
        protocol: 1,
        protocol_oldest: None,
        agent_version: Text::cut("0.1.0"),
        capabilities: Capabilities::of(Capability::USED),
        node: node(of),
        incarnation: Text::cut("one"),
        asterisk: None,
    }
}

pub(crate) fn observations(revision: u64) -> Observations {
    Observations {
        revision,
        taken_ms_ago: 0,
        sent_at_unix_ms: 0,
        ami: AmiState::Up { ping_rtt_us: Some(400) },
        asterisk: None,
        endpoints: List::default(),
        findings: List::default(),
        endpoints_left_out: 0,
        host: Host::default(),
        gate: GateCounts::default(),
        spool: Spool::default(),
        certificate_expires_unix_s: None,
        policy_revision: 0,
        firewall: None,
    }
}

pub(crate) fn fact(seed: u64, body: Value) -> Fact {
    Fact {
        id: FactId::new(OffsetDateTime::UNIX_EPOCH, &mut StdRng::seed_from_u64(seed)),
        fact_kind: Text::cut("finding"),
        at_unix_ms: 1,
        body: FactBody::new(body).unwrap(),
    }
}

pub(crate) fn attempt(seed: u64) -> AttemptId {
    AttemptId::new(&mut StdRng::seed_from_u64(seed))
}

/// A WebSocket, or how the door refuses it; `None` where there is no answer.
pub(crate) async fn upgrade(identity: &Identity, path: &str) -> Result<Socket, Option<Refusal>> {
    let stream = dial(&identity.url, identity.config()).await.map_err(|_| None)?;
    match client_async(format!("wss://{}{path}", identity.url.authority()), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let code = body["code"].as_str().unwrap_or_default().to_owned();
            Err(Some((response.status().as_u16(), code)))
        }
        Err(_) => Err(None),
    }
}

impl Link {
    /// A link before its hello.
    pub(crate) async fn dial(identity: &Identity) -> Result<Self, Option<Refusal>> {
        Ok(Self { socket: upgrade(identity, LINK_PATH).await?, asked: VecDeque::new() })
    }

    /// A link that is welcome, and its first policy.
    pub(crate) async fn open(identity: &Identity, hello: Hello) -> (Self, Welcome, Policy) {
        let mut link = Self::dial(identity).await.unwrap();
        link.send(&Up::Hello(hello)).await;
        let Some(Down::Welcome(welcome)) = link.next().await else { panic!("not welcome") };
        let Some(Down::Policy(policy)) = link.next().await else { panic!("no policy") };
        (link, welcome, *policy)
    }

    pub(crate) async fn send(&mut self, message: &Up) {
        self.text(encode(message).unwrap()).await;
    }

    pub(crate) async fn text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message but for those that ask for AMI; `None` at the end of the link.
    pub(crate) async fn next(&mut self) -> Option<Down> {
        loop {
            let message = self.any().await?;
            let Down::OpenAmi { stream_id } = message else { return Some(message) };
            self.asked.push_back(stream_id);
        }
    }

    async fn any(&mut self) -> Option<Down> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("a message or the end")? {
                Ok(Message::Text(text)) => match decode::<Down>(&text).unwrap() {
                    Decoded::Message(message) => return Some(message),
                    Decoded::Unknown => {}
                },
                Ok(Message::Ping(_)) => {}
                Ok(Message::Binary(_) | Message::Pong(_) | Message::Frame(_)) => panic!("not from here"),
                Ok(Message::Close(_)) | Err(_) => return None,
            }
        }
    }

    /// The reason that the control plane ends the link with.
    pub(crate) async fn refused(&mut self) -> RefusalCode {
        loop {
            match self.next().await.expect("a refusal before the end") {
                Down::Refused(refused) => {
                    assert_eq!(self.next().await, None, "the refusal is the last word");
                    return refused.code;
                }
                Down::Welcome(_) | Down::Policy(_) | Down::Ack { .. } | Down::OpenAmi { .. } => {}
                Down::Attempts { .. } | Down::PlaceAudio { .. } | Down::Bar { .. } | Down::Unknown => {}
                Down::Bans(_) => {}
            }
        }
    }

    /// Sends facts and waits for their acknowledgement.
    pub(crate) async fn report(&mut self, facts: &[Fact]) {
        self.send(&Up::Facts { facts: List::whole(facts.to_vec()).unwrap() }).await;
        let Some(Down::Ack { fact_ids }) = self.next().await else { panic!("no acknowledgement") };
        let ids: Vec<_> = facts.iter().map(|fact| fact.id.clone()).collect();
        assert_eq!(fact_ids.into_vec(), ids);
    }

    /// Answers the next `bar`.
    pub(crate) async fn answer_bar(&mut self, answer: BarAnswer) -> AttemptId {
        let Some(Down::Bar { attempt, .. }) = self.next().await else { panic!("no bar") };
        self.send(&Up::Bar { attempt: attempt.clone(), answer }).await;
        attempt
    }

    /// The stream that the control plane asks to be dialled.
    pub(crate) async fn asked_for_ami(&mut self) -> StreamId {
        if let Some(stream_id) = self.asked.pop_front() {
            return stream_id;
        }
        loop {
            if let Down::OpenAmi { stream_id } = self.any().await.expect("to be asked for AMI") {
                return stream_id;
            }
        }
    }
}

pub(crate) async fn dial_ami(identity: &Identity, stream: &StreamId) -> Result<Socket, Option<Refusal>> {
    upgrade(identity, &ami_path(stream)).await
}
