//! `fleet-sim`: the figures of `cargo lab bench fleet`, of a control plane that it starts as a process of its own.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the command line")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use fleet_sim::{
    Fleet, Order,
    console::Console,
    plan::Plan,
    plane::{Operator, Program},
};
use futures_util::future::try_join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// A fleet at rest.
const SETTLE: Duration = Duration::from_secs(20);
/// Until all nodes have a link and a session.
const LINKED_MAX: Duration = Duration::from_secs(300);
/// Changes of trunks that are timed, and the time between two.
const SAMPLES: usize = 300;
/// The same while every trunk is listed again and again.
const SAMPLES_BESIDE: usize = 100;
const APART: Duration = Duration::from_millis(20);
/// Between two looks at a trunk that is about to change.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A change that is not there by then never comes.
const CHANGE_MAX: Duration = Duration::from_secs(10);
/// Consoles that are open, and how long their cost is measured.
const CONSOLES: usize = 20;
const CONSOLES_FOR: Duration = Duration::from_secs(20);
/// Between two changes of the fleet meanwhile.
const CHANGE_EVERY: Duration = Duration::from_millis(200);
/// First screens that are timed.
const SCREENS: usize = 20;
/// In which the kernel tells processor time (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

#[derive(Parser)]
struct Wanted {
    /// The program `ringward`.
    #[arg(long)]
    ringward: PathBuf,
    /// For its database, or what each of several has beside it; emptied first.
    #[arg(long)]
    folder: PathBuf,
    /// How many nodes, four trunks each.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// How long it is watched at rest, in s.
    #[arg(long, default_value_t = 60)]
    rest_s: u64,
    /// How many control planes, linked to every node; several share the PostgreSQL database of `--database-url`.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// An empty PostgreSQL database; SQLite where none is given.
    #[arg(long)]
    database_url: Option<String>,
    /// Where every choice comes from; drawn where none is given.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted = Wanted::parse();
    let seed = wanted.seed.unwrap_or_else(|| StdRng::from_os_rng().random());
    eprintln!("seed {seed}");
    let open_files = fleet_sim::raise_open_files()?;
    let needed = 2 * (wanted.nodes * wanted.replicas) as u64 + 1_000;
    ensure!(open_files >= needed, "{needed} open files are needed, {open_files} allowed");
    if wanted.folder.exists() {
        std::fs::remove_dir_all(&wanted.folder)?;
    }
    let figures = measure(&wanted, seed).await?;
    println!("FIGURES {figures}");
    Ok(())
}

