//! One agent that says too much does not starve the others, nor the strangers who may join.

use std::time::Duration;

use node_agent_protocol::{
    BarAnswer, Contact, ContactStatus, EndpointSeen, FACTS_PER_MESSAGE, List, Text, Up, encode,
};
use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    identity::join,
    link::{Link, attempt, fact, hello, observations},
    plane::{Plane, node, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_one_agent_holds_up_no_other() {
    let plane = Plane::start().await;
    let loud = join(&plane.token("waw-1").await).await.unwrap();
    let quiet = join(&plane.token("fra-1").await).await.unwrap();
    let (mut flooding, ..) = Link::open(&loud, hello("waw-1")).await;
    let (mut link, ..) = Link::open(&quiet, hello("fra-1")).await;
    let contact = Contact {
        uri: Text::cut(&"x".repeat(256)),
        status: ContactStatus::Reachable,
        qualify_rtt_us: None,
        since_ms: 0,
    };
    let endpoint = |n| EndpointSeen {
        endpoint: format!("e{n}").parse().unwrap(),
        channels: 0,
        contacts: List::first(std::iter::repeat_n(contact.clone(), 4)),
        registration: None,
    };
    let mut large = observations(1);
    large.endpoints = List::first((0..400).map(endpoint));
    let large = encode(&Up::Observations(Box::new(large))).unwrap();
    let facts = (0..FACTS_PER_MESSAGE).map(|n| fact(n as u64, json!({"text": "x".repeat(2_000)})));
    let facts = encode(&Up::Facts { facts: List::first(facts) }).unwrap();
    assert!(large.len() > 400_000 && facts.len() > 400_000);
    let flood = tokio::spawn(async move {
        loop {
            flooding.text(large.clone()).await;
            flooding.text(facts.clone()).await;
        }
    });
    let mut slowest = Duration::ZERO;
    for n in 0..100 {
        let start = Instant::now();
        let asked = tokio::spawn({
            let links = plane.links();
            async move { links.bar(&node("fra-1"), &attempt(n), None).await }
        });
        link.answer_bar(BarAnswer::Barred).await;
        assert_eq!(asked.await.unwrap(), BarAnswer::Barred);
        link.report(&[fact(1_000 + n, json!({}))]).await;
        slowest = slowest.max(start.elapsed());
    }
    assert!(!flood.is_finished(), "it goes on all the while");
    assert!(slowest < Duration::from_secs(1), "{slowest:?} (with the pace of a node's own facts, 0.1 s)");
    let start = Instant::now();
    plane.revoke("waw-1").await;
    until("the flood to be cut", async || plane.agent("waw-1").await["linked"] == false).await;
    assert!(start.elapsed() < Duration::from_secs(1), "in the midst of it: {:?}", start.elapsed());
    flood.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_stall_are_few_and_soon_gone() {
    let plane = Plane::start().await;
    let token = plane.token("waw-1").await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        stalled.push(TcpStream::connect(plane.app.agents).await.unwrap());
    }
    let mut at_once = 0;
    for stream in &mut stalled {
        let mut byte = [0];
        if let Ok(read) = timeout(Duration::from_millis(20), stream.read(&mut byte)).await {
            assert!(matches!(read, Ok(0) | Err(_)));
            at_once += 1;
        }
    }
    assert_eq!(at_once, 50 - 8, "all but a few are closed at once");
    // Those are closed when their handshake takes too long.
    tokio::time::sleep(Duration::from_secs(6)).await;
    join(&token).await.unwrap();
}
