//! What operators say to everybody, on the public status page.

use axum::{
    Json,
    extract::{Path, State as AxumState, rejection::PathRejection},
    response::NoContent,
};
use controlplane_core::{
    ids::NoticeId,
    status::notice::{self, Notice, Unsayable, Update},
};
use controlplane_store::status::{NOTICES_MAX, NoticeChange, NoticeChanged};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::http::{
    State,
    answer::Created,
    auth::Operator,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};

/// A notice as operators see it.
#[derive(Debug, Serialize)]
pub(in crate::http) struct NoticeView {
    object: &'static str,
    pub(in crate::http) id: NoticeId,
    title: String,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
    updates: Vec<Update>,
}

impl From<Notice> for NoticeView {
    fn from(Notice { id, title, updates, started_at, ended_at }: Notice) -> Self {
        Self { object: "notice", id, title, started_at, ended_at, updates }
    }
}

/// A new notice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewNotice {
    /// In one line.
    pub(in crate::http) title: String,
    /// What is known of it.
    pub(in crate::http) text: String,
    /// Since when, which may lie ahead; absent: now.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(in crate::http) started_at: Option<OffsetDateTime>,
}

/// What more is said of a notice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct MoreBody {
    /// What is said.
    pub(in crate::http) text: String,
    /// Whether it is over.
    #[serde(default)]
    pub(in crate::http) ends: bool,
}

fn unsayable(error: Unsayable) -> Problem {
    Problem::new(Code::InvalidField, format!("{error}.")).param(error.field)
}

async fn change(state: &State, operator: Operator, change: NoticeChange) -> Result<(), Problem> {
    let id = change.id().clone();
    let made = matches!(change, NoticeChange::Make(_));
    match state.status.change(change, operator.actor, state.chance.audit_id(state.clock.now())).await? {
        NoticeChanged::Yes => Ok(()),
        NoticeChanged::Missing => {
            Err(Problem::new(Code::NotFound, format!("There is no notice {id}: see `ringward notice list`.")))
        }
        NoticeChanged::Full if made => Err(Problem::new(
            Code::LimitReached,
            format!("{NOTICES_MAX} notices are open: end one with `ringward notice end`."),
        )),
        NoticeChanged::Full => Err(Problem::new(
            Code::LimitReached,
            format!(
                "{id} is over, or has as many texts as one may have: make another with `ringward notice add`."
            ),
        )),
    }
}

/// Says something new; shared with the console.
pub(in crate::http) async fn make(
    state: &State,
    operator: Operator,
    body: NewNotice,
) -> Result<Notice, Problem> {
    let now = state.clock.now();
    let text = notice::text(&body.text).map_err(unsayable)?;
    let notice = Notice {
        id: state.chance.notice_id(now),
        title: notice::title(&body.title).map_err(unsayable)?,
        updates: vec![Update { at: now, text }],
        started_at: body.started_at.unwrap_or(now),
        ended_at: None,
    };
    change(state, operator, NoticeChange::Make(notice.clone())).await?;
    Ok(notice)
}

/// Says more of a notice; shared with the console.
pub(in crate::http) async fn say_more(
    state: &State,
    operator: Operator,
    id: NoticeId,
    body: MoreBody,
) -> Result<(), Problem> {
    let text = notice::text(&body.text).map_err(unsayable)?;
    let update = Update { at: state.clock.now(), text };
    change(state, operator, NoticeChange::Tell { id, update, ends: body.ends }).await
}

/// Takes a notice away; shared with the console.
pub(in crate::http) async fn take_away(
    state: &State,
    operator: Operator,
    id: NoticeId,
) -> Result<(), Problem> {
    change(state, operator, NoticeChange::Remove(id)).await
}

/// One of them; shared with the console.
pub(in crate::http) async fn find(state: &State, id: &NoticeId) -> Result<Notice, Problem> {
    let past = state.status.notices().await?;
    past.notices.into_iter().find(|notice| notice.id == *id).ok_or_else(Problem::not_found)
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Json<ListView<NoticeView>>, Problem> {
    let past = state.status.notices().await?;
    Ok(Json(ListView::whole(past.notices.into_iter().map(NoticeView::from).collect())))
}

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value, .. }: JsonBody<NewNotice>,
) -> Result<Created<NoticeView>, Problem> {
    Ok(Created(make(&state, operator, value).await?.into()))
}

pub(in crate::http) async fn more(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
    JsonBody { value, .. }: JsonBody<MoreBody>,
) -> Result<Json<NoticeView>, Problem> {
    let Path(id) = id?;
    say_more(&state, operator, id.clone(), value).await?;
    Ok(Json(find(&state, &id).await?.into()))
}

pub(in crate::http) async fn remove(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
) -> Result<NoContent, Problem> {
    let Path(id) = id?;
    take_away(&state, operator, id).await?;
    Ok(NoContent)
}
