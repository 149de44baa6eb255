//! A running lab: up, down, and its hosts by name.
use crate::asterisk::Asterisk;
use crate::{
    AmiUser, Attacker, Carrier, Hardening, HostName, Hosts, LabError, Pbx, Phone, Plan, Root, Subnet, clock,
    fleet_toml, hardened, leaks, network, packages, progress, root, sweep::sweep_ours,
};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the lab remembers what runs; emptied at boot like the processes.
pub(crate) const STATE: &str = "/run/ringward-lab";
/// The last number of the attacker's address.
const ATTACKER: u8 = 66;

/// Who ends the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It ends when the [`Lab`] is dropped.
    Scoped,
    /// It stays until `cargo lab down` or the next `up`.
    Kept,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    plan: Plan,
    subnet: Subnet,
    pbxes: Vec<Pbx>,
    carriers: Vec<Carrier>,
    attacker: Attacker,
    hold: Hold,
    /// Held for as long as this lab lives: there is one per machine.
    _lock: Option<Lock>,
}

/// No lab runs on this machine for as long as this lives.
#[derive(Debug)]
pub struct Alone {
    _lock: Lock,
}

impl Lab {
    /// Boots what the plan asks for; it ends when the result is dropped.
    pub fn up(plan: Plan) -> Result<Lab, LabError> {
        Self::up_and_hold(plan, Hold::Scoped)
    }

    /// Boots what the plan asks for, in place of a lab that runs or was left by a crash.
    pub fn up_and_hold(plan: Plan, hold: Hold) -> Result<Lab, LabError> {
        plan.check()?;
        packages::must_be_root()?;
        let lock = take_lock()?;
        packages::ensure(packages::HOST_TOOLS)?;
        if plan.hosts == Hosts::Booted {
            packages::ensure(packages::MACHINE_TOOLS)?;
        }
        let carrier_root = root::ensure(crate::AsteriskVersion::V22)?;
        let pbx_root = root::ensure(plan.asterisk)?;
        sweep_ours()?;
        let subnet = Subnet::pick()?;
        let mut lab = Lab::describe(plan, subnet, &pbx_root, &carrier_root)?;
        lab.hold = hold;
        lab._lock = Some(lock);
        if let Err(error) = lab.boot() {
            sweep_ours().ok();
            return Err(error);
        }
        Ok(lab)
    }

    /// Keeps labs away while something is measured that needs none of their hosts, and ends what was left by a crash.
    pub fn alone() -> Result<Alone, LabError> {
        packages::must_be_root()?;
        let lock = take_lock()?;
        sweep_ours()?;
        Ok(Alone { _lock: lock })
    }

    /// The lab that `cargo lab up` left running.
    pub fn attach() -> Result<Lab, LabError> {
        let path = plan_file();
        let text = fs::read_to_string(&path).map_err(|_| LabError::NotRunning)?;
        let (plan, subnet): (Plan, Subnet) = serde_json::from_str(&text).map_err(|_| LabError::NotRunning)?;
        let carrier_root = root::ensure(crate::AsteriskVersion::V22)?;
        let pbx_root = root::ensure(plan.asterisk)?;
        Lab::describe(plan, subnet, &pbx_root, &carrier_root)
    }

    /// Ends it now.
    pub fn down(mut self) -> Result<(), LabError> {
        self.hold = Hold::Kept; // nothing is left for Drop
        if self._lock.is_some() { sweep_ours() } else { crate::sweep() }
    }

    /// What it was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which addresses it uses.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// All PBXes.
    pub fn pbxes(&self) -> &[Pbx] {
        &self.pbxes
    }

    /// All carriers.
    pub fn carriers(&self) -> &[Carrier] {
        &self.carriers
    }

    /// A PBX by name, e.g. `pbx-1`.
    pub fn pbx(&self, name: &str) -> Result<&Pbx, LabError> {
        let known = || self.pbxes.iter().map(Pbx::name).collect::<Vec<_>>().join(", ");
        self.pbxes.iter().find(|pbx| pbx.name() == name).ok_or_else(|| no_such("PBX", name, known()))
    }

    /// A carrier by name, e.g. `a`.
    pub fn carrier(&self, name: &str) -> Result<&Carrier, LabError> {
        let known = || self.carriers.iter().map(Carrier::name).collect::<Vec<_>>().join(", ");
        self.carriers
            .iter()
            .find(|carrier| carrier.name() == name)
            .ok_or_else(|| no_such("carrier", name, known()))
    }

