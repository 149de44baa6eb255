//! Bans: made, longer, lifted, refused, kept over a restart, shared, listed.

use proptest::prelude::*;

use super::{list::Problem, share::Difference, *};
use crate::protected::{Group, Protected};

const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn net(text: &str) -> IpNet {
    text.parse::<IpNet>().unwrap_or_else(|_| text.parse::<std::net::IpAddr>().unwrap().into())
}

fn by(origin: &str) -> By {
    By { origin: origin.to_owned(), author: "anna".to_owned(), reason: "scans".to_owned() }
}

fn order(text: &str, seconds: Option<u32>) -> Order {
    Order { net: net(text), seconds, by: by("pbx1"), jail: None }
}

fn protected() -> Protected {
    let given = [
        ("198.51.100.0/24", Group::Carrier),
        ("192.0.2.1/32", Group::Own),
        ("2001:db8:a::/48", Group::Allow),
    ];
    Protected::new(given.map(|(text, group)| Protection { net: net(text), group }))
}

fn bans_of(node: &str) -> Bans {
    Bans::new(node, Widths::default(), protected())
}

fn bans() -> Bans {
    bans_of("pbx1")
}

fn nets(bans: &Bans) -> Vec<String> {
    bans.all().map(|ban| ban.net.to_string()).collect()
}

#[test]
fn made_longer_and_lifted() {
    let mut bans = bans();
    let change = bans.ban(order("203.0.113.9", Some(600)), NOW).unwrap();
    assert_eq!(change.bans, [net("203.0.113.9/32")]);
    // Shorter changes nothing; longer keeps the beginning; for ever beats all.
    assert!(bans.ban(order("203.0.113.9", Some(60)), NOW).unwrap().is_empty());
    assert!(!bans.ban(order("203.0.113.9", Some(3600)), NOW.plus_s(10)).unwrap().is_empty());
    let ban = bans.get(&net("203.0.113.9/32")).unwrap();
    assert_eq!((ban.begins, ban.seconds_left(NOW.plus_s(10)), ban.revision), (NOW, Some(3600), 2));
    assert!(!bans.ban(order("203.0.113.9", None), NOW).unwrap().is_empty());
    assert!(bans.ban(order("203.0.113.9", Some(u32::MAX)), NOW).unwrap().is_empty());
    assert_eq!(bans.next_deadline(), None);
    assert_eq!(bans.lift(net("203.0.113.9/32")).unwrap().lifts, [net("203.0.113.9/32")]);
    assert_eq!(bans.lift(net("203.0.113.9/32")), Err(Refusal::Absent(net("203.0.113.9/32"))));
    // One IPv6 address stands for its /64.
    bans.ban(order("2001:db8:66::1", Some(60)), NOW).unwrap();
    bans.ban(order("::ffff:203.0.113.7", Some(60)), NOW).unwrap();
    assert_eq!(nets(&bans), ["203.0.113.7/32", "2001:db8:66::/64"]);
    assert_eq!(bans.next_deadline(), Some(NOW.plus_s(60)));
    assert_eq!(bans.expire(NOW.plus_s(59)), []);
    assert_eq!(bans.expire(NOW.plus_s(60)).len(), 2);
    assert_eq!(nets(&bans), [""; 0]);
}

