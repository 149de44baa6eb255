//! What JSON Schema says of types that are written as one text: the pattern that they keep, and an example.
//!
//! Everything else derives its schema from what serde reads and writes. These cannot: their rules are in `FromStr`, and the
//! test below holds each pattern against it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A schema for a type that is written as a text: its name, its pattern, an example.
macro_rules! text_schema {
    ($name:ident, $pattern:expr, $example:expr) => {
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}
pub(crate) use text_schema;

/// What JSON Schema says of a moment: for fields that are written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {}

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Without an example: of a deadline there is none that is not over some day.
        json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::{prop_assert, string::string_regex, test_runner::TestRunner};
    use serde_json::json;

    use super::*;
    use crate::{
        ids::{CallId, KeyId, RecordingId},
        names::{NodeName, TrunkName},
        number::E164,
        request::{AudioId, Key, Language},
        sound::SoundHash,
    };

    /// Whatever keeps the pattern is read, and so is every example. (That nothing else is read, the fuzzer of the served
    /// document looks at.)
    fn pattern_is_read<T: JsonSchema + FromStr>() {
        let schema = json!(T::json_schema(&mut SchemaGenerator::default()));
        let name = T::schema_name();
        let examples = schema["examples"].as_array().cloned().unwrap_or_default();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            let text = example.as_str().unwrap();
            assert!(text.parse::<T>().is_ok(), "{name}: {text}");
        }
        let pattern = schema["pattern"].as_str().unwrap();
        let pattern = pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$')).unwrap();
        let longest = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        let texts = string_regex(pattern).unwrap();
        let read = TestRunner::deterministic().run(&texts, |text| {
            prop_assert!(text.len() as u64 > longest || text.parse::<T>().is_ok(), "{name}: {text}");
            Ok(())
        });
        assert!(read.is_ok(), "{read:?}");
    }

    #[test]
    fn what_keeps_a_pattern_is_read() {
        pattern_is_read::<CallId>();
        pattern_is_read::<KeyId>();
        pattern_is_read::<RecordingId>();
        pattern_is_read::<NodeName>();
        pattern_is_read::<TrunkName>();
        pattern_is_read::<E164>();
        pattern_is_read::<AudioId>();
        pattern_is_read::<Key>();
        pattern_is_read::<Language>();
        pattern_is_read::<SoundHash>();
    }
}
