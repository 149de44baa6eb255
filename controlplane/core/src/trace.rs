//! Where a call stands in a trace: W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context-1/>).
//!
//! What a caller sends is continued where it is well-formed, to the letter, and is taken for nothing where it is not: a broken
//! header must not refuse a call.

use std::{fmt, str::FromStr};

/// Longest `tracestate` that is handed on; the standard asks for at least this.
pub const STATE_MAX: usize = 512;
/// Most members of a `tracestate` (section 3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// Longest key, longest value of a member.
const WORD_MAX: usize = 256;

/// A trace's id: 16 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span's id: 8 bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None`: all zero, which is no id.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether a trace that begins here is among the share of all that is followed. The same bits decide as in
    /// OpenTelemetry's `TraceIdRatioBased`: 63 of them, so that programs with one ratio follow the same traces.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    pub fn is_within(self, ratio: f64) -> bool {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        ratio >= 1.0 || (place as f64) < ratio * (1_u64 << 63) as f64
    }
}

impl SpanId {
    /// `None`: all zero, which is no id.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

/// A `traceparent`: the caller's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Which trace.
    pub trace: TraceId,
    /// Which span of it asks.
    pub span: SpanId,
    /// Whether the caller follows it.
    pub is_sampled: bool,
}

/// It is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent as W3C Trace Context has it: 00-<32 hex>-<16 hex>-<2 hex>, in lower case")]
pub struct NotTraceParent;

impl FromStr for TraceParent {
    type Err = NotTraceParent;