    /// The attacker.
    pub fn attacker(&self) -> &Attacker {
        &self.attacker
    }

    /// The phone beside the attacker, where the lab's agents ban.
    #[must_use]
    pub fn phone(&self) -> Phone {
        Phone(hardened::phone(self.subnet))
    }

    /// The machine from which operators reach hosts by ssh.
    pub fn operator(&self) -> HostName {
        hardened::operator(self.subnet).host
    }

    /// Text of `fleet.toml` for this lab: its nodes, its trunks, one route for all numbers.
    pub fn fleet_toml(&self) -> String {
        fleet_toml::write(&self.plan, self.subnet, &self.pbxes, &self.carriers)
    }

    /// The address at which hosts of the lab reach programs of the root namespace.
    pub fn root_address(&self) -> Ipv4Addr {
        self.subnet.root()
    }

    /// Replaces this process by `program` on a host; comes back only with the reason why not.
    pub fn exec_on(&self, name: &str, program: &[&str]) -> Result<LabError, LabError> {
        use std::os::unix::process::CommandExt as _;
        let all = self.carriers.iter().map(|carrier| &carrier.asterisk);
        let mut all = all.chain(self.pbxes.iter().map(|pbx| &pbx.asterisk));
        let Some(asterisk) = all.find(|asterisk| asterisk.host.as_str() == name) else {
            let known = self.carriers.iter().map(Carrier::name).chain(self.pbxes.iter().map(Pbx::name));
            return Err(no_such("host", name, known.collect::<Vec<_>>().join(", ")));
        };
        if let Some(machine) = asterisk.machine() {
            let source = machine.command(program)?.exec();
            return Ok(LabError::Start { what: format!("enter {name}"), program: program.join(" "), source });
        }
        let mut line = program.to_vec();
        if line.first() == Some(&"asterisk") {
            line.splice(1..1, ["-C", "/srv/ringward/etc/asterisk.conf"]);
        }
        let source = asterisk.host.in_root(&asterisk.root, &line).exec();
        Ok(LabError::Start { what: format!("enter {name}"), program: line.join(" "), source })
    }

    fn describe(plan: Plan, subnet: Subnet, pbx_root: &Root, carrier_root: &Root) -> Result<Lab, LabError> {
        let trunks = plan.trunk_plans(subnet);
        let pbxes = plan.pbx_hosts(subnet).into_iter().map(|(name, address)| Pbx {
            trunks: trunks.iter().filter(|trunk| trunk.node == name).cloned().collect(),
            asterisk: Asterisk { host: HostName(name), root: pbx_root.clone(), hosts: plan.hosts },
            address,
            reach: plan.reach,
            agents: plan.agents,
            plane_address: subnet.root(),
        });
        let pbxes = pbxes.collect();
        let carriers = plan.carrier_hosts(subnet).into_iter().map(|(name, address)| {
            let (host, root) = (HostName(name), carrier_root.clone());
            Carrier::new(Asterisk { host, root, hosts: Hosts::Processes }, address)
        });
        let carriers = carriers.collect();
        let more = match plan.hardening {
            Hardening::Off => Vec::new(),
            Hardening::On { .. } => hardened::MORE_OF_ATTACKER.map(|last| subnet.host(last)).collect(),
        };
        let attacker = Attacker::new(HostName("attacker".into()), subnet.host(ATTACKER), more);
        Ok(Lab { plan, subnet, pbxes, carriers, attacker, hold: Hold::Kept, _lock: None })
    }

