//! `cargo lab bench agent`: its memory and processor time, idle and at 100 calls per second.
use super::{Measured, build, cpu_time, empty, round};
use crate::{even, memory, output};
use anyhow::{Context as _, ensure};
use lab::{Agent, Build, ControlPlane, Lab, Plan, Reach, now, pause};
use serde_json::json;
use std::time::Duration;

/// From the start of the agent until it is at rest.
const SETTLE: Duration = Duration::from_secs(10);
/// How long each part is measured.
const MEASURE: Duration = Duration::from_secs(30);
/// Calls per second of the busy part.
const CPS: u32 = 100;
/// Resident memory at idle, in MB (1,000,000 bytes).
const RSS_MB_MAX: f64 = 15.0;
/// Processor time at idle, in percent of one core.
const CPU_PERCENT_MAX: f64 = 1.0;

/// What an agent took over some time.
#[derive(Clone, Copy, Debug)]
struct Taken {
    rss_mb: f64,
    cpu_percent: f64,
    originates: f64,
    seconds: f64,
}

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[&["-p", "controlplane"], &["--release", "-p", "node-agent"]])?;
    let plan = Plan { pbxes: 1, carriers: 1, reach: Reach::Agent, agents: Build::Release, ..Plan::default() };
    let lab = Lab::up(plan)?;
    let plane = ControlPlane::start_for(&lab, &empty()?)?;
    let agent = lab.pbx("pbx-1")?.agent().context("no agent")?;
    output::note(&format!("idle, for {} s", MEASURE.as_secs()));
    pause(SETTLE);
    let idle = take(&agent, || {
        pause(MEASURE);
        Ok(())
    })?;
    output::note(&format!("{CPS} calls per second, for {} s", MEASURE.as_secs()));
    let busy = take(&agent, || even::place(&plane, CPS, MEASURE).map(|_| ()))?;
    let calls = busy.originates;
    let figures = json!({
        "idle_rss_mb": round(idle.rss_mb), "idle_cpu_percent": round(idle.cpu_percent),
        "busy_cps": round(calls / busy.seconds), "busy_rss_mb": round(busy.rss_mb),
        "busy_cpu_percent": round(busy.cpu_percent),
        "cpu_us_per_call": round(busy.cpu_percent / 100.0 * busy.seconds * 1e6 / calls.max(1.0)),
    });
    let targets = json!({"idle_rss_mb": RSS_MB_MAX, "idle_cpu_percent": CPU_PERCENT_MAX});
    let met = idle.rss_mb <= RSS_MB_MAX && idle.cpu_percent <= CPU_PERCENT_MAX;
    // A busy part without its calls would measure nothing.
    ensure!(calls / busy.seconds > 0.9 * f64::from(CPS), "only {calls} calls in {} s", busy.seconds);
    let lines = vec![format!("{figures:#}")];
    Ok(Measured { bench: "agent", figures, peer: json!({}), targets, met, lines })
}

/// Measures the agent while `during` runs.
fn take(agent: &Agent, during: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Taken> {
    let pid = agent.pid().context("the agent is not running")?;
    let before = (cpu_time(pid)?, agent.metric("ringward_agent_originates_total")?, now());
    during()?;
    let seconds = before.2.elapsed().as_secs_f64();
    let cpu_s = cpu_time(pid)?.saturating_sub(before.0).as_secs_f64();
    let originates = agent.metric("ringward_agent_originates_total")? - before.1;
    Ok(Taken { rss_mb: memory::rss_mb(pid)?, cpu_percent: 100.0 * cpu_s / seconds, originates, seconds })
}