    /// Of version 00 all of it; of a later version what begins as version 00 does (section 3.2.4).
    fn from_str(text: &str) -> Result<Self, NotTraceParent> {
        let (head, rest) = text.as_bytes().split_at_checked(55).ok_or(NotTraceParent)?;
        let mut parts = head.split(|byte| *byte == b'-');
        let mut part = || parts.next().ok_or(NotTraceParent);
        let (version, trace, span, flags) = (part()?, part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(NotTraceParent);
        }
        match (bytes::<1>(version)?, rest) {
            ([0xff], _) => return Err(NotTraceParent),
            ([0], []) | ([1..=0xfe], [] | [b'-', ..]) => {}
            _ => return Err(NotTraceParent),
        }
        let [flags] = bytes(flags)?;
        Ok(Self {
            trace: TraceId::new(bytes(trace)?).ok_or(NotTraceParent)?,
            span: SpanId::new(bytes(span)?).ok_or(NotTraceParent)?,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// So many bytes in lower-case hexadecimal, and nothing else.
fn bytes<const N: usize>(text: &[u8]) -> Result<[u8; N], NotTraceParent> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotTraceParent),
    };
    if text.len() != 2 * N {
        return Err(NotTraceParent);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = *pair else { return Err(NotTraceParent) };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Ok(bytes)
}

/// The value of a `traceparent` that says that its trace is followed.
#[must_use]
pub fn traceparent(trace: TraceId, span: SpanId) -> String {
    format!("00-{trace}-{span}-01")
}

/// What other systems of the caller's say in their own words, `tracestate`: handed on as it is, and read by nobody here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(String);

impl TraceState {
    /// As the header's lines say it, put together. `None`: it says nothing, or is not what it should be, and is not handed on.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let members: Vec<&str> = text
            .split(',')
            .map(|member| member.trim_matches([' ', '\t']))
            .filter(|m| !m.is_empty())
            .collect();
        let is_good = !members.is_empty()
            && members.len() <= MEMBERS_MAX
            && members.iter().all(|member| is_member(member));
        let text = members.join(",");
        (is_good && text.len() <= STATE_MAX).then_some(Self(text))
    }

    /// As it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Section 3.3.1.3: `key=value`, `tenant@system=value`.
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let word = |word: &str| {
        let is_sign = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        word.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
            && word.bytes().all(is_sign)
    };
    let is_key = key.len() <= WORD_MAX
        && match key.split_once('@') {
            Some((tenant, system)) => word(tenant) && word(system),
            None => word(key),
        };
    let is_value = (1..=WORD_MAX).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=');
    is_key && is_value
}

/// A call's place in a trace that is followed, as it is kept with the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which trace.
    pub trace: TraceId,
    /// The span that the call's own hangs from; `None`: the call is the trace's first.
    pub parent: Option<SpanId>,
    /// What goes with it to whom the call's events are told.
    pub state: Option<TraceState>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_the_standard_shows_is_read() {
        let read: TraceParent = GOOD.parse().unwrap();
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.span.to_string(), "00f067aa0ba902b7");
        assert!(read.is_sampled);
        assert_eq!(traceparent(read.trace, read.span), GOOD);
        for (flags, is_sampled) in [("00", false), ("02", false), ("03", true), ("ff", true), ("fe", false)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(text.parse::<TraceParent>().unwrap().is_sampled, is_sampled, "{flags}");
        }
        // Later versions may say more behind.
        for text in [format!("01{}", &GOOD[2..]), format!("cc{}-what-ever", &GOOD[2..])] {
            assert_eq!(text.parse::<TraceParent>(), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_nothing() {
        let tail = &GOOD[2..];
        for text in [
            String::new(),
            "00".to_owned(),
            GOOD.to_uppercase(),
            format!(" {GOOD}"),
            format!("{GOOD} "),
            format!("{GOOD}-"),
            format!("{GOOD}-00"),
            format!("{GOOD}0"),
            format!("ff{tail}"),
            format!("01{tail}x"),
            format!("+0{tail}"),
            format!("0g{tail}"),
            GOOD.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1".to_owned(),
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01".to_owned(),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NotTraceParent), "{text:?}");
        }
    }

    #[test]
    fn a_state_is_handed_on_as_it_is_or_not_at_all() {
        for (text, read) in [
            ("congo=t61rcWkgMzE", Some("congo=t61rcWkgMzE")),
            (
                "rojo=00f067aa0ba902b7, congo=t61 rcWkgMzE\t,,",
                Some("rojo=00f067aa0ba902b7,congo=t61 rcWkgMzE"),
            ),
            ("fw529a3039@dt=FfCZA;1", Some("fw529a3039@dt=FfCZA;1")),
            ("", None),
            (" , ", None),
            ("congo", None),
            ("Congo=1", None),
            ("congo=", None),
            ("congo=a=b", None),
            ("@dt=1", None),
            ("congo=\u{e9}", None),
        ] {
            assert_eq!(TraceState::read(text).as_ref().map(TraceState::as_str), read, "{text:?}");
        }
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert!(TraceState::read(&many(32)).is_some() && TraceState::read(&many(33)).is_none());
        let long = |length: usize| format!("k={}", "v".repeat(length));
        assert!(TraceState::read(&long(256)).is_some() && TraceState::read(&long(257)).is_none());
        let wide = (0..3).map(|n| format!("k{n}={}", "v".repeat(200))).collect::<Vec<_>>().join(",");
        assert!(TraceState::read(&wide).is_none(), "longer than is handed on");
    }

    #[test]
    fn a_share_of_new_traces_is_followed_all_of_one_and_none_of_nothing() {
        let of = |n: u64| {
            let mut bytes = [7; 16];
            bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            TraceId::new(bytes).unwrap()
        };
        let followed = |ratio| (0..10_000).filter(|n| of(*n).is_within(ratio)).count();
        assert_eq!((followed(0.0), followed(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&followed(0.25)), "{}", followed(0.25));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_read_is_what_was_written(text in "\\PC{0,70}", trace: [u8; 16], span: [u8; 8]) {
            let _ = (text.parse::<TraceParent>(), TraceState::read(&text));
            if let (Some(trace), Some(span)) = (TraceId::new(trace), SpanId::new(span)) {
                let read: TraceParent = traceparent(trace, span).parse().unwrap();
                prop_assert_eq!(read, TraceParent { trace, span, is_sampled: true });
            }
        }
    }
}
