//! The control planes that share the database, on the Fleet page: those that live, and those that died within a day.

use askama::Template;
use controlplane_store::replicas::Replica;
use time::format_description::well_known::Rfc3339;

use crate::http::{State, operators::replicas::sign_age_ms};

/// A replica's line.
struct Line {
    name: String,
    id: String,
    alive: bool,
    leads: bool,
    is_this: bool,
    started: String,
    sign: String,
    calls: u64,
}

/// See the module.
#[derive(Template)]
#[template(path = "fleet/replicas.html")]
pub(super) struct ReplicasPart {
    replicas: Vec<Line>,
    is_led: bool,
}

impl ReplicasPart {
    /// `None`: this control plane has its database to itself, or the database does not answer, which other parts of the page tell.
    pub(super) async fn of(state: &State) -> Option<Self> {
        let me = state.calls.membership.me()?;
        let all = state.calls.membership.all().await.ok()?;
        let is_led = all.iter().any(|replica| replica.leads);
        let line = |replica: Replica| Line {
            sign: spoken(sign_age_ms(&replica)),
            is_this: replica.id == *me,
            id: replica.id.to_string(),
            started: replica
                .started_at
                .replace_nanosecond(0)
                .unwrap_or(replica.started_at)
                .format(&Rfc3339)
                .unwrap_or_default(),
            name: replica.name,
            alive: replica.is_living,
            leads: replica.leads,
            calls: replica.calls,
        };
        Some(Self { replicas: all.into_iter().map(line).collect(), is_led })
    }
}

fn spoken(ms: i64) -> String {
    match ms {
        ..=9_999 => format!("{ms} ms ago"),
        10_000..=119_999 => format!("{} s ago", ms / 1_000),
        _ => format!("{} min ago", ms / 60_000),
    }
}
