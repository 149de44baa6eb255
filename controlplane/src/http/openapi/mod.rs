//! The customers' API as an OpenAPI 3.1 document, and the reference page that is rendered from it.
//!
//! The document is written from the table of routes (`http/routes.rs`): what an operation reads and answers is in its
//! handler's types (`signature`), how it may fail in what it takes and what its row needs, and the rest in `words`.
//! It is checked in as `docs/openapi.json`; a test holds that file against this program, and
//! `cargo run --bin ringward -- openapi > docs/openapi.json` writes it anew.

mod reference;
pub(super) mod signature;
pub(super) mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use controlplane_core::{
    access::Scope,
    ids::{
        CallId, EndpointId, EventId, HookId, IncidentId, KeyId, NoticeId, OrgId, RecordingId, RequestId,
        StreamId,
    },
    names::{NodeName, TrunkName},
    sound::SoundHash,
};
use serde_json::{Map, Value, json};

use self::{
    signature::{Answers, Draft, JSON, Sketch},
    words::{TAGS, Words},
};
use super::{
    problem::{Code, ProblemBody},
    routes::{Id, Needs, Route, table},
};

/// The media type of problems (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// What a customers' route says of itself.
pub(super) struct Operation {
    pub(super) words: &'static Words,
    pub(super) tell: fn(&mut Sketch),
}

/// The document, as it is served and checked in.
static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
/// The reference page.
static PAGE: LazyLock<String> = LazyLock::new(|| reference::page(&document()));

/// The document as text.
#[must_use]
pub fn text() -> &'static str {
    &TEXT
}

/// The document.
#[must_use]
pub fn document() -> Value {
    written().0
}

/// The document, and the names of schemas that it has twice: there may be none.
fn written() -> (Value, Vec<String>) {
    let mut sketch = Sketch::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in &table() {
        let Some(operation) = &route.operation else { continue };
        let shown = shown(route, operation, &mut sketch);
        paths.entry(route.path).or_default().insert(route.method.as_str().to_lowercase(), shown);
    }
    // What every problem and every answer has.
    sketch.answered::<ProblemBody>();
    sketch.answered::<RequestId>();
    let (schemas, differing) = sketch.into_schemas();
    let scopes: Vec<String> = Scope::ALL.iter().map(|scope| format!("`{}`", scope.as_str())).collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringward",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Phone people through a fleet of PBXes, past whatever is down.",
            "description": words::INTRODUCTION,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The customers' door."}],
        "tags": TAGS.iter().map(|(name, text)| json!({"name": name, "description": text})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                "RequestId": {
                    "description": "By which an operator finds the request in the log.",
                    "schema": {"$ref": "#/components/schemas/RequestId"},
                },
                "RetryAfter": {
                    "description": "Seconds after which asking again helps.",
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": format!(
                        "A key: `rw_live_…`, or `rw_test_…` which phones nobody. It has some of the scopes {}.",
                        scopes.join(", ")
                    ),
                },
            },
        },
    });
    (document, differing)
}

/// One operation.
fn shown(route: &Route, operation: &Operation, sketch: &mut Sketch) -> Value {
    let words = operation.words;
    (operation.tell)(sketch);
    let draft = sketch.take();
    let mut parameters = named(route, sketch);
    parameters.extend(draft.parameters.iter().cloned());
    parameters.extend(words.headers.iter().map(|header| {
        json!({
            "name": header.name, "in": "header", "required": false, "description": header.text,
            "schema": header.schema(),
        })
    }));
    let mut shown = json!({
        "operationId": words.id,
        "tags": [words.tag],
        "summary": words.summary,
        "parameters": parameters,
        "responses": responses(route, words, &draft),
        "security": security(route.needs),
    });
    if !words.text.is_empty() {
        shown["description"] = words.text.into();
    }
    if let Some(body) = draft.body {
        shown["requestBody"] = body;
    }
    shown
}

/// What lets a request through: one of these.
fn security(needs: Needs) -> Value {
    match needs {
        Needs::AnyOf(scopes) => scopes.iter().map(|scope| json!({"key": [scope.as_str()]})).collect(),
        Needs::Nothing
        | Needs::Role(_)
        | Needs::Page(_)
        | Needs::SignIn
        | Needs::Certificate
        | Needs::Token => {
            json!([])
        }
    }
}

/// What the path names.
fn named(route: &Route, sketch: &mut Sketch) -> Vec<Value> {
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .zip(route.ids)
        .map(|(name, id)| json!({"name": name, "in": "path", "required": true, "schema": form(*id, sketch)}))
        .collect()
}

/// How an id looks.
fn form(id: Id, sketch: &mut Sketch) -> Value {
    match id {
        Id::Call => sketch.read::<CallId>(),
        Id::Recording => sketch.read::<RecordingId>(),
        Id::Endpoint => sketch.read::<EndpointId>(),
        Id::Receiver => json!({"anyOf": [sketch.read::<EndpointId>(), {"const": "callback"}]}),
        Id::Event => sketch.read::<EventId>(),
        Id::Hook => sketch.read::<HookId>(),
        Id::Incident => sketch.read::<IncidentId>(),
        Id::Notice => sketch.read::<NoticeId>(),
        Id::Key => sketch.read::<KeyId>(),
        Id::Org => sketch.read::<OrgId>(),
        Id::Node => sketch.read::<NodeName>(),
        Id::Trunk => sketch.read::<TrunkName>(),
        Id::Stream => sketch.read::<StreamId>(),
        Id::Sound => sketch.read::<SoundHash>(),
    }
}

