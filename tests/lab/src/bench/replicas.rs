//! `cargo lab bench replicas`: three control planes on one PostgreSQL for five minutes of calls over real Asterisk, one of them killed,
//! stopped, frozen beyond its lease or cut from the database every ten seconds. The chaos run's checker holds what was told
//! against what carriers saw, and their accounts' limits against what they had.
//!
//! Calls last for seconds and are spoken, so that Asterisk's share of two cores bounds how many there may be in a second.
use super::{CONTROL_PLANE, Measured, build, told};
use crate::{output, stages};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::process::{Command, Stdio};

const PER_SECOND: u32 = 16;
const SECONDS: u32 = 300;
const TAKEN_OVER_P99_MS_MAX: f64 = 3_000.0;

pub(super) fn measure() -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE])?;
    stages::build_programs()?;
    let calls = PER_SECOND * SECONDS;
    output::note(&format!("{calls} calls, {PER_SECOND} in a second"));
    let said = Command::new(lab::program("chaos")?)
        .args(["replicas", "--release", "--calls", &calls.to_string()])
        .args(["--per-second", &PER_SECOND.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success(), "a promise was broken, or the run itself:\n{text}");
    let mut figures = told(&text)?;
    figures["per_second"] = PER_SECOND.into();
    let p99 = figures["taken_over"]["p99_ms"].as_f64().context("no time of takeovers")?;
    let lines = text.lines().filter(|line| !line.starts_with("FIGURES")).map(str::to_owned).collect();
    let targets = json!({"taken_over_p99_ms": TAKEN_OVER_P99_MS_MAX, "violations": 0});
    Ok(Measured {
        bench: "replicas",
        figures,
        peer: json!({}),
        targets,
        met: p99 <= TAKEN_OVER_P99_MS_MAX,
        lines,
    })
}
