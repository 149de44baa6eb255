//! What a customer may phone: what is open is shown, and one country or prefix at a time is opened, closed or forgotten.

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
    fleet::RoutePrefix,
    guard::{Access, Country, NumberKind, Policy},
    ids::OrgId,
};
use controlplane_store::orgs::Org;
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
    operators::rules,
    problem::{Code, Problem},
};

/// What people have: what a country opens here. Other kinds are opened on the command line.
const KINDS: [NumberKind; 2] = [NumberKind::Fixed, NumberKind::Mobile];

/// A country, or a beginning of numbers.
enum Place {
    Country(Country),
    Prefix(RoutePrefix),
}

/// `?place=&access=&ask=`, and what the confirmation sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct PlaceForm {
    place: String,
    /// `open`, `closed`, or `unsaid`: as where nothing is said of it.
    access: String,
}

impl PlaceForm {
    fn place(&self) -> Result<Place, Problem> {
        let text = self.place.trim();
        let wrong = |error: String| Problem::new(Code::InvalidField, error).param("place");
        if text.starts_with('+') {
            text.parse().map(Place::Prefix).map_err(|error| wrong(format!("{error}.")))
        } else {
            text.to_uppercase().parse().map(Place::Country).map_err(|error| wrong(format!("{error}.")))
        }
    }

    /// The policy with this change, and the change in words.
    fn over(&self, now: &Policy) -> Result<(Policy, String), Problem> {
        let mut policy = now.clone();
        let wrong = || Problem::new(Code::InvalidField, "open, closed or unsaid.").param("access");
        let said = match (self.place()?, self.access.as_str()) {
            (Place::Country(country), "open") => {
                let said = format!("Landlines and mobiles of {country} may be phoned.");
                policy.countries.entry(country).or_default().extend(KINDS);
                said
            }
            // What no country has is closed.
            (Place::Country(country), "closed" | "unsaid") => {
                policy.countries.remove(&country);
                format!("Nobody in {country} may be phoned, but by prefixes that are open.")
            }
            (Place::Prefix(prefix), "open") => {
                let said = format!(
                    "Every number that begins with {} may be phoned, premium ones too.",
                    prefix.as_str()
                );
                policy.prefixes.insert(prefix, Access::Allow);
                said
            }
            (Place::Prefix(prefix), "closed") => {
                let said = format!("No number that begins with {} may be phoned.", prefix.as_str());
                policy.prefixes.insert(prefix, Access::Deny);
                said
            }
            (Place::Prefix(prefix), "unsaid") => {
                policy.prefixes.remove(&prefix);
                format!("Numbers that begin with {} are as their country is.", prefix.as_str())
            }
            (Place::Country(_) | Place::Prefix(_), _) => return Err(wrong()),
        };
        policy
            .validate()
            .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
        Ok((policy, said))
    }

    /// The same on the command line.
    fn command(&self, org: &OrgId) -> String {
        let verb = match self.access.as_str() {
            "open" => "open",
            "closed" => "close",
            _ => "forget",
        };
        format!("ringward policy set --org {org} --{verb} {}", self.place.trim())
    }
}

#[derive(Template)]
#[template(path = "customers/destinations.html")]
struct DestinationsPage {
    shell: Shell,
    org: Org,
    /// A country, and what is open there.
    countries: Vec<(String, String)>,
    /// A prefix, and whether it is open.
    prefixes: Vec<(String, bool)>,
    callers: usize,
}

/// `GET /customers/{id}/destinations`: what is open and the form, and with a place the question.
pub(in crate::http) async fn form(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    query: Result<Query<PlaceForm>, QueryRejection>,
) -> Result<Page, Problem> {
    let org = find(&state, id).await?;
    let Query(form) = query?;
    let policy = state.rules.policy(&org.id);
    if form.place.is_empty() {
        let shell = Shell::of(&visitor, Part::Customers, format!("Whom {} may phone", org.slug));
        let kinds = |kinds: &std::collections::BTreeSet<NumberKind>| {
            kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
        };
        let countries = policy.countries.iter().filter(|(_, kinds)| !kinds.is_empty());
        let prefixes = policy.prefixes.iter();
        return Page::of(&DestinationsPage {
            shell,
            countries: countries.map(|(country, open)| (country.to_string(), kinds(open))).collect(),
            prefixes: prefixes.map(|(p, access)| (p.as_str().to_owned(), *access == Access::Allow)).collect(),
            callers: policy.caller_ids.len(),
            org,
        });
    }
    let (then, said) = form.over(&policy)?;
    let question = format!("Change whom {} may phone?", org.slug);
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let back = format!("/customers/{}/destinations", org.id);
    let mut page = Confirm::new(shell, question, "Change it", back);
    (page.asks_reason, page.is_dangerous) = (false, form.access == "open");
    page.command = Some(form.command(&org.id));
    page.consequences = if then == *policy {
        vec![Consequence::new("It is so already: this changes nothing.")]
    } else if form.access == "open" {
        vec![
            Consequence::grave(said),
            Consequence::new("In force at once. Who holds a key of it can spend money there."),
        ]
    } else {
        vec![
            Consequence::new(said),
            Consequence::new("In force at once. Calls that were accepted go on to their ends."),
        ]
    };
    if then.is_closed() {
        page.consequences
            .push(Consequence::grave("Nothing at all is open then: each of its calls is refused."));
    }
    page.hidden = vec![("place", form.place.trim().to_owned()), ("access", form.access)];
    page.page()
}

/// `POST /customers/{id}/destinations`
pub(in crate::http) async fn set(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    form: Result<Form<PlaceForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    let org = find(&state, id).await?;
    let (value, _) = form.map_err(unreadable)?.0.over(&state.rules.policy(&org.id))?;
    let (named, body) = (Ok(Path(org.id.to_string())), JsonBody { value, bytes: Bytes::new() });
    let _ = rules::set_policy(visitor.operator, AxumState(state), named, body).await?;
    Ok(Redirect::to(&format!("/customers/{}/destinations", org.id)))
}
