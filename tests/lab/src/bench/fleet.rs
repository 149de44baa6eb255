//! `cargo lab bench fleet`: what a control plane takes of its machine where a thousand nodes and more are linked to it. The
//! nodes are simulated (`tests/fleet_sim`), their sockets, TLS and messages are not.
use super::{CONTROL_PLANE, FOLDER, Measured, build, release, told};
use crate::output;
use anyhow::{Context as _, ensure};
use lab::postgres::Cluster;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// Nodes of the fleet that is held against the targets, and of the one that shows the growth.
const NODES: u32 = 1_000;
const NODES_LATER: u32 = 5_000;
/// Control planes on one database, each linked to every node.
const REPLICAS: u8 = 3;
/// Resident memory of a control plane with [`NODES`], in MB (1,000,000 bytes).
const RSS_MB_MAX: f64 = 250.0;
/// Its processor time at rest.
const CPU_CORES_MAX: f64 = 0.25;
/// From a contact that stops to answer until calls pass its trunk over at every control plane, of 99 in 100.
const SELECTION_P99_MS_MAX: f64 = 100.0;

/// Processor time for twenty open consoles while trunks are disabled and enabled five times a second, and the first screen.
const CONSOLES_CPU_CORES_MAX: f64 = 0.05;
const FIRST_SCREEN_MS_MAX: f64 = 100.0;
const FIRST_SCREEN_KB_MAX: f64 = 100.0;

/// With so many nodes and control planes; without a number [`NODES`] on one, the same on [`REPLICAS`], and then [`NODES_LATER`] on one.
pub(super) fn measure(nodes: Option<u32>, replicas: Option<u8>) -> anyhow::Result<Measured> {
    build(&[CONTROL_PLANE, &["--release", "-p", "fleet-sim"]])?;
    let mut figures = simulate(nodes.unwrap_or(NODES), replicas.unwrap_or(1))?;
    let mut met = meets(&figures)?;
    if nodes.is_none() && replicas.is_none() {
        let several = simulate(NODES, REPLICAS)?;
        met &= meets(&several)?;
        figures["replicas"] = several;
        // Its growth has no target: what it cannot do is shown as such.
        figures["later"] = simulate(NODES_LATER, 1)
            .unwrap_or_else(|error| json!({"nodes": NODES_LATER, "failed": format!("{error:#}")}));
    }
    let targets = json!({
        "nodes": NODES, "rss_mb": RSS_MB_MAX, "cpu_cores": CPU_CORES_MAX, "selection_p99_ms": SELECTION_P99_MS_MAX,
        "consoles_cpu_cores": CONSOLES_CPU_CORES_MAX, "first_screen_most_ms": FIRST_SCREEN_MS_MAX,
        "first_screen_kb": FIRST_SCREEN_KB_MAX,
    });
    // More nodes than the targets are for are shown, not judged.
    let met = met || nodes.is_some_and(|nodes| nodes > NODES);
    let lines = vec![format!("{figures:#}")];
    Ok(Measured { bench: "fleet", figures, peer: json!({}), targets, met, lines })
}

fn meets(figures: &Value) -> anyhow::Result<bool> {
    let number = |key: &str| figures[key].as_f64().with_context(|| format!("no {key}"));
    let of_consoles =
        |key: &str| figures["consoles"][key].as_f64().with_context(|| format!("no {key} of consoles"));
    Ok(number("rss_mb")? <= RSS_MB_MAX
        && number("cpu_cores")? <= CPU_CORES_MAX
        && number("selection_p99_ms")? <= SELECTION_P99_MS_MAX
        && of_consoles("cpu_cores")? <= CONSOLES_CPU_CORES_MAX
        && of_consoles("first_screen_most_ms")? <= FIRST_SCREEN_MS_MAX
        && of_consoles("first_screen_kb")? <= FIRST_SCREEN_KB_MAX)
}

/// One control plane on SQLite, or several on a PostgreSQL of their own.
fn simulate(nodes: u32, replicas: u8) -> anyhow::Result<Value> {
    output::note(&format!("{nodes} nodes, control planes: {replicas}"));
    let cluster = (replicas > 1).then(Cluster::start_on_disk).transpose()?;
    let database = cluster.iter().flat_map(|cluster| ["--database-url".to_owned(), cluster.url()]);
    let said = Command::new(release("fleet-sim")?)
        .arg("--ringward")
        .arg(release("ringward")?)
        .args(["--folder".as_ref(), Path::new(FOLDER).join("fleet").as_os_str()])
        .args(["--nodes", &nodes.to_string(), "--replicas", &replicas.to_string()])
        .args(database)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success(), "it failed: {text}");
    told(&text)
}
