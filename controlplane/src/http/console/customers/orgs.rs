//! An organisation is made, suspended and resumed.

use askama::Template;
use axum::{
    Form,
    body::Bytes,
    extract::{
        Path, Query, State as AxumState,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
    response::Redirect,
};
use controlplane_core::{ids::OrgId, names::OrgSlug};
use serde::Deserialize;

use super::find;
use crate::http::{
    State,
    body::JsonBody,
    console::{
        confirm::{Confirm, Consequence},
        page::{Page, Part, Shell},
        session::{Visitor, unreadable},
    },
    operators::orgs::{self, NewOrgBody},
    problem::{Code, Problem},
};

#[derive(Template)]
#[template(path = "customers/new.html")]
struct NewPage {
    shell: Shell,
}

/// A new organisation: `?slug=&name=`, and what the confirmation sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct NewForm {
    slug: String,
    name: String,
}

impl NewForm {
    fn body(&self) -> Result<NewOrgBody, Problem> {
        let slug = self.slug.trim().parse::<OrgSlug>();
        let slug =
            slug.map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param("slug"))?;
        Ok(NewOrgBody::of(slug, Some(self.name.trim().to_owned()).filter(|name| !name.is_empty())))
    }
}

/// `GET /customers/new`: the form, and with a slug the question.
pub(in crate::http) async fn form(
    visitor: Visitor,
    query: Result<Query<NewForm>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(new) = query?;
    if new.slug.is_empty() {
        return Page::of(&NewPage { shell: Shell::of(&visitor, Part::Customers, "Make a customer") });
    }
    new.body()?;
    let question = format!("Make the customer {}?", new.slug.trim());
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, "Make it", "/customers".to_owned());
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.command = Some(format!("ringward org create {}", new.slug.trim()));
    page.consequences = vec![
        Consequence::new("It may phone nothing until a destination is opened for it: ringward policy set."),
        Consequence::new("It has no key yet: make one on its page."),
        Consequence::new("Its short name stays for good. It can be suspended, and not removed."),
    ];
    page.hidden = vec![("slug", new.slug.trim().to_owned()), ("name", new.name)];
    page.page()
}

/// `POST /customers/new`
pub(in crate::http) async fn create(
    visitor: Visitor,
    state: AxumState<State>,
    form: Result<Form<NewForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    let value = form.map_err(unreadable)?.0.body()?;
    let body = JsonBody { value, bytes: Bytes::new() };
    let (_, made) = orgs::create(visitor.operator, state, body).await?;
    Ok(Redirect::to(&format!("/customers/{}", made.0["id"].as_str().unwrap_or_default())))
}

async fn confirm(
    state: &State,
    visitor: &Visitor,
    id: Result<Path<OrgId>, PathRejection>,
    suspends: bool,
) -> Result<Page, Problem> {
    let org = find(state, id).await?;
    let (verb, word) = if suspends { ("Suspend", "suspend") } else { ("Resume", "resume") };
    let question = format!("{verb} the customer {}?", org.slug);
    let shell = Shell::of(visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, verb, format!("/customers/{}", org.id));
    (page.asks_reason, page.is_dangerous) = (false, suspends);
    page.command = Some(format!("ringward org {word} {}", org.id));
    page.consequences = if suspends {
        vec![
            Consequence::grave("None of its keys opens anything, and its event streams end at once."),
            Consequence::new("Calls under way, and those that wait, go on to their ends."),
        ]
    } else {
        vec![Consequence::new("Its keys open again what they did.")]
    };
    if org.suspended_at.is_some() == suspends {
        page.consequences.insert(0, Consequence::new("It is so already: this changes nothing."));
    }
    page.page()
}

pub(in crate::http) async fn confirm_suspend(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Page, Problem> {
    confirm(&state, &visitor, id, true).await
}

pub(in crate::http) async fn confirm_resume(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Page, Problem> {
    confirm(&state, &visitor, id, false).await
}

pub(in crate::http) async fn suspend(
    visitor: Visitor,
    state: AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let Path(id) = id?;
    let _ = orgs::suspend(visitor.operator, state, Ok(Path(id.clone()))).await?;
    Ok(Redirect::to(&format!("/customers/{id}")))
}

pub(in crate::http) async fn resume(
    visitor: Visitor,
    state: AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let Path(id) = id?;
    let _ = orgs::resume(visitor.operator, state, Ok(Path(id.clone()))).await?;
    Ok(Redirect::to(&format!("/customers/{id}")))
}
