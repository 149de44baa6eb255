//! Looks after health: lets time pass for the machines, tells people what changed, and keeps it over a
//! restart. What the machines are told comes from `nodes` (contacts, registrations, sessions) and `calls`
//! (endings), and here from [`canaries`].

mod canaries;
mod keeping;

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    chat::Change,
    health::{Changed, TrunkState, panic::PanicChange},
};
use serde_json::json;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

pub(crate) use self::{
    canaries::{Canaries, LastCanary},
    keeping::Keeping,
};
use crate::{
    audit::Audit,
    chat::Chat,
    metrics::Metrics,
    registry::{News, Registry},
    replicas::Membership,
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
    audit: Arc<Audit>,
    chat: Arc<Chat>,
    membership: Arc<Membership>,
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
                // Each replica sees it; one writes it down, and tells of it.
                let leads = membership.leads();
                tell(&registry, &metrics, leads.then_some(&audit), &news);
                if leads {
                    chat.note(|| worth_telling(&news));
                }
                keeping.note(&news);
            }
        }
    };
    tokio::spawn(work).abort_handle()
}

/// What operators' chat is told of.
fn worth_telling(news: &News) -> Option<Change> {
    match news {
        News::Changed(changed) => Change::of_health(changed),
        News::Panic(route, change) => Some(Change::of_panic(route.as_str(), change)),
        News::Noted(_) | News::TrunkGone(_) | News::NodeGone(_) => None,
    }
}

fn tell(registry: &Registry, metrics: &Metrics, audit: Option<&Arc<Audit>>, news: &News) {
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
                // Why is the registry's to tell: evidence may name destinations.
                let changes = json!({"from": from.to_string(), "to": to.to_string()});
                if let Some(audit) = audit {
                    audit.note("trunk.trip", "trunk", name.to_string(), changes);
                }
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
