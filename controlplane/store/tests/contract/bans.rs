//! Bans: one list, a revision for every change, what nodes report and refuse.

use controlplane_core::{
    ids::{AuditId, FactId},
    names::NodeName,
};
use controlplane_store::{
    agents::AgentFact,
    bans::{
        BANS_OF_NODE_MAX, BanFact, BanReport, Changes, Entry, EntryPage, LiftEntry, ListKind, NewEntry, Put,
        PutEntries,
    },
};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn entry(net: &str, seconds: Option<i64>) -> NewEntry {
    NewEntry {
        net: net.parse().unwrap(),
        origin: "control_plane".to_owned(),
        author: "operator".to_owned(),
        reason: "scans".to_owned(),
        jail: None,
        evidence: Some("12 of INVITE".to_owned()),
        source: None,
        expires_at: seconds.map(|seconds| NOON + Duration::seconds(seconds)),
    }
}

fn put_of(f: &mut Fixture, kind: ListKind, entries: Vec<NewEntry>, at: OffsetDateTime) -> PutEntries {
    PutEntries { kind, entries, at, actor: system(), audit_id: f.audit_id() }
}

async fn put(f: &mut Fixture, kind: ListKind, entries: Vec<NewEntry>) -> Put {
    let put = put_of(f, kind, entries, NOON);
    f.store.put_entries(put).await.unwrap()
}

async fn lift(f: &mut Fixture, kind: ListKind, net: &str) -> bool {
    let (reason, audit_id) = (Some("mistake".to_owned()), f.audit_id());
    let lift = LiftEntry { kind, net: net.parse().unwrap(), at: NOON, reason, actor: system(), audit_id };
    f.store.lift_entry(lift).await.unwrap()
}

async fn since(f: &Fixture, after: i64) -> Changes {
    f.store.ban_changes(after, 1_000).await.unwrap()
}

fn nets(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.entry.net.to_string()).collect()
}

async fn held(f: &Fixture, kind: ListKind, at: OffsetDateTime) -> Vec<String> {
    let page = EntryPage { limit: 1_000, ..EntryPage::default() };
    nets(&f.store.entries(kind, page, at).await.unwrap())
}

fn fact(f: &mut Fixture, report: Option<BanReport>) -> BanFact {
    let id = FactId::new(NOON, &mut f.rng);
    BanFact { fact: AgentFact { id, kind: "ban".to_owned(), at_ms: 1, body: json!({"net": "x"}) }, report }
}

fn made(net: &str, origin: &str, seconds: Option<i64>) -> BanReport {
    BanReport::Made(NewEntry { origin: origin.to_owned(), ..entry(net, seconds) })
}

