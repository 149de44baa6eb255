//! What is said to everybody on the public status page: said, told more of, ended, taken away.

use askama::Template;
use axum::{
    Form,
    extract::{
        Path, Query, State as AxumState,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
    response::Redirect,
};
use controlplane_core::{
    ids::NoticeId,
    status::notice::{Notice, TEXT_MAX, TITLE_MAX},
};
use serde::Deserialize;

use super::{
    confirm::{Confirm, Consequence},
    page::{Page, Part, Shell, may_act},
    session::{Visitor, unreadable},
};
use crate::http::{
    State,
    operators::notices::{self, MoreBody, NewNotice},
    problem::Problem,
};

#[derive(Template)]
#[template(path = "notices.html")]
struct NoticesPage {
    shell: Shell,
    notices: Vec<Notice>,
    can_act: bool,
}

/// `GET /notices`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
) -> Result<Page, Problem> {
    let notices = state.status.notices().await?.notices;
    let can_act = may_act(&visitor);
    Page::of(&NoticesPage { shell: Shell::of(&visitor, Part::Notices, "Notices"), notices, can_act })
}

#[derive(Template)]
#[template(path = "notice.html")]
struct NoticeForm {
    shell: Shell,
    /// What more is said of; none: something new.
    notice: Option<Notice>,
    title_max: usize,
    text_max: usize,
}

/// `?title=&text=&ends=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct Said {
    title: String,
    text: String,
    /// A box that is ticked, or not there.
    ends: Option<String>,
}

/// The question before everybody reads it.
fn question(visitor: &Visitor, title: &str, said: &Said) -> Confirm {
    let question = format!("Say this to everybody: {title}?");
    let shell = Shell::of(visitor, Part::Notices, question.clone());
    let mut page = Confirm::new(shell, question, "Say it", "/notices".to_owned());
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.consequences = vec![
        Consequence::new(format!("“{}”", said.text.trim())),
        Consequence::grave("Everybody can read it: no number, no customer, no carrier."),
    ];
    if said.ends.is_some() {
        page.consequences.push(Consequence::new("It is over then, and nothing more can be said of it."));
    }
    page
}

/// `GET /notices/new`: the form, and with a text the question.
pub(in crate::http) async fn form(
    visitor: Visitor,
    query: Result<Query<Said>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(said) = query?;
    if said.text.is_empty() {
        let shell = Shell::of(&visitor, Part::Notices, "Say something to everybody");
        return Page::of(&NoticeForm { shell, notice: None, title_max: TITLE_MAX, text_max: TEXT_MAX });
    }
    let mut page = question(&visitor, said.title.trim(), &said);
    page.command = Some("ringward notice add TITLE TEXT".to_owned());
    page.hidden = vec![("title", said.title), ("text", said.text)];
    page.page()
}

/// `POST /notices/new`
pub(in crate::http) async fn create(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    form: Result<Form<Said>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Form(Said { title, text, .. }) = form.map_err(unreadable)?;
    notices::make(&state, visitor.operator, NewNotice { title, text, started_at: None }).await?;
    Ok(Redirect::to("/notices"))
}

/// `GET /notices/{id}/more`: the form, and with a text the question.
pub(in crate::http) async fn form_more(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
    query: Result<Query<Said>, QueryRejection>,
) -> Result<Page, Problem> {
    let (Path(id), Query(said)) = (id?, query?);
    let notice = notices::find(&state, &id).await?;
    if said.text.is_empty() {
        let shell = Shell::of(&visitor, Part::Notices, format!("More of “{}”", notice.title));
        let notice = Some(notice);
        return Page::of(&NoticeForm { shell, notice, title_max: TITLE_MAX, text_max: TEXT_MAX });
    }
    let mut page = question(&visitor, &notice.title, &said);
    let verb = if said.ends.is_some() { "end" } else { "update" };
    page.command = Some(format!("ringward notice {verb} {id} TEXT"));
    page.hidden = vec![("text", said.text)];
    page.hidden.extend(said.ends.map(|on| ("ends", on)));
    page.page()
}

/// `POST /notices/{id}/more`
pub(in crate::http) async fn more(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
    form: Result<Form<Said>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Path(id) = id?;
    let Form(Said { text, ends, .. }) = form.map_err(unreadable)?;
    let body = MoreBody { text, ends: ends.is_some() };
    notices::say_more(&state, visitor.operator, id, body).await?;
    Ok(Redirect::to("/notices"))
}

/// `GET /notices/{id}/remove`
pub(in crate::http) async fn confirm_remove(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
) -> Result<Page, Problem> {
    let Path(id) = id?;
    let notice = notices::find(&state, &id).await?;
    let question = format!("Take “{}” away?", notice.title);
    let shell = Shell::of(&visitor, Part::Notices, question.clone());
    let mut page = Confirm::new(shell, question, "Take it away", "/notices".to_owned());
    page.asks_reason = false;
    page.command = Some(format!("ringward notice remove {id}"));
    page.consequences = vec![
        Consequence::new(
            "Nobody can read it any more, nor that it was there. The audit log keeps what was said.",
        ),
        Consequence::new(
            "What is over needs no removal: it is shown among the past ones, and goes after 90 days.",
        ),
    ];
    page.page()
}

/// `POST /notices/{id}/remove`
pub(in crate::http) async fn remove(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<NoticeId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let Path(id) = id?;
    notices::take_away(&state, visitor.operator, id).await?;
    Ok(Redirect::to("/notices"))
}
