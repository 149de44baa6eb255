//! `cargo lab bench dispatch`: calls per second from the POST to the end, each step durable on SQLite, where neither trunks nor
//! Asterisk stand in the way: fake PBXes that answer at once and hang up 50 ms later, with room for all of it.
//!
//! Load, fake PBXes and control plane share the machine's cores: processor time of each is told.
use super::{
    CONTROL_PLANE, Measured,
    api::{self, Part},
    build, cpu_time, round,
};
use crate::output;
use anyhow::{Context as _, ensure};
use lab::{ControlPlane, Lab, Setup, now, pause};
use serde_json::json;
use std::time::Duration;

const CALLS: u32 = 30_000;
/// As many as take the pace: a trunk's largest is 1,000 calls per second.
const PBXES: usize = 8;
const CPS_OF_EACH: u32 = 1_000;
const CALLS_PER_S_MIN: f64 = 5_000.0;
/// Between two looks whether all have ended: each is a scrape.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For all calls to end.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE])?;
    let _alone = Lab::alone()?;
    let folder = api::empty()?;
    std::fs::create_dir_all(&folder)?;
    let pbxes = Part::start(&["pbxes", &PBXES.to_string()], PBXES)?;
    std::fs::write(folder.join("secret"), "secret\n")?;
    let setup = Setup::new(&folder).release().throttle(api::THROTTLE).open_calls_max(api::OPEN_MAX);
    let plane = ControlPlane::open(setup)?;
    plane.apply(&api::fleet(&pbxes.lines, CPS_OF_EACH))?;
    let door = plane.api_url();
    let door = door.strip_prefix("http://").context("no address")?;
    let pid = plane.pid().context("it is not running")?;
    output::note(&format!("{CALLS} calls, {} at a time, {PBXES} fake PBXes", api::CONNECTIONS));
    let (before, pbxes_before, began) = (cpu_time(pid)?, cpu_time(pbxes.pid())?, now());
    let load = api::load(door, plane.customer_key(), &folder, pid, (0, CALLS))?;
    let accepted = began.elapsed();
    while plane.metric("ringward_calls_open", &[])? != 0.0 {
        ensure!(began.elapsed() < PATIENCE, "calls never ended");
        pause(LOOK_EVERY);
    }
    let ended = began.elapsed();
    let placed = plane.metric("ringward_call_setup_seconds_count", &[])?;
    ensure!(placed == f64::from(CALLS), "{placed} of {CALLS} calls were sent");
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(CALLS);
    let cpu = each(cpu_time(pid)?.saturating_sub(before));
    let pbxes_cpu = each(cpu_time(pbxes.pid())?.saturating_sub(pbxes_before));
    plane.stop()?;
    api::empty()?;

    let per_s = f64::from(CALLS) / ended.as_secs_f64();
    let accepted_per_s = f64::from(CALLS) / accepted.as_secs_f64();
    let lines = vec![
        format!("{:<44}{:>9}", format!("{CALLS} calls, SQLite"), "calls/s"),
        format!("{:<44}{accepted_per_s:>9.0}", "  accepted"),
        format!("{:<44}{per_s:>9.0}", "  from the first POST to the last call's end"),
        format!(
            "  processor time each: control plane {cpu:.0} µs, fake PBXes {pbxes_cpu:.0} µs, load {:.0} µs",
            load.cpu_us()
        ),
        format!("  target: {CALLS_PER_S_MIN} calls per second on two cores, which these three share"),
    ];
    let figures = json!({
        "calls_per_s": round(per_s), "accepted_per_s": round(accepted_per_s), "cpu_us_per_call": round(cpu),
        "pbxes_cpu_us_per_call": round(pbxes_cpu), "load_cpu_us_per_call": round(load.cpu_us()),
    });
    let targets = json!({"calls_per_s": CALLS_PER_S_MIN});
    Ok(Measured {
        bench: "dispatch",
        figures,
        peer: json!({}),
        targets,
        met: per_s >= CALLS_PER_S_MIN,
        lines,
    })
}
