use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::names::TrunkName;

/// A fleet of trunks `(name, node, carrier, weight)`; a node's region is its name's first letter; one route.
fn fleet(trunks: &[(&str, &str, &str, u32)], tiers: &str) -> Fleet {
    let mut text = String::new();
    for node in trunks.iter().map(|t| t.1).collect::<BTreeSet<_>>() {
        writeln!(text, "[[node]]\nname = {node:?}\nregion = {:?}", &node[..1]).unwrap();
    }
    for carrier in trunks.iter().map(|t| t.2).collect::<BTreeSet<_>>() {
        writeln!(text, "[[carrier]]\nname = {carrier:?}").unwrap();
    }
    for (name, node, carrier, weight) in trunks {
        writeln!(
            text,
            "[[trunk]]\nname = {name:?}\nnode = {node:?}\ncarrier = {carrier:?}\nendpoint = {name:?}\nweight = {weight}"
        )
        .unwrap();
    }
    writeln!(text, "[[route]]\nprefix = \"+\"\ntiers = {tiers}").unwrap();
    Fleet::parse(&text).unwrap()
}

fn to() -> E164 {
    "+48221234567".parse().unwrap()
}

fn name(text: &str) -> TrunkName {
    text.parse().unwrap()
}

fn ready(_: &Trunk) -> Availability {
    Availability::Ready(Standing::Preferred)
}

fn tried(fleet: &Fleet, names: &[&str]) -> Tried {
    let mut tried = Tried::default();
    for n in names {
        tried.add(fleet.trunk(&name(n)).unwrap(), fleet);
    }
    tried
}

fn picks(selector: &mut Selector, fleet: &Fleet, count: usize) -> Vec<String> {
    let one = |_| match selector.choose(fleet, &to(), &Tried::default(), ready).choice {
        Choice::Trunk(name) => name.to_string(),
        other @ (Choice::Wait { .. } | Choice::NoRoute | Choice::NothingLeft | Choice::NothingUsable) => {
            format!("{other:?}")
        }
    };
    (0..count).map(one).collect()
}

fn only<'a>(names: &'a [&'a str]) -> impl Fn(&Trunk) -> Availability + 'a {
    |t| match names.contains(&t.name.as_str()) {
        true => Availability::Ready(Standing::Preferred),
        false => Availability::Unusable(PassedOver::TrunkTripped),
    }
}

fn verdicts(decision: &Decision) -> Vec<(usize, &str, &'static str)> {
    decision.considered.iter().map(|c| (c.tier, c.trunk.as_str(), c.verdict.as_str())).collect()
}

/// Two nodes in two regions, two carriers on each.
const SQUARE: [(&str, &str, &str, u32); 4] =
    [("a-1", "w1", "a", 1), ("b-1", "w1", "b", 1), ("a-2", "f2", "a", 1), ("b-2", "f2", "b", 1)];

#[test]
fn turns_are_spread_as_nginx_spreads_them() {
    let fleet =
        fleet(&[("a", "n1", "c", 5), ("b", "n2", "c", 1), ("d", "n3", "c", 1)], r#"[["a", "b", "d"]]"#);
    assert_eq!(picks(&mut Selector::new(), &fleet, 7), ["a", "a", "b", "a", "d", "a", "a"]);
}

#[test]
fn a_hundred_calls_over_equal_trunks_are_even() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1", "a-2"]]"#);
    let mut counts = HashMap::new();
    for pick in picks(&mut Selector::new(), &fleet, 100) {
        *counts.entry(pick).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|c| (33..=34).contains(c)), "{counts:?}");
}

#[test]
fn a_trunk_that_comes_back_is_not_flooded() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1", "a-2"]]"#);
    let mut selector = Selector::new();
    for _ in 0..1_000 {
        selector.choose(&fleet, &to(), &Tried::default(), only(&["a-1", "b-1"]));
    }
    let back = picks(&mut selector, &fleet, 9).iter().filter(|p| *p == "a-2").count();
    assert!((2..=4).contains(&back), "{back}");
}

