//! The words of an alert: a template over JSON, and what is made of values that somebody else chose, so that a voice
//! can say them.
//!
//! A placeholder is `{{/pointer}}`, a JSON pointer (RFC 6901), or several with `|` between them, of which the first that
//! has something to say is taken. Nothing else is understood: no conditions, no loops, no functions. What a placeholder
//! puts in is never read as a template again.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de};
use serde_json::Value;

/// Longest template, in characters.
pub const TEMPLATE_MAX: usize = 500;
/// Longest pointer, in bytes.
pub const POINTER_MAX: usize = 200;
/// Most placeholders of a template, each with all its pointers.
const POINTERS_MAX: usize = 20;
/// Longest value that a placeholder puts in, in characters.
const VALUE_MAX: usize = 200;
/// Longest text that comes of a template, in characters: some forty seconds of speech.
pub const TEXT_MAX: usize = 400;

/// Why it is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// Too long, empty, or with control characters.
    #[error("a template is 1 to {TEMPLATE_MAX} characters without control characters")]
    Text,
    /// A brace that opens and does not close, or what is between them.
    #[error("a placeholder is {{{{/pointer}}}}, or {{{{/one|/or/another}}}}")]
    Placeholder,
    /// Too many.
    #[error("a template has at most {POINTERS_MAX} pointers")]
    Many,
    /// Not a JSON pointer.
    #[error(
        "a JSON pointer begins with / and has at most {POINTER_MAX} bytes; ~ is written ~0, and / in a name ~1"
    )]
    Pointer,
}

/// Where in a JSON document something stands (RFC 6901). The whole document is no such place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first name on its way.
    pub(crate) fn first(&self) -> &str {
        self.0[1..].split('/').next().unwrap_or_default()
    }

    /// What stands there as a word: a text, a number or a truth value. `None`: nothing, or something with parts.
    #[must_use]
    pub fn word<'v>(&self, document: &'v Value) -> Option<Cow<'v, str>> {
        match document.pointer(&self.0)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(is_so) => Some(Cow::Owned(is_so.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

impl FromStr for Pointer {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let clean = !text.chars().any(char::is_control);
        if text.starts_with('/') && text.len() <= POINTER_MAX && escapes && clean {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTemplate::Pointer)
        }
    }
}

/// What is said of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Words(Box<str>),
    Value(Vec<Pointer>),
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let length = text.chars().take(TEMPLATE_MAX + 1).count();
        if text.trim().is_empty() || length > TEMPLATE_MAX || text.chars().any(char::is_control) {
            return Err(InvalidTemplate::Text);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((words, opened)) = rest.split_once("{{") {
            let (inside, behind) = opened.split_once("}}").ok_or(InvalidTemplate::Placeholder)?;
            parts.push(Part::Words(words.into()));
            let pointers: Result<Vec<Pointer>, _> = inside.split('|').map(|p| p.trim().parse()).collect();
            parts.push(Part::Value(pointers?));
            rest = behind;
        }
        if rest.contains("}}") || parts.iter().any(|part| matches!(part, Part::Words(w) if w.contains("}}")))
        {
            return Err(InvalidTemplate::Placeholder);
        }
        parts.push(Part::Words(rest.into()));
        let template = Self { text: text.into(), parts };
        if template.pointers().count() > POINTERS_MAX { Err(InvalidTemplate::Many) } else { Ok(template) }
    }
}

impl Template {
    /// Every pointer in it.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.parts.iter().flat_map(|part| match part {
            Part::Words(_) => [].iter(),
            Part::Value(pointers) => pointers.iter(),
        })
    }

    /// What it says of a document; empty, if that is nothing.
    #[must_use]
    pub fn render(&self, document: &Value) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Words(words) => text.push_str(words),
                Part::Value(pointers) => {
                    let said = pointers.iter().filter_map(|pointer| pointer.word(document));
                    text.push_str(
                        &said
                            .map(|word| speakable(&word, VALUE_MAX))
                            .find(|word| !word.is_empty())
                            .unwrap_or_default(),
                    );
                }
            }
        }
        speakable(&text, TEXT_MAX)
    }
}

