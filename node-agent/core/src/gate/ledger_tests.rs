//! Memory and counts against a small model of the PBX.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use node_agent_ami::EndpointName;
use proptest::prelude::*;

use super::{
    Bar, Ledger, Listed, NodeLimits, Policy, REMEMBERED_AT_LEAST, RefusalKind, TrunkLimits,
    originate::Originate, policy::NumberRule,
};
use crate::attempt_id::AttemptId;

const WIDE: NodeLimits = NodeLimits { channels_max: 1000, cps_max: 1000 };

fn endpoint(name: &str) -> EndpointName {
    EndpointName::parse(name).unwrap()
}

fn policy(channels_max: u32, cps_max: u32) -> Policy {
    let number = NumberRule { begins: "+".to_owned(), digits_min: 7, digits_max: 15 };
    let limits = TrunkLimits { channels_max, cps_max, number };
    Policy { trunks: HashMap::from([(endpoint("acme"), limits.clone()), (endpoint("beta"), limits)]) }
}

fn ledger(node: NodeLimits, trunks: Policy) -> Ledger {
    let mut ledger = Ledger::new(node, None);
    ledger.set_policy(trunks, node);
    ledger
}

fn id(n: u128) -> AttemptId {
    AttemptId::from_bits(n)
}

fn admit(ledger: &mut Ledger, n: u128, on: &str, now: Instant) -> Result<(), RefusalKind> {
    ledger.admit(&Originate::to_test(id(n), endpoint(on), "+48221234567"), now)
}

#[allow(clippy::disallowed_methods, reason = "a test's origin of time")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn barred_is_answered_only_where_it_is_proven_and_holds_from_then_on() {
    let now = start();
    let mut ledger = ledger(WIDE, policy(10, 10));
    assert_eq!(ledger.bar(id(1), None, now), Bar::Barred);
    assert_eq!(admit(&mut ledger, 1, "acme", now), Err(RefusalKind::Barred));
    assert_eq!(ledger.bar(id(1), None, now), Bar::Barred);
    admit(&mut ledger, 2, "acme", now).unwrap();
    assert_eq!(ledger.bar(id(2), None, now), Bar::Admitted);
    assert_eq!(admit(&mut ledger, 2, "beta", now), Err(RefusalKind::RepeatedAttempt));
}

#[test]
fn after_a_start_without_memory_only_the_age_tells() {
    let born = start();
    let mut ledger = Ledger::new(WIDE, Some(born));
    ledger.set_policy(policy(10, 10), WIDE);
    let second = Duration::from_secs(1);
    let now = born + 10 * second;
    assert_eq!(ledger.bar(id(1), None, now), Bar::Unknown);
    assert_eq!(admit(&mut ledger, 1, "acme", now), Err(RefusalKind::Barred), "refused all the same");
    assert_eq!(ledger.bar(id(1), Some(second), now), Bar::Unknown, "what was unknown stays so");
    assert_eq!(ledger.bar(id(2), Some(9 * second), now), Bar::Barred);
    assert_eq!(ledger.bar(id(3), Some(10 * second), now), Bar::Unknown);
    let later = born + REMEMBERED_AT_LEAST + second;
    assert_eq!(ledger.bar(id(4), None, later), Bar::Barred);
    // A journal brings back what an earlier process let through.
    ledger.restore(id(5), later);
    assert_eq!(ledger.bar(id(5), None, later), Bar::Admitted);
}

#[test]
fn fates_are_forgotten_after_an_hour_and_never_sooner() {
    let now = start();
    let mut ledger = Ledger::with_room(WIDE, None, 3);
    ledger.set_policy(policy(10, 10), WIDE);
    for n in 0..3 {
        admit(&mut ledger, n, "acme", now).unwrap();
        ledger.hung_up(id(n), now);
    }
    assert_eq!(admit(&mut ledger, 3, "acme", now), Err(RefusalKind::MemoryFull));
    assert_eq!(ledger.bar(id(4), None, now), Bar::Unknown, "a bar that cannot be kept is none");
    let later = now + REMEMBERED_AT_LEAST + Duration::from_secs(1);
    admit(&mut ledger, 3, "acme", later).unwrap();
    // Of an attempt as old as what was forgotten nothing can be said.
    let old = Some(REMEMBERED_AT_LEAST + Duration::from_secs(2));
    assert_eq!(ledger.bar(id(0), old, later), Bar::Unknown);
    assert_eq!(ledger.bar(id(9), Some(REMEMBERED_AT_LEAST), later), Bar::Barred);
}

