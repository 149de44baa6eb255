//! Typed, prefixed identifiers: `call_…`, `att_…`, `org_…`, `key_…`.
//!
//! An id is its prefix and 26 characters of lower-case Crockford base32 (128 bits), always of one length.
//! Length and case matter beyond taste: Asterisk refuses an Originate whose `ChannelId` is a prefix of a
//! living one, ignoring case (measured on 22.10), so ids that become channel ids are of one length and
//! lower case by construction.

use std::{fmt, str::FromStr, sync::LazyLock};

use data_encoding::{Encoding, Specification};
use rand::RngCore;
use serde::{Deserialize, Serialize, de};
use time::OffsetDateTime;

use crate::schema::text_schema;

/// Characters after the prefix: 128 bits in base32.
const BODY_LEN: usize = 26;

#[allow(clippy::expect_used, reason = "a constant specification; any test of this file would fail")]
static CROCKFORD: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.encoding().expect("32 distinct symbols")
});

/// Why a text is not an id of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {expected}…: prefix and 26 characters of lower-case base32")]
pub struct InvalidId {
    expected: &'static str,
}

fn parse(text: &str, prefix: &'static str) -> Result<Box<str>, InvalidId> {
    let invalid = InvalidId { expected: prefix };
    let body = text.strip_prefix(prefix).ok_or(invalid.clone())?;
    if body.len() != BODY_LEN || CROCKFORD.decode(body.as_bytes()).is_err() {
        return Err(invalid);
    }
    Ok(text.into())
}

/// 128 random bits. For ids that nobody outside may guess.
fn random(rng: &mut impl RngCore) -> [u8; 16] {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// 48 bits of milliseconds since the epoch, then 80 random bits: ids sort by the time they were made.
fn time_ordered(now: OffsetDateTime, rng: &mut impl RngCore) -> [u8; 16] {
    let mut bytes = random(rng);
    let ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    bytes
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id as it is written everywhere: JSON, SQL, logs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            fn from_bits(bits: [u8; 16]) -> Self {
                Self(format!("{}{}", $prefix, CROCKFORD.encode(&bits)).into_boxed_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse(text, $prefix).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        // 128 bits fill 26 characters but for two bits, which are 0.
        text_schema!(
            $name,
            concat!("^", $prefix, "[0-9a-hjkmnp-tv-z]{25}[048cgmrw]$"),
            concat!($prefix, "01kb2j5n8fg3v6q9x4c7t0w2yr")
        );
    };
}

macro_rules! time_ordered_id {
    ($name:ident) => {
        impl $name {
            /// A new id that sorts after those made in earlier milliseconds.
            #[must_use]
            pub fn new(now: OffsetDateTime, rng: &mut impl RngCore) -> Self {
                Self::from_bits(time_ordered(now, rng))
            }
        }
    };
}

typed_id!(
    /// A customer's request for a call. Sorts by creation, so that it serves as a list cursor.
    CallId,
    "call_"
);
typed_id!(
    /// One Originate of a call; also the channel's id in Asterisk. Wholly random: events are believed only
    /// because nobody outside can guess it, and it never goes out in SIP.
    AttemptId,
    "att_"
);
typed_id!(
    /// A customer organisation.
    OrgId,
    "org_"
);
typed_id!(
    /// An API key's public identity (not its secret).
    KeyId,
    "key_"
);
typed_id!(
    /// One HTTP request, in logs, errors and audit rows.
    RequestId,
    "req_"
);
typed_id!(
    /// One event of a call, as the outbox and customers' event streams carry it.
    EventId,
    "evt_"
);
typed_id!(
    /// One row of the audit log.
    AuditId,
    "aud_"
);
typed_id!(
    /// A recording that a customer uploaded.
    RecordingId,
    "audio_"
);
typed_id!(
    /// A customer's receiver of events.
    EndpointId,
    "we_"
);
typed_id!(
    /// Where a customer's alerts come in.
    HookId,
    "hook_"
);
typed_id!(
    /// What alerts of one group have become: who is phoned about them, until somebody acknowledges.
    IncidentId,
    "inc_"
);
typed_id!(
    /// What an operator says to everybody.
    NoticeId,
    "ntc_"
);
typed_id!(
    /// Something that happened on a node and is kept there until the control plane has it durably.
    FactId,
    "fact_"
);
typed_id!(
    /// One run of a control plane among several on one database: another one after each start.
    ReplicaId,
    "rep_"
);
typed_id!(
    /// An AMI stream that the control plane asks an agent to dial. Wholly random: knowing it is part of the
    /// proof that whoever dials was asked.
    StreamId,
    "ami_"
);
time_ordered_id!(CallId);
time_ordered_id!(OrgId);
time_ordered_id!(KeyId);
time_ordered_id!(RequestId);
time_ordered_id!(EventId);
time_ordered_id!(AuditId);
time_ordered_id!(RecordingId);
time_ordered_id!(EndpointId);
time_ordered_id!(HookId);
time_ordered_id!(IncidentId);
time_ordered_id!(NoticeId);
time_ordered_id!(FactId);

impl AttemptId {
    /// A new id of 128 random bits. `rng` must be cryptographically secure outside tests.
    #[must_use]
    pub fn new(rng: &mut impl RngCore) -> Self {
        Self::from_bits(random(rng))
    }
}

impl ReplicaId {
    /// A new id of 128 random bits.
    #[must_use]
    pub fn new(rng: &mut impl RngCore) -> Self {
        Self::from_bits(random(rng))
    }
}

impl StreamId {
    /// A new id of 128 random bits. `rng` must be cryptographically secure outside tests.
    #[must_use]
    pub fn new(rng: &mut impl RngCore) -> Self {
        Self::from_bits(random(rng))
    }
}

impl EventId {
    /// Below every id that is made `at` or later.
    #[must_use]
    pub fn earliest(at: OffsetDateTime) -> Self {
        let ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        Self::from_bits(bytes)
    }
}

impl OrgId {
    /// The organisation that exists from the first migration: one org is enough for a small fleet.
    #[must_use]
    pub fn first() -> Self {
        Self::from_bits([0; 16])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;

    use super::*;

    proptest! {
        #[test]
        fn attempt_ids_are_lower_case_and_of_one_length(seed: u64) {
            let id = AttemptId::new(&mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(id.as_str().len(), 30);
            prop_assert!(id.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            prop_assert_eq!(id.as_str().parse::<AttemptId>().unwrap(), id);
        }

        #[test]
        fn foreign_text_is_never_an_id(text in ".{0,40}") {
            if let Ok(id) = text.parse::<CallId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn call_ids_sort_by_time() {
        let rng = &mut StdRng::seed_from_u64(1);
        let at = datetime!(2026-11-24 10:00 UTC);
        let ids: Vec<_> =
            (0..100).map(|ms| CallId::new(at + time::Duration::milliseconds(ms), rng)).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn ids_of_another_kind_upper_case_or_wrong_length_are_refused() {
        let id = CallId::new(datetime!(2026-11-24 10:00 UTC), &mut StdRng::seed_from_u64(1)).to_string();
        assert!(id.parse::<AttemptId>().is_err());
        assert!(id.to_uppercase().parse::<CallId>().is_err());
        assert!(id[..id.len() - 1].parse::<CallId>().is_err());
        assert!(format!("{id}0").parse::<CallId>().is_err());
    }
}
