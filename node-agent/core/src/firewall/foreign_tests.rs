//! A ruleset as nft 1.0.6 lists it: an administrator's table, Docker's way in, an IPv6 table.

use super::{super::*, *};

const RULESET: &str = include_str!("foreign_ruleset.json");

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn told(change: fn(&mut Policy)) -> Vec<(bool, String)> {
    let mut policy = Policy { management: nets(&["10.9.0.0/16"]), ..Policy::default() };
    change(&mut policy);
    conflicts(&policy, RULESET).into_iter().map(|conflict| (conflict.is_certain, conflict.text)).collect()
}

#[test]
fn what_others_drop_is_told_and_what_they_let_in_is_not() {
    let certain = |text: &str| (true, text.to_owned());
    let perhaps = |text: &str| (false, text.to_owned());
    let usual = vec![
        perhaps("table inet filter, chain input may drop SIP from phones: udp port 5060 from 198.18.0.1"),
        certain("table inet filter, chain input drops SIP from phones: tcp port 5060 from 198.18.0.1"),
        certain("table inet filter, chain input drops SIP from phones: tcp port 5061 from 198.18.0.1"),
        certain(
            "table ip nat, chain prerouting leads elsewhere, past our rules, a closed port: tcp port 8088 from 198.18.0.1",
        ),
    ];
    // ssh from management passes, and so does an open port that a chain behind a jump accepts.
    assert_eq!(told(|p| p.open.tcp = vec![443]), usual);
    let mut expected =
        vec![certain("table inet filter, chain input drops an open port: tcp port 80 from 198.18.0.1")];
    expected.splice(0..0, usual[..3].iter().cloned());
    expected.push(usual[3].clone());
    assert_eq!(told(|p| p.open.tcp = vec![80]), expected);
    let foreign = told(|p| p.management = nets(&["10.8.0.0/16"]));
    assert_eq!(
        foreign[0],
        certain("table inet filter, chain input drops ssh from management: tcp port 22 from 10.8.0.1")
    );
    let six = told(|p| p.management = nets(&["2001:db8:9::/48"]));
    assert!(
        six.iter().any(|(certain, text)| *certain && text.starts_with("table ip6 six, chain in6 drops ssh"))
    );
    assert!(!told(|p| p.closed.tcp.clear()).iter().any(|(_, text)| text.contains("nat")));
    assert!(conflicts(&Policy::default(), "no JSON")[0].is_certain);
}