pub(crate) async fn a_ban_is_made_made_longer_and_lifted_each_with_its_revision(mut f: Fixture) {
    let none = since(&f, 0).await;
    assert_eq!((none.head, none.lifts_known_from, none.entries.len(), none.list.len()), (0, 0, 0, 32));
    let done = |changed| Put::Done { changed, lifted: 0 };
    assert_eq!(put(&mut f, ListKind::Ban, vec![entry("203.0.113.9/32", Some(600))]).await, done(1));
    let first = since(&f, 0).await;
    let made = &first.entries[0];
    assert_eq!((made.entry.clone(), made.created_at), (entry("203.0.113.9/32", Some(600)), NOON));
    assert_eq!((made.kind, made.revision, made.lift_revision), (ListKind::Ban, first.head, None));
    // Shorter changes nothing; longer keeps its beginning; for ever beats all.
    assert_eq!(put(&mut f, ListKind::Ban, vec![entry("203.0.113.9/32", Some(60))]).await, done(0));
    assert!(since(&f, first.head).await.entries.is_empty());
    let longer = put_of(
        &mut f,
        ListKind::Ban,
        vec![
            entry("203.0.113.9/32", Some(900)),
            entry("203.0.113.9/32", None),
            entry("203.0.113.9/32", Some(5)),
        ],
        NOON + Duration::seconds(5),
    );
    assert_eq!(f.store.put_entries(longer).await.unwrap(), done(1));
    let now = since(&f, first.head).await;
    let ban = &now.entries[0];
    assert_eq!(
        (ban.created_at, ban.changed_at, ban.entry.expires_at),
        (NOON, NOON + Duration::seconds(5), None)
    );
    assert!(ban.revision > first.head && now.head >= ban.revision && now.list == first.list);
    assert!(lift(&mut f, ListKind::Ban, "203.0.113.9/32").await);
    assert!(!lift(&mut f, ListKind::Ban, "203.0.113.9/32").await);
    assert!(!lift(&mut f, ListKind::Allow, "203.0.113.9/32").await);
    let lifted = since(&f, now.head).await;
    assert_eq!(
        (lifted.entries[0].lifted_at, lifted.entries[0].lift_revision),
        (Some(NOON), Some(lifted.entries[0].revision))
    );
    assert_eq!(held(&f, ListKind::Ban, NOON).await, [""; 0]);
    assert_eq!(f.store.ban_revision().await.unwrap(), lifted.head);
    let audit = f.store.audit(20).await.unwrap();
    let mut actions: Vec<_> =
        audit.iter().map(|row| (row.action.as_str(), row.record.target_id.as_str())).collect();
    actions.sort_unstable();
    let net = "203.0.113.9/32";
    assert_eq!(actions, [("ban.add", net), ("ban.add", net), ("ban.import", "list"), ("ban.remove", net)]);
}

pub(crate) async fn who_was_away_hears_of_a_lift_and_of_the_shorter_ban_after_it(mut f: Fixture) {
    put(&mut f, ListKind::Ban, vec![entry("203.0.113.9/32", None)]).await;
    let away = since(&f, 0).await.head;
    lift(&mut f, ListKind::Ban, "203.0.113.9/32").await;
    put(&mut f, ListKind::Ban, vec![entry("203.0.113.9/32", Some(60))]).await;
    let back = since(&f, away).await;
    let ban = &back.entries[0];
    assert!(
        ban.holds(NOON) && ban.lift_revision.unwrap() > away && ban.revision > ban.lift_revision.unwrap()
    );
    // What ended by itself is made anew as if it had never been.
    let later = NOON + Duration::seconds(61);
    let renewed =
        NewEntry { expires_at: Some(later + Duration::seconds(5)), ..entry("203.0.113.9/32", None) };
    let renew = put_of(&mut f, ListKind::Ban, vec![renewed], later);
    assert_eq!(f.store.put_entries(renew).await.unwrap(), Put::Done { changed: 1, lifted: 0 });
    assert_eq!(since(&f, back.head).await.entries[0].created_at, later);
}

pub(crate) async fn an_allowance_lifts_the_bans_that_it_touches(mut f: Fixture) {
    let bans = ["203.0.113.9/32", "203.0.113.64/26", "203.0.0.0/16", "198.51.100.1/32", "2001:db8:1::/64"];
    put(&mut f, ListKind::Ban, bans.map(|net| entry(net, None)).to_vec()).await;
    let before = since(&f, 0).await.head;
    let allowed = put(&mut f, ListKind::Allow, vec![entry("203.0.113.0/25", Some(600))]).await;
    assert_eq!(allowed, Put::Done { changed: 1, lifted: 3 });
    let mut left = held(&f, ListKind::Ban, NOON).await;
    left.sort();
    assert_eq!(left, ["198.51.100.1/32", "2001:db8:1::/64"]);
    assert_eq!(held(&f, ListKind::Allow, NOON).await, ["203.0.113.0/25"]);
    assert_eq!(held(&f, ListKind::Allow, NOON + Duration::seconds(600)).await, [""; 0]);
    assert_eq!(since(&f, before).await.entries.len(), 4);
    let of = ["203.0.113.0/25", "198.51.100.1/32", "203.0.113.9/32"].map(|net| net.parse().unwrap());
    let found = f.store.entries_of(&of, NOON).await.unwrap();
    assert_eq!(nets(&found), ["203.0.113.0/25", "198.51.100.1/32"]);
}

