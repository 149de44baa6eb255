//! Bans in the kernel, over restarts, reboots and others' hands.

use std::time::{Duration, Instant};

use node_agent::ward::by_operator;
use node_agent_core::bans::Why;

use crate::bench::{Bench, firewall, order, policy, runtime, until};

fn held(bench: &Bench) -> Vec<(String, Option<u64>)> {
    let bans = bench.pair.pbx.readback().bans();
    let mut held: Vec<_> = bans.into_iter().map(|ban| (ban.net.to_string(), ban.seconds_left)).collect();
    held.sort();
    held
}

fn holds(bench: &Bench, net: &str) -> bool {
    held(bench).iter().any(|(held, _)| held == net)
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn an_answer_comes_when_the_kernel_has_it_and_many_at_once_are_few_transactions() {
    let bench = Bench::new();
    bench.with_ward(firewall(policy()), |ward| {
        bench.confirm(ward);
        let runtime = runtime();
        runtime.block_on(async {
            ward.ban(order("203.0.113.9/32", Some(600))).await.unwrap();
            assert!(holds(&bench, "203.0.113.9/32"));
            let began = Instant::now();
            let orders: Vec<_> = (0..500u32)
                .map(|n| ward.ban(order(&format!("203.0.{}.{}/32", 114 + n / 200, n % 200), Some(600))))
                .collect();
            for banned in futures_util::future::join_all(orders).await {
                banned.unwrap();
            }
            println!("500 bans at once: {:?}", began.elapsed());
            assert_eq!(held(&bench).len(), 501);
            ward.lift("203.0.113.9/32".parse().unwrap(), by_operator("pbx1", "anna", "over")).await.unwrap();
            assert!(!holds(&bench, "203.0.113.9/32"));
            // Longer, then a network around them, then allowed.
            ward.ban(order("203.0.114.1/32", Some(6000))).await.unwrap();
            assert!(held(&bench).iter().any(|(net, left)| net == "203.0.114.1/32" && left.unwrap() > 5900));
            ward.ban(order("203.0.114.0/24", Some(9000))).await.unwrap();
            assert!(holds(&bench, "203.0.114.0/24"));
            let by = by_operator("pbx1", "anna", "our office");
            let change = ward.allow("203.0.114.0/26".parse().unwrap(), None, by).await.unwrap();
            assert_eq!(change.lifts.len(), 65);
            assert!(!holds(&bench, "203.0.114.0/24") && holds(&bench, "203.0.114.100/32"));
            assert!(ward.ban(order("203.0.114.7/32", None)).await.is_err());
        });
    });
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn what_others_flush_or_change_is_put_right_within_five_seconds() {
    let bench = Bench::new();
    bench.nft("add table inet other");
    bench.with_ward(firewall(policy()), |ward| {
        bench.confirm(ward);
        let nets =
            ["203.0.113.9/32", "203.0.113.10/32", "203.0.113.64/26", "2001:db8:66::/64", "2001:db8:67::/64"];
        for net in nets {
            runtime().block_on(ward.ban(order(net, Some(600)))).unwrap();
        }
        let all = held(&bench).into_iter().map(|(net, _)| net).collect::<Vec<_>>();
        assert_eq!(all.len(), nets.len());
        let is_whole = || {
            let now = bench.pair.pbx.readback();
            let nets: Vec<_> = held(&bench).into_iter().map(|(net, _)| net).collect();
            node_agent_core::firewall::Plan::of(&policy()).difference(&now).is_empty() && nets == all
        };
        for harm in [
            // As Debian's nftables.service does when it is restarted.
            "flush ruleset",
            "delete table inet ringward",
            "flush chain inet ringward early",
            "insert rule inet ringward input tcp dport 22 drop",
            "flush set inet ringward management4",
            "flush set inet ringward ban4",
            "add chain inet ringward mine",
            // One ban alone, by hand, whatever the others are.
            "delete element inet ringward ban4 { 203.0.113.9 }",
            "delete element inet ringward ban6 { 2001:db8:67:: }",
            "delete element inet ringward bannet4 { 203.0.113.64/26 }",
        ] {
            bench.nft(harm);
            assert!(!is_whole(), "{harm}: no harm done");
            let took = until(5, harm, is_whole);
            println!("{harm}: put right after {took:?}");
        }
        assert!(bench.is_open());
    });
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn bans_keep_their_time_over_a_restart_and_a_reboot() {
    let bench = Bench::new();
    bench.with_ward(firewall(policy()), |ward| {
        bench.confirm(ward);
        let runtime = runtime();
        for (net, seconds) in
            [("203.0.113.9/32", Some(600)), ("203.0.113.64/26", Some(25)), ("2001:db8:66::/64", None)]
        {
            runtime.block_on(ward.ban(order(net, seconds))).unwrap();
        }
        // The snapshot follows.
        std::thread::sleep(Duration::from_millis(1500));
    });
    // While the agent is down an operator shortens one by hand and adds one.
    bench.nft("delete element inet ringward ban4 { 203.0.113.9 }");
    bench.nft("add element inet ringward ban4 { 203.0.113.9 timeout 300s, 203.0.113.10 timeout 400s }");
    bench.with_ward(firewall(policy()), |ward| {
        crate::bench::wait(ward, "in_force", 5);
        let why = |address: &str| runtime().block_on(ward.why(address.parse().unwrap())).unwrap();
        let Why::Banned(ban) = why("203.0.113.9") else { panic!("not banned") };
        assert_eq!((ban.by.author.as_str(), ban.by.reason.as_str()), ("anna", "a test"));
        let Why::Banned(ban) = why("203.0.113.10") else { panic!("not banned") };
        assert_eq!(ban.by.author, "unknown");
        std::thread::sleep(Duration::from_millis(1500));
    });
    let near = |left: Option<u64>, wanted: u64| (wanted - 30..=wanted).contains(&left.unwrap());
    let now: std::collections::BTreeMap<_, _> = held(&bench).into_iter().collect();
    assert!(near(now["203.0.113.9/32"], 300) && near(now["203.0.113.10/32"], 400), "{now:?}");
    let bench = bench.reboot();
    assert!(!bench.has_table());
    bench.with_ward(firewall(policy()), |ward| {
        // Rules that were confirmed need nobody at boot.
        crate::bench::wait(ward, "in_force", 5);
        let now: std::collections::BTreeMap<_, _> = held(&bench).into_iter().collect();
        assert!(near(now["203.0.113.9/32"], 300) && near(now["203.0.113.10/32"], 400), "{now:?}");
        assert_eq!(now["2001:db8:66::/64"], None);
        until(25, "the short one ends", || !holds(&bench, "203.0.113.64/26"));
    });
}
