//! fail2ban 1.0.2, unpacked from Debian 12's package into a folder: nothing of it is installed.
use super::log::LAST;
use anyhow::{bail, ensure};
use lab::now;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(super) use lab::FAIL2BAN_VERSION as VERSION;
/// For the server to start, and to read what it is given.
const START_MAX: Duration = Duration::from_secs(20);
const READ_MAX: Duration = Duration::from_secs(600);

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
        Ok(Self { folder: folder.to_owned(), root: lab::Fail2ban::fetch()? })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(self.root.join("usr/bin").join(program));
        command.env("PYTHONPATH", self.root.join("usr/lib/python3/dist-packages"));
        command.stdin(Stdio::null());
        command
    }

    fn filters(&self) -> PathBuf {
        self.root.join("etc/fail2ban")
    }

    /// Seconds that `fail2ban-regex` takes.
    pub(super) fn regex(&self, log: &Path) -> anyhow::Result<f64> {
        let began = now();
        let said = self
            .command("fail2ban-regex")
            .arg(log)
            .arg(self.filters().join("filter.d/asterisk.conf"))
            .output()?;
        let seconds = began.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let summary = text.lines().find(|line| line.starts_with("Lines:")).unwrap_or_default();
        ensure!(
            summary.starts_with("Lines: 200000 lines") && !summary.contains(" 0 matched"),
            "fail2ban-regex read something else: {summary} {}",
            String::from_utf8_lossy(&said.stderr)
        );
        Ok(seconds)
    }

    /// Seconds from the appending of these lines until the server bans the address of the last five.
    pub(super) fn server(&self, lines: &str) -> anyhow::Result<f64> {
        let (followed, said) = (self.folder.join("followed.log"), self.folder.join("fail2ban.log"));
        std::fs::write(&followed, "")?;
        let jail = format!(
            "[DEFAULT]\nbackend = polling\nusedns = no\n[asterisk]\nenabled = true\nfilter = asterisk\nlogpath = {}\n\
             maxretry = 5\nfindtime = 86400\nbantime = 600\naction =\n",
            followed.display()
        );
        std::fs::write(self.filters().join("jail.local"), jail)?;
        std::fs::write(self.filters().join("fail2ban.local"), "[Definition]\ndbfile = None\n")?;
        // Debian switches a jail for sshd on.
        let _ = std::fs::remove_file(self.filters().join("jail.d/defaults-debian.conf"));
        let folder = &self.folder;
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
        let _server = Server(server);
        until(&said, "Jail 'asterisk' started", START_MAX)?;
        let began = now();
        std::fs::OpenOptions::new().append(true).open(&followed)?.write_all(lines.as_bytes())?;
        until(&said, &format!("Ban {LAST}"), READ_MAX)?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// Until its log says this. Only what is new of it is read each time: the server needs the processor.
fn until(log: &Path, wanted: &str, at_most: Duration) -> anyhow::Result<()> {
    let (began, mut file, mut text) = (now(), None, String::new());
    while began.elapsed() < at_most {
        if file.is_none() {
            file = File::open(log).ok();
        }
        if let Some(file) = &mut file {
            file.read_to_string(&mut text)?;
        }
        if text.contains(wanted) {
            return Ok(());
        }
        // What is wanted may have come by half.
        text = text.lines().last().unwrap_or_default().to_owned();
        lab::pause(Duration::from_millis(20));
    }
    bail!("fail2ban did not say {wanted:?} within {at_most:?}; its last words: {text:?}")
}
