//! Policies, lock-outs, scripts, and what is told of a table that is not as it should be.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{readback::Readback, *};
use crate::{moment::UnixMs, protected::Group};

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy() -> Policy {
    Policy {
        management: nets(&["10.9.0.0/16", "2001:db8:9::/48"]),
        control_plane: nets(&["203.0.113.1/32"]),
        carriers: vec![Carrier {
            name: "acme".to_owned(),
            signalling: nets(&["198.51.100.0/25", "198.51.100.128/25"]),
            media: nets(&["198.51.100.64/26", "2001:db8:c::/48"]),
        }],
        allow: nets(&["192.0.2.16/28"]),
        own: vec!["192.0.2.1".parse().unwrap()],
        ..Policy::default()
    }
}

fn path(from: &str, port: u16) -> Path {
    Path { from: from.parse().unwrap(), port }
}

#[test]
fn a_policy_without_a_way_in_is_refused_unless_forced() {
    assert_eq!(policy().check(&[path("10.9.1.1", 22)], false), Ok(()));
    let refused = |change: fn(&mut Policy), paths: &[Path]| {
        let mut policy = policy();
        change(&mut policy);
        assert_eq!(policy.check(paths, true), Ok(()), "force overrides");
        policy.check(paths, false).unwrap_err().to_string()
    };
    let none = "no management path is left: ";
    assert_eq!(refused(|p| p.management.clear(), &[]), format!("{none}management names no network"));
    assert_eq!(refused(|p| p.ssh_ports.clear(), &[]), format!("{none}ssh_ports names no port"));
    assert_eq!(
        refused(|p| p.management = nets(&["127.0.0.0/8", "fe80::/10"]), &[]),
        format!("{none}management names loopback and link-local networks alone")
    );
    assert_eq!(
        refused(|_| {}, &[path("10.9.1.1", 22), path("192.0.2.17", 22)]),
        format!("{none}192.0.2.17 would no longer reach TCP port 22")
    );
    // sshd listens elsewhere than the policy thinks, and everything else is dropped.
    assert_eq!(
        refused(|p| p.others = Others::Drop, &[path("10.9.1.1", 2222)]),
        format!("{none}10.9.1.1 would no longer reach TCP port 2222")
    );
}

#[test]
fn a_policy_that_contradicts_itself_is_refused_even_by_force() {
    let refused = |change: fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        match policy.check(&[], true).unwrap_err() {
            InvalidPolicy::Wrong(text) => text,
            InvalidPolicy::LockOut(text) => panic!("{text}"),
        }
    };
    assert_eq!(refused(|p| p.closed.tcp.push(22)), "port 22 is in ssh_ports and closed.tcp");
    assert_eq!(refused(|p| p.closed.udp.push(5060)), "port 5060 is in sip.udp and closed.udp");
    assert!(refused(|p| p.allow = nets(&["0.0.0.0/0"])).contains("would end all protection"));
    assert!(refused(|p| p.allow = nets(&["::ffff:0.0.0.0/96"])).contains("would end all protection"));
    assert!(refused(|p| p.rtp = (20_000, 10_000)).contains("rtp"));
    assert!(refused(|p| p.open.tcp.push(0)).contains("port 0"));
    assert!(refused(|p| p.sip_rate.burst = 0).contains("sip_rate"));
    let unknown = serde_json::from_value::<Policy>(json!({"managment": []}));
    assert!(unknown.unwrap_err().to_string().contains("managment"));
}

#[test]
fn everybody_who_matters_is_protected() {
    let protected = policy().protected();
    let group = |address: &str| protected.of(address.parse().unwrap()).map(|by| by.group);
    for (address, of) in [
        ("192.0.2.1", Group::Own),
        ("10.9.200.1", Group::Management),
        ("203.0.113.1", Group::ControlPlane),
        ("198.51.100.200", Group::Carrier),
        ("2001:db8:c::5", Group::Carrier),
        ("192.0.2.20", Group::Allow),
        ("127.0.0.1", Group::Special),
    ] {
        assert_eq!(group(address), Some(of), "{address}");
    }
    assert_eq!(group("192.0.2.66"), None);
}

