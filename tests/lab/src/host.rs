//! A host of the lab: its name, its folder, and how to run something on it.
use crate::{LabError, Root, Subnet, network};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Where hosts keep their files outside.
const HOSTS: &str = "/var/lib/ringward-lab/hosts";
/// Where a host finds its own files inside its root.
pub(crate) const HOME: &str = "/srv/ringward";

/// The name of a host: `pbx-1`, `a`, `attacker`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(pub(crate) String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its folder outside: `etc`, `log`, `db`, `sip.pcap`, …
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(HOSTS).join(&self.0)
    }

    /// The folder that its Asterisk plays `ringward/…` from.
    pub fn sounds(&self) -> PathBuf {
        self.folder().join("sounds")
    }

    /// Its network namespace.
    pub fn namespace(&self) -> String {
        network::namespace(&self.0)
    }

    /// Makes its folder anew.
    pub(crate) fn lay_folder(&self, subnet: Subnet) -> Result<(), LabError> {
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(LabError::file("remove", &folder))?;
        }
        for part in ["etc", "log", "run", "spool", "db", "lib", "cache", "sounds"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(LabError::file("create", &path))?;
        }
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, format!("nameserver {}\n", subnet.root()))
            .map_err(LabError::file("write", &resolver))?;
        // Asterisk looks its own name up as it starts, and waits 20 s where that is not answered.
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let names = folder.join("hosts");
        fs::write(&names, format!("127.0.0.1 localhost {}\n", machine.trim()))
            .map_err(LabError::file("write", &names))
    }

    /// Runs `work` on a thread that has moved into this host's network namespace: its sockets are the host's.
    pub(crate) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, LabError> + Send,
    ) -> Result<T, LabError> {
        let namespace = format!("/run/netns/{}", self.namespace());
        let file = fs::File::open(&namespace).map_err(LabError::file("open", &namespace))?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(file.as_fd(), kind)
                    .map_err(|error| LabError::file("enter", &namespace)(error.into()))?;
                work()
            });
            worker.join().unwrap_or_else(|_| Err(LabError::Machine("a thread on a host panicked".into())))
        })
    }

    /// A new TCP connection from this host.
    ///
    /// # Errors
    /// The system's: refused, or timed out.
    pub fn connect(&self, to: SocketAddr, within: Duration) -> std::io::Result<TcpStream> {
        self.inside(|| Ok(TcpStream::connect_timeout(&to, within))).map_err(std::io::Error::other)?
    }

    /// A command that runs in this host's network namespace, on this machine's own files.
    #[must_use]
    pub fn in_namespace(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace()]);
        command
    }

    /// A command that runs on this host: its network, its root, its own folder at `/srv/ringward`.
    ///
    /// `ip netns exec` gives each command a mount namespace of its own, so the mounts end with it and
    /// nothing is left to clean up. `exec` all the way: the pid is that of the program itself.
    pub(crate) fn in_root(&self, root: &Root, program: &[&str]) -> Command {
        const SCRIPT: &str = "set -e; root=$1; home=$2; shift 2\n\
            mkdir -p \"$root/srv/ringward\" \"$root/usr/share/asterisk/sounds/ringward\"\n\
            touch -a \"$root/etc/hosts\" \"$root/etc/resolv.conf\"\n\
            mount --bind \"$home\" \"$root/srv/ringward\"\n\
            mount --bind \"$home/sounds\" \"$root/usr/share/asterisk/sounds/ringward\"\n\
            mount --bind \"$home/resolv.conf\" \"$root/etc/resolv.conf\"\n\
            mount --bind \"$home/hosts\" \"$root/etc/hosts\"\n\
            mount --rbind /dev \"$root/dev\"\n\
            mount -t proc proc \"$root/proc\"\n\
            exec chroot \"$root\" \"$@\"";
        let mut command = self.in_namespace();
        command.args(["sh", "-c", SCRIPT, "host"]).arg(&root.path).arg(self.folder()).args(program);
        command
    }
}
