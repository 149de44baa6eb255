//! One Asterisk of the lab: its files, its start, its end, its console. It is a process in the shared root, or
//! asterisk.service of a host that is booted.
use crate::machine::Machine;
use crate::{HostName, Hosts, LabError, Root, Signal, clock, command, host, process, program, render};
use minijinja::context;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

/// How long a start may take on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(60);
const CONFIG: &str = "/srv/ringward/etc/asterisk.conf";
/// Files that it may have open: room for 5,000 calls at once.
const FILES_MAX: u32 = 16_384;
/// Ports of media, two per call: room for 5,000 calls at once.
const RTP_PORTS: (u16, u16) = (10_000, 20_000);
/// Of asterisk.service.
const UNIT: &str = "asterisk.service";

/// An Asterisk on a host.
#[derive(Clone, Debug)]
pub(crate) struct Asterisk {
    pub(crate) host: HostName,
    pub(crate) root: Root,
    pub(crate) hosts: Hosts,
}

impl Asterisk {
    /// The host that is booted, if it is one of that kind.
    pub(crate) fn machine(&self) -> Option<Machine> {
        match self.hosts {
            Hosts::Processes => None,
            Hosts::Booted => Some(Machine::new(&self.host, &self.root)),
        }
    }

    /// Writes the files that every Asterisk of the lab has, and `own` files beside them.
    pub(crate) fn configure(&self, own: &[(&str, String)]) -> Result<(), LabError> {
        let home = host::HOME;
        let folders = match self.hosts {
            Hosts::Processes => context! {
                cache => format!("{home}/cache"), etc => format!("{home}/etc"), lib => format!("{home}/lib"),
                db => format!("{home}/db"), spool => format!("{home}/spool"), run => format!("{home}/run"),
                log => format!("{home}/log"),
            },
            // As Debian has them.
            Hosts::Booted => context! {
                cache => "/var/cache/asterisk", etc => "/etc/asterisk", lib => "/var/lib/asterisk",
                db => "/var/lib/asterisk", spool => "/var/spool/asterisk", run => "/var/run/asterisk",
                log => "/var/log/asterisk",
            },
        };
        let main = render::ASTERISK.render(context! {
            folders => folders,
            modules => self.root.module_folder()?,
            system_name => self.host.as_str(),
            files_max => FILES_MAX,
        })?;
        let rtp = render::RTP.render(context! { rtp_start => RTP_PORTS.0, rtp_end => RTP_PORTS.1 })?;
        self.write("asterisk.conf", &main)?;
        self.write("modules.conf", render::MODULES)?;
        self.write("logger.conf", render::LOGGER)?;
        self.write("rtp.conf", &rtp)?;
        own.iter().try_for_each(|(name, text)| self.write(name, text))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), LabError> {
        if let Some(machine) = self.machine() {
            return machine.write(&format!("/etc/asterisk/{name}"), text, 0o644);
        }
        let path = self.host.folder().join("etc").join(name);
        fs::write(&path, text).map_err(LabError::file("write", path))
    }

    /// Starts it, and its host if that is not booted; [`Asterisk::wait_until_booted`] tells when it is of use.
    pub(crate) fn start(&self) -> Result<(), LabError> {
        match self.machine() {
            Some(machine) if process::alive(&machine.process()).is_some() => {
                machine.run(&["systemctl", "start", UNIT]).map(|_| ())
            }
            Some(machine) => machine.start(program::program("ringward-agent").ok().as_deref()),
            None => self.spawn(),
        }
    }

    fn spawn(&self) -> Result<(), LabError> {
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
        let what = format!("Asterisk on {} to boot", self.host.as_str());
        let hint = format!("see {}", self.host.folder().join("log").display());
        if let Some(machine) = self.machine() {
            let booted = machine.wait_until_booted()?;
            let answers = || self.console("core waitfullybooted").is_ok();
            return Ok(booted + clock::wait_until(&what, BOOT_MAX, &hint, answers)?);
        }
        let socket = self.host.folder().join("run/asterisk.ctl");
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

    /// Ends it in order (it tells its AMI clients) and waits for its end.
    pub(crate) fn stop(&self) -> Result<(), LabError> {
        match self.machine() {
            Some(machine) => machine.run(&["systemctl", "stop", UNIT]).map(|_| ()),
            None => process::end(&self.process()),
        }
    }

    /// Sends it a signal. systemd starts a killed one again by itself.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), LabError> {
        match self.machine() {
            Some(machine) => machine.signal(UNIT, signal),
            None => process::signal(&self.process(), signal),
        }
    }

    /// Runs one line on its console and gives the answer.
    pub(crate) fn console(&self, line: &str) -> Result<String, LabError> {
        let what = format!("ask Asterisk on {}", self.host.as_str());
        if let Some(machine) = self.machine() {
            return command::finish(&what, &mut machine.command(&["asterisk", "-rx", line])?);
        }
        let Some(pid) = process::alive(&self.process()) else {
            return Err(LabError::Machine(format!("Asterisk on {} is not running", self.host.as_str())));
        };
        let pid = pid.to_string();
        command::run(
            &what,
            "nsenter",
            ["--target", &pid, "--mount", "--net", "--root", "--wd=/", "asterisk", "-C", CONFIG, "-rx", line],
        )
    }

    /// The name in the pid file of it, or of its host.
    pub(crate) fn process(&self) -> String {
        self.machine().map_or_else(|| format!("asterisk-{}", self.host.as_str()), |machine| machine.process())
    }
}
