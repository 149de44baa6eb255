//! JSON that another release may have written: fields that this one does not know are passed over.
//!
//! Doors refuse unknown fields, since a misspelt one must not be ignored, and the types say so
//! (`deny_unknown_fields`). What is stored went through a door once; it is read by what the types know.

use serde::{
    Deserializer,
    de::{DeserializeOwned, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};

/// Reads `T` without the fields that it, and the structs in its fields, do not name.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

struct Lenient(Value);

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Object(map) = self.0 else { return self.0.deserialize_struct(name, fields, visitor) };
        let known = map.into_iter().filter(|(key, _)| fields.contains(&key.as_str()));
        visitor.visit_map(MapDeserializer::new(known.map(|(key, value)| (key, Self(value)))))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use controlplane_core::request::CallRequest;
    use serde_json::json;

    use super::from_value;

    #[test]
    fn every_field_that_is_known_is_read() {
        let full = json!({
            "to": "+48221234567", "from": "+48221234568", "message": {"audio_id": "builtin:beep", "repeat": 2},
            "progress_timeout_s": 9, "ring_timeout_s": 26, "time_limit_s": 121, "failover": {"attempts_max": 4},
            "on_unknown": "fail", "deadline_at": "2026-11-24T12:00:00Z", "dedup_key": "alert-1",
            "metadata": {"ticket": "Ü 1"},
            "acknowledgement": {"keys": {"1": "acknowledge", "#": "repeat"}, "timeout_s": 9},
            "machine_detection": {"mode": "detect", "on_machine": "continue"},
            "redial": {"on": ["busy"], "max": 3, "delay_s": 61},
            "callback": {"url": "https://example.com/hook", "events": ["call.*"]}
        });
        let strict: CallRequest = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(from_value::<CallRequest>(full.clone()).unwrap(), strict);
        assert_eq!(serde_json::to_value(&strict).unwrap(), full, "the example names every field");
        let mut newer = full;
        newer["voice"] = json!({"deep": [1, null]});
        newer["message"]["gain_db"] = json!(-3);
        newer["failover"]["spread"] = json!(null);
        newer["redial"]["spread_s"] = json!(5);
        newer["acknowledgement"]["pin"] = json!("1234");
        assert_eq!(from_value::<CallRequest>(newer).unwrap(), strict);
    }

    #[test]
    fn what_is_known_must_be_right() {
        for wrong in [
            json!({"to": "+48221234567"}),
            json!({"to": "+48221234567", "message": {"audio_id": "builtin:of-the-future"}}),
            json!({"to": 5, "message": {"audio_id": "builtin:beep"}}),
            json!({"to": "+48221234567", "message": {"audio_id": "builtin:beep", "repeat": 300}}),
            json!([]),
        ] {
            assert!(from_value::<CallRequest>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
