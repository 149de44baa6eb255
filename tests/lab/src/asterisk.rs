//! One Asterisk process of the lab: its files, its start, its end, its console.
use crate::{HostName, LabError, Root, clock, command, host, process, render};
use minijinja::context;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

/// How long a start may take on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(60);
const CONFIG: &str = "/srv/ringward/etc/asterisk.conf";

/// An Asterisk on a host.
#[derive(Clone, Debug)]
pub(crate) struct Asterisk {
    pub(crate) host: HostName,
    pub(crate) root: Root,
}

impl Asterisk {
    /// Writes the files that every Asterisk of the lab has, and `own` files beside them.
    pub(crate) fn configure(&self, own: &[(&str, String)]) -> Result<(), LabError> {
        let main = render::ASTERISK.render(context! {
            home => host::HOME,
            modules => self.root.module_folder()?,
            name => self.host.as_str(),
        })?;
        self.write("asterisk.conf", &main)?;
        self.write("modules.conf", render::MODULES)?;
        self.write("logger.conf", render::LOGGER)?;
        self.write("rtp.conf", render::RTP)?;
        own.iter().try_for_each(|(name, text)| self.write(name, text))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), LabError> {
        let path = self.host.folder().join("etc").join(name);
        fs::write(&path, text).map_err(LabError::file("write", path))
    }

    /// Starts it; [`Asterisk::wait_until_booted`] tells when it is of use.
    pub(crate) fn start(&self) -> Result<(), LabError> {
        let folder = self.host.folder();
        // A socket of a killed predecessor would be taken for a running one.
        for left in ["run/asterisk.ctl", "run/asterisk.pid"] {
            fs::remove_file(folder.join(left)).ok();
        }
        let path = folder.join("log/console.log");
        let log =
            File::options().create(true).append(true).open(&path).map_err(LabError::file("open", &path))?;
        let errors = log.try_clone().map_err(LabError::file("open", &path))?;
        let mut command = self.host.in_root(&self.root, &["asterisk", "-C", CONFIG, "-f", "-n"]);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        process::spawn(&self.process(), command).map(|_| ())
    }

    /// Waits until it is fully booted.
    pub(crate) fn wait_until_booted(&self) -> Result<Duration, LabError> {
        let socket = self.host.folder().join("run/asterisk.ctl");
        let hint = format!("see {}", self.host.folder().join("log").display());
        let what = format!("Asterisk on {} to boot", self.host.as_str());
        let name = self.process();
        let mut died = false;
        let waited = clock::wait_until(&what, BOOT_MAX, &hint, || {
            died = process::alive(&name).is_none();
            died || socket.exists() && self.console("core waitfullybooted").is_ok()
        })?;
        if died {
            return Err(LabError::Machine(format!(
                "Asterisk on {} ended while it booted; {hint}",
                self.host.as_str()
            )));
        }
        Ok(waited)
    }

    /// Runs one line on its console and gives the answer.
    pub(crate) fn console(&self, line: &str) -> Result<String, LabError> {
        let Some(pid) = process::alive(&self.process()) else {
            return Err(LabError::Machine(format!("Asterisk on {} is not running", self.host.as_str())));
        };
        let pid = pid.to_string();
        command::run(
            &format!("ask Asterisk on {}", self.host.as_str()),
            "nsenter",
            ["--target", &pid, "--mount", "--net", "--root", "--wd=/", "asterisk", "-C", CONFIG, "-rx", line],
        )
    }

    /// The name in its pid file.
    pub(crate) fn process(&self) -> String {
        format!("asterisk-{}", self.host.as_str())
    }
}
