//! What a handler's signature says of its operation: what it reads and what it answers, by its types.
//!
//! A customers' route whose handler takes or answers something that is not described here does not compile.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::NoContent,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::http::{
    State,
    answer::{Accepted, Created},
    auth::Customer,
    body::{JsonBody, Told as Heard},
    problem::{Code, Problem},
};

/// The media type of nearly all bodies.
pub(in crate::http) const JSON: &str = "application/json";

/// An operation while it is written down, and the schemas of all before it.
pub(in crate::http) struct Sketch {
    /// What is read: a field that has a default may be absent.
    read: SchemaGenerator,
    /// What is answered: every field that is not skipped is there.
    answered: SchemaGenerator,
    draft: Draft,
}

/// What is known of one operation.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Value>,
    /// What is answered where all went well, by status.
    pub(super) answers: BTreeMap<u16, Answer>,
    /// What is answered otherwise.
    pub(super) codes: Vec<Code>,
}

/// One answer: its bodies by media type, and headers of its own.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) content: Map<String, Value>,
    pub(super) headers: Map<String, Value>,
}

impl Sketch {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            read: settings().for_deserialize().into_generator(),
            answered: settings().for_serialize().into_generator(),
            draft: Draft::default(),
        }
    }

    /// The operation that was sketched, to begin another.
    pub(super) fn take(&mut self) -> Draft {
        std::mem::take(&mut self.draft)
    }

    /// All schemas, and the names of those that are read another way than they are answered: there may be none.
    pub(super) fn into_schemas(mut self) -> (Map<String, Value>, Vec<String>) {
        let mut all = self.answered.take_definitions(true);
        let mut differing = Vec::new();
        for (name, schema) in self.read.take_definitions(true) {
            if all.get(&name).is_some_and(|answered| *answered != schema) {
                differing.push(name.clone());
            }
            all.insert(name, schema);
        }
        (all, differing)
    }

    /// The schema of what is read.
    pub(in crate::http) fn read<T: JsonSchema>(&mut self) -> Value {
        json!(self.read.subschema_for::<T>())
    }

    /// The schema of what is answered.
    pub(in crate::http) fn answered<T: JsonSchema>(&mut self) -> Value {
        json!(self.answered.subschema_for::<T>())
    }

    /// A body is read: of one of these media types.
    pub(in crate::http) fn body(&mut self, content: Value) {
        self.draft.body = Some(json!({"required": true, "content": content}));
    }

    /// What is in the query.
    fn query<T: JsonSchema>(&mut self) {
        let schema = json!(T::json_schema(&mut self.read));
        let is_required = |name: &str| {
            schema["required"].as_array().is_some_and(|required| required.iter().any(|word| word == name))
        };
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let mut property = without_null(property.clone());
            let text = property.as_object_mut().and_then(|property| property.remove("description"));
            let mut parameter =
                json!({"name": name, "in": "query", "required": is_required(name), "schema": property});
            if let Some(text) = text {
                parameter["description"] = text;
            }
            self.draft.parameters.push(parameter);
        }
    }

    /// It may go wrong so.
    pub(in crate::http) fn may_fail(&mut self, codes: &[Code]) {
        self.draft.codes.extend_from_slice(codes);
    }

    /// It is answered so.
    pub(in crate::http) fn answer(&mut self, status: StatusCode, media: &str, schema: Value) {
        let answer = self.draft.answers.entry(status.as_u16()).or_default();
        answer.content.insert(media.to_owned(), json!({"schema": schema}));
    }

    /// It is answered without a body.
    fn answer_nothing(&mut self, status: StatusCode) {
        self.draft.answers.entry(status.as_u16()).or_default();
    }

    /// An answer of this status may have this header.
    pub(in crate::http) fn header(&mut self, status: StatusCode, name: &str, text: &str, schema: Value) {
        let answer = self.draft.answers.entry(status.as_u16()).or_default();
        answer.headers.insert(name.to_owned(), json!({"description": text, "schema": schema}));
    }
}

/// A schema that has no null in it: a parameter is there or it is not.
fn without_null(schema: Value) -> Value {
    let Value::Object(mut object) = schema else { return schema };
    if let Some(types) = object.get("type").and_then(Value::as_array) {
        let mut types: Vec<Value> = types.iter().filter(|word| **word != "null").cloned().collect();
        let one = if types.len() == 1 { types.remove(0) } else { types.into() };
        object.insert("type".to_owned(), one);
    }
    if let Some(Value::Array(mut choices)) = object.remove("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        match choices.pop() {
            Some(Value::Object(only)) if choices.is_empty() => object.extend(only),
            last => {
                choices.extend(last);
                object.insert("anyOf".to_owned(), choices.into());
            }
        }
    }
    object.into()
}

