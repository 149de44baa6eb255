//! A customer's key is made, rotated and revoked. Its secret is in the answer to the form that made it, and nowhere else.

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
use controlplane_core::{
    access::{Mode, Scope},
    ids::{KeyId, OrgId},
};
use controlplane_store::{
    keys::{Key, Whose},
    orgs::Org,
};
use serde::Deserialize;
use time::{Date, OffsetDateTime, macros::format_description};

use super::find;
use crate::http::{
    State,
    answer::Created,
    api_keys::{KeyView, RotateBody},
    body::JsonBody,
    console::{
        confirm::{Confirm, Consequence},
        page::{Page, Part, Shell},
        session::{Visitor, unreadable},
    },
    operators::keys::{self, NewKeyBody},
    problem::{Code, Problem},
};

/// A new key: `?name=&mode=` and the scopes that are ticked, and what the confirmation sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct NewForm {
    name: String,
    mode: String,
    #[serde(rename = "calls:write")]
    calls_write: Option<String>,
    #[serde(rename = "calls:read")]
    calls_read: Option<String>,
    audio: Option<String>,
    webhooks: Option<String>,
    hooks: Option<String>,
    #[serde(rename = "hooks:send")]
    hooks_send: Option<String>,
    keys: Option<String>,
    #[serde(rename = "audit:read")]
    audit_read: Option<String>,
    /// The last day on which it opens, as 2026-12-31; empty: it does not end by itself.
    until: String,
    /// The key's id, so that the form makes one key however often it is sent.
    once: Option<KeyId>,
}

impl NewForm {
    fn has(&self, scope: Scope) -> bool {
        match scope {
            Scope::CallsWrite => &self.calls_write,
            Scope::CallsRead => &self.calls_read,
            Scope::Audio => &self.audio,
            Scope::Webhooks => &self.webhooks,
            Scope::Hooks => &self.hooks,
            Scope::HooksSend => &self.hooks_send,
            Scope::Keys => &self.keys,
            Scope::AuditRead => &self.audit_read,
        }
        .is_some()
    }

    fn scopes(&self) -> Result<Vec<Scope>, Problem> {
        let scopes: Vec<Scope> = Scope::ALL.iter().copied().filter(|scope| self.has(*scope)).collect();
        if scopes.is_empty() {
            return Err(
                Problem::new(Code::InvalidField, "A key for nothing: tick what it may do.").param("scopes")
            );
        }
        Ok(scopes)
    }

    /// When it ends: with its last day, UTC.
    fn expires_at(&self) -> Result<Option<OffsetDateTime>, Problem> {
        let until = self.until.trim();
        if until.is_empty() {
            return Ok(None);
        }
        let day = Date::parse(until, format_description!("[year]-[month]-[day]"));
        let next = day.ok().and_then(Date::next_day);
        let wrong = || Problem::new(Code::InvalidField, "A day, as 2026-12-31.").param("until");
        Ok(Some(next.ok_or_else(wrong)?.midnight().assume_utc()))
    }

    fn mode(&self) -> Result<Mode, Problem> {
        let wrong = |_| Problem::new(Code::InvalidField, "live or test.").param("mode");
        self.mode.parse().map_err(wrong)
    }
}

#[derive(Template)]
#[template(path = "customers/new_key.html")]
struct NewPage {
    shell: Shell,
    org: Org,
    scopes: &'static [Scope],
}

/// `GET /customers/{id}/keys`: the form, and with a name the question.
pub(in crate::http) async fn form(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    query: Result<Query<NewForm>, QueryRejection>,
) -> Result<Page, Problem> {
    let org = find(&state, id).await?;
    let Query(new) = query?;
    let name = new.name.trim();
    if name.is_empty() {
        let shell = Shell::of(&visitor, Part::Customers, format!("Make a key for {}", org.slug));
        return Page::of(&NewPage { shell, org, scopes: Scope::ALL });
    }
    let (scopes, mode, ends) = (new.scopes()?, new.mode()?, new.expires_at()?);
    let question = format!("Make a key for {}?", org.slug);
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, "Make the key", format!("/customers/{}", org.id));
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.command = Some(format!("ringward key create --org {} --name …", org.id));
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    page.consequences = vec![
        Consequence::new(match mode {
            Mode::Live => format!("“{name}” is a live key: what it asks for is done, and phones people."),
            Mode::Test => {
                format!("“{name}” is a test key: what it asks for is rehearsed, and phones nobody.")
            }
        }),
        Consequence::new(format!("It may: {}.", words.join(", "))),
        Consequence::new(match ends {
            Some(_) => format!("It opens for the last time on {} (UTC).", new.until.trim()),
            None => "It does not end by itself.".to_owned(),
        }),
        Consequence::new("Its secret is shown once, on the next page."),
    ];
    let once = state.chance.key_id(state.clock.now()).to_string();
    page.hidden = vec![
        ("name", name.to_owned()),
        ("mode", mode.as_str().to_owned()),
        ("until", new.until.trim().to_owned()),
        ("once", once),
    ];
    page.hidden.extend(words.into_iter().map(|word| (word, "on".to_owned())));
    page.page()
}