#[test]
fn a_lower_tier_is_used_when_the_higher_has_nobody_ready() {
    let fleet = fleet(&SQUARE, r#"[["a-1"], ["b-2"]]"#);
    let mut selector = Selector::new();
    assert_eq!(picks(&mut selector, &fleet, 3), ["a-1", "a-1", "a-1"]);
    let limited = |t: &Trunk| match t.name.as_str() {
        "a-1" => Availability::Later { until: None, why: PassedOver::AtChannels },
        _ => Availability::Ready(Standing::Preferred),
    };
    let decision = selector.choose(&fleet, &to(), &Tried::default(), limited);
    assert_eq!(decision.choice, Choice::Trunk(name("b-2")));
    assert_eq!(verdicts(&decision), [(0, "a-1", "at_channels"), (1, "b-2", "chosen")]);
    assert_eq!(decision.route.unwrap().as_str(), "+");
}

#[test]
fn failover_crosses_node_carrier_and_region_when_it_can() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1", "a-2", "b-2"]]"#);
    for (first, second) in [("a-1", "b-2"), ("b-1", "a-2"), ("a-2", "b-1"), ("b-2", "a-1")] {
        let mut selector = Selector::new();
        for _ in 0..10 {
            let decision = selector.choose(&fleet, &to(), &tried(&fleet, &[first]), ready);
            assert_eq!(decision.choice, Choice::Trunk(name(second)));
        }
    }
    let decision = Selector::new().choose(&fleet, &to(), &tried(&fleet, &["a-1"]), ready);
    assert_eq!(
        verdicts(&decision),
        [(0, "a-1", "tried"), (0, "b-1", "same_node"), (0, "a-2", "same_carrier"), (0, "b-2", "chosen")]
    );
}

#[test]
fn the_node_that_failed_is_the_last_resort_over_all_tiers() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1"], ["a-2"]]"#);
    let tried = tried(&fleet, &["a-1"]);
    let mut selector = Selector::new();
    let decision = selector.choose(&fleet, &to(), &tried, ready);
    assert_eq!(decision.choice, Choice::Trunk(name("a-2")));
    assert_eq!(decision.considered[1].verdict, Verdict::Outranked(Outranked::SameNode));
    let decision = selector.choose(&fleet, &to(), &tried, only(&["b-1"]));
    assert_eq!(decision.choice, Choice::Trunk(name("b-1")));
}

