//! Facts: acknowledged when durable, kept once however often they come.

use serde_json::json;

use crate::{
    identity::join,
    link::{Link, fact, hello},
    plane::{Plane, node},
};

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_acknowledged_and_kept_once_over_links_and_restarts() {
    let plane = Plane::start().await;
    let mut identity = join(&plane.token("waw-1").await).await.unwrap();
    let facts: Vec<_> = (0..3).map(|n| fact(n, json!({"n": n, "text": "nul \u{0}"}))).collect();
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    link.report(&facts[..2]).await;
    link.report(&facts).await;
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    link.report(&facts).await;
    drop(link);
    let plane = plane.restart().await;
    identity.url = format!("https://{}", plane.app.agents).parse().unwrap();
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    link.report(&facts).await;
    let kept = plane.store.agent_facts(Some(&node("waw-1")), 10).await.unwrap();
    assert_eq!(kept.len(), 3);
    let shown = plane.agent("waw-1").await;
    assert_eq!(shown["facts"].as_array().unwrap().len(), 3, "{shown}");
}
