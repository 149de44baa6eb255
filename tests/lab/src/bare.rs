//! A bare host: Debian booted with systemd and sshd, with nothing of the product on it, for playbooks to work on.
use crate::machine::Machine;
use crate::{AsteriskVersion, HostName, Lab, LabError, Root, network, packages, root};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::time::Duration;

/// For an answer of what runs on a host.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A host that has only what Debian gives it.
#[derive(Clone, Debug)]
pub struct Bare {
    host: HostName,
    address: Ipv4Addr,
    machine: Machine,
}

impl Lab {
    /// Boots bare hosts beside the lab's carriers, by name and last number of the address. Who has the key may enter them as
    /// root by ssh. They end with the lab.
    ///
    /// # Errors
    /// One does not boot.
    pub fn boot_bare(&self, hosts: &[(&str, u8)], public_key: &str) -> Result<Vec<Bare>, LabError> {
        packages::ensure(packages::MACHINE_TOOLS)?;
        // Which Asterisk it is to have is the playbooks' matter.
        let root = Root { path: root::ensure_bare()?, asterisk: AsteriskVersion::V22 };
        let mut booting = Vec::new();
        for (name, last) in hosts {
            let (host, address) = (HostName((*name).into()), self.subnet().host(*last));
            let machine = Machine::new(&host, &root);
            host.lay_folder(self.subnet())?;
            network::lay_host(name, &[address])?;
            machine.lay(self.subnet())?;
            machine.write("/root/.ssh/authorized_keys", public_key, 0o600)?;
            machine.start(None)?;
            booting.push(Bare { host, address, machine });
        }
        for bare in &booting {
            bare.machine.wait_until_booted()?;
        }
        Ok(booting)
    }
}

impl Bare {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.as_str()
    }

    /// Its address on the bridge.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its host: namespace and folder.
    #[must_use]
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Runs a shell script on it, as root, and gives what it wrote.
    ///
    /// # Errors
    /// It ended with an error.
    pub fn shell(&self, script: &str) -> Result<String, LabError> {
        self.machine.run(&["sh", "-ec", script])
    }

    /// Asks something that listens on it, also on its loopback; gives the status and the body.
    ///
    /// # Errors
    /// Nothing answers.
    pub fn ask(&self, url: &str, key: &str, body: Option<&Value>) -> Result<(u16, String), LabError> {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_MAX));
        let http: ureq::Agent = config.build().into();
        let bearer = format!("Bearer {key}");
        self.host.inside(|| {
            let answer = match body {
                Some(body) => http.post(url).header("Authorization", &bearer).send_json(body),
                None => http.get(url).header("Authorization", &bearer).call(),
            };
            let broken = |error: ureq::Error| LabError::Machine(format!("{} {url}: {error}", self.name()));
            let mut answer = answer.map_err(broken)?;
            let text = answer.body_mut().read_to_string().map_err(broken)?;
            Ok((answer.status().as_u16(), text))
        })
    }

    /// Puts a router between it and the bridge: from now on it lives at `inner` in a network of its own, all that it
    /// sends carries its former address, and of what comes in only `ports` (TCP) reach it.
    ///
    /// # Errors
    /// The network cannot be laid.
    pub fn move_behind_nat(&self, inner: Ipv4Addr, router: Ipv4Addr, ports: &[u16]) -> Result<(), LabError> {
        network::put_behind_nat(self.name(), self.address, inner, router, ports)
    }
}
