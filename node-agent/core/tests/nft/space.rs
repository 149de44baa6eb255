//! Network namespaces that live as long as a test.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use node_agent_core::firewall::readback::Readback;

/// A namespace, held by a process that sleeps in it.
pub(crate) struct Space {
    holder: Child,
    file: File,
}

impl Space {
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare").args(["-n", "sleep", "600"]).spawn().unwrap();
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        let pid = holder.id().to_string();
        while of(&pid) == of("self") {
            std::thread::yield_now();
        }
        let file = File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let space = Self { holder, file };
        space.command("ip", &["link", "set", "lo", "up"]);
        space
    }

    /// In a thread of its own inside the namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(self.file.as_fd(), kind).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) {
        let output = self.run(|| Command::new(program).args(arguments).output().unwrap());
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn nft_output(&self, arguments: &[&str], script: &str) -> Output {
        self.run(|| {
            let mut nft = Command::new("nft");
            let nft = nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = nft.spawn().unwrap();
            child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
    }

    /// One transaction.
    pub(crate) fn nft(&self, script: &str) -> Result<(), String> {
        let output = self.nft_output(&["-f", "-"], script);
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) fn readback(&self) -> Readback {
        let output = self.nft_output(&["-j", "list", "table", "inet", "ringward"], "");
        Readback::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }

    /// Answers to this address find their way.
    pub(crate) fn reaches(&self, address: &str) {
        let length = if address.contains(':') { 128 } else { 32 };
        self.command("ip", &["route", "replace", &format!("{address}/{length}"), "dev", "wire"]);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A PBX and a phone, and a wire between them.
pub(crate) struct Pair {
    pub(crate) pbx: Space,
    pub(crate) phone: Space,
}

impl Pair {
    pub(crate) fn new(phone_addresses: &[&str]) -> Self {
        let (pbx, phone) = (Space::new(), Space::new());
        let peer = phone.holder.id().to_string();
        pbx.command("ip", &["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", &peer]);
        let address = |space: &Space, address: &str| {
            if address.contains(':') {
                space.command("ip", &["addr", "add", address, "dev", "wire", "nodad"]);
            } else {
                space.command("ip", &["addr", "add", address, "dev", "wire"]);
            }
        };
        for own in ["192.0.2.1/24", "2001:db8::1/64"] {
            address(&pbx, own);
        }
        phone_addresses.iter().for_each(|of| address(&phone, of));
        for space in [&pbx, &phone] {
            space.command("ip", &["link", "set", "wire", "up"]);
        }
        if phone_addresses.iter().all(|of| !of.contains(':')) {
            let to_pbx = ["route", "replace", "192.0.2.1/32", "dev", "wire"];
            phone.command("ip", &to_pbx);
        }
        std::thread::sleep(Duration::from_millis(50));
        Self { pbx, phone }
    }

    /// The phone's socket.
    pub(crate) fn flow(&self, phone: IpAddr, pbx: SocketAddr) -> UdpSocket {
        self.phone.run(|| {
            let socket =
                UdpSocket::bind((phone, 0)).unwrap_or_else(|_| UdpSocket::bind("0.0.0.0:0").unwrap());
            let _ = socket.connect(pbx);
            socket
        })
    }

    /// Answers every packet at the PBX.
    pub(crate) fn echo(&self, at: SocketAddr) -> Echo {
        // A program that another test starts holds a copy of the former socket until it is executed.
        let bind = || match UdpSocket::bind(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(5));
                None
            }
            bound => Some(bound.unwrap()),
        };
        let socket = self.pbx.run(|| (0..400).find_map(|_| bind()).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..length], from);
                }
            }
        });
        Echo { is_over, thread }
    }
}

/// A thread that answers.
pub(crate) struct Echo {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Echo {
    pub(crate) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}
