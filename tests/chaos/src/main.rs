//! `cargo lab chaos …` runs this.
mod planted;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use chaos::{
    checker::{Verdict, check},
    history::History,
    load::CALLS_MAX,
    run::{Script, Upgrade, fleet, fleet_of_replicas, run},
    site::{Site, simulated::Simulated},
    table::{figures, table},
};
use clap::{Parser, Subcommand};
use controlplane_core::call::CallStatus;
use lab::{Lab, Reach};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Where the control plane of a run keeps its database and log: kept until the next run.
const FOLDER: &str = "/run/ringward-lab/chaos";

/// Calls that carriers of the lab tell apart.
const LAB_CALLS_MAX: usize = 10_000;

#[derive(Parser)]
#[command(name = "chaos", bin_name = "cargo lab chaos", about = "Kills, freezes and cuts while calls run")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Calls and faults of a seed
    Run {
        /// Where every choice comes from; drawn and shown where none is given
        #[arg(long)]
        seed: Option<u64>,
        /// How many calls
        #[arg(long, default_value_t = 2_000)]
        calls: usize,
        /// Calls in a second
        #[arg(long, default_value_t = 8.0)]
        per_second: f64,
        /// How nodes are reached: through their agents, or by their address
        #[arg(long, value_enum, default_value = "agent")]
        reach: Reach,
    },
    /// Several control planes on one PostgreSQL, one of which is killed, stopped, frozen or cut from the database every ten seconds
    Replicas {
        /// Where every choice comes from; drawn and shown where none is given
        #[arg(long)]
        seed: Option<u64>,
        /// How many calls
        #[arg(long, default_value_t = 3_000)]
        calls: usize,
        /// Calls in a second
        #[arg(long, default_value_t = 10.0)]
        per_second: f64,
        /// How many control planes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
        replicas: u8,
        /// The optimised build of the control plane
        #[arg(long)]
        release: bool,
        /// Nodes and carriers are simulated, for more calls than Asterisk carries on this machine
        #[arg(long)]
        simulated: bool,
    },
    /// Three control planes, one after the other, and then the agents are replaced by another version while calls come
    Upgrade {
        /// Folder of links to the programs of before (`LAB_PROGRAMS`)
        #[arg(long)]
        links: PathBuf,
        /// Folder of the programs that replace them
        #[arg(long)]
        to: PathBuf,
        /// Where every choice comes from
        #[arg(long, default_value_t = 4)]
        seed: u64,
        /// Calls in a second
        #[arg(long, default_value_t = 6.0)]
        per_second: f64,
    },
    /// Shows that the checker finds bugs that are planted, and none without them
    Planted {
        /// Where every choice comes from
        #[arg(long, default_value_t = 4)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { seed, calls, per_second, reach } => {
            chaos(seed, &Kind { calls, per_second, fleet: fleet(reach), planes: 1, release: false })
        }
        Command::Replicas { seed, calls, per_second, replicas, release, simulated: true } => {
            simulated(seed, calls, per_second, replicas, release)
        }
        Command::Replicas { seed, calls, per_second, replicas, release, simulated: false } => {
            let fleet = fleet_of_replicas(per_second);
            chaos(seed, &Kind { calls, per_second, fleet, planes: replicas, release })
        }
        Command::Upgrade { links, to, seed, per_second } => upgrade(seed, per_second, Upgrade { links, to }),
        Command::Planted { seed } => planted::planted(seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}

/// An empty folder for a control plane.
fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = Path::new(FOLDER).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    Ok(folder)
}

/// What kind of run it is.
struct Kind {
    calls: usize,
    per_second: f64,
    fleet: lab::Plan,
    /// Control planes.
    planes: u8,
    release: bool,
}

fn chaos(seed: Option<u64>, kind: &Kind) -> anyhow::Result<()> {
    let Kind { calls, per_second, fleet, planes, release } = kind;
    ensure!((1..=LAB_CALLS_MAX).contains(calls), "--calls: 1 to {LAB_CALLS_MAX}");
    ensure!(*per_second > 0.0 && *per_second <= 100.0, "--per-second: up to 100");
    let seed = seed_or_draw(seed)?;
    let reach = fleet.reach;
    say(&format!(
        "seed {seed}: {calls} calls, {per_second} in a second, nodes by {reach:?}, control planes: {planes}"
    ));
    let script = Script { release: *release, ..Script::of(seed, *calls, *per_second, fleet, *planes) };
    judged(seed, &Lab::up(fleet.clone())?, &script).map(|_| ())
}

