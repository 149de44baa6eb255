//! The plan in a real kernel, in network namespaces of the tests' own. Needs root and nft:
//! `cargo test -p node-agent-core --features real-nft --test nft`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real time is what is measured")]
#![allow(clippy::semicolon_if_nothing_returned, reason = "policies are changed in one line each")]

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use node_agent_core::{
    bans::{Ban, By},
    firewall::{Carrier, Others, Path, Plan, Policy, Ports, Rate, ReachedFrom, elements::Batch},
    moment::UnixMs,
};

use crate::space::{Pair, Space};

mod space;

const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The phone is 192.0.2.66 and 2001:db8::66, the PBX 192.0.2.1 and 2001:db8::1.
fn policy() -> Policy {
    Policy {
        management: nets(&["10.9.0.0/16", "2001:db8:9::/48"]),
        control_plane: nets(&["203.0.113.1/32"]),
        carriers: vec![Carrier {
            name: "acme".to_owned(),
            signalling: nets(&["198.51.100.0/25", "198.51.101.0/24", "198.51.102.0/24"]),
            media: nets(&["198.51.100.64/26", "2001:db8:c::/48"]),
        }],
        allow: nets(&["192.0.2.16/28"]),
        own: vec!["192.0.2.1".parse().unwrap()],
        open: Ports { tcp: vec![443], udp: vec![443] },
        ..Policy::default()
    }
}

fn ban(net: &str, seconds: Option<u32>) -> Ban {
    let by = By { origin: "pbx1".to_owned(), author: "test".to_owned(), reason: "test".to_owned() };
    let ends = seconds.map(|seconds| NOW.plus_s(u64::from(seconds)));
    Ban { net: net.parse().unwrap(), by, jail: None, begins: NOW, ends, revision: 1 }
}

