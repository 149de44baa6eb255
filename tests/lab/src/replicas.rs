//! Several control planes on one PostgreSQL database, a link of every node's agent to each of them.
use crate::postgres::Cluster;
use crate::{ControlPlane, Lab, LabError, Pbx, Setup, command};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What each of them must have, made by the first one.
const SHARED: [&str; 3] = ["agents-ca.pem", "audit-key.der", "secrets.key"];
/// Packet rules of those that are cut off from the database.
const NFT_TABLE: &str = "ringward_lab_replicas";

/// See the module.
#[derive(Debug)]
pub struct Replicas {
    planes: Vec<ControlPlane>,
    cluster: Cluster,
}

impl Replicas {
    /// Starts so many (1 to 8) for a lab, each with a folder of its own below `folder`, and waits until each sees the whole fleet.
    /// `set_up` says what else each has.
    ///
    /// # Errors
    /// PostgreSQL or one of them does not start, or a node does not join.
    pub fn start(
        lab: &Lab,
        folder: &Path,
        count: u8,
        set_up: impl Fn(Setup) -> Setup,
    ) -> Result<Self, LabError> {
        let replicas = Self::open(folder, count, |setup| set_up(setup).agents_at(lab.root_address()))?;
        let first = replicas.first()?;
        first.declare(&lab.fleet_toml())?;
        for agent in lab.pbxes().iter().filter_map(Pbx::agent) {
            first.join(&agent)?;
            agent.start()?;
        }
        replicas.wait_for_nodes()?;
        Ok(replicas)
    }

    /// The same without a fleet, for a lab or none.
    ///
    /// # Errors
    /// PostgreSQL or one of them does not start.
    pub fn open(folder: &Path, count: u8, set_up: impl Fn(Setup) -> Setup) -> Result<Self, LabError> {
        restore_all()?;
        let cluster = Cluster::start_on_disk()?;
        let setup = |n: u8| {
            let setup = set_up(Setup::new(&folder.join(format!("replica-{}", n + 1))));
            let setup = setup.database(cluster.url_of(n));
            if n == 0 { setup.replica() } else { setup.replica().named(&format!("ringward-{}", n + 1)) }
        };
        let planes = ControlPlane::several((0..count).map(setup).collect())?;
        Ok(Self { planes, cluster })
    }

    /// Waits until each of them sees the whole fleet.
    ///
    /// # Errors
    /// One does not in time.
    pub fn wait_for_nodes(&self) -> Result<(), LabError> {
        self.planes.iter().try_for_each(|plane| plane.wait_for_nodes().map(|_| ()))
    }

    /// All of them, whether they run or not.
    #[must_use]
    pub fn planes(&self) -> &[ControlPlane] {
        &self.planes
    }

    /// The database, as superuser, by a way that is never cut.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.cluster.url()
    }

    /// From now on no packet passes between these and the database, and neither side is told.
    ///
    /// # Errors
    /// The packet rules cannot be loaded.
    pub fn cut_from_database(&self, cut: &[usize]) -> Result<(), LabError> {
        let address = |n: &usize| u8::try_from(*n).ok().map(Cluster::address_of);
        let drops: Vec<String> = cut
            .iter()
            .filter_map(address)
            .flat_map(|address| {
                let port = self.cluster.port();
                [
                    format!("ip daddr {address} tcp dport {port} drop"),
                    format!("ip saddr {address} tcp sport {port} drop"),
                ]
            })
            .collect();
        load(&format!("chain out {{ type filter hook output priority 0;\n{}\n}}", drops.join("\n")))
    }

    fn first(&self) -> Result<&ControlPlane, LabError> {
        self.planes.first().ok_or_else(|| LabError::Machine("there is no control plane".into()))
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        // What is left is in the way of nobody but the next of these, which begins with it.
        restore_all().ok();
    }
}

fn restore_all() -> Result<(), LabError> {
    load("")
}

fn load(chains: &str) -> Result<(), LabError> {
    let table = format!("table inet {NFT_TABLE}");
    let text = format!("{table}\ndelete {table}\n{table} {{\n{chains}\n}}\n");
    command::feed("cut control planes off", Command::new("nft").args(["-f", "-"]), &text).map(|_| ())
}

/// Gives what the first one has made to another, before that starts.
pub(crate) fn share_files(first: &Path, other: &Path) -> Result<(), LabError> {
    fs::create_dir_all(other).map_err(LabError::file("create", other))?;
    for name in SHARED {
        // A copy keeps the mode.
        fs::copy(first.join(name), other.join(name)).map_err(LabError::file("copy", first.join(name)))?;
    }
    Ok(())
}
