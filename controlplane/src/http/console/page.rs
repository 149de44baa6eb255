//! What every page has: its frame, its headers, and the page that a problem becomes.

use std::fmt;

use askama::Template;
use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
    response::IntoResponse,
};
use controlplane_core::access::Role;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use super::{
    assets::{ICON, SCRIPT, STYLE},
    session::Visitor,
};
use crate::http::problem::{Code, Problem, ProblemBody};

/// Nothing from anywhere else, and nothing that is written into a page: no script and no style but the files.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);

/// A part of the console, as the bar at its head names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Fleet,
    Calls,
    Incidents,
    Notices,
    Routes,
    Bans,
    Firewall,
    Customers,
    Webhooks,
    Audit,
    /// None of them.
    Elsewhere,
}

impl Part {
    /// Those that the bar shows: address, name, and the key that goes there after `g`.
    const SHOWN: [(Self, &'static str, &'static str, &'static str); 10] = [
        (Self::Fleet, "/", "Fleet", "f"),
        (Self::Calls, "/calls", "Calls", "c"),
        (Self::Incidents, "/incidents", "Incidents", "i"),
        (Self::Notices, "/notices", "Notices", "n"),
        (Self::Routes, "/routes", "Routes", "r"),
        (Self::Bans, "/bans", "Bans", "b"),
        (Self::Firewall, "/firewall", "Firewall", "l"),
        (Self::Customers, "/customers", "Customers", "u"),
        (Self::Webhooks, "/webhooks", "Webhooks", "w"),
        (Self::Audit, "/audit", "Audit", "a"),
    ];
}

/// The frame around a page.
pub(super) struct Shell {
    /// What it is called in the browser's tab.
    pub(super) title: String,
    part: Part,
    pub(super) visitor: Option<Visitor>,
    /// Up to which change of the fleet it tells; only of pages that are to be kept up.
    pub(super) live: Option<String>,
    /// A part of the page whose change is a reason to ask for the page anew.
    pub(super) watch: Option<String>,
    /// Seconds after which the page is asked for anew.
    pub(super) refresh_s: Option<u32>,
}

impl Shell {
    /// Around a page for somebody who is signed in.
    pub(super) fn of(visitor: &Visitor, part: Part, title: impl Into<String>) -> Self {
        let visitor = Some(visitor.clone());
        Self { title: title.into(), part, visitor, live: None, watch: None, refresh_s: None }
    }

    /// Around a page for anybody.
    pub(super) fn bare(title: impl Into<String>) -> Self {
        let (title, part) = (title.into(), Part::Elsewhere);
        Self { title, part, visitor: None, live: None, watch: None, refresh_s: None }
    }

    /// Keeps the page up with the fleet from this change on.
    pub(super) fn live(mut self, since: String) -> Self {
        self.live = Some(since);
        self
    }

    pub(super) fn style(&self) -> &'static str {
        &STYLE.path
    }

    pub(super) fn script(&self) -> &'static str {
        &SCRIPT.path
    }

    pub(super) fn icon(&self) -> &'static str {
        &ICON.path
    }

    pub(super) fn parts(&self) -> Vec<Tab> {
        if self.visitor.is_none() {
            return Vec::new();
        }
        let tab = |(part, path, name, key)| Tab { path, name, key, is_here: part == self.part };
        Part::SHOWN.into_iter().map(tab).collect()
    }
}

/// A part's place in the bar.
pub(super) struct Tab {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) key: &'static str,
    pub(super) is_here: bool,
}

/// A moment: in UTC for who reads without script, in words and local time with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) OffsetDateTime);

impl At {
    /// As machines read it.
    pub(super) fn iso(&self) -> String {
        self.0.format(&Rfc3339).unwrap_or_default()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
        f.write_str(&self.0.to_offset(time::UtcOffset::UTC).format(&shape).map_err(|_| fmt::Error)?)
    }
}

/// A moment to the millisecond, where a second holds several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exact(pub(super) OffsetDateTime);

impl Exact {
    /// As machines read it.
    pub(super) fn iso(&self) -> String {
        At(self.0).iso()
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape =
            format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3] UTC");
        f.write_str(&self.0.to_offset(time::UtcOffset::UTC).format(&shape).map_err(|_| fmt::Error)?)
    }
}

/// A moment, for templates.
pub(super) fn at(moment: &OffsetDateTime) -> At {
    At(*moment)
}

/// A page on its way out.
pub(in crate::http) struct Page(Response<Body>);

impl Page {
    /// Renders it.
    pub(super) fn of(template: &impl Template) -> Result<Self, Problem> {
        let text = template.render().map_err(|error| {
            tracing::error!(%error, "a page could not be rendered");
            Problem::new(
                Code::Internal,
                "The page cannot be shown. The log tells more under this request_id.",
            )
        })?;
        Ok(Self(text.into_response()))
    }

    /// A part of a page, which has the rest already.
    pub(super) fn part(template: &impl Template) -> String {
        template.render().unwrap_or_else(|error| {
            tracing::error!(%error, "a part of a page could not be rendered");
            String::new()
        })
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response<Body> {
        let mut response = self.0;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        // With `no-referrer` a browser says `Origin: null` with its own forms too (Fetch, "append a request Origin
        // header"), and they could not be told from a stranger's.
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        response
    }
}

/// Marks the answer of a page's route, with who is signed in: a problem becomes a page there.
#[derive(Clone)]
pub(in crate::http) struct AsPage(pub(super) Option<Visitor>);

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    problem: ProblemBody,
    sign_in: Option<SignIn>,
}

/// The form of the sign-in page.
pub(super) struct SignIn {
    /// Where to go then.
    pub(super) next: String,
}

impl AsPage {
    /// The page that tells of a problem.
    pub(in crate::http) fn show(
        self,
        parts: axum::http::response::Parts,
        problem: ProblemBody,
    ) -> Response<Body> {
        let shell = match &self.0 {
            Some(visitor) => Shell::of(visitor, Part::Elsewhere, problem.title),
            None => Shell::bare(problem.title),
        };
        let sign_in = self.0.is_none().then(|| SignIn { next: "/".to_owned() });
        let mut page = match Page::of(&ProblemPage { shell, problem, sign_in }) {
            Ok(page) => page.into_response(),
            Err(_) => "The page cannot be shown.".into_response(),
        };
        *page.status_mut() = parts.status;
        if let Some(seconds) = parts.headers.get(header::RETRY_AFTER) {
            page.headers_mut().insert(header::RETRY_AFTER, seconds.clone());
        }
        page
    }
}

/// Whether somebody with this role may act.
pub(super) fn may_act(visitor: &Visitor) -> bool {
    visitor.role >= Role::Operator
}
