//! Attempts to lock the operator out: each ends with a new TCP connection to sshd at the deadline.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use node_agent::ward::{Fleet, Refused};
use node_agent_core::{
    bans::Refusal,
    firewall::{Others, Policy},
    protected::Group,
};

use crate::bench::{Bench, CONFIRM_S, OPERATOR, firewall, nets, order, policy, runtime, until, wait};

/// sshd is somewhere else than this policy thinks, and everything else is dropped.
fn lock_out() -> Policy {
    Policy { ssh_ports: vec![2222], others: Others::Drop, ..policy() }
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_message_and_a_new_handshake_confirm_and_an_established_flow_does_not() {
    let bench = Bench::new();
    // The connection of the operator who makes the change: it goes on whatever the rules are.
    let mut before = bench.connect().unwrap();
    bench.with_ward(firewall(policy()), |ward| {
        wait(ward, "on_trial", 5);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2500) {
            before.0.write_all(b"keystroke").unwrap();
            ward.confirmed();
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(ward.standing().borrow().state, "on_trial", "an established flow proves nothing");
        let mut after = bench.connect().unwrap();
        after.0.write_all(b"hello").unwrap();
        wait(ward, "in_force", 3);
        std::thread::sleep(Duration::from_secs(u64::from(CONFIRM_S)));
        assert!(bench.has_table() && bench.is_open());
        assert_eq!(ward.standing().borrow().state, "in_force");
    });
    assert!(bench.has_table(), "stopping leaves the protection in place");
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn an_operators_word_stands_for_the_message_and_names_its_change() {
    let bench = Bench::new();
    bench.with_ward(firewall(policy()), |ward| {
        wait(ward, "on_trial", 5);
        let word = |change: String| runtime().block_on(ward.confirm(change, "anna".to_owned()));
        assert_eq!(word("another".to_owned()), Err(Refused::NotOnTrial));
        let change = ward.standing().borrow().change.clone().unwrap();
        assert!(bench.is_open());
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(ward.standing().borrow().state, "on_trial", "a handshake alone is not enough");
        word(change.clone()).unwrap();
        wait(ward, "in_force", 3);
        assert_eq!(word(change), Err(Refused::NotOnTrial));
    });
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn a_trial_that_cannot_be_read_is_over() {
    let bench = Bench::new();
    let config = bench.dir.path().join("none.toml");
    std::fs::write(&config, "[firewal]\n").unwrap();
    let state = bench.state_dir();
    std::fs::create_dir(&state).unwrap();
    let guard = || bench.agent(&config, &["firewall", "guard", "--state-dir", state.to_str().unwrap()]);
    assert_eq!(guard(), (true, String::new()), "without a trial there is nothing to guard");
    bench.nft("add table inet ringward");
    std::fs::write(state.join("firewall-trial.json"), "{\"change\":").unwrap();
    let (done, text) = guard();
    assert!(done && text.contains("the old rules stand again"), "{text}");
    assert!(!bench.has_table() && !state.join("firewall-trial.json").exists());
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn without_a_message_or_without_a_handshake_the_first_rules_are_reverted() {
    for with_message in [false, true] {
        let bench = Bench::new();
        let mut before = bench.connect().unwrap();
        bench.with_ward(firewall(policy()), |ward| {
            wait(ward, "on_trial", 5);
            let began = Instant::now();
            while ward.standing().borrow().state == "on_trial" {
                assert!(began.elapsed() < Duration::from_secs(u64::from(CONFIRM_S) + 5));
                before.0.write_all(b"keystroke").unwrap();
                if with_message {
                    ward.confirmed();
                } else {
                    drop(bench.connect());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            assert!(began.elapsed() > Duration::from_secs(u64::from(CONFIRM_S) - 1));
            assert_eq!(ward.standing().borrow().state, "reverted");
            assert!(!bench.has_table() && bench.is_open());
            let refused = runtime().block_on(ward.ban(order("203.0.113.9/32", None))).unwrap_err();
            assert!(matches!(refused, Refused::NotInForce(_)), "{refused}");
        });
        // A restart does not try them again by itself; the operator does.
        bench.with_ward(firewall(policy()), |ward| {
            wait(ward, "reverted", 5);
            assert!(!bench.has_table());
            runtime().block_on(ward.retry()).unwrap();
            bench.confirm(ward);
        });
    }
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn rules_that_lock_out_go_at_the_deadline_and_the_old_ones_stand_with_their_bans() {
    let bench = Bench::new();
    bench.with_ward(firewall(policy()), |ward| {
        bench.confirm(ward);
        runtime().block_on(ward.ban(order("203.0.113.9/32", Some(600)))).unwrap();
    });
    bench.with_ward(firewall(lock_out()), |ward| {
        wait(ward, "on_trial", 5);
        assert!(bench.connect().is_none(), "these rules do lock out");
        runtime().block_on(ward.ban(order("203.0.113.10/32", Some(600)))).unwrap();
        until(u64::from(CONFIRM_S) + 2, "the way in is open", || bench.connect().is_some());
        wait(ward, "reverted", 5);
    });
    let held = bench.pair.pbx.readback();
    assert_eq!(node_agent_core::firewall::Plan::of(&policy()).difference(&held), [""; 0]);
    let mut nets: Vec<_> = held.bans().into_iter().map(|ban| ban.net.to_string()).collect();
    nets.sort();
    assert_eq!(nets, ["203.0.113.10/32", "203.0.113.9/32"]);
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn policies_and_bans_that_would_lock_out_are_refused() {
    let bench = Bench::new();
    for bad in [
        Policy { ssh_ports: Vec::new(), ..policy() },
        Policy { management: Vec::new(), ..policy() },
        Policy { management: nets(&["127.0.0.0/8"]), ..policy() },
    ] {
        bench.with_ward(firewall(bad), |ward| {
            wait(ward, "waiting", 5);
            assert!(!bench.has_table() && bench.is_open());
        });
    }
    bench.with_ward(firewall(policy()), |ward| {
        bench.confirm(ward);
        let runtime = runtime();
        let refused = |net: &str| match runtime.block_on(ward.ban(order(net, None))).unwrap_err() {
            Refused::Rules(refusal) => refusal,
            other => panic!("{net}: {other}"),
        };
        assert!(matches!(refused("0.0.0.0/0"), Refusal::Everything(_)));
        assert!(matches!(refused("::/0"), Refusal::Everything(_)));
        assert!(matches!(refused("192.0.0.0/8"), Refusal::TooWide { .. }));
        for (net, group) in [
            ("192.0.2.10/32", Group::Management),
            ("192.0.0.0/16", Group::Own),
            ("198.51.100.7/32", Group::Carrier),
            ("198.51.100.200/32", Group::Carrier),
            ("203.0.113.1/32", Group::ControlPlane),
            ("192.0.2.17/32", Group::Allow),
        ] {
            let refusal = refused(net);
            assert!(
                matches!(refusal, Refusal::Protected { by, .. } if by.group == group),
                "{net}: {refusal}"
            );
        }
        // Carriers and allowed networks gone: that is no business of management's way in.
        let fleet = Fleet { management: nets(&["192.0.2.11/32"]), ..Fleet::default() };
        runtime.block_on(ward.protect(fleet)).unwrap();
        assert_eq!(ward.standing().borrow().state, "in_force", "more networks need nobody to confirm them");
        runtime.block_on(ward.protect(Fleet::default())).unwrap();
        wait(ward, "on_trial", 5);
        assert!(bench.is_open());
        // Even the kernel's own set does not reach management.
        bench.nft(&format!("add element inet ringward ban4 {{ {OPERATOR} }}"));
        assert!(bench.is_open());
    });
    let bare = Policy { allow: Vec::new(), carriers: Vec::new(), ..policy() };
    bench.with_ward(firewall(bare), |_| {
        std::thread::sleep(Duration::from_secs(u64::from(CONFIRM_S) + 2));
        assert!(bench.is_open());
    });
}
