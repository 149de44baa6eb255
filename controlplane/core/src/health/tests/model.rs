//! Random events against a small reference: what a trunk may never do, whatever happens to it.

use proptest::prelude::*;

use super::*;

/// One thing that happens, and the time until the next.
#[derive(Debug, Clone)]
enum Op {
    Contact(bool),
    Registration(u8),
    Sends,
    Ends { org: u64, destination: u32, class: EndingClass, age_s: u64 },
    Rings { destination: u32, age_s: u64 },
    Canary { class: EndingClass, met: bool },
    Cap(bool),
    Operator(bool),
}

fn any_op(orgs: u64, destinations: u32) -> impl Strategy<Value = Op> {
    // Half of the endings are of the kinds that decide most, or nothing would ever leave probation.
    let class = prop_oneof![
        prop::sample::select(EndingClass::ALL),
        prop::sample::select(&[EndingClass::Answered, EndingClass::UserBusy, EndingClass::CarrierSilent][..]),
    ];
    let age = prop_oneof![Just(0u64), 0..40u64];
    prop_oneof![
        3 => any::<bool>().prop_map(Op::Contact),
        1 => (0..3u8).prop_map(Op::Registration),
        2 => Just(Op::Sends),
        8 => (0..orgs, 0..destinations, class.clone(), age.clone())
            .prop_map(|(org, destination, class, age_s)| Op::Ends { org, destination, class, age_s }),
        2 => (0..destinations, age).prop_map(|(destination, age_s)| Op::Rings { destination, age_s }),
        1 => (class, any::<bool>()).prop_map(|(class, met)| Op::Canary { class, met }),
        1 => any::<bool>().prop_map(Op::Cap),
        1 => any::<bool>().prop_map(Op::Operator),
    ]
}

fn any_ops(orgs: u64, destinations: u32) -> impl Strategy<Value = Vec<(Op, u64)>> {
    prop::collection::vec((any_op(orgs, destinations), prop_oneof![Just(0u64), 0..30u64, 0..900u64]), 0..120)
}

impl Op {
    fn event(&self, p: &Played) -> Option<Event> {
        let ago = |s: &u64| p.now.checked_sub(Duration::from_secs(*s)).unwrap_or(p.now);
        Some(match self {
            Self::Contact(true) => Event::Reachable(Some(Duration::from_millis(20))),
            Self::Contact(false) => Event::Unreachable,
            Self::Registration(0) => Event::RegistrationLost,
            Self::Registration(1) => Event::RegistrationRejected,
            Self::Registration(_) => Event::Registered,
            Self::Ends { org: n, destination, class, age_s } => {
                Event::Ended(Call { began: ago(age_s), ..p.call(org(*n), *destination, *class) })
            }
            Self::Rings { destination, age_s } => {
                Event::Rang { destination: to(*destination), began: ago(age_s) }
            }
            Self::Canary { class, met } => {
                let met = if *met { Met::AsExpected } else { Met::Otherwise };
                Event::Canary(p.call(Party::Canary, 99, *class), met)
            }
            Self::Operator(true) => Event::Enable,
            Self::Operator(false) => Event::Disable,
            Self::Sends | Self::Cap(_) => return None,
        })
    }
}

/// Does one thing; the transitions it brought, deadlines that came due included.
fn play(p: &mut Played, op: &Op, wait: u64) -> Vec<Transition<TrunkState, Evidence>> {
    let mut transitions = Vec::new();
    match op {
        Op::Sends => p.trunk.sent(p.now),
        Op::Cap(reached) => {
            p.around.ejection = if *reached { Ejection::CapReached } else { Ejection::Allowed };
        }
        Op::Contact(_)
        | Op::Registration(_)
        | Op::Ends { .. }
        | Op::Rings { .. }
        | Op::Canary { .. }
        | Op::Operator(_) => {
            let event = op.event(p).unwrap();
            transitions.extend(p.feed(&event));
        }
    }
    let end = p.now + Duration::from_secs(wait);
    while let Some(due) = p.trunk.next_deadline().filter(|due| *due <= end) {
        p.now = p.now.max(due);
        transitions.extend(p.due());
    }
    p.now = end;
    transitions
}

/// Whether an event proves that the carrier delivered a call.
fn proves(p: &Played, op: &Op) -> bool {
    match op {
        Op::Rings { .. } | Op::Canary { met: true, .. } => true,
        Op::Ends { class, .. } | Op::Canary { class, met: false } => charge(
            &Ending::without_answer(*class, rang(*class)),
            Load::Normal,
            Duration::from_secs(8),
            &p.trunk.policy,
        )
        .delivered(),
        Op::Contact(_) | Op::Registration(_) | Op::Sends | Op::Cap(_) | Op::Operator(_) => false,
    }
}

fn by_call(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::Calls(_) | Evidence::Canaries { .. } | Evidence::Call { .. })
}

