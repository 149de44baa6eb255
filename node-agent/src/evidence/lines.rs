//! From bytes to lines, in memory that never grows: half lines wait for their end, overlong ones are passed over whole.

use std::io::{self, Read};

use node_agent_core::patterns::LINE_BYTES_MAX;

/// Bytes that are held at a time.
pub(crate) const HELD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a line that is held with its line end.
const WHOLE_BYTES_MAX: usize = LINE_BYTES_MAX + 2;

/// Cuts bytes into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    held: Box<[u8]>,
    /// Where the next line begins in `held`.
    begin: usize,
    /// Up to here there is no line end behind `begin`.
    searched: usize,
    end: usize,
    /// Bytes of an overlong line that are gone already.
    passed: u64,
    /// What is read next is the rest of a line whose beginning is not known.
    is_rest: bool,
    overlong: u64,
}

impl Lines {
    /// At the beginning of a line, or in the middle of one, whose rest is then no line.
    pub(crate) fn new(is_rest: bool) -> Self {
        let held = vec![0; HELD_BYTES_MAX].into_boxed_slice();
        Self { held, begin: 0, searched: 0, end: 0, passed: 0, is_rest, overlong: 0 }
    }

    /// Reads what there is room for; 0 at the end. Take all lines out before.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.held.copy_within(self.begin..self.end, 0);
        (self.searched, self.end, self.begin) = (self.searched - self.begin, self.end - self.begin, 0);
        let read = from.read(self.held.get_mut(self.end..).unwrap_or_default())?;
        self.end += read;
        Ok(read)
    }

    /// The next whole line, without its line end.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let unsearched = self.held.get(self.searched..self.end)?;
            let Some(at) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.end;
                self.pass_overlong();
                return None;
            };
            let (begin, end) = (self.begin, self.searched + at);
            (self.begin, self.searched) = (end + 1, end + 1);
            let is_overlong = self.passed > 0 || end - begin > WHOLE_BYTES_MAX;
            self.passed = 0;
            if std::mem::take(&mut self.is_rest) {
                continue;
            }
            if is_overlong {
                self.overlong += 1;
                continue;
            }
            let line = self.held.get(begin..end)?;
            return Some(line.strip_suffix(b"\r").unwrap_or(line));
        }
    }

    /// Bytes of the line that has no end yet.
    pub(crate) fn half(&self) -> u64 {
        self.passed + (self.end - self.begin) as u64
    }

    /// The line that the input ended with, if it has one without a line end.
    pub(crate) fn last(&mut self) -> Option<&[u8]> {
        let is_whole = self.begin < self.end && self.passed == 0 && !self.is_rest;
        let (begin, end) = (self.begin, self.end);
        (self.begin, self.searched, self.passed) = (end, end, 0);
        is_whole.then(|| self.held.get(begin..end)).flatten()
    }

    /// Overlong lines since this was asked last.
    pub(crate) fn take_overlong(&mut self) -> u64 {
        std::mem::take(&mut self.overlong)
    }

    fn pass_overlong(&mut self) {
        if self.passed > 0 || self.end - self.begin > WHOLE_BYTES_MAX {
            self.passed += (self.end - self.begin) as u64;
            (self.begin, self.searched) = (self.end, self.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines, text: &[u8]) -> Vec<String> {
        let (mut from, mut found) = (text, Vec::new());
        while lines.fill(&mut from).unwrap() > 0 {
            while let Some(line) = lines.next() {
                found.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        found
    }

    #[test]
    fn halves_wait_and_overlong_lines_are_passed_over_whole() {
        let mut lines = Lines::new(false);
        assert_eq!(all(&mut lines, b"a\r\n\nb\nhal"), ["a", "", "b"]);
        assert_eq!(lines.half(), 3);
        assert_eq!(all(&mut lines, b"f\nc"), ["half"]);
        let long = "x".repeat(3 * HELD_BYTES_MAX);
        assert!(all(&mut lines, long.as_bytes()).is_empty());
        assert_eq!(lines.half(), 1 + long.len() as u64, "its beginning is where to go on after a restart");
        assert_eq!(all(&mut lines, b" forged\nd\n"), ["d"]);
        let just = "y".repeat(WHOLE_BYTES_MAX);
        assert_eq!(all(&mut lines, format!("{just}\n{just}y\nend").as_bytes()), [just]);
        assert_eq!((lines.take_overlong(), lines.take_overlong()), (2, 0));
        assert_eq!(lines.last(), Some(&b"end"[..]));
        assert_eq!(lines.last(), None);
        assert_eq!(lines.half(), 0);
    }

    #[test]
    fn the_rest_of_a_line_is_no_line() {
        let mut lines = Lines::new(true);
        assert_eq!(all(&mut lines, b"orged\na\n"), ["a"]);
        let mut lines = Lines::new(true);
        assert!(all(&mut lines, b"orged").is_empty());
        assert_eq!(lines.last(), None);
    }

    #[test]
    fn however_it_is_cut_the_lines_are_the_same() {
        let text = b"one\n\ntwo\r\nthree\nfour";
        for cut in 0..text.len() {
            let mut lines = Lines::new(false);
            let mut found = all(&mut lines, text.get(..cut).unwrap());
            found.extend(all(&mut lines, text.get(cut..).unwrap()));
            assert_eq!(found, ["one", "", "two", "three"], "{cut}");
            assert_eq!(lines.last(), Some(&b"four"[..]));
        }
    }
}
