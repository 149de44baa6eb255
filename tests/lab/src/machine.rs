//! A whole host: Debian booted with systemd, in a container that lives in the host's network namespace.
//!
//! Its root is an overlay over the kept one, its changes are in memory. The container has a control group of
//! its own under `ringward-lab`, so that all of it can be ended at once, whoever started what in it; killing
//! systemd-nspawn alone would leave the container running.
use crate::{HostName, LabError, Root, Signal, Subnet, clock, command, network, process};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where roots of machines are mounted.
const MACHINES: &str = "/var/lib/ringward-lab/machines";
/// How much a machine may write.
const WRITTEN_MAX: &str = "size=2g";
/// Where control groups may be mounted: unified, or unified beside the old ones.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
/// The lab's control group.
const CGROUP: &str = "ringward-lab";
/// From the start to a login prompt, on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(60);
/// For every process of it to be gone.
const END_MAX: Duration = Duration::from_secs(10);

/// A host that is booted.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    host: HostName,
    root: Root,
}

impl Machine {
    pub(crate) fn new(host: &HostName, root: &Root) -> Self {
        Machine { host: host.clone(), root: root.clone() }
    }

    fn folder(&self) -> PathBuf {
        Path::new(MACHINES).join(self.host.as_str())
    }

    /// Its root, seen from outside.
    fn merged(&self) -> PathBuf {
        self.folder().join("root")
    }