#[test]
fn a_script_speaks_of_our_table_alone_and_declares_what_it_uses() {
    for change in [
        (|_: &mut Policy| {}) as fn(&mut Policy),
        |p| p.others = Others::Drop,
        |p| (p.sip_from, p.rtp_from) = (ReachedFrom::Known, ReachedFrom::Everybody),
        |p| p.ssh_ports.clear(),
    ] {
        let mut policy = policy();
        change(&mut policy);
        for script in [Plan::of(&policy).refresh(), Plan::of(&policy).replace([], UnixMs(0))] {
            let sets: BTreeSet<_> =
                script.lines().filter_map(|l| l.strip_prefix("add set inet ringward ")).collect();
            let sets: BTreeSet<_> = sets.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(sets.len(), 18);
            for line in script.lines() {
                let words: Vec<_> = line.splitn(5, ' ').collect();
                assert_eq!(words[2..4], ["inet", "ringward"], "{line}");
                assert!(["add", "flush", "delete"].contains(&words[0]), "{line}");
                for used in line.split('@').skip(1) {
                    let name = used.split([' ', '}']).next().unwrap();
                    assert!(sets.contains(name), "{line}");
                }
            }
        }
        let refresh = Plan::of(&policy).refresh();
        assert!(!refresh.contains("delete") && !refresh.contains("flush set inet ringward ban"), "bans stay");
    }
}

#[test]
fn the_script_of_a_policy() {
    insta::assert_snapshot!(Plan::of(&policy()).refresh());
}

/// What nft would list if it held the plan.
fn listed(plan: &Plan) -> Value {
    let mut out = vec![json!({"metainfo": {}}), json!({"table": {"family": "inet", "name": "ringward"}})];
    for set in &plan.sets {
        let (flags, size, timeout) = set.listed();
        let elements: Vec<_> =
            set.nets.iter().map(|n| json!({"prefix": {"addr": n.addr(), "len": n.prefix_len()}})).collect();
        let types = match set.types() {
            [one] => json!(one),
            many => json!(many),
        };
        let mut listed = json!({"name": set.name, "type": types, "flags": flags, "elem": elements});
        for (key, value) in [("size", size), ("timeout", timeout)] {
            if let Some(value) = value {
                listed[key] = json!(value);
            }
        }
        out.push(json!({"set": listed}));
    }
    for chain in &plan.chains {
        let (hook, prio, policy) = (chain.hook, chain.priority, chain.policy);
        out.push(json!({"chain": {"name": chain.name, "type": "filter", "hook": hook, "prio": prio, "policy": policy}}));
        for rule in &chain.rules {
            out.push(json!({"rule": {"chain": chain.name, "expr": rule.json(), "comment": rule.purpose}}));
        }
    }
    json!({"nftables": out})
}

#[test]
fn each_departure_is_told_in_a_line() {
    let plan = Plan::of(&policy());
    let difference = |value: &Value| plan.difference(&Readback::parse(&value.to_string()).unwrap());
    assert_eq!(difference(&listed(&plan)), [""; 0]);
    assert_eq!(plan.difference(&Readback::parse("").unwrap()), ["table inet ringward is missing"]);
    assert!(Readback::parse("Error: No such file").is_err());
    let changed = |change: fn(&mut Vec<Value>)| {
        let mut value = listed(&plan);
        change(value["nftables"].as_array_mut().unwrap());
        difference(&value)
    };
    assert_eq!(changed(|l| l.retain(|o| o["set"]["name"] != "ban6")), ["set ban6 is missing"]);
    assert_eq!(changed(|l| l.push(json!({"chain": {"name": "mine"}}))), ["chain mine is foreign"]);
    assert_eq!(changed(|l| l.push(json!({"map": {"name": "mine"}}))), ["set map mine is foreign"]);
    assert_eq!(
        changed(|l| {
            let set = l.iter_mut().find(|o| o["set"]["name"] == "management4").unwrap();
            set["set"]["elem"] = json!(["192.0.2.66", {"prefix": {"addr": "10.9.0.0", "len": 16}}]);
        }),
        ["set management4 holds 192.0.2.66 too"]
    );
    assert_eq!(
        changed(|l| l.iter_mut().find(|o| o["set"]["name"] == "allow4").unwrap()["set"]["elem"] = json!([])),
        [
            "set allow4 lacks 192.0.2.16-192.0.2.31",
            "set allow4 lacks 198.51.100.64-198.51.100.127",
            "set allow4 lacks 203.0.113.1"
        ]
    );
    assert_eq!(
        changed(|l| l.iter_mut().find(|o| o["chain"]["name"] == "input").unwrap()["chain"]["policy"] =
            json!("drop")),
        ["chain input has policy \"drop\", not accept"]
    );
    assert_eq!(
        changed(|l| l.retain(|o| o["rule"]["comment"] != "closed ports")),
        ["chain input lacks: tcp dport { 5038, 8088-8089 } counter drop comment \"closed ports\""]
    );
    assert_eq!(
        changed(|l| l.push(json!({"rule": {"chain": "early", "expr": [{"accept": null}]}}))),
        ["chain early holds a foreign rule: [{\"accept\":null}]"]
    );
    assert_eq!(
        changed(|l| {
            let rule = l.iter().position(|o| o["rule"]["comment"] == "banned addresses").unwrap();
            l.swap(rule, rule + 2);
        }),
        ["chain early holds its rules in another order or number"]
    );
    // nft 1.1.7 lists joined flags so, where 1.0.6 lists them bare.
    let flags = json!({"payload": {"protocol": "tcp", "field": "flags"}});
    let joined = |text: &str| {
        let bare = json!({"&": [flags, ["fin", "syn", "rst", "ack"]]}).to_string();
        assert!(text.contains(&bare), "{text}");
        text.replace(&bare, &json!({"&": [flags, {"|": ["fin", "syn", "rst", "ack"]}]}).to_string())
    };
    let text = joined(&listed(&plan).to_string());
    assert_eq!(plan.difference(&Readback::parse(&text).unwrap()), [""; 0]);
    // Counters over four gigabytes and neighbours listed as one range are no departures.
    assert_eq!(
        changed(|l| {
            for object in l.iter_mut().filter(|o| o["rule"].is_object()) {
                for part in object["rule"]["expr"].as_array_mut().unwrap() {
                    if part.get("counter").is_some() {
                        *part = json!({"counter": {"packets": 9_000_000_000_u64, "bytes": 9_000_000_000_000_u64}});
                    }
                }
            }
            let set = l.iter_mut().find(|o| o["set"]["name"] == "carrier4").unwrap();
            set["set"]["elem"] = json!([{"range": ["198.51.100.0", "198.51.100.255"]}]);
        }),
        [""; 0]
    );
}

