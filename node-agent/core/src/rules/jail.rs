//! The numbers of each jail, and why they are what they are.
//!
//! | Number | asterisk | asterisk_log | sshd | nginx | Why |
//! |---|---|---|---|---|---|
//! | `threshold`, `findtime_s` | 100, 600 | 100, 600 | 100, 600 | 100, 600 | 100 points within ten minutes; ten leak away in each, so that 1 point is "one per cent of a ban" |
//! | `invalid_account`, `failed_acl` | 22 | 22 | 22 | – | five names that do not exist within a minute, or seven within five: nobody's phone tries so many |
//! | `challenge_response_failed`, `invalid_password` | 8 | 8 | 22 | – | the account exists, so it may be a phone with an old password: one a minute leaks away, whatever the accounts; thirteen at once are a guesser |
//! | `login_failed`, `probe` | 22 | 22 | 22 | 22 | near fail2ban's `maxretry = 5` |
//! | `request_not_allowed`, `request_bad_format` | 10 | 10 | – | – | scanners, but also odd phones |
//! | `request_not_supported`, `auth_method_not_allowed`, `invalid_transport`, `unexpected_address` | 5 | 5 | – | – | mostly a wrong setting |
//! | `session_limit` | 2 | 2 | – | – | a forgotten session |
//! | `memory_limit`, `load_average_limit` | 0 | 0 | – | – | the PBX's own trouble |
//! | `tampering` | 50 | 0 | – | – | no honest phone writes line breaks; in a log it cannot be told who did |
//! | `repeat_slow_percent`, `repeat_fast_percent`, `repeat_pause_ms` | 10, 50, 2000 | 10, 50, 2000 | 100, 100, 2000 | 100, 100, 2000 | the same account again: 0.8 points for a phone with an old password (twelve a minute leak away), 4 from the fourth quick one on for a guesser, who does not wait. Over ssh everybody guesses for root |
//! | `success_bar_percent`, `success_memory_s` | 300, 86400 | 100, 0 | 200, 3600 | 100, 0 | an office whose other phones log in gets three times the bar; a log's success is not believed |
//! | `forgeable_ladder_s` | 600 1800 3600 | 600 1800 3600 | = | = | the address may be a stranger's: never over an hour |
//! | `ladder_s` | 3600 21600 86400 604800 | 600 1800 3600 | 3600 21600 86400 604800 | 600 3600 21600 | logs can be forged line by line, and many people stand behind a web client's address |
//! | `forget_s` | 172800 | = | = | = | two quiet days take one step back |

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{MINUTE_MS, Proof};
use crate::{moment::UnixMs, offence::Kind};

/// A ban by a rule lasts at most four weeks: what is to last longer is an operator's decision.
const BAN_S_MAX: u32 = 28 * 86_400;
const LADDER_STEPS_MAX: usize = 16;
const JAILS_MAX: usize = 64;

/// A jail's name: letters, digits, `-` and `_`, at most 32. A copy of it costs no memory: every finding has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JailName(Arc<str>);

impl JailName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JailName {
    type Error = InvalidJail;

    fn try_from(text: String) -> Result<Self, InvalidJail> {
        let is_good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if is_good { Ok(Self(text.into())) } else { Err(InvalidJail::Name) }
    }
}

