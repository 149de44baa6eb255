//! A PostgreSQL of its own for tests of the store: a fresh cluster from Debian's package, on a free
//! port of loopback and a socket in its folder, with the server's normal durability. Ended when dropped.
use crate::{LabError, clock, command, packages, process};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAMS: &str = "/usr/lib/postgresql";
const BOOT_MAX: Duration = Duration::from_secs(30);
/// Six tests at a time, each with up to four control planes, whose pools may have ten connections each and a few beside them.
const CONNECTIONS_MAX: u32 = 400;

/// Where clusters lie. Hundreds of tests make a database each, and nobody takes the power away: memory, where there is enough.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp"];
/// What a whole run of the tests needs at most (by calculation 3 GB: 250 databases of some 12 MB, and logs), twice over.
const ROOM: u64 = 8 << 30;

/// Clients that have a way of their own.
const CUT_OFF_MAX: u8 = 8;

/// A disk on every machine: where figures of what is synced come from.
const DISK: &str = "/var/tmp";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    name: String,
}

impl Cluster {
    /// Makes and starts a cluster, installing PostgreSQL if it is missing (about two seconds if not).
    pub fn start() -> Result<Cluster, LabError> {
        Self::start_in(roomy())
    }

    /// The same on a disk, for what is measured.
    pub fn start_on_disk() -> Result<Cluster, LabError> {
        Self::start_in(Path::new(DISK))
    }

    fn start_in(place: &Path) -> Result<Cluster, LabError> {
        packages::must_be_root()?;
        end_orphans();
        let programs = programs()?;
        let port = free_port()?;
        let name = format!("postgres-{}-{port}", std::process::id());
        let folder = place.join(format!("ringward-{name}"));
        std::fs::create_dir_all(&folder).map_err(LabError::file("create", &folder))?;
        command::run("give the folder to postgres", "chown", [Path::new("postgres:"), &folder])?;
        let cluster = Cluster { folder, port, name };
        cluster.boot(&programs)?;
        Ok(cluster)
    }

    /// `postgres://…`, as superuser, database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The same by an address of its own for the `n`-th client (from 0), so that its way alone can be cut.
    pub(crate) fn url_of(&self, n: u8) -> String {
        format!("postgres://postgres@{}:{}/postgres", Self::address_of(n), self.port)
    }

    pub(crate) fn address_of(n: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, n + 1)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server as a crash does, without a word to its clients.
    pub fn kill(&self) -> Result<(), LabError> {
        process::signal(&self.name, crate::Signal::Kill)
    }

    fn boot(&self, programs: &Path) -> Result<(), LabError> {
        let data = self.folder.join("data");
        let mut initdb = as_postgres(&programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
        command::finish("make a PostgreSQL cluster", initdb.arg("-D").arg(&data))?;
        let hba = data.join("pg_hba.conf");
        std::fs::write(&hba, "local all all trust\nhost all all 127.0.0.0/8 trust\n")
            .map_err(LabError::file("write", &hba))?;
        let path = self.folder.join("log");
        let log = std::fs::File::create(&path).map_err(LabError::file("create", &path))?;
        let mut server = as_postgres(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&self.folder);
        server.args(["-h", &listen().join(","), "-p", &self.port.to_string()]);
        server.args(["-c", &format!("max_connections={CONNECTIONS_MAX}")]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        process::spawn(&self.name, server)?;
        let hint = format!("see {}", path.display());
        let ready = || {
            let mut ask = Command::new(programs.join("pg_isready"));
            ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            command::finish("ask PostgreSQL", &mut ask).is_ok()
        };
        clock::wait_until("PostgreSQL to start", BOOT_MAX, &hint, ready).map(|_| ())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing in it is worth an orderly shutdown, which would wait for clients.
        self.kill().ok();
        process::end(&self.name).ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// The folder of the newest PostgreSQL's programs; installs them where there are none.
pub(crate) fn programs() -> Result<PathBuf, LabError> {
    if let Some(found) = newest() {
        return Ok(found);
    }
    packages::install(&["postgresql"])?;
    newest().ok_or_else(|| LabError::Machine(format!("no PostgreSQL below {PROGRAMS} after installing it")))
}

fn newest() -> Option<PathBuf> {
    let folders = std::fs::read_dir(PROGRAMS).ok()?.flatten().map(|entry| entry.path().join("bin"));
    let whole = folders.filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists());
    whole.max_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        version.and_then(|text| text.parse::<u32>().ok())
    })
}

/// The first place with room, else the last one.
fn roomy() -> &'static Path {
    let has_room = |place: &&str| {
        rustix::fs::statvfs(*place).is_ok_and(|of| of.f_bavail.saturating_mul(of.f_frsize) >= ROOM)
    };
    Path::new(PLACES.into_iter().find(has_room).unwrap_or("/tmp"))
}

/// `setpriv` replaces itself by the program: the pid is the server's own.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/tmp");
    command
}

/// Where clients find it: 127.0.0.1, and an address for each of those that may be cut off.
fn listen() -> Vec<String> {
    let ways = (0..CUT_OFF_MAX).map(Cluster::address_of);
    std::iter::once(Ipv4Addr::LOCALHOST).chain(ways).map(|address| address.to_string()).collect()
}

fn free_port() -> Result<u16, LabError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| LabError::Machine(format!("no free port: {error}")))
}

/// Ends clusters whose program is gone: it was killed before it could.
fn end_orphans() {
    for name in process::remembered() {
        let Some((owner, port)) = name.strip_prefix("postgres-").and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(owner).exists() {
            process::signal(&name, crate::Signal::Kill).ok();
            process::end(&name).ok();
            for place in PLACES.into_iter().chain([DISK]) {
                std::fs::remove_dir_all(format!("{place}/ringward-postgres-{owner}-{port}")).ok();
            }
        }
    }
}
