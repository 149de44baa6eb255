//! The reference page: one file without script, picture or font, rendered from the document.
//!
//! Everything has an address of its own: operations by their id, schemas by their name.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use data_encoding::BASE64;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("reference.css");

/// What browsers let in: the one style, by its hash.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = BASE64.encode(&Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).ok()
});

/// The page's content security policy.
pub(super) fn policy() -> HeaderValue {
    POLICY.clone().unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// The page.
pub(super) fn page(document: &Value) -> String {
    let info = &document["info"];
    let operations = operations(document);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} API reference</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        title = text(&info["title"])
    );
    html += &navigation(document, &operations);
    html += &format!(
        "<main>\n<h1>{} API reference</h1>\n<p>{}</p>\n<p class=\"soft\">Version {}. \
         <a href=\"/v1/openapi.json\">The same as OpenAPI 3.1</a>.</p>\n<p>{}</p>\n",
        text(&info["title"]),
        prose(&info["summary"]),
        text(&info["version"]),
        prose(&info["description"])
    );
    for tag in items(&document["tags"]) {
        html += &format!(
            "<h2 id=\"{}\">{}</h2>\n<p>{}</p>\n",
            anchor(&tag["name"]),
            text(&tag["name"]),
            prose(&tag["description"])
        );
        for operation in operations.iter().filter(|operation| operation.tag() == &tag["name"]) {
            html += &operation.article();
        }
    }
    html += "<h2 id=\"schemas\">Schemas</h2>\n";
    for (name, schema) in members(&document["components"]["schemas"]) {
        html += &article(name, schema);
    }
    html += "</main>\n</body>\n</html>\n";
    html
}

fn navigation(document: &Value, operations: &[Operation<'_>]) -> String {
    let mut html = "<nav>\n".to_owned();
    for tag in items(&document["tags"]) {
        let name = &tag["name"];
        html += &format!("<a href=\"#{}\"><b>{}</b></a>\n<ul>\n", anchor(name), text(name));
        for operation in operations.iter().filter(|operation| operation.tag() == name) {
            html += &format!(
                "<li><a href=\"#{}\">{}</a></li>\n",
                operation.id(),
                text(&operation.shown["summary"])
            );
        }
        html += "</ul>\n";
    }
    html + "<a href=\"#schemas\"><b>Schemas</b></a>\n</nav>\n"
}

/// One operation of the document.
struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    shown: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = members(&document["paths"]);
    paths
        .flat_map(|(path, methods)| {
            members(methods).map(move |(method, shown)| Operation { method, path, shown })
        })
        .collect()
}

impl Operation<'_> {
    fn tag(&self) -> &Value {
        &self.shown["tags"][0]
    }

    fn id(&self) -> String {
        text(&self.shown["operationId"])
    }

    fn article(&self) -> String {
        let id = self.id();
        let mut html = format!(
            "<article id=\"{id}\">\n<h3><a href=\"#{id}\"><span class=\"method\">{}</span> <code>{}</code></a></h3>\n\
             <p><b>{}.</b> {}</p>\n",
            self.method.to_uppercase(),
            escape(self.path),
            text(&self.shown["summary"]),
            prose(&self.shown["description"])
        );
        let scopes: Vec<String> = items(&self.shown["security"]).map(|way| code(&way["key"][0])).collect();
        html += &match scopes.as_slice() {
            [] => "<p class=\"soft\">Needs no key.</p>\n".to_owned(),
            scopes => format!("<p class=\"soft\">Scope: {}</p>\n", scopes.join(" or ")),
        };
        html += &self.parameters();
        if let Some(content) = self.shown["requestBody"]["content"].as_object() {
            html += &format!("<h4>Body</h4>\n<p>{}</p>\n", bodies(content));
        }
        html += "<h4>Answers</h4>\n<table>\n";
        for (status, response) in members(&self.shown["responses"]) {
            html += &answer(status, response);
        }
        html + "</table>\n</article>\n"
    }

    fn parameters(&self) -> String {
        let mut parameters = items(&self.shown["parameters"]).peekable();
        if parameters.peek().is_none() {
            return String::new();
        }
        let mut html = "<h4>Parameters</h4>\n<table>\n".to_owned();
        for parameter in parameters {
            html += &format!(
                "<tr><td>{} <span class=\"soft\">{}</span></td><td>{}</td><td>{}</td></tr>\n",
                code(&parameter["name"]),
                text(&parameter["in"]),
                form(&parameter["schema"]),
                prose(&parameter["description"])
            );
        }
        html + "</table>\n"
    }
}

/// Bodies by their media types.
fn bodies(content: &Map<String, Value>) -> String {
    let body = |(media, body): (&String, &Value)| {
        format!("{} <span class=\"soft\">{}</span>", form(&body["schema"]), escape(media))
    };
    content.iter().map(body).collect::<Vec<_>>().join("<br>\n")
}

