//! Who looks at the console: signed in with an operator's key, known by a cookie from then on.
//!
//! The cookie is 256 random bits; the database has their hash, so that every replica knows the session, and each
//! request looks at the key behind it: one that is revoked or over opens nothing from that moment on. What changes
//! something must come from a page of ours ([`is_ours`]); why that is told so is in ADR 0036.

use askama::Template;
use axum::{
    Extension, Form,
    body::Body,
    extract::{
        FromRequestParts, Query, Request, State as AxumState,
        rejection::{FormRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect},
};
use controlplane_core::access::Role;
use controlplane_store::{
    StoreError,
    sessions::{NewSession, SESSION_LASTS, SESSION_SEEN_EVERY, Session},
};
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;

use super::page::{AsPage, Page, Shell, SignIn};
use crate::{
    doors::Client,
    http::{
        State,
        auth::{self, Operator, Stranger, is_alive},
        problem::{Code, Problem},
    },
    keys,
};

/// The cookie's name.
const COOKIE: &str = "ringward";
/// Characters of the token: 256 bits in base32.
const TOKEN_LEN: usize = 52;
/// Where those are sent who are not signed in.
const SIGN_IN: &str = "/sign-in";
/// Longest address that is gone back to after a sign-in.
const NEXT_MAX: usize = 500;

/// Somebody who is signed in.
#[derive(Clone)]
pub(in crate::http) struct Visitor {
    /// As the operators' API knows them.
    pub(super) operator: Operator,
    /// What their key may do.
    pub(super) role: Role,
    /// What their key is called.
    pub(super) name: String,
    /// Of what their browser holds.
    pub(super) token_sha256: [u8; 32],
}

impl FromRequestParts<State> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &State) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(auth::not_admitted)
    }
}

/// Lets a request through to a page: for who has `role` or a higher one, or with `None` for anybody. A problem on the
/// way, here or within, is marked to become a page.
pub(in crate::http) async fn admit(
    state: &State,
    role: Option<Role>,
    mut parts: Parts,
    body: Body,
    next: Next,
) -> Response<Body> {
    let mut visitor = None;
    let admitted = match role {
        Some(role) => visit(&parts, state, role, &mut visitor).await,
        None => Ok(()),
    };
    let admitted = admitted.and_then(|()| is_ours(&parts.method, &parts.headers));
    let mut response = match admitted {
        Ok(()) => {
            if let Some(visitor) = &visitor {
                parts.extensions.insert(visitor.operator.clone());
                parts.extensions.insert(visitor.clone());
            }
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) if problem.is(Code::Unauthenticated) && wants_page(&parts) => {
            let here = parts.uri.path_and_query().map_or("/", |here| here.as_str());
            Redirect::to(&format!("{SIGN_IN}?next={}", encoded(here))).into_response()
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(AsPage(visitor));
    response
}

/// A browser that goes somewhere, not the script of a page that is open already.
fn wants_page(parts: &Parts) -> bool {
    parts.method.is_safe() && parts.uri.path() != super::live::PATH
}

/// A text as a value of a query.
fn encoded(text: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Finds out who it is: `visitor` is set from where the session is known on, also where its role is too low.
async fn visit(
    parts: &Parts,
    state: &State,
    needs: Role,
    visitor: &mut Option<Visitor>,
) -> Result<(), Problem> {
    let token_sha256 = token(&parts.headers).ok_or_else(signed_out)?;
    let session = living(state, &token_sha256).await?.ok_or_else(signed_out)?;
    let role = Role::of(&session.key.scopes).ok_or_else(signed_out)?;
    let now = state.clock.now();
    if now >= session.seen_at + SESSION_SEEN_EVERY && parts.uri.path() != super::live::PATH {
        state.store.see_session(&token_sha256, now).await?;
    }
    state.uses.note(&session.key.id, now);
    let actor = auth::actor(parts, Some(session.key.id));
    *visitor =
        Some(Visitor { operator: Operator { actor, role }, role, name: session.key.name, token_sha256 });
    if role < needs {
        let detail = format!("This takes the role {needs} or a higher one; your key's is {role}.");
        return Err(Problem::new(Code::Forbidden, detail));
    }
    Ok(())
}

/// The session with this hash, if it and its key still open anything.
pub(super) async fn living(state: &State, token_sha256: &[u8; 32]) -> Result<Option<Session>, StoreError> {
    let session = state.store.session(token_sha256).await?;
    Ok(session.filter(|session| !session.is_over(state.clock.now()) && is_alive(&session.key, state)))
}

fn signed_out() -> Problem {
    Problem::new(Code::Unauthenticated, "You are not signed in, or your session is over. Nothing was done.")
}

/// The hash of what the browser holds.
fn token(headers: &HeaderMap) -> Option<[u8; 32]> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let token = pairs.find(|(name, _)| *name == COOKIE)?.1;
    (token.len() == TOKEN_LEN).then(|| keys::hash(token))
}

/// Whether a request that would change something comes from a page of this console. Browsers say so themselves, where
/// no page can make them lie: with `Sec-Fetch-Site` on TLS and on the machine itself, else with `Origin`. Who says
/// neither is no browser, and has `/admin/v1`.
fn is_ours(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ours = match (text("sec-fetch-site"), text("origin"), text("host")) {
        _ if method.is_safe() => true,
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
        }
        (None, ..) => false,
    };
    if ours {
        return Ok(());
    }
    let detail =
        "This came from another page than the console's. Nothing was done. For programs there is /admin/v1.";
    Err(Problem::new(Code::Forbidden, detail))
}

/// Where a sign-in leads: an address of this console, or its first page.
fn within(next: Option<String>) -> String {
    let is_ours = |next: &String| {
        next.starts_with('/')
            && !next.starts_with("//")
            && next.len() <= NEXT_MAX
            && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
    };
    next.filter(is_ours).unwrap_or_else(|| "/".to_owned())
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    sign_in: SignIn,
}

/// `?next=`
#[derive(Debug, Deserialize)]
pub(in crate::http) struct SignInQuery {
    next: Option<String>,
}

pub(in crate::http) async fn form(
    query: Result<Query<SignInQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(SignInQuery { next }) = query?;
    Page::of(&SignInPage { shell: Shell::bare("Sign in"), sign_in: SignIn { next: within(next) } })
}

/// What the form sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SignInForm {
    key: String,
    next: Option<String>,
}