#[test]
fn after_a_failure_another_carrier_counts_before_the_tier_and_the_tier_before_the_region() {
    let trunks =
        [("x", "w1", "a", 1), ("same-c", "f1", "a", 1), ("same-r", "w2", "b", 1), ("low", "g1", "b", 1)];
    let tiers = r#"[["x", "same-c", "same-r"], ["low"]]"#;
    let fleet = fleet(&trunks, tiers);
    let tried = tried(&fleet, &["x"]);
    let decision = Selector::new().choose(&fleet, &to(), &tried, ready);
    assert_eq!(decision.choice, Choice::Trunk(name("same-r")));
    let decision = Selector::new().choose(&fleet, &to(), &tried, only(&["same-c", "low"]));
    assert_eq!(decision.choice, Choice::Trunk(name("low")));
    assert_eq!(decision.considered[1].verdict, Verdict::Outranked(Outranked::SameCarrier));
    let decision = Selector::new().choose(&fleet, &to(), &tried, only(&["same-r", "low"]));
    assert_eq!(decision.choice, Choice::Trunk(name("same-r")));
    assert_eq!(decision.considered[3].verdict, Verdict::Outranked(Outranked::LowerTier));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
fn without_a_ready_trunk_the_choice_says_whether_waiting_helps() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1"], ["a-2"]]"#);
    let nothing = Tried::default();
    let now = Instant::now();
    let mut selector = Selector::new();
    let mut choice = |tried: &Tried, of: [Availability; 3]| {
        let at = |t: &Trunk| of[["a-1", "b-1", "a-2"].iter().position(|n| *n == t.name.as_str()).unwrap()];
        selector.choose(&fleet, &to(), tried, at).choice
    };
    let later =
        |ms| Availability::Later { until: Some(now + Duration::from_millis(ms)), why: PassedOver::AtCps };
    let full = Availability::Later { until: None, why: PassedOver::AtChannels };
    let down = Availability::Unusable(PassedOver::NodeDown);
    let barred = Availability::Unusable(PassedOver::CallerIdNotAllowed);
    let first = Some(now + Duration::from_millis(200));
    assert_eq!(choice(&nothing, [later(300), full, later(200)]), Choice::Wait { until: first });
    assert_eq!(choice(&nothing, [full, down, barred]), Choice::Wait { until: None });
    assert_eq!(choice(&nothing, [down, barred, barred]), Choice::NothingUsable);
    assert_eq!(choice(&nothing, [barred, barred, barred]), Choice::NothingLeft);
    let one = tried(&fleet, &["a-1"]);
    assert_eq!(choice(&one, [later(1), barred, barred]), Choice::NothingLeft);
    assert_eq!(choice(&one, [later(1), down, barred]), Choice::NothingUsable);
    assert_eq!(
        choice(&tried(&fleet, &["a-1", "b-1", "a-2"]), [Availability::Ready(Standing::Preferred); 3]),
        Choice::NothingLeft
    );
    let decision = selector.choose(&Fleet::default(), &to(), &nothing, ready);
    assert_eq!((decision.choice, decision.route), (Choice::NoRoute, None));
}

#[test]
fn what_works_comes_before_a_reserve_of_its_tier_and_a_last_resort_after_everything() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-1", "a-2"], ["b-2"]]"#);
    let as_is = |of: [Standing; 4]| {
        let at = |t: &Trunk| {
            let place = ["a-1", "b-1", "a-2", "b-2"].iter().position(|n| *n == t.name.as_str()).unwrap();
            Availability::Ready(of[place])
        };
        let decision = Selector::new().choose(&fleet, &to(), &Tried::default(), at);
        decision.considered.iter().map(|c| c.verdict.as_str()).collect::<Vec<_>>()
    };
    let (well, less, broken) = (Standing::Preferred, Standing::Reserve, Standing::LastResort);
    assert_eq!(as_is([less, well, broken, well]), ["reserve", "chosen", "last_resort", "lower_tier"]);
    assert_eq!(as_is([broken, broken, less, well]), ["last_resort", "last_resort", "chosen", "lower_tier"]);
    assert_eq!(
        as_is([broken, broken, broken, less]),
        ["last_resort", "last_resort", "last_resort", "chosen"]
    );
}

