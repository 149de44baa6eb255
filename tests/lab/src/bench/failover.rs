//! `cargo lab bench failover`: from the 503 on one carrier's wire to the INVITE on the next one's, of the same call.
//! Ringward goes from one PBX to another; Kamailio's dispatcher, measured in the same run, does it inside one process.
use super::{CONTROL_PLANE, Measured, build, empty, round, spread::Spread};
use crate::output;
use anyhow::ensure;
use lab::{Behaviour, Carrier, ControlPlane, Dialog, Kamailio, Lab, Plan, Setup, gaps, now, numbers, pause};
use serde_json::{Value, json};
use std::time::Duration;

/// Calls that are measured.
const CALLS: u16 = 200;
/// Calls of another number between two of them, which the first carrier answers: were all of its calls to fail, its trunk
/// would be passed over after the third.
const GOOD_BETWEEN: u16 = 3;
/// Between two calls.
const EVERY: Duration = Duration::from_millis(50);
/// No packet for so long: nothing more comes.
const QUIET: Duration = Duration::from_secs(1);
const P99_MS_MAX: f64 = 10.0;

/// Each to a destination (five digits) of its own: what one destination meets is held against that alone.
fn number(call: u16) -> String {
    format!("+49{:03}22{}{call:04}", 100 + call, numbers::UNAVAILABLE)
}

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE])?;
    let lab = Lab::up(Plan::default())?;
    let (first, second) = (lab.carrier("a")?, lab.carrier("b")?);
    // The first goes by the number, which says 503; the second answers it all the same.
    second.behave(Behaviour::Answer)?;
    let folder = empty()?;
    let plane = ControlPlane::open(Setup::new(&folder).release())?;
    plane.apply(&routed(&lab))?;
    output::note(&format!("{CALLS} calls fail over from pbx-1 to pbx-2"));
    place(&plane)?;
    let ringward = Gaps::of(&until_quiet(first, QUIET)?, &until_quiet(second, QUIET)?)?;
    plane.stop()?;

    let kamailio = Kamailio::start(&lab, first, second)?;
    second.behave(Behaviour::Busy)?;
    let numbers: Vec<_> = (CALLS..2 * CALLS).map(number).collect();
    output::note(&format!("{CALLS} calls through Kamailio {}", kamailio.version()?));
    kamailio.call(&numbers)?;
    let ours = |dialogs: Vec<Dialog>| -> Vec<Dialog> {
        let of =
            |dialog: &Dialog| numbers.iter().any(|number| number.trim_start_matches('+') == dialog.number);
        dialogs.into_iter().filter(of).collect()
    };
    let peer = Gaps::of(&ours(until_quiet(first, QUIET)?), &ours(until_quiet(second, QUIET)?))?;
    let name = format!("Kamailio {}, dispatcher", kamailio.version()?);
    let lines = vec![
        format!("from the 503 to the next INVITE, ms{:>12}{:>9}{:>9}", "p50", "p99", "most"),
        format!("  Ringward, from one PBX to another{}", ringward.0),
        format!("  {name:<33}{}", peer.0),
        format!("  {} and {} calls; target: p99 of {P99_MS_MAX} ms", ringward.0.count(), peer.0.count()),
    ];
    let met = ringward.0.at(0.99) <= P99_MS_MAX;
    let mut peer = peer.json();
    peer["name"] = name.into();
    Ok(Measured {
        bench: "failover",
        figures: ringward.json(),
        peer,
        targets: json!({"gap_p99_ms": P99_MS_MAX}),
        met,
        lines,
    })
}

/// The lab's fleet, and routes by which a measured call meets the first carrier's trunk first, and the others it alone.
fn routed(lab: &Lab) -> String {
    let fleet = lab.fleet_toml();
    let without = fleet.split("\n[[route]]").next().unwrap_or_default();
    format!(
        "{without}\n[[route]]\nprefix = \"+49\"\ntiers = [[\"a-pbx-1\"], [\"b-pbx-2\"]]\n\
         \n[[route]]\nprefix = \"+48\"\ntiers = [[\"a-pbx-1\"]]\n"
    )
}

fn place(plane: &ControlPlane) -> anyhow::Result<()> {
    let start = now();
    let mut sent = 0;
    let mut next = |to: String| {
        pause((start + EVERY * sent).saturating_duration_since(now()));
        sent += 1;
        plane.place(&json!({"to": to, "message": {"audio_id": "builtin:beep"}}))
    };
    let mut last = String::new();
    for call in 0..CALLS {
        for good in 0..GOOD_BETWEEN {
            next(numbers::number(numbers::ANSWER_AT_ONCE, call * GOOD_BETWEEN + good))?;
        }
        last = next(number(call))?;
    }
    plane.ended(&last, Duration::from_secs(30))?;
    Ok(())
}

fn until_quiet(carrier: &Carrier, quiet: Duration) -> anyhow::Result<Vec<Dialog>> {
    carrier.seen_when_quiet(quiet)?;
    Ok(carrier.dialogs()?)
}

/// Gaps in ms.
struct Gaps(Spread);

impl Gaps {
    fn of(first: &[Dialog], second: &[Dialog]) -> anyhow::Result<Self> {
        let all: Vec<_> = gaps(first, second).iter().map(|gap| gap.as_secs_f64() * 1_000.0).collect();
        // Fewer would say that some were never followed, or went another way at once.
        ensure!(all.len() == usize::from(CALLS), "{} of {CALLS} calls failed over", all.len());
        Ok(Gaps(Spread::of(all)))
    }

    fn json(&self) -> Value {
        let Gaps(gaps) = self;
        json!({
            "calls": gaps.count(), "gap_p50_ms": round(gaps.at(0.5)), "gap_p99_ms": round(gaps.at(0.99)),
            "gap_max_ms": round(gaps.at(1.0)),
        })
    }
}