pub(in crate::http) async fn sign_in(
    Stranger(mut actor): Stranger,
    Extension(client): Extension<Client>,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    form: Result<Form<SignInForm>, FormRejection>,
) -> Result<Response<Body>, Problem> {
    let Form(SignInForm { key, next }) = form.map_err(unreadable)?;
    let at = state.clock.now();
    let attempts = &state.console.attempts;
    attempts.may(client.ip, at).map_err(|seconds| {
        let detail =
            "Too many sign-ins were refused to your address. This one was not looked at; wait a minute.";
        Problem::new(Code::TooManyRequests, detail).retry_after(seconds)
    })?;
    let refused = || {
        attempts.refused(client.ip, at);
        let detail = "That is no operator's key, or one that was revoked or is over. It begins with rw_op_.";
        Problem::new(Code::Unauthenticated, detail)
    };
    let secret = key.trim();
    if !keys::is_well_formed(secret) {
        return Err(refused());
    }
    let key = state.store.key_by_hash(&keys::hash(secret)).await?.ok_or_else(refused)?;
    if key.org.is_some() || !is_alive(&key, &state) {
        return Err(refused());
    }
    let token = BASE32_NOPAD.encode(&state.chance.secret()).to_lowercase();
    let session = NewSession { token_sha256: keys::hash(&token), key: key.id.clone(), at };
    actor.key = Some(key.id.clone());
    if !state.store.open_session(session, actor, state.chance.audit_id(at)).await? {
        return Err(refused());
    }
    state.uses.note(&key.id, at);
    tracing::info!(key = %key.id, "an operator signed in to the console");
    // The browser itself says whether it speaks TLS to whatever stands before this door.
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or("");
    let secure = if client.is_secure || origin.starts_with("https://") { "; Secure" } else { "" };
    let seconds = SESSION_LASTS.whole_seconds();
    let cookie = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    Ok(leads_to(&within(next), &cookie))
}

pub(in crate::http) async fn sign_out(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
) -> Result<Response<Body>, Problem> {
    let at = state.clock.now();
    let audit_id = state.chance.audit_id(at);
    // Ended by another request already: that has its row.
    let _ = state.store.end_session(&visitor.token_sha256, at, visitor.operator.actor, audit_id).await?;
    Ok(leads_to(SIGN_IN, &format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")))
}

fn leads_to(place: &str, cookie: &str) -> Response<Body> {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, place)]).into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// What a form sent that is none of ours.
pub(super) fn unreadable(rejection: FormRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "At most 64 KiB."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(Code::UnsupportedMediaType, "Send the form of the page.")
        }
        _ => Problem::new(Code::Malformed, rejection.body_text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_on_a_page_of_ours_may_change_something() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            is_ours(&Method::POST, &headers).is_ok()
        };
        let host = ("host", "ringward.example:8081");
        assert!(asked(&[("sec-fetch-site", "same-origin"), host]));
        // Behind a proxy that gives another name, the browser's own word counts.
        let elsewhere = ("origin", "https://console.example");
        assert!(asked(&[("sec-fetch-site", "same-origin"), elsewhere, host]));
        assert!(asked(&[("origin", "http://ringward.example:8081"), host]));
        for site in ["same-site", "cross-site", "none", ""] {
            assert!(!asked(&[("sec-fetch-site", site), ("origin", "http://ringward.example:8081"), host]));
        }
        assert!(!asked(&[("origin", "http://ringward.example:9999"), host]), "another port is another page");
        assert!(!asked(&[("origin", "null"), host]) && !asked(&[elsewhere, host]) && !asked(&[host]));
        assert!(is_ours(&Method::GET, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn a_sign_in_leads_nowhere_else() {
        let to = |next: &str| within(Some(next.to_owned()));
        assert_eq!(to("/trunks/acme-waw-1?q=1"), "/trunks/acme-waw-1?q=1");
        for bad in ["//evil.example", "https://evil.example", "/\\evil.example", "", "x", "/a\r\nb", "/ü"] {
            assert_eq!(to(bad), "/", "{bad}");
        }
        assert_eq!(to(&format!("/{}", "a".repeat(NEXT_MAX))), "/");
        assert_eq!(within(None), "/");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let of = |text: &'static str| {
            token(&HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]))
        };
        const TOKEN: &str = "ringward=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert!(of(TOKEN).is_some());
        assert!(of("a=b; ringward=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; c=d").is_some());
        assert!(of("ringward=short").is_none() && of("xringward=a").is_none() && of("").is_none());
    }
}
