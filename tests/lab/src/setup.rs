//! How a control plane is started: its folder, its database, its doors, its clock.
use crate::{LabError, packages, process, program};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The process's name in the lab's pid files, where there is one.
const NAME: &str = "ringward";

/// A bug that a control plane of the tests has on purpose, to show that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An Originate leaves before its attempt is written.
    WriteAfterSend,
    /// What was under way at a restart counts as never sent.
    ReconcileOff,
    /// An event counts as delivered before it was sent.
    SettleBeforeSend,
    /// A restart forgets which rounds a call has had, and begins them again.
    RoundsForgotten,
}

impl Planted {
    /// The word that `ringward-planted` knows it by.
    fn word(self) -> &'static str {
        match self {
            Planted::WriteAfterSend => "write-after-send",
            Planted::ReconcileOff => "reconcile-off",
            Planted::SettleBeforeSend => "settle-before-send",
            Planted::RoundsForgotten => "rounds-forgotten",
        }
    }
}

/// Which build of the control plane runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Beside,
    Release,
    Planted(Planted),
}

/// How a control plane is started.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(crate) folder: PathBuf,
    database_url: Option<String>,
    agents_at: Ipv4Addr,
    clock_ahead_s: i32,
    program: Program,
    throttle: Option<String>,
    webhooks_to: Option<String>,
    open_calls_max: Option<u32>,
    /// Its process's name in the lab's pid files.
    pub(crate) name: String,
    is_replica: bool,
    /// Where agents reach this one and those that share its database; its own door where this is empty.
    pub(crate) agents_reach: Vec<SocketAddr>,
}

/// Where the doors of one control plane are, from its first start on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub(crate) api: SocketAddr,
    pub(crate) operator: SocketAddr,
    pub(crate) agents: SocketAddr,
}

impl Setup {
    /// On an SQLite database in `folder`, all doors on loopback.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Setup {
            folder: folder.to_owned(),
            database_url: None,
            agents_at: Ipv4Addr::LOCALHOST,
            clock_ahead_s: 0,
            program: Program::Beside,
            throttle: None,
            webhooks_to: None,
            open_calls_max: None,
            name: NAME.to_owned(),
            is_replica: false,
            agents_reach: Vec::new(),
        }
    }

    /// As one of several on its database.
    pub(crate) fn replica(self) -> Self {
        Setup { is_replica: true, ..self }
    }

    /// Under another name, beside the one that has the usual one.
    pub(crate) fn named(self, name: &str) -> Self {
        Setup { name: name.to_owned(), ..self }
    }

    /// In the optimised build.
    #[must_use]
    pub fn release(self) -> Self {
        Setup { program: Program::Release, ..self }
    }

    /// With a bug: `ringward-planted`, which only `--features controlplane/planted-bugs` builds.
    #[must_use]
    pub fn planted(self, bug: Planted) -> Self {
        Setup { program: Program::Planted(bug), ..self }
    }

    /// On a database of the caller's.
    #[must_use]
    pub fn database(self, url: String) -> Self {
        Setup { database_url: Some(url), ..self }
    }

    /// With the agents' door at an address that nodes reach.
    #[must_use]
    pub fn agents_at(self, address: Ipv4Addr) -> Self {
        Setup { agents_at: address, ..self }
    }

    /// With its wall clock so many seconds ahead of this machine's, which is the nodes'; behind, if negative.
    #[must_use]
    pub fn clock_ahead(self, seconds: i32) -> Self {
        Setup { clock_ahead_s: seconds, ..self }
    }

    /// With a limit for each number, as the setting `throttle` is written; off otherwise.
    #[must_use]
    pub fn throttle(self, windows: &str) -> Self {
        Setup { throttle: Some(windows.to_owned()), ..self }
    }

    /// With webhooks to an inner network too, as `127.0.0.0/8`, over http.
    #[must_use]
    pub fn webhooks_to(self, network: &str) -> Self {
        Setup { webhooks_to: Some(network.to_owned()), ..self }
    }

    /// With so many open calls of one organisation at most; as the program's default otherwise.
    #[must_use]
    pub fn open_calls_max(self, calls: u32) -> Self {
        Setup { open_calls_max: Some(calls), ..self }
    }

    /// Free ports for its doors.
    pub(crate) fn doors(&self) -> Result<Doors, LabError> {
        let free = |at: Ipv4Addr| program::free_port(at).map(|port| SocketAddr::from((at, port)));
        Ok(Doors {
            api: free(Ipv4Addr::LOCALHOST)?,
            operator: free(Ipv4Addr::LOCALHOST)?,
            agents: free(self.agents_at)?,
        })
    }

    /// Its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("ringward.log")
    }

    /// Starts the process; it is of use once `/readyz` says so.
    pub(crate) fn spawn(&self, doors: Doors) -> Result<(), LabError> {
        packages::ensure(packages::SPEECH_TOOLS)?;
        let log = self.log();
        let open =
            || File::options().create(true).append(true).open(&log).map_err(LabError::file("write", &log));
        let mut command = Command::new(match self.program {
            Program::Beside => program::program("ringward")?,
            Program::Release => program::release_program("ringward")?,
            Program::Planted(_) => program::program("ringward-planted")?,
        });
        if let Program::Planted(bug) = self.program {
            command.env("PLANTED_BUG", bug.word());
        }
        command
            .args(["serve", "--data-dir"])
            .arg(&self.folder)
            .args(["--api-listen", &doors.api.to_string()])
            .args(["--operator-listen", &doors.operator.to_string()])
            .args(["--agents-listen", &doors.agents.to_string()])
            .env("RINGWARD_AGENTS__URLS", self.agents_urls(doors))
            .env_remove("RINGWARD_DATABASE_URL")
            // Tests and benches dial the same numbers again and again.
            .env("RINGWARD_THROTTLE", self.throttle.as_deref().unwrap_or("[]"))
            // The numbers that the lab dials; everything else stays closed.
            .env("RINGWARD_GUARD__PREFIXES", r#"{"+48"="allow","+49"="allow"}"#)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?);
        if let Some(url) = &self.database_url {
            command.env("RINGWARD_DATABASE_URL", url);
        }
        if let Some(network) = &self.webhooks_to {
            command.env("RINGWARD_WEBHOOKS__ALLOW_HTTP", "true");
            command.env("RINGWARD_WEBHOOKS__ALLOW_NETS", format!("[\"{network}\"]"));
        }
        if let Some(calls) = self.open_calls_max {
            command.env("RINGWARD_CALLS__ORG_OPEN_MAX", calls.to_string());
        }
        if self.is_replica {
            command.env("RINGWARD_REPLICAS__ENABLED", "true");
        }
        if self.clock_ahead_s != 0 {
            packages::ensure(packages::CLOCK_TOOLS)?;
            let arch = std::env::consts::ARCH;
            command
                .env("LD_PRELOAD", format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1"))
                .env("FAKETIME", format!("{:+}s", self.clock_ahead_s))
                // What is waited for goes by the steady clock, which is true on every machine.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        process::spawn(&self.name, command).map(|_| ())
    }

    /// As the setting is written.
    fn agents_urls(&self, doors: Doors) -> String {
        let own = [doors.agents];
        let reach = if self.agents_reach.is_empty() { &own[..] } else { &self.agents_reach };
        let urls: Vec<_> = reach.iter().map(|door| format!("\"https://{door}\"")).collect();
        format!("[{}]", urls.join(","))
    }
}
