//! A phone beside the attacker: SIPp, which registers its account again and again, as honest phones do.
use crate::{HostName, LabError, Pbx, clock, hardened::Beside, packages};
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Account and password that every PBX of a lab with phones has; see `hosts/pbx_phones.conf`.
pub const ACCOUNT: &str = "6001";
const PASSWORD: &str = "Gw7-nobody-guesses-this";
const SCENARIO: &str = include_str!("../hosts/phone.xml");
/// Beyond the time that its registrations take.
const GRACE: Duration = Duration::from_secs(15);

/// The phone.
#[derive(Clone, Debug)]
pub struct Phone(pub(crate) Beside);

/// Registrations that run; ended when this is dropped.
#[derive(Debug)]
pub struct Registrations {
    child: Child,
    at_most: Duration,
}

impl Phone {
    /// Its host.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.0.host
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// Begins to register at a PBX, so often and so many a second; each is challenged and answers with its password.
    ///
    /// # Errors
    /// SIPp cannot be had or started.
    pub fn register(&self, pbx: &Pbx, count: u32, per_s: u32) -> Result<Registrations, LabError> {
        packages::ensure(packages::ATTACK_TOOLS)?;
        let folder = pbx.host().folder();
        let (scenario, log) = (folder.join("phone.xml"), folder.join("log/phone.log"));
        std::fs::write(&scenario, SCENARIO).map_err(LabError::file("write", &scenario))?;
        let log = std::fs::File::create(&log).map_err(LabError::file("create", &log))?;
        let mut command = self.host().in_namespace();
        command
            .args(["sipp", "-sf"])
            .arg(&scenario)
            .args([
                "-i",
                &self.address().to_string(),
                "-p",
                "5062",
                "-s",
                ACCOUNT,
                "-au",
                ACCOUNT,
                "-ap",
                PASSWORD,
            ])
            .args(["-r", &per_s.to_string(), "-m", &count.to_string(), "-recv_timeout", "3000", "-nostdin"])
            .arg(format!("{}:5060", pbx.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().map_err(|source| LabError::Start {
            what: "start a phone".into(),
            program: "sipp".into(),
            source,
        })?;
        let at_most = GRACE + Duration::from_secs(u64::from(count.div_ceil(per_s.max(1))));
        Ok(Registrations { child, at_most })
    }
}

impl Registrations {
    /// Waits for their end.
    ///
    /// # Errors
    /// One of them failed, or they do not end.
    pub fn all_went_well(mut self) -> Result<(), LabError> {
        let mut ended = None;
        clock::wait_until("a phone's registrations", self.at_most, "see log/phone.log", || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        })?;
        match ended {
            Some(status) if status.success() => Ok(()),
            other => Err(LabError::Machine(format!("a registration of the phone failed: {other:?}"))),
        }
    }
}

impl Drop for Registrations {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