#[test]
fn limits_of_trunk_and_node() {
    let now = start();
    let mut ledger1 = ledger(WIDE, policy(2, 100));
    admit(&mut ledger1, 1, "acme", now).unwrap();
    admit(&mut ledger1, 2, "acme", now).unwrap();
    assert_eq!(admit(&mut ledger1, 3, "acme", now), Err(RefusalKind::TrunkChannels));
    admit(&mut ledger1, 4, "beta", now).unwrap();
    ledger1.hung_up(id(1), now);
    ledger1.hung_up(id(1), now);
    admit(&mut ledger1, 5, "acme", now).unwrap();
    assert_eq!(admit(&mut ledger1, 6, "acme", now), Err(RefusalKind::TrunkChannels));

    let mut ledger2 = ledger(NodeLimits { channels_max: 1, cps_max: 100 }, policy(10, 10));
    admit(&mut ledger2, 1, "acme", now).unwrap();
    assert_eq!(admit(&mut ledger2, 2, "beta", now), Err(RefusalKind::NodeChannels));

    let mut ledger3 = ledger(WIDE, policy(1000, 4));
    let at = |ms| now + Duration::from_millis(ms);
    for n in 0..8 {
        admit(&mut ledger3, n, "acme", at(0)).unwrap();
    }
    assert_eq!(admit(&mut ledger3, 9, "acme", at(999)), Err(RefusalKind::TrunkPace));
    admit(&mut ledger3, 9, "acme", at(1000)).unwrap();
    assert_eq!(admit(&mut ledger3, 10, "nosuch", at(1000)), Err(RefusalKind::NotDeclared));
    let wrong = Originate::to_test(id(11), endpoint("acme"), "0900123456");
    assert_eq!(ledger3.admit(&wrong, at(2000)), Err(RefusalKind::BadValue), "not this trunk's form");
}

#[test]
fn channels_that_no_one_let_through_are_told_of_once_and_counted() {
    let now = start();
    let mut ledger = ledger(WIDE, policy(1, 10));
    admit(&mut ledger, 1, "beta", now).unwrap();
    let listed = [(1, "beta"), (2, "acme")].map(|(n, on)| Listed { attempt: id(n), endpoint: endpoint(on) });
    assert_eq!(ledger.reconcile(&listed, now, now), listed[1..]);
    assert_eq!(ledger.reconcile(&listed, now, now), []);
    assert_eq!(admit(&mut ledger, 3, "acme", now), Err(RefusalKind::TrunkChannels));
    assert_eq!(ledger.bar(id(2), None, now), Bar::Admitted);
    // One that was barred and lives all the same was sent by somebody else.
    assert_eq!(ledger.bar(id(4), None, now), Bar::Barred);
    let survivor = [Listed { attempt: id(4), endpoint: endpoint("acme") }];
    assert_eq!(ledger.reconcile(&survivor, now, now), survivor);
}

#[test]
fn a_list_says_nothing_of_what_began_or_ended_while_it_was_on_its_way() {
    let asked = start();
    let second = Duration::from_secs(1);
    let mut ledger = ledger(WIDE, policy(10, 10));
    let listed = [Listed { attempt: id(1), endpoint: endpoint("acme") }];
    admit(&mut ledger, 1, "acme", asked).unwrap();
    ledger.hung_up(id(1), asked + second);
    assert_eq!(ledger.reconcile(&listed, asked, asked + 2 * second), []);
    assert_eq!(ledger.channels(), 0, "an ended channel is counted again");
    // "Queued" comes before the channel does.
    admit(&mut ledger, 2, "acme", asked).unwrap();
    ledger.reconcile(&[], asked + second, asked + second);
    assert!(ledger.is_live(id(2)), "a channel in the making is not counted");
    ledger.reconcile(&[], asked + 6 * second, asked + 6 * second);
    assert!(!ledger.is_live(id(2)));
}

#[derive(Debug, Clone)]
enum Op {
    Admit {
        n: u8,
        on_beta: bool,
    },
    /// The channel ends; the streams hear of it or not, once or twice.
    End {
        n: u8,
        heard: u8,
    },
    Reject {
        n: u8,
    },
    /// OriginateResponse Failure, whatever is the case.
    Fails {
        n: u8,
    },
    /// Somebody else's Originate with an id of our form.
    Foreign {
        n: u8,
    },
    /// Asterisk is killed.
    Restart,
    /// A list is asked for, and comes after so many further steps.
    Ask,
    Listed,
    Wait {
        ms: u16,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..40_u8, any::<bool>()).prop_map(|(n, on_beta)| Op::Admit { n, on_beta }),
        4 => (0..40_u8, 0..3_u8).prop_map(|(n, heard)| Op::End { n, heard }),
        1 => (0..40_u8).prop_map(|n| Op::Reject { n }),
        1 => (0..40_u8).prop_map(|n| Op::Fails { n }),
        1 => (100..110_u8).prop_map(|n| Op::Foreign { n }),
        1 => Just(Op::Restart),
        2 => Just(Op::Ask),
        2 => Just(Op::Listed),
        3 => (0..9000_u16).prop_map(|ms| Op::Wait { ms }),
    ]
}