#[derive(Template)]
#[template(path = "customers/key_made.html")]
struct MadePage {
    shell: Shell,
    key: KeyView,
    secret: String,
    /// Where its customer's page is.
    back: String,
}

/// The one page that a secret is on.
fn made(visitor: &Visitor, Created(mut key): Created<KeyView>, org: &OrgId) -> Result<Page, Problem> {
    let secret = key.take_secret().unwrap_or_default();
    let shell = Shell::of(visitor, Part::Customers, "The key was made");
    Page::of(&MadePage { shell, key, secret, back: format!("/customers/{org}") })
}

/// `POST /customers/{id}/keys`
pub(in crate::http) async fn create(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    form: Result<Form<NewForm>, FormRejection>,
) -> Result<Page, Problem> {
    let org = find(&state, id).await?.id;
    let Form(new) = form.map_err(unreadable)?;
    is_new(&state, new.once.as_ref()).await?;
    let (name, ends) = (new.name.trim().to_owned(), new.expires_at()?);
    let value = NewKeyBody::of_customer(name, org.clone(), &new.scopes()?, new.mode()?, ends, new.once);
    let body = JsonBody { value, bytes: Bytes::new() };
    let key = keys::create(visitor.operator.clone(), AxumState(state), body).await?;
    made(&visitor, key, &org)
}

/// Whether a form has not made its key yet: to load its answer anew must not make another.
async fn is_new(state: &State, once: Option<&KeyId>) -> Result<(), Problem> {
    let Some(id) = once else { return Ok(()) };
    if state.store.key(&Whose::All, id).await?.is_none() {
        return Ok(());
    }
    let detail = "This form has made its key, and its secret is not shown again. If nobody has it, revoke the key on the \
                  customer's page and make another.";
    Err(Problem::new(Code::LimitReached, detail))
}

/// What the confirmation of a rotation sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct RotateForm {
    /// The new key's id, so that the form makes one key however often it is sent.
    once: Option<KeyId>,
}

/// A customer's key that there is, and whose.
async fn of_customer(state: &State, id: Result<Path<KeyId>, PathRejection>) -> Result<(Key, OrgId), Problem> {
    let Path(id) = id?;
    let key = state.store.key(&Whose::All, &id).await?.ok_or_else(Problem::not_found)?;
    let org = key.org.clone().ok_or_else(Problem::not_found)?;
    Ok((key, org))
}

/// `GET /keys/{id}/rotate`
pub(in crate::http) async fn confirm_rotate(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Page, Problem> {
    let (key, org) = of_customer(&state, id).await?;
    let question = format!("Rotate the key {}?", key.name);
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, "Rotate it", format!("/customers/{org}"));
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.command = Some(format!("ringward key rotate {}", key.id));
    page.consequences = vec![
        Consequence::new(
            "A new key takes its place, and may do the same. Its secret is shown once, on the next page.",
        ),
        Consequence::new(format!("The former one ({}…) opens for one day more.", key.prefix)),
    ];
    page.hidden = vec![("once", state.chance.key_id(state.clock.now()).to_string())];
    page.page()
}

/// `POST /keys/{id}/rotate`
pub(in crate::http) async fn rotate(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
    form: Result<Form<RotateForm>, FormRejection>,
) -> Result<Page, Problem> {
    let (key, org) = of_customer(&state, id).await?;
    let Form(RotateForm { once }) = form.map_err(unreadable)?;
    is_new(&state, once.as_ref()).await?;
    let body = JsonBody { value: RotateBody::under(once), bytes: Bytes::new() };
    let made_key = keys::rotate(visitor.operator.clone(), AxumState(state), Ok(Path(key.id)), body).await?;
    made(&visitor, made_key, &org)
}

/// `GET /keys/{id}/revoke`
pub(in crate::http) async fn confirm_revoke(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Page, Problem> {
    let (key, org) = of_customer(&state, id).await?;
    let question = format!("Revoke the key {}?", key.name);
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, "Revoke it", format!("/customers/{org}"));
    page.asks_reason = false;
    page.command = Some(format!("ringward key revoke {}", key.id));
    page.consequences = vec![
        Consequence::grave(format!(
            "{}… opens nothing from then on, for good, and its event streams end.",
            key.prefix
        )),
        Consequence::new("Calls that it has asked for go on to their ends."),
    ];
    if key.revoked_at.is_some() {
        page.consequences.insert(0, Consequence::new("It is revoked already: this changes nothing."));
    }
    page.page()
}

/// `POST /keys/{id}/revoke`
pub(in crate::http) async fn revoke(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<KeyId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let (key, org) = of_customer(&state, id).await?;
    let _ = keys::revoke(visitor.operator, AxumState(state), Ok(Path(key.id))).await?;
    Ok(Redirect::to(&format!("/customers/{org}")))
}