fn in_service(state: TrunkState) -> bool {
    matches!(state, TrunkState::Healthy | TrunkState::Degraded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Tripped and Probation always have a next deadline, and good news lead back into service.
    #[test]
    fn nothing_is_stuck(ops in any_ops(3, 6)) {
        let mut p = Played::new();
        for (op, wait) in ops {
            play(&mut p, &op, wait);
            if matches!(p.trunk.state(), TrunkState::Tripped | TrunkState::Probation) {
                let due = p.trunk.next_deadline();
                prop_assert!(due.is_some_and(|due| due > p.now), "{:?}", p.trunk);
                let longest = Policy::default().back_off_max.mul_f64(1.2);
                prop_assert!(due.is_some_and(|due| due <= p.now + longest));
            }
        }
        p.feed(&Event::Enable);
        p.feed(&Event::Reachable(Some(Duration::from_millis(19))));
        p.feed(&Event::Registered);
        p.wait_s(2_000);
        prop_assert_ne!(p.trunk.state(), TrunkState::Tripped);
        for n in 10..50 {
            p.trunk.sent(p.now);
            p.ends(n.into(), n, EndingClass::Answered);
            p.wait_s(10);
        }
        prop_assert_eq!(p.trunk.state(), TrunkState::Healthy);
    }

    /// The reference keeps two facts: whether the last trip was shown by a call, and whether a call got
    /// through since. Without the second, the first never ends in service.
    #[test]
    fn what_a_call_has_shown_only_a_call_disproves(ops in any_ops(3, 6)) {
        let mut p = Played::new();
        let (mut shown, mut disproved) = (false, false);
        for (op, wait) in ops {
            disproved |= proves(&p, &op);
            let before = p.trunk.state();
            for t in play(&mut p, &op, wait) {
                if t.to == TrunkState::Tripped {
                    let no_channel = matches!(&t.evidence, Evidence::Call { ending: EndingClass::ContactDown, .. });
                    shown |= by_call(&t.evidence) && !no_channel;
                    if t.from != TrunkState::Tripped {
                        disproved = false;
                    }
                }
                let left = matches!(t.from, TrunkState::Tripped | TrunkState::Probation | TrunkState::Disabled);
                if in_service(t.to) && left {
                    prop_assert!(!shown || disproved, "{op:?}: {before} → {t:?}");
                    shown = false;
                }
                prop_assert!(!(t.from == TrunkState::Tripped && in_service(t.to)), "no way around probation");
            }
        }
    }

    /// Back-off never shrinks without a call that got through.
    #[test]
    fn back_off_shrinks_on_evidence_alone(ops in any_ops(3, 6)) {
        let mut p = Played::new();
        for (op, wait) in ops {
            let (level, proves) = (p.level(), proves(&p, &op));
            play(&mut p, &op, wait);
            prop_assert!(p.level() >= level || (proves && p.level() + 1 == level));
        }
    }

    /// Neither one customer of several nor one destination trips a trunk by what may be their own affair.
    #[test]
    fn one_witness_never_trips(one_org: bool, ops in any_ops(1, 6), ops_of_one_destination in any_ops(4, 1)) {
        let mut p = Played::new();
        p.around.customers = if one_org { Customers::Several } else { Customers::One };
        for (op, wait) in if one_org { ops } else { ops_of_one_destination } {
            let may_be_its_own = match &op {
                Op::Ends { class, .. } => !matches!(
                    class,
                    EndingClass::ContactDown | EndingClass::Unauthorized | EndingClass::CarrierSilent
                ),
                Op::Sends | Op::Rings { .. } => true,
                Op::Contact(_) | Op::Registration(_) | Op::Canary { .. } | Op::Cap(_) | Op::Operator(_) => false,
            };
            if may_be_its_own {
                play(&mut p, &op, wait);
                prop_assert_ne!(p.trunk.state(), TrunkState::Tripped);
            }
        }
    }

    /// A twin that is stored and restored after every step cannot be told from the one that lives on.
    #[test]
    fn a_restart_changes_nothing_visible(ops in any_ops(3, 6)) {
        let mut p = Played::new();
        let mut twin = p.clone();
        for (op, wait) in ops {
            let (one, two) = (play(&mut p, &op, wait), play(&mut twin, &op, wait));
            prop_assert_eq!(one, two);
            let json = serde_json::to_string(&twin.trunk.snapshot(twin.now)).unwrap();
            let snapshot = serde_json::from_str(&json).unwrap();
            twin.trunk = TrunkHealth::restore(twin.now, snapshot, twin.trunk.canary(), Policy::default());
            prop_assert_eq!(p.trunk.why(p.now), twin.trunk.why(twin.now));
            prop_assert_eq!(p.trunk.next_deadline(), twin.trunk.next_deadline());
            for n in 0..6 {
                prop_assert_eq!(p.standing(n), twin.standing(n));
            }
        }
    }

    /// The history is bounded and joins up: each change begins where the one before it ended.
    #[test]
    fn the_history_is_a_chain(ops in any_ops(3, 6)) {
        let mut p = Played::new();
        for (op, wait) in ops {
            play(&mut p, &op, wait);
            let why = p.trunk.why(p.now);
            prop_assert!(why.history.len() <= Policy::default().history_max);
            prop_assert!(why.history.windows(2).all(|w| w[0].from == w[1].to && w[0].ago_ms <= w[1].ago_ms));
            prop_assert!(why.history.first().is_none_or(|latest| latest.to == why.state));
        }
    }
}
