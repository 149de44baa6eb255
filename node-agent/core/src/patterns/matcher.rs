//! A filter compiled.

use std::net::IpAddr;

use regex_automata::{
    Input,
    meta::{BuildError, Regex},
    util::{captures::Captures, syntax},
};

use super::{Address, Does, Filter, InvalidFilter, LINE_BYTES_MAX, Pattern, stamp};
use crate::{
    moment::UnixMs,
    offence::{Account, Finding, Nobody, Offence, Source, Success, Transport},
};

/// Bytes that one automaton may take.
const AUTOMATON_BYTES_MAX: usize = 2 << 20;

/// What one line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Nothing fits.
    Missed,
    /// This pattern (from 0) says to ignore it.
    Ignored(usize),
    /// This pattern fits.
    Matched {
        /// From 0.
        pattern: usize,
        /// The line's own stamp, if it has one.
        at: Option<UnixMs>,
        /// What it amounts to. Counts against nobody where a stranger may have had a hand in the address.
        finding: Finding,
    },
}

struct One {
    does: Does,
    kind: Option<crate::offence::Kind>,
    regex: Regex,
    /// The same with every repetition as short as it can be, where the address must be the only one.
    shortest: Option<Regex>,
    groups: Groups,
    parts: Captures,
}

/// Where the parts are among the groups.
#[derive(Clone, Copy)]
struct Groups {
    host: Option<usize>,
    time: Option<usize>,
    account: Option<usize>,
    transport: Option<usize>,
}

/// A filter compiled. One for each file that is read.
pub struct Matcher {
    transport: Transport,
    which: Regex,
    patterns: Vec<One>,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("patterns", &self.patterns.len()).finish_non_exhaustive()
    }
}

impl Matcher {
    /// Compiles it.
    ///
    /// # Errors
    /// An expression that is none, or that takes too much memory.
    pub fn new(filter: &Filter) -> Result<Self, InvalidFilter> {
        let written: Vec<_> =
            filter.patterns.iter().map(|pattern| written(&filter.prefix, pattern)).collect();
        let mut patterns = Vec::new();
        for (at, (pattern, text)) in filter.patterns.iter().zip(&written).enumerate() {
            patterns.push(One::new(pattern, text).map_err(|error| filter.wrong(at, explain(&error)))?);
        }
        let which = build(&written, false).map_err(|error| InvalidFilter::Filter {
            filter: filter.name.to_string(),
            problem: explain(&error),
        })?;
        Ok(Self { transport: filter.transport, which, patterns })
    }

    /// Reads one line, without its line end. `now` tells the year of stamps without one.
    pub fn read(&mut self, line: &[u8], now: UnixMs) -> Line {
        if line.len() > LINE_BYTES_MAX {
            return Line::Missed;
        }
        let Some(found) = self.which.search_half(&Input::new(line)) else { return Line::Missed };
        let at = found.pattern().as_usize();
        let Some(one) = self.patterns.get_mut(at) else { return Line::Missed };
        if one.does == Does::Ignore {
            return Line::Ignored(at);
        }
        one.regex.captures(line, &mut one.parts);
        let part = |group: Option<usize>| {
            let span = group.and_then(|group| one.parts.get_group(group))?;
            line.get(span.start..span.end)
        };
        let stamp = part(one.groups.time).and_then(|text| std::str::from_utf8(text).ok());
        let stamp = stamp.and_then(|text| stamp::parse(text, now));
        let host = part(one.groups.host).unwrap_or_default();
        let is_theirs = one.shortest.as_ref().is_none_or(|regex| {
            let mut parts = regex.create_captures();
            regex.captures(line, &mut parts);
            parts.get_group_by_name("host") == one.groups.host.and_then(|group| one.parts.get_group(group))
        });
        let transport = part(one.groups.transport).map_or(self.transport, transport);
        let account = part(one.groups.account).and_then(Account::of);
        let finding = match (is_theirs, address(host)) {
            (false, _) => Finding::Nobody(Nobody::Ambiguous),
            (true, None) => Finding::Nobody(Nobody::NoAddress),
            (true, Some(address)) => match (Source::of(address), one.kind) {
                (None, _) => Finding::Nobody(Nobody::NotBannable),
                (Some(source), Some(kind)) => Finding::Offence(Offence { kind, source, transport, account }),
                (Some(source), None) => Finding::Success(Success { source, transport, account }),
            },
        };
        Line::Matched { pattern: at, at: stamp, finding }
    }
}

impl One {
    fn new(pattern: &Pattern, text: &str) -> Result<Self, Box<BuildError>> {
        let regex = build(&[text], false)?;
        let group = |name| regex.group_info().to_index(regex_automata::PatternID::ZERO, name);
        let groups = Groups {
            host: group("host"),
            time: group("time"),
            account: group("account"),
            transport: group("transport"),
        };
        let shortest = match pattern.address {
            Address::Only if pattern.does != Does::Ignore => Some(build(&[text], true)?),
            Address::Only | Address::First | Address::Last => None,
        };
        let parts = regex.create_captures();
        Ok(Self { does: pattern.does, kind: pattern.kind, regex, shortest, groups, parts })
    }
}

/// Prefix and expression with what stands for something put in.
fn written(prefix: &str, pattern: &Pattern) -> String {
    format!("{prefix}{}", pattern.regex)
        .replace("<HOST>", "(?P<host>[0-9A-Fa-f:.]+)")
        .replace("<ACCOUNT>", "(?P<account>.*)")
        .replace("<TRANSPORT>", "(?P<transport>[A-Z]+)")
        .replacen("<TIME>", &format!("(?P<time>{})", stamp::FORMS), 1)
}

/// Bytes, not characters: a log holds whatever a stranger sent.
fn build<T: AsRef<str>>(patterns: &[T], shortest: bool) -> Result<Regex, Box<BuildError>> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(AUTOMATON_BYTES_MAX))
        .hybrid_cache_capacity(AUTOMATON_BYTES_MAX);
    let syntax = syntax::Config::new().unicode(false).utf8(false).swap_greed(shortest);
    Regex::builder().configure(config).syntax(syntax).build_many(patterns).map_err(Box::new)
}

fn explain(error: &BuildError) -> String {
    match (error.syntax_error(), error.size_limit()) {
        (Some(syntax), _) => syntax.to_string(),
        (None, Some(limit)) => format!("takes more than {limit} bytes"),
        (None, None) => error.to_string(),
    }
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn transport(word: &[u8]) -> Transport {
    match word {
        b"UDP" => Transport::Udp,
        b"TCP" => Transport::Tcp,
        b"TLS" => Transport::Tls,
        b"WS" => Transport::Ws,
        b"WSS" => Transport::Wss,
        _ => Transport::Unknown,
    }
}
