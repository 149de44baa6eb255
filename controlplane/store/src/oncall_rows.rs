//! Rows of hooks and incidents, as both databases give them.

use controlplane_core::{
    access::Mode,
    ids::{CallId, HookId, IncidentId, KeyId, OrgId},
    oncall::{
        Alert, IncidentStatus,
        escalation::{Escalation, Phase, Step},
        hook::HookSettings,
    },
};
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type, types::Json};

use crate::{
    columns::{Micros, Stored, Word},
    oncall::{Hook, Incident},
    readable,
    rows::{moment, word},
};

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_hooks {
    ($rest:literal) => {
        concat!("SELECT id, org_id, settings, created_at FROM hook ", $rest)
    };
}
pub(crate) use select_hooks;

/// As above.
macro_rules! select_incidents {
    ($rest:literal) => {
        concat!(
            "SELECT incident.id, incident.org_id, incident.hook_id, incident.mode, incident.group_key, incident.plan, \
                 incident.status, incident.phase, incident.due_at, incident.call_id, incident.steps, incident.alerts, \
                 incident.alerts_seen, incident.opened_by, incident.opened_at, incident.acknowledged_at, \
                 incident.acknowledged_by, incident.unanswered_at, incident.resolved_at, incident.resolved_by, \
                 incident.version FROM incident ",
            $rest
        )
    };
}
pub(crate) use select_incidents;

#[derive(Debug, FromRow)]
pub(crate) struct HookRow {
    id: Word<HookId>,
    org_id: Word<OrgId>,
    settings: Stored<HookSettings>,
    created_at: Micros,
}

impl From<HookRow> for Hook {
    fn from(row: HookRow) -> Self {
        Self { id: row.id.0, org: row.org_id.0, settings: row.settings.0, created_at: row.created_at.0 }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct IncidentRow {
    id: Word<IncidentId>,
    org_id: Word<OrgId>,
    hook_id: Word<HookId>,
    mode: Word<Mode>,
    group_key: String,
    plan: Stored<HookSettings>,
    status: Word<IncidentStatus>,
    phase: String,
    due_at: Option<Micros>,
    call_id: Option<Word<CallId>>,
    steps: Json<Vec<Step>>,
    alerts: Json<Vec<Alert>>,
    alerts_seen: i64,
    opened_by: Option<Word<KeyId>>,
    opened_at: Micros,
    acknowledged_at: Option<Micros>,
    acknowledged_by: Option<String>,
    unanswered_at: Option<Micros>,
    resolved_at: Option<Micros>,
    resolved_by: Option<String>,
    version: i64,
}

/// What is waited for, as a word.
pub(crate) const fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting { .. } => "waiting",
        Phase::Placing { .. } => "placing",
        Phase::Calling { .. } => "calling",
        Phase::Idle => "idle",
    }
}

/// The call that is waited for.
pub(crate) const fn phase_call(phase: &Phase) -> Option<&CallId> {
    match phase {
        Phase::Calling { call, .. } => Some(call),
        Phase::Waiting { .. } | Phase::Placing { .. } | Phase::Idle => None,
    }
}

impl TryFrom<IncidentRow> for Incident {
    type Error = sqlx::Error;

    fn try_from(row: IncidentRow) -> Result<Self, sqlx::Error> {
        let due = moment(row.due_at);
        let phase = match (row.phase.as_str(), due, word(row.call_id)) {
            ("waiting", Some(until), _) => Phase::Waiting { until },
            ("placing", Some(again_at), _) => Phase::Placing { again_at },
            ("calling", until, Some(call)) => Phase::Calling { call, until },
            ("idle", ..) => Phase::Idle,
            (phase, ..) => {
                return Err(sqlx::Error::Decode(format!("{}: the phase {phase}", row.id.0).into()));
            }
        };
        Ok(Self {
            id: row.id.0,
            org: row.org_id.0,
            hook: row.hook_id.0,
            mode: row.mode.0,
            key: row.group_key,
            plan: row.plan.0,
            escalation: Escalation { status: row.status.0, phase, steps: row.steps.0 },
            alerts: row.alerts.0,
            alerts_seen: row.alerts_seen,
            opened_by: word(row.opened_by),
            opened_at: row.opened_at.0,
            acknowledged_at: moment(row.acknowledged_at),
            acknowledged_by: row.acknowledged_by,
            unanswered_at: moment(row.unanswered_at),
            resolved_at: moment(row.resolved_at),
            resolved_by: row.resolved_by,
            version: row.version,
        })
    }
}

/// The incidents that can be read; the others are logged by their ids.
pub(crate) fn incidents<R: Row>(rows: &[R]) -> Vec<Incident>
where
    IncidentRow: for<'r> FromRow<'r, R>,
    &'static str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
{
    let read = |row: IncidentRow| match Incident::try_from(row) {
        Ok(incident) => Some(incident),
        Err(error) => {
            tracing::error!(%error, "this incident is passed over: its row cannot be read");
            None
        }
    };
    readable::rows::<IncidentRow, R>(rows, "incident", "id").into_iter().filter_map(read).collect()
}
