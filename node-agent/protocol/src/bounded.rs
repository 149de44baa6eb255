//! Texts and lists that cannot be longer than their bound.
//!
//! The writer cuts (`Text::cut`, `List::first`), so that an observation is never lost for being long; the
//! reader refuses, so that the other side cannot make it hold more than it means to.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Deserializer, Serialize, de};

/// More than the bound, or characters that no text here holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverBound {
    /// Too long.
    #[error("longer than {max} bytes")]
    Text {
        /// The bound.
        max: usize,
    },
    /// Control characters: they have no meaning here, and one in logs or tables.
    #[error("holds control characters")]
    Control,
    /// Too many.
    #[error("more than {max} items")]
    List {
        /// The bound.
        max: usize,
    },
}

/// At most `MAX` bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Text<const MAX: usize>(Box<str>);

impl<const MAX: usize> Text<MAX> {
    /// As much of `text` as fits, with U+FFFD for each control character.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(MAX));
        for c in text.chars() {
            let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            if kept.len() + c.len_utf8() > MAX {
                break;
            }
            kept.push(c);
        }
        Self(kept.into_boxed_str())
    }

    /// The text whole.
    ///
    /// # Errors
    /// [`OverBound`] if it does not fit or holds control characters.
    pub fn whole(text: &str) -> Result<Self, OverBound> {
        if text.len() > MAX {
            return Err(OverBound::Text { max: MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(OverBound::Control);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::whole(&text).map_err(de::Error::custom)
    }
}

/// At most `MAX` items.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The first `MAX` of `items`; the rest is not looked at.
    pub fn first(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(MAX).collect())
    }

    /// All of `items`.
    ///
    /// # Errors
    /// [`OverBound`] if there are more.
    pub fn whole(items: Vec<T>) -> Result<Self, OverBound> {
        if items.len() > MAX { Err(OverBound::List { max: MAX }) } else { Ok(Self(items)) }
    }

    /// The items.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T, const MAX: usize> IntoIterator for List<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let items = Vec::deserialize(d)?;
        Self::whole(items).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_cuts_at_a_character_and_the_reader_refuses() {
        assert_eq!(Text::<4>::cut("añb\n").as_str(), "añb");
        assert_eq!(Text::<5>::cut("aéé").as_str(), "aéé");
        assert_eq!(Text::<2>::cut("é").as_str(), "é");
        assert_eq!(Text::<1>::cut("é").as_str(), "");
        assert_eq!(Text::<9>::cut("a\r\0b").as_str(), "a\u{fffd}\u{fffd}b");
        assert!(serde_json::from_str::<Text<3>>("\"abcd\"").is_err());
        assert!(serde_json::from_str::<Text<3>>("\"a\\u0000\"").is_err());
        assert_eq!(List::<_, 2>::first([1, 2, 3]).into_vec(), [1, 2]);
        assert!(serde_json::from_str::<List<u8, 2>>("[1,2,3]").is_err());
    }
}
