//! A filter compiled.
//!
//! Which pattern fits is told in one of two ways with the same answer, the first one in order. Where each pattern begins with words of
//! its own behind the prefix (all of Asterisk's and sshd's do), those whose words stand in the line are tried in turn: one that does
//! not fit gives up at its words, and only one that fits reads the line to its end. Otherwise one automaton of all patterns reads
//! the line first.

use std::net::IpAddr;

use memchr::memmem::Finder;
use regex_automata::{
    Input, PatternID,
    dfa::onepass,
    meta::{BuildError, Regex},
    nfa::thompson,
    util::{
        captures::{Captures, GroupInfo},
        syntax,
    },
};
use regex_syntax::hir::{Hir, literal::Extractor};

use super::{Address, Does, Filter, InvalidFilter, LINE_BYTES_MAX, Pattern, stamp, straight::Straight};
use crate::{
    moment::UnixMs,
    offence::{Account, Finding, Nobody, Offence, Source, Success, Transport},
};

/// Bytes that one automaton may take.
const AUTOMATON_BYTES_MAX: usize = 2 << 20;
/// Shorter words are found too often to be worth it.
const WORDS_BYTES_MIN: usize = 4;

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
    /// What a line must hold for this pattern; empty: not known.
    words: Finder<'static>,
    reader: Reader,
    groups: Groups,
    parts: Captures,
}

/// What finds the parts of a line.
enum Reader {
    /// At each byte there is one way to go on: every line can be read in one way alone, and fast.
    Straight(Straight, GroupInfo),
    /// The same, with what only an automaton can read.
    OneWay(Box<onepass::DFA>, onepass::Cache),
    /// There may be several; the longest repetitions count.
    Longest(Regex),
    /// There may be several; the longest and the shortest repetitions must find the same address.
    Same(Regex, Regex, Captures),
}

/// How a line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It does not fit.
    None,
    /// A stranger may have chosen the address.
    Ambiguous,
    /// No stranger had a hand in the address.
    Sure,
}

impl Reader {
    fn new(text: &str, does: Does, address: Address) -> Result<Self, Box<BuildError>> {
        if let Some(dfa) = one_way(text) {
            return Ok(match parse(text).as_ref().and_then(Straight::new) {
                Some(straight) => Self::Straight(straight, dfa.get_nfa().group_info().clone()),
                None => {
                    let cache = dfa.create_cache();
                    Self::OneWay(Box::new(dfa), cache)
                }
            });
        }
        let longest = build(&[text], false)?;
        match (does, address) {
            (Does::Ignore, _) | (_, Address::First | Address::Last) => Ok(Self::Longest(longest)),
            (Does::Offend | Does::Success, Address::Only) => {
                let shortest = build(&[text], true)?;
                let parts = shortest.create_captures();
                Ok(Self::Same(longest, shortest, parts))
            }
        }
    }

    fn captures(&self) -> Captures {
        match self {
            Self::Straight(_, groups) => Captures::all(groups.clone()),
            Self::OneWay(dfa, _) => dfa.create_captures(),
            Self::Longest(regex) | Self::Same(regex, _, _) => regex.create_captures(),
        }
    }

    /// Finds the parts.
    fn read(&mut self, line: &[u8], host: Option<usize>, parts: &mut Captures) -> Reading {
        match self {
            Self::Straight(straight, _) => straight.read(line, parts),
            Self::OneWay(dfa, cache) => dfa.captures(cache, line, parts),
            Self::Longest(regex) => regex.captures(line, parts),
            Self::Same(longest, shortest, others) => {
                longest.captures(line, parts);
                if parts.is_match() {
                    shortest.captures(line, others);
                    let host = |parts: &Captures| host.and_then(|group| parts.get_group(group));
                    return if host(parts) == host(others) { Reading::Sure } else { Reading::Ambiguous };
                }
            }
        }
        if parts.is_match() { Reading::Sure } else { Reading::None }
    }
}

