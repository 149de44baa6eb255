//! What a packet costs on its way through our table, with few bans and with many.
//!
//! A thread floods from many sources in turn, so that each look into the hash set is elsewhere. Over a veth wire the kernel
//! handles a packet within the sender's own call: sender's processor time over packets is a packet's whole way, from the socket
//! through the wire and our chains to the other socket or the drop. Both states take turns and the best of each counts, as
//! the machine has other things to do.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use node_agent_core::{
    bans::{Ban, By},
    firewall::{Plan, Policy, ReachedFrom},
    moment::UnixMs,
};
use serde_json::{Value, json};

use crate::{bench::policy, many::MANY, space::Pair};

/// Under the usual bound of open files.
const SOURCES: u32 = 900;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(700);
/// An RTP packet of 20 ms.
const PAYLOAD: [u8; 172] = [0; 172];
/// RTP, open to all.
const TO: &str = "192.0.2.1:15000";
const NOW: UnixMs = UnixMs(1_790_000_000_000);

fn source(n: u32) -> Ipv4Addr {
    // Apart from each other: 198.18.0.0/15 is for such tests (RFC 2544).
    Ipv4Addr::from_bits(0xc612_0000 + n * 71 + 1)
}

fn ban(address: Ipv4Addr) -> Ban {
    let by = By { origin: "pbx1".to_owned(), author: "anna".to_owned(), reason: "list".to_owned() };
    let net = ipnet::IpNet::from(std::net::IpAddr::V4(address));
    Ban { net, by, jail: None, begins: NOW, ends: Some(NOW.plus_s(86_400)), revision: 1 }
}

/// Nanoseconds of this thread on a processor.
fn on_processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn received(pair: &Pair) -> u64 {
    let shown = pair.pbx.run(|| {
        std::process::Command::new("ip").args(["-s", "-j", "link", "show", "wire"]).output().unwrap().stdout
    });
    let shown: Value = serde_json::from_slice(&shown).unwrap();
    shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// Nanoseconds of one packet.
fn flood(pair: &Pair, sockets: &[UdpSocket]) -> f64 {
    let before = received(pair);
    let (sent, took) = pair.phone.run(|| {
        let (began, from, mut sent) = (Instant::now(), on_processor(), 0_u64);
        while began.elapsed() < ROUND {
            for socket in sockets {
                socket.send(&PAYLOAD).unwrap();
            }
            sent += sockets.len() as u64;
        }
        (sent, on_processor() - from)
    });
    let arrived = received(pair) - before;
    assert!(arrived >= sent, "{arrived} of {sent} packets came over the wire");
    took as f64 / sent as f64
}

/// Nanoseconds per packet: of strangers and of the banned, with few bans and with many.
pub(crate) fn cost() -> Value {
    let pair = Pair::new(&["192.0.2.10/24"]);
    pair.phone.command("ip", &["route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
    pair.pbx.command("ip", &["route", "add", "198.18.0.0/15", "dev", "wire"]);
    // Nobody reads it: what is full drops the rest.
    let _sink = pair.pbx.run(|| UdpSocket::bind(TO).unwrap());
    let sockets: Vec<_> = pair.phone.run(|| {
        (0..SOURCES)
            .map(|n| {
                let socket = UdpSocket::bind((source(n), 5060)).unwrap();
                socket.connect(TO).unwrap();
                socket
            })
            .collect()
    });
    let many: Vec<_> = (0..MANY).map(|n| ban(Ipv4Addr::from_bits(0x2000_0000 + n * 3))).collect();
    let own: Vec<_> = (0..SOURCES).map(|n| ban(source(n))).collect();
    let plan = Plan::of(&Policy { rtp_from: ReachedFrom::Everybody, ..policy() });
    let states = [
        plan.replace([], NOW),
        plan.replace(&many, NOW),
        plan.replace(&own, NOW),
        plan.replace(own.iter().chain(&many), NOW),
    ];
    let mut best = [f64::MAX; 4];
    for _ in 0..ROUNDS {
        for (script, best) in states.iter().zip(&mut best) {
            pair.pbx.nft(script).unwrap();
            // The kernel frees the former table meanwhile.
            std::thread::sleep(Duration::from_millis(300));
            *best = best.min(flood(&pair, &sockets));
        }
    }
    let dropped = pair.pbx.readback().counters()["banned addresses"];
    assert!(dropped > 10_000, "only {dropped} packets met their ban");
    let [stranger, stranger_many, banned, banned_many] = best.map(|ns| ns.round());
    json!({
        "stranger_ns": stranger, "stranger_ns_with_many": stranger_many,
        "banned_ns": banned, "banned_ns_with_many": banned_many,
    })
}