proptest! {
    /// Whatever is lost, doubled or late: no limit is passed, and one list later the counts are the truth.
    #[test]
    fn counts_do_not_drift(ops in prop::collection::vec(op(), 0..120)) {
        let mut now = start();
        let node = NodeLimits { channels_max: 12, cps_max: 100 };
        let mut ledger = ledger(node, policy(8, 100));
        let mut truth: HashMap<AttemptId, EndpointName> = HashMap::new();
        let mut asked: Option<(Instant, Vec<Listed>)> = None;
        let list = |truth: &HashMap<AttemptId, EndpointName>| -> Vec<Listed> {
            truth.iter().map(|(a, e)| Listed { attempt: *a, endpoint: e.clone() }).collect()
        };
        let mut used = HashSet::new();
        for op in ops {
            match op {
                Op::Admit { n, on_beta } => {
                    let on = if on_beta { "beta" } else { "acme" };
                    if admit(&mut ledger, n.into(), on, now).is_ok() {
                        prop_assert!(used.insert(n), "an attempt went through twice");
                        truth.insert(id(n.into()), endpoint(on));
                    }
                    prop_assert!(ledger.channels_of(&endpoint(on)) <= 8 + 10);
                }
                Op::End { n, heard } => {
                    if truth.remove(&id(n.into())).is_some() {
                        (0..heard).for_each(|_| ledger.hung_up(id(n.into()), now));
                    }
                }
                Op::Reject { n } => {
                    if truth.remove(&id(n.into())).is_some() {
                        ledger.rejected(id(n.into()), now);
                    }
                }
                Op::Fails { n } => {
                    ledger.channel_seen(id(n.into()));
                    ledger.originate_failed(id(n.into()), now);
                }
                Op::Foreign { n } => { truth.insert(id(n.into()), endpoint("acme")); }
                Op::Restart => truth.clear(),
                Op::Ask => asked = Some((now, list(&truth))),
                Op::Listed => if let Some((at, listed)) = asked.take() {
                    ledger.reconcile(&listed, at, now);
                }
                Op::Wait { ms } => now += Duration::from_millis(ms.into()),
            }
        }
        now += Duration::from_secs(6);
        ledger.reconcile(&list(&truth), now, now);
        prop_assert_eq!(ledger.channels(), truth.len());
        for name in ["acme", "beta"] {
            let really = truth.values().filter(|on| on.as_str() == name).count();
            prop_assert_eq!(ledger.channels_of(&endpoint(name)), really);
        }
        for attempt in truth.keys() {
            prop_assert!(ledger.is_live(*attempt));
            prop_assert_eq!(ledger.bar(*attempt, None, now), Bar::Admitted);
        }
    }
}

#[test]
fn what_live_calls_play_is_known_but_for_channels_of_an_earlier_process() {
    let (mut ledger, now) = (ledger(WIDE, policy(10, 10)), start());
    let play = |ledger: &mut Ledger, n: u128, sound: &str| {
        let originate = Originate::to_test(id(n), endpoint("acme"), "+48221234567").playing(sound);
        ledger.admit(&originate, now).unwrap();
    };
    play(&mut ledger, 1, "abc");
    assert_eq!(ledger.playing(), None, "Asterisk may have channels of before this process");
    ledger.reconcile(&[], now, now);
    play(&mut ledger, 2, "abc");
    play(&mut ledger, 3, "def");
    assert_eq!(ledger.playing(), Some(HashSet::from(["abc", "def"])));
    ledger.hung_up(id(1), now);
    ledger.hung_up(id(3), now);
    assert_eq!(ledger.playing(), Some(HashSet::from(["abc"])));
    let stranger = Listed { attempt: id(9), endpoint: endpoint("acme") };
    ledger.reconcile(&[stranger, Listed { attempt: id(2), endpoint: endpoint("acme") }], now, now);
    assert_eq!(ledger.playing(), None);
    ledger.hung_up(id(9), now);
    assert_eq!(ledger.playing(), Some(HashSet::from(["abc"])));
}
