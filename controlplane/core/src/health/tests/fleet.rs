//! The board: bounds over a whole fleet, nodes and panic.

use proptest::prelude::*;

use super::*;
use crate::{
    fleet::{Fleet, Trunk},
    names::{NodeName, TrunkName},
    selection::{Availability, PassedOver},
};

/// Two nodes with three trunks each, one route of two tiers.
const FLEET: &str = r#"
[[carrier]]
name = "acme"
[[node]]
name = "waw-1"
[[node]]
name = "fra-1"
ami = { address = "192.0.2.11:5038", username = "ringward", secret_file = "s" }
[[route]]
prefix = "+"
tiers = [["waw-a", "waw-b", "fra-a"], ["waw-c", "fra-b", "fra-c"]]
"#;

struct Played {
    now: Instant,
    fleet: Fleet,
    board: Board,
    rng: StdRng,
}

fn trunk(n: usize) -> TrunkName {
    ["waw-a", "waw-b", "waw-c", "fra-a", "fra-b", "fra-c"][n % 6].parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

impl Played {
    fn new() -> Self {
        let mut text = FLEET.to_owned();
        for n in 0..6 {
            let name = trunk(n);
            let node = if n < 3 { "waw-1" } else { "fra-1" };
            text += &format!(
                "[[trunk]]\nname = \"{name}\"\nnode = \"{node}\"\ncarrier = \"acme\"\nendpoint = \"{name}\"\n"
            );
        }
        #[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
        let now = Instant::now();
        let fleet = Fleet::parse(&text).unwrap();
        let mut board = Board::new(Policy::default(), NodePolicy::default());
        board.sync(&fleet, now);
        let mut p = Self { now, fleet, board, rng: StdRng::seed_from_u64(3) };
        p.beat();
        p.now += Duration::from_secs(4);
        p.beat();
        p
    }

    /// Both nodes are well.
    fn beat(&mut self) {
        self.board.handle_node(self.now, &node("waw-1"), NodeEvent::Heartbeat);
        for name in ["waw-1", "fra-1"] {
            if self.board.node(&node(name)).unwrap().state() != NodeState::Alive {
                self.board.handle_node(self.now, &node(name), NodeEvent::AmiUp);
            }
        }
        self.board.on_deadline(self.now, &mut self.rng);
    }

    fn feed(&mut self, n: usize, event: &Event) -> TrunkState {
        self.board.handle(self.now, &trunk(n), event, &mut self.rng);
        self.board.trunk(&trunk(n)).unwrap().state()
    }

    fn call(&self, destination: u32, class: EndingClass) -> Call {
        Call {
            ending: Ending::without_answer(class, rang(class)),
            began: self.now,
            waited: Duration::from_secs(8),
            party: org(destination.into()),
            destination: to(destination),
            caller: None,
            load: Load::Normal,
        }
    }

    fn ends(&mut self, n: usize, destination: u32, class: EndingClass) -> TrunkState {
        let call = self.call(destination, class);
        self.feed(n, &Event::Ended(call))
    }

    /// How all stand for a call to destination 1, and whether it is panic.
    fn asks(&self) -> (bool, Vec<Result<Standing, Refusal>>) {
        let to = number(1);
        let route = self.fleet.route_for(&to).unwrap();
        let call = self.board.for_call(self.now, &self.fleet, route, &to, None, |_| true);
        let stand = |n| call.standing(self.fleet.trunk(&trunk(n)).unwrap()).map_err(|w| w.why);
        (call.is_panic(), (0..6).map(stand).collect())
    }

    fn ejected(&self) -> usize {
        self.board.trunks().filter(|(_, t)| t.is_ejected()).count()
    }
}

#[test]
fn at_most_half_are_ejected_by_calls_and_the_rest_comes_after_what_works() {
    let mut p = Played::new();
    for n in 0..5 {
        p.ends(n, 1, EndingClass::CarrierSilent);
    }
    assert_eq!(p.ejected(), 3);
    let (panic, stand) = p.asks();
    assert!(!panic);
    let tripped = Err(Refusal::Tripped);
    let reserve = Ok(Standing::Reserve);
    assert_eq!(stand, [tripped, tripped, tripped, reserve, reserve, reserve]);
    assert_eq!(p.feed(5, &Event::Reachable(None)), TrunkState::Healthy);
    assert_eq!(p.asks().1[5], Ok(Standing::Preferred));
}

#[test]
fn when_all_are_judged_bad_calls_are_tried_but_never_on_a_lost_node_nor_a_disabled_trunk() {
    let mut p = Played::new();
    for n in 0..6 {
        p.feed(n, &Event::Unreachable);
    }
    p.feed(0, &Event::Disable);
    let began = p.board.look_for_panic(p.now, &p.fleet, p.fleet.routes(), |_| true);
    let bad = panic::RouteCount { usable: 0, withheld: 5 };
    assert_eq!(began, [("+".parse().unwrap(), panic::PanicChange::Began(bad))]);
    assert_eq!(p.board.look_for_panic(p.now, &p.fleet, p.fleet.routes(), |_| true), []);
    assert_eq!(p.board.panics().iter().len(), 1);
    p.board.handle_node(p.now, &node("fra-1"), NodeEvent::AmiDown);
    p.now += Duration::from_secs(11);
    p.board.handle_node(p.now, &node("waw-1"), NodeEvent::Heartbeat);
    p.board.on_deadline(p.now, &mut p.rng);
    let (panic, stand) = p.asks();
    assert!(panic);
    let (last, lost) = (Ok(Standing::LastResort), Err(Refusal::NodeLost));
    assert_eq!(stand, [Err(Refusal::Disabled), last, last, lost, lost, lost]);
    // One call that gets through over one of them begins the way back.
    assert_eq!(p.ends(1, 1, EndingClass::Answered), TrunkState::Probation);
}

#[test]
fn a_drained_node_takes_no_call_and_a_suspect_one_after_the_others() {
    let mut p = Played::new();
    for n in 0..6 {
        p.feed(n, &Event::Reachable(None));
    }
    p.board.handle_node(p.now, &node("fra-1"), NodeEvent::Drain);
    p.board.handle_node(p.now, &node("waw-1"), NodeEvent::LinkDown);
    let (panic, stand) = p.asks();
    assert!(!panic);
    assert_eq!(stand[0], Ok(Standing::Reserve));
    assert_eq!(stand[5], Err(Refusal::NodeDraining));
}

#[test]
fn selection_waits_for_a_trial_and_for_nothing_else() {
    let mut p = Played::new();
    p.ends(0, 1, EndingClass::CarrierSilent);
    let asks = |p: &Played| {
        let declared = p.fleet.trunk(&trunk(0)).unwrap();
        p.board.standing(p.now, declared, &to(1), None).unwrap_err().availability()
    };
    assert_eq!(asks(&p), Availability::Unusable(PassedOver::TrunkTripped));
    p.now += Duration::from_secs(7);
    p.beat();
    p.board.sent(p.now, &trunk(0));
    let until = Some(p.now + Policy::default().trial_max);
    assert_eq!(asks(&p), Availability::Later { until, why: PassedOver::TrunkInProbation });
}

#[test]
fn what_the_fleet_no_longer_has_is_forgotten_and_what_it_gets_is_unknown() {
    let mut p = Played::new();
    p.feed(0, &Event::Unreachable);
    p.board.sync(&Fleet::default(), p.now);
    assert_eq!((p.board.trunks().len(), p.board.nodes().len()), (0, 0));
    p.board.sync(&p.fleet, p.now);
    assert_eq!(p.board.trunk(&trunk(0)).unwrap().state(), TrunkState::Unknown);
    assert!(p.board.handle(p.now, &"other".parse().unwrap(), &Event::Enable, &mut p.rng).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The cap, and the promise behind it: whatever happens to calls, a trunk can be tried for each call.
    #[test]
    fn the_cap_is_respected_and_some_trunk_can_always_be_tried(
        ops in prop::collection::vec((0usize..6, 0u32..8, prop::sample::select(EndingClass::ALL), 0u64..20), 0..150)
    ) {
        let mut p = Played::new();
        for (n, destination, class, wait) in ops {
            p.board.sent(p.now, &trunk(n));
            let before = p.ejected();
            p.ends(n, destination, class);
            let credentials = class == EndingClass::Unauthorized || class == EndingClass::ContactDown;
            prop_assert!(p.ejected() <= 3.max(before) || credentials, "{} by {class}", p.ejected());
            p.now += Duration::from_secs(wait);
            p.beat();
            let (_, stand) = p.asks();
            prop_assert!(stand.iter().any(Result::is_ok), "{stand:?}");
        }
    }
}

#[test]
fn what_cannot_serve_a_call_does_not_hold_panic_back() {
    let mut p = Played::new();
    for n in 3..6 {
        p.feed(n, &Event::Unreachable);
    }
    // Half are well: enough for a call that all can serve, and not for one that trunk 0 may not present.
    let zero = trunk(0);
    let without = |t: &Trunk| t.name != zero;
    let route = p.fleet.routes().next().unwrap();
    let is_panic = |can: &dyn Fn(&Trunk) -> bool| {
        p.board.for_call(p.now, &p.fleet, route, &number(1), None, can).is_panic()
    };
    assert!(!is_panic(&|_| true) && is_panic(&without));
    let mut board = p.board.clone();
    assert_eq!(board.look_for_panic(p.now, &p.fleet, p.fleet.routes(), |_| true), []);
    assert_eq!(board.look_for_panic(p.now, &p.fleet, p.fleet.routes(), without).len(), 1);
}

#[test]
fn a_suspended_default_caller_id_withholds_calls_that_name_none() {
    let mut p = Played::new();
    let caller: E164 = "+48229999999".parse().unwrap();
    let mut declared = p.fleet.trunk(&trunk(0)).unwrap().clone();
    declared.caller_ids = vec![caller.clone()];
    // The same caller id to several destinations, of which others get through.
    for n in [1, 2, 3] {
        p.ends(0, n, EndingClass::Answered);
    }
    for n in [1, 2, 3, 1, 2, 3] {
        let mut call = p.call(n, EndingClass::Forbidden);
        call.caller = Some(caller.clone());
        p.feed(0, &Event::Ended(call));
    }
    let to = Destination::of(&"+15551234567".parse().unwrap());
    let stands = p.board.standing(p.now, &declared, &to, None);
    assert_eq!(stands.unwrap_err().why, Refusal::CallerIdSuspended);
}

#[test]
fn what_is_not_watched_any_more_holds_no_trunk_down() {
    for (down, over) in
        [(Event::Unreachable, Event::NotQualified), (Event::RegistrationRejected, Event::NotRegistering)]
    {
        let mut p = Played::new();
        assert_eq!(p.feed(0, &down), TrunkState::Tripped);
        p.feed(0, &over);
        for _ in 0..60 {
            p.now += Duration::from_secs(1);
            p.beat();
        }
        assert_eq!(p.board.trunk(&trunk(0)).unwrap().state(), TrunkState::Healthy, "{over:?}");
    }
    // Of what was never watched it is no news.
    let mut p = Played::new();
    assert_eq!(p.feed(0, &Event::NotQualified), TrunkState::Unknown);
}

#[test]
fn a_canary_suspends_nothing_and_is_no_answered_call() {
    let mut p = Played::new();
    for _ in 0..4 {
        let mut call = p.call(1, EndingClass::Forbidden);
        call.party = Party::Canary;
        p.feed(0, &Event::Canary(call, Met::Otherwise));
    }
    let mut call = p.call(1, EndingClass::Canceled);
    call.party = Party::Canary;
    p.feed(0, &Event::Canary(call, Met::AsExpected));
    let why = p.board.trunk(&trunk(0)).unwrap().why(p.now);
    assert_eq!((why.suspensions.len(), why.asr()), (0, None));
}

#[test]
fn a_node_that_loses_its_agent_is_judged_by_its_ami_alone() {
    let mut p = Played::new();
    let name = node("waw-1");
    p.board.handle_node(p.now, &name, NodeEvent::LinkDown);
    let agentless =
        "name = \"waw-1\"\nami = { address = \"192.0.2.12:5038\", username = \"r\", secret_file = \"s\" }";
    let fleet = Fleet::parse(&FLEET.replace("name = \"waw-1\"", agentless).replace("[[route]]\nprefix = \"+\"\ntiers = [[\"waw-a\", \"waw-b\", \"fra-a\"], [\"waw-c\", \"fra-b\", \"fra-c\"]]\n", "")).unwrap();
    p.board.sync(&fleet, p.now);
    p.board.handle_node(p.now, &name, NodeEvent::AmiUp);
    p.now += Duration::from_secs(5);
    let mut rng = StdRng::seed_from_u64(1);
    p.board.on_deadline(p.now, &mut rng);
    assert_eq!(p.board.node(&name).unwrap().state(), NodeState::Alive);
}
