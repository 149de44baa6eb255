//! The fleet's bans: from one node to the others, from operators to all, and what a node refuses.

use std::{collections::BTreeSet, time::Duration};

use node_agent::settings::FirewallMode;
use node_agent_protocol::{
    BANS_PER_MESSAGE, BanChanges, BanMade, BanPage, BansHeld, Capability, Down, Fact, FactBody, List,
    RefusalCode, Text, Up, fact_kind,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    agent::{Node, Running},
    identity::{Identity, join},
    link::{Link, fact, hello},
    plane::{Plane, node, until},
};

/// Three nodes, of which a carrier and an office must never be cut off.
const FLEET: &str = r#"
[[carrier]]
name = "acme"
signalling = ["192.0.2.21/32"]
media = ["192.0.2.0/24"]
[[node]]
name = "waw-1"
[[node]]
name = "fra-1"
[[node]]
name = "ams-1"
[[trunk]]
name = "acme-waw-1"
node = "waw-1"
carrier = "acme"
endpoint = "acme"
[[management]]
name = "office"
networks = ["198.51.100.0/28"]
"#;

/// A ban has a second to get everywhere.
const SHARED_WITHIN: Duration = Duration::from_secs(1);

async fn plane() -> Plane {
    let plane = Plane::start().await;
    plane.apply(FLEET).await;
    plane
}

impl Link {
    /// The next page of bans.
    async fn page(&mut self) -> BanChanges {
        loop {
            let down = self.next().await.expect("a page of bans");
            if let Down::Bans(page) = down {
                return *page;
            }
            assert!(matches!(down, Down::Policy(_) | Down::Ack { .. }), "{down:?} instead of bans");
        }
    }

    async fn hold(&mut self, page: &BanChanges) -> BansHeld {
        let held = BansHeld { list: page.list.clone(), revision: page.revision };
        self.send(&Up::Bans(held.clone())).await;
        held
    }

    /// Follows to the end of the whole list; what it says.
    async fn whole(&mut self) -> (BansHeld, BTreeSet<String>) {
        self.send(&Up::Bans(BansHeld::default())).await;
        let mut nets = BTreeSet::new();
        loop {
            let page = self.page().await;
            nets.extend(page.bans.iter().map(|ban| ban.net.to_string()));
            let held = self.hold(&page).await;
            match page.page {
                BanPage::Whole => {}
                BanPage::WholeEnd => return (held, nets),
                BanPage::Changes => panic!("{page:?}"),
            }
        }
    }
}

async fn linked(plane: &Plane, name: &str) -> (Identity, Link) {
    let identity = join(&plane.token(name).await).await.unwrap();
    let (link, welcome, policy) = Link::open(&identity, hello(name)).await;
    assert!(welcome.capabilities.has(Capability::Hardening));
    let hardening = policy.hardening.unwrap();
    assert_eq!(hardening.management.len(), 1);
    assert_eq!(hardening.carriers.len(), usize::from(name == "waw-1"));
    (identity, link)
}

fn banned(seed: u64, net: &str) -> Fact {
    let made = BanMade {
        net: net.parse().unwrap(),
        author: Text::cut("jail sip"),
        reason: Text::cut("12 of INVITE"),
        jail: Some(Text::cut("sip")),
        evidence: Some(Text::cut("INVITE to 900 from nobody")),
        seconds: Some(600),
    };
    let body = FactBody::of(&made).unwrap();
    let at_unix_ms = 4_000_000_000_000;
    Fact { fact_kind: Text::cut(fact_kind::BAN), body, at_unix_ms, ..fact(seed, json!({})) }
}

fn nets(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|ban| ban["net"].as_str().unwrap()).collect()
}

