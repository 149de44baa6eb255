//! An action on its way out. Nothing that could become a second header or a second action gets in.

use crate::message::Message;

/// Longest line that Asterisk takes, CR and LF included; it refuses longer ones.
pub const ACTION_LINE_MAX: usize = 1024;

/// Most headers in one action: Asterisk reads 256 at most (`AST_MAX_MANHEADERS`, 128 before 16).
pub const ACTION_HEADERS_MAX: usize = 120;

/// Why a header was refused; the value itself is not repeated, it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// CR, LF or NUL in a name or a value: a bare LF ends a line as well (manager.c `get_input`).
    #[error("{field} holds a line break or NUL at byte {at}")]
    LineBreak {
        /// The header's name, or `header name` if the name itself is at fault.
        field: String,
        /// Offset in bytes.
        at: usize,
    },
    /// The line with its end is longer than [`ACTION_LINE_MAX`].
    #[error("{field} makes a line of {length} bytes; Asterisk takes {ACTION_LINE_MAX}")]
    TooLong {
        /// The header's name.
        field: String,
        /// Bytes with CR and LF.
        length: usize,
    },
    /// The header's name is empty or holds something other than letters, digits, `-` and `_`.
    #[error("header name has a byte that no AMI header has at byte {at}")]
    Name {
        /// Offset in bytes.
        at: usize,
    },
    /// `Action` and `ActionID` belong to the client, and an action has [`ACTION_HEADERS_MAX`] headers at most.
    #[error("{field} cannot be added to an action")]
    NotAllowed {
        /// The header's name.
        field: String,
    },
}

/// One action with its headers, valid by construction. The client adds the `ActionID`.
#[derive(Clone, PartialEq, Eq)]
pub struct Action {
    name: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Action {
    /// An action by its AMI name.
    ///
    /// # Errors
    /// [`InvalidValue`] if the name is anything but letters and digits.
    pub fn new(name: &str) -> Result<Self, InvalidValue> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), headers: Vec::new() })
    }

    /// For names that are written in this crate.
    pub(crate) fn fixed(name: &'static str) -> Self {
        Self { name: name.to_owned(), headers: Vec::new() }
    }

    /// Adds a header; the same name may be added again (`Variable`).
    ///
    /// # Errors
    /// [`InvalidValue`] names the field. Nothing is cut or escaped: AMI knows no escaping.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, InvalidValue> {
        let value = value.as_ref();
        check_name(name)?;
        let field = name.to_owned();
        let reserved = ["Action", "ActionID"].iter().any(|r| name.eq_ignore_ascii_case(r));
        if reserved || self.headers.len() >= ACTION_HEADERS_MAX {
            return Err(InvalidValue::NotAllowed { field });
        }
        if let Some(at) = value.iter().position(|b| matches!(b, b'\r' | b'\n' | 0)) {
            return Err(InvalidValue::LineBreak { field, at });
        }
        let length = name.len() + 2 + value.len() + 2;
        if length > ACTION_LINE_MAX {
            return Err(InvalidValue::TooLong { field, length });
        }
        self.headers.push((field, value.to_vec()));
        Ok(self)
    }

    /// The action's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes for the wire, with this correlation id.
    pub(crate) fn encode(&self, action_id: &str) -> Vec<u8> {
        let own = [("Action", self.name.as_bytes()), ("ActionID", action_id.as_bytes())];
        let rest = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        Message::from_pairs(own.into_iter().chain(rest)).encode()
    }
}

impl std::fmt::Debug for Action {
    /// Names only: values may be numbers of people or a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.headers.iter().map(|(name, _)| name);
        write!(f, "Action {} ", self.name)?;
        f.debug_list().entries(names).finish()
    }
}

fn check_name(name: &str) -> Result<(), InvalidValue> {
    let odd = |b: u8| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match name.bytes().position(odd) {
        Some(at) => Err(InvalidValue::Name { at }),
        None if name.is_empty() || name.len() > 64 => Err(InvalidValue::Name { at: name.len() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_1024_bytes_passes_and_one_more_does_not() {
        let room = ACTION_LINE_MAX - "Key: \r\n".len();
        assert!(Action::fixed("DBGet").header("Key", "x".repeat(room)).is_ok());
        let refused = Action::fixed("DBGet").header("Key", "x".repeat(room + 1));
        assert_eq!(refused, Err(InvalidValue::TooLong { field: "Key".into(), length: 1025 }));
    }

    #[test]
    fn debug_shows_no_value() {
        let action = Action::fixed("Login").header("Secret", "hunter2");
        assert_eq!(format!("{action:?}"), r#"Ok(Action Login ["Secret"])"#);
    }
}
