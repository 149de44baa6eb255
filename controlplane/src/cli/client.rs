//! The operators' door, from outside.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use controlplane_core::names::nearest;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::watch::Screen;

/// Exit code where there is no such thing.
const NOT_FOUND: u8 = 5;

/// Why a command did not do what it should; its text says what to do next.
#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// Something on this side: a file, a setting.
    pub(super) fn local(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// The words of the command line are wrong.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }

    /// There is no such thing.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: NOT_FOUND }
    }

    /// Of something that is called by name and is not there: also what may have been meant.
    pub(super) async fn or_near(mut self, door: &Door, nouns: &str, name: &str) -> Self {
        if self.code == NOT_FOUND
            && let Ok(list) = door.get(&format!("/admin/v1/{nouns}")).await
        {
            let names = list["data"].as_array().into_iter().flatten();
            if let Some(near) = nearest(name, names.filter_map(|entry| entry["name"].as_str())) {
                self.text.push_str(&format!("\n  Did you mean {near}?"));
            }
        }
        self
    }

    fn unreachable(url: &str, error: &reqwest::Error) -> Self {
        let cause = crate::calls::chain(error);
        Self {
            text: format!(
                "cannot reach the control plane at {url}: {cause}\n  Is `ringward serve` running? Another address is \
                 given by RINGWARD_OPERATOR_URL."
            ),
            code: 3,
        }
    }

    /// The code that scripts see.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.code
    }

    fn of(status: StatusCode, problem: &Value) -> Self {
        let word = |member: &str| problem[member].as_str().unwrap_or_default();
        let (code, hint) = match status {
            StatusCode::UNAUTHORIZED => {
                (4, "\n  Set RINGWARD_OPERATOR_KEY to an operator key; `ringward bootstrap` makes the first.")
            }
            StatusCode::FORBIDDEN if problem["code"] == "not_permitted" => (
                4,
                "\n  `ringward policy explain NUMBER` tells the rule; `ringward policy set --open PL` opens a country.",
            ),
            StatusCode::FORBIDDEN => (4, ""),
            StatusCode::NOT_FOUND => (NOT_FOUND, ""),
            StatusCode::CONFLICT => (6, ""),
            _ => (1, ""),
        };
        let mut text = match problem["param"].as_str() {
            Some(param) => format!("{}: {param}: {}", word("title"), word("detail")),
            None => format!("{}: {}", word("title"), word("detail")),
        };
        if word("title").is_empty() {
            text = format!("the control plane answered {status}");
        }
        text.push_str(hint);
        if !word("request_id").is_empty() {
            text.push_str(&format!("\n  ({})", word("request_id")));
        }
        Self { text, code }
    }
}

/// A control plane's operator door.
pub(super) struct Door {
    url: String,
    key: Option<String>,
    http: reqwest::Client,
    /// Print what was answered instead of a table.
    pub(super) json: bool,
    /// Looked at again and again: what is shown so.
    screen: OnceLock<Screen>,
    /// There is no more to be seen.
    over: AtomicBool,
}

impl Door {
    pub(super) fn new(url: &str, key: Option<&str>, json: bool) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_built_in_root_certs(url.starts_with("https://"))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::local(format!("no HTTP client: {error}")))?;
        let url = url.trim_end_matches('/').to_owned();
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(Failure::usage(format!(
                "{url}: the operator door is an address like http://127.0.0.1:8081, or https://HOST behind a proxy"
            )));
        }
        let (screen, over) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { url, key: key.map(str::to_owned), http, json, screen, over })
    }

    /// From now on only changes are shown.
    pub(super) fn watch(&self) {
        self.screen.get_or_init(Screen::default);
    }

    /// What is watched, if it is.
    pub(super) fn screen(&self) -> Option<&Screen> {
        self.screen.get()
    }

    /// There is no more to be seen: what is watched has come to its end, or who watched is gone.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether there is no more to be seen.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Of a node or a trunk: an error names what may have been meant.
    pub(super) async fn get_of(&self, nouns: &str, name: &str, path: &str) -> Result<Value, Failure> {
        match self.get(path).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(failure.or_near(self, nouns, name).await),
        }
    }

    /// The same, of what changes something.
    pub(super) async fn post_to(
        &self,
        nouns: &str,
        name: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        match self.post(path, body).await {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(failure.or_near(self, nouns, name).await),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A POST of text, with query parameters.
    pub(super) async fn post_text(&self, path: &str, text: String) -> Result<Value, Failure> {
        self.send(self.request(Method::POST, path).body(text)).await
    }

    /// A GET whose answer is text.
    pub(super) async fn get_text(&self, path: &str) -> Result<String, Failure> {
        let (status, text) = self.exchange(self.request(Method::GET, path)).await?;
        if status.is_success() { Ok(text) } else { Err(Failure::of(status, &json(&text))) }
    }

    /// A GET whose answer is taken as it comes.
    pub(super) async fn stream(&self, path: &str) -> Result<Parts, Failure> {
        let unreachable = |error: reqwest::Error| Failure::unreachable(&self.url, &error);
        let response = self.request(Method::GET, path).send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(Parts(response));
        }
        Err(Failure::of(status, &json(&response.text().await.map_err(unreachable)?)))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Failure> {
        let (status, text) = self.exchange(request).await?;
        let body = json(&text);
        if status.is_success() { Ok(body) } else { Err(Failure::of(status, &body)) }
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, String), Failure> {
        let unreachable = |error: reqwest::Error| Failure::unreachable(&self.url, &error);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        Ok((status, response.text().await.map_err(unreachable)?))
    }
}

/// An answer on its way.
pub(super) struct Parts(reqwest::Response);

impl Parts {
    /// What comes next; `None` at its end.
    pub(super) async fn part(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let part = self.0.chunk().await;
        let part = part.map_err(|error| Failure::local(format!("the answer broke off: {error}")))?;
        Ok(part.map(|part| part.to_vec()))
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
