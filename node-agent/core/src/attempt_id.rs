//! An attempt's id as the gate knows it: `att_` and 26 characters of lower-case Crockford base32.
//!
//! The form is the control plane's. It is parsed again here, since the gate believes no control plane, and
//! kept as its 128 bits, since the gate remembers hundreds of thousands.

use std::{fmt, str::FromStr};

const PREFIX: &str = "att_";
const SYMBOLS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const BODY_LEN: usize = 26;
/// 26 symbols hold 130 bits; the last two are zero.
const PADDING_BITS: u32 = 2;

/// One attempt, and the id of its channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(u128);

/// The text is not `att_` and 26 characters of lower-case base32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an attempt's id")]
pub struct InvalidAttemptId;

impl AttemptId {
    /// From its bits.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Parses bytes of the wire.
    ///
    /// # Errors
    /// [`InvalidAttemptId`] for any other form: another length, upper case, a symbol that is not one.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidAttemptId> {
        let body = text.strip_prefix(PREFIX.as_bytes()).filter(|body| body.len() == BODY_LEN);
        let (last, init) = body.and_then(<[u8]>::split_last).ok_or(InvalidAttemptId)?;
        let value = |symbol: &u8| SYMBOLS.iter().position(|s| s == symbol).ok_or(InvalidAttemptId);
        let mut bits: u128 = 0;
        for symbol in init {
            bits = (bits << 5) | value(symbol)? as u128;
        }
        let last = value(last)? as u128;
        if last & ((1 << PADDING_BITS) - 1) != 0 {
            return Err(InvalidAttemptId);
        }
        Ok(Self((bits << (5 - PADDING_BITS)) | (last >> PADDING_BITS)))
    }
}

impl FromStr for AttemptId {
    type Err = InvalidAttemptId;

    fn from_str(text: &str) -> Result<Self, InvalidAttemptId> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        for at in 0..BODY_LEN {
            let end = 128 + PADDING_BITS - 5 * (at as u32 + 1);
            let five = if end >= PADDING_BITS {
                self.0 >> (end - PADDING_BITS)
            } else {
                self.0 << (PADDING_BITS - end)
            };
            let symbol = SYMBOLS.get((five & 31) as usize).copied().unwrap_or(b'0');
            write!(f, "{}", char::from(symbol))?;
        }
        Ok(())
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits: u128) {
            let id = AttemptId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let good = "att_0123456789abcdefghjkmnpqr0";
        assert!(good.parse::<AttemptId>().is_ok());
        for bad in [
            "",
            "att_",
            "att_0123456789abcdefghjkmnpqr",
            "att_0123456789abcdefghjkmnpqr00",
            "ATT_0123456789abcdefghjkmnpqr0",
            "att_0123456789Abcdefghjkmnpqr0",
            "att_0123456789abcdefghjkmnpqr1",
            "att_0123456789abcdefghjkmnpil0",
            "key_0123456789abcdefghjkmnpqr0",
            "att_0123456789abcdefghjkmnpq\0r",
        ] {
            assert_eq!(bad.parse::<AttemptId>(), Err(InvalidAttemptId), "{bad:?}");
        }
    }
}
