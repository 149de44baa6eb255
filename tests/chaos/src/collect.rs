//! Gathers the history at the end of a run: from the API and from the durable log.
use std::time::Duration;

use controlplane_core::{
    call::{CallStatus, Rang, Reason},
    ending::EndingClass,
    ids::{CallId, OrgId},
    request::KeyAction,
};
use controlplane_store::calls::Transition;
use lab::ControlPlane;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::history::{Attempt, Entry, Moment, Route, Told};

/// The organisation of a fleet that needs only one.
const ORG: &str = "org_00000000000000000000000000";
/// Calls of a page.
const PAGE: usize = 100;

#[derive(Deserialize)]
struct Page {
    data: Vec<CallView>,
    has_more: bool,
}

#[derive(Deserialize)]
struct CallView {
    id: String,
    to: String,
    status: CallStatus,
    reason: Option<Reason>,
    sequence: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    deadline_at: OffsetDateTime,
    acknowledgement: Option<PressedView>,
    attempts: Vec<AttemptView>,
}

#[derive(Deserialize)]
struct PressedView {
    key: char,
    action: KeyAction,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

#[derive(Deserialize)]
struct AttemptView {
    id: String,
    node: String,
    carrier: String,
    reason: Option<EndingClass>,
    rang: Rang,
    round: u16,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
}

/// Every call that the API knows, without its log.
///
/// # Errors
/// No answer, or one that cannot be read.
pub fn told(plane: &ControlPlane) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    let mut path = format!("/v1/calls?limit={PAGE}");
    loop {
        let page: Page = serde_json::from_value(plane.customer("GET", &path, None)?)?;
        let last = page.data.last().map(|call| call.id.clone());
        for call in page.data {
            told.push(Told {
                id: call.id,
                number: call.to,
                status: call.status,
                reason: call.reason,
                sequence: call.sequence,
                created_at: moment(call.created_at)?,
                ended_at: call.ended_at.map(moment).transpose()?,
                deadline_at: moment(call.deadline_at)?,
                acknowledged: call
                    .acknowledgement
                    .filter(|pressed| pressed.action == KeyAction::Acknowledge)
                    .map(|pressed| Ok::<_, anyhow::Error>((pressed.key, moment(pressed.at)?)))
                    .transpose()?,
                attempts: call.attempts.into_iter().map(attempt).collect::<anyhow::Result<_>>()?,
                log: Vec::new(),
            });
        }
        match last {
            Some(last) if page.has_more => path = format!("/v1/calls?limit={PAGE}&starting_after={last}"),
            _ => return Ok(told),
        }
    }
}

fn attempt(view: AttemptView) -> anyhow::Result<Attempt> {
    Ok(Attempt {
        id: view.id,
        route: Route { node: view.node, carrier: view.carrier },
        ending: view.reason,
        rang: view.rang,
        round: view.round,
        started_at: moment(view.started_at)?,
        ended_at: view.ended_at.map(moment).transpose()?,
    })
}

fn moment(at: OffsetDateTime) -> anyhow::Result<Moment> {
    Ok(Duration::from_nanos(u64::try_from(at.unix_timestamp_nanos())?))
}

/// Adds each call's durable log. The control plane has ended: its database is read by itself.
///
/// # Errors
/// The database cannot be read.
pub fn add_logs(database_url: &str, told: &mut [Told]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = controlplane_store::open(database_url).await?;
        let org: OrgId = ORG.parse()?;
        for call in told {
            let id: CallId = call.id.parse()?;
            let rows = store.transitions(&org, &id).await?;
            let entry = |row: &Transition| Entry {
                sequence: row.sequence,
                status: row.status,
                of_attempt: row.attempt.is_some(),
            };
            call.log = rows.iter().map(entry).collect();
        }
        Ok(())
    })
}