    /// Mounts its root, as Debian installed it.
    pub(crate) fn lay(&self, subnet: Subnet) -> Result<(), LabError> {
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(LabError::file("create", &folder))?;
        let mount = |arguments: &[&OsStr]| command::run("mount a machine's root", "mount", arguments);
        mount(&[
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            WRITTEN_MAX.as_ref(),
            "ringward-lab".as_ref(),
            folder.as_ref(),
        ])?;
        for part in ["written", "work", "root"] {
            let path = folder.join(part);
            fs::create_dir(&path).map_err(LabError::file("create", path))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={1}/written,workdir={1}/work",
            self.root.path.display(),
            folder.display()
        );
        mount(&[
            "-t".as_ref(),
            "overlay".as_ref(),
            "-o".as_ref(),
            layers.as_ref(),
            "ringward-lab".as_ref(),
            self.merged().as_ref(),
        ])?;
        // What kept services down while the root was made.
        let policy = self.merged().join("usr/sbin/policy-rc.d");
        fs::remove_file(&policy).map_err(LabError::file("remove", policy))?;
        // Where hosts that are processes mount their sounds; here the agent's unit makes a link.
        match fs::remove_dir(self.merged().join("usr/share/asterisk/sounds/ringward")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::file("remove", "the folder of sounds")(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.write("/etc/hostname", &format!("{}\n", self.host.as_str()), 0o644)?;
        self.write("/etc/resolv.conf", &format!("nameserver {}\n", subnet.root()), 0o644)?;
        // Asterisk looks its own name up as it starts, and waits 20 s where that is not answered.
        self.write("/etc/hosts", &format!("127.0.0.1 localhost {}\n", self.host.as_str()), 0o644)
    }

    /// Writes a file of it, before or after it is booted.
    pub(crate) fn write(&self, path: &str, text: &str, mode: u32) -> Result<(), LabError> {
        let path = self.merged().join(path.trim_start_matches('/'));
        // A link of Debian's would lead out of its root.
        fs::remove_file(&path).ok();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(LabError::file("create", folder))?;
        }
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(LabError::file("write", &path))
    }

    /// Starts it, with a program of this workspace in its `/usr/bin`.
    pub(crate) fn start(&self, program: Option<&Path>) -> Result<(), LabError> {
        const SCRIPT: &str = "set -e; group=$1; shift\n\
            for top in $CGROUPS; do\n\
            if [ -f $top/cgroup.procs ]; then mkdir -p $top/$group; echo $$ > $top/$group/cgroup.procs; fi\n\
            done\n\
            exec systemd-nspawn \"$@\"";
        let path = self.host.folder().join("log/boot.log");
        let log = fs::File::create(&path).map_err(LabError::file("create", &path))?;
        let errors = log.try_clone().map_err(LabError::file("open", &path))?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "machine", &format!("{CGROUP}/{}", self.host.as_str())])
            .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            // Its network is its own: it may have a firewall.
            .arg("--capability=CAP_NET_ADMIN")
            .arg(format!("--hostname={}", self.host.as_str()))
            .arg(format!("--network-namespace-path=/run/netns/{}", network::namespace(self.host.as_str())))
            .arg(format!("--directory={}", self.merged().display()))
            .args(program.map(bind))
            .env("CGROUPS", CGROUPS.join(" "))
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        process::spawn(&self.process(), command).map(|_| ())
    }

    /// Waits until its systemd has started everything.
    pub(crate) fn wait_until_booted(&self) -> Result<Duration, LabError> {
        let what = format!("{} to boot", self.host.as_str());
        let hint = format!("see {}", self.host.folder().join("log/boot.log").display());
        let booted = || {
            let said = self
                .command(&["systemctl", "is-system-running"])
                .and_then(|mut command| command.output().map_err(LabError::file("start", "nsenter")));
            // Degraded: a unit failed, which is the test's matter.
            said.is_ok_and(|said| matches!(said.stdout.trim_ascii(), b"running" | b"degraded"))
        };
        clock::wait_until(&what, BOOT_MAX, &hint, booted)
    }

    /// The pid of its systemd, seen from outside.
    fn leader(&self) -> Option<u32> {
        let pid = process::alive(&self.process())?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// A command that runs in it, as root.
    pub(crate) fn command(&self, line: &[&str]) -> Result<Command, LabError> {
        let Some(leader) = self.leader() else {
            return Err(LabError::Machine(format!("{} is not running", self.host.as_str())));
        };
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &leader.to_string(), "--all", "--root", "--wdns=/"])
            .args(line)
            .current_dir("/");
        // Nothing of this machine's: a variable of the lab's is no setting of what runs there.
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    /// Runs a command in it and gives what it wrote.
    pub(crate) fn run(&self, line: &[&str]) -> Result<String, LabError> {
        let what = format!("{} on {}", line.first().unwrap_or(&""), self.host.as_str());
        command::finish(&what, self.command(line)?.stdin(Stdio::null()))
    }

    /// Sends a signal to the main process of a unit.
    pub(crate) fn signal(&self, unit: &str, signal: Signal) -> Result<(), LabError> {
        let name = format!("--signal={}", signal.name().trim_start_matches('-'));
        self.run(&["systemctl", "kill", "--kill-whom=main", &name, unit]).map(|_| ())
    }

    /// Ends every process of it at once.
    pub(crate) fn kill(&self) -> Result<(), LabError> {
        for top in CGROUPS {
            let kill = Path::new(top).join(CGROUP).join(self.host.as_str()).join("cgroup.kill");
            if kill.exists() {
                fs::write(&kill, "1").map_err(LabError::file("write", &kill))?;
            }
        }
        Ok(())
    }

    /// The main process of a unit, as this machine counts: the one of that number inside.
    pub(crate) fn main_pid(&self, unit: &str) -> Option<u32> {
        let group = self.run(&["systemctl", "show", "--value", "--property=ControlGroup", unit]).ok()?;
        let leader = self.leader()?;
        let top = fs::read_to_string(format!("/proc/{leader}/cgroup")).ok()?;
        // `0::/ringward-lab/pbx-1/payload/init.scope` beside `/system.slice/ringward-agent.service`.
        let top = top.lines().find_map(|line| line.strip_prefix("0::"))?.trim_end_matches("/init.scope");
        let procs = CGROUPS.iter().find_map(|mount| {
            fs::read_to_string(format!("{mount}{top}{}/cgroup.procs", group.trim())).ok()
        })?;
        procs.lines().next()?.parse().ok()
    }

    /// A path of it as this machine reaches it, through whatever is mounted in it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let outside = self.leader().map_or_else(|| self.merged(), |pid| format!("/proc/{pid}/root").into());
        outside.join(path.trim_start_matches('/'))
    }

    /// The name in its pid file.
    pub(crate) fn process(&self) -> String {
        format!("machine-{}", self.host.as_str())
    }
}

/// The option that puts a program into `/usr/bin`.
fn bind(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("--bind-ro={}:/usr/bin/{name}", program.display())
}

/// Ends every process of every machine, and unmounts their roots.
pub(crate) fn remove_all() -> Result<(), LabError> {
    for top in CGROUPS.map(|top| Path::new(top).join(CGROUP)).iter().filter(|top| top.exists()) {
        let kill = top.join("cgroup.kill");
        if kill.exists() {
            fs::write(&kill, "1").map_err(LabError::file("write", &kill))?;
        }
        clock::wait_until("machines to end", END_MAX, "see their log/boot.log", || remove_groups(top))?;
    }
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default();
    // The last mounted first: roots before the memory that they are written to.
    for path in mounted.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(path).starts_with(MACHINES) {
            command::run("unmount a machine's root", "umount", [path])?;
        }
    }
    for entry in fs::read_dir(MACHINES).into_iter().flatten().flatten() {
        // Empty now; if it is not, nothing of it is ours to remove.
        fs::remove_dir(entry.path()).map_err(LabError::file("remove", entry.path()))?;
    }
    Ok(())
}

/// Removes a control group and those in it; not while there is a process in one.
fn remove_groups(top: &Path) -> bool {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    fs::remove_dir(top).is_ok()
}
