//! The words that may go into an Originate, each parsed once into a type that cannot be wrong.
//!
//! Asterisk gives meaning to `,` `)` `(` `@` `&` `/` `|` `"` `;` `$` `{` `}` and to line breaks somewhere
//! between AMI, the dial string and the dialplan, and none of those places knows an escape that all others
//! respect. So every type here admits a short list of bytes and refuses the rest; nothing is escaped or cut.

use std::fmt;
use std::str::FromStr;

/// Why a word was refused. It names the field and the offset; the value itself may be a person's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("{field} is empty")]
    Empty {
        /// The type's field name.
        field: &'static str,
    },
    /// More bytes than Asterisk keeps whole.
    #[error("{field} is {length} bytes long; at most {max} are allowed")]
    TooLong {
        /// The type's field name.
        field: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A byte that the field may not hold.
    #[error("{field} holds a character that is not allowed there, at byte {at}")]
    Character {
        /// The type's field name.
        field: &'static str,
        /// Offset in bytes.
        at: usize,
    },
}

impl InvalidName {
    /// The field that was refused, such as `number` or `endpoint`.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Empty { field } | Self::TooLong { field, .. } | Self::Character { field, .. } => field,
        }
    }
}

fn check(
    field: &'static str,
    text: &str,
    max: usize,
    allowed: impl Fn(usize, u8) -> bool,
) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { field });
    }
    // Characters first: the more telling error for text that is both.
    if let Some(at) = text.bytes().enumerate().position(|(at, byte)| !allowed(at, byte)) {
        return Err(InvalidName::Character { field, at });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { field, length: text.len(), max });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $field:literal, max $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// Parses, refusing every byte that is not on the type's list.
            ///
            /// # Errors
            /// [`InvalidName`] with the field and the offset.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                check($field, &text, $max, $allowed)?;
                Ok(Self(text))
            }

            /// The text as it goes out.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }
    };
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

name! {
    /// The channel's uniqueid, chosen by us: the attempt. Lower case, digits and `_`, 149 bytes at most.
    ///
    /// Asterisk refuses an id that is, in any case of letters, a prefix of a living one: callers keep ids
    /// to one length. It must hold at least 64 bits that nobody can guess, since events are believed by it.
    ChannelId, "channel_id", max 149, |_, b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'
}

name! {
    /// A PJSIP endpoint's name as configured on the node.
    EndpointName, "endpoint", max 64, |_, b| word(b) || b == b'.'
}

name! {
    /// What the carrier is asked to dial: digits with an optional leading `+`.
    DialDigits, "number", max 32, |at, b| b.is_ascii_digit() || (at == 0 && b == b'+')
}

name! {
    /// A dialplan context.
    ContextName, "context", max 79, |_, b| word(b)
}

name! {
    /// A dialplan extension by name; no patterns.
    Extension, "exten", max 79, |_, b| word(b) || b == b'+'
}

name! {
    /// A channel variable's name. No `(`: a name that ends in `)` is a function and writes where it likes.
    VariableName, "variable name", max 64, |at, b| b.is_ascii_alphabetic() || b == b'_' || (at > 0 && b.is_ascii_digit())
}

name! {
    /// A channel variable's value: ids, numbers, names of files by their hash.
    VariableValue, "variable value", max 200, |_, b| word(b) || matches!(b, b'.' | b'+' | b':')
}

name! {
    /// A CDR account code.
    AccountCode, "account", max 79, |_, b| word(b)
}

name! {
    /// An AstDB family.
    DbFamily, "family", max 79, |_, b| word(b)
}

name! {
    /// An AstDB key.
    DbKey, "key", max 160, |_, b| word(b) || b == b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_take_one_plus_and_only_in_front() {
        assert_eq!(DialDigits::parse("+380501234567").unwrap().as_str(), "+380501234567");
        assert!(DialDigits::parse("0501234567").is_ok());
        assert_eq!(DialDigits::parse("38+05"), Err(InvalidName::Character { field: "number", at: 2 }));
        assert_eq!(DialDigits::parse("٣"), Err(InvalidName::Character { field: "number", at: 0 }));
    }

    #[test]
    fn channel_ids_are_lower_case_and_fit_asterisk() {
        assert!(ChannelId::parse("att_0123abc").is_ok());
        assert!(ChannelId::parse("a".repeat(149)).is_ok());
        assert_eq!(ChannelId::parse("a".repeat(150)).unwrap_err().field(), "channel_id");
        assert!(ChannelId::parse("ATT").is_err());
    }
}
