//! The checker is shown to find bugs that a control plane has on purpose, and nothing in one that has none.
use std::time::Duration;

use anyhow::ensure;
use chaos::{
    checker::{Rule, check},
    faults::{Fault, Subject, What},
    load::{Kind, Wanted},
    run::{Script, run},
    table::table,
};
use controlplane_core::{
    call::OnUnknown,
    request::{Redial, RedialOn},
};
use lab::{Behaviour, Lab, Planted};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{folder, say};

/// What is run: a script of a seed, with a bug or without, and the rules that must find it.
type Proof = (fn(u64) -> Script, Option<Planted>, &'static [Rule]);

const PROOFS: [Proof; 6] = [
    (slow_phones, None, &[]),
    (slow_phones, Some(Planted::WriteAfterSend), &[Rule::NotWritten, Rule::RangTwice]),
    (slow_phones, Some(Planted::ReconcileOff), &[Rule::RangTwice]),
    (slow_phones, Some(Planted::SettleBeforeSend), &[Rule::Untold]),
    (waiting_calls, None, &[]),
    (waiting_calls, Some(Planted::RoundsForgotten), &[Rule::RoundsOver, Rule::RedialEarly]),
];

/// Calls of a script, 10 in a second.
const CALLS: u32 = 60;

pub(crate) fn planted(seed: u64) -> anyhow::Result<()> {
    say(&format!("seed {seed}"));
    for (script, bug, expected) in PROOFS {
        let lab = Lab::up(lab::Plan::default())?;
        let script = Script { planted: bug, ..script(seed) };
        let history = run(&lab, &folder("planted")?, &script)?;
        let verdict = check(&history);
        let found = verdict.by_rule();
        let name = bug.map_or("no bug".to_owned(), |bug| format!("{bug:?}"));
        say(&format!("{name}: {} calls, {} kills: {found:?}", history.told.len(), history.broken.len()));
        if bug.is_none() {
            say(&table(&history, &verdict));
            ensure!(verdict.violations.is_empty(), "seed {seed}: violations without a planted bug");
        }
        let missed: Vec<_> = expected.iter().filter(|rule| !found.contains_key(*rule)).collect();
        ensure!(
            missed.is_empty(),
            "seed {seed}: {name} was not found by {missed:?}: {:?}",
            verdict.violations
        );
    }
    say(&format!("seed {seed}: each planted bug was found, and nothing without one"));
    Ok(())
}

/// Phones are slow to ring, and nobody may ring twice.
fn slow_phones(seed: u64) -> Script {
    let call = |n| Wanted::plain(n, Kind::Answers, OnUnknown::Fail, 10);
    restarts(seed, (0..CALLS).map(call).collect(), Behaviour::Slow)
}

/// Callees are busy, and are dialled once more: most calls wait for that when the control plane dies.
fn waiting_calls(seed: u64) -> Script {
    let redial = Redial { on: [RedialOn::Busy].into(), max: 1, delay_s: 5 };
    let call =
        |n| Wanted { redial: Some(redial.clone()), ..Wanted::plain(n, Kind::Busy, OnUnknown::Fail, 10) };
    restarts(seed, (0..CALLS).map(call).collect(), Behaviour::Normal)
}

/// The control plane is killed again and again while the calls run.
fn restarts(seed: u64, calls: Vec<Wanted>, carriers: Behaviour) -> Script {
    let ms = Duration::from_millis;
    let mut chance = StdRng::seed_from_u64(seed);
    let mut at = 500;
    let mut faults = Vec::new();
    while at < 5_500 {
        at += chance.random_range(700..1_700);
        let lasts = chance.random_range(50..300);
        let what = What::PlaneKilled;
        faults.push(Fault { at: ms(at), subject: Subject::Plane(0), what, lasts: Some(ms(lasts)) });
        // Its start takes some 2.5 s.
        at += lasts + 2_500;
    }
    let (tracks, receiver) = (vec![faults], chance.random());
    Script {
        calls,
        per_second: 10.0,
        tracks,
        carriers,
        receiver,
        planes: 1,
        release: false,
        upgrade: None,
        planted: None,
    }
}
