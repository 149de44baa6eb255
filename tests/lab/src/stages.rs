//! `cargo lab check` and `cargo lab test`: stages one after the other, stopping at the first red one.
use crate::output;
use anyhow::{Context as _, bail};
use lab::postgres::Cluster;
use std::process::Command;
use std::time::Duration;

/// Tools that a check needs beside Rust itself.
const CARGO_TOOLS: [&str; 2] = ["cargo-deny", "cargo-machete"];

/// Tests of real hosts. (Always with the whole workspace: a part of it alone would have other features of shared
/// dependencies, and be built anew.)
const REAL_FLEET: [&str; 8] =
    ["calls", "carriers", "health", "hostile", "keys", "nodes", "postgres", "stopping"];

/// Tests at a time where no host of the lab is needed: most of them wait for a time-out.
const AT_A_TIME: (&str, &str) = ("RUST_TEST_THREADS", "6");

/// A stage: runs to its end with its output on this terminal.
type Stage = fn() -> anyhow::Result<()>;

#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Only these stages: check, unit, contract, real-fleet, chaos, old-asterisk, demo
    #[arg(value_name = "STAGE")]
    only: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct Chaos {
    /// Where every choice comes from; drawn and shown where none is given
    #[arg(long)]
    seed: Option<u64>,
    /// How many calls
    #[arg(long, default_value_t = 2_000)]
    calls: u32,
    /// Calls in a second
    #[arg(long, default_value_t = 8.0)]
    per_second: f64,
    /// How nodes are reached: through their agents, or by their address
    #[arg(long, default_value = "agent")]
    reach: String,
}

/// A node cut off for ten minutes, with what it measured.
pub(crate) fn link_cut() -> anyhow::Result<()> {
    step(&["build", "--workspace", "--bins"], &[])?;
    lab_tests(&["nodes"], &["--ignored", "--exact", "--nocapture", "cut::ten_minutes"], &[])
}

