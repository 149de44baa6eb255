//! Numbering events, and which of them go where: the same for both adapters.

use std::collections::{HashMap, HashSet};

use controlplane_core::{
    ids::OrgId,
    request::{Callback, EventFilter, EventKind},
};
use serde::Serialize;
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;

use crate::{
    columns::{Micros, Stored},
    webhooks::{Lane, Target},
};

/// The part of a call's log that nobody outside is told of.
pub(crate) const UNTOLD: &str = "call.queued";

/// An event that waits for its number.
#[derive(Debug, FromRow)]
pub(crate) struct Unsealed {
    pub(crate) id: String,
    org_id: String,
    call_id: Option<String>,
    sequence: i64,
    kind: String,
    created_at: Micros,
    endpoint_id: Option<String>,
}

/// As `select_events`, for those without a number.
macro_rules! select_unsealed {
    ($rest:literal) => {
        concat!("SELECT id, org_id, call_id, sequence, kind, created_at, endpoint_id FROM outbox ", $rest)
    };
}
pub(crate) use select_unsealed;

/// An endpoint that gets events.
#[derive(Debug, FromRow)]
pub(crate) struct Receiver {
    id: String,
    org_id: String,
    events: Json<Vec<EventFilter>>,
}

/// A call's own receiver.
#[derive(Debug, FromRow)]
pub(crate) struct CallbackOf {
    id: String,
    callback: Stored<Callback>,
}

/// A delivery to be made. Both databases read it from JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fan {
    event_id: String,
    target: String,
    org_id: String,
    endpoint_id: Option<String>,
    call_id: Option<String>,
    sequence: i64,
    kind: String,
    lane: String,
    position: i64,
}

/// The order of numbers: by time, but each call's events in the order of their sequence, also where a clock
/// went backwards in between.
pub(crate) fn in_order(mut rows: Vec<Unsealed>) -> Vec<Unsealed> {
    rows.sort_by_key(|row| row.sequence);
    let mut latest: HashMap<String, OffsetDateTime> = HashMap::new();
    for row in &mut rows {
        let Some(call) = &row.call_id else { continue };
        let latest = latest.entry(call.clone()).or_insert(row.created_at.0);
        *latest = (*latest).max(row.created_at.0);
        row.created_at = Micros(*latest);
    }
    // Stable: what is of one moment stays in the order of sequences.
    rows.sort_by_key(|row| row.created_at.0);
    rows
}

/// What of these events, numbered from `last + 1` on, goes where.
pub(crate) fn fan_out(
    rows: &[Unsealed],
    last: i64,
    receivers: &[Receiver],
    callbacks: &[CallbackOf],
) -> Vec<Fan> {
    let callbacks: HashMap<&str, &Callback> =
        callbacks.iter().map(|of| (of.id.as_str(), &of.callback.0)).collect();
    let mut out = Vec::new();
    for (position, row) in (last + 1..).zip(rows) {
        let Ok(kind) = row.kind.parse::<EventKind>() else {
            if row.kind != UNTOLD {
                tracing::error!(event = %row.id, kind = %row.kind, "an event of an unknown kind is not delivered");
            }
            continue;
        };
        let fan = |target: &Target, lane: String| Fan {
            event_id: row.id.clone(),
            target: target.to_string(),
            org_id: row.org_id.clone(),
            endpoint_id: match target {
                Target::Endpoint(id) => Some(id.to_string()),
                Target::Callback => None,
            },
            call_id: row.call_id.clone(),
            sequence: row.sequence,
            kind: row.kind.clone(),
            lane,
            position,
        };
        for receiver in receivers.iter().filter(|receiver| receiver.org_id == row.org_id) {
            // What happens to a receiver is told to all others, whatever they asked for: it may be the one that
            // its owner relies on.
            let wanted = kind == EventKind::EndpointDisabled
                || receiver.events.0.iter().any(|filter| filter.admits(kind));
            if wanted
                && row.endpoint_id.as_deref() != Some(receiver.id.as_str())
                && let Ok(id) = receiver.id.parse()
            {
                out.push(fan(&Target::Endpoint(id), receiver.id.clone()));
            }
        }
        if let Some(call) = &row.call_id
            && let Some(callback) = callbacks.get(call.as_str())
            && callback.wants(kind)
        {
            out.push(fan(&Target::Callback, format!("{} {}", row.org_id, origin(&callback.url))));
        }
    }
    out
}

/// Organisations that customers' events are of, each once.
pub(crate) fn orgs(rows: &[Unsealed]) -> Vec<OrgId> {
    let told = rows.iter().filter(|row| row.kind != UNTOLD);
    let orgs: HashSet<&str> = told.map(|row| row.org_id.as_str()).collect();
    orgs.into_iter().filter_map(|org| org.parse().ok()).collect()
}

/// The lanes that get something, each once.
pub(crate) fn lanes(fans: &[Fan]) -> Vec<Lane> {
    let lanes: HashSet<_> = fans.iter().map(|fan| (fan.org_id.as_str(), fan.lane.as_str())).collect();
    let lane = |(org, name): (&str, &str)| Some(Lane { org: org.parse().ok()?, name: name.to_owned() });
    lanes.into_iter().filter_map(lane).collect()
}

/// Organisations and calls of these events, each once.
pub(crate) fn owners(rows: &[Unsealed]) -> (Vec<&str>, Vec<&str>) {
    let (mut orgs, mut calls): (Vec<_>, Vec<_>) = (
        rows.iter().map(|row| row.org_id.as_str()).collect(),
        rows.iter().filter_map(|row| row.call_id.as_deref()).collect(),
    );
    for list in [&mut orgs, &mut calls] {
        list.sort_unstable();
        list.dedup();
    }
    (orgs, calls)
}

/// The address up to its path. Only to tell receivers apart: whoever writes it another way gets another lane.
fn origin(url: &str) -> &str {
    let from = url.find("://").map_or(0, |at| at + 3);
    let end = url[from..].find(['/', '?', '#']).map_or(url.len(), |at| from + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn row(call: &str, sequence: i64, s: i64) -> Unsealed {
        Unsealed {
            id: format!("{call}{sequence}"),
            org_id: "org".to_owned(),
            call_id: Some(call.to_owned()),
            sequence,
            kind: "call.ringing".to_owned(),
            created_at: Micros(NOON + Duration::seconds(s)),
            endpoint_id: None,
        }
    }

    #[test]
    fn a_clock_that_goes_backwards_does_not_turn_a_call_s_events_round() {
        let rows = vec![row("b", 3, 1), row("a", 1, 5), row("b", 2, 9), row("a", 2, 5), row("c", 1, 2)];
        let order: Vec<_> = in_order(rows).into_iter().map(|row| row.id).collect();
        assert_eq!(order, ["c1", "a1", "a2", "b2", "b3"]);
    }

    #[test]
    fn a_callback_s_lane_is_its_host() {
        for (url, lane) in [
            ("https://example.com:8443/hook?x=1", "https://example.com:8443"),
            ("https://example.com?x", "https://example.com"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(origin(url), lane);
        }
    }
}
