//! Rules that come in force: by the fleet's policy, by hand without a control plane, by IPv6; and what undoes them.

use std::{io::Write, time::Duration};

use lab::{Signal, now, numbers, pause, wait_until};
use serde_json::json;

use crate::fixture::end;
use crate::walled::{CONFIRM_S, Walled};

#[test]
fn a_fleets_policy_is_confirmed_put_right_and_outlives_its_agent() {
    let walled = Walled::up("");
    let took = walled.until("on_trial", 20);
    println!("on trial {} ms after systemd had restarted the agent", took.as_millis());
    walled.confirm();
    let check = walled.shell("ringward-agent check || true");
    assert!(check.contains("good  firewall: on: 0 differences"), "{check}");
    let call = walled.fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!(end(&call), "completed/played/answered", "behind the wall calls go on: {call}");
    // The guard went with the trial; its watch stays.
    let units =
        walled.shell("systemctl is-active ringward-agent-guard.path ringward-agent-guard.service || true");
    assert_eq!(units.split_whitespace().collect::<Vec<_>>(), ["active", "inactive"]);

    walled.shell("nft add table inet other; ringward-agent ban add 203.0.113.0/28 --seconds 900");
    walled.shell("for n in 1 2 3; do ringward-agent ban add 198.18.0.$n --seconds 900; done");
    // Neighbours, which nft may list as one.
    walled
        .shell("ringward-agent ban add 203.0.113.16/28 --seconds 900; ringward-agent ban add 2001:db8:66::9");
    let whole = || {
        let table = walled.pbx().shell("nft list table inet ringward").unwrap_or_default();
        let bans = ["198.18.0.1 ", "198.18.0.2 ", "198.18.0.3 ", "203.0.113.0", "2001:db8:66::"];
        table.contains("ssh from management") && bans.iter().all(|ban| table.contains(ban))
    };
    wait_until("all bans to be there", Duration::from_secs(5), "", whole).unwrap();
    pause(Duration::from_secs(5));
    let repairs = || walled.agent().metric("ringward_agent_firewall_repairs_total").unwrap();
    assert!(repairs() < 0.5, "nothing was amiss\n{}", walled.words());
    for harm in [
        "nft flush ruleset",
        "nft delete element inet ringward ban4 { 198.18.0.2 }",
        "nft delete element inet ringward bannet4 { 203.0.113.0/28 }",
        "nft delete element inet ringward ban6 { 2001:db8:66:: }",
        "nft insert rule inet ringward input tcp dport 22 drop",
    ] {
        walled.shell(harm);
        assert!(harm.contains("insert") || !whole(), "{harm}: no harm done");
        let began = now();
        let right = || {
            let input = walled.pbx().shell("nft list chain inet ringward input").unwrap_or_default();
            let has_drop = input.contains("tcp dport 22 drop\n");
            whole() && !has_drop
        };
        wait_until(harm, Duration::from_secs(5), "", right)
            .unwrap_or_else(|error| panic!("{error}\n{}", walled.words()));
        println!("{harm}: put right after {} ms", began.elapsed().as_millis());
    }
    assert!(repairs() > 4.5, "each was told of\n{}", walled.words());

    // Stopped, the protection stays; removed, our table goes and no other.
    walled.shell("nft list tables | grep -q other || nft add table inet other");
    let refused = walled.pbx().shell("ringward-agent firewall remove");
    assert!(refused.is_err(), "not while the agent would put it back");
    walled.shell("systemctl stop ringward-agent");
    assert!(whole() && walled.enter().is_some());
    walled.shell("ringward-agent firewall remove");
    let tables = walled.shell("nft list tables");
    assert!(tables.contains("inet other") && !tables.contains("ringward"), "{tables}");
    let security = walled.shell(
        "for u in ringward-agent ringward-agent-guard; do systemd-analyze security --no-pager $u | tail -1; done",
    );
    println!("{security}");
}

#[test]
fn ipv6_comes_in_and_is_banned_by_its_64() {
    let walled = Walled::up("");
    walled.until("on_trial", 20);
    pause(Duration::from_millis(1_200));
    let inside = walled.enter_v6();
    assert!(inside.is_some(), "{}", walled.words());
    walled.until("in_force", 8);

    let attacker = walled.fleet.lab.attacker().host().clone();
    let mut ip = attacker.in_namespace();
    let add = ["ip", "-6", "addr", "add", "2001:db8:1:66::1/48", "dev", "eth0", "nodad"];
    assert!(ip.args(add).status().unwrap().success());
    let knock = || attacker.connect("[2001:db8:1::11]:7".parse().unwrap(), Duration::from_millis(700));
    // Nobody listens there: who is let in hears so, who is banned hears nothing. Neighbours who ask for each other for the first time ask
    // again after a second if nobody answers (RFC 4861 section 10), later than a knock takes.
    let is_refused = || knock().unwrap_err().kind() == std::io::ErrorKind::ConnectionRefused;
    wait_until("a stranger to be let in", Duration::from_secs(5), "", is_refused).unwrap();
    walled.shell("ringward-agent ban add 2001:db8:1:66:aaaa::9 --seconds 600 --reason test");
    assert!(walled.shell("ringward-agent ban list").contains("2001:db8:1:66::/64"));
    assert_ne!(
        knock().unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused,
        "the whole /64 is cut off"
    );
    let refused = walled.pbx().shell("ringward-agent ban add 2001:db8:1:7::77");
    assert!(refused.is_err(), "management by IPv6 is never banned");
}

#[test]
fn without_a_control_plane_the_operators_word_and_a_new_handshake_confirm() {
    let walled = Walled::confirmed("");
    walled.fleet.plane.signal(Signal::Kill).unwrap();
    let mut before = walled.enter().unwrap();
    walled.settle("closed = { tcp = [5038, 8088, 8089, 7000] }");
    walled.until("on_trial", 20);
    // His word alone, and an established connection, are no proof.
    before.write_all(b"SSH-2.0-operator\r\n").unwrap();
    let alone = walled.pbx().shell("ringward-agent firewall confirm --author anna");
    let words = alone.expect_err("nobody has come in").to_string();
    assert!(words.contains("waits for a new ssh connection"), "{words}");
    walled.until("reverted", 5);
    assert!(!walled.shell("nft list chain inet ringward input").contains("7000"));

    walled.shell("ringward-agent firewall apply");
    walled.until("on_trial", 10);
    let inside = walled.enter();
    assert!(inside.is_some());
    // Nor is the handshake alone, with nobody to say that he is in.
    pause(Duration::from_secs(2));
    assert!(walled.standing().starts_with("on_trial"), "{}", walled.standing());
    let began = now();
    let words = walled.shell("ringward-agent firewall confirm --author anna");
    assert!(words.contains("in_force"), "{words}");
    println!("confirmed by hand within {} ms", began.elapsed().as_millis());
    assert!(walled.shell("nft list chain inet ringward input").contains("7000"));
    pause(Duration::from_secs(CONFIRM_S));
    assert!(walled.standing().starts_with("in_force"), "it stays: {}", walled.standing());
}
