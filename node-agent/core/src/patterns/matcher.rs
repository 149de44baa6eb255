//! A filter compiled.

use std::net::IpAddr;

use regex_automata::{
    Input, PatternID,
    dfa::onepass,
    meta::{BuildError, Regex},
    nfa::thompson,
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
    reader: Reader,
    groups: Groups,
    parts: Captures,
}

/// What finds the parts of a line.
enum Reader {
    /// At each byte there is one way to go on: every line can be read in one way alone, and fast.
    OneWay(Box<onepass::DFA>, onepass::Cache),
    /// There may be several; the longest repetitions count.
    Longest(Regex),
    /// There may be several; the longest and the shortest repetitions must find the same address.
    Same(Regex, Regex, Captures),
}

impl Reader {
    fn new(text: &str, address: Address) -> Result<Self, Box<BuildError>> {
        let one_way = onepass::Builder::new()
            .configure(onepass::DFA::config().size_limit(Some(AUTOMATON_BYTES_MAX)))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(AUTOMATON_BYTES_MAX)))
            .syntax(syntax(false))
            .build(text);
        if let Ok(dfa) = one_way {
            let cache = dfa.create_cache();
            return Ok(Self::OneWay(Box::new(dfa), cache));
        }
        let longest = build(&[text], false)?;
        match address {
            Address::First | Address::Last => Ok(Self::Longest(longest)),
            Address::Only => {
                let shortest = build(&[text], true)?;
                let parts = shortest.create_captures();
                Ok(Self::Same(longest, shortest, parts))
            }
        }
    }

    fn captures(&self) -> Captures {
        match self {
            Self::OneWay(dfa, _) => dfa.create_captures(),
            Self::Longest(regex) | Self::Same(regex, _, _) => regex.create_captures(),
        }
    }

    /// Finds the parts. Says whether no stranger had a hand in the address.
    fn read(&mut self, line: &[u8], host: Option<usize>, parts: &mut Captures) -> bool {
        match self {
            Self::OneWay(dfa, cache) => dfa.captures(cache, line, parts),
            Self::Longest(regex) => regex.captures(line, parts),
            Self::Same(longest, shortest, others) => {
                longest.captures(line, parts);
                shortest.captures(line, others);
                let host = |parts: &Captures| host.and_then(|group| parts.get_group(group));
                return host(parts) == host(others);
            }
        }
        true
    }
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
        let is_theirs = one.reader.read(line, one.groups.host, &mut one.parts);
        let part = |group: Option<usize>| {
            let span = group.and_then(|group| one.parts.get_group(group))?;
            line.get(span.start..span.end)
        };
        let stamp = part(one.groups.time).and_then(|text| std::str::from_utf8(text).ok());
        let stamp = stamp.and_then(|text| stamp::parse(text, now));
        let host = part(one.groups.host).unwrap_or_default();
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
        let reader = Reader::new(text, pattern.address)?;
        let parts = reader.captures();
        let group = |name| parts.group_info().to_index(PatternID::ZERO, name);
        let groups = Groups {
            host: group("host"),
            time: group("time"),
            account: group("account"),
            transport: group("transport"),
        };
        Ok(Self { does: pattern.does, kind: pattern.kind, reader, groups, parts })
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
    Regex::builder().configure(config).syntax(syntax(shortest)).build_many(patterns).map_err(Box::new)
}

fn syntax(shortest: bool) -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).swap_greed(shortest)
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