    fn boot(&self) -> Result<(), LabError> {
        let start = clock::now();
        network::lay_bridge(self.subnet)?;
        let of_attacker = [&[self.attacker.address()], self.attacker.more_addresses()].concat();
        network::lay_host(self.attacker.host().as_str(), &of_attacker)?;
        let operator = hardened::operator(self.subnet);
        network::lay_host(operator.host.as_str(), &[operator.address])?;
        if self.plan.hardening != Hardening::Off {
            let phone = hardened::phone(self.subnet);
            network::lay_host(phone.host.as_str(), &[phone.address])?;
        }
        for carrier in &self.carriers {
            carrier.host().lay_folder(self.subnet)?;
            network::lay_host(carrier.name(), &[carrier.address(), carrier.second_address()])?;
            carrier.configure(self.subnet)?;
        }
        for pbx in &self.pbxes {
            pbx.host().lay_folder(self.subnet)?;
            network::lay_host(pbx.name(), &[pbx.address()])?;
            if self.plan.hardening != Hardening::Off {
                network::lead_nowhere(pbx.name(), hardened::NOBODYS, self.subnet.root())?;
            }
            pbx.asterisk.machine().map_or(Ok(()), |machine| machine.lay(self.subnet))?;
            pbx.configure(&self.plan, self.subnet)?;
        }
        if let Some(first) = self.carriers.first() {
            network::start_dns(Path::new(STATE), self.subnet, first.address(), first.second_address())?;
        }
        let text = serde_json::to_string(&(&self.plan, self.subnet)).unwrap_or_default();
        fs::write(plan_file(), text).map_err(LabError::file("write", plan_file()))?;
        let fleet = fleet_file();
        fs::write(&fleet, self.fleet_toml()).map_err(LabError::file("write", &fleet))?;
        for carrier in &self.carriers {
            carrier.start_watching()?;
        }
        let all: Vec<&Asterisk> = self
            .carriers
            .iter()
            .map(|carrier| &carrier.asterisk)
            .chain(self.pbxes.iter().map(|pbx| &pbx.asterisk))
            .collect();
        all.iter().try_for_each(|asterisk| asterisk.start())?;
        all.iter().try_for_each(|asterisk| asterisk.wait_until_booted().map(|_| ()))?;
        self.wait_for_trunks()?;
        progress::say(&format!(
            "{} PBXes (Asterisk {}) and {} carriers are up, in {:.1} s",
            self.pbxes.len(),
            self.plan.asterisk.major(),
            self.carriers.len(),
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// PBXes ask carriers for life every few seconds; a lab is up when every trunk is.
    fn wait_for_trunks(&self) -> Result<(), LabError> {
        let at_most = Duration::from_secs(u64::from(self.plan.qualify_s) * 2 + 10);
        for pbx in &self.pbxes {
            let what = format!("the trunks of {} to be reachable", pbx.name());
            clock::wait_until(&what, at_most, "see its log folder", || {
                let said = pbx.console("pjsip show contacts").unwrap_or_default();
                said.matches(" Avail ").count() >= pbx.trunks().len()
            })?;
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let of_ami =
            |pbx: &Pbx| AmiUser::ALL.iter().filter_map(|user| pbx.secret(*user).ok()).collect::<Vec<_>>();
        let known = self.pbxes.iter().flat_map(of_ami).collect::<Vec<_>>();
        if self.hold == Hold::Scoped
            && let Err(error) = sweep_ours()
        {
            progress::say(&format!("cleaning up: {error}"));
        }
        for pbx in &self.pbxes {
            leaks::look_through(&pbx.host().folder().join("log/agent.log"), &known);
        }
    }
}

/// The lock is this program's while one of its labs lives.
static OURS: AtomicBool = AtomicBool::new(false);

/// The lock of the one lab of this machine; dropping it frees it.
#[derive(Debug)]
struct Lock {
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        OURS.store(false, Ordering::SeqCst);
    }
}

fn take_lock() -> Result<Lock, LabError> {
    let (file, path) = lock_file()?;
    if file.try_lock().is_err() {
        progress::say("another lab runs on this machine; waiting for its end");
        file.lock().map_err(LabError::file("lock", path))?;
    }
    OURS.store(true, Ordering::SeqCst);
    Ok(Lock { _file: file })
}

/// The lock, for who wants to end a lab that nobody holds; `None` if it is this program's already.
pub(crate) fn lock_unless_ours() -> Result<Option<File>, LabError> {
    if OURS.load(Ordering::SeqCst) {
        return Ok(None);
    }
    let (file, _) = lock_file()?;
    if file.try_lock().is_err() {
        return Err(LabError::Machine(
            "a test or the demo holds the lab of this machine; end that program first".into(),
        ));
    }
    Ok(Some(file))
}

fn lock_file() -> Result<(File, PathBuf), LabError> {
    fs::create_dir_all(STATE).map_err(LabError::file("create", STATE))?;
    let path = PathBuf::from(STATE).join("lock");
    let file = File::create(&path).map_err(LabError::file("create", &path))?;
    Ok((file, path))
}

/// Where the plan of the running lab is.
fn plan_file() -> PathBuf {
    PathBuf::from(STATE).join("plan.json")
}

/// Where `fleet.toml` of the running lab is.
fn fleet_file() -> PathBuf {
    PathBuf::from(STATE).join("fleet.toml")
}

fn no_such(kind: &'static str, name: &str, known: String) -> LabError {
    LabError::NoSuch { kind, name: name.into(), known }
}
