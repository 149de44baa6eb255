//! One host with a firewall, and the operators' machine that reaches its sshd.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use lab::{Agent, Hosts, Pbx, Plan, now, pause, since_1970, wait_until};

use crate::fixture::{Fleet, diagonal, over_links};

/// Seconds within which a change is to be confirmed.
pub(crate) const CONFIRM_S: u64 = 10;
/// A connection that is not let in is dropped without a word.
const DROPPED: Duration = Duration::from_millis(700);
/// IPv6 of the host and of the operators' machine, in their networks.
pub(crate) const HOST_V6: &str = "2001:db8:1::11";
pub(crate) const OPERATOR_V6: &str = "2001:db8:1:7::77";

/// A host whose firewall is on, and its fleet.
pub(crate) struct Walled {
    pub(crate) fleet: Fleet,
}

impl Walled {
    /// The fleet's file names the operators' networks; the host's settings turn the firewall on. Nothing is confirmed.
    pub(crate) fn up(policy: &str) -> Self {
        let plan = Plan { pbxes: 1, carriers: 1, hosts: Hosts::Booted, ..over_links(diagonal()) };
        let walled = Self { fleet: Fleet::up(plan) };
        let (host, operator) = (walled.pbx().host().clone(), walled.fleet.lab.operator());
        for (host, address) in [(host, HOST_V6), (operator, OPERATOR_V6)] {
            let mut ip = host.in_namespace();
            let net = format!("{address}/48");
            let add = ["ip", "-6", "addr", "add", &net, "dev", "eth0", "nodad"];
            assert!(ip.args(add).status().unwrap().success());
        }
        walled.declare(&walled.management());
        walled.settle(policy);
        walled
    }

    /// The same, with its first rules confirmed.
    pub(crate) fn confirmed(policy: &str) -> Self {
        let walled = Self::up(policy);
        walled.confirm();
        walled
    }

    pub(crate) fn pbx(&self) -> &Pbx {
        self.fleet.lab.pbx("pbx-1").unwrap()
    }

    pub(crate) fn agent(&self) -> Agent {
        self.pbx().agent().unwrap()
    }

    /// `[[management]]` as an operator writes it.
    pub(crate) fn management(&self) -> String {
        let operator = self.fleet.lab.operator_address();
        format!(
            "\n[[management]]\nname = \"office\"\nnetworks = [\"{operator}/32\", \"2001:db8:1:7::/64\"]\n"
        )
    }

    /// The lab's fleet with more.
    pub(crate) fn declare(&self, more: &str) {
        self.fleet.plane.declare(&(self.fleet.lab.fleet_toml() + more)).unwrap();
    }

    /// Writes the host's settings, and starts its agent with them.
    pub(crate) fn settle(&self, policy: &str) {
        let text = format!(
            "[gate]\nchannels_max = 5000\ncps_max = 2000\n[firewall]\nmode = \"on\"\nconfirm_s = {CONFIRM_S}\n\
             [firewall.policy]\n{policy}\n"
        );
        self.shell(&format!(
            "cat > /etc/ringward-agent.toml <<'END'\n{text}END\nsystemctl restart ringward-agent"
        ));
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        self.pbx().shell(script).unwrap_or_else(|error| panic!("{script}: {error}\n{}", self.words()))
    }

    /// How its firewall stands, in a line.
    pub(crate) fn standing(&self) -> String {
        self.pbx().shell("ringward-agent firewall status").unwrap_or_default().trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn until(&self, state: &str, seconds: u64) -> Duration {
        let is_so = || self.standing().split(' ').next() == Some(state);
        wait_until(&format!("the firewall to be {state}"), Duration::from_secs(seconds), "", is_so)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.standing(), self.words()))
    }

    /// What the agent and its guard said.
    pub(crate) fn words(&self) -> String {
        let log = self.pbx().shell("journalctl --no-pager -o short-monotonic -n 60 -u 'ringward-agent*'");
        log.unwrap_or_else(|error| error.to_string())
    }

    fn ssh(&self, at: IpAddr) -> Option<TcpStream> {
        let mut stream = self.fleet.lab.operator().connect(SocketAddr::from((at, 22)), DROPPED).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut banner = [0; 8];
        stream.read_exact(&mut banner).ok()?;
        (&banner == b"SSH-2.0-").then_some(stream)
    }

    /// A new connection of the operator's to sshd, which says its name.
    pub(crate) fn enter(&self) -> Option<TcpStream> {
        self.ssh(self.pbx().address().into())
    }

    /// The same by IPv6.
    pub(crate) fn enter_v6(&self) -> Option<TcpStream> {
        self.ssh(HOST_V6.parse().unwrap())
    }

    /// Confirms what is on trial as an operator does: he comes in anew.
    #[track_caller]
    pub(crate) fn confirm(&self) {
        self.until("on_trial", 20);
        // The control plane's half comes by itself, a second after the change.
        pause(Duration::from_millis(1_200));
        let began = now();
        let inside = self.enter();
        assert!(inside.is_some(), "the operator is let in\n{}", self.words());
        self.until("in_force", 8);
        println!("confirmed {} ms after the operator came in", began.elapsed().as_millis());
    }

    /// Until a trial is over whose rules lock the operator out; gives by how much its deadline was missed.
    #[track_caller]
    pub(crate) fn open_at_the_deadline(&self, what: &str, reverts_at: Duration) {
        assert!(self.enter().is_none(), "{what}: these rules do lock out");
        assert!(since_1970() < reverts_at, "{what}: too late to prove anything");
        let open = || self.enter().is_some();
        wait_until("the way in to be open", Duration::from_secs(CONFIRM_S + 8), what, open)
            .unwrap_or_else(|error| panic!("{what}: {error}\n{}", self.words()));
        let late = since_1970().saturating_sub(reverts_at);
        println!("{what}: the way in is open {} ms after the deadline", late.as_millis());
        assert!(since_1970() + Duration::from_millis(300) > reverts_at, "{what}: it was reverted too early");
        assert!(late < Duration::from_secs(3), "{what}: {late:?} late\n{}", self.words());
    }

    /// Waits until rules are on trial that lock the operator out; gives their deadline.
    ///
    /// The agent is asked first, and sshd once: whoever connects again and again without logging in is refused by
    /// OpenSSH itself (9.8 and later), which looks like rules that are not there yet.
    #[track_caller]
    pub(crate) fn locked_out(&self) -> Duration {
        self.until("on_trial", 20);
        let path = self.agent().state_dir().join("firewall-trial.json");
        let trial: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(self.enter().is_none(), "these rules lock out\n{}", self.words());
        Duration::from_millis(trial["reverts_at_unix_ms"].as_u64().unwrap())
    }
}
