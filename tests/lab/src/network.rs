//! The lab's network: a bridge `rwlab0` in the root namespace (.1 of the lab's [`Subnet`]), one namespace `rw-<name>`
//! per host, a name server on the bridge. No default route and no forwarding: nothing leads out.
//!
//! A host's end of the cable is `eth0` in its namespace, the bridge's end is `rwv-<name>`. Cutting a
//! host off takes the bridge's end down, and what a *deaf* carrier says is dropped there too, so that
//! the capture inside the carrier's namespace shows what it tried to say.
use crate::{LabError, Subnet, command, process};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

/// The bridge.
pub(crate) const BRIDGE: &str = "rwlab0";
/// A name with two addresses, both of carrier a.
pub(crate) const SRV_NAME: &str = "srv-a.ringward.example";
/// nft table in the root namespace.
const NFT_TABLE: &str = "ringward_lab";
const DNS: &str = "dnsmasq";

/// The namespace of a host.
pub(crate) fn namespace(host: &str) -> String {
    format!("rw-{host}")
}

/// The bridge's end of a host's cable.
pub(crate) fn port(host: &str) -> String {
    format!("rwv-{host}")
}

/// Lays the bridge.
pub(crate) fn lay_bridge(subnet: Subnet) -> Result<(), LabError> {
    let address = format!("{}/24", subnet.root());
    batch(&format!(
        "link add {BRIDGE} type bridge forward_delay 0\naddr add {address} dev {BRIDGE}\nlink set {BRIDGE} up\n"
    ))?;
    let forwarding = format!("/proc/sys/net/ipv4/conf/{BRIDGE}/forwarding");
    fs::write(&forwarding, "0").map_err(LabError::file("write", forwarding))
}

/// Makes a host's namespace, its cable and its addresses.
pub(crate) fn lay_host(host: &str, addresses: &[Ipv4Addr]) -> Result<(), LabError> {
    let (namespace, port) = (namespace(host), port(host));
    batch(&format!(
        "netns add {namespace}\n\
         link add {port} type veth peer name eth0 netns {namespace}\n\
         link set {port} master {BRIDGE} up\n"
    ))?;
    let mut inside = String::from("link set lo up\nlink set eth0 up\n");
    for address in addresses {
        inside.push_str(&format!("addr add {address}/24 dev eth0\n"));
    }
    command::feed(
        "set a host's addresses",
        Command::new("ip").args(["-n", &namespace, "-batch", "-"]),
        &inside,
    )?;
    Ok(())
}

/// A host sends what is for this network to that address, which forwards nothing: answers to addresses that nobody has
/// leave the host, and end there.
pub(crate) fn lead_nowhere(host: &str, to: &str, by: Ipv4Addr) -> Result<(), LabError> {
    let (namespace, by) = (namespace(host), by.to_string());
    command::run("set a host's route", "ip", ["-n", &namespace, "route", "replace", to, "via", &by])
        .map(|_| ())
}

/// What a host sends to that address carries this one of its own as the source, where the program names none.
pub(crate) fn speak_from(host: &str, to: Ipv4Addr, source: Ipv4Addr) -> Result<(), LabError> {
    let (namespace, to, source) = (namespace(host), to.to_string(), source.to_string());
    let line = ["-n", &namespace, "route", "replace", &to, "dev", "eth0", "src", &source];
    command::run("set a host's source", "ip", line).map(|_| ())
}

/// Puts a router, a host of its own named `<host>-nat`, into a host's cable: outside it has the host's address and hands on
/// these TCP ports, inside the host has `inner`. Sources are rewritten as any home router does, and nothing else comes in.
pub(crate) fn put_behind_nat(
    host: &str,
    outer: Ipv4Addr,
    inner: Ipv4Addr,
    router: Ipv4Addr,
    ports: &[u16],
) -> Result<(), LabError> {
    let (namespace, nat) = (namespace(host), format!("{host}-nat"));
    let batch_in = |namespace: &str, lines: String| {
        let mut ip = Command::new("ip");
        command::feed("lay a router", ip.args(["-n", namespace, "-batch", "-"]), &lines).map(|_| ())
    };
    // The host's end moves over to the router; a cable between both comes instead.
    let router_in = self::namespace(&nat);
    batch(&format!("netns add {router_in}\n"))?;
    batch_in(&namespace, format!("addr flush dev eth0\nlink set eth0 netns {router_in}\n"))?;
    batch_in(
        &router_in,
        format!(
            "link set lo up\nlink set eth0 up\naddr add {outer}/24 dev eth0\n\
             link add inside type veth peer name eth0 netns {namespace}\nlink set inside up\naddr add {router}/24 dev inside\n"
        ),
    )?;
    batch_in(
        &namespace,
        format!("link set eth0 up\naddr add {inner}/24 dev eth0\nroute add default via {router}\n"),
    )?;
    let forward = ["netns", "exec", &router_in, "sysctl", "-qw", "net.ipv4.ip_forward=1"];
    command::run("let a router forward", "ip", forward)?;
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    set_host_rules(
        &nat,
        &format!(
            "chain in {{ type nat hook prerouting priority -100;\n\
             iifname eth0 tcp dport {{ {} }} dnat to {inner}\n}}\n\
             chain out {{ type nat hook postrouting priority 100;\noifname eth0 masquerade\n}}\n\
             chain through {{ type filter hook forward priority 0; policy drop;\n\
             ct state established,related accept\niifname inside accept\nct status dnat accept\n}}",
            ports.join(", ")
        ),
    )
}

