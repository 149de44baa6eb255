//! An incident's machine: stories, and what holds in all of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

fn plan(numbers: usize, rounds: u8) -> HookSettings {
    let to: Vec<String> = (0..numbers).map(|n| format!("+4822123456{n}")).collect();
    serde_json::from_value(json!({"name": "a", "kind": "alertmanager", "to": to, "rounds": rounds})).unwrap()
}

fn call(n: u64) -> CallId {
    CallId::new(NOON, &mut StdRng::seed_from_u64(n))
}

fn after(s: i64) -> OffsetDateTime {
    NOON + Duration::seconds(s)
}

const TICK: Event = Event::Tick { answered: false };

/// Through a step's call, up to its end.
fn step(machine: &mut Escalation, plan: &HookSettings, result: StepResult, at: i64) {
    let n = machine.step() + 1;
    assert_eq!(machine.handle(plan, TICK, after(at)), Some(Action::Place { step: n }));
    assert_eq!(machine.handle(plan, Event::Placed(call(n.into())), after(at)), None);
    assert_eq!(machine.handle(plan, Event::Ended(result), after(at)), None);
}

#[test]
fn numbers_are_phoned_one_after_the_other_until_one_acknowledges() {
    let (plan, mut machine) = (plan(2, 2), Escalation::new(NOON));
    step(&mut machine, &plan, StepResult::NotReached, 0);
    step(&mut machine, &plan, StepResult::PassedOn, 1);
    assert_eq!(machine.handle(&plan, TICK, after(60)), None, "the round's pause");
    step(&mut machine, &plan, StepResult::Acknowledged, 61);
    assert_eq!((machine.status, &machine.phase), (IncidentStatus::Acknowledged, &Phase::Idle));
    let shown: Vec<_> =
        machine.steps.iter().map(|step| (step.round, step.to.as_str(), step.result.unwrap())).collect();
    assert_eq!(
        shown,
        [
            (1, "+48221234560", StepResult::NotReached),
            (1, "+48221234561", StepResult::PassedOn),
            (2, "+48221234560", StepResult::Acknowledged)
        ]
    );
    assert_eq!(machine.handle(&plan, TICK, after(999)), None);
}

#[test]
fn nobody_is_left() {
    let (plan, mut machine) = (plan(1, 2), Escalation::new(NOON));
    step(&mut machine, &plan, StepResult::NotAcknowledged, 0);
    step(&mut machine, &plan, StepResult::Machine, 60);
    assert_eq!((machine.status, machine.due()), (IncidentStatus::Unanswered, None));
    // Somebody may still say that he takes it.
    assert_eq!(machine.handle(&plan, Event::Acknowledge, after(90)), None);
    assert_eq!(machine.status, IncidentStatus::Acknowledged);
}

#[test]
fn what_rings_is_ended_when_it_is_over() {
    for (event, status) in
        [(Event::Resolve, IncidentStatus::Resolved), (Event::Acknowledge, IncidentStatus::Acknowledged)]
    {
        let (plan, mut machine) = (plan(2, 1), Escalation::new(NOON));
        machine.handle(&plan, TICK, NOON);
        machine.handle(&plan, Event::Placed(call(1)), NOON);
        assert_eq!(machine.handle(&plan, event.clone(), after(5)), Some(Action::Cancel(call(1))));
        assert_eq!((machine.status, &machine.phase), (status, &Phase::Idle));
        assert_eq!(machine.steps[0].result, Some(StepResult::Canceled));
        assert_eq!(machine.handle(&plan, Event::Ended(StepResult::NotReached), after(6)), None);
        assert_eq!(machine.steps[0].result, Some(StepResult::Canceled));
    }
}

#[test]
fn a_call_that_nobody_knows_of_is_looked_for_when_it_is_over() {
    for found in [Some(call(1)), None] {
        let (plan, mut machine) = (plan(2, 1), Escalation::new(NOON));
        machine.handle(&plan, TICK, NOON);
        assert_eq!(machine.handle(&plan, Event::Resolve, after(1)), None);
        assert_eq!(machine.handle(&plan, TICK, after(1)), Some(Action::Find { step: 1 }));
        assert_eq!(
            machine.handle(&plan, Event::Found(found.clone()), after(2)),
            found.clone().map(Action::Cancel)
        );
        assert_eq!((&machine.phase, &machine.steps[0].call), (&Phase::Idle, &found));
    }
}

#[test]
fn a_step_has_its_time_unless_somebody_listens() {
    for answered in [false, true] {
        let (plan, mut machine) = (plan(1, 1), Escalation::new(NOON));
        machine.handle(&plan, TICK, NOON);
        machine.handle(&plan, Event::Placed(call(1)), NOON);
        assert_eq!(machine.handle(&plan, Event::Tick { answered }, after(89)), None);
        let action = machine.handle(&plan, Event::Tick { answered }, after(90));
        assert_eq!(action, (!answered).then(|| Action::Cancel(call(1))));
        assert_eq!(machine.due(), None, "it is looked at again when the call has ended");
        assert_eq!(machine.status, IncidentStatus::Escalating);
    }
}

#[test]
fn a_refusal_for_now_is_asked_again_within_the_step_s_time() {
    let (plan, mut machine) = (plan(2, 1), Escalation::new(NOON));
    let refused = |for_now| Event::Refused { problem: "unavailable".to_owned(), for_now };
    machine.handle(&plan, TICK, NOON);
    machine.handle(&plan, refused(true), after(1));
    assert_eq!(machine.handle(&plan, TICK, after(2)), None);
    assert_eq!(machine.handle(&plan, TICK, after(3)), Some(Action::Place { step: 1 }));
    machine.handle(&plan, refused(true), after(89));
    assert_eq!(machine.steps[0].result, Some(StepResult::Refused));
    assert_eq!(machine.handle(&plan, TICK, after(89)), Some(Action::Place { step: 2 }));
    machine.handle(&plan, refused(false), after(90));
    assert_eq!(machine.status, IncidentStatus::Unanswered);
    assert_eq!(machine.steps[1].problem.as_deref(), Some("unavailable"));
}

