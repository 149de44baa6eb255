//! What strangers find open on a node, and that a control plane needs no way in.

use lab::{Port, Signal, numbers};
use serde_json::json;

use crate::fixture::{Fleet, end};
use crate::node::{booted, one};

const OPTIONS: &str = "OPTIONS sip:pbx SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bK1;rport\r\n\
                       From: <sip:x@192.0.2.66>;tag=1\r\nTo: <sip:pbx>\r\nCall-ID: look\r\nCSeq: 1 OPTIONS\r\n\
                       Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
/// DNS, TFTP, portmapper, NTP, SNMP, IKE, RTP's first and last, MGCP, IAX2, DUNDI, AMI, HTTP and TLS SIP.
const CLOSED_UDP: [u16; 14] =
    [53, 69, 111, 123, 161, 500, 4500, 10_000, 20_000, 2_727, 4_569, 4_520, 5_038, 5_061];

/// The listeners of a node by its own account, `tcp ADDRESS` and `udp ADDRESS`.
fn listeners(fleet: &Fleet, name: &str) -> Vec<String> {
    let mut command = fleet.lab.pbx(name).unwrap().host().in_namespace();
    let said = command.args(["ss", "-tulnH"]).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            format!("{} {}", words[0], words[4])
        })
        .collect()
}

#[test]
fn a_node_listens_on_sip_and_ssh_and_has_ami_on_loopback_only() {
    let fleet = Fleet::up(one());
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    let call = fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!(end(&call), "completed/played/answered", "AMI is there: {call}");

    let attacker = fleet.lab.attacker();
    let tcp = attacker.scan_tcp(pbx.address()).unwrap();
    assert_eq!(tcp, [(22, Port::Open)], "of 65,535 TCP ports only ssh is not closed");

    // Strangers are told of closed ports at some pace only; here they are told of all.
    let mut sysctl = pbx.host().in_namespace();
    assert!(sysctl.args(["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"]).status().unwrap().success());
    let look = |port| attacker.ask_udp(pbx.address(), port, OPTIONS.as_bytes()).unwrap();
    assert_eq!(look(5060), Port::Open, "SIP answers");
    for port in CLOSED_UDP {
        assert_eq!(look(port), Port::Closed, "UDP {port}");
    }

    let own = listeners(&fleet, "pbx-1");
    let tcp: Vec<_> = own.iter().filter(|line| line.starts_with("tcp")).map(String::as_str).collect();
    let mut expected = vec!["tcp 0.0.0.0:22", "tcp [::]:22", "tcp 127.0.0.1:5038", "tcp 127.0.0.1:9465"];
    let mut found = tcp;
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    // Beside SIP, PJSIP's resolver holds a socket per family at a port of the moment, which answers nobody.
    let port = |line: &String| line.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let sip = format!("udp {}:5060", pbx.address());
    let udp: Vec<_> = own.iter().filter(|line| line.starts_with("udp")).collect();
    let others: Vec<_> = udp.iter().filter(|line| ***line != sip).collect();
    assert_eq!((udp.len(), others.len()), (3, 2), "{udp:?}");
    assert!(others.iter().all(|line| look(port(line)) != Port::Open), "{others:?}");
}

#[test]
fn a_control_plane_opens_no_connection_to_nodes() {
    let fleet = Fleet::up(booted());
    for pbx in fleet.lab.pbxes() {
        pbx.refuse_connections().unwrap();
    }
    // It works: a knock of our own is refused and counted.
    let first = &fleet.lab.pbxes()[0];
    let ssh = std::net::SocketAddr::from((first.address(), 22));
    let knock = std::net::TcpStream::connect_timeout(&ssh, std::time::Duration::from_millis(300));
    assert!(knock.is_err() && first.knocks().unwrap() > 0);
    for pbx in fleet.lab.pbxes() {
        pbx.refuse_connections().unwrap();
    }
    // New links and AMI streams, and calls over both.
    fleet.plane.signal(Signal::Kill).unwrap();
    fleet.plane.start_again().unwrap();
    fleet.plane.wait_for_nodes().unwrap();
    for n in 0..6 {
        let call = fleet.placed(&numbers::number(numbers::ANSWER, n), json!({}));
        assert_eq!(end(&call), "completed/played/answered", "{call}");
    }
    for pbx in fleet.lab.pbxes() {
        assert_eq!(pbx.knocks().unwrap(), 0, "{}", pbx.name());
    }
}
