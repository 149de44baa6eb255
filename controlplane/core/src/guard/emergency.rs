//! Numbers that an emergency service would answer, seen as the trunk will dial them.
//!
//! In international form none can be: a plus, or a calling code and at least seven digits, is no short number. In
//! national form a trunk without a prefix dials what the customer wrote behind the calling code, so that `+1911…`
//! becomes `911…`, which many exchanges connect before they have read the rest.

use super::emergency_codes::BY_CALLING_CODE;
use crate::{
    fleet::Trunk,
    number::{E164, NumberFormat},
};

/// What every network takes for a call of distress: 112 and 911 (3GPP TS 22.101 section 10.1.1), and 999.
const EVERYWHERE: [&str; 3] = ["112", "911", "999"];
/// A shorter code begins too many common numbers: it is one only by itself.
const STEM_MIN: usize = 3;

/// The emergency code that `trunk` would dial for `to`, if it would dial one. No policy opens that.
#[must_use]
pub fn emergency(trunk: &Trunk, to: &E164) -> Option<&'static str> {
    match trunk.number_format {
        NumberFormat::E164Plus | NumberFormat::E164 => None,
        NumberFormat::National => {
            let dialled = trunk.dialled(to);
            // The prefix may be what an exchange takes away: then what is behind it is dialled.
            let bare = dialled.strip_prefix(trunk.number_prefix.as_str()).unwrap_or(&dialled);
            let country = trunk.country_code.as_str();
            let codes =
                BY_CALLING_CODE.iter().find(|(code, _)| *code == country).map_or(&[][..], |(_, codes)| codes);
            let reached = |code: &str| {
                dialled == code || bare == code || (code.len() >= STEM_MIN && dialled.starts_with(code))
            };
            EVERYWHERE.iter().chain(codes).copied().find(|code| reached(code))
        }
    }
}
