//! A guesser of account names, who goes on until nobody answers him any more: what the time to a ban is measured with.
//!
//! Each request names another account that does not exist and carries its number in its Call-ID, so that a capture at the
//! PBX tells which ones were answered. Bounded in count and time.
use crate::request::Request;
use crate::{Attacker, LabError, Pbx, clock};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

const SIP_PORT: u16 = 5060;
/// Most requests of one guesser.
const GUESSES_MAX: u32 = 20_000;
/// So long without an answer, and so many requests: he was cut off. On a busy machine one of the two alone says nothing.
const SILENCE: Duration = Duration::from_millis(100);
const UNANSWERED: u32 = 100;
/// An answer to one of the first guesses.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How he goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Guessing {
    /// Guesses at first, each when the one before was answered, and this long after it.
    pub slow: u32,
    /// Between two of them.
    pub slow_every: Duration,
    /// Between two of those that follow.
    pub every: Duration,
    /// When he gives up although he is answered still.
    pub at_most: Duration,
}

/// What he saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guesses {
    /// Requests that he sent, numbered from 0.
    pub sent: u32,
    /// Answers that he got.
    pub answered: u32,
    /// Whether he was cut off, or gave up.
    pub is_cut_off: bool,
}

impl Guesses {
    /// The number of a guess, from its Call-ID.
    #[must_use]
    pub fn number(call_id: &str) -> Option<u32> {
        call_id.strip_prefix("guess-")?.split('-').next()?.parse().ok()
    }
}

impl Attacker {
    /// Guesses names at a PBX from one of its addresses, until it is no longer answered.
    ///
    /// # Errors
    /// Nothing can be sent, or one of the first guesses is not answered.
    pub fn guess(&self, source: Ipv4Addr, target: &Pbx, how: Guessing) -> Result<Guesses, LabError> {
        let failed = LabError::file("send from", format!("/run/netns/{}", self.host().namespace()));
        self.host().inside(|| guess(source, target.address(), how).map_err(failed))
    }
}

fn guess(source: Ipv4Addr, target: Ipv4Addr, how: Guessing) -> std::io::Result<Guesses> {
    let socket = UdpSocket::bind(SocketAddrV4::new(source, 0))?;
    socket.set_nonblocking(true)?;
    let port = socket.local_addr()?.port();
    let begun = clock::since_1970().as_nanos();
    let send = |n: u32| {
        let tag = format!("guess-{n}-{source}-{begun:x}");
        let request = Request::register(&format!("g{n}x{port}"), source, port, target, &tag);
        socket.send_to(request.text().as_bytes(), (target, SIP_PORT))
    };
    let mut buffer = [0_u8; 2_048];
    let mut answers = || {
        let mut answers = 0;
        loop {
            match socket.recv_from(&mut buffer) {
                Ok(_) => answers += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(answers),
                Err(error) => return Err(error),
            }
        }
    };
    let (mut sent, mut answered) = (0, 0);
    while sent < how.slow {
        send(sent)?;
        sent += 1;
        let asked = clock::now();
        while answered < sent {
            if asked.elapsed() > ANSWER_MAX {
                return Err(std::io::Error::new(
                    ErrorKind::TimedOut,
                    format!("guess {sent} was not answered"),
                ));
            }
            clock::pause(Duration::from_micros(200));
            answered += answers()?;
        }
        clock::pause(how.slow_every);
    }
    let start = clock::now();
    let (mut last_answer, mut sent_by_then) = (start, sent);
    let is_silent =
        |last_answer: Instant, unanswered: u32| last_answer.elapsed() >= SILENCE && unanswered >= UNANSWERED;
    while sent < GUESSES_MAX && start.elapsed() < how.at_most && !is_silent(last_answer, sent - sent_by_then)
    {
        send(sent)?;
        sent += 1;
        clock::pause(how.every);
        let new = answers()?;
        if new > 0 {
            (answered, last_answer, sent_by_then) = (answered + new, clock::now(), sent);
        }
    }
    Ok(Guesses { sent, answered, is_cut_off: is_silent(last_answer, sent - sent_by_then) })
}
