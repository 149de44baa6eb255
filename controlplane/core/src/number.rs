//! Telephone numbers: E.164 as customers write them, digits as a trunk wants them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};

use crate::schema::text_schema;

/// Fewest digits that can be a number with its country code (Saint Helena has the shortest, at 4 + 3).
const DIGITS_MIN: usize = 7;
/// Most digits (ITU-T E.164 section 6.2.1).
const DIGITS_MAX: usize = 15;

/// An international number: `+` and 7 to 15 digits, the first not 0.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct E164(Box<str>);

/// Why a text is not an E.164 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an E.164 number: a + and 7 to 15 digits with the country code first, as in +48221234567")]
pub struct InvalidNumber;

impl E164 {
    /// The number with its `+`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits without the `+`.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }

    /// The number for logs: the country's part stays, the subscriber's does not (`+4822…67`).
    #[must_use]
    pub fn shortened(&self) -> String {
        let digits = self.digits();
        format!("+{}…{}", &digits[..4], &digits[digits.len() - 2..])
    }
}

impl FromStr for E164 {
    type Err = InvalidNumber;

    fn from_str(text: &str) -> Result<Self, InvalidNumber> {
        let digits = text.strip_prefix('+').ok_or(InvalidNumber)?;
        let ok = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if ok { Ok(Self(text.into())) } else { Err(InvalidNumber) }
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Debug shows what logs may show.
impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shortened())
    }
}

impl<'de> Deserialize<'de> for E164 {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

text_schema!(E164, "^\\+[1-9][0-9]{6,14}$", "+48221234567");

/// How a carrier wants the number in the INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// `+48221234567`
    #[default]
    E164Plus,
    /// `48221234567`
    E164,
    /// The national number: the country code is replaced by the trunk's `number_prefix` (often `0`).
    National,
}

/// Renders `number` for a trunk: `prefix` goes first, in every format.
///
/// `country_code` is the code that [`NumberFormat::National`] strips; a number of another country keeps its
/// international form behind the prefix `00`, which is what a national dialling plan expects.
#[must_use]
pub fn dialled(number: &E164, format: NumberFormat, prefix: &str, country_code: &str) -> String {
    match format {
        // A prefix turns it into a string of digits: nothing may stand before a plus.
        NumberFormat::E164Plus if prefix.is_empty() => number.as_str().to_owned(),
        NumberFormat::E164Plus => format!("{prefix}{}", number.digits()),
        NumberFormat::E164 => format!("{prefix}{}", number.digits()),
        NumberFormat::National => match number.digits().strip_prefix(country_code) {
            Some(national) if !country_code.is_empty() => format!("{prefix}{national}"),
            _ => format!("00{}", number.digits()),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_plus_and_digits_is_a_number() {
        for ok in ["+48221234567", "+2908123", "+123456789012345"] {
            assert!(ok.parse::<E164>().is_ok(), "{ok}");
        }
        for bad in [
            "",
            "+",
            "48221234567",
            "+0481234567",
            "+482",
            "+1234567890123456",
            "+48 22 123",
            "+48221234567\r\n",
            "+4822123456a",
            "+48221234567@evil",
            "+48221234567,1",
            "+４８２２１２３４５６７",
        ] {
            assert!(bad.parse::<E164>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_format_as_a_carrier_wants_it() {
        let n: E164 = "+48221234567".parse().unwrap();
        assert_eq!(dialled(&n, NumberFormat::E164Plus, "", ""), "+48221234567");
        assert_eq!(dialled(&n, NumberFormat::E164Plus, "99", ""), "9948221234567");
        assert_eq!(dialled(&n, NumberFormat::E164, "", ""), "48221234567");
        assert_eq!(dialled(&n, NumberFormat::E164, "99", ""), "9948221234567");
        assert_eq!(dialled(&n, NumberFormat::National, "0", "48"), "0221234567");
        assert_eq!(dialled(&n, NumberFormat::National, "0", "49"), "0048221234567");
    }

    #[test]
    fn logs_never_show_the_whole_number() {
        let n: E164 = "+48221234567".parse().unwrap();
        assert_eq!(format!("{n:?}"), "+4822…67");
    }

    proptest! {
        #[test]
        fn what_is_dialled_is_digits_with_at_most_a_leading_plus(digits in "[1-9][0-9]{6,14}", prefix in "[0-9]{0,6}") {
            let n: E164 = format!("+{digits}").parse().unwrap();
            for format in [NumberFormat::E164Plus, NumberFormat::E164, NumberFormat::National] {
                let out = dialled(&n, format, &prefix, "48");
                prop_assert!(out.strip_prefix('+').unwrap_or(&out).bytes().all(|b| b.is_ascii_digit()));
            }
        }
    }
}