#[test]
fn what_keeps_management_s_way_in_needs_nobody_to_confirm_it() {
    let keeps = |change: fn(&mut Policy)| {
        let mut new = policy();
        change(&mut new);
        new.keeps_way_in(&policy())
    };
    for harmless in [
        (|_| {}) as fn(&mut Policy),
        |p| p.carriers.clear(),
        |p| p.allow.clear(),
        |p| p.control_plane.clear(),
        |p| p.own.clear(),
        |p| p.management = nets(&["2001:db8::/32", "10.0.0.0/8"]),
    ] {
        assert!(keeps(harmless));
    }
    for harmful in [
        (|p| p.management = nets(&["10.9.0.0/17", "2001:db8:9::/48"])) as fn(&mut Policy),
        |p| p.management = nets(&["10.9.0.0/16"]),
        |p| p.ssh_ports = vec![2222],
        |p| p.others = Others::Drop,
        |p| p.open.tcp = vec![80],
        |p| p.sip_rate.burst = 1,
    ] {
        assert!(!keeps(harmful));
    }
}

#[test]
fn a_terse_listing_of_all_tables_is_read_and_filled() {
    let plan = Plan::of(&policy());
    let mut value = listed(&plan);
    let list = value["nftables"].as_array_mut().unwrap();
    for object in list.iter_mut() {
        if let Some(set) = object.get_mut("set") {
            set.as_object_mut().unwrap().remove("elem");
        }
        if object["rule"]["comment"] == HANDSHAKES {
            let expr = object["rule"]["expr"].as_array_mut().unwrap();
            *expr.last_mut().unwrap() = json!({"counter": {"packets": 4, "bytes": 200}});
        }
    }
    for family in ["inet", "ip"] {
        let table = if family == "inet" { "other" } else { "ringward" };
        let chain = json!({"family": family, "table": table, "name": "mine"});
        list.push(json!({"table": {"family": family, "name": table}}));
        list.push(json!({"chain": chain}));
    }
    let mut held = Readback::parse(&value.to_string()).unwrap();
    assert!(held.is_there());
    assert_eq!(plan.difference_of_rules(&held), [""; 0]);
    assert_eq!(held.counters()[HANDSHAKES], 8);
    assert!(!plan.difference(&held).is_empty());
    held.fill(Readback::parse(&listed(&plan).to_string()).unwrap());
    assert_eq!(plan.difference(&held), [""; 0]);
    let others = json!({"nftables": [{"table": {"family": "ip", "name": "ringward"}}]});
    assert!(!Readback::parse(&others.to_string()).unwrap().is_there());
}

proptest! {
    /// Where a check passes, each path that was asked for is let in.
    #[test]
    fn a_checked_policy_lets_its_paths_in(
        management in 0_u8..4, drop in any::<bool>(), port in prop::sample::select(vec![22_u16, 2222, 5060, 5038, 80]),
        from in 0_u8..4,
    ) {
        let mut policy = policy();
        policy.management = vec![format!("10.{management}.0.0/16").parse().unwrap()];
        policy.others = if drop { Others::Drop } else { Others::Accept };
        let path = path(&format!("10.{from}.0.1"), port);
        prop_assert_eq!(policy.check(&[path], false).is_ok(), policy.lets_in(&path));
    }
}
