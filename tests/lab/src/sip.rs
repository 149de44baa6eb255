//! Just enough of SIP to count: first line, Call-ID, CSeq, whether To has a tag, the port of the audio.

/// What a SIP message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) call_id: &'a str,
    /// The method of CSeq: which request an answer answers.
    pub(crate) cseq_method: &'a str,
    /// A tag in To: the dialog exists, this INVITE is not a new call.
    pub(crate) in_dialog: bool,
    /// The port of the audio in the SDP, where there is one.
    pub(crate) media_port: Option<u16>,
}

/// Request or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// Method and the user part of the request URI.
    Request { method: &'a str, user: &'a str },
    /// Status code.
    Answer(u16),
}

/// Reads a message; `None` if it is none.
pub(crate) fn parse(payload: &[u8]) -> Option<Message<'_>> {
    let end = payload.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(payload.len());
    let head = std::str::from_utf8(payload.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let first = words.next()?;
    let second = words.next()?;
    let kind = if first == "SIP/2.0" {
        Kind::Answer(second.parse().ok()?)
    } else {
        let address = second.strip_prefix("sip:").unwrap_or(second);
        Kind::Request { method: first, user: address.split_once('@').map_or("", |(user, _)| user) }
    };
    let (mut call_id, mut cseq_method, mut in_dialog) = (None, None, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "call-id" | "i" => call_id = Some(value),
            "cseq" => cseq_method = value.split_whitespace().nth(1),
            "to" | "t" => in_dialog = value.contains(";tag="),
            _ => {}
        }
    }
    let sdp = payload.get(end..).and_then(|body| std::str::from_utf8(body).ok()).unwrap_or("");
    let audio = sdp.lines().find_map(|line| line.strip_prefix("m=audio "));
    let media_port = audio.and_then(|audio| audio.split(' ').next()).and_then(|port| port.parse().ok());
    Some(Message { kind, call_id: call_id?, cseq_method: cseq_method?, in_dialog, media_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_and_its_answer_are_read() {
        let invite = b"INVITE sip:+48222000001@192.0.2.21:5060 SIP/2.0\r\nTo: <sip:x@y>\r\nCall-ID: abc\r\n\
                       CSeq: 7 INVITE\r\n\r\nv=0";
        let message = parse(invite).unwrap();
        assert_eq!(message.kind, Kind::Request { method: "INVITE", user: "+48222000001" });
        assert_eq!((message.call_id, message.cseq_method, message.in_dialog), ("abc", "INVITE", false));
        let answer = b"SIP/2.0 180 Ringing\r\nt: <sip:x@y>;tag=1\r\ni: abc\r\nCSeq: 7 INVITE\r\n\r\n";
        let message = parse(answer).unwrap();
        assert_eq!((message.kind, message.in_dialog), (Kind::Answer(180), true));
        assert_eq!(parse(b"\r\n\r\n"), None);
    }
}
