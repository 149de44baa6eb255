//! A fleet under seeded faults, in process with the control plane, and what is left of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use controlplane::{
    app::App,
    clock::{Chance, Clock},
    settings::{AgentsDoor, Door, Settings},
};
use fleet_sim::{Fleet, plan::Plan, plane::Operator, storm};
use tempfile::TempDir;

const NODES: usize = 50;
/// How long faults go on.
const STORM: Duration = Duration::from_secs(10);
/// Until all is as it should be: a link's back-off, and a trunk's first one of 6 s.
const CALM: Duration = Duration::from_secs(20);
/// What control plane, agents and PBXes together may have grown by meanwhile, in bytes.
const GROWTH_MAX: u64 = 64 * 1024 * 1024;

/// A control plane without its process.
struct Plane {
    app: App,
    operator: Operator,
    _folder: TempDir,
}

impl Plane {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            data_dir: folder.path().to_owned(),
            api: Door::at(listen),
            operator: Door::at(listen),
            agents: AgentsDoor { listen, urls: Vec::new() },
            ..Settings::default()
        };
        let store = controlplane_store::open(&settings.database_url()).await.unwrap();
        let (clock, chance) = (Clock::system(), Chance::from_os().unwrap());
        let app = App::start(&settings, Arc::clone(&store), clock, chance).await.unwrap();
        let operator = Operator::bootstrap(app.operator, app.agents, folder.path()).await.unwrap();
        Self { app, operator, _folder: folder }
    }
}

fn resident() -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/self/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// Every link is there again and none went without a reason, every trunk is known as it is, every fact is durable.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_storm_everything_is_known_as_it_is() {
    let seed = std::env::var("FLEET_SEED").map_or(20_261_129, |seed| seed.parse().unwrap());
    println!("seed {seed}: FLEET_SEED={seed} runs the same faults again");
    let plane = Plane::start().await;
    let fleet = Fleet::start(&plane.operator, Plan::of(NODES), seed).await.unwrap();
    fleet.linked(CALM).await.unwrap();
    fleet.agrees(&plane.operator, CALM).await.unwrap();
    let (before, links_before) = (resident(), links(&fleet));

    let faults = storm::draw(seed, NODES, fleet.plan().trunks_per_node, STORM);
    storm::run(&fleet, &faults).await.unwrap();
    fleet.linked(CALM).await.unwrap();
    fleet.agrees(&plane.operator, CALM).await.unwrap();

    let struck =
        |fault: &storm::Fault| matches!(fault, storm::Fault::Node { order: fleet_sim::Order::Cut, .. });
    let cuts = faults.iter().filter(|(_, fault)| struck(fault)).count();
    assert!(links(&fleet) > links_before + cuts / 2, "{cuts} cuts, {} links", links(&fleet) - links_before);
    let down = (0..NODES).flat_map(|node| (0..4).map(move |trunk| (node, trunk)));
    let down = down.filter(|(node, trunk)| fleet.agent(*node).unwrap().is_down(*trunk)).count();
    assert!(down > 10, "{down} trunks stay down");
    for agent in fleet.agents() {
        assert_eq!(agent.lost_without_reason(), Vec::<String>::new(), "{}", agent.name());
        assert_eq!((agent.facts_waiting(), agent.facts_kept()), (0, 1), "{}", agent.name());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grown by {grown} bytes");
    drop(fleet);
    plane.app.stop().await;
}

fn links(fleet: &Fleet) -> usize {
    fleet.agents().iter().map(|agent| agent.links() as usize).sum()
}

/// Its file is far larger than any other body.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_thousands_can_be_applied() {
    let plane = Plane::start().await;
    let plan = Plan::of(1_000);
    plane.operator.apply(plan.fleet_toml()).await.unwrap();
    assert_eq!(plane.operator.trunks().await.unwrap().len(), plan.trunks());
    plane.app.stop().await;
}
