//! The audit log: filtered, newest first, and proved; the export is the operators' API's.

use askama::Template;
use axum::extract::{Query, State as AxumState, rejection::QueryRejection};
use controlplane_core::{audit::Report, ids::AuditId};
use controlplane_store::audit::AuditRow;
use serde::Deserialize;

use super::{
    page::{Page, Part, Shell},
    session::Visitor,
};
use crate::http::{
    State,
    audit::{self, AuditQuery, proof},
    problem::Problem,
};

/// `?action=&actor=&target=&outcome=&after=`; what a form sends empty is not asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct AuditForm {
    action: String,
    actor: String,
    target: String,
    outcome: String,
    after: Option<AuditId>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    form: AuditForm,
    rows: Vec<AuditRow>,
    next: Option<AuditId>,
}

/// `GET /audit`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<AuditForm>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(form) = query?;
    let query = AuditQuery::of([&form.action, &form.actor, &form.target, &form.outcome], form.after.clone());
    let (rows, has_more) = audit::rows(&state, &query).await?;
    let next = rows.last().filter(|_| has_more).and_then(|row| row.record.id.parse().ok());
    Page::of(&AuditPage { shell: Shell::of(&visitor, Part::Audit, "Audit log"), form, rows, next })
}

#[derive(Template)]
#[template(path = "verified.html")]
struct VerifiedPage {
    shell: Shell,
    report: Report,
    findings: Vec<String>,
    is_cut: bool,
    most_s: u64,
}

/// `GET /audit/verify`
pub(in crate::http) async fn verify(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
) -> Result<Page, Problem> {
    let proof::Proof { report, is_cut } = proof::prove(&state).await?;
    let findings = report.findings.iter().map(ToString::to_string).collect();
    let shell = Shell::of(&visitor, Part::Audit, "The audit log, verified");
    Page::of(&VerifiedPage { shell, report, findings, is_cut, most_s: proof::MOST.as_secs() })
}