fn script_of(bans: &[Ban]) -> String {
    let mut batch = Batch::new();
    bans.iter().for_each(|ban| batch.ban(ban, NOW));
    batch.script()
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn what_is_applied_reads_back_equal_and_a_second_time_changes_nothing() {
    for change in [
        (|_: &mut Policy| {}) as fn(&mut Policy),
        |p| p.others = Others::Drop,
        |p| (p.sip_from, p.rtp_from) = (ReachedFrom::Known, ReachedFrom::Everybody),
        |p| p.ssh_ports.clear(),
        |p| (p.management, p.carriers, p.allow) = (Vec::new(), Vec::new(), Vec::new()),
        |p| (p.sip, p.closed) = (Ports::default(), Ports { tcp: vec![80, 81, 82, 90], udp: vec![53] }),
        |p| {
            p.allow =
                nets(&["192.0.2.16/28", "192.0.2.0/24", "192.0.3.0/24", "192.0.5.0/24", "192.0.2.20/32"])
        },
    ] {
        let mut wanted = policy();
        change(&mut wanted);
        let (space, plan) = (Space::new(), Plan::of(&wanted));
        assert_eq!(plan.difference(&space.readback()), ["table inet ringward is missing"]);
        for _ in 0..2 {
            space.nft(&plan.refresh()).unwrap();
            assert_eq!(plan.difference(&space.readback()), [""; 0]);
        }
        space.nft(&plan.replace([], NOW)).unwrap();
        assert_eq!(plan.difference(&space.readback()), [""; 0]);
        // From any policy to any other one.
        let other = Plan::of(&policy());
        space.nft(&other.refresh()).unwrap();
        assert_eq!(other.difference(&space.readback()), [""; 0]);
    }
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn all_or_nothing_and_others_tables_are_left_alone() {
    let (space, plan) = (Space::new(), Plan::of(&policy()));
    space
        .nft(
            "add table inet other\nadd chain inet other input { type filter hook input priority 0; }\n\
             add rule inet other input counter accept\n",
        )
        .unwrap();
    space.nft(&plan.refresh()).unwrap();
    let mut wanted = policy();
    wanted.others = Others::Drop;
    let broken = format!("{}add rule inet ringward nosuch accept\n", Plan::of(&wanted).refresh());
    assert!(space.nft(&broken).unwrap_err().contains("nosuch"));
    assert_eq!(plan.difference(&space.readback()), [""; 0], "nothing of it was taken");
    assert!(!Plan::of(&wanted).difference(&space.readback()).is_empty());
    // A foreign hand is noticed, and a refresh mends it.
    space
        .nft("insert rule inet ringward early ip saddr @ban4 accept\ndelete chain inet ringward input")
        .unwrap();
    let difference = plan.difference(&space.readback());
    assert!(difference.iter().any(|line| line == "chain input is missing"), "{difference:?}");
    assert!(
        difference.iter().any(|line| line.starts_with("chain early holds a foreign rule")),
        "{difference:?}"
    );
    space.nft(&plan.refresh()).unwrap();
    assert_eq!(plan.difference(&space.readback()), [""; 0]);
    // What a refresh cannot mend, a replacement does.
    space.nft("add set inet ringward mine { type ipv4_addr; }").unwrap();
    space.nft(&plan.refresh()).unwrap();
    assert_eq!(plan.difference(&space.readback()), ["set mine is foreign"]);
    space.nft(&plan.replace([], NOW)).unwrap();
    assert_eq!(plan.difference(&space.readback()), [""; 0]);
    assert!(space.nft("list table inet other").is_ok());
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn bans_outlive_a_refresh_and_a_replacement_with_the_time_that_is_left() {
    let (space, plan) = (Space::new(), Plan::of(&policy()));
    space.nft(&plan.refresh()).unwrap();
    let bans = [
        ban("192.0.2.66/32", Some(600)),
        ban("203.0.113.64/26", Some(3600)),
        ban("2001:db8:66::/64", None),
        ban("2001:db8:66:8000::/49", Some(60)),
    ];
    // Twice: an element that is there is no error.
    space.nft(&script_of(&bans)).unwrap();
    space.nft(&script_of(&bans)).unwrap();
    // Longer and shorter, there or not.
    let mut renewals = Batch::new();
    for (net, seconds) in [("192.0.2.66/32", 7200), ("192.0.2.66/32", 900), ("203.0.113.64/26", 3600)] {
        let mut once = Batch::new();
        once.renew(&ban(net, Some(seconds)), NOW);
        space.nft(&once.script()).unwrap();
    }
    renewals.renew(&ban("2001:db8:66:8000::/49", Some(60)), NOW);
    space.nft(&renewals.script()).unwrap();
    space.nft(&plan.refresh()).unwrap();
    let held = || {
        let mut held: Vec<_> =
            space.readback().bans().into_iter().map(|ban| (ban.net.to_string(), ban.seconds_left)).collect();
        held.sort();
        held
    };
    let near = |left: Option<u64>, wanted: u64| (wanted - 5..=wanted).contains(&left.unwrap());
    let now = held();
    let names: Vec<_> = now.iter().map(|(net, _)| net.as_str()).collect();
    assert_eq!(names, ["192.0.2.66/32", "2001:db8:66:8000::/49", "2001:db8:66::/64", "203.0.113.64/26"]);
    assert!(
        near(now[0].1, 900) && near(now[1].1, 60) && now[2].1.is_none() && near(now[3].1, 3600),
        "{now:?}"
    );
    // After a reboot: what is left, and not what is over.
    let later = NOW.plus_s(100);
    let script = plan.replace(&bans, later);
    space.nft(&script).unwrap();
    let now = held();
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(near(now[0].1, 500) && near(now[2].1, 3500), "{now:?}");
    let mut lifts = Batch::new();
    for net in ["192.0.2.66/32", "203.0.113.64/26", "2001:db8:66::/64", "192.0.2.99/32"] {
        lifts.lift(&net.parse().unwrap());
    }
    space.nft(&lifts.script()).unwrap();
    assert_eq!(held(), []);
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_ban_ends_a_running_udp_flow_and_an_allowed_phone_goes_on() {
    let pair = Pair::new(&["192.0.2.66/24", "192.0.2.17/24", "2001:db8::66/64"]);
    pair.pbx.nft(&Plan::of(&policy()).refresh()).unwrap();
    for (phone, pbx, net) in [
        ("192.0.2.66", "192.0.2.1:5060", "192.0.2.66/32"),
        ("192.0.2.66", "192.0.2.1:5060", "192.0.2.0/24"),
        ("2001:db8::66", "[2001:db8::1]:5060", "2001:db8::/64"),
        ("2001:db8::66", "[2001:db8::1]:5060", "2001:db8::/48"),
    ] {
        let echo = pair.echo(pbx.parse().unwrap());
        let flow = pair.flow(phone.parse().unwrap(), pbx.parse().unwrap());
        let allowed = pair.flow("192.0.2.17".parse().unwrap(), "192.0.2.1:5060".parse().unwrap());
        let v4 = pbx.starts_with('1');
        assert!(answers(&flow) && (!v4 || answers(&allowed)), "{phone}: the flow is established");
        pair.pbx.nft(&script_of(&[ban(net, Some(60))])).unwrap();
        assert!(!answers(&flow), "{net}: the flow goes on after the ban");
        assert!(!v4 || answers(&allowed), "{net}: who is allowed was cut off");
        let mut lift = Batch::new();
        lift.lift(&net.parse().unwrap());
        pair.pbx.nft(&lift.script()).unwrap();
        assert!(answers(&flow), "{net}: lifted");
        drop((flow, allowed));
        echo.stop();
    }
}

fn answers(flow: &UdpSocket) -> bool {
    // Whatever came late.
    flow.set_nonblocking(true).unwrap();
    while flow.recv(&mut [0; 16]).is_ok() {}
    flow.set_nonblocking(false).unwrap();
    flow.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    (0..2).any(|_| flow.send(b"OPTIONS").is_ok() && flow.recv(&mut [0; 16]).is_ok())
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_source_is_held_to_its_pace_and_its_neighbour_is_not() {
    let pair = Pair::new(&["192.0.2.66/24", "192.0.2.67/24"]);
    let mut wanted = policy();
    wanted.sip_rate = Rate { per_second: 5, burst: 20 };
    pair.pbx.nft(&Plan::of(&wanted).refresh()).unwrap();
    let pbx: SocketAddr = "192.0.2.1:5060".parse().unwrap();
    let echo = pair.echo(pbx);
    let flood = pair.flow("192.0.2.66".parse().unwrap(), pbx);
    flood.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let sent = Instant::now();
    (0..300).for_each(|_| drop(flood.send(b"x")));
    let mut answered = 0;
    while flood.recv(&mut [0; 16]).is_ok() {
        answered += 1;
    }
    let seconds = sent.elapsed().as_secs() + 1;
    assert!((15..=21 + 5 * seconds).contains(&answered), "{answered} of 300 passed");
    assert!(answers(&pair.flow("192.0.2.67".parse().unwrap(), pbx)), "the neighbour was held back too");
    echo.stop();
}

/// The guard's model against the kernel: whoever may connect by the one may by the other.
#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn the_lock_out_guard_says_what_the_kernel_does() {
    let sources = ["10.9.1.1", "198.51.100.7", "192.0.2.17", "192.0.2.66", "2001:db8:9::66", "2001:db8::66"];
    let ports = [22_u16, 2222, 5060, 5038, 443, 9999];
    let mut tried = 0;
    for (others, sip_from) in [
        (Others::Accept, ReachedFrom::Everybody),
        (Others::Drop, ReachedFrom::Known),
        (Others::Drop, ReachedFrom::Everybody),
    ] {
        for source in sources {
            let is_v6 = source.contains(':');
            let length = if is_v6 { 32 } else { 0 };
            let pair = Pair::new(&[&format!("{source}/{}", if is_v6 { length } else { 1 })]);
            pair.pbx.reaches(source);
            let pbx = if is_v6 { "2001:db8::1" } else { "192.0.2.1" };
            let mut wanted = policy();
            (wanted.others, wanted.sip_from) = (others, sip_from);
            pair.pbx.nft(&Plan::of(&wanted).refresh()).unwrap();
            let listeners: Vec<TcpListener> =
                pair.pbx.run(|| ports.iter().map(|port| TcpListener::bind((pbx, *port)).unwrap()).collect());
            for port in ports {
                let to = SocketAddr::new(pbx.parse::<IpAddr>().unwrap(), port);
                let connects = || TcpStream::connect_timeout(&to, Duration::from_millis(150)).is_ok();
                let path = Path { from: source.parse().unwrap(), port };
                // Once more where a busy machine may have been slow.
                let connected = pair.phone.run(|| connects() || (wanted.lets_in(&path) && connects()));
                assert_eq!(
                    connected,
                    wanted.lets_in(&path),
                    "{source} to {port}, {others}, SIP from {sip_from}"
                );
                tried += 1;
            }
            drop(listeners);
        }
    }
    assert_eq!(tried, 108);
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_hundred_thousand_bans_come_back_within_a_second_and_one_more_costs_milliseconds() {
    let address = |n: u32| std::net::Ipv4Addr::from_bits(0x2000_0000 + n * 3);
    let bans: Vec<_> =
        (0..100_000).map(|n| ban(&format!("{}/32", address(n)), Some(3600 + n % 1000))).collect();
    let plan = Plan::of(&policy());
    let mut restored = Vec::new();
    let space = Space::new();
    for _ in 0..3 {
        let began = Instant::now();
        let script = plan.replace(&bans, NOW);
        space.nft(&script).unwrap();
        restored.push(began.elapsed());
    }
    assert_eq!(plan.difference(&space.readback()), [""; 0]);
    assert_eq!(space.readback().bans().len(), 100_000);
    // What starting nft costs on this machine at this moment, without anything to do.
    let median = |mut took: Vec<Duration>| {
        took.sort();
        took[took.len() / 2]
    };
    let timed = |script: String| {
        let began = Instant::now();
        space.nft(&script).unwrap();
        began.elapsed()
    };
    let (mut start, mut more) = (Vec::new(), Vec::new());
    for n in 0..50 {
        start.push(timed(String::new()));
        more.push(timed(script_of(&[ban(&format!("203.0.113.{n}/32"), Some(600))])));
    }
    let (start, more) = (median(start), median(more));
    println!("restore of 100,000: {restored:?}; one more {more:?}, of which nft's start {start:?} (medians)");
    assert!(restored.iter().min().unwrap() < &Duration::from_secs(1), "{restored:?}");
    assert!(more.saturating_sub(start) < Duration::from_millis(10), "{more:?} less {start:?}");
}
