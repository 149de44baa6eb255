//! What the console costs with 1,000 nodes and 4,000 trunks: its first screen, and twenty that are open while the fleet
//! changes. The nodes have agents that never came: the console is the same, and everything is wrong, which is its dearest.
//!
//! Optimised, on a calm machine, `cargo lab bench fleet` measures the same; here the bounds are those of an unoptimised build
//! beside other tests.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use controlplane_core::{fleet::Fleet as Declared, ids::AuditId};
use controlplane_store::{
    calls::Actor,
    fleet::{Applied, ApplyFleet},
};
use rand::{SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::fixture::{Browser, Fleet, NUMBER};

const NODES: usize = 1_000;
const TRUNKS_OF_NODE: usize = 4;
/// Consoles that are open.
const CONSOLES: usize = 20;
/// Until a fleet whose nodes do not come has come to rest.
const SETTLE: Duration = Duration::from_secs(10);
/// How long each half is measured.
const SPAN: Duration = Duration::from_secs(8);
/// Between two changes of the fleet.
const CHANGE_EVERY: Duration = Duration::from_millis(200);
/// Uncompressed, which is as it is sent.
const FIRST_SCREEN_MAX: usize = 100_000;

/// The fleet file of so many nodes, in twenty regions, with a trunk to each of four carriers.
fn fleet_toml() -> String {
    let mut toml = String::new();
    for carrier in 0..TRUNKS_OF_NODE {
        let _ = writeln!(toml, "[[carrier]]\nname = \"carrier-{carrier}\"");
    }
    let mut trunks = Vec::new();
    for node in 0..NODES {
        let _ = writeln!(toml, "[[node]]\nname = \"node-{node:04}\"\nregion = \"region-{:02}\"", node % 20);
        for carrier in 0..TRUNKS_OF_NODE {
            let name = format!("carrier-{carrier}-node-{node:04}");
            let _ = writeln!(
                toml,
                "[[trunk]]\nname = \"{name}\"\nnode = \"node-{node:04}\"\ncarrier = \"carrier-{carrier}\"\nendpoint = \"c{carrier}\""
            );
            trunks.push(format!("\"{name}\""));
        }
    }
    let _ = writeln!(toml, "[[route]]\nprefix = \"+\"\ntiers = [[{}]]", trunks.join(", "));
    toml
}

/// Declares the fleet, as `apply` does.
async fn declare(fleet: &mut Fleet) {
    fleet.stop().await;
    let store = controlplane_store::open(&fleet.database.url).await.unwrap();
    let (at, mut rng) = (OffsetDateTime::UNIX_EPOCH, StdRng::seed_from_u64(1));
    let document = serde_json::to_value(Declared::parse(&fleet_toml()).unwrap()).unwrap();
    let revision = store.declared_fleet().await.unwrap().unwrap().revision;
    let apply = ApplyFleet {
        expected_revision: revision,
        document,
        at,
        actor: Actor::default(),
        audit_id: AuditId::new(at, &mut rng),
        changes: json!({}),
    };
    assert_eq!(store.apply_fleet(apply).await.unwrap(), Applied::Revision(revision + 1));
    drop(store);
    fleet.start_again().await;
}

/// Changes the fleet for a while, as operators' holds do; how long the control plane has worked meanwhile.
async fn changing(fleet: &Fleet) -> Duration {
    let (busy, began) = (fleet.busy(), Instant::now());
    let mut n = 0;
    while began.elapsed() < SPAN {
        let action = if n % 2 == 0 { "disable" } else { "enable" };
        // Of the same nodes in both halves.
        let path = format!("/admin/v1/trunks/carrier-0-node-{:04}/{action}", n / 2);
        fleet.operator.post(&path, &json!({})).await.is(200);
        n += 1;
        sleep((began + n as u32 * CHANGE_EVERY).saturating_duration_since(Instant::now())).await;
    }
    fleet.busy() - busy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_fit_on_a_screen_and_twenty_open_consoles_cost_little() {
    let mut fleet = Fleet::small().await;
    declare(&mut fleet).await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    // Nodes that do not come are lost one after the other, which is work of its own.
    sleep(SETTLE).await;
    // Before anybody looks: the fleet is looked at for a while after a page.
    let without = changing(&fleet).await;
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..10 {
        let began = Instant::now();
        let page = browser.page("/").await;
        took.push(began.elapsed());
        assert!(
            page.contains("<small>of 1000</small>") && page.contains("<small>of 4000</small>"),
            "{page:.3000}"
        );
        bytes = page.len();
    }
    took.sort();
    println!("first screen: {:.1} KB, {:?} (median of 10)", bytes as f64 / 1e3, took[5]);
    assert!(bytes < FIRST_SCREEN_MAX, "{bytes}");
    let page = browser.page(&format!("/routes?to={}", NUMBER.replace('+', "%2B"))).await;
    println!("an explained route of 4,000 trunks: {:.1} KB", page.len() as f64 / 1e3);
    assert!(page.len() < FIRST_SCREEN_MAX && page.contains("And 3900 more."), "{}", page.len());

    let read = Arc::new(AtomicUsize::new(0));
    let mut consoles = Vec::new();
    for _ in 0..CONSOLES {
        let page = browser.page("/").await;
        let since = page.split("data-live=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let mut answer = browser.request(Method::GET, &format!("/live?since={since}")).send().await.unwrap();
        let read = Arc::clone(&read);
        consoles.push(tokio::spawn(async move {
            let mut was_stale = false;
            while let Ok(Some(part)) = answer.chunk().await {
                read.fetch_add(part.len(), Ordering::Relaxed);
                was_stale |= part.windows(12).any(|at| at == b"event: stale");
            }
            was_stale
        }));
    }
    let with = changing(&fleet).await;
    let cores = (with.as_secs_f64() - without.as_secs_f64()) / SPAN.as_secs_f64();
    println!(
        "{CONSOLES} consoles: {cores:.3} cores ({:.3} with them, {:.3} without), {:.1} KB/s each",
        with.as_secs_f64() / SPAN.as_secs_f64(),
        without.as_secs_f64() / SPAN.as_secs_f64(),
        read.load(Ordering::Relaxed) as f64 / 1e3 / SPAN.as_secs_f64() / CONSOLES as f64
    );
    assert!(read.load(Ordering::Relaxed) > CONSOLES * 1_000, "each was told of changes");
    assert!(cores < 0.5, "{cores}");
    drop(fleet);
    for console in consoles {
        assert!(!console.await.unwrap(), "nobody had to ask for the page anew");
    }
}
