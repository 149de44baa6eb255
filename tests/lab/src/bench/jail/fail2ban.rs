//! fail2ban 1.0.2, unpacked from Debian 12's package into a folder: nothing of it is installed. The lab keeps it, so that a second run needs no
//! network.
use super::super::{cpu_time, cpu_time_of_ended};
use super::log::Log;
use super::{Taken, Words, followed};
use anyhow::ensure;
use lab::memory;
use lab::now;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(super) use lab::FAIL2BAN_VERSION as VERSION;
/// For the server to start.
const START_MAX: Duration = Duration::from_secs(20);

/// How the server learns of new lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Backend {
    Polling,
    Pyinotify,
}

impl Backend {
    pub(super) const ALL: [Self; 2] = [Self::Polling, Self::Pyinotify];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Pyinotify => "pyinotify",
        }
    }
}

pub(super) struct Fail2ban {
    folder: PathBuf,
    root: PathBuf,
}

/// Ends with the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Fail2ban {
    pub(super) fn fetch(folder: &Path) -> anyhow::Result<Self> {
        let root = lab::Fail2ban::fetch()?;
        // Its settings are written here; what is kept stays as it came.
        let copied =
            Command::new("cp").arg("-r").arg(root.join("etc/fail2ban")).arg(folder.join("etc")).status()?;
        ensure!(copied.success(), "fail2ban's files cannot be copied");
        Ok(Self { folder: folder.to_owned(), root })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(self.root.join("usr/bin").join(program));
        command.env("PYTHONPATH", self.root.join("usr/lib/python3/dist-packages"));
        command.stdin(Stdio::null());
        command
    }

    fn filters(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// `fail2ban-regex`.
    pub(super) fn regex(&self, path: &Path, log: &Log) -> anyhow::Result<Taken> {
        let said = self.folder.join("fail2ban-regex.out");
        let (began, cpu) = (now(), cpu_time_of_ended()?);
        let mut child = self
            .command("fail2ban-regex")
            .arg(path)
            .arg(self.filters().join("filter.d/asterisk.conf"))
            .stdout(File::create(&said)?)
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut peak_mb = 0.0_f64;
        while child.try_wait()?.is_none() {
            peak_mb = peak_mb.max(memory::peak_mb(child.id()).unwrap_or_default());
            lab::pause(Duration::from_millis(20));
        }
        let seconds = began.elapsed().as_secs_f64();
        let cpu_s = cpu_time_of_ended()?.saturating_sub(cpu).as_secs_f64();
        let text = std::fs::read_to_string(&said)?;
        let summary = text.lines().find(|line| line.starts_with("Lines:")).unwrap_or_default();
        let wanted = format!("Lines: {} lines, 0 ignored, {} matched,", log.lines, log.offences);
        ensure!(summary.starts_with(&wanted), "fail2ban-regex read something else: {summary}");
        Ok(Taken { seconds, cpu_s, peak_mb })
    }

    /// The running server.
    pub(super) fn server(&self, backend: Backend, log: &Log) -> anyhow::Result<Taken> {
        let folder = self.folder.join(backend.word());
        std::fs::create_dir_all(&folder)?;
        let (file, said) = (folder.join("followed.log"), folder.join("fail2ban.log"));
        std::fs::write(&file, "")?;
        std::fs::write(&said, "")?;
        let jail = format!(
            "[DEFAULT]\nbackend = {}\nusedns = no\n[asterisk]\nenabled = true\nfilter = asterisk\nlogpath = {}\n\
             maxretry = 5\nfindtime = 86400\nbantime = 86400\naction =\n",
            backend.word(),
            file.display()
        );
        std::fs::write(self.filters().join("jail.local"), jail)?;
        std::fs::write(self.filters().join("fail2ban.local"), "[Definition]\ndbfile = None\n")?;
        // Debian switches a jail for sshd on.
        let _ = std::fs::remove_file(self.filters().join("jail.d/defaults-debian.conf"));
        let server = self
            .command("fail2ban-server")
            .arg("-f")
            .arg("-c")
            .arg(self.filters())
            .arg("-s")
            .arg(folder.join("fail2ban.sock"))
            .arg("-p")
            .arg(folder.join("fail2ban.pid"))
            .arg(format!("--logtarget={}", said.display()))
            .args(["--loglevel=INFO", "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Server(server);
        let mut words = Words(File::open(&said)?);
        words.wait_for("Jail 'asterisk' started", START_MAX)?;
        lab::pause(Duration::from_secs(1));
        let cpu = cpu_time(server.0.id())?;
        let seconds = followed(&file, log, &mut words, "NOTICE  [asterisk] Ban ")?;
        let cpu_s = cpu_time(server.0.id())?.saturating_sub(cpu).as_secs_f64();
        let peak_mb = memory::peak_mb(server.0.id())?;
        let text = std::fs::read_to_string(&said)?;
        let found = text.lines().filter(|line| line.contains("[asterisk] Found ")).count() as u64;
        ensure!(found == log.offences, "fail2ban found {found} offences of {}", log.offences);
        Ok(Taken { seconds, cpu_s, peak_mb })
    }
}