/// Takes the host's cable out, or puts it back.
pub(crate) fn set_cable(host: &str, plugged: bool) -> Result<(), LabError> {
    let state = if plugged { "up" } else { "down" };
    command::run("set a cable", "ip", ["link", "set", &port(host), state]).map(|_| ())
}

/// Loads nft rules in a host's namespace, in place of those that were there.
pub(crate) fn set_host_rules(host: &str, chains: &str) -> Result<(), LabError> {
    let text =
        format!("table ip {NFT_TABLE}\ndelete table ip {NFT_TABLE}\ntable ip {NFT_TABLE} {{\n{chains}\n}}\n");
    command::feed(
        "load a host's packet rules",
        Command::new("ip").args(["netns", "exec", &namespace(host), "nft", "-f", "-"]),
        &text,
    )
    .map(|_| ())
}

/// Packet rules at the bridge's end of a host's cable.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CableRules<'a> {
    /// On what the host sends.
    pub(crate) sent: &'a str,
    /// On what it is sent.
    pub(crate) received: &'a str,
}

/// Loads rules of a host's cable, in place of those that were there.
pub(crate) fn set_cable_rules(host: &str, rules: CableRules<'_>) -> Result<(), LabError> {
    let (table, port) = (format!("{NFT_TABLE}_{host}"), port(host));
    let chain = |hook: &str, rules: &str| {
        format!("chain {hook} {{\ntype filter hook {hook} device \"{port}\" priority 0;\n{rules}\n}}\n")
    };
    let text = format!(
        "table netdev {table}\ndelete table netdev {table}\ntable netdev {table} {{\n{}{}}}\n",
        chain("ingress", rules.sent),
        chain("egress", rules.received),
    );
    command::feed("load packet rules of a cable", Command::new("nft").args(["-f", "-"]), &text).map(|_| ())
}

/// Packets that the counting rules on what a host is sent have met.
pub(crate) fn counted_at_cable(host: &str) -> Result<u64, LabError> {
    let table = format!("{NFT_TABLE}_{host}");
    let said = command::run("read a cable's counters", "nft", ["list", "chain", "netdev", &table, "egress"])?;
    let mut words = said.split_whitespace();
    let mut sum = 0;
    while words.any(|word| word == "packets") {
        sum += words.next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Starts the name server that knows the one name with two addresses.
pub(crate) fn start_dns(
    state: &Path,
    subnet: Subnet,
    first: Ipv4Addr,
    second: Ipv4Addr,
) -> Result<(), LabError> {
    let log = fs::File::create(state.join("dnsmasq.log")).map_err(LabError::file("create", state))?;
    let mut command = Command::new("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"])
        .args(["--bind-interfaces", "--except-interface=lo", "--pid-file"])
        .arg(format!("--listen-address={}", subnet.root()))
        .arg(format!("--host-record=a1.{SRV_NAME},{first}"))
        .arg(format!("--host-record=a2.{SRV_NAME},{second}"))
        .arg(format!("--srv-host=_sip._udp.{SRV_NAME},a1.{SRV_NAME},5060,1"))
        .arg(format!("--srv-host=_sip._udp.{SRV_NAME},a2.{SRV_NAME},5060,2"))
        .arg(format!("--naptr-record={SRV_NAME},10,10,s,SIP+D2U,,_sip._udp.{SRV_NAME}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    process::spawn(DNS, command).map(|_| ())
}

/// Removes every namespace, cable, bridge and table that a lab may have left.
pub(crate) fn remove_all() -> Result<(), LabError> {
    let listed = command::run("list namespaces", "ip", ["netns", "list"])?;
    for name in
        listed.lines().filter_map(|line| line.split(' ').next()).filter(|name| name.starts_with("rw-"))
    {
        // The namespace lives on while a packet or process is in it; its cable must go now.
        command::run("unplug", "ip", ["link", "delete", &port(name.trim_start_matches("rw-"))]).ok();
        command::run("remove a namespace", "ip", ["netns", "delete", name])?;
    }
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        command::run("remove the bridge", "ip", ["link", "delete", BRIDGE])?;
    }
    let tables = command::run("list tables", "nft", ["list", "tables"]).unwrap_or_default();
    for table in tables.lines().filter(|line| line.starts_with(&format!("table netdev {NFT_TABLE}_"))) {
        let name = table.trim_start_matches("table netdev ");
        command::run("remove a table", "nft", ["delete", "table", "netdev", name])?;
    }
    Ok(())
}

fn batch(lines: &str) -> Result<(), LabError> {
    command::feed("lay the lab's network", Command::new("ip").args(["-batch", "-"]), lines).map(|_| ())
}
