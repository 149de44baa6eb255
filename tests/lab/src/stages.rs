//! `cargo lab check` and `cargo lab test`: stages one after the other, stopping at the first red one; those that need a lab
//! are cut into jobs and run [side by side](crate::jobs).
use crate::debs;
use crate::jobs::{self, Done, Job};
use crate::output;
use anyhow::{Context as _, bail};
use lab::postgres::Cluster;
use std::process::Command;
use std::time::Duration;

/// Tools that a check needs beside Rust itself.
const CARGO_TOOLS: [&str; 2] = ["cargo-deny", "cargo-machete"];

/// Tests of real hosts, those that take longest first. (Always with the whole workspace: a part of it alone would have
/// other features of shared dependencies, and be built anew.)
const REAL_FLEET: [&str; 13] = [
    "calls",
    "alerts",
    "attackers",
    "hardening",
    "health",
    "nodes",
    "console",
    "carriers",
    "keys",
    "hostile",
    "stopping",
    "postgres",
    "apart",
];

/// The life of a fleet that Ansible builds.
const ANSIBLE: &str = "ansible";

/// Of these, what is run on the oldest Asterisk too: all that depends on how it tells of endings. What carries AMI, and how
/// much of it, is the same on every version.
const OLD_ASTERISK: [&str; 4] = ["calls", "carriers", "keys", "stopping"];
const SAME_ON_EVERY_VERSION: [&str; 3] = ["--skip=links::", "--skip=many::", "--skip=power::"];

/// Tests at a time where no host of the lab is needed: most of them wait for a time-out.
const AT_A_TIME: (&str, &str) = ("RUST_TEST_THREADS", "6");

/// A stage: runs to its end with its output on this terminal.
type Stage = fn() -> anyhow::Result<()>;

#[derive(clap::Args)]
pub(crate) struct Wanted {
    /// Only these stages: check, unit, contract, real-fleet, chaos, old-asterisk, ansible, demo
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
    build_programs()?;
    let ten_minutes = ["--", "--test-threads=1", "--ignored", "--exact", "--nocapture", "cut::ten_minutes"];
    step(&test_line(&["nodes"], &ten_minutes), &[])
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
    playbooks()?;
    // By its own name, and without what makes it believe that it was called as a subcommand of cargo.
    run(Command::new("cargo-machete").env_remove("CARGO"), "cargo-machete")
}

/// The life of a fleet that Ansible builds, alone.
pub(crate) fn ansible() -> anyhow::Result<()> {
    lab::install_everything()?;
    build_programs()?;
    prepare_ansible()?;
    let line = test_line(&[ANSIBLE], &["--", "--test-threads=1", "--nocapture"]);
    step(&line, &[])
}

/// What Ansible's own rules say of playbooks and roles.
fn playbooks() -> anyhow::Result<()> {
    let programs = lab::install_ansible()?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut lint = Command::new(programs.join("ansible-lint"));
    lint.args(["--offline", "--strict", "--profile", "production", "--nocolor"]).current_dir("ansible");
    run(lint.env("PATH", format!("{}:{path}", programs.display())), "ansible-lint --profile production")
}