/// One row of an operation's answers.
fn answer(status: &str, response: &Value) -> String {
    let content = response["content"].as_object();
    let problem = content.and_then(|content| content.get(super::PROBLEM));
    let body = match (problem, content) {
        (Some(problem), _) => {
            let codes = items(&problem["schema"]["properties"]["code"]["oneOf"]);
            codes.map(|word| format!("{} {}", code(&word["const"]), prose(&word["description"]))).collect()
        }
        (None, Some(content)) => vec![bodies(content)],
        (None, None) => vec!["no body".to_owned()],
    };
    format!("<tr><td><code>{status}</code></td><td>{}</td></tr>\n", body.join("<br>\n"))
}

/// One schema.
fn article(name: &str, schema: &Value) -> String {
    let id = escape(name);
    let mut html = format!("<article id=\"{id}\">\n<h3><a href=\"#{id}\">{id}</a></h3>\n");
    if schema["description"].is_string() {
        html += &format!("<p>{}</p>\n", prose(&schema["description"]));
    }
    let words: Vec<&Value> = items(&schema["oneOf"]).filter(|word| word["const"].is_string()).collect();
    if schema["properties"].is_object() {
        html += &format!("<table>\n{}</table>\n", fields(schema, ""));
    } else if words.is_empty() {
        html += &format!("<p>{}</p>\n", form(schema));
    } else {
        html += "<table>\n";
        for word in words {
            html += &format!(
                "<tr><td>{}</td><td>{}</td></tr>\n",
                code(&word["const"]),
                prose(&word["description"])
            );
        }
        html += "</table>\n";
    }
    for example in items(&schema["examples"]) {
        html += &format!("<pre>{}</pre>\n", escape(&format!("{example:#}")));
    }
    html + "</article>\n"
}

/// The fields of an object, those of objects within it after them.
fn fields(schema: &Value, before: &str) -> String {
    let is_required = |name: &str| items(&schema["required"]).any(|required| required == name);
    let mut html = String::new();
    for (name, field) in members(&schema["properties"]) {
        let presence = if is_required(name) { "" } else { " <span class=\"soft\">optional</span>" };
        html += &format!(
            "<tr><td><code>{before}{}</code>{presence}</td><td>{}</td><td>{}</td></tr>\n",
            escape(name),
            form(field),
            prose(&field["description"])
        );
        html += &fields(field, &format!("{before}{}.", escape(name)));
    }
    html
}

/// What a value looks like, on one line.
fn form(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        return format!("<a href=\"#{0}\">{0}</a>", escape(name));
    }
    for choice in ["anyOf", "oneOf"] {
        if schema["properties"].is_null() && schema[choice].is_array() {
            return items(&schema[choice]).map(form).collect::<Vec<_>>().join(" or ");
        }
    }
    if !schema["const"].is_null() {
        return code(&schema["const"]);
    }
    if schema["enum"].is_array() {
        return items(&schema["enum"]).map(code).collect::<Vec<_>>().join(" ");
    }
    let kind = &schema["type"];
    let kinds: Vec<String> =
        kind.as_array().map_or(vec![text(kind)], |kinds| kinds.iter().map(text).collect());
    let mut html = kinds.join(" or ");
    if schema["items"].is_object() {
        html += &format!(" of {}", form(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        html += &format!(" of {}", form(&schema["additionalProperties"]));
    }
    html + &bounds(schema)
}

/// The bounds of a value.
fn bounds(schema: &Value) -> String {
    const TOLD: [(&str, &str); 11] = [
        ("format", ""),
        ("minimum", "from "),
        ("maximum", "up to "),
        ("minLength", "characters from "),
        ("maxLength", "characters up to "),
        ("minItems", "items from "),
        ("maxItems", "items up to "),
        ("minProperties", "entries from "),
        ("maxProperties", "entries up to "),
        ("pattern", "as "),
        ("default", "default "),
    ];
    let told = TOLD.iter().filter(|(key, _)| !schema[*key].is_null());
    let told: Vec<String> = told.map(|(key, words)| format!("{words}{}", code(&schema[*key]))).collect();
    if told.is_empty() { String::new() } else { format!(" <span class=\"soft\">{}</span>", told.join(", ")) }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// A JSON value as code: a text without its quotes.
fn code(value: &Value) -> String {
    format!("<code>{}</code>", text(value))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => escape(&value.to_string()),
    }
}

/// What people read: words between backticks are code.
fn prose(value: &Value) -> String {
    let escaped = text(value);
    let mut parts = escaped.split('`');
    let mut html = parts.next().unwrap_or_default().to_owned();
    while let Some(word) = parts.next() {
        html += &format!("<code>{word}</code>{}", parts.next().unwrap_or_default());
    }
    html
}

fn anchor(name: &Value) -> String {
    text(name).to_lowercase().replace(' ', "-")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_in_the_document_is_no_markup() {
        assert_eq!(prose(&json!("a `<b>` & \"c\"")), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
        assert_eq!(prose(&json!("an odd ` one")), "an odd <code> one</code>");
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere_and_nothing_is_brought_in() {
        let page = page(&crate::http::openapi::document());
        let links: Vec<&str> =
            page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(links.len() > 200, "{}", links.len());
        for link in links {
            assert_eq!(page.matches(&format!("id=\"{link}\"")).count(), 1, "{link}");
        }
        for foreign in ["<script", "<img", "<link", "src=", "style=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