/// An id that no other row has.
fn row_id() -> AuditId {
    AuditId::new(NOON, &mut StdRng::from_os_rng())
}

pub(crate) async fn a_node_s_fact_bans_once_and_lifts_only_its_own(mut f: Fixture) {
    let (waw, fra) = (node("waw-1"), node("fra-1"));
    let facts = vec![fact(&mut f, Some(made("203.0.113.9/32", "waw-1", Some(600)))), fact(&mut f, None)];
    let take = |node: NodeName, facts: Vec<BanFact>| {
        let store = f.store.clone();
        async move { store.take_ban_facts(&node, facts, NOON, row_id()).await.unwrap() }
    };
    let first = take(waw.clone(), facts.clone()).await;
    assert_eq!((first.new, first.changed, first.full), (2, 1, 0));
    let lifted = BanReport::Lifted("203.0.113.9/32".parse().unwrap());
    let by_fra = vec![fact(&mut f, Some(lifted.clone()))];
    let take = |node: NodeName, facts: Vec<BanFact>| {
        let store = f.store.clone();
        async move { store.take_ban_facts(&node, facts, NOON, row_id()).await.unwrap() }
    };
    assert_eq!(take(fra, by_fra).await.changed, 0);
    assert_eq!(held(&f, ListKind::Ban, NOON).await, ["203.0.113.9/32"]);
    let by_waw = vec![fact(&mut f, Some(lifted))];
    let store = f.store.clone();
    assert_eq!(store.take_ban_facts(&waw, by_waw, NOON, row_id()).await.unwrap().changed, 1);
    // The first fact comes once more, its acknowledgement was lost: it bans nobody again.
    let again = store.take_ban_facts(&waw, facts, NOON, row_id()).await.unwrap();
    assert_eq!((again.new, again.changed), (0, 0));
    assert_eq!(held(&f, ListKind::Ban, NOON).await, [""; 0]);
    assert_eq!(store.agent_facts(Some(&waw), 10).await.unwrap().len(), 3);
    let both = vec![
        fact(&mut f, Some(made("203.0.113.10/32", "waw-1", None))),
        fact(&mut f, Some(BanReport::Lifted("203.0.113.10/32".parse().unwrap()))),
    ];
    store.take_ban_facts(&waw, both, NOON, row_id()).await.unwrap();
    assert_eq!(held(&f, ListKind::Ban, NOON).await, [""; 0]);
    // What changed something is in the audit log, as the node's.
    let rows = store.audit(10).await.unwrap();
    let of_node = rows.iter().filter(|row| row.action == "ban.report");
    assert_eq!(of_node.clone().count(), 2);
    assert!(
        of_node.clone().all(|row| row.actor.node == Some(waw.clone()) && row.record.actor_type == "agent")
    );
}

pub(crate) async fn refusals_are_kept_until_their_ban_is_over(mut f: Fixture) {
    put(&mut f, ListKind::Ban, vec![entry("203.0.113.9/32", Some(60)), entry("203.0.113.10/32", None)]).await;
    for (name, net) in
        [("waw-1", "203.0.113.9/32"), ("fra-1", "203.0.113.9/32"), ("fra-1", "203.0.113.10/32")]
    {
        for reason in ["touches an office", "touches 203.0.113.0/28 (own)"] {
            let report = BanReport::Refused { net: net.parse().unwrap(), reason: reason.to_owned() };
            let facts = vec![fact(&mut f, Some(report))];
            f.store.take_ban_facts(&node(name), facts, NOON, row_id()).await.unwrap();
        }
    }
    let all = f.store.ban_refusals(None, 10).await.unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|refusal| refusal.reason.contains("(own)") && refusal.refused_at == NOON));
    let of = ["203.0.113.9/32".parse().unwrap()];
    let of = f.store.ban_refusals(Some(&of), 10).await.unwrap();
    assert_eq!(of.iter().map(|refusal| refusal.node.to_string()).collect::<Vec<_>>(), ["fra-1", "waw-1"]);
    f.store.prune_bans(NOON + Duration::seconds(61), NOON).await.unwrap();
    let left = f.store.ban_refusals(None, 10).await.unwrap();
    assert_eq!(left.iter().map(|refusal| refusal.net.to_string()).collect::<Vec<_>>(), ["203.0.113.10/32"]);
}

