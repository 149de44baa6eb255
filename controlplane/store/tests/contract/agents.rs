//! Agents: single-use tokens, certificates that can be revoked, facts that are kept once.

use controlplane_core::{ids::FactId, names::NodeName};
use controlplane_store::agents::{
    AgentFact, IssueCertificate, Issued, NodeCertificate, NodeToken, Sha256, Warrant,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

async fn token(f: &mut Fixture, secret: u8, of: &str) -> Warrant {
    let token = NodeToken {
        secret_sha256: [secret; 32],
        node: node(of),
        created_at: NOON,
        expires_at: NOON + Duration::hours(1),
        used_at: None,
    };
    let audit_id = f.audit_id();
    f.store.create_node_token(token.clone(), system(), audit_id).await.unwrap();
    assert_eq!(f.store.node_token(&token.secret_sha256).await.unwrap(), Some(token));
    Warrant::Token([secret; 32])
}

fn issue(f: &mut Fixture, warrant: &Warrant, of: &str, print: u8, at: OffsetDateTime) -> IssueCertificate {
    let certificate = NodeCertificate {
        fingerprint: [print; 32],
        node: node(of),
        issued_at: at,
        expires_at: at + Duration::days(30),
        revoked_at: None,
    };
    IssueCertificate { warrant: warrant.clone(), certificate, actor: system(), audit_id: f.audit_id() }
}

async fn issued(f: &mut Fixture, warrant: &Warrant, of: &str, print: u8, at: OffsetDateTime) -> Issued {
    let issue = issue(f, warrant, of, print, at);
    let certificate = issue.certificate.clone();
    let answer = f.store.issue_certificate(issue).await.unwrap();
    let found = f.store.node_certificate(&certificate.fingerprint).await.unwrap();
    assert_eq!(found, (answer == Issued::Done).then_some(certificate), "only what is done is written");
    answer
}

async fn revoke(f: &mut Fixture, of: &str, at: OffsetDateTime) -> u64 {
    let audit_id = f.audit_id();
    f.store.revoke_node(&node(of), at, system(), audit_id).await.unwrap()
}

pub(crate) async fn a_token_is_used_once_by_its_node_in_its_time(mut f: Fixture) {
    let warrant = token(&mut f, 1, "waw-1").await;
    let unknown = Warrant::Token([9; 32]);
    assert_eq!(issued(&mut f, &unknown, "waw-1", 1, NOON).await, Issued::Unknown);
    assert_eq!(issued(&mut f, &warrant, "waw-2", 1, NOON).await, Issued::OtherNode);
    let late = NOON + Duration::hours(1);
    assert_eq!(issued(&mut f, &warrant, "waw-1", 1, late).await, Issued::Expired);
    assert_eq!(issued(&mut f, &warrant, "waw-1", 1, NOON).await, Issued::Done);
    assert_eq!(issued(&mut f, &warrant, "waw-1", 2, NOON).await, Issued::Used);
    assert_eq!(issued(&mut f, &warrant, "waw-1", 2, late).await, Issued::Used);
    let mut actions: Vec<_> = f.store.audit(10).await.unwrap().into_iter().map(|r| r.action).collect();
    actions.sort();
    assert_eq!(actions, ["node.join", "node.token"]);
}

pub(crate) async fn twenty_joins_with_one_token_are_one(mut f: Fixture) {
    let warrant = token(&mut f, 1, "waw-1").await;
    let work = (0..20).map(|print| {
        let (issue, store) = (issue(&mut f, &warrant, "waw-1", print, NOON), f.store.clone());
        async move { store.issue_certificate(issue).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|a| **a == Issued::Done).count(), 1);
    assert_eq!(answers.iter().filter(|a| **a == Issued::Used).count(), 19);
    assert_eq!(f.count("SELECT count(*) FROM node_certificate").await, 1);
}

pub(crate) async fn a_certificate_is_renewed_until_it_is_revoked_or_over(mut f: Fixture) {
    let warrant = token(&mut f, 1, "waw-1").await;
    assert_eq!(issued(&mut f, &warrant, "waw-1", 1, NOON).await, Issued::Done);
    let held = Warrant::Certificate([1; 32]);
    assert_eq!(issued(&mut f, &held, "waw-2", 2, NOON).await, Issued::OtherNode);
    assert_eq!(issued(&mut f, &held, "waw-1", 2, NOON + Duration::days(30)).await, Issued::Expired);
    assert_eq!(issued(&mut f, &held, "waw-1", 2, NOON + Duration::days(20)).await, Issued::Done);
    assert_eq!(revoke(&mut f, "waw-1", NOON + Duration::days(21)).await, 2);
    for held in [1, 2] {
        let held = Warrant::Certificate([held; 32]);
        assert_eq!(issued(&mut f, &held, "waw-1", 3, NOON + Duration::days(22)).await, Issued::Revoked);
    }
    let unknown = Warrant::Certificate([7; 32]);
    assert_eq!(issued(&mut f, &unknown, "waw-1", 3, NOON).await, Issued::Unknown);
}

pub(crate) async fn a_revoked_node_s_certificates_and_tokens_are_worth_nothing(mut f: Fixture) {
    let first = token(&mut f, 1, "waw-1").await;
    let second = token(&mut f, 2, "waw-1").await;
    let other = token(&mut f, 3, "waw-2").await;
    assert_eq!(issued(&mut f, &first, "waw-1", 1, NOON).await, Issued::Done);
    assert_eq!(issued(&mut f, &other, "waw-2", 2, NOON).await, Issued::Done);
    let at = NOON + Duration::minutes(1);
    assert_eq!(revoke(&mut f, "waw-1", at).await, 1);
    assert_eq!(revoke(&mut f, "waw-1", at).await, 0);
    assert_eq!(issued(&mut f, &second, "waw-1", 3, at).await, Issued::Unknown);
    let revoked = f.store.node_certificate(&[1; 32]).await.unwrap().unwrap();
    assert_eq!(revoked.revoked_at, Some(at));
    let none: Vec<Sha256> = Vec::new();
    assert_eq!(f.store.revoked_certificates(at).await.unwrap(), [[1; 32]]);
    assert_eq!(f.store.revoked_certificates(NOON + Duration::days(30)).await.unwrap(), none);
    assert!(f.store.node_certificate(&[2; 32]).await.unwrap().unwrap().revoked_at.is_none());
    let third = token(&mut f, 4, "waw-1").await;
    assert_eq!(issued(&mut f, &third, "waw-1", 4, at).await, Issued::Done, "it may come back by a new token");
}

pub(crate) async fn facts_are_kept_once_each_and_apart_by_node(mut f: Fixture) {
    let fact = |f: &mut Fixture, body| AgentFact {
        id: FactId::new(NOON, &mut f.rng),
        kind: "finding".to_owned(),
        at_ms: i64::MAX,
        body,
    };
    let first = fact(&mut f, json!({"finding": "nul \u{0} and Ü"}));
    let second = fact(&mut f, json!(null));
    let (waw, fra) = (node("waw-1"), node("fra-1"));
    let kept = f.store.keep_facts(&waw, vec![first.clone(), first.clone()], NOON).await.unwrap();
    assert_eq!(kept, 1);
    let later = NOON + Duration::seconds(1);
    let altered = AgentFact { body: json!("altered"), ..first.clone() };
    assert_eq!(f.store.keep_facts(&waw, vec![altered, second.clone()], later).await.unwrap(), 1);
    assert_eq!(f.store.keep_facts(&fra, vec![first.clone()], later).await.unwrap(), 1);
    let of_waw = f.store.agent_facts(Some(&waw), 10).await.unwrap();
    assert_eq!(of_waw.iter().map(|k| k.fact.clone()).collect::<Vec<_>>(), [second, first]);
    assert_eq!((of_waw[0].received_at, of_waw[1].received_at), (later, NOON));
    assert_eq!(f.store.agent_facts(None, 2).await.unwrap().len(), 2);
    let other = AgentFact { kind: "firewall".to_owned(), ..fact(&mut f, json!({"event": "on_trial"})) };
    f.store.keep_facts(&waw, vec![other.clone()], later).await.unwrap();
    let of_kinds = async |node, kinds: &[&str]| {
        let facts = f.store.facts_of_kinds(node, kinds, 10).await.unwrap();
        facts.into_iter().map(|kept| kept.fact.kind).collect::<Vec<_>>()
    };
    assert_eq!(of_kinds(&waw, &["firewall", "none"]).await, ["firewall"]);
    assert_eq!(of_kinds(&waw, &["firewall", "finding"]).await, ["firewall", "finding", "finding"]);
    assert_eq!(of_kinds(&fra, &["firewall"]).await, Vec::<String>::new());
}

pub(crate) async fn the_past_is_erased_and_the_present_stays(mut f: Fixture) {
    let warrant = token(&mut f, 1, "waw-1").await;
    assert_eq!(issued(&mut f, &warrant, "waw-1", 1, NOON).await, Issued::Done);
    let id = FactId::new(NOON, &mut f.rng);
    let fact = AgentFact { id, kind: "finding".to_owned(), at_ms: 0, body: json!({}) };
    f.store.keep_facts(&node("waw-1"), vec![fact], NOON).await.unwrap();
    assert_eq!(f.store.erase_agents_past(NOON).await.unwrap(), 0);
    assert_eq!(f.store.erase_agents_past(NOON + Duration::days(1)).await.unwrap(), 2, "token and fact");
    assert!(f.store.node_certificate(&[1; 32]).await.unwrap().is_some());
    assert_eq!(f.store.erase_agents_past(NOON + Duration::days(31)).await.unwrap(), 1);
}