fn one_way(text: &str) -> Option<onepass::DFA> {
    onepass::Builder::new()
        .configure(onepass::DFA::config().size_limit(Some(AUTOMATON_BYTES_MAX)))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(AUTOMATON_BYTES_MAX)))
        .syntax(syntax(false))
        .build(text)
        .ok()
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
    /// Of all patterns; none where each has words of its own.
    which: Option<Regex>,
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
            let one = One::new(&filter.prefix, pattern, text);
            patterns.push(one.map_err(|error| filter.wrong(at, explain(&error)))?);
        }
        let has_words = patterns.iter().all(|one: &One| one.words.needle().len() >= WORDS_BYTES_MIN);
        let which = match has_words {
            true => None,
            false => Some(build(&written, false).map_err(|error| InvalidFilter::Filter {
                filter: filter.name.to_string(),
                problem: explain(&error),
            })?),
        };
        Ok(Self { transport: filter.transport, which, patterns })
    }

    #[cfg(test)]
    pub(super) fn is_told_by_words(&self) -> bool {
        self.which.is_none()
    }

    /// Reads one line, without its line end. `now` tells the year of stamps without one.
    pub fn read(&mut self, line: &[u8], now: UnixMs) -> Line {
        if line.len() > LINE_BYTES_MAX {
            return Line::Missed;
        }
        let Some((at, reading)) = self.fitting(line) else { return Line::Missed };
        let Some(one) = self.patterns.get(at) else { return Line::Missed };
        if one.does == Does::Ignore {
            return Line::Ignored(at);
        }
        let part = |group: Option<usize>| {
            let span = group.and_then(|group| one.parts.get_group(group))?;
            line.get(span.start..span.end)
        };
        let stamp = part(one.groups.time).and_then(|text| std::str::from_utf8(text).ok());
        let stamp = stamp.and_then(|text| stamp::parse(text, now));
        let host = part(one.groups.host).unwrap_or_default();
        let transport = part(one.groups.transport).map_or(self.transport, transport);
        let account = part(one.groups.account).and_then(Account::of);
        let finding = match (reading == Reading::Sure, address(host)) {
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

    /// The first pattern that fits, and how it read the line.
    fn fitting(&mut self, line: &[u8]) -> Option<(usize, Reading)> {
        if let Some(which) = &self.which {
            let at = which.search_half(&Input::new(line))?.pattern().as_usize();
            let one = self.patterns.get_mut(at)?;
            return Some((at, one.reader.read(line, one.groups.host, &mut one.parts)));
        }
        self.patterns.iter_mut().enumerate().find_map(|(at, one)| {
            one.words.find(line)?;
            let reading = one.reader.read(line, one.groups.host, &mut one.parts);
            (reading != Reading::None).then_some((at, reading))
        })
    }
}

impl One {
    fn new(prefix: &str, pattern: &Pattern, text: &str) -> Result<Self, Box<BuildError>> {
        let reader = Reader::new(text, pattern.does, pattern.address)?;
        let parts = reader.captures();
        let group = |name| parts.group_info().to_index(PatternID::ZERO, name);
        let groups = Groups {
            host: group("host"),
            time: group("time"),
            account: group("account"),
            transport: group("transport"),
        };
        let words = Finder::new(&words(prefix, pattern)).into_owned();
        Ok(Self { does: pattern.does, kind: pattern.kind, words, reader, groups, parts })
    }
}

fn parse(text: &str) -> Option<Hir> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(text).ok()
}

/// What every text holds that fits this pattern behind that prefix: what its own expression begins with. Empty where nothing
/// is sure.
fn words(prefix: &str, pattern: &Pattern) -> Vec<u8> {
    // The expression must mean by itself what it means behind the prefix: a flag such as `(?i)` would hold for it too, a branch
    // `a|` would do without it.
    let apart = format!("{})", written(&format!("(?:{prefix})(?:"), pattern));
    let joined = parse(&written(prefix, pattern));
    if joined.is_none() || joined != parse(&apart) {
        return Vec::new();
    }
    let Some(parsed) = parse(&written("", pattern)) else { return Vec::new() };
    let beginnings = Extractor::new().extract(&parsed);
    beginnings.longest_common_prefix().map(<[u8]>::to_vec).unwrap_or_default()
}

/// Prefix and expression with what stands for something put in.
pub(super) fn written(prefix: &str, pattern: &Pattern) -> String {
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
