//! The fraud guard at the door, and what it would say: `dry_run`, and `policy explain` for operators.

use controlplane_core::{
    access::Mode,
    guard::{self, AlarmKind, Country, Denied, NumberKind, Rule, Verdict},
    ids::OrgId,
    number::E164,
    request::CallRequest,
};
use controlplane_store::{calls::Actor, guard::DeniedCall};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    State,
    operators::{RouteExplanation, explanation},
    problem::{Code, Problem},
};

/// What the guard says of a call of an organisation.
pub(super) fn verdict(state: &State, org: &OrgId, to: &E164, from: Option<&E164>) -> Verdict {
    let (fleet, _) = state.registry.fleet();
    guard::decide(&state.rules.policy(org), &fleet, to, from)
}

/// A call that the guard let pass: counted, until it is said that it is not placed.
pub(super) struct Admitted {
    country: Option<Country>,
    at: OffsetDateTime,
}

impl Admitted {
    /// Takes it from the counts.
    pub(super) fn is_not_placed(&self, state: &State, org: &OrgId) {
        if let Some(country) = &self.country {
            state.rules.take_back(org, country, self.at);
        }
    }
}

/// Whether the guard would refuse a call, or raise an alarm on it: reason to look first whether it is an old one.
pub(super) fn minds(state: &State, org: &OrgId, verdict: &Verdict) -> bool {
    let country = verdict.destination.country.as_ref();
    verdict.decision.is_err()
        || country.is_some_and(|country| state.rules.is_unusual(org, country, state.clock.now()))
}

/// Lets a call of which the guard says this pass, or refuses it: counted, logged and in the audit log.
pub(super) async fn admit(
    state: &State,
    org: &OrgId,
    actor: &Actor,
    request: &CallRequest,
    mut verdict: Verdict,
) -> Result<Admitted, Problem> {
    let at = state.clock.now();
    if verdict.decision.is_ok()
        && let Some(kind) = watch(state, org, &verdict, at)
    {
        verdict.decision = Err(Denied::Velocity(kind));
    }
    let Err(denied) = &verdict.decision else {
        return Ok(Admitted { country: verdict.destination.country, at });
    };
    let rule = denied.rule();
    state.metrics.call_denied(rule);
    tracing::info!(%org, to = ?request.to, %rule, "the fraud guard refused a call");
    let row = DeniedCall {
        org: org.clone(),
        to: request.to.clone(),
        rule,
        destination: place(&verdict),
        at,
        actor: actor.clone(),
        audit_id: state.chance.audit_id(at),
    };
    state.store.deny_call(row).await?;
    Err(Problem::new(Code::NotPermitted, verdict.sentence())
        .param(denied.param())
        .with("rule", rule.as_str().into()))
}

/// Looks whether a call raises an alarm, and tells it. `Some`: the alarm refuses the call.
fn watch(state: &State, org: &OrgId, verdict: &Verdict, at: OffsetDateTime) -> Option<AlarmKind> {
    let raised = state.rules.observe(org, verdict.destination.country.as_ref()?, at)?;
    let alarm = &raised.alarm;
    if alarm.is_first {
        state.metrics.alarm(alarm.kind);
        tracing::warn!(%org, kind = %alarm.kind, country = %alarm.country, count = alarm.count, max = alarm.max,
            blocks = raised.blocks, "an organisation's calls differ from what is usual");
    }
    raised.blocks.then_some(alarm.kind)
}

fn place(verdict: &Verdict) -> String {
    let country = verdict.destination.country.as_ref().map_or("unknown", |country| country.as_str());
    format!("{country} {}", verdict.destination.kind)
}

/// What would be done with a call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CallPreview")]
pub(super) struct PreviewView {
    #[schemars(extend("const" = "call_preview"))]
    object: &'static str,
    dry_run: bool,
    livemode: bool,
    to: E164,
    from: Option<E164>,
    /// Whether it may be placed; null for a test key, which needs nothing open.
    guard: Option<VerdictView>,
    /// The trunk that would be asked now; null for a test key, whose calls meet none.
    route: Option<RouteExplanation>,
}

/// What the fraud guard says of a number.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Verdict")]
pub(super) struct VerdictView {
    #[schemars(extend("enum" = ["allowed", "denied"]))]
    decision: &'static str,
    /// What refuses it.
    rule: Option<Rule>,
    /// The field that is refused.
    param: Option<&'static str>,
    country: Option<Country>,
    number_type: NumberKind,
    /// The same for people.
    sentence: String,
}

/// What would be done with a call: the guard's decision and the route. Nothing is written. A rehearsal asks neither.
pub(super) fn preview(state: &State, org: &OrgId, mode: Mode, request: &CallRequest) -> PreviewView {
    let (to, from) = (&request.to, request.from.as_ref());
    let (guard, route) = match mode {
        Mode::Live => (Some(shown(&verdict(state, org, to, from))), Some(explanation(state, to, from))),
        Mode::Test => (None, None),
    };
    PreviewView {
        object: "call_preview",
        dry_run: true,
        livemode: mode == Mode::Live,
        to: to.clone(),
        from: from.cloned(),
        guard,
        route,
    }
}

/// A verdict as shown.
pub(super) fn shown(verdict: &Verdict) -> VerdictView {
    let denied = verdict.decision.as_ref().err();
    VerdictView {
        decision: if denied.is_none() { "allowed" } else { "denied" },
        rule: denied.map(Denied::rule),
        param: denied.map(Denied::param),
        country: verdict.destination.country.clone(),
        number_type: verdict.destination.kind,
        sentence: verdict.sentence(),
    }
}
