//! Looks after health: lets time pass for the machines, tells people what changed, and keeps it over a
//! restart. What the machines are told comes from `nodes` (contacts, registrations, sessions) and `calls`
//! (endings), and here from [`canaries`].

mod canaries;
mod keeping;
mod telling;

use std::{sync::Arc, time::Duration};

use controlplane_core::health::{Changed, TrunkState, panic::PanicChange};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

pub(crate) use self::{
    canaries::{Canaries, CanaryRefused, LastCanary},
    keeping::Keeping,
    telling::Telling,
};
use crate::{
    metrics::Metrics,
    registry::{News, Registry},
};

/// Between two looks without a deadline: routes are looked at for panic this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what is known of deadlines stands while news come in. Asking visits every machine of the fleet, and news come
/// by the thousand at once.
const DUE_STANDS: Duration = Duration::from_millis(50);

/// Lets time pass, and tells what changed, for as long as the program runs.
pub(crate) fn watch(
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    keeping: Arc<Keeping>,
    telling: Arc<Telling>,
) -> AbortHandle {
    let work = async move {
        let mut asked: Option<Instant> = None;
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if asked.is_none_or(|asked| now >= due.min(asked + DUE_STANDS)) {
                asked = Some(now);
                let look = now + LOOK_EVERY;
                due = registry.health_due().map_or(look, |due| look.min(Instant::from_std(due)));
            } else {
                // News since then may have brought a nearer one.
                due = asked.map_or(due, |asked| due.min(asked + DUE_STANDS));
            }
            tokio::select! {
                () = sleep_until(due) => registry.time_passed(Instant::now().into_std()),
                () = registry.has_news() => {}
            }
            for news in registry.news() {
                // Each replica sees it, and one tells people.
                log(&registry, &metrics, &news);
                telling.note(&news);
                keeping.note(&news);
            }
        }
    };
    tokio::spawn(work).abort_handle()
}

fn log(registry: &Registry, metrics: &Metrics, news: &News) {
    match news {
        News::Changed(Changed::Trunk(name, change)) => {
            let (from, to) = (change.from, change.to);
            if from == to {
                tracing::info!(trunk = %name, state = %to, why = %change.evidence, "trunk stays as it is");
                return;
            }
            if let Some(trunk) = registry.fleet().0.trunk(name) {
                metrics.fleet.trunk_changed(trunk, to);
            }
            if to == TrunkState::Tripped {
                tracing::warn!(trunk = %name, %from, %to, why = %change.evidence, "trunk tripped");
            } else {
                tracing::info!(trunk = %name, %from, %to, why = %change.evidence, "trunk changed");
            }
        }
        News::Changed(Changed::Node(name, change)) => {
            metrics.fleet.node_changed(name, change.to);
            tracing::warn!(node = %name, from = %change.from, to = %change.to, why = %change.evidence, "node changed");
        }
        News::Panic(route, PanicChange::Began(count)) => tracing::error!(
            %route,
            usable = count.usable,
            broken = count.withheld,
            "panic: too few trunks of the route are held to work; calls are tried over all of them"
        ),
        News::Panic(route, PanicChange::Ended { lasted }) => {
            tracing::warn!(%route, lasted_s = lasted.as_secs(), "panic is over");
        }
        News::Noted(_) | News::TrunkGone(_) | News::NodeGone(_) => {}
    }
}
