//! A filter as its TOML file says it, and what may not stand in it.

use serde::Deserialize;

use crate::{
    offence::{Kind, Transport},
    rules::JailName,
    words::words,
};

/// Patterns that one filter may have.
const PATTERNS_MAX: usize = 64;
/// Bytes of one expression.
const REGEX_BYTES_MAX: usize = 2048;

words! {
    /// Where the logger's own address stands.
    Address {
        /// Before all that a stranger chose.
        First = "first",
        /// Behind all that a stranger chose.
        Last = "last",
        /// Nobody knows: the line must be readable in one way alone.
        Only = "only",
    }
}

words! {
    /// What a line of this pattern is.
    Does {
        /// An offence.
        Offend = "offend",
        /// A login that succeeded.
        Success = "success",
        /// Nothing: later patterns are not tried.
        Ignore = "ignore",
    }
}

/// One file of patterns for one jail.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The jail.
    pub name: JailName,
    /// What carried the offence, where the line does not say: `tcp` where the logger answers over TCP alone.
    #[serde(default = "unknown")]
    pub transport: Transport,
    /// What each line begins with; `^` is its first character.
    pub prefix: String,
    /// In the order in which they are tried.
    #[serde(rename = "pattern")]
    pub patterns: Vec<Pattern>,
}

fn unknown() -> Transport {
    Transport::Unknown
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// What its lines are.
    #[serde(default = "offend")]
    pub does: Does,
    /// The offence; only and always where it offends.
    pub kind: Option<Kind>,
    /// Where the address stands.
    #[serde(default = "only")]
    pub address: Address,
    /// Behind the prefix. `$` is its last character. `<HOST>`, `<ACCOUNT>`, `<TRANSPORT>` and `<TIME>` stand for what
    /// they say; a group named `account` is an account too.
    pub regex: String,
}

fn offend() -> Does {
    Does::Offend
}

fn only() -> Address {
    Address::Only
}

/// A filter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Of the file.
    #[error("{0}")]
    Toml(String),
    /// Of the filter.
    #[error("filter {filter}: {problem}")]
    Filter {
        /// Which.
        filter: String,
        /// What.
        problem: String,
    },
    /// Of one pattern.
    #[error("filter {filter}, pattern {pattern}: {problem}")]
    Pattern {
        /// Which filter.
        filter: String,
        /// Which pattern, from 1.
        pattern: usize,
        /// What.
        problem: String,
    },
}

/// The shipped ones.
const SHIPPED: [&str; 3] = [
    include_str!("shipped/asterisk_log.toml"),
    include_str!("shipped/sshd.toml"),
    include_str!("shipped/nginx.toml"),
];

impl Filter {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, InvalidFilter> {
        let filter: Self = toml::from_str(text).map_err(|error| InvalidFilter::Toml(error.to_string()))?;
        filter.check()?;
        Ok(filter)
    }

    /// Those that come with the agent.
    ///
    /// # Errors
    /// Never, if the tests pass.
    pub fn shipped() -> Result<Vec<Self>, InvalidFilter> {
        SHIPPED.iter().map(|text| Self::parse(text)).collect()
    }

    pub(super) fn wrong(&self, pattern: usize, problem: impl ToString) -> InvalidFilter {
        let filter = self.name.to_string();
        InvalidFilter::Pattern { filter, pattern: pattern + 1, problem: problem.to_string() }
    }

    fn check(&self) -> Result<(), InvalidFilter> {
        let filter = |problem: &str| InvalidFilter::Filter {
            filter: self.name.to_string(),
            problem: problem.to_owned(),
        };
        if !self.prefix.starts_with('^') {
            return Err(filter("prefix must begin with ^"));
        }
        if self.patterns.is_empty() || self.patterns.len() > PATTERNS_MAX {
            return Err(filter("must have 1 to 64 patterns"));
        }
        for (at, pattern) in self.patterns.iter().enumerate() {
            pattern.check(&self.prefix).map_err(|problem| self.wrong(at, problem))?;
        }
        Ok(())
    }
}

impl Pattern {
    fn check(&self, prefix: &str) -> Result<(), &'static str> {
        let regex = self.regex.as_str();
        if regex.len() + prefix.len() > REGEX_BYTES_MAX {
            return Err("is longer than 2048 bytes");
        }
        if !regex.ends_with('$') || regex.ends_with("\\$") {
            return Err("must end with $");
        }
        if has_alternative_outside_groups(regex) || has_alternative_outside_groups(prefix) {
            return Err("has | outside of a group, which would not be anchored");
        }
        let hosts = [prefix, regex].iter().map(|text| text.matches("<HOST>").count()).sum::<usize>();
        match (self.does, hosts, self.kind) {
            (Does::Ignore, 0, None) => return Ok(()),
            (Does::Ignore, _, _) => return Err("does ignore, so it has neither kind nor <HOST>"),
            (Does::Offend, 1, Some(_)) | (Does::Success, 1, None) => {}
            (Does::Offend, _, None) => return Err("does offend, so it must have a kind"),
            (Does::Success, _, Some(_)) => return Err("does success, so it has no kind"),
            (Does::Offend | Does::Success, _, _) => return Err("must have <HOST> once"),
        }
        let Some((before, behind)) = regex.split_once("<HOST>") else {
            // The prefix is the logger's own.
            return Ok(());
        };
        match self.address {
            Address::First if is_open(before) => {
                Err("address is first, but what stands before it may be anything")
            }
            Address::Last if is_open(behind) => {
                Err("address is last, but what stands behind it may be anything")
            }
            Address::First | Address::Last | Address::Only => Ok(()),
        }
    }
}

/// Whether a stranger's text, an address in it, fits in there.
fn is_open(part: &str) -> bool {
    ["<ACCOUNT>", ".*", ".+", ".{", "[^", "\\S", "\\D", "\\W", "\\PL"].iter().any(|open| part.contains(open))
}

fn has_alternative_outside_groups(regex: &str) -> bool {
    let (mut depth, mut in_class, mut escaped) = (0_i32, false, false);
    for c in regex.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => in_class = false,
            _ if in_class => {}
            '[' => in_class = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}