impl From<JailName> for String {
    fn from(name: JailName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::str::FromStr for JailName {
    type Err = InvalidJail;

    fn from_str(text: &str) -> Result<Self, InvalidJail> {
        text.to_owned().try_into()
    }
}

impl fmt::Display for JailName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJail {
    /// A jail's name.
    #[error("a jail's name is 1 to 32 letters, digits, '-' or '_'")]
    Name,
    /// A number of a jail.
    #[error("jail {jail}: {setting} {must}")]
    Number {
        /// Which jail.
        jail: JailName,
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A number of all.
    #[error("{setting} {must}")]
    Global {
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// One jail. What is left out of a file is as in the jail `asterisk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jail {
    /// Off: nothing is weighed.
    pub enabled: bool,
    /// Say what would be banned, ban nothing.
    pub simulate: bool,
    /// Points that earn a ban.
    pub threshold: u32,
    /// In this time the points of one ban leak away.
    pub findtime_s: u32,
    /// Points by kind; a kind that is not here has none.
    pub points: BTreeMap<Kind, u32>,
    /// Share of points for the same account again, after a pause.
    pub repeat_slow_percent: u32,
    /// Share of points for the same account again, from the fourth time without a pause on.
    pub repeat_fast_percent: u32,
    /// What a pause is.
    pub repeat_pause_ms: u32,
    /// The bar for a source with a login of late, in per cent of the threshold.
    pub success_bar_percent: u32,
    /// How long a login speaks for a source.
    pub success_memory_s: u32,
    /// Lengths of bans on evidence whose source may be forged.
    pub forgeable_ladder_s: Vec<u32>,
    /// Lengths of bans on evidence whose source is proven.
    pub ladder_s: Vec<u32>,
    /// One step of the ladder is forgotten in this time after a ban's end.
    pub forget_s: u32,
}

impl Default for Jail {
    fn default() -> Self {
        let points = Kind::ALL.iter().map(|kind| (*kind, points(*kind))).collect();
        Self {
            enabled: true,
            simulate: false,
            threshold: 100,
            findtime_s: 600,
            points,
            repeat_slow_percent: 10,
            repeat_fast_percent: 50,
            repeat_pause_ms: 2000,
            success_bar_percent: 300,
            success_memory_s: 86_400,
            forgeable_ladder_s: vec![600, 1800, 3600],
            ladder_s: vec![3600, 21_600, 86_400, 604_800],
            forget_s: 172_800,
        }
    }
}

const fn points(kind: Kind) -> u32 {
    match kind {
        Kind::InvalidAccount | Kind::FailedAcl | Kind::LoginFailed | Kind::Probe => 22,
        Kind::ChallengeResponseFailed | Kind::InvalidPassword => 8,
        Kind::RequestNotAllowed | Kind::RequestBadFormat => 10,
        Kind::RequestNotSupported
        | Kind::AuthMethodNotAllowed
        | Kind::InvalidTransport
        | Kind::UnexpectedAddress => 5,
        Kind::SessionLimit => 2,
        Kind::MemoryLimit | Kind::LoadAverageLimit => 0,
        Kind::Tampering => 50,
    }
}

impl Jail {
    fn asterisk_log() -> Self {
        let mut jail = Self {
            enabled: false,
            success_bar_percent: 100,
            success_memory_s: 0,
            ladder_s: vec![600, 1800, 3600],
            ..Self::default()
        };
        jail.points.insert(Kind::Tampering, 0);
        jail
    }

    fn sshd() -> Self {
        let mut jail = Self {
            repeat_slow_percent: 100,
            repeat_fast_percent: 100,
            success_bar_percent: 200,
            success_memory_s: 3600,
            ..Self::default()
        };
        jail.points.insert(Kind::InvalidPassword, 22);
        jail.points.insert(Kind::ChallengeResponseFailed, 22);
        jail
    }

    fn nginx() -> Self {
        Self {
            enabled: false,
            repeat_slow_percent: 100,
            repeat_fast_percent: 100,
            success_bar_percent: 100,
            success_memory_s: 0,
            ladder_s: vec![600, 3600, 21_600],
            ..Self::default()
        }
    }

    pub(super) fn milli_points(&self, kind: Kind) -> u32 {
        self.points.get(&kind).copied().unwrap_or_default().saturating_mul(1000)
    }

    pub(super) fn bar_milli_points(&self, knows_login: bool) -> u32 {
        let percent = if knows_login { self.success_bar_percent } else { 100 };
        self.threshold.saturating_mul(10).saturating_mul(percent)
    }

    pub(super) fn ladder(&self, proof: Proof) -> &[u32] {
        match proof {
            Proof::Forgeable => &self.forgeable_ladder_s,
            Proof::Proven => &self.ladder_s,
        }
    }

    pub(super) fn leak(&self) -> Leak {
        Leak { threshold: self.threshold, findtime_s: self.findtime_s }
    }

    fn check(&self, jail: &JailName) -> Result<(), InvalidJail> {
        let ladder_is_good = |ladder: &[u32]| {
            (1..=LADDER_STEPS_MAX).contains(&ladder.len())
                && ladder.is_sorted()
                && ladder.iter().all(|seconds| (1..=BAN_S_MAX).contains(seconds))
        };
        let ladder = "must be 1 to 16 lengths in seconds, none shorter than the one before, at most 28 days";
        let all = [
            ("threshold", (1..=10_000).contains(&self.threshold), "must be 1 to 10000"),
            ("findtime_s", (1..=604_800).contains(&self.findtime_s), "must be 1 to 604800"),
            ("points", self.points.values().all(|points| *points <= 10_000), "must be at most 10000 each"),
            ("repeat_slow_percent", self.repeat_slow_percent <= 100, "must be at most 100"),
            ("repeat_fast_percent", self.repeat_fast_percent <= 100, "must be at most 100"),
            (
                "success_bar_percent",
                (100..=10_000).contains(&self.success_bar_percent),
                "must be 100 to 10000",
            ),
            ("forgeable_ladder_s", ladder_is_good(&self.forgeable_ladder_s), ladder),
            ("ladder_s", ladder_is_good(&self.ladder_s), ladder),
            ("forget_s", self.forget_s > 0, "must be at least 1"),
        ];
        match all.into_iter().find(|(_, is_good, _)| !is_good) {
            Some((setting, _, must)) => Err(InvalidJail::Number { jail: jail.clone(), setting, must }),
            None => Ok(()),
        }
    }
}

/// How fast points go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leak {
    threshold: u32,
    findtime_s: u32,
}

impl Leak {
    /// Thousandths of points that leak in so many milliseconds.
    pub(super) fn over(self, ms: u64) -> u32 {
        let leaked = u128::from(self.threshold) * u128::from(ms) / u128::from(self.findtime_s.max(1));
        u32::try_from(leaked).unwrap_or(u32::MAX)
    }

    pub(super) fn findtime_ms(self) -> u64 {
        u64::from(self.findtime_s) * 1000
    }
}

/// All jails, and the bounds that they share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesSettings {
    /// By name. A file changes single numbers of these, or adds others.
    pub jails: BTreeMap<JailName, Jail>,
    /// Sources that are remembered, for forgeable and for proven evidence each.
    pub sources_max: u32,
    /// Bans in a minute on evidence whose source is proven; more are held back and alarmed.
    pub bans_per_minute_max: u32,
    /// Bans in a minute on evidence whose source may be forged.
    pub forgeable_bans_per_minute_max: u32,
}

impl Default for RulesSettings {
    fn default() -> Self {
        let jails = [
            ("asterisk", Jail::default()),
            ("asterisk_log", Jail::asterisk_log()),
            ("sshd", Jail::sshd()),
            ("nginx", Jail::nginx()),
        ];
        let named = |(name, jail): (&str, Jail)| (JailName(name.into()), jail);
        Self {
            jails: jails.into_iter().map(named).collect(),
            sources_max: 16_384,
            bans_per_minute_max: 300,
            forgeable_bans_per_minute_max: 60,
        }
    }
}

impl RulesSettings {
    /// Whether the rules can work with these.
    ///
    /// # Errors
    /// The first number that is out of its bounds.
    pub fn check(&self) -> Result<(), InvalidJail> {
        let all = [
            ("jails", self.jails.len() <= JAILS_MAX, "must be at most 64"),
            ("sources_max", (64..=1_048_576).contains(&self.sources_max), "must be 64 to 1048576"),
            ("bans_per_minute_max", self.bans_per_minute_max > 0, "must be at least 1"),
            ("forgeable_bans_per_minute_max", self.forgeable_bans_per_minute_max > 0, "must be at least 1"),
        ];
        if let Some((setting, _, must)) = all.into_iter().find(|(_, is_good, _)| !is_good) {
            return Err(InvalidJail::Global { setting, must });
        }
        self.jails.iter().try_for_each(|(name, jail)| jail.check(name))
    }
}

/// So many bans in a minute and no more.
#[derive(Debug)]
pub(super) struct Breaker {
    max: u32,
    taken: u32,
    since: UnixMs,
}

impl Breaker {
    pub(super) fn new(max: u32) -> Self {
        Self { max, taken: 0, since: UnixMs::default() }
    }

    pub(super) fn is_free(&mut self, now: UnixMs) -> bool {
        if now.since_ms(self.since) >= MINUTE_MS {
            (self.since, self.taken) = (now, 0);
        }
        self.taken < self.max
    }

    pub(super) fn take(&mut self) {
        self.taken += 1;
    }
}
