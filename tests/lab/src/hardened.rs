//! What a lab has beside PBXes and carriers where agents ban: an operator's machine, from whose address alone ssh is
//! reached; a phone, neighbour of the attacker; and what tells who is banned on a PBX, by its kernel.
use crate::{Agent, HostName, Lab, LabError, Pbx, Subnet, clock, command};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The last number of the operator's address.
const OPERATOR: u8 = 2;
/// Of the phone's: the one beside the attacker's.
const PHONE: u8 = 67;
/// Of the attacker's further addresses.
pub(crate) const MORE_OF_ATTACKER: std::ops::RangeInclusive<u8> = 101..=250;
/// Answers to addresses out of here leave a PBX and end at the bridge (RFC 2544: nobody's).
pub(crate) const NOBODYS: &str = "198.18.0.0/15";
const SSH_PORT: u16 = 22;
/// An agent reverts rules that are not confirmed within 60 s.
const CONFIRM_MAX: Duration = Duration::from_secs(50);
/// Between two handshakes with sshd while rules are on trial.
const KNOCK_EVERY: Duration = Duration::from_millis(300);
const KNOCK_MAX: Duration = Duration::from_secs(1);

/// Whether it is one of [`NOBODYS`].
pub(crate) fn is_nobodys(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 198 && second & 0xfe == 18
}

/// A host with one address and no Asterisk.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) host: HostName,
    pub(crate) address: Ipv4Addr,
}

pub(crate) fn operator(subnet: Subnet) -> Beside {
    Beside { host: HostName("operator".into()), address: subnet.host(OPERATOR) }
}

pub(crate) fn phone(subnet: Subnet) -> Beside {
    Beside { host: HostName("phone".into()), address: subnet.host(PHONE) }
}

impl Lab {
    /// The address from which alone ssh is reached where agents ban.
    #[must_use]
    pub fn operator_address(&self) -> Ipv4Addr {
        operator(self.subnet()).address
    }

    /// Puts the rules of a PBX in force as an operator does, whose new connection to sshd confirms them. Beside a mere
    /// process something else listens at sshd's port, as long as the result lives.
    ///
    /// # Errors
    /// They are not in force in time.
    pub fn confirm_rules(&self, pbx: &Pbx, agent: &Agent) -> Result<TcpListener, LabError> {
        let ssh = SocketAddr::from((pbx.address(), SSH_PORT));
        let listen = || TcpListener::bind(ssh).map_err(LabError::file("listen on", pbx.name()));
        let listener = pbx.host().inside(listen)?;
        let (mut knocked, mut known) = (clock::now(), Vec::new());
        let what = format!("the rules of {} to be in force", pbx.name());
        clock::wait_until(&what, CONFIRM_MAX, "see `ringward-agent firewall status`", || {
            if knocked.elapsed() >= KNOCK_EVERY {
                knocked = clock::now();
                known.extend(self.knock(pbx).ok().flatten());
            }
            agent.firewall().is_ok_and(|said| said.starts_with("in_force"))
        })?;
        Ok(listener)
    }

    /// Whether the operator reaches sshd's port of a PBX by a new connection.
    ///
    /// # Errors
    /// His machine is not there.
    pub fn lets_operator_in(&self, pbx: &Pbx) -> Result<bool, LabError> {
        self.knock(pbx).map(|connection| connection.is_some())
    }

    fn knock(&self, pbx: &Pbx) -> Result<Option<TcpStream>, LabError> {
        let ssh = SocketAddr::from((pbx.address(), SSH_PORT));
        operator(self.subnet()).host.inside(|| Ok(TcpStream::connect_timeout(&ssh, KNOCK_MAX).ok()))
    }
}

impl Pbx {
    /// Single addresses that its kernel drops, by the agent's own set.
    ///
    /// # Errors
    /// There is no such set.
    pub fn banned(&self) -> Result<BTreeSet<Ipv4Addr>, LabError> {
        let said = self.nft(&["list", "set", "inet", "ringward", "ban4"])?;
        let words = said.split([' ', ',', '\n', '\t']);
        Ok(words.filter_map(|word| word.parse().ok()).collect())
    }

    /// Packets of banned addresses that its kernel has dropped since the rules were written.
    ///
    /// # Errors
    /// There are no such rules.
    pub fn dropped(&self) -> Result<u64, LabError> {
        let said = self.nft(&["list", "chain", "inet", "ringward", "early"])?;
        let of_bans = said.lines().filter(|line| line.contains("banned addresses"));
        let count = |line: &str| line.split("packets ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        Ok(of_bans.filter_map(count).sum())
    }

    fn nft(&self, arguments: &[&str]) -> Result<String, LabError> {
        command::finish("ask a PBX's kernel", self.host().in_namespace().arg("nft").args(arguments))
    }
}
