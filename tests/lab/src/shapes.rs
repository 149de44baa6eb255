//! Shapes of user parts whose percent-decoded bytes break out of an AMI header (docs/SECURITY.md has the
//! defence). They exist so that a test can show that nothing comes of them.

/// A shape of hostile user part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Shape {
    /// A line break and a second address of the offender.
    SecondHeader,
    /// An empty line: the event ends early, its tail stands alone.
    EarlyEnd,
    /// A whole Hangup that says busy.
    Hangup,
    /// A whole OriginateResponse that says failure.
    OriginateFailure,
    /// Asterisk says it goes down.
    Shutdown,
    /// Asterisk says it has just booted.
    FullyBooted,
    /// A trunk's contact is unreachable.
    ContactUnreachable,
    /// A channel is up.
    NewstateUp,
    /// An answer to an action, with a guessed ActionID.
    Response,
    /// The callee's phone rings.
    DialStateRinging,
    /// The dialplan says answered.
    UserEventAnswered,
    /// Line feed without carriage return.
    BareLineFeed,
    /// Carriage return without line feed.
    BareCarriageReturn,
    /// A second Uniqueid.
    SecondUniqueid,
    /// A second ActionID and a list that is complete.
    ListComplete,
    /// A run as long as Asterisk lets through, broken at its end.
    LongRun,
    /// Many line breaks.
    ManyBreaks,
    /// A zero byte before the break.
    ZeroByte,
    /// Bytes that are no UTF-8 before the break.
    NotUtf8,
    /// The break is in the request line, not in From.
    RequestLine,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 20] = [
        Shape::SecondHeader,
        Shape::EarlyEnd,
        Shape::Hangup,
        Shape::OriginateFailure,
        Shape::Shutdown,
        Shape::FullyBooted,
        Shape::ContactUnreachable,
        Shape::NewstateUp,
        Shape::Response,
        Shape::DialStateRinging,
        Shape::UserEventAnswered,
        Shape::BareLineFeed,
        Shape::BareCarriageReturn,
        Shape::SecondUniqueid,
        Shape::ListComplete,
        Shape::LongRun,
        Shape::ManyBreaks,
        Shape::ZeroByte,
        Shape::NotUtf8,
        Shape::RequestLine,
    ];

    /// The user part, percent-encoded; `attempt` is the id that it pretends to speak of.
    #[must_use]
    pub fn user_part(self, attempt: &str) -> String {
        encode(&self.bytes(attempt))
    }

    /// Whether it also stands in the request line.
    #[must_use]
    pub fn is_in_request_line(self) -> bool {
        self == Shape::RequestLine
    }

    /// What Asterisk decodes it to. The most dangerous comes first: CallerIDNum is cut at 79 bytes and
    /// AccountID at 36.
    #[must_use]
    pub fn bytes(self, attempt: &str) -> Vec<u8> {
        let text = match self {
            Shape::SecondHeader => "1\r\nRemoteAddress: IPV4/UDP/192.0.2.21/5060".into(),
            Shape::EarlyEnd | Shape::RequestLine => "1\r\n\r\n".into(),
            Shape::Hangup => format!("1\r\n\r\nEvent: Hangup\r\nUniqueid: {attempt}\r\nCause: 17\r\n\r\n"),
            Shape::OriginateFailure => {
                format!(
                    "1\r\n\r\nEvent: OriginateResponse\r\nUniqueid: {attempt}\r\nResponse: Failure\r\nReason: 5\r\n\r\n"
                )
            }
            Shape::Shutdown => {
                "1\r\n\r\nEvent: Shutdown\r\nShutdown: Cleanly\r\nRestart: False\r\n\r\n".into()
            }
            Shape::FullyBooted => {
                "1\r\n\r\nEvent: FullyBooted\r\nUptime: 1\r\nStatus: Fully Booted\r\n\r\n".into()
            }
            Shape::ContactUnreachable => {
                "1\r\n\r\nEvent: ContactStatus\r\nContactStatus: Unreachable\r\nAOR: carrier-a\r\n\r\n".into()
            }
            Shape::NewstateUp => {
                format!("1\r\n\r\nEvent: Newstate\r\nChannelState: 6\r\nUniqueid: {attempt}")
            }
            Shape::Response => "1\r\n\r\nResponse: Error\r\nActionID: 1\r\nMessage: no\r\n\r\n".into(),
            Shape::DialStateRinging => {
                format!("1\r\n\r\nEvent: DialState\r\nDestUniqueid: {attempt}\r\nDialStatus: RINGING\r\n\r\n")
            }
            Shape::UserEventAnswered => format!(
                "1\r\n\r\nEvent: UserEvent\r\nUserEvent: RingwardAnswered\r\nAttempt: {attempt}\r\n\r\n"
            ),
            Shape::BareLineFeed => "1\n\nEvent: Shutdown\n\n".into(),
            Shape::BareCarriageReturn => "1\r\rEvent: Shutdown\r\r".into(),
            Shape::SecondUniqueid => format!("1\r\nUniqueid: {attempt}"),
            Shape::ListComplete => "1\r\nEventList: Complete\r\nActionID: 1\r\nListItems: 0".into(),
            Shape::LongRun => format!("{}\r\n\r\nEvent: Shutdown\r\n\r\n", "9".repeat(14)),
            Shape::ManyBreaks => "\r\n".repeat(60),
            Shape::ZeroByte => return [&b"1\0"[..], b"2\r\n\r\nEvent: Shutdown\r\n\r\n"].concat(),
            Shape::NotUtf8 => return [&b"1\xff\xfe\xc3"[..], b"\r\n\r\nEvent: Shutdown\r\n\r\n"].concat(),
        };
        text.into_bytes()
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_listed_once_and_is_one_sip_word() {
        let distinct: std::collections::HashSet<_> = Shape::ALL.into_iter().collect();
        assert_eq!(distinct.len(), Shape::ALL.len());
        for shape in Shape::ALL {
            let user = shape.user_part("att_x");
            assert!(
                user.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'),
                "{shape:?}: {user}"
            );
        }
    }
}
