//! `cargo lab bench replicas`: three control planes on one PostgreSQL for five minutes of calls, one of them killed, stopped, frozen beyond
//! its lease or cut from the database every ten seconds. The chaos run's checker holds what was told against what carriers saw,
//! and their accounts' limits against what they had.
//!
//! Twice: at 200 calls a second to simulated nodes and carriers, linked as real ones are; and over real Asterisk, where calls are
//! spoken, so that Asterisk's share of two cores bounds how many there may be in a second.
use super::{CONTROL_PLANE, Measured, build, release, told};
use crate::{output, stages};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

const SIMULATED_PER_SECOND: u32 = 200;
const ASTERISK_PER_SECOND: u32 = 16;
const SECONDS: u32 = 300;
const TAKEN_OVER_P99_MS_MAX: f64 = 3_000.0;

pub(super) fn measure() -> anyhow::Result<Measured> {
    // What simulates and what asks has the cores too: both are measured optimised.
    build(&[CONTROL_PLANE, &["--release", "-p", "chaos"]])?;
    stages::build_programs()?;
    let mut lines = Vec::new();
    let simulated = run(&release("chaos")?, SIMULATED_PER_SECOND, &["--simulated"], &mut lines)?;
    let asterisk = run(&lab::program("chaos")?, ASTERISK_PER_SECOND, &[], &mut lines)?;
    let p99 = |figures: &Value| figures["taken_over"]["p99_ms"].as_f64().context("no time of takeovers");
    let met = p99(&simulated)? <= TAKEN_OVER_P99_MS_MAX && p99(&asterisk)? <= TAKEN_OVER_P99_MS_MAX;
    let figures = json!({"simulated": simulated, "asterisk": asterisk});
    let targets = json!({
        "per_second": SIMULATED_PER_SECOND, "taken_over_p99_ms": TAKEN_OVER_P99_MS_MAX, "violations": 0,
    });
    Ok(Measured { bench: "replicas", figures, peer: json!({}), targets, met, lines })
}

fn run(chaos: &Path, per_second: u32, more: &[&str], lines: &mut Vec<String>) -> anyhow::Result<Value> {
    let calls = per_second * SECONDS;
    output::note(&format!("{calls} calls, {per_second} in a second"));
    let said = Command::new(chaos)
        .args(["replicas", "--release", "--calls", &calls.to_string()])
        .args(["--per-second", &per_second.to_string()])
        .args(more)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success(), "a promise was broken, or the run itself:\n{text}");
    lines.extend(text.lines().filter(|line| !line.starts_with("FIGURES")).map(str::to_owned));
    let mut figures = told(&text)?;
    figures["per_second"] = per_second.into();
    Ok(figures)
}