async fn measure(wanted: &Wanted, seed: u64) -> anyhow::Result<Value> {
    let plan = Plan::of(wanted.nodes);
    let mut ringwards = match &wanted.database_url {
        Some(url) => Program::several(&wanted.ringward, &wanted.folder, url, wanted.replicas).await?,
        None => {
            ensure!(wanted.replicas == 1, "several share a PostgreSQL database: --database-url");
            vec![Program::start(&wanted.ringward, &wanted.folder).await?]
        }
    };
    let (ringward, others) = ringwards.split_first_mut().context("there is none")?;
    let operator = ringward.operator().await?;
    let operators: Vec<_> =
        std::iter::once(operator.clone()).chain(others.iter().map(|other| other.beside(&operator))).collect();
    let empty_mb = rss_mb(ringward.pid()?)?;
    eprintln!("{} nodes join", plan.nodes);
    let began = Instant::now();
    let fleet = Fleet::start(&operator, plan, seed).await?;
    let joined = began.elapsed();
    fleet.linked(LINKED_MAX).await?;
    agree(&fleet, &operators).await?;
    eprintln!("joined after {joined:.1?}; at rest for {} s", wanted.rest_s);
    sleep(SETTLE).await;
    let rest = Duration::from_secs(wanted.rest_s);
    // Of several the one that has most to do: one of them leads.
    let pids =
        std::iter::once(&*ringward).chain(&*others).map(Program::pid).collect::<anyhow::Result<Vec<_>>>()?;
    let cpu = try_join_all(pids.iter().map(|pid| busy(*pid, rest))).await?.into_iter().fold(0.0, f64::max);
    let rss = pids
        .iter()
        .map(|pid| rss_mb(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?
        .into_iter()
        .fold(0.0, f64::max);
    eprintln!("{rss:.0} MB, {cpu:.3} cores; {CONSOLES} consoles");
    let consoles = consoles(&fleet, &operator, ringward.pid()?).await?;
    eprintln!("{consoles}; {SAMPLES} changes");
    let mut rng = StdRng::seed_from_u64(seed);
    let alone = changes(&fleet, &operators, &mut rng, SAMPLES).await?;
    let mut lists = Vec::new();
    let beside = tokio::select! {
        beside = changes(&fleet, &operators, &mut rng, SAMPLES_BESIDE) => beside?,
        Err(error) = list(&operator, &mut lists) => return Err(error),
    };
    lists.sort_by(f64::total_cmp);
    agree(&fleet, &operators).await?;
    let (p50, p99, beside_p99) = (at(&alone, 0.5), at(&alone, 0.99), at(&beside, 0.99));
    eprintln!("p50 {p50:.1} ms, p99 {p99:.1} ms, beside lists {beside_p99:.1} ms; every link is cut");
    for agent in fleet.agents() {
        agent.order(Order::Cut).await;
    }
    let storm = back(&fleet, &operators).await?;
    eprintln!("back after {storm:.1?}; killed and started again");
    fleet.agents().iter().for_each(|agent| agent.excuse(true));
    ringward.kill().await?;
    let before = Instant::now();
    let ready = ringward.start_again().await?;
    let linked = fleet.linked(LINKED_MAX).await? + ready;
    fleet.agrees(&operator, LINKED_MAX).await?;
    let cold = before.elapsed();
    let cold_cpu = cpu_time(ringward.pid()?)?;
    let after_mb = rss_mb(ringward.pid()?)?;
    let lost: Vec<_> = fleet.agents().iter().flat_map(|agent| agent.lost_without_reason()).collect();
    ensure!(lost.is_empty(), "{} links were lost without a reason: {lost:?}", lost.len());
    Ok(json!({
        "seed": seed,
        "nodes": plan.nodes,
        "replicas": wanted.replicas,
        "trunks": plan.trunks(),
        "empty_rss_mb": round(empty_mb),
        "rss_mb": round(rss),
        "rss_after_restart_mb": round(after_mb),
        "cpu_cores": thousandths(cpu),
        "consoles": consoles,
        "selection_p50_ms": round(p50),
        "selection_p99_ms": round(p99),
        "selection_most_ms": round(at(&alone, 1.0)),
        "selection_samples": alone.len(),
        "beside_lists_p99_ms": round(beside_p99),
        "trunk_list_p50_ms": round(at(&lists, 0.5)),
        "all_joined_s": round(joined.as_secs_f64()),
        "storm_s": round(storm.as_secs_f64()),
        "cold_linked_s": round(linked.as_secs_f64()),
        "cold_usable_s": round(cold.as_secs_f64()),
        "cold_cpu_s": round(cold_cpu.as_secs_f64()),
    }))
}

/// What the first screen takes, and what open consoles cost while operators disable and enable trunks five times a second.
async fn consoles(fleet: &Fleet, operator: &Operator, ringward: u32) -> anyhow::Result<Value> {
    // Before anybody looks: the fleet is looked at for a while after a page.
    let without = changing(fleet, operator, ringward).await?;
    let console = Console::of(operator).await?;
    let (mut took, mut bytes) = (Vec::new(), 0);
    for _ in 0..SCREENS {
        let (text, ms) = console.first_screen().await?;
        bytes = text.len();
        took.push(ms);
    }
    took.sort_by(f64::total_cmp);
    let open = console.open(CONSOLES).await?;
    let before = open.read();
    let with = changing(fleet, operator, ringward).await?;
    let told = (open.read() - before) as f64 / 1e3 / CONSOLES_FOR.as_secs_f64() / CONSOLES as f64;
    Ok(json!({
        "open": CONSOLES,
        "cpu_cores": thousandths(with - without),
        "cpu_cores_without": thousandths(without),
        "told_kb_per_s_each": round(told),
        "first_screen_kb": round(bytes as f64 / 1e3),
        "first_screen_p50_ms": round(at(&took, 0.5)),
        "first_screen_most_ms": round(at(&took, 1.0)),
    }))
}

/// Cores that a control plane keeps busy while operators change its fleet.
async fn changing(fleet: &Fleet, operator: &Operator, ringward: u32) -> anyhow::Result<f64> {
    let change = async {
        let mut beat = tokio::time::interval(CHANGE_EVERY);
        for n in 0.. {
            beat.tick().await;
            let action = if n % 2 == 0 { "disable" } else { "enable" };
            // The same trunks in each span.
            let trunk = Plan::trunk(n / 2 % fleet.plan().nodes, 0);
            operator.post(&format!("/admin/v1/trunks/{trunk}/{action}"), &json!({})).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        cores = busy(ringward, CONSOLES_FOR) => cores,
        ended = change => Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("changes ended"))),
    }
}

/// Until every control plane knows of each trunk what is the case.
async fn agree(fleet: &Fleet, operators: &[Operator]) -> anyhow::Result<()> {
    for operator in operators {
        fleet.agrees(operator, LINKED_MAX).await?;
    }
    Ok(())
}

/// Until the links that were just cut are there again, and every trunk can be used.
async fn back(fleet: &Fleet, operators: &[Operator]) -> anyhow::Result<Duration> {
    let began = Instant::now();
    // The orders have to arrive first.
    while fleet.agents().iter().all(fleet_sim::Agent::is_linked) {
        sleep(LOOK_EVERY).await;
    }
    fleet.linked(LINKED_MAX).await?;
    agree(fleet, operators).await?;
    Ok(began.elapsed())
}

/// Contacts of trunks that stop to answer, one after the other, in ms from the moment that its agent sees it until the
/// last of the control planes, each asked each millisecond, says that calls pass the trunk over.
/// The shortest first.
async fn changes(
    fleet: &Fleet,
    operators: &[Operator],
    rng: &mut StdRng,
    samples: usize,
) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::with_capacity(samples);
    let plan = fleet.plan();
    while took.len() < samples.min(plan.trunks() / 4) {
        let (node, trunk) = (rng.random_range(0..plan.nodes), rng.random_range(0..plan.trunks_per_node));
        let agent = fleet.agent(node)?;
        if agent.is_down(trunk) {
            continue;
        }
        sleep(APART).await;
        let path = format!("/admin/v1/trunks/{}/why", Plan::trunk(node, trunk));
        let path = &path;
        let preferred =
            async |operator: &Operator| anyhow::Ok(operator.get(path).await?["standing"] == "preferred");
        for operator in operators {
            ensure!(
                preferred(operator).await?,
                "before its change {path} says {}",
                operator.get(path).await?
            );
        }
        let began = Instant::now();
        agent.set_down(trunk, true);
        let known = operators.iter().map(async |operator| {
            while preferred(operator).await? {
                if began.elapsed() > CHANGE_MAX {
                    bail!("{path}: the change never came");
                }
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        });
        try_join_all(known).await?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// Lists all trunks again and again, and notes how many ms each took. Ends by an error only.
async fn list(operator: &Operator, took: &mut Vec<f64>) -> anyhow::Result<()> {
    loop {
        let began = Instant::now();
        operator.get("/admin/v1/trunks").await?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
}

/// The smallest that so large a share of them, which are in order, does not exceed.
fn at(sorted: &[f64], share: f64) -> f64 {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Cores that a process keeps busy.
async fn busy(pid: u32, span: Duration) -> anyhow::Result<f64> {
    let (began, before) = (Instant::now(), cpu_time(pid)?);
    sleep(span).await;
    Ok((cpu_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Processor time of a process, user and system.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces: read from behind its end.
    let fields = stat.rsplit_once(')').context("stat")?.1.split_whitespace().skip(11).take(2);
    let ticks = fields.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
}

/// Its resident memory, in MB (1,000,000 bytes).
fn rss_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1_024.0 / 1e6)
}

fn thousandths(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
