//! Calls that come in while something is broken, and what may be told of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{numbers, pause, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, end};

/// Between two calls.
const EVERY: Duration = Duration::from_millis(200);
/// The first number of those that come in; tests use lower ones themselves.
const FIRST: u16 = 1_000;

/// A call that was placed.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) to: String,
    pub(crate) id: String,
}

/// How placed calls ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) unknown: usize,
    /// Rung, and cut off by what was broken.
    pub(crate) interrupted: usize,
}

/// Places calls of one kind that must not be rung twice (`fail`), and waits until each has this status.
#[track_caller]
pub(crate) fn under_way(
    fleet: &Fleet,
    behaviour: u16,
    numbers: std::ops::Range<u16>,
    status: &str,
) -> Vec<Placed> {
    let more = json!({"on_unknown": "fail", "ring_timeout_s": 6, "message": {"audio_id": "builtin:hello-world", "repeat": 6}});
    let placed: Vec<_> = numbers
        .map(|n| {
            let to = numbers::number(behaviour, n);
            let id = fleet.place(&to, more.clone());
            Placed { to, id }
        })
        .collect();
    for call in &placed {
        let there = || fleet.plane.call(&call.id).is_ok_and(|call| call["status"] == status);
        wait_until(&format!("{} to be {status}", call.id), Duration::from_secs(10), "", there)
            .unwrap_or_else(|error| {
                panic!("{error}: {:?}\n{}", fleet.plane.call(&call.id), fleet.log_tail())
            });
    }
    placed
}

/// Places a call every 200 ms, not to be rung twice, for as long as `during` runs.
pub(crate) fn while_calls_come<T>(fleet: &Fleet, during: impl FnOnce() -> T) -> (T, Vec<Placed>) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let customer = scope.spawn(|| {
            let mut placed = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let to = numbers::number(numbers::ANSWER, FIRST + u16::try_from(placed.len()).unwrap());
                let id = fleet.place(&to, json!({"on_unknown": "fail"}));
                placed.push(Placed { to, id });
                pause(EVERY);
            }
            placed
        });
        let result = during();
        is_over.store(true, Ordering::SeqCst);
        (result, customer.join().unwrap())
    })
}

/// Waits for their ends. Every call ends; none was dialled twice; answered is told if and only if it was
/// dialled, or nobody knows.
#[track_caller]
pub(crate) fn tally(fleet: &Fleet, placed: &[Placed]) -> Tally {
    let ended: Vec<(&str, Value)> =
        placed.iter().map(|call| (call.to.as_str(), fleet.ended(&call.id))).collect();
    let truth = fleet.truth();
    let mut tally = Tally::default();
    for (to, call) in ended {
        let invites = truth.invites(to);
        assert!(invites <= 1, "{to} was dialled {invites} times: {call}");
        match end(&call).as_str() {
            "completed/played/answered" => {
                assert_eq!(invites, 1, "{to}: {call}");
                tally.answered += 1;
            }
            "failed/outcome_unknown/unknown" => tally.unknown += 1,
            "failed/interrupted/unknown" => {
                assert_eq!(truth.reached(to), 1, "{to}: {call}");
                tally.interrupted += 1;
            }
            other => panic!("{to} ended {other}: {call}\n{}", fleet.log_tail()),
        }
    }
    tally
}

/// Waits for their ends, which must be this one, each dialled once.
#[track_caller]
pub(crate) fn all_end(fleet: &Fleet, placed: &[Placed], expected: &str) {
    let ended: Vec<_> = placed.iter().map(|call| (call, fleet.ended(&call.id))).collect();
    let truth = fleet.truth();
    for (placed, call) in ended {
        assert_eq!(end(&call), expected, "{}: {call}\n{}", placed.to, fleet.log_tail());
        assert_eq!(truth.invites(&placed.to), 1, "{}: {call}", placed.to);
    }
}