pub(crate) async fn what_is_over_is_pruned_and_forgotten_lifts_are_told(mut f: Fixture) {
    let bans =
        [entry("203.0.113.1/32", Some(60)), entry("203.0.113.2/32", None), entry("203.0.113.3/32", None)];
    put(&mut f, ListKind::Ban, bans.to_vec()).await;
    lift(&mut f, ListKind::Ban, "203.0.113.2/32").await;
    // Lifted once, then banned for a while: that it was lifted is known as long as any lift.
    lift(&mut f, ListKind::Ban, "203.0.113.3/32").await;
    put(&mut f, ListKind::Ban, vec![entry("203.0.113.3/32", Some(60))]).await;
    let head = since(&f, 0).await.head;
    let later = NOON + Duration::hours(1);
    assert_eq!(f.store.prune_bans(later, NOON).await.unwrap(), 1);
    let kept = since(&f, 0).await;
    assert_eq!(
        (nets(&kept.entries), kept.lifts_known_from),
        (vec!["203.0.113.2/32".to_owned(), "203.0.113.3/32".to_owned()], 0)
    );
    assert_eq!(f.store.prune_bans(later, later).await.unwrap(), 2);
    let none = since(&f, 0).await;
    assert_eq!((none.entries.len(), none.head), (0, head));
    assert!(none.lifts_known_from > 0 && none.lifts_known_from < head, "{none:?}");
}

pub(crate) async fn lists_are_filtered_and_go_on_at_a_cursor(mut f: Fixture) {
    let of_list =
        |n: u8| NewEntry { source: Some("scanners".to_owned()), ..entry(&format!("203.0.113.{n}/32"), None) };
    put(&mut f, ListKind::Ban, (0..5).map(of_list).collect()).await;
    put(&mut f, ListKind::Ban, vec![entry("198.51.100.1/32", None)]).await;
    let of_node = vec![fact(&mut f, Some(made("198.51.100.2/32", "waw-1", None)))];
    f.store.take_ban_facts(&node("waw-1"), of_node, NOON, row_id()).await.unwrap();
    let page = async |page: EntryPage| f.store.entries(ListKind::Ban, page, NOON).await.unwrap();
    let source = Some("scanners".to_owned());
    let first = page(EntryPage { source: source.clone(), limit: 3, ..EntryPage::default() }).await;
    assert_eq!(nets(&first), ["203.0.113.4/32", "203.0.113.3/32", "203.0.113.2/32"]);
    let before = Some(first[2].revision);
    let second = page(EntryPage { source, before, limit: 3, ..EntryPage::default() }).await;
    assert_eq!(nets(&second), ["203.0.113.1/32", "203.0.113.0/32"]);
    let origin = Some("waw-1".to_owned());
    assert_eq!(
        nets(&page(EntryPage { origin, limit: 3, ..EntryPage::default() }).await),
        ["198.51.100.2/32"]
    );
    let mut counts = f.store.entry_counts(NOON).await.unwrap();
    counts.sort();
    let ban = ListKind::Ban;
    assert_eq!(counts, [(ban, "control_plane".to_owned(), 6), (ban, "waw-1".to_owned(), 1)]);
    assert_eq!(f.store.entry_nets(ListKind::Ban, NOON).await.unwrap().len(), 7);
    // Written in one moment: in no order.
    let audit = f.store.audit(5).await.unwrap();
    let mut actions: Vec<_> =
        audit.iter().map(|row| (row.action.as_str(), row.record.target_id.as_str())).collect();
    actions.sort_unstable();
    assert_eq!(
        actions,
        [("ban.add", "198.51.100.1/32"), ("ban.import", "scanners"), ("ban.report", "waw-1")]
    );
}