fn simulated(
    seed: Option<u64>,
    calls: usize,
    per_second: f64,
    planes: u8,
    release: bool,
) -> anyhow::Result<()> {
    ensure!((1..=CALLS_MAX).contains(&calls), "--calls: 1 to {CALLS_MAX}");
    ensure!(per_second > 0.0 && per_second <= 1_000.0, "--per-second: up to 1,000");
    let _alone = Lab::alone()?;
    fleet_sim::raise_open_files()?;
    let seed = seed_or_draw(seed)?;
    say(&format!(
        "seed {seed}: {calls} calls, {per_second} in a second, nodes are simulated, control planes: {planes}"
    ));
    let script = Script { release, ..Script::of_planes(seed, calls, per_second, planes) };
    judged(seed, &Simulated::new(seed, per_second)?, &script).map(|_| ())
}

fn seed_or_draw(seed: Option<u64>) -> anyhow::Result<u64> {
    let draw = || {
        Ok(StdRng::try_from_os_rng().context("the system gives no randomness")?.random_range(1..1_000_000))
    };
    seed.map_or_else(draw, Ok)
}

/// Beside every promise each call must have been answered.
fn upgrade(seed: u64, per_second: f64, upgrade: Upgrade) -> anyhow::Result<()> {
    let fleet = fleet(Reach::Agent);
    let script = Script::of_upgrade(seed, per_second, &fleet, upgrade);
    say(&format!("{} calls, {per_second} in a second", script.calls.len()));
    let history = judged(seed, &Lab::up(fleet)?, &script)?;
    let failed: Vec<_> = history
        .told
        .iter()
        .filter(|call| call.status != CallStatus::Completed)
        .map(|call| &call.id)
        .collect();
    ensure!(failed.is_empty(), "{} calls failed: {failed:?}", failed.len());
    Ok(())
}

/// Runs it, tells what came of it, and fails where a promise was broken.
fn judged(seed: u64, site: &dyn Site, script: &Script) -> anyhow::Result<History> {
    let folder = folder("run")?;
    let history = run(site, &folder, script).with_context(|| format!("seed {seed}"))?;
    let verdict = check(&history);
    say(&table(&history, &verdict));
    say(&format!("FIGURES {}", figures(&history, &verdict)));
    trace(&folder, &history, &verdict);
    ensure!(
        verdict.violations.is_empty(),
        "{} violations {:?}; the same seed and options plan the same; log and database: {}",
        verdict.violations.len(),
        verdict.by_rule(),
        folder.display()
    );
    say(&format!("seed {seed}: every promise held"));
    Ok(history)
}

/// What the control plane's log says of the first calls that were wrong.
fn trace(folder: &Path, history: &History, verdict: &Verdict) {
    const CALLS: usize = 3;
    // Of one control plane, or of each of several in the order of their names.
    let own = folder.join("ringward.log");
    let others = (1..=u8::MAX).map(|n| folder.join(format!("replica-{n}/ringward.log")));
    let logs = std::iter::once(own).chain(others.take_while(|log| log.exists()));
    let log: String = logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect();
    for violation in verdict.violations.iter().take(CALLS) {
        let Some(told) = history.told.iter().find(|call| call.number == violation.of) else { continue };
        say(&format!("--- {} {} from {:?} to {:?}", told.id, told.number, told.created_at, told.ended_at));
        let attempts = told.attempts.iter().map(|attempt| attempt.id.as_str());
        let ids: Vec<_> = attempts.chain([told.id.as_str()]).collect();
        for line in log.lines().filter(|line| ids.iter().any(|id| line.contains(id))) {
            say(line);
        }
        for dialog in history.seen.iter().filter(|dialog| dialog.number == told.number) {
            say(&format!("{dialog:?}"));
        }
        for broken in &history.broken {
            let after = broken.until.is_some_and(|until| until < told.created_at);
            if !after && told.ended_at.is_none_or(|ended| broken.from < ended) {
                say(&format!("{broken:?}"));
            }
        }
    }
}
