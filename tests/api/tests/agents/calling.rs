//! A node without an AMI address: calls go through its agent, as over a direct session.

use fake_pbx::{Ending, FakePbx, Script};
use futures_util::{SinkExt, StreamExt};
use node_agent_protocol::{AMI_LINK_USER, Contact, ContactStatus, EndpointSeen, List, Text, Up};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::{
    identity::{Identity, join},
    link::{Link, dial_ami, hello, observations},
    plane::{Plane, until},
};

const NUMBER: &str = "+48221234567";

/// An agent that lets everything through, which the true one does not.
async fn carry(identity: Identity, mut link: Link, pbx: std::net::SocketAddr) {
    loop {
        let stream = link.asked_for_ami().await;
        let socket = dial_ami(&identity, &stream).await.unwrap();
        tokio::spawn(async move {
            let (mut reading, mut writing) = TcpStream::connect(pbx).await.unwrap().into_split();
            let (mut up, mut down) = socket.split();
            let upwards = async {
                let mut buffer = [0; 4096];
                while let Ok(n) = reading.read(&mut buffer).await
                    && n > 0
                {
                    up.send(Message::Binary(Bytes::copy_from_slice(&buffer[..n]))).await.unwrap();
                }
            };
            let downwards = async {
                while let Some(Ok(message)) = down.next().await {
                    if let Message::Binary(bytes) = message {
                        writing.write_all(&bytes).await.unwrap();
                    }
                }
            };
            tokio::select! { () = upwards => {}, () = downwards => {} }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_the_link_and_the_node_is_lost_with_it() {
    let plane = Plane::start().await;
    let script =
        Script { username: AMI_LINK_USER.to_owned(), secret: AMI_LINK_USER.to_owned(), ..Script::default() };
    let pbx = FakePbx::start(script).await.unwrap();
    pbx.set_ending(NUMBER, Ending::answer());
    let state = async |name: &str| {
        let nodes = plane.get("/admin/v1/nodes").await;
        let node = nodes["data"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone();
        (node["up"].as_bool().unwrap(), node["reason"].as_str().unwrap_or_default().to_owned())
    };
    until("the node to be known as not joined", async || {
        let (state, reason) = state("waw-1").await;
        !state && reason.contains("no agent has joined")
    })
    .await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    let mut seen = observations(1);
    seen.endpoints = List::first([EndpointSeen {
        endpoint: "acme".parse().unwrap(),
        channels: 0,
        contacts: List::first([Contact {
            uri: Text::cut("sip:192.0.2.21:5060"),
            status: ContactStatus::Reachable,
            qualify_rtt_us: Some(800),
            since_ms: 0,
        }]),
        registration: None,
    }]);
    link.send(&Up::Observations(Box::new(seen))).await;
    let agent = tokio::spawn(carry(identity, link, pbx.address()));
    until("the node to be alive", async || state("waw-1").await.0).await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:hello-world"}});
    let (status, call) = plane.post("/admin/v1/calls", &body).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("the call to end", async || !plane.get(&path).await["outcome"].is_null()).await;
    let call = plane.get(&path).await;
    assert_eq!(call["status"], "completed", "{call}");
    assert_eq!(call["attempts"][0]["node"], "waw-1", "{call}");
    assert_eq!(pbx.seen(NUMBER).answers, 1);
    plane.revoke("waw-1").await;
    until("the node to be lost", async || !state("waw-1").await.0).await;
    agent.abort();
}
