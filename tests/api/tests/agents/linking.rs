//! The link: who is welcome, state both ways, and how it ends.

use std::time::Duration;

use controlplane_core::ids::StreamId;
use node_agent_protocol::{
    BarAnswer, Capabilities, Capability, Down, FindingSeen, List, RefusalCode, Text, Up,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    identity::join,
    link::{Link, attempt, dial_ami, hello, observations},
    plane::{FLEET, Plane, node, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_welcome_and_told_what_it_lacks() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let mut link = Link::dial(&identity).await.unwrap();
    let text = r#"{"kind":"hello","protocol":1,"agent_version":"0.0.1","node":"waw-1","incarnation":"a","capabilities":["ami"]}"#;
    link.text(text.to_owned()).await;
    let Some(Down::Welcome(welcome)) = link.next().await else { panic!("not welcome") };
    assert!(welcome.lacking.has(Capability::Bar) && !welcome.lacking.has(Capability::Ami));
    link.text(r#"{"kind":"weather","sun":true}"#.to_owned()).await;
    link.send(&Up::Observations(Box::new(observations(1)))).await;
    until("the snapshot after what is unknown", async || {
        plane.agent("waw-1").await["observed_ms_ago"].is_u64()
    })
    .await;
    let agent = plane.agent("waw-1").await;
    assert_eq!(agent["unknown_messages"], 1);
    assert_eq!(agent["agent_version"], "0.0.1");
    assert!(agent["lacking"].as_array().unwrap().contains(&"bar".into()), "{agent}");
    assert_eq!(plane.links().bar(&node("waw-1"), &attempt(1), None).await, BarAnswer::Unknown, "it cannot");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_understood_or_not_who_it_says_is_refused() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let mut newer = hello("waw-1");
    (newer.protocol, newer.protocol_oldest) = (9, Some(8));
    for (hello, code) in [(newer, RefusalCode::Protocol), (hello("fra-1"), RefusalCode::WrongNode)] {
        let mut link = Link::dial(&identity).await.unwrap();
        link.send(&Up::Hello(hello)).await;
        assert_eq!(link.refused().await, code);
    }
    for text in ["{}", "not JSON", r#"{"kind":"observations"}"#] {
        let mut link = Link::dial(&identity).await.unwrap();
        link.text(text.to_owned()).await;
        assert_eq!(link.refused().await, RefusalCode::Violation);
    }
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    link.send(&Up::Hello(hello("waw-1"))).await;
    assert_eq!(link.refused().await, RefusalCode::Violation, "twice");
    until("the node to be without a link", async || plane.agent("waw-1").await["linked"] == false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_snapshot_counts_and_its_age_is_shown() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    let mut late = observations(5);
    late.taken_ms_ago = 60_000;
    late.findings = List::first([FindingSeen {
        finding: Text::cut("endpoint_missing"),
        subject: Text::cut("acme"),
        fix: Text::cut("Put it into pjsip.conf"),
    }]);
    for snapshot in [late.clone(), observations(4)] {
        link.send(&Up::Observations(Box::new(snapshot))).await;
    }
    let revision = async || plane.agent("waw-1").await["observations"]["revision"].clone();
    until("revision 5", async || revision().await == 5).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let agent = plane.agent("waw-1").await;
    assert_eq!(agent["observations"]["revision"], 5, "an older one is ignored");
    assert!((60_000..70_000).contains(&agent["observed_ms_ago"].as_u64().unwrap()), "{agent}");
    let metrics = plane.metrics().await;
    assert!(metrics.contains("ringward_agent_linked{node=\"waw-1\"} 1"), "{metrics}");
    assert!(metrics.contains("ringward_agent_linked{node=\"fra-1\"} 0"), "{metrics}");
    assert!(metrics.contains("ringward_agent_observed_age_seconds{node=\"waw-1\"} 6"), "{metrics}");
    assert!(metrics.contains("ringward_agent_findings{node=\"waw-1\"} 1"), "{metrics}");
    assert_eq!(agent["findings"][0]["fix"], "Put it into pjsip.conf", "{agent}");
    drop(link);
    until("the link to be gone", async || plane.agent("waw-1").await["linked"] == false).await;
    assert_eq!(revision().await, 5, "what was last seen stays readable");
    // The agent was started again: its revisions begin anew.
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    link.send(&Up::Observations(Box::new(observations(1)))).await;
    until("revision 1", async || revision().await == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_fleet_reaches_the_gate_and_an_undeclared_node_is_out() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (mut link, _, policy) = Link::open(&identity, hello("waw-1")).await;
    let changed = FLEET.replacen("endpoint = \"acme\"", "endpoint = \"acme\"\nchannels_max = 7", 1);
    plane.apply(&changed).await;
    let Some(Down::Policy(next)) = link.next().await else { panic!("no policy") };
    assert!(next.revision > policy.revision);
    assert_eq!((next.trunks[0].channels_max, next.channels_max), (7, 7));
    let fra = FLEET.replace("[[node]]\nname = \"waw-1\"\n", "").replace("\"acme-waw-1\", ", "");
    let at = fra.find("[[trunk]]").unwrap();
    let next = at + fra[at + 1..].find("[[trunk]]").unwrap() + 1;
    plane.apply(&format!("{}{}", &fra[..at], &fra[next..])).await;
    assert_eq!(link.refused().await, RefusalCode::UnknownNode);
    let refused = Link::dial(&identity).await.err();
    assert_eq!(refused, Some(Some((403, "node_not_declared".to_owned()))));
    plane.apply(FLEET).await;
    let (_link, ..) = Link::open(&identity, hello("waw-1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_link_takes_the_place_of_an_older() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (mut first, ..) = Link::open(&identity, hello("waw-1")).await;
    let (mut second, ..) = Link::open(&identity, hello("waw-1")).await;
    assert_eq!(first.refused().await, RefusalCode::Replaced);
    let (links, waw) = (plane.links(), node("waw-1"));
    let asked = tokio::spawn(async move { links.bar(&waw, &attempt(1), None).await });
    assert_eq!(second.answer_bar(BarAnswer::Barred).await, attempt(1));
    assert_eq!(asked.await.unwrap(), BarAnswer::Barred);
}

#[tokio::test(flavor = "multi_thread")]
async fn bar_answers_in_time_or_is_unknown() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (links, waw) = (plane.links(), node("waw-1"));
    assert_eq!(links.bar(&waw, &attempt(1), None).await, BarAnswer::Unknown, "no link");
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    for answer in [BarAnswer::Admitted, BarAnswer::Barred, BarAnswer::Unknown] {
        let asked = tokio::spawn({
            let (links, waw) = (links.clone(), waw.clone());
            async move { links.bar(&waw, &attempt(2), None).await }
        });
        link.answer_bar(answer).await;
        assert_eq!(asked.await.unwrap(), answer);
    }
    let start = Instant::now();
    assert_eq!(links.bar(&waw, &attempt(3), None).await, BarAnswer::Unknown, "no answer");
    assert!(start.elapsed() < Duration::from_secs(4));
    let asked = tokio::spawn(async move { links.bar(&waw, &attempt(4), None).await });
    let Some(Down::Bar { .. }) = link.next().await else { panic!("no bar") };
    let Some(Down::Bar { .. }) = link.next().await else { panic!("no bar") };
    let start = Instant::now();
    drop(link);
    assert_eq!(asked.await.unwrap(), BarAnswer::Unknown, "the link is gone");
    assert!(start.elapsed() < Duration::from_secs(1), "and that is known at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ami_stream_is_dialled_by_who_was_asked_alone() {
    let plane = Plane::start().await;
    let waw = join(&plane.token("waw-1").await).await.unwrap();
    let fra = join(&plane.token("fra-1").await).await.unwrap();
    let mut blind = hello("fra-1");
    blind.capabilities = Capabilities::default();
    let (_fra_link, ..) = Link::open(&fra, blind).await;
    let (mut link, ..) = Link::open(&waw, hello("waw-1")).await;
    let not_found = Some(Some((404, "not_found".to_owned())));
    let unasked = StreamId::new(&mut StdRng::seed_from_u64(1));
    assert_eq!(dial_ami(&waw, &unasked).await.err(), not_found);
    let asked = link.asked_for_ami().await;
    assert_eq!(dial_ami(&fra, &asked).await.err(), not_found, "another node's");
    let _stream = dial_ami(&waw, &asked).await.unwrap();
    assert_eq!(dial_ami(&waw, &asked).await.err(), not_found, "once");
    // The stream speaks no AMI: the next is asked for, and the agent says that it cannot.
    drop(_stream);
    let stream_id = link.asked_for_ami().await;
    link.send(&Up::AmiRefused { stream_id, reason: Text::cut("Asterisk is down") }).await;
    until("the reason to be shown", async || {
        let nodes = plane.get("/admin/v1/nodes").await;
        let reason = |name: &str| {
            let node = nodes["data"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap();
            node["reason"].as_str().unwrap_or_default().to_owned()
        };
        reason("waw-1").contains("Asterisk is down") && reason("fra-1").contains("lacks the capability `ami`")
    })
    .await;
}