#[test]
fn an_attempt_whose_trunk_is_gone_still_speaks_against_its_node() {
    let fleet = fleet(&SQUARE, r#"[["a-1", "b-2"]]"#);
    let mut tried = Tried::default();
    tried.add_names(&name("gone"), &"w1".parse().unwrap(), &"a".parse().unwrap(), &fleet);
    assert_eq!(Selector::new().choose(&fleet, &to(), &tried, ready).choice, Choice::Trunk(name("b-2")));
}

#[test]
fn turns_survive_a_change_of_the_fleet_and_what_vanished_is_forgotten() {
    let mut selector = Selector::new();
    for generation in 0..50 {
        let old = format!("x{generation}");
        let fleet = fleet(&[("a", "n1", "c", 1), (&old, "n2", "c", 1)], &format!("[[\"a\", \"{old}\"]]"));
        let got = picks(&mut selector, &fleet, 10).iter().filter(|p| *p == "a").count();
        assert!((4..=6).contains(&got), "{got}");
    }
    assert!(selector.robin.len() <= 2, "{:?}", selector.robin);
}

/// What a trunk answers, by a number.
fn availability(n: u8) -> Availability {
    match n {
        0..=1 => Availability::Ready(Standing::Preferred),
        2 => Availability::Ready(Standing::Reserve),
        3 => Availability::Ready(Standing::LastResort),
        4 => Availability::Later { until: None, why: PassedOver::AtChannels },
        5 => Availability::Unusable(PassedOver::CallerIdNotAllowed),
        _ => Availability::Unusable(PassedOver::NodeDown),
    }
}

proptest! {
    #[test]
    fn every_choice_keeps_the_rules(
        shape in prop::collection::vec((0_u8..4, 0_u8..3, 1_u32..6, 0_usize..3), 1..10),
        calls in prop::collection::vec(prop::collection::vec(0_u8..8, 10), 1..20),
    ) {
        let names: Vec<_> = (0..shape.len()).map(|n| format!("t{n}")).collect();
        let words: Vec<_> = shape.iter().map(|s| (format!("n{}", s.0), format!("c{}", s.1))).collect();
        let trunks: Vec<_> = names.iter().zip(&words).zip(&shape)
            .map(|((name, (node, carrier)), s)| (name.as_str(), node.as_str(), carrier.as_str(), s.2)).collect();
        let tiers: Vec<Vec<_>> = (0..3)
            .map(|tier| names.iter().zip(&shape).filter(|(_, s)| s.3 == tier).map(|(n, _)| n).collect::<Vec<_>>())
            .filter(|t| !t.is_empty()).collect();
        let fleet = fleet(&trunks, &format!("{tiers:?}"));
        let mut selector = Selector::new();
        for call in calls {
            let at = |t: &Trunk| availability(call[names.iter().position(|n| *n == t.name.as_str()).unwrap()]);
            let mut tried = Tried::default();
            let mut seen: Vec<TrunkName> = Vec::new();
            // As many attempts as the route gives.
            loop {
                let explained = selector.explain(&fleet, &to(), &tried, at);
                prop_assert_eq!(&explained, &selector.explain(&fleet, &to(), &tried, at));
                let decision = selector.choose(&fleet, &to(), &tried, at);
                prop_assert_eq!(&explained, &decision);
                prop_assert_eq!(decision.considered.len(), names.len());
                let usable: Vec<_> = fleet.trunks()
                    .filter(|t| matches!(at(t), Availability::Ready(_)) && !seen.contains(&t.name)).collect();
                let sound: Vec<_> = usable.iter()
                    .filter(|t| at(t) != Availability::Ready(Standing::LastResort)).collect();
                let chosen = decision.considered.iter().filter(|c| c.verdict == Verdict::Chosen).count();
                let Choice::Trunk(name) = decision.choice else {
                    prop_assert!(usable.is_empty() && chosen == 0);
                    break;
                };
                prop_assert_eq!(chosen, 1);
                let trunk = fleet.trunk(&name).unwrap();
                prop_assert!(usable.contains(&trunk));
                prop_assert!(sound.is_empty() || sound.contains(&&trunk));
                if tried.has_node(&trunk.node) {
                    prop_assert!(sound.iter().all(|t| tried.has_node(&t.node)));
                }
                tried.add(trunk, &fleet);
                seen.push(name);
            }
        }
    }

    #[test]
    fn over_a_cycle_everyone_gets_its_weight(weights in prop::collection::vec(1_u32..=20, 1..8), cut in 0_usize..200) {
        let names: Vec<_> = (0..weights.len()).map(|n| format!("t{n}")).collect();
        let trunks: Vec<_> = names.iter().zip(&weights).map(|(n, w)| (n.as_str(), n.as_str(), "c", *w)).collect();
        let fleet = fleet(&trunks, &format!("[{names:?}]"));
        let cycle: usize = weights.iter().map(|w| *w as usize).sum();
        let all = picks(&mut Selector::new(), &fleet, cycle + cut);
        for (name, weight) in names.iter().zip(&weights) {
            let count = |picks: &[String]| picks.iter().filter(|p| *p == name).count();
            prop_assert_eq!(count(&all[cut..]), *weight as usize);
        }
    }
}
