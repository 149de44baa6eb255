//! A stranger on the network who sends SIP that no honest phone sends, and the same over a trunk.
//!
//! Bounded in count and rate, and sent from inside a namespace that has no way out: the sockets are
//! opened by a thread that has moved into it.
use crate::request::Request;
use crate::shapes::Shape;
use crate::{Carrier, HostName, LabError, Pbx, clock, network};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// Most packets of one volley.
pub(crate) const COUNT_MAX: u32 = 10_000;
/// Most packets per second.
pub(crate) const PER_S_MAX: u32 = 500;
const SIP_PORT: u16 = 5060;
/// How long an answer is waited for after the last packet.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

/// What a stranger sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// REGISTER.
    Register,
    /// INVITE.
    Invite,
}

/// Packets of one shape.
#[derive(Clone, Debug)]
pub struct Volley {
    /// What the packets hold.
    pub shape: Shape,
    /// The request they are.
    pub method: Method,
    /// How many, at most 10,000.
    pub count: u32,
    /// How fast, at most 500.
    pub per_s: u32,
    /// The attempt id that forged events name: a guess, or the true one for the worst case.
    pub attempt: String,
}

impl Volley {
    /// One REGISTER of this shape with a guessed attempt id.
    #[must_use]
    pub fn one(shape: Shape) -> Self {
        Volley { shape, method: Method::Register, count: 1, per_s: 50, attempt: "att_guess".into() }
    }

    /// The same with INVITE.
    #[must_use]
    pub fn invite(self) -> Self {
        Volley { method: Method::Invite, ..self }
    }

    /// The same, naming this attempt.
    #[must_use]
    pub fn naming(self, attempt: &str) -> Self {
        Volley { attempt: attempt.into(), ..self }
    }
}

/// A stranger.
#[derive(Clone, Debug)]
pub struct Attacker {
    host: HostName,
    address: Ipv4Addr,
    more: Vec<Ipv4Addr>,
}

impl Attacker {
    pub(crate) fn new(host: HostName, address: Ipv4Addr, more: Vec<Ipv4Addr>) -> Self {
        Attacker { host, address, more }
    }

    /// Further addresses of its host, where the lab's agents ban: enough for one of them to be spent by each attack.
    #[must_use]
    pub fn more_addresses(&self) -> &[Ipv4Addr] {
        &self.more
    }

    /// Its host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Programs on its host send to this PBX from that one of its addresses from now on, unless they choose another.
    ///
    /// # Errors
    /// It is none of its addresses.
    pub fn speak_from(&self, source: Ipv4Addr, target: &Pbx) -> Result<(), LabError> {
        network::speak_from(self.host.as_str(), target.address(), source)
    }

    /// Sends to the PBX's SIP port as someone unknown; gives the first lines of what was answered.
    pub fn send_hostile(&self, volley: &Volley, target: &Pbx) -> Result<Vec<String>, LabError> {
        fire(&self.host, self.address, volley, target.address())
    }
}

impl Carrier {
    /// Sends to the PBX's SIP port from this carrier's address: the PBX takes it for the trunk.
    pub fn send_hostile(&self, volley: &Volley, target: &Pbx) -> Result<Vec<String>, LabError> {
        fire(self.host(), self.address(), volley, target.address())
    }
}

fn fire(
    host: &HostName,
    source: Ipv4Addr,
    volley: &Volley,
    target: Ipv4Addr,
) -> Result<Vec<String>, LabError> {
    let failed = LabError::file("send from", format!("/run/netns/{}", host.namespace()));
    host.inside(|| send(source, volley, target).map_err(failed))
}

fn send(source: Ipv4Addr, volley: &Volley, target: Ipv4Addr) -> std::io::Result<Vec<String>> {
    let socket = UdpSocket::bind(SocketAddrV4::new(source, 0))?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    let port = socket.local_addr()?.port();
    let gap = Duration::from_secs(1) / volley.per_s.clamp(1, PER_S_MAX);
    let run = clock::now().elapsed().as_nanos() ^ u128::from(std::process::id());
    for n in 0..volley.count.min(COUNT_MAX) {
        let tag = format!("{:x}{port:x}{run:x}{n:x}", clock::epoch_s());
        let text = message(volley, source, port, target, &tag);
        socket.send_to(text.as_bytes(), (target, SIP_PORT))?;
        if n + 1 < volley.count {
            clock::pause(gap);
        }
    }
    let mut answers = Vec::new();
    let mut buffer = [0_u8; 2_048];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        answers.push(text.lines().next().unwrap_or_default().to_owned());
        if answers.len() >= 100 {
            break;
        }
    }
    Ok(answers)
}

fn message(volley: &Volley, source: Ipv4Addr, port: u16, target: Ipv4Addr, tag: &str) -> String {
    let user = volley.shape.user_part(&volley.attempt);
    let mut request = match volley.method {
        Method::Register => Request::register(&user, source, port, target, tag),
        Method::Invite => Request::invite(&user, source, port, target, tag),
    };
    if volley.shape.is_in_request_line() {
        request.uri = format!("sip:{user}@{target}");
    }
    request.text()
}
