//! What a simulated agent sees of its node.

use node_agent_core::attempt_id::AttemptId;
use node_agent_core::gate::Bar;
use node_agent_protocol::{
    AmiState, Asterisk, BarAnswer, Capabilities, Capability, Contact, ContactStatus, EndpointSeen,
    GateCounts, Hello, Host, List, Observations, PROTOCOL, PROTOCOL_OLDEST, Spool, Text,
};

use crate::{agent::Node, plan::Plan};

/// Snapshots of which one brings new round trips: a trunk is qualified every 30 s.
const QUALIFY_EVERY: u64 = 15;

/// The beginning of a link.
pub(crate) fn hello(node: &Node) -> Hello {
    let capabilities = [
        Capability::Ami,
        Capability::Audio,
        Capability::Bar,
        Capability::Facts,
        Capability::Records,
        Capability::TechCause,
    ];
    Hello {
        protocol: PROTOCOL,
        protocol_oldest: Some(PROTOCOL_OLDEST),
        agent_version: Text::cut(env!("CARGO_PKG_VERSION")),
        capabilities: Capabilities::of(capabilities),
        node: node.name.clone(),
        incarnation: Text::cut("simulated"),
        asterisk: Some(asterisk()),
    }
}

fn asterisk() -> Asterisk {
    Asterisk {
        version: Text::cut("22.10.1"),
        incarnation: Text::cut("2026-11-24 00:00:00"),
        fully_booted: true,
        up_s: Some(3_600),
    }
}

/// A whole snapshot.
pub(crate) fn observations(
    node: &Node,
    revision: u64,
    at_unix_ms: i64,
    policy_revision: u64,
    facts: u64,
) -> Observations {
    let down = *node.down.borrow();
    let endpoint = |(at, endpoint): (usize, &controlplane_core::names::EndpointName)| {
        let is_down = down & (1 << at) != 0;
        let status = if is_down { ContactStatus::Unreachable } else { ContactStatus::Reachable };
        let rtt_us = 20_000 + 1_000 * at as u64 + revision / QUALIFY_EVERY;
        EndpointSeen {
            endpoint: endpoint.clone(),
            channels: 0,
            contacts: List::first([Contact {
                uri: Text::cut(&format!("sip:192.0.2.{}:5060", 20 + at)),
                status,
                qualify_rtt_us: (!is_down).then_some(rtt_us),
                since_ms: 60_000,
            }]),
            registration: None,
        }
    };
    Observations {
        revision,
        taken_ms_ago: 0,
        sent_at_unix_ms: at_unix_ms,
        ami: AmiState::Up { ping_rtt_us: Some(400) },
        asterisk: Some(asterisk()),
        endpoints: List::first(node.endpoints.iter().enumerate().map(endpoint)),
        findings: List::default(),
        endpoints_left_out: 0,
        host: Host {
            load_1m_milli: Some(120),
            cpus: Some(2),
            memory_bytes: Some(2_000_000_000),
            memory_available_bytes: Some(1_500_000_000),
            disk_free_bytes: Some(20_000_000_000),
            clock_offset_us: Some(150),
            rtp_ports: Some(5_000),
            rtp_ports_in_use: Some(0),
        },
        gate: GateCounts { streams: 1, ..GateCounts::default() },
        spool: Spool { facts, ..Spool::default() },
        certificate_expires_unix_s: Some(at_unix_ms / 1_000 + 30 * 24 * 3_600),
        policy_revision,
        firewall: None,
    }
}

/// The gate's answer to a bar.
pub(crate) fn barred(node: &Node, attempt: &str, age_max_s: Option<u64>) -> BarAnswer {
    let Ok(attempt) = AttemptId::parse(attempt.as_bytes()) else { return BarAnswer::Unknown };
    let age_max = age_max_s.map(std::time::Duration::from_secs);
    match node.gate().bar(attempt, age_max, tokio::time::Instant::now().into_std()) {
        Bar::Admitted => BarAnswer::Admitted,
        Bar::Barred => BarAnswer::Barred,
        Bar::Unknown => BarAnswer::Unknown,
    }
}

/// The name of a node's endpoint.
pub(crate) fn endpoint(trunk: usize) -> anyhow::Result<controlplane_core::names::EndpointName> {
    Ok(Plan::endpoint(trunk).parse()?)
}
