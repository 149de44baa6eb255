//! `/v1/hooks`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State as AxumState, rejection::PathRejection},
    response::NoContent,
};
use controlplane_core::{
    ids::{HookId, OrgId},
    number::E164,
    object,
    oncall::{
        hook::{GroupBy, HookKind, HookSettings, NAME_MAX, NUMBERS_MAX, ONLY_MAX, Reading},
        speech::Speech,
        template::{Pointer, Template},
    },
    request::Language,
    schema::Moment,
};
use controlplane_store::{
    calls::Actor,
    oncall::{HOOKS_MAX, Hook},
    webhooks::Change,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;

use crate::http::{
    State,
    answer::Created,
    auth::Customer,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};

/// A hook.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Hook")]
pub(in crate::http) struct HookView {
    id: HookId,
    #[schemars(extend("const" = "hook"))]
    object: &'static str,
    name: String,
    kind: HookKind,
    /// Where to post, behind the door's own address.
    path: String,
    to: Vec<E164>,
    from: Option<E164>,
    rounds: u8,
    round_pause_s: u16,
    ring_timeout_s: u16,
    acknowledgement_timeout_s: u16,
    step_timeout_s: u16,
    speech: SpeechView,
    #[schemars(with = "BTreeMap<String, Vec<String>>")]
    only: BTreeMap<String, Vec<String>>,
    group_by: GroupBy,
    /// Of the kind `json`.
    json: Option<ReadingView>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
}

/// What is said.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookSpeech")]
struct SpeechView {
    opening: String,
    alert: Option<Template>,
    more: String,
    closing: String,
    language: Language,
    repeat: u8,
}

/// How JSON is understood.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HookReading")]
struct ReadingView {
    key: Option<Pointer>,
    status: Option<Pointer>,
    resolved: Vec<String>,
}

impl From<Hook> for HookView {
    fn from(hook: Hook) -> Self {
        let Hook { id, settings, created_at, .. } = hook;
        let Speech { opening, alert, more, closing, language, repeat } = settings.speech;
        let json =
            settings.json.map(|Reading { key, status, resolved }| ReadingView { key, status, resolved });
        Self {
            path: format!("/v1/hooks/{}/{id}", settings.kind),
            id,
            object: "hook",
            name: settings.name,
            kind: settings.kind,
            to: settings.to,
            from: settings.from,
            rounds: settings.rounds,
            round_pause_s: settings.round_pause_s,
            ring_timeout_s: settings.ring_timeout_s,
            acknowledgement_timeout_s: settings.acknowledgement_timeout_s,
            step_timeout_s: settings.step_timeout_s,
            speech: SpeechView {
                opening: opening.to_string(),
                alert,
                more: more.to_string(),
                closing: closing.to_string(),
                language,
                repeat,
            },
            only: settings.only,
            group_by: settings.group_by,
            json,
            created_at,
        }
    }
}

fn check(settings: &HookSettings) -> Result<(), Problem> {
    settings
        .validate()
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))
}

fn by(state: &State, org: OrgId, actor: Actor) -> Change {
    let at = state.clock.now();
    Change { org, at, actor, audit_id: state.chance.audit_id(at) }
}

/// Makes a hook of an organisation; shared with the operators' door.
pub(in crate::http) async fn make(
    state: &State,
    org: OrgId,
    actor: Actor,
    settings: HookSettings,
) -> Result<Created<HookView>, Problem> {
    check(&settings)?;
    let change = by(state, org.clone(), actor);
    let hook = Hook { id: state.chance.hook_id(change.at), org, settings, created_at: change.at };
    if !state.store.create_hook(hook.clone(), change).await? {
        return Err(Problem::new(
            Code::LimitReached,
            format!("There are {HOOKS_MAX} hooks: remove one of them."),
        ));
    }
    Ok(Created(hook.into()))
}

pub(in crate::http) async fn create(
    customer: Customer,
    AxumState(state): AxumState<State>,
    JsonBody { value: settings, .. }: JsonBody<HookSettings>,
) -> Result<Created<HookView>, Problem> {
    make(&state, customer.org, customer.actor, settings).await
}

