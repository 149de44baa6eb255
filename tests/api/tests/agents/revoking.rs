//! Revocation: the link and its AMI streams are cut at once, and the certificate opens nothing any more.

use std::time::Duration;

use futures_util::StreamExt;
use node_agent_protocol::RefusalCode;
use tokio::time::{Instant, timeout};

use crate::{
    identity::join,
    link::{Link, dial_ami, hello},
    plane::{Plane, node},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_is_cut_at_once_and_stays_out_until_it_joins_again() {
    let plane = Plane::start().await;
    let unused = plane.token("waw-1").await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let bystander = join(&plane.token("fra-1").await).await.unwrap();
    let (mut other, ..) = Link::open(&bystander, hello("fra-1")).await;
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    let mut ami = dial_ami(&identity, &link.asked_for_ami().await).await.unwrap();
    let start = Instant::now();
    let answer = plane.revoke("waw-1").await;
    assert_eq!(answer["certificates"], 1);
    assert_eq!(link.refused().await, RefusalCode::Revoked);
    let ami_ends = async { while let Some(Ok(_)) = ami.next().await {} };
    timeout(Duration::from_secs(1), ami_ends).await.expect("the AMI stream is cut as well");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let revoked = Some(Some((403, "certificate_revoked".to_owned())));
    assert_eq!(Link::dial(&identity).await.err(), revoked);
    assert_eq!(identity.renew().await.err(), revoked);
    assert_eq!(join(&unused).await.err(), Some((403, "token_unknown".to_owned())), "taken back");
    let back = join(&plane.token("waw-1").await).await.unwrap();
    let (_link, ..) = Link::open(&back, hello("waw-1")).await;
    assert_eq!(Link::dial(&identity).await.err(), revoked, "the stolen one stays out");
    other.report(&[]).await;
    let actions = plane.audited("waw-1").await;
    assert_eq!(actions, ["node.token", "node.token", "node.join", "node.revoke", "node.token", "node.join"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_another_replica_cuts_the_link_within_seconds() {
    let plane = Plane::start().await;
    let identity = join(&plane.token("waw-1").await).await.unwrap();
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    let actor = controlplane_store::calls::Actor::default();
    let now = controlplane::clock::Clock::system().now();
    let audit_id = controlplane::clock::Chance::from_os().unwrap().audit_id(now);
    plane.store.revoke_node(&node("waw-1"), now, actor, audit_id).await.unwrap();
    assert_eq!(link.refused().await, RefusalCode::Revoked);
}