#[test]
fn what_a_call_came_to_is_what_the_step_came_to() {
    for (reason, outcome, expected) in [
        (Reason::Acknowledged, Outcome::Acknowledged, StepResult::Acknowledged),
        (Reason::Escalated, Outcome::Answered, StepResult::PassedOn),
        (Reason::AnsweredNoAck, Outcome::Answered, StepResult::NotAcknowledged),
        (Reason::Machine, Outcome::Machine, StepResult::Machine),
        (Reason::UserBusy, Outcome::NotReached, StepResult::NotReached),
        (Reason::NoHealthyRoute, Outcome::NotTried, StepResult::NotReached),
        (Reason::Interrupted, Outcome::Unknown, StepResult::NotReached),
        (Reason::Api, Outcome::NotReached, StepResult::Canceled),
    ] {
        assert_eq!(result(reason, outcome), expected, "{reason}");
    }
}

/// What the world does next.
#[derive(Debug, Clone)]
enum Turn {
    /// So many seconds pass, and it is looked at.
    Wait(i64),
    /// The call that is asked for is accepted, or was.
    Accept,
    /// The process dies between the durable state and what is to be done; the next one looks.
    Die,
    Refuse(bool),
    End(StepResult),
    Acknowledge,
    Resolve,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let ends = prop::sample::select(StepResult::ALL);
    let turn = prop_oneof![
        6 => (0_i64..80).prop_map(Turn::Wait),
        6 => Just(Turn::Accept),
        2 => Just(Turn::Die),
        1 => any::<bool>().prop_map(Turn::Refuse),
        5 => ends.prop_map(Turn::End),
        1 => Just(Turn::Acknowledge),
        1 => Just(Turn::Resolve),
    ];
    prop::collection::vec(turn, 0..120)
}

proptest! {
    /// Whatever happens, in whatever order, and whoever dies: one step at a time, each is one call, none begins once it was
    /// acknowledged or is over, and nothing is left ringing then.
    #[test]
    fn one_step_at_a_time_and_none_after_the_end(numbers in 1_usize..4, rounds in 1_u8..4, turns in turns()) {
        let (plan, mut machine, mut now) = (plan(numbers, rounds), Escalation::new(NOON), NOON);
        // The calls that there are, by the step's key; and whether each goes on.
        let mut calls: BTreeMap<u16, (CallId, bool)> = BTreeMap::new();
        let mut asked = None;
        for turn in turns {
            let was_stopped = matches!(machine.status, IncidentStatus::Acknowledged | IncidentStatus::Resolved);
            let action = match turn {
                Turn::Wait(s) => {
                    now += Duration::seconds(s);
                    machine.handle(&plan, TICK, now)
                }
                Turn::Die => {
                    // What was not carried out is forgotten; what is durable is looked at anew.
                    asked = None;
                    now += Duration::seconds(3);
                    machine.handle(&plan, TICK, now)
                }
                Turn::Accept => match asked.take() {
                    Some(Action::Place { step }) => {
                        let id = calls.entry(step).or_insert_with(|| (call(step.into()), true)).0.clone();
                        machine.handle(&plan, Event::Placed(id), now)
                    }
                    Some(Action::Find { step }) => {
                        let there = calls.get(&step).map(|(id, _)| id.clone());
                        machine.handle(&plan, Event::Found(there), now)
                    }
                    Some(Action::Cancel(_)) | None => None,
                },
                Turn::Refuse(for_now) => match asked.take() {
                    // What was accepted before is not refused: its key is known.
                    Some(Action::Place { step }) if !calls.contains_key(&step) => {
                        machine.handle(&plan, Event::Refused { problem: String::new(), for_now }, now)
                    }
                    other => { asked = other; None }
                },
                Turn::End(result) => match machine.phase.clone() {
                    Phase::Calling { call, .. } => {
                        for (id, goes_on) in calls.values_mut() {
                            *goes_on &= *id != call;
                        }
                        machine.handle(&plan, Event::Ended(result), now)
                    }
                    Phase::Waiting { .. } | Phase::Placing { .. } | Phase::Idle => None,
                },
                Turn::Acknowledge => machine.handle(&plan, Event::Acknowledge, now),
                Turn::Resolve => machine.handle(&plan, Event::Resolve, now),
            };
            match action {
                // Durable together with the machine's state.
                Some(Action::Cancel(call)) => {
                    for (id, goes_on) in calls.values_mut() {
                        *goes_on &= *id != call;
                    }
                }
                Some(Action::Place { step }) => {
                    prop_assert!(!was_stopped, "a step after the end");
                    prop_assert!(step <= plan.steps());
                    prop_assert_eq!(step, machine.step());
                    prop_assert!(calls.range(..step).all(|(_, (_, goes_on))| !goes_on), "two at a time");
                    asked = Some(Action::Place { step });
                }
                Some(find @ Action::Find { .. }) => asked = Some(find),
                None => {}
            }
            let living = calls.values().filter(|(_, goes_on)| *goes_on).count();
            prop_assert!(living <= 1);
            if machine.phase == Phase::Idle {
                prop_assert_eq!(living, 0, "something rings on");
                prop_assert!(machine.steps.iter().all(|step| step.result.is_some()));
            }
            prop_assert!(machine.steps.len() <= usize::from(plan.steps()));
        }
    }
}