/// Everything, with the minutes of each stage at the end.
pub(crate) fn test(wanted: &Wanted) -> anyhow::Result<()> {
    let labs = ["real-fleet", "chaos", "old-asterisk", "ansible"];
    let before: [(&'static str, Stage); 3] = [("check", check), ("unit", unit), ("contract", contract)];
    let after: [(&'static str, Stage); 1] = [("demo", demo)];
    let known =
        || before.iter().map(|(name, _)| *name).chain(labs).chain(after.iter().map(|(name, _)| *name));
    if let Some(unknown) = wanted.only.iter().find(|name| known().all(|known| known != *name)) {
        bail!("no stage `{unknown}`; there are: {}", known().collect::<Vec<_>>().join(", "));
    }
    let is_wanted = |name: &str| wanted.only.is_empty() || wanted.only.iter().any(|only| only == name);
    let mut report = Report::default();
    for (name, stage) in before {
        report.run(name, stage, is_wanted(name));
    }
    let labs: Vec<&str> = labs.into_iter().filter(|name| is_wanted(name)).collect();
    report.run_labs(&labs);
    for (name, stage) in after {
        report.run(name, stage, is_wanted(name));
    }
    report.end()
}

/// What was run, and the first that was red: nothing is run after it.
#[derive(Default)]
struct Report {
    rows: Vec<Vec<String>>,
    red: Option<anyhow::Error>,
}

impl Report {
    fn run(&mut self, name: &'static str, stage: Stage, is_wanted: bool) {
        if self.red.is_some() || !is_wanted {
            return;
        }
        output::note(&format!("stage {name}"));
        let start = tokio::time::Instant::now();
        let result = stage();
        self.add(Done { stage: name, name: String::new(), took: start.elapsed(), result });
    }

    fn run_labs(&mut self, stages: &[&str]) {
        if self.red.is_some() || stages.is_empty() {
            return;
        }
        output::note(&format!("stages {}", stages.join(", ")));
        let start = tokio::time::Instant::now();
        let result = prepare_labs(stages);
        self.add(Done { stage: "build", name: "labs".into(), took: start.elapsed(), result });
        if self.red.is_none() {
            let start = tokio::time::Instant::now();
            let wanted = lab_jobs().into_iter().filter(|job| stages.contains(&job.stage));
            for done in jobs::side_by_side(wanted.collect()) {
                self.add(done);
            }
            self.rows.push(vec!["labs".into(), "side by side".into(), format_minutes(start.elapsed())]);
        }
    }

    fn add(&mut self, done: Done) {
        let Done { stage, name, took, result } = done;
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        self.rows.push(vec![stage.into(), name, format_minutes(took), verdict.into()]);
        if let (Err(error), None) = (result, &self.red) {
            self.red = Some(error.context(format!("stage {stage} is red; its output is above")));
        }
    }

    fn end(self) -> anyhow::Result<()> {
        output::line("");
        output::table(&["STAGE", "PART", "MINUTES", "RESULT"], &self.rows);
        self.red.map_or(Ok(()), Err)
    }
}

/// What needs no root and no network.
fn unit() -> anyhow::Result<()> {
    step(&["test", "--workspace"], &[AT_A_TIME])
}

/// What tests ask of a machine, each a feature of its package: PostgreSQL, espeak-ng, the languages of snippets, Chromium, a kernel's firewall, promtool.
const REAL_PARTS: &str = "controlplane-store/postgres-tests,api/postgres-tests,api/espeak-tests,api/snippet-tests,api/browser-tests,\
                          node-agent/real-nft,node-agent-core/real-nft,lab/promtool";

/// The store's contract, and the API, on PostgreSQL too; the agents' firewall in a real kernel, in network
/// namespaces of the tests' own; and the customers' API as its document tells it, thousands of times.
fn contract() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let url = cluster.url();
    let postgres = [("RINGWARD_TEST_POSTGRES_URL", url.as_str()), AT_A_TIME];
    lab::install_speech()?;
    lab::install_languages()?;
    lab::install_browser()?;
    lab::install_prometheus()?;
    lab::install_network_tools()?;
    let targets = ["contract", "migrating", "postgres_server", "suite", "agents", "nft", "ward", "alerts"];
    let mut arguments = vec!["test", "--workspace", "--features", REAL_PARTS];
    arguments.extend(targets.iter().flat_map(|target| ["--test", *target]));
    step(&arguments, &postgres)?;
    drop(cluster);
    crate::fuzz::fuzz(&crate::fuzz::Wanted::default())
}

/// Every program of this workspace, beside the one that runs.
pub(crate) fn build_programs() -> anyhow::Result<()> {
    step(&["build", "--workspace", "--bins"], &[])
}

/// Builds and installs all that jobs need, so that they only run.
fn prepare_labs(stages: &[&str]) -> anyhow::Result<()> {
    lab::install_everything()?;
    step(&["build", "--workspace", "--bins", "--features", "controlplane/planted-bugs"], &[])?;
    build_programs()?;
    if stages.contains(&ANSIBLE) {
        prepare_ansible()?;
    } else if stages.contains(&"real-fleet") {
        packages(&["1"])?;
    }
    step(&test_line(&[&REAL_FLEET[..], &[ANSIBLE]].concat(), &["--no-run"]), &[])
}

/// What playbooks run by, work on and install.
fn prepare_ansible() -> anyhow::Result<()> {
    lab::ensure_bare_root()?;
    lab::install_ansible()?;
    // From one to the other is an upgrade.
    packages(&["1", "2"])
}

/// Packs both programs as they were built, under these revisions, and looks what is in them.
fn packages(revisions: &[&str]) -> anyhow::Result<()> {
    ensure_tool("cargo-deb")?;
    let built = debs::built("debug")?;
    let folder = built.join("debs");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("remove former packages")?;
    }
    for revision in revisions {
        debs::pack("dev", &built, &folder, &["--fast"], revision)?;
    }
    debs::inspect(&built, &folder, "1")?;
    lab::install_lintian()?;
    let mut lint = Command::new("sh");
    // Nobody uploads to Debian, whose bug would be closed.
    let rules = "lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs --allow-root";
    run(lint.args(["-c", &format!("{rules} {}/*-1_*.deb", folder.display())]), "lintian")
}

/// Real Asterisk hosts and the real control plane beside them; two hundred calls of chaos under a seed that is always the
/// same, four hundred over three control planes, more of them over simulated nodes, and the proof that its checker finds bugs: a control plane that has them on purpose. In the order in which they
/// are begun: what takes long first.
fn lab_jobs() -> Vec<Job> {
    let tests = |stage, name: String, target: &str, more: &[&str], variables| Job {
        stage,
        name,
        line: cargo_line(&[test_line(&[target], &["--", "--test-threads=1"]), more.to_vec()].concat()),
        variables,
    };
    let chaos = |name: &str, arguments: &[&str]| {
        let program =
            lab::program("chaos").map_or_else(|_| "chaos".into(), |path| path.display().to_string());
        let line = std::iter::once(program).chain(arguments.iter().map(|word| (*word).into())).collect();
        Job { stage: "chaos", name: name.into(), line, variables: vec![] }
    };
    let new = |target: &str| {
        // Alerts' rules were held against promtool before, which takes both cores for a minute: not beside a lab.
        tests("real-fleet", target.into(), target, &["--skip=promtool::"], vec![])
    };
    let old = |target: &str| {
        let variables = vec![("RINGWARD_LAB_ASTERISK", "16")];
        tests("old-asterisk", format!("{target} on 16"), target, &SAME_ON_EVERY_VERSION, variables)
    };
    let mut jobs: Vec<Job> = Vec::new();
    jobs.extend(REAL_FLEET.first().map(|target| new(target)));
    jobs.push(chaos("planted", &["planted"]));
    jobs.extend(OLD_ASTERISK.iter().map(|target| old(target)));
    jobs.push(tests("ansible", ANSIBLE.into(), ANSIBLE, &["--nocapture"], vec![]));
    jobs.extend(REAL_FLEET.iter().skip(1).map(|target| new(target)));
    jobs.push(chaos(
        "chaos",
        &["run", "--seed", "4", "--calls", "200", "--per-second", "8", "--reach", "agent"],
    ));
    jobs.push(chaos("replicas", &["replicas", "--seed", "4", "--calls", "400", "--per-second", "6"]));
    jobs.push(chaos(
        "simulated",
        &["replicas", "--simulated", "--seed", "4", "--calls", "1200", "--per-second", "30"],
    ));
    jobs
}

/// The chaos run by hand.
pub(crate) fn chaos(wanted: &Chaos) -> anyhow::Result<()> {
    build_programs()?;
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

/// Arguments of `cargo` for tests of real hosts.
fn test_line<'a>(targets: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["test", "--workspace", "--features", "lab/real-fleet,lab/promtool"];
    arguments.extend(targets.iter().flat_map(|target| ["--test", *target]));
    arguments.extend(more);
    arguments
}

/// The story of the README, to its end.
fn demo() -> anyhow::Result<()> {
    crate::demo::demo(&crate::demo::Wanted { exit: true })
}

/// One `cargo` command with its output on this terminal.
pub(crate) fn step(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let line = format!("cargo {}", arguments.join(" "));
    output::note(&line);
    let mut command = Command::new(cargo());
    command.args(arguments).envs(variables.iter().copied());
    run(&mut command, &line)
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn cargo_line(arguments: &[&str]) -> Vec<String> {
    std::iter::once(cargo()).chain(arguments.iter().map(|word| (*word).into())).collect()
}

/// A command that must succeed, with its output on this terminal.
pub(crate) fn run(command: &mut Command, line: &str) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` ended with {status}");
    }
    Ok(())
}

/// Installs a cargo subcommand where it is missing.
pub(crate) fn ensure_tool(tool: &str) -> anyhow::Result<()> {
    let word = tool.trim_start_matches("cargo-");
    let there =
        Command::new("cargo").args([word, "--version"]).output().is_ok_and(|out| out.status.success());
    if there { Ok(()) } else { step(&["install", "--locked", tool], &[]) }
}

fn format_minutes(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64() / 60.0)
}
