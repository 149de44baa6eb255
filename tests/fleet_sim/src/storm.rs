//! Faults by one seed: what befalls which node when.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::time::{Instant, sleep_until};

use crate::{Fleet, Order};

/// A pause that a link survives, and one that it does not: the control plane's patience is 7 s.
const SHORT_SILENCE: Duration = Duration::from_secs(3);
const LONG_SILENCE: Duration = Duration::from_secs(9);
/// The longest that a slow node is late: an answer to a ping is waited for three seconds.
const SLOW_MS_MAX: u64 = 800;
/// One in so many nodes loses its connections at once with others.
const STORM_SHARE: usize = 4;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A trunk's contact does not answer.
    TrunkDown {
        /// The node's number.
        node: usize,
        /// The trunk's, on that node.
        trunk: usize,
    },
    /// It does again.
    TrunkUp {
        /// The node's number.
        node: usize,
        /// The trunk's.
        trunk: usize,
    },
    /// Something befalls a whole node.
    Node {
        /// The node's number.
        node: usize,
        /// What.
        order: Order,
    },
}

/// What happens within `span`, in order of time. Each trunk goes down once at most, so that its way back is the
/// shortest, and some stay down.
#[must_use]
pub fn draw(seed: u64, nodes: usize, trunks_per_node: usize, span: Duration) -> Vec<(Duration, Fault)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut faults = Vec::new();
    let moment = |rng: &mut StdRng, from: f64, to: f64| span.mul_f64(rng.random_range(from..to));
    for node in 0..nodes {
        for trunk in 0..trunks_per_node {
            if rng.random_bool(0.4) {
                let down = moment(&mut rng, 0.0, 0.6);
                faults.push((down, Fault::TrunkDown { node, trunk }));
                if rng.random_bool(0.6) {
                    let up = down + moment(&mut rng, 0.01, 0.4);
                    faults.push((up, Fault::TrunkUp { node, trunk }));
                }
            }
        }
        let order = match rng.random_range(0..5) {
            0 => Order::Cut,
            1 => Order::Silent(SHORT_SILENCE),
            2 => Order::Silent(LONG_SILENCE),
            3 => Order::Slow(Duration::from_millis(rng.random_range(50..SLOW_MS_MAX))),
            _ => continue,
        };
        faults.push((moment(&mut rng, 0.0, 0.4), Fault::Node { node, order }));
        if let Order::Slow(_) = order {
            faults.push((span.mul_f64(0.9), Fault::Node { node, order: Order::Slow(Duration::ZERO) }));
        }
    }
    // Storms: many at the same moment.
    for at in [0.5, 0.8] {
        let mut all: Vec<usize> = (0..nodes).collect();
        all.shuffle(&mut rng);
        let struck = all.into_iter().take(nodes.div_ceil(STORM_SHARE));
        faults.extend(struck.map(|node| (span.mul_f64(at), Fault::Node { node, order: Order::Cut })));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// Lets them happen.
///
/// # Errors
/// One is of a node that the fleet does not have.
pub async fn run(fleet: &Fleet, faults: &[(Duration, Fault)]) -> anyhow::Result<()> {
    let began = Instant::now();
    for (at, fault) in faults {
        sleep_until(began + *at).await;
        match *fault {
            Fault::TrunkDown { node, trunk } => fleet.agent(node)?.set_down(trunk, true),
            Fault::TrunkUp { node, trunk } => fleet.agent(node)?.set_down(trunk, false),
            Fault::Node { node, order } => fleet.agent(node)?.order(order).await,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_and_another_seed_something_else() {
        let span = Duration::from_secs(15);
        let drawn = draw(7, 50, 4, span);
        assert_eq!(drawn, draw(7, 50, 4, span));
        assert_ne!(drawn, draw(8, 50, 4, span));
        assert!(drawn.iter().all(|(at, _)| *at <= span));
        let has = |wanted: fn(&Fault) -> bool| drawn.iter().any(|(_, fault)| wanted(fault));
        assert!(has(|fault| matches!(fault, Fault::TrunkDown { .. })));
        assert!(has(|fault| matches!(fault, Fault::TrunkUp { .. })));
        for order in [Order::Cut, Order::Silent(SHORT_SILENCE), Order::Silent(LONG_SILENCE)] {
            assert!(
                drawn.iter().any(|(_, f)| matches!(f, Fault::Node { order: o, .. } if *o == order)),
                "{order:?}"
            );
        }
        assert!(has(|fault| matches!(fault, Fault::Node { order: Order::Slow(_), .. })));
    }
}
