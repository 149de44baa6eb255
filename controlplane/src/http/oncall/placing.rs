//! An incident's calls: accepted as those of customers are.

use controlplane_core::{ids::CallId, oncall, request::Content};
use controlplane_store::{
    StoreError,
    calls::{Actor, Created, Idempotency},
    oncall::Incident,
};
use sha2::{Digest, Sha256};

use crate::{
    http::{
        State,
        accepting::{self, Asker, Placed},
        problem::{Code, Problem},
    },
    oncall::{Placer, Placing},
};

/// What a step's call is known by. No header has a line break: no customer's key is one of these.
fn key(incident: &Incident, step: u16) -> Idempotency {
    let key = format!("oncall\n{}/{step}", incident.id);
    // What is said may be another thing when it is asked for again: an alert more.
    let body_sha256 = Sha256::digest(&key).into();
    Idempotency { key, body_sha256 }
}

/// Whether asking again may help, by what it was refused with.
fn is_for_now(problem: &Problem) -> bool {
    const FOR_NOW: [Code; 5] =
        [Code::Unavailable, Code::TooManyOpenCalls, Code::TooManyTexts, Code::SpeechFull, Code::Internal];
    FOR_NOW.iter().any(|code| problem.is(*code))
}

fn refused(problem: &Problem) -> Placing {
    Placing::Refused { problem: problem.word().to_owned(), for_now: is_for_now(problem) }
}

impl Placer for State {
    async fn place(&self, incident: &Incident, step: u16) -> Result<Placing, StoreError> {
        let org = self.store.org(&incident.org).await?;
        if org.is_none_or(|org| org.suspended_at.is_some()) {
            return Ok(refused(&Problem::new(Code::OrgSuspended, "The organisation is suspended.")));
        }
        let text = oncall::sentence(&incident.plan.speech, &incident.alerts);
        let (Some(to), Ok(text)) = (incident.plan.number(step), text) else {
            return Ok(refused(&Problem::new(
                Code::InvalidField,
                "There is nobody to phone, or nothing to say.",
            )));
        };
        let until = incident.plan.step_ends(self.clock.now());
        let request = incident.plan.call(to.clone(), text, until, &incident.id, step);
        let actor = Actor { key: incident.opened_by.clone(), ..Actor::default() };
        let asker =
            Asker { org: incident.org.clone(), actor, mode: incident.mode, trace: self.traces.begin_alone() };
        let known = || Ok(Some(key(incident, step)));
        Ok(match accepting::place_known(self, asker, known, request).await {
            Ok(Placed::New(call) | Placed::Replayed(call) | Placed::Deduplicated(call)) => {
                let said = match &call.request.message.content {
                    Content::Text { text, .. } => Some(text.to_string()),
                    Content::Audio(_) => None,
                };
                Placing::Accepted { call: call.id, said }
            }
            Ok(Placed::Preview(_)) => {
                refused(&Problem::new(Code::Internal, "It was only asked for a preview."))
            }
            Err(problem) => {
                tracing::info!(incident = %incident.id, step, detail = problem.detail(), "a call was not accepted");
                refused(&problem)
            }
        })
    }

    async fn find(&self, incident: &Incident, step: u16) -> Result<Option<CallId>, StoreError> {
        let (known, now) = (key(incident, step), self.clock.now());
        Ok(match self.store.asked_before(&incident.org, incident.mode, &known, now).await? {
            Some(Created::Replayed(call) | Created::New(call) | Created::Deduplicated(call)) => Some(call.id),
            Some(Created::KeyReused | Created::Full(_)) | None => None,
        })
    }
}
