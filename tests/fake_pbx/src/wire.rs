//! Lines in and out, as Asterisk has them; no code shared with the client under test.

/// An action or event: headers in order, values as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packet {
    /// Name and value, in order.
    pub headers: Vec<(String, String)>,
}

impl Packet {
    pub(crate) fn event(name: &str, class: &str) -> Self {
        Self::default().add("Event", name).add("Privilege", format!("{class},all"))
    }

    pub(crate) fn response(word: &str, action: &Self) -> Self {
        let packet = Self::default().add("Response", word);
        match action.get("ActionID") {
            Some(id) => packet.add("ActionID", id),
            None => packet,
        }
    }

    pub(crate) fn add(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub(crate) fn extend(mut self, headers: Vec<(String, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// The first value of that name, case ignored.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Every value of that name, case ignored.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text: String = self.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Takes whole actions off the front of `buffer`.
pub(crate) fn take_actions(buffer: &mut Vec<u8>, open: &mut Packet) -> Vec<Packet> {
    let mut actions = Vec::new();
    while let Some(end) = buffer.iter().position(|&b| b == b'\n') {
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let text = String::from_utf8_lossy(&line);
        // Asterisk strips blanks around; a NUL ends a C string.
        let text = strip(text.split('\0').next().unwrap_or_default());
        if !text.is_empty() {
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            open.headers.push((strip(name).to_owned(), strip(value).to_owned()));
        } else if !open.headers.is_empty() {
            actions.push(std::mem::take(open));
        }
    }
    actions
}

/// ast_strip: everything up to the blank, and nothing beyond ASCII.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c <= ' ')
}