pub(crate) async fn a_node_does_not_fill_the_list_of_all(mut f: Fixture) {
    // As many rows as a node may have, without writing each through the port.
    let (revision, net) = match f.moment(NOON).parse::<i64>() {
        Ok(_) => ("n", "printf('10.%d.%d.%d/32', n / 65536, n / 256 % 256, n % 256)"),
        Err(_) => ("n", "format('10.%s.%s.%s/32', n / 65536, n / 256 % 256, n % 256)"),
    };
    let at = f.moment(NOON);
    let rows = BANS_OF_NODE_MAX - 1;
    f.execute(&format!(
        "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {rows})
         INSERT INTO ban_list (kind, net, origin, author, reason, created_at, changed_at, revision)
         SELECT 'ban', {net}, 'waw-1', 'jail sip', '', {at}, {at}, {revision} FROM t"
    ))
    .await
    .unwrap();
    f.execute(&format!("UPDATE ban_head SET revision = {rows}")).await.unwrap();
    let facts = [("203.0.113.1/32", "waw-1"), ("203.0.113.2/32", "waw-1")];
    let facts = facts.map(|(net, origin)| fact(&mut f, Some(made(net, origin, None)))).to_vec();
    let taken = f.store.take_ban_facts(&node("waw-1"), facts, NOON, row_id()).await.unwrap();
    assert_eq!((taken.new, taken.changed, taken.full), (2, 1, 1));
    let other = vec![fact(&mut f, Some(made("203.0.113.3/32", "fra-1", None)))];
    assert_eq!(f.store.take_ban_facts(&node("fra-1"), other, NOON, row_id()).await.unwrap().changed, 1);
    let too_many =
        (0..ListKind::Allow.max() + 1).map(|n| entry(&format!("10.1.{}.{}/32", n / 256, n % 256), None));
    assert_eq!(put(&mut f, ListKind::Allow, too_many.collect()).await, Put::Full);
    assert_eq!(held(&f, ListKind::Allow, NOON).await, [""; 0]);
}

pub(crate) async fn twenty_writers_give_each_change_a_revision_of_its_own(mut f: Fixture) {
    let work = (0..20).map(|n| {
        let put = put_of(&mut f, ListKind::Ban, vec![entry(&format!("203.0.113.{n}/32"), None)], NOON);
        let store = f.store.clone();
        async move { store.put_entries(put).await.unwrap() }
    });
    at_once(work.collect()).await;
    let mut revisions: Vec<_> = since(&f, 0).await.entries.iter().map(|entry| entry.revision).collect();
    assert!(revisions.is_sorted());
    revisions.dedup();
    assert_eq!((revisions.len(), f.store.ban_revision().await.unwrap()), (20, 20));
}

pub(crate) async fn ten_thousand_are_one_write(mut f: Fixture) {
    let many = (0..10_000).map(|n| NewEntry {
        source: Some("scanners".to_owned()),
        ..entry(&format!("10.0.{}.{}/32", n / 256, n % 256), Some(86_400))
    });
    assert_eq!(put(&mut f, ListKind::Ban, many.collect()).await, Put::Done { changed: 10_000, lifted: 0 });
    let audit = f.store.audit(5).await.unwrap();
    assert_eq!(
        (audit.len(), audit[0].action.as_str(), audit[0].record.target_id.as_str()),
        (1, "ban.import", "scanners")
    );
    assert_eq!(
        (audit[0].changes["count"].clone(), audit[0].changes["nets"].as_array().unwrap().len()),
        (json!(10_000), 20)
    );
    let mut after = 0;
    let mut seen = 0;
    loop {
        let page = f.store.ban_changes(after, 256).await.unwrap();
        let Some(last) = page.entries.last() else { break };
        (after, seen) = (last.revision, seen + page.entries.len());
    }
    assert_eq!(seen, 10_000);
}