#[test]
fn what_is_never_banned_is_refused_with_its_reason() {
    let mut bans = bans();
    bans.allow(net("203.0.113.128/25"), None, by("pbx1"), NOW).unwrap();
    for (text, says) in [
        ("0.0.0.0/0", "0.0.0.0/0 is everything"),
        ("::/0", "::/0 is everything"),
        ("10.0.0.0/15", "10.0.0.0/15 is wider than /16"),
        ("2001::/31", "2001::/31 is wider than /32"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0 is everything"),
        ("192.0.2.1", "192.0.2.1/32 touches 192.0.2.1/32 (own), which is never banned"),
        ("192.0.0.0/16", "192.0.0.0/16 touches 192.0.2.1/32 (own), which is never banned"),
        ("198.51.100.77", "198.51.100.77/32 touches 198.51.100.0/24 (carrier), which is never banned"),
        ("2001:db8:a:1::/64", "2001:db8:a:1::/64 touches 2001:db8:a::/48 (allow), which is never banned"),
        ("2001:db8::/32", "2001:db8::/32 touches 2001:db8:a::/48 (allow), which is never banned"),
        ("127.0.0.1", "127.0.0.1/32 touches 127.0.0.0/8 (special), which is never banned"),
        ("fe80::1", "fe80::/64 touches fe80::/10 (special), which is never banned"),
        ("203.0.113.200", "203.0.113.200/32 touches 203.0.113.128/25, which an operator allows"),
        ("203.0.113.0/24", "203.0.113.0/24 touches 203.0.113.128/25, which an operator allows"),
    ] {
        assert_eq!(bans.ban(order(text, Some(60)), NOW).unwrap_err().to_string(), says);
    }
    assert_eq!(bans.ban(order("203.0.113.1", Some(0)), NOW), Err(Refusal::NoTime));
    assert_eq!(bans.allow(net("::/0"), None, by("pbx1"), NOW), Err(Refusal::Everything(net("::/0"))));
    assert_eq!(nets(&bans), [""; 0]);
}

#[test]
fn networks_never_overlap_and_take_the_smaller_ones_in() {
    let mut bans = bans();
    for text in ["203.0.113.9", "203.0.113.0/28", "203.0.113.64/26"] {
        bans.ban(order(text, Some(600)), NOW).unwrap();
    }
    let change = bans.ban(order("203.0.113.0/24", Some(60)), NOW).unwrap();
    assert_eq!(change.bans, [net("203.0.113.0/24")]);
    assert_eq!(change.lifts, [net("203.0.113.0/28"), net("203.0.113.64/26")]);
    assert_eq!(nets(&bans), ["203.0.113.0/24", "203.0.113.9/32"]);
    let covered =
        |bans: &mut Bans, text, seconds| bans.ban(order(text, seconds), NOW).unwrap_err().to_string();
    assert_eq!(
        covered(&mut bans, "203.0.113.128/25", Some(600)),
        "203.0.113.128/25 is inside 203.0.113.0/24, which is banned for at least as long"
    );
    assert!(covered(&mut bans, "203.0.113.10", Some(60)).contains("inside"));
    // One address may be banned for longer than its network.
    assert!(bans.ban(order("203.0.113.10", Some(600)), NOW).is_ok());
    assert_eq!(bans.expire(NOW.plus_s(60)), [net("203.0.113.0/24")]);
    assert!(bans.ban(order("203.0.113.128/25", Some(600)), NOW).is_ok());
}

#[test]
fn allowing_and_protecting_lift_what_they_touch_and_why_tells() {
    let mut bans = bans();
    for text in ["203.0.113.9", "203.0.113.10", "233.252.0.0/24", "192.0.2.99"] {
        let done = bans.ban(order(text, Some(600)), NOW);
        assert_eq!(done.is_ok(), !text.starts_with("233"), "{text}: multicast is special");
    }
    let why = |bans: &Bans, text: &str| bans.why(text.parse().unwrap()).to_string();
    assert_eq!(why(&bans, "203.0.113.9"), "banned as 203.0.113.9/32 by anna on pbx1: scans");
    let change = bans.allow(net("203.0.113.0/29"), Some(60), by("pbx1"), NOW).unwrap();
    assert_eq!(change, Change::default());
    let change = bans.allow(net("203.0.113.9"), Some(60), by("pbx1"), NOW).unwrap();
    assert_eq!(change.lifts, [net("203.0.113.9/32")]);
    assert_eq!(why(&bans, "203.0.113.9"), "not banned: 203.0.113.9/32 is allowed by anna: scans");
    assert!(bans.protected().of("203.0.113.9".parse().unwrap()).is_some());
    bans.expire(NOW.plus_s(60));
    assert!(bans.protected().of("203.0.113.9".parse().unwrap()).is_none());
    assert_eq!(why(&bans, "203.0.113.9"), "not banned");
    assert_eq!(bans.disallow(net("203.0.113.9")), Err(Refusal::Absent(net("203.0.113.9/32"))));
    let office = Protection { net: net("192.0.2.0/24"), group: Group::Management };
    assert_eq!(bans.protect(Protected::new([office])).lifts, [net("192.0.2.99/32")]);
    assert_eq!(why(&bans, "192.0.2.99"), "not banned: 192.0.2.0/24 (management) protects it");
    assert_eq!(why(&bans, "::ffff:192.0.2.99"), "not banned: 192.0.2.0/24 (management) protects it");
}

#[test]
fn a_restart_keeps_what_is_left_of_each_ban() {
    let mut bans = bans();
    for (text, seconds) in
        [("203.0.113.9", Some(600)), ("203.0.113.10", Some(60)), ("2001:db8:66::/48", None)]
    {
        bans.ban(order(text, seconds), NOW).unwrap();
    }
    bans.allow(net("192.0.2.0/25"), Some(600), by("pbx1"), NOW).unwrap();
    let disk = serde_json::to_string(&bans.snapshot()).unwrap();
    let later = NOW.plus_s(100);
    let mut back = bans_of("pbx1");
    let office = Protection { net: net("2001:db8:66:7::/64"), group: Group::Management };
    back.protect(Protected::new([office]));
    let refused = back.restore(serde_json::from_str(&disk).unwrap(), later);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(nets(&back), ["203.0.113.9/32"]);
    assert_eq!(back.get(&net("203.0.113.9/32")).unwrap().seconds_left(later), Some(500));
    assert_eq!(back.allows().count(), 1);
    // Nobody is told half of it: lifts from before are not known any more.
    assert!(matches!(back.since(1), Difference::Full { .. }));
    assert!(matches!(back.since(back.revision()), Difference::Since { .. }));
}

#[test]
fn the_fleet_hears_differences_and_refuses_what_hits_its_own() {
    let (mut hub, mut node) = (bans_of("hub"), bans_of("pbx2"));
    hub.protect(Protected::default());
    let mut at = 0;
    let mut sync = |hub: &Bans, node: &mut Bans| {
        let difference = hub.since(at);
        let (revision, count) = match &difference {
            Difference::Since { revision, bans, lifts } => (*revision, bans.len() + lifts.len()),
            Difference::Full { revision, bans } => (*revision, bans.len()),
        };
        at = revision;
        (count, node.merge(difference, NOW))
    };
    for text in ["203.0.113.9", "198.51.100.77", "203.0.113.10"] {
        hub.ban(order(text, Some(600)), NOW).unwrap();
    }
    let (count, merged) = sync(&hub, &mut node);
    assert_eq!((count, merged.change.bans.len()), (3, 2));
    assert!(matches!(&merged.refused[..], [Refusal::Protected { .. }]), "{merged:?}");
    hub.lift(net("203.0.113.9")).unwrap();
    hub.lift(net("203.0.113.10")).unwrap();
    hub.ban(order("203.0.113.10", Some(900)), NOW).unwrap();
    let (count, merged) = sync(&hub, &mut node);
    assert_eq!((count, merged.change.lifts), (3, vec![net("203.0.113.9/32"), net("203.0.113.10/32")]));
    assert_eq!(sync(&hub, &mut node).0, 0, "nothing new");
    assert_eq!(node.get(&net("203.0.113.10/32")).unwrap().seconds_left(NOW), Some(900));
    // Its own stays when a full list does not know of it; another's goes.
    let mine = Order { by: by("pbx2"), ..order("203.0.113.50", Some(60)) };
    node.ban(mine, NOW).unwrap();
    let full = bans_of("hub").since(99);
    assert!(matches!(full, Difference::Full { .. }));
    assert_eq!(node.merge(full, NOW).change.lifts, [net("203.0.113.10/32")]);
    assert_eq!(nets(&node), ["203.0.113.50/32"]);
}

#[test]
fn lists_are_taken_line_by_line_and_given_back() {
    let mut bans = bans();
    let text = "# scanners\n203.0.113.9\n\n203.0.113.64/26 ; a net\nbad line\n198.51.100.1\n0.0.0.0/0\n2001:db8:66::5\n203.0.113.65\n";
    let imported = bans.import(text, Some(600), &by("pbx1"), NOW);
    let complaints: Vec<_> = imported.complaints.iter().map(ToString::to_string).collect();
    assert_eq!(
        complaints,
        [
            "line 5: no address and no network",
            "line 6: 198.51.100.1/32 touches 198.51.100.0/24 (carrier), which is never banned",
            "line 7: 0.0.0.0/0 is everything",
            "line 9: 203.0.113.65/32 is inside 203.0.113.64/26, which is banned for at least as long",
        ]
    );
    assert_eq!((imported.nets, imported.not_taken, imported.change.bans.len()), (6, 4, 3));
    assert_eq!(bans.export(), "203.0.113.9\n203.0.113.64/26\n2001:db8:66::/64\n");
    let mut again = bans_of("pbx3");
    assert_eq!(again.import(&bans.export(), None, &by("pbx3"), NOW).not_taken, 0);
    assert_eq!(again.export(), bans.export());
    let many = "x\n".repeat(list::LINES_MAX + 5);
    let imported = again.import(&many, None, &by("pbx3"), NOW);
    assert_eq!((imported.not_taken, imported.complaints.len()), (list::LINES_MAX + 1, list::COMPLAINTS_MAX));
    assert_eq!(imported.complaints[0].problem, Problem::NoNet);
}

#[test]
fn texts_are_cut_and_cleaned_and_a_verdict_becomes_an_order() {
    let mut bans = bans();
    let mut wanted = order("203.0.113.9", Some(60));
    wanted.by.reason = format!("a\r\nb\u{1b}[31m{}", "é".repeat(300));
    bans.ban(wanted, NOW).unwrap();
    let reason = &bans.get(&net("203.0.113.9/32")).unwrap().by.reason;
    assert!(reason.starts_with("a??b?[31m") && reason.len() <= TEXT_BYTES_MAX, "{reason}");
}

#[test]
fn a_hundred_thousand_are_held_shared_and_restored() {
    let mut bans = bans();
    let nets = (0..100_000_u32).map(|n| std::net::Ipv4Addr::from_bits(0x2000_0000 + n * 3));
    let text: String = nets.map(|address| format!("{address}\n")).collect();
    let imported = bans.import(&text, Some(3600), &by("pbx1"), NOW);
    assert_eq!((imported.change.bans.len(), imported.not_taken), (100_000, 0));
    let mut back = bans_of("pbx1");
    assert_eq!(back.restore(bans.snapshot(), NOW), []);
    assert_eq!(back.export(), text);
    bans.lift(net("32.0.0.3")).unwrap();
    let Difference::Since { lifts, bans: made, .. } = bans.since(100_000) else { panic!("a full list") };
    assert_eq!((lifts.len(), made.len()), (1, 0));
}

proptest! {
    /// Whatever is done on one side, the other holds the same after each difference, networks never overlap, and
    /// nothing protected is ever in either.
    #[test]
    fn a_follower_holds_the_same(
        steps in proptest::collection::vec((0_u8..6, 0_u8..8, 22_u8..=32, 1_u32..500, 0_u8..3), 1..60),
    ) {
        let (mut hub, mut node) = (bans_of("hub"), bans_of("pbx2"));
        let (mut at, mut now) = (0, NOW);
        for (what, third, length, seconds, sync) in steps {
            now = now.plus_s(7);
            let address = IpNet::new(std::net::Ipv4Addr::new(198, 51, 96 + third, third * 32).into(), length).unwrap();
            match what {
                0..=3 => drop(hub.ban(Order { net: address, ..order("::", Some(seconds)) }, now)),
                4 => drop(hub.lift(address)),
                _ => drop(hub.allow(address, Some(1), by("hub"), now)),
            }
            hub.expire(now);
            node.expire(now);
            let held: Vec<_> = hub.all().map(|ban| ban.net).collect();
            for net in &held {
                prop_assert!(protected().touched_by(net).is_none());
                let inside = held.iter().any(|other| other != net && !is_single(other) && other.contains(net));
                prop_assert!(!inside || is_single(net));
            }
            if sync == 0 {
                let difference = hub.since(at);
                at = hub.revision();
                let merged = node.merge(difference, now);
                prop_assert_eq!(merged.refused, []);
                let ends = |bans: &Bans| bans.all().map(|ban| (ban.net, ban.ends)).collect::<Vec<_>>();
                prop_assert_eq!(ends(&hub), ends(&node));
            }
        }
    }
}
