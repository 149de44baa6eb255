//! fail2ban 1.0.2 of Debian 12, to be measured beside: unpacked into a folder that is kept, nothing of it is installed. It
//! reads a PBX's own log with its shipped filter and bans in that PBX's namespace with its shipped action.
use crate::{HostName, LabError, clock, command, packages, process, root};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Debian 12's.
pub const VERSION: &str = "1.0.2-2";
/// What fail2ban wakes by when a log grows; Debian recommends it with fail2ban.
const WAKES_BY: &str = "python3-pyinotify";
/// For the server to start.
const START_MAX: Duration = Duration::from_secs(20);

/// A server of fail2ban in a host's namespace; it ends when this is dropped.
#[derive(Debug)]
pub struct Fail2ban {
    said: PathBuf,
    process: String,
}

impl Fail2ban {
    /// Has it at hand, for a start where there is no network.
    ///
    /// # Errors
    /// Debian 12's package cannot be had.
    pub fn fetch() -> Result<PathBuf, LabError> {
        let kept = Path::new(root::CACHE).join(format!("fail2ban-{VERSION}"));
        if kept.is_dir() {
            return Ok(kept);
        }
        let building = Path::new(root::CACHE).join(format!("fail2ban.building.{}", std::process::id()));
        fs::create_dir_all(&building).map_err(LabError::file("create", &building))?;
        packages::download(&[&format!("fail2ban={VERSION}"), WAKES_BY], &building)?;
        let entries = fs::read_dir(&building).map_err(LabError::file("read", &building))?;
        for package in entries.flatten().map(|entry| entry.path()) {
            if package.extension().is_some_and(|extension| extension == "deb") {
                command::run(
                    "unpack fail2ban",
                    "dpkg-deb",
                    ["-x".as_ref(), package.as_os_str(), building.as_os_str()],
                )?;
            }
        }
        fs::rename(&building, &kept).map_err(LabError::file("rename", &building))?;
        Ok(kept)
    }

    /// Starts one on a host: these logs, this many tries within ten minutes, bans of ten minutes for all of UDP and TCP.
    ///
    /// # Errors
    /// It cannot be had, or does not start.
    pub fn start(host: &HostName, logs: &[&Path], tries: u32) -> Result<Self, LabError> {
        let unpacked = Self::fetch()?;
        let folder = host.folder().join("fail2ban");
        fs::create_dir_all(&folder).map_err(LabError::file("create", &folder))?;
        let etc = folder.join("etc");
        let shipped = unpacked.join("etc/fail2ban");
        command::run("copy fail2ban's files", "cp", ["-r".as_ref(), shipped.as_os_str(), etc.as_os_str()])?;
        let logs: Vec<_> = logs.iter().map(|log| log.display().to_string()).collect();
        let write = |name: &str, text: String| {
            let path = etc.join(name);
            fs::write(&path, text).map_err(LabError::file("write", path))
        };
        write(
            "jail.local",
            format!(
                "[DEFAULT]\nbackend = pyinotify\nusedns = no\n[asterisk]\nenabled = true\nfilter = asterisk\n\
                 logpath = {}\nmaxretry = {tries}\nfindtime = 600\nbantime = 600\n\
                 action = nftables[type=allports, protocol=\"tcp,udp\", blocktype=drop]\n",
                logs.join("\n          ")
            ),
        )?;
        write("fail2ban.local", "[Definition]\ndbfile = None\n".into())?;
        // Debian switches a jail for sshd on.
        fs::remove_file(etc.join("jail.d/defaults-debian.conf")).ok();
        let said = folder.join("fail2ban.log");
        let mut server = host.in_namespace();
        server.args(["/usr/bin/python3".as_ref(), unpacked.join("usr/bin/fail2ban-server").as_os_str()]);
        server.args(["-f".as_ref(), "-c".as_ref(), etc.as_os_str()]);
        server.args([
            "-s".as_ref(),
            folder.join("sock").as_os_str(),
            "-p".as_ref(),
            folder.join("pid").as_os_str(),
        ]);
        server.arg(format!("--logtarget={}", said.display())).args(["--loglevel=INFO", "start"]);
        server.env("PYTHONPATH", unpacked.join("usr/lib/python3/dist-packages"));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = format!("fail2ban-{}", host.as_str());
        process::spawn(&process, server)?;
        let started = || fs::read_to_string(&said).is_ok_and(|said| said.contains("Jail 'asterisk' started"));
        clock::wait_until("fail2ban to start", START_MAX, &format!("see {}", said.display()), started)?;
        Ok(Fail2ban { said, process })
    }

    /// Whom it has banned so far, by its own log.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn banned(&self) -> Result<Vec<Ipv4Addr>, LabError> {
        let said = fs::read_to_string(&self.said).map_err(LabError::file("read", &self.said))?;
        let bans = said.lines().filter_map(|line| line.split("] Ban ").nth(1));
        Ok(bans.filter_map(|address| address.trim().parse().ok()).collect())
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        // What cannot be ended here is ended by the lab's sweep.
        process::end(&self.process).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs Debian's mirror, and root"]
    fn it_is_fetched_once_with_its_filter_and_its_action() {
        let kept = Fail2ban::fetch().unwrap();
        for part in ["filter.d/asterisk.conf", "action.d/nftables.conf"] {
            assert!(kept.join("etc/fail2ban").join(part).is_file(), "{part}");
        }
        assert!(kept.join("usr/lib/python3/dist-packages/pyinotify.py").is_file());
        assert_eq!(Fail2ban::fetch().unwrap(), kept);
    }
}