/// Something that a handler takes.
pub(in crate::http) trait Asks {
    /// What it asks of a request.
    fn ask(sketch: &mut Sketch);
}

/// Something that a handler answers.
pub(in crate::http) trait Answers {
    /// How it looks from outside.
    fn answer(sketch: &mut Sketch);
}

/// A handler of which everything is told: it takes `Arguments`.
pub(in crate::http) trait Told<Arguments> {
    /// Sketches its operation.
    fn tell(sketch: &mut Sketch);
}

macro_rules! told {
    ($($argument:ident),*) => {
        impl<Handler, Answering, $($argument),*> Told<($($argument,)*)> for Handler
        where
            Handler: Fn($($argument),*) -> Answering,
            Answering: Future,
            <Answering as Future>::Output: Answers,
            $($argument: Asks,)*
        {
            fn tell(sketch: &mut Sketch) {
                $($argument::ask(sketch);)*
                <<Answering as Future>::Output as Answers>::answer(sketch);
            }
        }
    };
}
told!();
told!(A);
told!(A, B);
told!(A, B, C);
told!(A, B, C, D);

impl Asks for Customer {
    // What follows from a key is in the route's row.
    fn ask(_: &mut Sketch) {}
}

impl Asks for AxumState<State> {
    fn ask(_: &mut Sketch) {}
}

impl Asks for HeaderMap {
    // Which of them is in the operation's words.
    fn ask(_: &mut Sketch) {}
}

impl<T> Asks for Result<Path<T>, PathRejection> {
    // What the path names is in the route's row.
    fn ask(sketch: &mut Sketch) {
        sketch.may_fail(&[Code::NotFound]);
    }
}

impl<T: JsonSchema> Asks for Result<Query<T>, QueryRejection> {
    fn ask(sketch: &mut Sketch) {
        sketch.query::<T>();
        sketch.may_fail(&[Code::Malformed, Code::InvalidField]);
    }
}

impl<T: JsonSchema> Asks for JsonBody<T> {
    fn ask(sketch: &mut Sketch) {
        let schema = sketch.read::<T>();
        sketch.body(json!({JSON: {"schema": schema}}));
        sketch.may_fail(&[Code::Malformed, Code::InvalidField, Code::TooLarge, Code::UnsupportedMediaType]);
    }
}

impl<T: JsonSchema> Asks for Heard<T> {
    fn ask(sketch: &mut Sketch) {
        let schema = sketch.read::<T>();
        sketch.body(json!({JSON: {"schema": schema}}));
        sketch.may_fail(&[Code::Malformed, Code::InvalidField, Code::TooLarge, Code::UnsupportedMediaType]);
    }
}

impl<T: Answers> Answers for Result<T, Problem> {
    fn answer(sketch: &mut Sketch) {
        T::answer(sketch);
    }
}

impl<T: JsonSchema> Answers for Json<T> {
    fn answer(sketch: &mut Sketch) {
        let schema = sketch.answered::<T>();
        sketch.answer(StatusCode::OK, JSON, schema);
    }
}

impl<T: JsonSchema> Answers for Created<T> {
    fn answer(sketch: &mut Sketch) {
        let schema = sketch.answered::<T>();
        sketch.answer(StatusCode::CREATED, JSON, schema);
    }
}

impl<T: JsonSchema> Answers for Accepted<T> {
    fn answer(sketch: &mut Sketch) {
        let schema = sketch.answered::<T>();
        sketch.answer(StatusCode::ACCEPTED, JSON, schema);
    }
}

impl Answers for NoContent {
    fn answer(sketch: &mut Sketch) {
        sketch.answer_nothing(StatusCode::NO_CONTENT);
    }
}

impl Answers for &'static str {
    fn answer(sketch: &mut Sketch) {
        sketch.answer(StatusCode::OK, "text/plain", json!({"type": "string"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_never_null() {
        for (with, without) in [
            (json!({"type": ["integer", "null"], "minimum": 1}), json!({"type": "integer", "minimum": 1})),
            (
                json!({"description": "a", "anyOf": [{"$ref": "#/a"}, {"type": "null"}]}),
                json!({"description": "a", "$ref": "#/a"}),
            ),
            (json!({"type": "string"}), json!({"type": "string"})),
            (json!({"$ref": "#/a"}), json!({"$ref": "#/a"})),
        ] {
            assert_eq!(without_null(with), without);
        }
    }
}
