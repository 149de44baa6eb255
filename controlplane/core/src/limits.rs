//! How much of everything an organisation or a key may have. What an operator does not set is not limited beyond the
//! server's own settings.

use serde::{Deserialize, Serialize};

use crate::throttle::Throttle;

/// Largest pace that is counted exactly: see [`crate::pacing::Window`].
const PER_S_MAX: u32 = 10_000;
/// Largest of the other bounds.
const COUNT_MAX: u32 = 100_000_000;
/// Largest weight.
const WEIGHT_MAX: u32 = 100;

/// An organisation's limits. Requests and accepted calls beyond them are refused (429); starts and channels wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrgLimits {
    /// Requests in any one second, over all its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<u32>,
    /// Calls accepted in a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_day: Option<u32>,
    /// Calls accepted and not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_calls_max: Option<u32>,
    /// Of these to one number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_open_calls_max: Option<u32>,
    /// Attempts begun in any one second. More wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cps_max: Option<u32>,
    /// Attempts under way at a time. More wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels_max: Option<u32>,
    /// How often one number may be dialled. More wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// Its share of trunks that are full, against the weights of the others; 1 where none is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A key's limits, beside its organisation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Requests in any one second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_s: Option<u32>,
    /// Calls accepted in a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_day: Option<u32>,
}

/// A limit that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{param}: 1 to {max}")]
pub struct InvalidLimit {
    /// Which one.
    pub param: &'static str,
    /// The largest.
    pub max: u32,
}

fn check(limits: &[(&'static str, Option<u32>, u32)]) -> Result<(), InvalidLimit> {
    let wrong = limits.iter().find(|(_, limit, max)| limit.is_some_and(|limit| !(1..=*max).contains(&limit)));
    wrong.map_or(Ok(()), |(param, _, max)| Err(InvalidLimit { param, max: *max }))
}

impl OrgLimits {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first that is out of them.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        check(&[
            ("requests_per_s", self.requests_per_s, PER_S_MAX),
            ("calls_per_day", self.calls_per_day, COUNT_MAX),
            ("open_calls_max", self.open_calls_max, COUNT_MAX),
            ("number_open_calls_max", self.number_open_calls_max, COUNT_MAX),
            ("cps_max", self.cps_max, PER_S_MAX),
            ("channels_max", self.channels_max, COUNT_MAX),
            ("weight", self.weight, WEIGHT_MAX),
        ])
    }
}

impl KeyLimits {
    /// Checks the bounds.
    ///
    /// # Errors
    /// The first that is out of them.
    pub fn validate(&self) -> Result<(), InvalidLimit> {
        check(&[
            ("requests_per_s", self.requests_per_s, PER_S_MAX),
            ("calls_per_day", self.calls_per_day, COUNT_MAX),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_bounds_and_none_is_none() {
        let read =
            |json: &str| serde_json::from_str::<OrgLimits>(json).map(|limits| (limits.validate(), limits));
        assert_eq!(read("{}").unwrap(), (Ok(()), OrgLimits::default()));
        for (json, param) in [
            (r#"{"cps_max": 0}"#, "cps_max"),
            (r#"{"requests_per_s": 10001}"#, "requests_per_s"),
            (r#"{"weight": 101}"#, "weight"),
            (r#"{"calls_per_day": 0, "weight": 1}"#, "calls_per_day"),
        ] {
            assert_eq!(read(json).unwrap().0.unwrap_err().param, param, "{json}");
        }
        assert!(read(r#"{"cps": 1}"#).is_err());
        assert_eq!(serde_json::to_string(&OrgLimits::default()).unwrap(), "{}");
    }
}
