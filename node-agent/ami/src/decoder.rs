//! Bytes in, blocks out, within bounds.
//!
//! A block is the lines up to an empty line; a line ends with LF, and a CR before it belongs to the line
//! end (Asterisk's own parser takes a bare LF too). The first line of a connection is the banner. A block
//! that grows over a bound is skipped up to the next empty line and reported once, naming the bound: a
//! stranger's over-long name must cost one event, neither memory nor the connection.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::message::{Header, Message};

/// Bounds of what is taken in, in bytes and lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest line in bytes, line end not counted.
    pub line_bytes_max: usize,
    /// Most headers in one block.
    pub headers_max: usize,
    /// Most bytes in one block, line ends not counted.
    pub block_bytes_max: usize,
}

impl Default for Limits {
    /// Several times what Asterisk 22 was seen to write (40 headers, 1.5 KB), since any reader may keep
    /// thousands of blocks.
    fn default() -> Self {
        Self { line_bytes_max: 8 * 1024, headers_max: 256, block_bytes_max: 16 * 1024 }
    }
}

/// Which bound a skipped block went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverBound {
    /// [`Limits::line_bytes_max`].
    #[error("a line is longer than {0} bytes")]
    Line(usize),
    /// [`Limits::headers_max`].
    #[error("a block has more than {0} headers")]
    Headers(usize),
    /// [`Limits::block_bytes_max`].
    #[error("a block is larger than {0} bytes")]
    Block(usize),
}

/// What the decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// The first line of the connection, whatever it says.
    Banner(Bytes),
    /// A block of headers.
    Message(Message),
}

/// How the bytes that follow the last whole block begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing has come yet.
    Nothing,
    /// It begins, or may still turn out to begin, with `Event:` or `Response:`.
    Proper,
    /// It begins with neither.
    Foreign,
}

/// Where in the block's text a header is.
#[derive(Debug)]
struct Span {
    name: Range<usize>,
    value: Range<usize>,
}

/// The decoder's state between reads. Holds at most one block plus what one [`Decoder::push`] brought.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buffer: BytesMut,
    scanned: usize,
    /// The lines of the unfinished block, copied: a message that is kept for long must not keep the whole
    /// of what one read brought.
    text: Vec<u8>,
    headers: Vec<Span>,
    malformed_lines: usize,
    awaits_banner: bool,
    skipping: Option<OverBound>,
    /// Inside a line of which the beginning has been thrown away already.
    inside_long_line: bool,
}

impl Decoder {
    /// A decoder for a new connection: the first line is the banner.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            scanned: 0,
            text: Vec::new(),
            headers: Vec::new(),
            malformed_lines: 0,
            awaits_banner: true,
            skipping: None,
            inside_long_line: false,
        }
    }

    /// A decoder for bytes that follow a banner.
    #[must_use]
    pub fn past_banner(limits: Limits) -> Self {
        Self { awaits_banner: false, ..Self::new(limits) }
    }

    /// Takes in bytes. Call [`Decoder::next_block`] until it yields nothing before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole block, or the bound that one went over, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`OverBound`] once for each block that was skipped; decoding goes on behind it.
    pub fn next_block(&mut self) -> Result<Option<Block>, OverBound> {
        while let Some(line) = self.next_line() {
            if self.awaits_banner {
                self.awaits_banner = false;
                if let Some(bound) = self.skipping.take() {
                    return Err(bound);
                }
                return Ok(Some(Block::Banner(line)));
            }
            if !line.is_empty() {
                self.take_line(&line);
                continue;
            }
            if let Some(bound) = self.skipping.take() {
                return Err(bound);
            }
            if let Some(message) = self.take_block() {
                return Ok(Some(Block::Message(message)));
            }
        }
        Ok(None)
    }

    /// How the unfinished block begins, for whoever must judge the block before it during a silence.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        if self.skipping.is_some() {
            return Beginning::Foreign;
        }
        let (head, whole) = match self.headers.first() {
            _ if self.malformed_lines > 0 => return Beginning::Foreign,
            Some(span) => (self.text.get(span.name.clone()).unwrap_or_default(), true),
            None => (&self.buffer[..], false),
        };
        let proper = |word: &[u8]| {
            if whole {
                head == &word[..word.len() - 1]
            } else {
                word.starts_with(head) || head.starts_with(word)
            }
        };
        match head {
            // An empty line in the making is nothing.
            [] | [b'\r'] => Beginning::Nothing,
            _ if proper(b"Event:") || proper(b"Response:") => Beginning::Proper,
            _ => Beginning::Foreign,
        }
    }

    /// One line without its end. Over-long lines come out cut to nothing but are not empty lines: they
    /// set `skipping` and are swallowed here.
    fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let Some(end) = self.buffer[self.scanned..].iter().position(|&b| b == b'\n') else {
                self.scanned = self.buffer.len();
                // One byte of grace for a CR whose LF has not come yet.
                if self.buffer.len() > self.limits.line_bytes_max + 1 || self.inside_long_line {
                    self.over(OverBound::Line(self.limits.line_bytes_max));
                    self.inside_long_line = true;
                    self.buffer.clear();
                    self.scanned = 0;
                }
                return None;
            };
            let mut line = self.buffer.split_to(self.scanned + end + 1).freeze();
            self.scanned = 0;
            line.truncate(line.len() - 1);
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if self.inside_long_line || line.len() > self.limits.line_bytes_max {
                self.over(OverBound::Line(self.limits.line_bytes_max));
                self.inside_long_line = false;
                if self.awaits_banner {
                    return Some(Bytes::new());
                }
                continue;
            }
            return Some(line);
        }
    }

    fn take_line(&mut self, line: &Bytes) {
        if self.skipping.is_some() {
            return;
        }
        let start = self.text.len();
        if start + line.len() > self.limits.block_bytes_max {
            return self.over(OverBound::Block(self.limits.block_bytes_max));
        }
        if self.headers.len() + self.malformed_lines >= self.limits.headers_max {
            return self.over(OverBound::Headers(self.limits.headers_max));
        }
        self.text.extend_from_slice(line);
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            self.malformed_lines += 1;
            return;
        };
        let value_at = if line.get(colon + 1) == Some(&b' ') { colon + 2 } else { colon + 1 };
        self.headers.push(Span { name: start..start + colon, value: start + value_at..start + line.len() });
    }

    fn take_block(&mut self) -> Option<Message> {
        let malformed_lines = std::mem::take(&mut self.malformed_lines);
        let text = Bytes::from(std::mem::take(&mut self.text));
        let spans = self.headers.drain(..);
        let headers: Vec<_> =
            spans.map(|span| Header::new(text.slice(span.name), text.slice(span.value))).collect();
        let empty = headers.is_empty() && malformed_lines == 0;
        (!empty).then(|| Message::new(headers, malformed_lines))
    }

    fn over(&mut self, bound: OverBound) {
        self.skipping.get_or_insert(bound);
        self.text.clear();
        self.headers.clear();
        self.malformed_lines = 0;
    }
}