async fn why(plane: &Plane, address: &str) -> Value {
    plane.get(&format!("/admin/v1/bans/why?address={address}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_on_one_node_reaches_the_others_within_a_second_and_is_lifted_everywhere() {
    let plane = plane().await;
    let (_, mut waw) = linked(&plane, "waw-1").await;
    let (_, mut fra) = linked(&plane, "fra-1").await;
    let (_, mut ams) = linked(&plane, "ams-1").await;
    for link in [&mut fra, &mut ams] {
        assert_eq!(link.whole().await.1, BTreeSet::new());
    }
    let facts = [banned(1, "203.0.113.9/32")];
    let sent = Instant::now();
    waw.report(&facts).await;
    for link in [&mut fra, &mut ams] {
        let page = timeout(SHARED_WITHIN.saturating_sub(sent.elapsed()), link.page()).await.unwrap();
        assert_eq!((page.page, page.bans.len(), page.lifts.len()), (BanPage::Changes, 1, 0));
        let ban = &page.bans[0];
        assert_eq!((ban.net.to_string().as_str(), ban.by.origin.as_str()), ("203.0.113.9/32", "waw-1"));
        // The node's clock is decades ahead, and the ban lasts no longer for it.
        assert!((590..=600).contains(&ban.seconds_left.unwrap()), "{ban:?}");
        assert_eq!(ban.evidence.as_ref().unwrap().as_str(), "INVITE to 900 from nobody");
        link.hold(&page).await;
    }
    println!("shared with two nodes after {:?}", sent.elapsed());
    // Once more, since the acknowledgement was lost: nothing new.
    waw.report(&facts).await;
    let shown = why(&plane, "203.0.113.9").await;
    assert_eq!((&shown["verdict"], &shown["bans"][0]["jail"]), (&json!("banned"), &json!("sip")), "{shown}");

    let sent = Instant::now();
    let (status, answer) =
        plane.post("/admin/v1/bans/remove", &json!({"net": "203.0.113.9", "reason": "a customer"})).await;
    assert_eq!(status, 200, "{answer}");
    for link in [&mut fra, &mut ams] {
        let page = timeout(SHARED_WITHIN.saturating_sub(sent.elapsed()), link.page()).await.unwrap();
        assert_eq!((page.bans.len(), page.lifts[0].to_string().as_str()), (0, "203.0.113.9/32"));
        link.hold(&page).await;
    }
    assert_eq!(plane.audited("203.0.113.9/32").await, ["ban.remove"]);
    until("its metrics", async || {
        let metrics = plane.metrics().await;
        metrics.contains("ringward_ban_share_seconds_count 4")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_gets_the_list_in_pages_and_who_was_cut_off_the_difference() {
    let plane = plane().await;
    let list: String = (0..10_000).map(|n| format!("10.0.{}.{}\n", n / 256, n % 256)).collect();
    let began = Instant::now();
    let path = "/admin/v1/bans/import?source=scanners&reason=a%20list&seconds=86400";
    let answer = plane.post_list(path, list.clone()).await;
    assert_eq!(
        (&answer["taken"], &answer["changed"], &answer["not_taken"]),
        (&json!(10_000), &json!(10_000), &json!(0))
    );
    println!("10,000 lines were imported in {:?}", began.elapsed());
    let (identity, mut link) = linked(&plane, "fra-1").await;
    let began = Instant::now();
    let (held, all) = link.whole().await;
    println!("the whole list of 10,000 came in {:?}", began.elapsed());
    assert_eq!(all.len(), 10_000);
    drop(link);
    let (status, _) = plane.post("/admin/v1/bans", &json!({"net": "203.0.113.9", "seconds": 60})).await;
    assert_eq!(status, 201);
    let (status, _) = plane.post("/admin/v1/bans/remove", &json!({"net": "10.0.0.7/32"})).await;
    assert_eq!(status, 200);
    let (mut link, ..) = Link::open(&identity, hello("fra-1")).await;
    link.send(&Up::Bans(held.clone())).await;
    let page = link.page().await;
    assert_eq!((page.page, page.after), (BanPage::Changes, held.revision));
    assert_eq!((page.bans.len(), page.lifts.len()), (1, 1));
    // Another list, or a revision that never was: the whole list.
    let alien = BansHeld { list: Text::cut("another"), revision: 7 };
    let ahead = BansHeld { revision: u64::MAX, ..held };
    for held in [alien, ahead] {
        let (mut link, ..) = Link::open(&identity, hello("fra-1")).await;
        link.send(&Up::Bans(held)).await;
        assert_eq!(link.page().await.page, BanPage::Whole);
    }
    let exported = plane.text("/admin/v1/bans/export?source=scanners").await;
    let expected: BTreeSet<&str> = list.lines().filter(|line| *line != "10.0.0.7").collect();
    assert_eq!(exported.lines().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_what_hits_its_own_networks_and_takes_the_rest() {
    let plane = plane().await;
    let mut waw_1 = Node::join(&plane, "waw-1").await;
    waw_1.settings.firewall.mode = FirewallMode::Simulate;
    waw_1.settings.firewall.policy.allow = vec!["203.0.113.0/28".parse().unwrap()];
    let agent = Running::start(waw_1.settings.clone()).await;
    until("the agent to be linked", async || plane.links().is_linked(&node("waw-1"))).await;
    for net in ["203.0.113.9", "203.0.113.64/26"] {
        let (status, answer) = plane.post("/admin/v1/bans", &json!({"net": net, "reason": "scans"})).await;
        assert_eq!(status, 201, "{answer}");
    }
    until("the refusal", async || {
        let shown = why(&plane, "203.0.113.9").await;
        shown["bans"][0]["refused_by"][0]["node"] == "waw-1"
    })
    .await;
    let shown = why(&plane, "203.0.113.9").await;
    let reason = shown["bans"][0]["refused_by"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("203.0.113.0/28 (allow)"), "{reason}");
    let held = async || {
        let listing = agent.ward().list().await.unwrap();
        listing.bans.iter().map(|ban| ban.net.to_string()).collect::<Vec<_>>()
    };
    until("the other ban", async || held().await == ["203.0.113.64/26"]).await;
    assert!(plane.metrics().await.contains("ringward_ban_refusals_total{by=\"waw-1\"} 1"));
    // An operator's allowance lifts it there as well, and a carrier's networks are known there.
    let (status, answer) = plane.post("/admin/v1/allows", &json!({"net": "203.0.113.70"})).await;
    assert_eq!((status, &answer["bans_lifted"]), (201, &json!(1)), "{answer}");
    until("the lift", async || held().await.is_empty()).await;
    let carrier = "192.0.2.77".parse().unwrap();
    until("the carrier to be protected", async || agent.ward().protected().borrow().of(carrier).is_some())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_never_be_banned_is_refused_at_the_door_and_from_nodes() {
    let plane = plane().await;
    let (_, mut waw) = linked(&plane, "waw-1").await;
    for (net, says) in [
        ("0.0.0.0/0", "everything"),
        ("::/0", "everything"),
        ("203.0.0.0/15", "wider than /16"),
        ("192.0.2.21", "(carrier)"),
        ("192.0.0.0/16", "(carrier)"),
        ("198.51.100.3", "(management)"),
        ("127.0.0.1", "(special)"),
    ] {
        let (status, answer) = plane.post("/admin/v1/bans", &json!({"net": net})).await;
        assert_eq!((status, &answer["code"]), (409, &json!("ban_refused")), "{net}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(says), "{net}: {answer}");
    }
    for (body, param) in [
        (json!({"net": "203.0.113.9; flush ruleset"}), "net"),
        (json!({"net": "203.0.113.9", "reason": "a\nb"}), "reason"),
        (json!({"net": "203.0.113.9", "reason": "x".repeat(257)}), "reason"),
        (json!({"net": "203.0.113.9", "seconds": 0}), "seconds"),
        (json!({"net": "203.0.113.9", "seconds": -1}), "seconds"),
        (json!({"net": "203.0.113.9", "forever": true}), "forever"),
    ] {
        let (status, answer) = plane.post("/admin/v1/bans", &body).await;
        assert_eq!((status, &answer["param"]), (422, &json!(param)), "{body}: {answer}");
    }
    let facts: Vec<Fact> = ["0.0.0.0/0", "192.0.2.21/32", "198.51.100.0/24", "203.0.113.5/32"]
        .into_iter()
        .zip(10..)
        .map(|(net, seed)| banned(seed, net))
        .chain([Fact { fact_kind: Text::cut(fact_kind::BAN), ..fact(20, json!({"net": "no net"})) }])
        .collect();
    waw.report(&facts).await;
    assert_eq!(nets(&plane.get("/admin/v1/bans").await), ["203.0.113.5/32"]);
    let kept = plane.store.agent_facts(Some(&node("waw-1")), 10).await.unwrap();
    assert_eq!(kept.len(), 5);
    let (status, answer) = plane.post("/admin/v1/allows", &json!({"net": "0.0.0.0/1"})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("ban_refused")), "{answer}");
    let (status, _) = plane.post("/admin/v1/bans/remove", &json!({"net": "203.0.113.77"})).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_told_by_line_and_shown_in_pages() {
    let plane = plane().await;
    let list =
        "# scanners\n203.0.113.1\n203.0.113.64/26 ; a net\nno net\n192.0.2.21\n2001:db8:66::5\n203.0.113.1\n";
    let answer = plane.post_list("/admin/v1/bans/import?source=a", list.to_owned()).await;
    assert_eq!(
        (&answer["taken"], &answer["changed"], &answer["not_taken"]),
        (&json!(4), &json!(3), &json!(2))
    );
    assert_eq!((&answer["complaints"][0]["line"], &answer["complaints"][1]["line"]), (&json!(4), &json!(5)));
    assert_eq!(plane.text("/admin/v1/bans/export").await, "203.0.113.1\n203.0.113.64/26\n2001:db8:66::/64\n");
    let first = plane.get("/admin/v1/bans?limit=2&source=a&origin=control_plane").await;
    assert_eq!((nets(&first).len(), &first["has_more"]), (2, &json!(true)));
    let cursor = &first["data"][1]["revision"];
    let second = plane.get(&format!("/admin/v1/bans?limit=2&starting_after={cursor}")).await;
    assert_eq!((nets(&second).len(), &second["has_more"]), (1, &json!(false)));
    assert!(first["data"][0]["author"].as_str().unwrap().starts_with("operator key_"), "{first}");
    let (status, answer) =
        plane.post("/admin/v1/allows", &json!({"net": "203.0.113.0/24", "seconds": 60})).await;
    assert_eq!((status, &answer["bans_lifted"]), (201, &json!(2)), "{answer}");
    assert_eq!(why(&plane, "203.0.113.1").await["verdict"], "allowed");
    let (status, answer) = plane.post("/admin/v1/bans", &json!({"net": "203.0.113.1"})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("ban_refused")), "{answer}");
    let (status, _) = plane.post("/admin/v1/allows/remove", &json!({"net": "203.0.113.0/24"})).await;
    assert_eq!(status, 200);
    assert_eq!(why(&plane, "203.0.113.1").await["verdict"], "free");
    assert_eq!(why(&plane, "192.0.2.21").await["protected_by"]["group"], "carrier");
    assert_eq!(plane.audited("203.0.113.0/24").await, ["allow.add", "allow.remove"]);
    assert_eq!(plane.audited("a").await, ["ban.import"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_about_bans_end_the_link_or_cost_little() {
    let plane = plane().await;
    let (identity, mut link) = linked(&plane, "waw-1").await;
    // Whoever always says that he holds nothing gets one whole list in ten seconds.
    for _ in 0..200 {
        link.send(&Up::Bans(BansHeld::default())).await;
    }
    assert_eq!(link.page().await.page, BanPage::WholeEnd);
    assert!(timeout(Duration::from_secs(2), link.page()).await.is_err());
    let long = "x".repeat(65);
    for text in [
        json!({"kind": "bans", "list": long}).to_string(),
        json!({"kind": "bans", "revision": -1}).to_string(),
        json!({"kind": "bans", "revision": "all"}).to_string(),
    ] {
        let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
        link.text(text).await;
        assert_eq!(link.refused().await, RefusalCode::Violation);
    }
    let (mut link, ..) = Link::open(&identity, hello("waw-1")).await;
    let facts = List::whole((0..256).map(|n| banned(n, &format!("203.0.113.{n}/32"))).collect()).unwrap();
    link.send(&Up::Facts { facts }).await;
    let (_, mut fra) = linked(&plane, "fra-1").await;
    until("all bans", async || fra_has(&mut fra).await).await;
}

/// Whether the whole list is of 256 bans, by now.
async fn fra_has(link: &mut Link) -> bool {
    link.send(&Up::Bans(BansHeld::default())).await;
    let mut bans = 0;
    loop {
        let page = link.page().await;
        bans += page.bans.len();
        link.hold(&page).await;
        if bans >= BANS_PER_MESSAGE {
            return true;
        }
    }
}
