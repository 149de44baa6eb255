//! What a stranger on the network finds open on a host: a look at every TCP port, and at chosen UDP ports.
use crate::{Attacker, LabError};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

/// A host on the same bridge that does not answer a SYN for so long drops it.
const TCP_WAIT: Duration = Duration::from_millis(300);
/// The same for "port unreachable".
const UDP_WAIT: Duration = Duration::from_millis(300);
/// Threads that scan.
const SCANNERS: u16 = 8;

/// What a port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// Somebody listens: a connection, or a datagram that answers.
    Open,
    /// Refused: nobody listens.
    Closed,
    /// Not a word: a firewall, or a UDP program that has nothing to say.
    Silent,
}

impl Attacker {
    /// Every TCP port of `target` that is not closed, in order. Some 5 s.
    ///
    /// # Errors
    /// The scan could not be made.
    pub fn scan_tcp(&self, target: Ipv4Addr) -> Result<Vec<(u16, Port)>, LabError> {
        self.host().inside(|| {
            std::thread::scope(|scope| {
                let scan = |first: u16| {
                    let ports = (first..=u16::MAX).step_by(SCANNERS.into()).filter(|port| *port > 0);
                    let asked = ports.map(|port| (port, ask_tcp(target, port)));
                    asked.filter(|(_, is)| *is != Port::Closed).collect::<Vec<_>>()
                };
                // Threads of a thread that has moved are where it is.
                let scanners: Vec<_> = (0..SCANNERS).map(|first| scope.spawn(move || scan(first))).collect();
                let died = || LabError::Machine("a scanner panicked".into());
                let found: Result<Vec<_>, _> =
                    scanners.into_iter().map(|scanner| scanner.join().map_err(|_| died())).collect();
                let mut found: Vec<_> = found?.into_iter().flatten().collect();
                found.sort_unstable();
                Ok(found)
            })
        })
    }

    /// What a UDP port of `target` answers to `datagram`.
    ///
    /// # Errors
    /// No socket.
    pub fn ask_udp(&self, target: Ipv4Addr, port: u16, datagram: &[u8]) -> Result<Port, LabError> {
        let ask = || {
            let socket = UdpSocket::bind(SocketAddrV4::new(self.address(), 0))?;
            socket.connect((target, port))?;
            socket.set_read_timeout(Some(UDP_WAIT))?;
            socket.send(datagram)?;
            let mut answer = [0; 2_048];
            Ok(match socket.recv(&mut answer) {
                Ok(_) => Port::Open,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Port::Closed,
                Err(_) => Port::Silent,
            })
        };
        self.host().inside(|| ask().map_err(LabError::file("ask a UDP port from", "the attacker")))
    }
}

fn ask_tcp(target: Ipv4Addr, port: u16) -> Port {
    match TcpStream::connect_timeout(&SocketAddrV4::new(target, port).into(), TCP_WAIT) {
        Ok(_) => Port::Open,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Port::Closed,
        Err(_) => Port::Silent,
    }
}
