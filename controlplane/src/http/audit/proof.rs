//! The log proved on the spot: an export of it that goes nowhere, with the heads that lie beside it.
//!
//! It shows what somebody did to the database alone. Who owns the machine owns the key too: a proof against him is made
//! elsewhere.

use std::time::Duration;

use controlplane_core::audit::{Finding, Hex, Line, Report, Verifier};
use tokio::{task::yield_now, time::Instant};

use super::{AuditQuery, export::Export};
use crate::{
    audit::signing::is_signed,
    http::{
        State,
        problem::{Code, Problem},
    },
};

/// A longer log is proved by the command line.
pub(in crate::http) const MOST: Duration = Duration::from_secs(10);

/// What a proof has shown.
pub(in crate::http) struct Proof {
    pub(in crate::http) report: Report,
    /// It was left before its end: there was too much of it.
    pub(in crate::http) is_cut: bool,
}

/// Proves the log, for [`MOST`] at most.
pub(in crate::http) async fn prove(state: &State) -> Result<Proof, Problem> {
    let began = Instant::now();
    let unreadable = |error: std::io::Error| {
        tracing::error!(%error, "the audit log's heads cannot be read");
        Problem::new(Code::Internal, "The heads cannot be read. The log tells more under this request_id.")
    };
    let heads = state.audit.heads().await.map_err(unreadable)?;
    let is_ours: fn(&Hex, &[u8], &Hex) -> bool = is_signed;
    let mut verifier = Verifier::new(vec![state.audit.public_key()], is_ours);
    for line in heads.lines() {
        if let Ok(Line::AuditHead(head)) = serde_json::from_str(line) {
            verifier.head(&head);
        }
    }
    let mut export = Export::begun(state.clone(), &AuditQuery::default())?;
    let mut is_cut = false;
    while let Some(part) = export.next().await? {
        part.lines().for_each(|line| verifier.line(line));
        if began.elapsed() >= MOST {
            is_cut = true;
            break;
        }
        // Each part is milliseconds of work, and others wait.
        yield_now().await;
    }
    let mut report = verifier.finish();
    if is_cut {
        // Of what was not looked at.
        report.findings.retain(|finding| !matches!(finding, Finding::Cut { .. } | Finding::Torn));
    }
    Ok(Proof { report, is_cut })
}