/// A text as a voice can say it, at most so many characters, cut between words: no control characters, no marks that a
/// voice would spell out or an engine could take for markup, no addresses of the Web.
#[must_use]
pub fn speakable(text: &str, max: usize) -> String {
    let spoken = |c: char| {
        let is_mark = matches!(
            c,
            '<' | '>'
                | '{'
                | '}'
                | '['
                | ']'
                | '('
                | ')'
                | '|'
                | '*'
                | '#'
                | '`'
                | '"'
                | '^'
                | '~'
                | '\\'
                | '_'
                | '='
                | '$'
        );
        // Private use, byte order marks and what turns the direction of writing are no letters either.
        let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}');
        if c.is_control() || is_mark || is_hidden { ' ' } else { c }
    };
    let mut words = String::new();
    let mut length = 0;
    for word in text.split_whitespace().filter(|word| !word.contains("://")) {
        let clean: String = word.chars().map(spoken).collect();
        for word in clean.split_whitespace() {
            let room = max.saturating_sub(length + usize::from(length > 0));
            let long = word.chars().count();
            if long > room {
                // One word that is too long alone is cut; any other is left out, with what follows.
                if length == 0 {
                    words.extend(word.chars().take(max));
                }
                return words;
            }
            if length > 0 {
                words.push(' ');
                length += 1;
            }
            words.push_str(word);
            length += long;
        }
    }
    words
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

macro_rules! read_from_text {
    ($($name:ident)+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
read_from_text!(Template Pointer);

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": TEMPLATE_MAX,
            "description": "Words, and `{{/pointer}}` where a value is put in: a JSON pointer, or several with `|` between them, of which \
                            the first that has something to say is taken.",
            "examples": ["{{/title|/id}} on {{/host}}"],
        })
    }
}

impl JsonSchema for Pointer {
    fn schema_name() -> Cow<'static, str> {
        "JsonPointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "maxLength": POINTER_MAX, "pattern": "^/([^~\\x00-\\x1f\\x7f]|~[01])*$",
            "description": "A JSON pointer (RFC 6901).", "examples": ["/incident/id"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &str, document: &Value) -> String {
        template.parse::<Template>().unwrap().render(document)
    }

    #[test]
    fn the_first_pointer_that_has_something_to_say_is_taken() {
        let document =
            json!({"a": {"b/c": "one", "n": 7, "yes": true, "none": null, "many": [1], "blank": " "}});
        for (template, said) in [
            ("{{/a/b~1c}} of {{/a/n}}", "one of 7"),
            ("{{/a/none|/a/many|/a/blank|/a/yes}}", "true"),
            ("{{ /a/x | /a/n }}!", "7!"),
            ("{{/a/x}}", ""),
            ("no placeholder", "no placeholder"),
        ] {
            assert_eq!(render(template, &document), said, "{template}");
        }
    }

    #[test]
    fn what_is_put_in_is_no_template_and_no_markup() {
        let document = json!({
            "a": "{{/secret}} <speak>boo</speak> &lt; a_b [x] https://example.com/x?y=z\u{0}\u{202e}\u{1b}[2J\nnext", "secret": "s"
        });
        assert_eq!(render("{{/a}}", &document), "/secret speak boo /speak &lt; a b x next");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let many = "{{/a}}".repeat(POINTERS_MAX + 1);
        for (wrong, why) in [
            ("", InvalidTemplate::Text),
            (" ", InvalidTemplate::Text),
            ("a\nb", InvalidTemplate::Text),
            ("{{/a", InvalidTemplate::Placeholder),
            ("/a}}", InvalidTemplate::Placeholder),
            ("{{}}", InvalidTemplate::Pointer),
            ("{{a}}", InvalidTemplate::Pointer),
            ("{{/a|}}", InvalidTemplate::Pointer),
            ("{{/a~2}}", InvalidTemplate::Pointer),
            (many.as_str(), InvalidTemplate::Many),
        ] {
            assert_eq!(wrong.parse::<Template>(), Err(why), "{wrong}");
        }
    }

    proptest! {
        /// Whatever is put in: short enough, in one line, and nothing that an engine could take for a command of its own.
        #[test]
        fn any_value_is_speakable(value in any::<String>(), max in 1_usize..60) {
            let text = speakable(&value, max);
            prop_assert!(text.chars().count() <= max);
            prop_assert!(!text.chars().any(|c| c.is_control() || "<>{}[]|*#`\"\\".contains(c)), "{text}");
            prop_assert_eq!(text.trim(), text.as_str());
            prop_assert_eq!(speakable(&text, max), text.clone());
        }

        #[test]
        fn any_template_renders_within_its_bound(template in ".{1,60}", value in any::<String>()) {
            if let Ok(template) = template.parse::<Template>() {
                let length = template.render(&json!({"a": value})).chars().count();
                prop_assert!(length <= TEXT_MAX);
                prop_assert_eq!(serde_json::from_value::<Template>(json!(template)).unwrap(), template);
            }
        }
    }
}