/// How an operation may fail: by what it takes, by what its row needs, and in its own ways.
fn codes(route: &Route, words: &Words, draft: &Draft) -> Vec<Code> {
    let mut codes: Vec<Code> = draft.codes.iter().chain(words.codes).copied().collect();
    if route.needs != Needs::Nothing {
        codes.extend([
            Code::Unauthenticated,
            Code::Forbidden,
            Code::OrgSuspended,
            Code::TooManyRequests,
            Code::Unavailable,
            Code::Internal,
        ]);
    }
    codes
}

fn responses(route: &Route, words: &Words, draft: &Draft) -> Map<String, Value> {
    let id = || json!({"X-Request-Id": {"$ref": "#/components/headers/RequestId"}});
    let mut responses = Map::new();
    for (status, answer) in &draft.answers {
        let mut headers = id();
        if let Some(headers) = headers.as_object_mut() {
            headers.extend(answer.headers.clone());
        }
        let mut response = json!({"description": reason(*status), "headers": headers});
        if !answer.content.is_empty() {
            response["content"] = answer.content.clone().into();
        }
        responses.insert(status.to_string(), response);
    }
    let mut by_status: BTreeMap<u16, BTreeMap<&str, Code>> = BTreeMap::new();
    for code in codes(route, words, draft) {
        by_status.entry(code.status().as_u16()).or_default().insert(code.word(), code);
    }
    for (status, codes) in by_status {
        let mut headers = id();
        if codes.values().any(|code| code.helps_to_ask_again()) {
            headers["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"});
        }
        let titles: BTreeSet<&str> = codes.values().map(|code| code.title()).collect();
        let words: Vec<Value> =
            codes.iter().map(|(word, code)| json!({"const": word, "description": code.title()})).collect();
        let schema = json!({
            "allOf": [{"$ref": "#/components/schemas/Problem"}],
            "properties": {"code": {"oneOf": words}},
        });
        let response = json!({
            "description": titles.into_iter().collect::<Vec<_>>().join(". ") + ".",
            "headers": headers,
            "content": {PROBLEM: {"schema": schema}},
        });
        responses.insert(status.to_string(), response);
    }
    responses
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Done")
}

/// `GET /v1/openapi.json`
pub(super) struct Document;

/// `GET /v1/reference`
pub(super) struct Page;

pub(super) async fn json_document() -> Document {
    Document
}

pub(super) async fn page() -> Page {
    Page
}

impl IntoResponse for Document {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, JSON)], TEXT.as_str()).into_response()
    }
}

impl IntoResponse for Page {
    /// Its one style is let in by its hash; nothing else is.
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_SECURITY_POLICY, reference::policy()),
        ];
        (headers, PAGE.as_str()).into_response()
    }
}

impl Answers for Document {
    fn answer(sketch: &mut Sketch) {
        sketch.answer(StatusCode::OK, JSON, json!({"type": "object"}));
    }
}

impl Answers for Page {
    fn answer(sketch: &mut Sketch) {
        sketch.answer(StatusCode::OK, "text/html", json!({"type": "string"}));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::routes::Door, *};

    #[test]
    fn the_document_that_is_checked_in_is_this_programs() {
        let checked_in = include_str!("../../../../docs/openapi.json");
        let checked_in: Value = serde_json::from_str(checked_in).unwrap_or_default();
        assert!(
            checked_in == document(),
            "docs/openapi.json is not what the routes say. Write it anew, and look at the difference:\n  \
             cargo run --bin ringward -- openapi > docs/openapi.json"
        );
    }

    #[test]
    fn every_customers_route_is_told_and_no_other() {
        let mut ids = BTreeSet::new();
        for route in table() {
            let name = format!("{} {}", route.method, route.path);
            assert_eq!(route.operation.is_some(), route.door == Door::Customers, "{name}");
            let Some(operation) = route.operation else { continue };
            let words = operation.words;
            assert!(ids.insert(words.id), "{name}: another has the id {}", words.id);
            assert!(TAGS.iter().any(|(tag, _)| *tag == words.tag), "{name}: {}", words.tag);
            assert!(!words.summary.is_empty() && !words.summary.ends_with('.'), "{name}");
        }
        assert!(ids.len() > 30, "{ids:?}");
    }

    #[test]
    fn nothing_is_read_another_way_than_it_is_answered_under_one_name() {
        assert_eq!(written().1, Vec::<String>::new());
    }

    /// Every reference leads somewhere within the document.
    #[test]
    fn every_reference_is_there() {
        fn look(value: &Value, document: &Value, seen: &mut usize) {
            if let Some(to) = value["$ref"].as_str() {
                let pointer = to.strip_prefix('#').unwrap_or_default();
                assert!(document.pointer(pointer).is_some(), "{to}");
                *seen += 1;
            }
            let items = value.as_array().into_iter().flatten();
            for inner in items.chain(value.as_object().into_iter().flat_map(Map::values)) {
                look(inner, document, seen);
            }
        }
        let (document, mut seen) = (document(), 0);
        look(&document, &document, &mut seen);
        assert!(seen > 200, "{seen}");
    }
}
