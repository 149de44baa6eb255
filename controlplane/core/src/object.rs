//! Reading what has to be a JSON object.
//!
//! What serde derives for a struct takes an array too, its fields in their order: `"failover": [3]` would be understood
//! today, and mean something else once a field is added.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
    forward_to_deserialize_any,
};

/// A value that was written as an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(OnlyObject(deserializer)).map(Self)
    }
}

/// Shows whoever reads a struct or anything else an object alone. A struct is still asked for as one, by its name and
/// fields: what is stored is read by a deserializer that looks at them.
struct OnlyObject<T>(T);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OnlyObject<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(OnlyObject(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, OnlyObject(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for OnlyObject<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(map)
    }
}

/// Reads an object, for `deserialize_with`.
///
/// # Errors
/// It is none, or not a `T`.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// Reads an object or null, for `deserialize_with`.
///
/// # Errors
/// It is neither, or not a `T`.
pub fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        first: u8,
        #[serde(default)]
        second: u8,
    }

    #[test]
    fn an_array_is_no_object() {
        let read = |json| serde_json::from_str::<Object<Pair>>(json).map(|Object(pair)| pair);
        assert_eq!(read(r#"{"first": 1}"#).unwrap(), Pair { first: 1, second: 0 });
        for wrong in ["[1, 2]", "[1]", "null", "1", r#"{"first": 1, "third": 3}"#, r#"{"second": 1}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let any = |json| serde_json::from_str::<Object<serde_json::Value>>(json);
        assert!(any(r#"{"first": 1}"#).is_ok() && any("[1]").is_err() && any("null").is_err());
        // That the type itself takes arrays is why this is here.
        assert!(serde_json::from_str::<Pair>("[1, 2]").is_ok());
    }
}
