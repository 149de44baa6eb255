//! One AMI message: an ordered multimap of headers whose values are bytes, not text.
//!
//! Values stay bytes because a caller chooses his name and Asterisk writes it as it came; headers stay
//! ordered and repeatable because order and repetition are the evidence that [`crate::schema`] judges.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// One `Name: value` line. The name may hold anything but a colon and a line end.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    name: Bytes,
    value: Bytes,
}

impl Header {
    pub(crate) fn new(name: Bytes, value: Bytes) -> Self {
        Self { name, value }
    }

    /// The name as it was written, without the colon.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The value as it was written, without the one blank after the colon and without the line end.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The value as text; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }

    /// Whether the name is `name`, ignoring ASCII case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A credential that rides in a security event must not reach a log by way of `{:?}`.
        let name = String::from_utf8_lossy(&self.name);
        if ["ExpectedResponse", "Secret", "Password"].iter().any(|hidden| self.is(hidden)) {
            return write!(f, "{name}: <hidden>");
        }
        write!(f, "{name}: {:?}", self.text())
    }
}

/// A message as received: at least one header, in the order of the wire.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Message {
    headers: Vec<Header>,
    malformed_lines: usize,
}

impl Message {
    /// A message of these headers, for tests and encoders; the decoder makes its own.
    #[must_use]
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let header = |(n, v): (N, V)| {
            Header::new(Bytes::copy_from_slice(n.as_ref()), Bytes::copy_from_slice(v.as_ref()))
        };
        Self { headers: pairs.into_iter().map(header).collect(), malformed_lines: 0 }
    }

    pub(crate) fn new(headers: Vec<Header>, malformed_lines: usize) -> Self {
        Self { headers, malformed_lines }
    }

    /// The first value of that name (ASCII case ignored).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| header.is(name)).map(Header::value)
    }

    /// The first value of that name as text; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(String::from_utf8_lossy)
    }

    /// Every value of that name, in order (`Output`, `ChanVariable` and `Variable` repeat).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.headers.iter().filter(move |header| header.is(name)).map(Header::value)
    }

    /// All headers in the order of the wire.
    #[must_use]
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// How many lines of the block held no colon; real Asterisk writes none.
    #[must_use]
    pub fn malformed_lines(&self) -> usize {
        self.malformed_lines
    }

    /// What the message says it is, by its very first header.
    #[must_use]
    pub fn kind(&self) -> MessageKind<'_> {
        // Exact case: Asterisk writes these names so, and nobody else has a claim to leniency.
        match self.headers.first() {
            Some(head) if head.name() == b"Event" => MessageKind::Event(head.text()),
            Some(head) if head.name() == b"Response" => MessageKind::Response(head.text()),
            Some(_) | None => MessageKind::Neither,
        }
    }

    /// The bytes that decode to this message again, provided that no value holds a line end.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for header in &self.headers {
            out.extend_from_slice(header.name());
            out.extend_from_slice(b": ");
            out.extend_from_slice(header.value());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.headers).finish()
    }
}

/// What the first header makes of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageKind<'a> {
    /// `Event: name`.
    Event(Cow<'a, str>),
    /// `Response: Success | Error | Goodbye | …`.
    Response(Cow<'a, str>),
    /// Anything else: the tail of a value that held an empty line, or no Asterisk.
    Neither,
}
