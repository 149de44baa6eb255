//! What each dashboard shows. Worst first: the first row answers "is anything wrong" at a glance.
use super::panels::{
    Bad::{Below, From, Never},
    Draw::{Lines, Number, Stack, Strip},
    Panel,
};

type Place = (&'static str, &'static str, &'static [Panel]);

/// File, title, panels.
pub(super) const ALL: &[Place] = &[
    ("fleet", "Fleet", FLEET),
    ("trunks", "Trunks", TRUNKS),
    ("calls", "Calls", CALLS),
    ("hardening", "Hardening", HARDENING),
];

type Queries = &'static [(&'static str, &'static str)];

/// A panel without colours that warn.
const fn plain(
    title: &'static str,
    says: &'static str,
    draw: super::Draw,
    unit: &'static str,
    queries: Queries,
) -> Panel {
    Panel { title, says, draw, unit, bad: Never, width: 12, queries }
}

const fn number(title: &'static str, says: &'static str, bad: super::panels::Bad, queries: Queries) -> Panel {
    Panel { title, says, draw: Number, unit: "short", bad, width: 6, queries }
}

const fn strip(title: &'static str, says: &'static str, bad: super::panels::Bad, queries: Queries) -> Panel {
    Panel { title, says, draw: Strip, unit: "short", bad, width: 12, queries }
}

const FLEET: &[Panel] = &[
    number(
        "Pages firing",
        "Alerts that wake somebody.",
        From(1),
        &[("count(ALERTS{alertstate=\"firing\", severity=\"page\"}) or vector(0)", "pages")],
    ),
    number(
        "Tickets firing",
        "Alerts that wait for the morning.",
        From(1),
        &[("count(ALERTS{alertstate=\"firing\", severity=\"ticket\"}) or vector(0)", "tickets")],
    ),
    number(
        "Nodes lost",
        "Nodes by which no call can be sent.",
        From(1),
        &[("sum(max by (node) (ringward_node_state{state=\"lost\"})) or vector(0)", "lost")],
    ),
    number(
        "Trunks usable",
        "Trunks over which a call could be sent now.",
        Below(1),
        &[("sum(max by (trunk) (ringward_trunk_usable)) or vector(0)", "usable")],
    ),
    strip(
        "Nodes alive",
        "Green: alive.",
        Below(1),
        &[("max by (node) (ringward_node_state{state=\"alive\", node=~\"$node\"})", "{{node}}")],
    ),
    strip(
        "Agents linked",
        "Green: linked to every replica.",
        Below(1),
        &[("min by (node) (ringward_agent_linked{node=~\"$node\"})", "{{node}}")],
    ),
    plain("Calls open", "Accepted and not ended.", Lines, "short", &[("sum(ringward_calls_open)", "open")]),
    plain(
        "Channels",
        "Attempts that hold a channel, by node.",
        Stack,
        "short",
        &[("sum by (node) (max by (node, trunk) (ringward_trunk_channels{node=~\"$node\"}))", "{{node}}")],
    ),
    plain(
        "AMI round trip",
        "Latest ping on each session.",
        Lines,
        "s",
        &[("max by (node) (ringward_node_ami_rtt_seconds{node=~\"$node\"})", "{{node}}")],
    ),
    plain(
        "Age of snapshots",
        "2 s when all is well.",
        Lines,
        "s",
        &[("max by (node) (ringward_agent_observed_age_seconds{node=~\"$node\"})", "{{node}}")],
    ),
    plain(
        "Clocks",
        "Each node's less the control plane's, without sign.",
        Lines,
        "s",
        &[("max by (node) (abs(ringward_agent_clock_offset_seconds{node=~\"$node\"}))", "{{node}}")],
    ),
    plain(
        "Certificates",
        "Until each ends; renewed 10 days before.",
        Lines,
        "s",
        &[(
            "min by (node) (ringward_agent_certificate_expiry_timestamp_seconds{node=~\"$node\"}) - time()",
            "{{node}}",
        )],
    ),
    plain(
        "Disk free",
        "Where Asterisk writes.",
        Lines,
        "bytes",
        &[("min by (node) (ringward_agent_state{figure=\"disk_free_bytes\", node=~\"$node\"})", "{{node}}")],
    ),
    plain(
        "Memory available",
        "As the kernel counts.",
        Lines,
        "bytes",
        &[(
            "min by (node) (ringward_agent_state{figure=\"memory_available_bytes\", node=~\"$node\"})",
            "{{node}}",
        )],
    ),
    plain(
        "Findings and facts that wait",
        "See node show.",
        Lines,
        "short",
        &[
            ("max by (node) (ringward_agent_findings{node=~\"$node\"})", "{{node}} findings"),
            ("max by (node) (ringward_agent_spool_facts{node=~\"$node\"})", "{{node}} facts"),
        ],
    ),
    plain(
        "Changes of nodes",
        "To suspect or lost, each hour.",
        Lines,
        "short",
        &[(
            "max by (node, state) (increase(ringward_node_transitions_total{state=~\"suspect|lost\", node=~\"$node\"}[1h]))",
            "{{node}} {{state}}",
        )],
    ),
];

const TRUNKS: &[Panel] = &[
    number(
        "Routes in panic",
        "Fewer than half of their trunks work.",
        From(1),
        &[("sum(max by (route) (ringward_route_panic)) or vector(0)", "panic")],
    ),
    number(
        "Tripped",
        "Trunks that take no call.",
        From(1),
        &[("sum(max by (trunk) (ringward_trunk_state{state=\"tripped\"})) or vector(0)", "tripped")],
    ),
    number(
        "On probation",
        "Trunks that take a few calls.",
        From(1),
        &[("sum(max by (trunk) (ringward_trunk_state{state=\"probation\"})) or vector(0)", "probation")],
    ),
    number(
        "Carriers down",
        "With no trunk left, of those wanted.",
        From(1),
        &[("count(max by (carrier) (ringward:trunk_usable:wanted) == 0) or vector(0)", "down")],
    ),
    strip(
        "Usable",
        "Green: a call could be sent.",
        Below(1),
        &[(
            "max by (node, trunk) (ringward_trunk_usable{node=~\"$node\", carrier=~\"$carrier\"})",
            "{{trunk}}",
        )],
    ),
    strip(
        "Tripped",
        "Red: tripped.",
        From(1),
        &[(
            "max by (node, trunk) (ringward_trunk_state{state=\"tripped\", node=~\"$node\", carrier=~\"$carrier\"})",
            "{{trunk}}",
        )],
    ),
    plain(
        "ASR",
        "Answered by seizures, of an hour.",
        Lines,
        "percentunit",
        &[("ringward:trunk_asr:ratio_increase1h{node=~\"$node\", carrier=~\"$carrier\"}", "{{trunk}}")],
    ),
    plain(
        "PDD, p95",
        "From the Originate to the first ring, of an hour.",
        Lines,
        "s",
        &[("ringward:trunk_pdd_seconds:p95_rate1h{node=~\"$node\", carrier=~\"$carrier\"}", "{{trunk}}")],
    ),
    plain(
        "ACD",
        "Mean length of answered attempts, of an hour.",
        Lines,
        "s",
        &[("ringward:trunk_acd_seconds:avg1h{node=~\"$node\", carrier=~\"$carrier\"}", "{{trunk}}")],
    ),
    plain(
        "Round trip of OPTIONS, p95",
        "Of five minutes.",
        Lines,
        "s",
        &[(
            "histogram_quantile(0.95, sum by (trunk, le) (rate(ringward_trunk_qualify_rtt_seconds_bucket{node=~\"$node\", carrier=~\"$carrier\"}[5m])))",
            "{{trunk}}",
        )],
    ),
    plain(
        "Attempts by ending",
        "In a second.",
        Stack,
        "short",
        &[(
            "sum by (class) (rate(ringward_attempts_ended_total{node=~\"$node\", carrier=~\"$carrier\"}[5m])) > 0",
            "{{class}}",
        )],
    ),
    plain(
        "Channels",
        "Attempts that hold one.",
        Stack,
        "short",
        &[(
            "max by (node, trunk) (ringward_trunk_channels{node=~\"$node\", carrier=~\"$carrier\"})",
            "{{trunk}}",
        )],
    ),
    plain(
        "Spared for",
        "Destinations and caller ids.",
        Lines,
        "short",
        &[(
            "max by (node, trunk) (ringward_trunk_suspensions{node=~\"$node\", carrier=~\"$carrier\"})",
            "{{trunk}}",
        )],
    ),
    plain(
        "Canaries not as expected",
        "In an hour.",
        Lines,
        "short",
        &[(
            "max by (node, trunk) (increase(ringward_canaries_ended_total{met=\"otherwise\", node=~\"$node\", carrier=~\"$carrier\"}[1h]))",
            "{{trunk}}",
        )],
    ),
];

const CALLS: &[Panel] = &[
    Panel {
        title: "Failed",
        says: "By our side or by carriers, of 15 minutes; pages from 5 % on.",
        draw: Number,
        unit: "percent",
        bad: From(5),
        width: 6,
        queries: &[("100 * ringward:calls_failed:ratio_increase15m or vector(0)", "failed")],
    },
    number(
        "Outcome unknown",
        "In an hour: nobody knows whether they were told.",
        From(1),
        &[(
            "sum(increase(ringward_calls_ended_total{reason=~\"outcome_unknown|interrupted\"}[1h]))",
            "unknown",
        )],
    ),
    number("Open", "Accepted and not ended.", Never, &[("sum(ringward_calls_open)", "open")]),
    number(
        "Writes that failed",
        "In five minutes.",
        From(1),
        &[("sum(increase(ringward_store_failures_total[5m]))", "failed")],
    ),
    plain(
        "Calls by reason",
        "Ended in a second.",
        Stack,
        "short",
        &[("sum by (reason) (ringward:calls_ended:rate5m) > 0", "{{reason}}")],
    ),
    plain(
        "Accepted and ended",
        "In a second.",
        Lines,
        "short",
        &[
            ("sum(rate(ringward_calls_accepted_total[5m]))", "accepted"),
            ("sum(ringward:calls_ended:rate5m)", "ended"),
        ],
    ),
    plain(
        "From acceptance to the first attempt",
        "Of five minutes.",
        Lines,
        "s",
        &[
            ("histogram_quantile(0.5, sum by (le) (rate(ringward_call_setup_seconds_bucket[5m])))", "p50"),
            ("histogram_quantile(0.99, sum by (le) (rate(ringward_call_setup_seconds_bucket[5m])))", "p99"),
        ],
    ),
    plain(
        "Looked for after a cut",
        "Attempts, by what was found, in an hour.",
        Lines,
        "short",
        &[("sum by (found) (increase(ringward_reconciliations_total[1h]))", "{{found}}")],
    ),
    plain(
        "Held back, redialled, hung up",
        "In an hour.",
        Lines,
        "short",
        &[
            ("sum(increase(ringward_calls_throttled_total[1h]))", "throttled"),
            ("sum(increase(ringward_calls_redialled_total[1h]))", "redialled"),
            ("sum(increase(ringward_survivors_hung_up_total[1h]))", "survivors hung up"),
        ],
    ),
    plain(
        "Speech",
        "Texts by result, in a second, and those that wait.",
        Lines,
        "short",
        &[
            ("sum by (result) (rate(ringward_speech_total[5m]))", "{{result}}"),
            ("sum(ringward_speech_waiting)", "waiting"),
        ],
    ),
    plain(
        "Sounds on their way",
        "By result, in a second.",
        Lines,
        "short",
        &[("sum by (result) (rate(ringward_sounds_placed_total[5m]))", "{{result}}")],
    ),
    plain(
        "Webhooks",
        "In a second.",
        Lines,
        "short",
        &[
            ("sum(rate(ringward_webhook_delivered_total[5m]))", "delivered"),
            ("sum by (class) (rate(ringward_webhook_failures_total[5m])) > 0", "{{class}}"),
        ],
    ),
    plain(
        "Webhooks that wait",
        "Pending, and for how long the longest due.",
        Lines,
        "short",
        &[
            ("max(ringward_webhook_pending)", "pending"),
            ("max(ringward_webhook_oldest_due_seconds)", "oldest due, s"),
        ],
    ),
    plain("Event streams", "Open.", Lines, "short", &[("sum(ringward_event_streams)", "open")]),
];

const HARDENING: &[Panel] = &[
    number(
        "Calls of others",
        "Over our trunks, not placed by us.",
        From(1),
        &[("sum(ringward_agent_foreign_calls) or vector(0)", "calls")],
    ),
    number(
        "Gate refusals",
        "Of all kinds, limits among them, in an hour.",
        Never,
        &[("sum(increase(ringward_agent_refused_total[1h])) or vector(0)", "refused")],
    ),
    number(
        "Bans in force",
        "On the node that has most.",
        Never,
        &[("max(sum by (node) (ringward_agent_bans)) or vector(0)", "bans")],
    ),
    number(
        "Firewalls not in force",
        "Reverted or waiting.",
        From(1),
        &[(
            "sum(max by (node) (ringward_agent_firewall_state{state=~\"reverted|waiting\"})) or vector(0)",
            "nodes",
        )],
    ),
    strip(
        "Firewall in force",
        "Green: in force.",
        Below(1),
        &[("max by (node) (ringward_agent_firewall_state{state=\"in_force\", node=~\"$node\"})", "{{node}}")],
    ),
    strip(
        "Sources of evidence",
        "Green: read.",
        Below(1),
        &[("min by (node, source) (ringward_agent_evidence_up{node=~\"$node\"})", "{{node}} {{source}}")],
    ),
    plain(
        "Bans made",
        "By jail, in an hour.",
        Stack,
        "short",
        &[("sum by (jail) (increase(ringward_agent_bans_total{node=~\"$node\"}[1h]))", "{{jail}}")],
    ),
    plain(
        "Bans of the fleet",
        "By who made them.",
        Stack,
        "short",
        &[("max by (kind, origin) (ringward_bans)", "{{kind}} {{origin}}")],
    ),
    plain(
        "Offences",
        "By kind, in a second.",
        Stack,
        "short",
        &[("sum by (kind) (rate(ringward_agent_offences_total{node=~\"$node\"}[5m])) > 0", "{{kind}}")],
    ),
    plain(
        "What became of them",
        "In a second.",
        Stack,
        "short",
        &[("sum by (verdict) (rate(ringward_agent_verdicts_total{node=~\"$node\"}[5m])) > 0", "{{verdict}}")],
    ),
    plain(
        "Packets dropped",
        "In a second, by rule; falls to zero when rules are written anew.",
        Lines,
        "pps",
        &[("sum by (rule) (rate(ringward_agent_firewall_dropped_packets{node=~\"$node\"}[5m]))", "{{rule}}")],
    ),
    plain(
        "Bans on their way",
        "From a change to a node's answer, p99 of an hour.",
        Lines,
        "s",
        &[("histogram_quantile(0.99, sum by (le) (rate(ringward_ban_share_seconds_bucket[1h])))", "p99")],
    ),
    plain(
        "Repairs, reverts, failures",
        "Of the firewall, in an hour.",
        Lines,
        "short",
        &[
            (
                "sum by (node) (increase(ringward_agent_firewall_repairs_total{node=~\"$node\"}[1h]))",
                "{{node}} repaired",
            ),
            (
                "sum by (node) (increase(ringward_agent_firewall_reverts_total{node=~\"$node\"}[1h]))",
                "{{node}} reverted",
            ),
            (
                "sum by (node) (increase(ringward_agent_firewall_failures_total{node=~\"$node\"}[1h]))",
                "{{node}} failed",
            ),
        ],
    ),
    plain(
        "Tampering",
        "Blocks of strangers' text in AMI, in an hour.",
        Lines,
        "short",
        &[("sum by (kind) (increase(ringward_agent_tampered_total{node=~\"$node\"}[1h])) > 0", "{{kind}}")],
    ),
    plain(
        "Evidence lost",
        "By reason, in an hour.",
        Lines,
        "short",
        &[(
            "sum by (reason) (increase(ringward_agent_evidence_lost_total{node=~\"$node\"}[1h])) > 0",
            "{{reason}}",
        )],
    ),
    plain(
        "Lines read",
        "By what the filter made of them, in a second.",
        Stack,
        "short",
        &[("sum by (outcome) (rate(ringward_agent_log_lines_total{node=~\"$node\"}[5m]))", "{{outcome}}")],
    ),
];
