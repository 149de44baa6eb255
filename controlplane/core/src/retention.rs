//! How long what is of an organisation is kept, in days. What an operator does not set for it is as the server's settings say;
//! what he sets is never longer than they say, also where they were changed after it.

use serde::{Deserialize, Serialize};

/// Longest, in days.
pub const DAYS_MAX: u16 = 3_650;
/// Events are kept for no longer than a receiver may be behind; calls outlive their events.
pub const EVENTS_DAYS_MAX: u16 = 7;

/// How long everything is kept: calls, and what is in them, after their end; recordings and events after they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Calls with their attempts, in days; then their events and deliveries go too.
    pub calls_days: u16,
    /// The number in a call, in days; then another stands in its place.
    pub numbers_days: u16,
    /// The text in a call, and its metadata, in days.
    pub texts_days: u16,
    /// Recordings, in days; 0: until their owner deletes them.
    pub recordings_days: u16,
    /// Events, and with them what webhooks send and what came of it, in days. What is still to be delivered stays.
    pub events_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            calls_days: 90,
            numbers_days: 90,
            texts_days: 90,
            recordings_days: 0,
            events_days: EVENTS_DAYS_MAX,
        }
    }
}

/// What an operator has set for one organisation; `None`: as the server's settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrgRetention {
    /// See [`Retention::calls_days`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_days: Option<u16>,
    /// See [`Retention::numbers_days`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbers_days: Option<u16>,
    /// See [`Retention::texts_days`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub texts_days: Option<u16>,
    /// See [`Retention::recordings_days`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recordings_days: Option<u16>,
    /// See [`Retention::events_days`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_days: Option<u16>,
}

/// Days that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{param}: {least} to {most}")]
pub struct InvalidDays {
    /// Of what.
    pub param: &'static str,
    /// The fewest.
    pub least: u16,
    /// The most.
    pub most: u16,
}

/// As long as anything may be kept on any server.
const LONGEST: Retention = Retention {
    calls_days: DAYS_MAX,
    numbers_days: DAYS_MAX,
    texts_days: DAYS_MAX,
    recordings_days: 0,
    events_days: EVENTS_DAYS_MAX,
};

impl Retention {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first that is out of them.
    pub fn validate(self) -> Result<(), InvalidDays> {
        OrgRetention {
            calls_days: Some(self.calls_days),
            numbers_days: Some(self.numbers_days),
            texts_days: Some(self.texts_days),
            recordings_days: Some(self.recordings_days),
            events_days: Some(self.events_days),
        }
        .validate(LONGEST)
    }
}

impl OrgRetention {
    /// Checks the bounds: nothing is kept for longer than on the whole server. Idempotency keys are kept for a day after a
    /// call's end, and its events for up to seven.
    ///
    /// # Errors
    /// The first that is out of them.
    pub fn validate(self, server: Retention) -> Result<(), InvalidDays> {
        // 0 is for ever, which is longer than any days.
        let (recordings_least, recordings_most) = match server.recordings_days {
            0 => (0, DAYS_MAX),
            most => (1, most),
        };
        let bounds = [
            ("calls_days", self.calls_days, EVENTS_DAYS_MAX + 1, server.calls_days),
            ("numbers_days", self.numbers_days, 1, server.numbers_days),
            ("texts_days", self.texts_days, 1, server.texts_days),
            ("recordings_days", self.recordings_days, recordings_least, recordings_most),
            ("events_days", self.events_days, 1, server.events_days),
        ];
        let wrong = bounds
            .into_iter()
            .find(|(_, days, least, most)| days.is_some_and(|days| !(*least..=*most).contains(&days)));
        wrong.map_or(Ok(()), |(param, _, least, most)| Err(InvalidDays { param, least, most }))
    }