/// Format, lints, documentation, licences, unused dependencies.
pub(crate) fn check() -> anyhow::Result<()> {
    for tool in CARGO_TOOLS {
        ensure_tool(tool)?;
    }
    step(&["fmt", "--all", "--check"], &[])?;
    step(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"], &[])?;
    step(&["doc", "--workspace", "--no-deps", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    // The list of advisories is on the internet; a build that must work without it cannot ask it.
    step(&["deny", "--log-level", "error", "check", "licenses", "bans", "sources"], &[])?;
    // By its own name: as a subcommand inside `cargo run` it takes "machete" for a folder.
    run(&mut Command::new("cargo-machete"), "cargo-machete")
}

/// Everything, with the minutes of each stage at the end.
pub(crate) fn test(wanted: &Wanted) -> anyhow::Result<()> {
    let stages: [(&str, Stage); 7] = [
        ("check", check),
        ("unit", unit),
        ("contract", contract),
        ("real-fleet", real_fleet),
        ("chaos", short_chaos),
        ("old-asterisk", old_asterisk),
        ("demo", demo),
    ];
    if let Some(unknown) = wanted.only.iter().find(|name| stages.iter().all(|(known, _)| known != name)) {
        bail!("no stage `{unknown}`; there are: {}", stages.map(|(name, _)| name).join(", "));
    }
    let mut rows = Vec::new();
    let mut red = None;
    for (name, stage) in stages {
        if !wanted.only.is_empty() && !wanted.only.iter().any(|only| only == name) {
            continue;
        }
        output::note(&format!("stage {name}"));
        let start = tokio::time::Instant::now();
        let result = stage();
        let minutes = format_minutes(start.elapsed());
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        rows.push(vec![name.to_owned(), minutes, verdict.to_owned()]);
        if let Err(error) = result {
            red = Some((name, error));
            break;
        }
    }
    output::line("");
    output::table(&["STAGE", "MINUTES", "RESULT"], &rows);
    match red {
        Some((name, error)) => Err(error.context(format!("stage {name} is red; its output is above"))),
        None => Ok(()),
    }
}

/// What needs no root and no network.
fn unit() -> anyhow::Result<()> {
    step(&["test", "--workspace"], &[AT_A_TIME])
}

/// What tests ask of a machine, each a feature of its package: PostgreSQL, espeak-ng, a kernel's firewall.
const REAL_PARTS: &str = "controlplane-store/postgres-tests,api/postgres-tests,api/espeak-tests,\
                          node-agent/real-nft,node-agent-core/real-nft";

/// The store's contract, and the API, on PostgreSQL too; the agents' firewall in a real kernel, in network
/// namespaces of the tests' own.
fn contract() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let url = cluster.url();
    let postgres = [("RINGWARD_TEST_POSTGRES_URL", url.as_str()), AT_A_TIME];
    lab::install_speech()?;
    lab::install_network_tools()?;
    let targets = ["contract", "migrating", "postgres_server", "suite", "agents", "nft", "ward"];
    let mut arguments = vec!["test", "--workspace", "--features", REAL_PARTS];
    arguments.extend(targets.iter().flat_map(|target| ["--test", *target]));
    step(&arguments, &postgres)
}

/// Real Asterisk hosts, one lab at a time, and the real control plane beside them.
fn real_fleet() -> anyhow::Result<()> {
    step(&["build", "--workspace", "--bins"], &[])?;
    lab_tests(&REAL_FLEET, &[], &[])
}

/// Calls on PBXes with the oldest Asterisk that is supported: all that depends on how it tells of endings. What
/// carries AMI, and how much of it, is the same on every version.
fn old_asterisk() -> anyhow::Result<()> {
    lab_tests(
        &["calls", "carriers", "keys", "stopping"],
        &["--skip=links::", "--skip=many::", "--skip=power::"],
        &[("RINGWARD_LAB_ASTERISK", "16")],
    )
}

/// Two hundred calls under a seed that is always the same, and the proof that the checker finds
/// bugs: a control plane that has them on purpose.
fn short_chaos() -> anyhow::Result<()> {
    step(&["build", "--workspace", "--bins", "--features", "controlplane/planted-bugs"], &[])?;
    chaos(&Chaos { seed: Some(4), calls: 200, per_second: 8.0, reach: "agent".into() })?;
    let program = lab::program("chaos")?;
    run(Command::new(program).arg("planted"), "chaos planted")
}

/// The chaos run by hand.
pub(crate) fn chaos(wanted: &Chaos) -> anyhow::Result<()> {
    step(&["build", "--workspace", "--bins"], &[])?;
    let mut command = Command::new(lab::program("chaos")?);
    command.args([
        "run",
        "--calls",
        &wanted.calls.to_string(),
        "--per-second",
        &wanted.per_second.to_string(),
        "--reach",
        &wanted.reach,
    ]);
    if let Some(seed) = wanted.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    run(&mut command, "chaos run")
}

/// Tests of real hosts, one after the other: there is one lab.
fn lab_tests(targets: &[&str], more: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut arguments = vec!["test", "--workspace", "--features", "lab/real-fleet"];
    arguments.extend(targets.iter().flat_map(|target| ["--test", *target]));
    arguments.extend(["--", "--test-threads=1"]);
    arguments.extend(more);
    step(&arguments, variables)
}

/// The story of the README, to its end.
fn demo() -> anyhow::Result<()> {
    crate::demo::demo(&crate::demo::Wanted { exit: true })
}

/// One `cargo` command with its output on this terminal.
fn step(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    output::note(&line);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).envs(variables.iter().copied());
    run(&mut command, &line)
}

/// A command that must succeed, with its output on this terminal.
fn run(command: &mut Command, line: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Installs a cargo subcommand where it is missing.
fn ensure_tool(tool: &str) -> anyhow::Result<()> {
    let word = tool.trim_start_matches("cargo-");
    let there =
        Command::new("cargo").args([word, "--version"]).output().is_ok_and(|out| out.status.success());
    if there { Ok(()) } else { step(&["install", "--locked", tool], &[]) }
}

fn format_minutes(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() / 60.0)
}
