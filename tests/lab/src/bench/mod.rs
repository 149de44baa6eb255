//! `cargo lab bench …`: figures against their targets.
mod agent;
mod api;
mod ban;
mod bans;
mod dispatch;
mod failover;
mod fleet;
mod jail;
mod originate;
mod replicas;
mod spread;

use crate::{hands, output};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the control plane of a bench keeps its database. Emptied at each start.
const FOLDER: &str = "/run/ringward-lab/bench";

/// What can be measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Bench {
    /// The agent's memory and processor time.
    Agent,
    /// Durable POST /v1/calls per second on both databases, beside the bare framework with the one insert.
    Api,
    /// From the packet that earns a ban to the first one dropped, beside fail2ban.
    Ban,
    /// 100,000 bans: back at boot, one more, and what they cost a packet.
    Bans,
    /// Calls per second from the POST to the end with fake PBXes, on SQLite.
    Dispatch,
    /// From a carrier's 503 to the INVITE at the next, beside Kamailio's dispatcher.
    Failover,
    /// The control plane with a thousand nodes and more: memory, processor time, how soon a trunk's change counts.
    Fleet,
    /// How fast a log is read, matched and weighed, beside fail2ban.
    Jail,
    /// Calls per second through the API on real Asterisk, beside a bare loop over AMI.
    Originate,
    /// Three control planes, one of them killed, frozen or cut off every ten seconds: takeovers, and every promise.
    Replicas,
}

/// What was measured, and what it is held against.
struct Measured {
    bench: &'static str,
    figures: Value,
    /// The same of a peer in the same run, where there is one.
    peer: Value,
    targets: Value,
    met: bool,
    /// For a person.
    lines: Vec<String>,
}

/// How large the fleet of [`Bench::Fleet`] is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Size {
    /// fleet: with so many nodes alone, instead of 1,000, then with three control planes, and then 5,000
    #[arg(long)]
    nodes: Option<u32>,
    /// fleet: with so many control planes alone, on one PostgreSQL
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    replicas: Option<u8>,
}

/// Measures, shows, and fails where a target is missed.
pub(crate) fn bench(what: Bench, size: Size, as_json: bool) -> anyhow::Result<()> {
    let Size { nodes, replicas } = size;
    let is_sized = nodes.is_some() || replicas.is_some();
    ensure!(!is_sized || matches!(what, Bench::Fleet), "--nodes and --replicas are for the bench of a fleet");
    hands::sweep_on_interrupt()?;
    let Measured { bench, figures, peer, targets, met, lines } = match what {
        Bench::Agent => agent::measure()?,
        Bench::Api => api::measure()?,
        Bench::Ban => ban::measure()?,
        Bench::Bans => bans::measure()?,
        Bench::Dispatch => dispatch::measure()?,
        Bench::Failover => failover::measure()?,
        Bench::Fleet => fleet::measure(nodes, replicas)?,
        Bench::Jail => jail::measure()?,
        Bench::Originate => originate::measure()?,
        Bench::Replicas => replicas::measure()?,
    };
    lines.iter().for_each(|line| output::line(line));
    if as_json {
        let result = json!({
            "bench": bench, "machine": machine(), "commit": commit(), "figures": figures, "peer": peer,
            "targets": targets, "met": met,
        });
        output::line(&result.to_string());
    }
    ensure!(met, "a target is missed: {targets}");
    Ok(())
}

/// The control plane as benches measure it, with the program that asks it: always both, since the features of what they share, and
/// so what is to be compiled, follow from which are built together.
const CONTROL_PLANE: &[&str] = &["--release", "-p", "controlplane", "-p", "bench-api"];

/// Builds what is measured: each of these is what follows `cargo build`.
pub(crate) fn build(wanted: &[&[&str]]) -> anyhow::Result<()> {
    for arguments in wanted {
        output::note(&format!("cargo build {}", arguments.join(" ")));
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        ensure!(Command::new(cargo).arg("build").args(*arguments).status()?.success(), "it does not build");
    }
    Ok(())
}

/// A program of this workspace in the optimised build.
fn release(name: &str) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let path = std::path::absolute(target.join("release").join(name))?;
    path.exists().then_some(path).with_context(|| format!("no release build of {name}"))
}

/// What a measuring program tells: one JSON object behind the word `FIGURES`.
fn told(text: &str) -> anyhow::Result<Value> {
    let read = text.lines().find_map(|line| line.strip_prefix("FIGURES ")).context("no figures")?;
    Ok(serde_json::from_str(read)?)
}

/// An empty folder for the control plane.
pub(crate) fn empty() -> anyhow::Result<PathBuf> {
    let folder = Path::new(FOLDER);
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("empty {FOLDER}"))?;
    }
    Ok(folder.to_owned())
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// In which the kernel tells processor time (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// Time on a processor of all threads of a process, those included that have ended.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    cpu_times(&pid.to_string(), 11)
}

/// The same of this process's children that have ended.
fn cpu_time_of_ended() -> anyhow::Result<Duration> {
    cpu_times("self", 13)
}

/// `user` is the field's number behind the name, from 0; the kernel's own time follows it.
fn cpu_times(process: &str, user: usize) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold spaces: read from behind its end.
    let fields = stat.rsplit_once(')').context("stat")?.1.split_whitespace().skip(user).take(2);
    let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>().context("stat")?;
    Ok(TICK * u32::try_from(ticks)?)
}

/// Processor and cores.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{}, {cores} cores", model.map_or("unknown processor", |(_, name)| name))
}

fn commit() -> String {
    let said = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    said.map_or_else(|_| "unknown".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