/// An organisation's hooks; shared with the operators' door.
pub(in crate::http) async fn all(state: &State, org: &OrgId) -> Result<Json<ListView<HookView>>, Problem> {
    let hooks = state.store.hooks(org).await?;
    Ok(Json(ListView::whole(hooks.into_iter().map(HookView::from).collect())))
}

pub(in crate::http) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<ListView<HookView>>, Problem> {
    all(&state, &customer.org).await
}

/// One hook of an organisation; shared with the operators' door.
pub(in crate::http) async fn one(state: &State, org: &OrgId, id: &HookId) -> Result<Json<HookView>, Problem> {
    let hook = state.store.hook(org, id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(hook.into()))
}

pub(in crate::http) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
) -> Result<Json<HookView>, Problem> {
    let Path(id) = id?;
    one(&state, &customer.org, &id).await
}

/// What of a hook is to be another way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HookChange")]
pub(in crate::http) struct ChangeBody {
    #[schemars(length(min = 1, max = NAME_MAX))]
    name: Option<String>,
    #[schemars(length(min = 1, max = NUMBERS_MAX))]
    to: Option<Vec<E164>>,
    /// Null: the trunk's own.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<E164>")]
    from: Option<Option<E164>>,
    #[schemars(range(min = 1, max = 5))]
    rounds: Option<u8>,
    #[schemars(range(min = 1, max = 3_600))]
    round_pause_s: Option<u16>,
    #[schemars(range(min = 1, max = 120))]
    ring_timeout_s: Option<u16>,
    #[schemars(range(min = 1, max = 60))]
    acknowledgement_timeout_s: Option<u16>,
    #[schemars(range(min = 10, max = 3_600))]
    step_timeout_s: Option<u16>,
    #[serde(default, deserialize_with = "object::optional")]
    speech: Option<Speech>,
    #[schemars(extend("maxProperties" = ONLY_MAX))]
    only: Option<BTreeMap<String, Vec<String>>>,
    group_by: Option<GroupBy>,
    #[serde(default, deserialize_with = "object::optional")]
    json: Option<Reading>,
}

/// What is there, null too.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl ChangeBody {
    fn apply(self, settings: &mut HookSettings) {
        macro_rules! take {
            ($($field:ident)+) => {
                $(if let Some(value) = self.$field { settings.$field = value; })+
            };
        }
        take!(name to from rounds round_pause_s ring_timeout_s acknowledgement_timeout_s step_timeout_s);
        take!(speech only group_by);
        if self.json.is_some() {
            settings.json = self.json;
        }
    }
}

pub(in crate::http) async fn change(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<ChangeBody>,
) -> Result<Json<HookView>, Problem> {
    let Path(id) = id?;
    let hook = state.store.hook(&customer.org, &id).await?.ok_or_else(Problem::not_found)?;
    let mut settings = hook.settings;
    body.apply(&mut settings);
    check(&settings)?;
    let change = by(&state, customer.org, customer.actor);
    let hook = state.store.change_hook(id, settings, change).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(hook.into()))
}

/// Removes a hook of an organisation; shared with the operators' door.
pub(in crate::http) async fn take_away(
    state: &State,
    org: OrgId,
    actor: Actor,
    id: HookId,
) -> Result<NoContent, Problem> {
    let change = by(state, org, actor);
    // In a task of its own: a client that hangs up now must not leave a call that rings for nobody.
    let removing = tokio::spawn(Arc::clone(&state.oncall).remove(id, change));
    let removed = removing.await.map_err(|error| {
        tracing::error!(%error, "removing a hook broke");
        Problem::new(Code::Internal, "The log tells more under this request_id. Ask again.")
    })??;
    if removed { Ok(NoContent) } else { Err(Problem::not_found()) }
}

pub(in crate::http) async fn remove(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
) -> Result<NoContent, Problem> {
    let Path(id) = id?;
    take_away(&state, customer.org, customer.actor, id).await
}
