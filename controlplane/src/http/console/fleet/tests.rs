//! The page of a large fleet, and what is told of a change.

use controlplane_core::health::{NodeState, TrunkState};
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::registry::RouteSight;

/// A thousand nodes in ten regions, four thousand trunks of twenty carriers.
fn large() -> Sight {
    let node = |n: usize| {
        let trunk = |t: usize| TrunkSight {
            name: format!("carrier-{:02}-node-{n:04}", (n + t) % 20).parse().unwrap(),
            carrier: format!("carrier-{:02}", (n + t) % 20).parse().unwrap(),
            state: TrunkState::Healthy,
            usable: true,
            found: false,
        };
        NodeSight {
            name: format!("node-{n:04}").parse().unwrap(),
            region: format!("region-{}", n % 10).parse().unwrap(),
            state: NodeState::Alive,
            draining: false,
            up: true,
            deaf: false,
            trunks: (0..4).map(trunk).collect(),
        }
    };
    let prefix = "+".parse().unwrap();
    let routes = vec![RouteSight { prefix, trunks: 4_000, usable: 4_000, panic: false }];
    Sight { nodes: (0..1_000).map(node).collect(), routes, channels: 1_234, starts: 56 }
}

fn registry() -> Registry {
    Registry::new(StdRng::seed_from_u64(7))
}

async fn page(sight: &Sight) -> String {
    let page =
        render(&registry(), sight, &[], FleetQuery::default(), None, Shell::bare("Fleet")).ok().unwrap();
    let body = axum::response::IntoResponse::into_response(page).into_body();
    String::from_utf8(axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap()
}

fn trip(node: &mut NodeSight) {
    for trunk in &mut node.trunks {
        (trunk.state, trunk.usable) = (TrunkState::Tripped, false);
    }
}

/// What is promised of an optimised build: 100 KB, 100 ms.
#[tokio::test]
async fn the_page_of_a_thousand_nodes_is_small_and_made_at_once() {
    let mut sight = large();
    for n in (0..1_000).step_by(3) {
        trip(&mut sight.nodes[n]);
    }
    page(&sight).await;
    let began = Instant::now();
    let text = page(&sight).await;
    let took = began.elapsed();
    println!("1 000 nodes, 4 000 trunks, a third of them tripped: {} bytes in {took:?}", text.len());
    assert!(text.len() < 100_000, "{} bytes", text.len());
    // Unoptimised code is not what is promised.
    let most_ms = if cfg!(debug_assertions) { 1_000 } else { 100 };
    assert!(took.as_millis() < most_ms, "{took:?}");
    assert_eq!(text.matches("<li id=\"n-").count(), NODES_SHOWN);
    assert!(text.contains("id=\"n-node-0000\"") && !text.contains("id=\"n-node-0001\""), "the worst first");
}

#[test]
fn a_change_is_told_by_the_elements_that_changed_and_a_flood_by_a_word() {
    let (before, mut now) = (large(), large());
    trip(&mut now.nodes[500]);
    let began = Instant::now();
    let Changes::Parts(html) = changes(&registry(), &before, &now) else { panic!("not all of it") };
    println!("a node's trunks tripped: {} bytes in {:?}", html.len(), began.elapsed());
    let ids: Vec<_> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(ids, ["totals", "troubles", "troubles-h", "r-region-0", "n-node-0500"]);
    assert!(html.len() < 6_000, "{}", html.len());
    let mut busier = large();
    busier.channels = 2_000;
    let Changes::Parts(html) = changes(&registry(), &before, &busier) else { panic!("not all of it") };
    assert!(html.contains("id=\"totals\"") && !html.contains("troubles") && html.len() < 500, "{html}");
    now.nodes.iter_mut().for_each(trip);
    assert!(matches!(changes(&registry(), &before, &now), Changes::All));
    now.nodes.pop();
    assert!(matches!(changes(&registry(), &now, &before), Changes::All), "another fleet");
}

/// What has one cause is one line, and what stops calls comes first.
#[test]
fn troubles_are_told_in_the_order_of_their_weight() {
    let mut sight = large();
    sight.nodes[3].state = NodeState::Lost;
    trip(&mut sight.nodes[3]);
    sight.nodes[5].draining = true;
    sight.nodes[7].trunks[0].state = TrunkState::Degraded;
    for node in &mut sight.nodes {
        for trunk in node.trunks.iter_mut().filter(|trunk| trunk.carrier.as_str() == "carrier-09") {
            trunk.state = TrunkState::Tripped;
        }
    }
    sight.routes[0].usable = 0;
    let told = troubles(&sight, |_| Some("because".to_owned()), |_| None);
    let lines: Vec<_> = told.iter().map(|t| format!("{:?} {}", t.weight, t.what)).collect();
    assert_eq!(
        lines,
        [
            "Critical carrier carrier-09",
            "Critical route +",
            "Bad node node-0003",
            "Worse trunk carrier-07-node-0007",
            "Held node node-0005",
        ]
    );
    assert_eq!(told[0].sentence, "200 of its 200 trunks are tripped");
    assert_eq!(told[0].because.as_deref(), Some("because"));
    assert!(troubles(&large(), |_| None, |_| None).is_empty());
}