    /// What is in force under the server's settings: the shorter of both, which are not as they were when this was set.
    #[must_use]
    pub fn within(self, server: Retention) -> Retention {
        let shorter = |own: Option<u16>, most: u16| own.map_or(most, |own| own.min(most));
        Retention {
            calls_days: shorter(self.calls_days, server.calls_days),
            numbers_days: shorter(self.numbers_days, server.numbers_days),
            texts_days: shorter(self.texts_days, server.texts_days),
            recordings_days: match (self.recordings_days, server.recordings_days) {
                (None | Some(0), days) | (Some(days), 0) => days,
                (Some(own), most) => own.min(most),
            },
            events_days: shorter(self.events_days, server.events_days),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_bounds() {
        let read = |json: &str| serde_json::from_str::<OrgRetention>(json).unwrap();
        for good in [
            "{}",
            r#"{"calls_days": 8, "numbers_days": 1, "texts_days": 1, "recordings_days": 0, "events_days": 1}"#,
            r#"{"calls_days": 3650, "numbers_days": 3650, "texts_days": 3650, "recordings_days": 3650, "events_days": 7}"#,
        ] {
            assert_eq!(read(good).validate(LONGEST), Ok(()), "{good}");
        }
        for (json, said) in [
            (r#"{"calls_days": 7}"#, "calls_days: 8 to 3650"),
            (r#"{"calls_days": 3651}"#, "calls_days: 8 to 3650"),
            (r#"{"numbers_days": 0}"#, "numbers_days: 1 to 3650"),
            (r#"{"texts_days": 0}"#, "texts_days: 1 to 3650"),
            (r#"{"recordings_days": 3651}"#, "recordings_days: 0 to 3650"),
            (r#"{"events_days": 0}"#, "events_days: 1 to 7"),
            (r#"{"events_days": 8}"#, "events_days: 1 to 7"),
        ] {
            assert_eq!(read(json).validate(LONGEST).unwrap_err().to_string(), said);
        }
        assert!(serde_json::from_str::<OrgRetention>(r#"{"call_days": 9}"#).is_err());
        assert_eq!(Retention::default().validate(), Ok(()));
    }

    #[test]
    fn nothing_is_set_that_is_longer_than_the_server_keeps_it() {
        let read = |json: &str| serde_json::from_str::<OrgRetention>(json).unwrap();
        let server = Retention {
            calls_days: 30,
            numbers_days: 20,
            texts_days: 10,
            recordings_days: 40,
            events_days: 3,
        };
        assert_eq!(OrgRetention::default().validate(server), Ok(()));
        let most = r#"{"calls_days": 30, "numbers_days": 20, "texts_days": 10, "recordings_days": 40, "events_days": 3}"#;
        assert_eq!(read(most).validate(server), Ok(()));
        for (json, said) in [
            (r#"{"calls_days": 31}"#, "calls_days: 8 to 30"),
            (r#"{"numbers_days": 21}"#, "numbers_days: 1 to 20"),
            (r#"{"texts_days": 11}"#, "texts_days: 1 to 10"),
            (r#"{"recordings_days": 41}"#, "recordings_days: 1 to 40"),
            (r#"{"recordings_days": 0}"#, "recordings_days: 1 to 40"),
            (r#"{"events_days": 4}"#, "events_days: 1 to 3"),
        ] {
            assert_eq!(read(json).validate(server).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn what_is_not_set_is_the_server_s() {
        let server = Retention { texts_days: 30, ..Retention::default() };
        assert_eq!(OrgRetention::default().within(server), server);
        let own = OrgRetention { calls_days: Some(8), ..OrgRetention::default() };
        assert_eq!(own.within(server), Retention { calls_days: 8, ..server });
        assert_eq!(serde_json::to_string(&OrgRetention::default()).unwrap(), "{}");
    }

    /// Days of recordings, where 0 is for ever.
    fn length(days: u16) -> u32 {
        if days == 0 { u32::MAX } else { u32::from(days) }
    }

    proptest::proptest! {
        /// Whatever was set, and whatever the server's settings have become since.
        #[test]
        fn what_is_in_force_is_never_longer_than_the_server_s_and_never_longer_than_what_is_set(
            own in proptest::array::uniform5(proptest::option::of(0..=DAYS_MAX)),
            of_server in proptest::array::uniform5(0..=DAYS_MAX),
        ) {
            let [calls_days, numbers_days, texts_days, recordings_days, events_days] = own;
            let set = OrgRetention { calls_days, numbers_days, texts_days, recordings_days, events_days };
            let [calls_days, numbers_days, texts_days, recordings_days, events_days] = of_server;
            let server = Retention { calls_days, numbers_days, texts_days, recordings_days, events_days };
            let now = set.within(server);
            for (now, own, server) in [
                (now.calls_days, set.calls_days, server.calls_days),
                (now.numbers_days, set.numbers_days, server.numbers_days),
                (now.texts_days, set.texts_days, server.texts_days),
                (now.events_days, set.events_days, server.events_days),
            ] {
                proptest::prop_assert_eq!(now, own.unwrap_or(server).min(server));
            }
            let recordings = set.recordings_days.map_or(u32::MAX, length).min(length(server.recordings_days));
            proptest::prop_assert_eq!(length(now.recordings_days), recordings);
        }
    }
}
