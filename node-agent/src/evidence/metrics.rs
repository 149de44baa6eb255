//! What evidence came, what became of it, and what was lost on the way. Labels are of closed sets: jails are those of
//! the settings.

use std::collections::BTreeMap;

use node_agent_core::{
    offence::{Kind, Nobody},
    rules::JailName,
};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Counted, under the bar.
    Counted,
    /// A phone with an old password.
    Warned,
    /// Of who is never banned.
    Protected,
    /// Of who is banned already.
    Banned,
    /// This minute had its share of bans.
    Held,
    /// Banned.
    Ban,
    /// Would have been banned: the jail is a dry run.
    Simulated,
    /// The list of bans refused it.
    Refused,
    /// The kernel did not take it.
    Failed,
}

impl Outcome {
    pub(crate) const ALL: [Self; 9] = [
        Self::Counted,
        Self::Warned,
        Self::Protected,
        Self::Banned,
        Self::Held,
        Self::Ban,
        Self::Simulated,
        Self::Refused,
        Self::Failed,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Warned => "warned",
            Self::Protected => "protected",
            Self::Banned => "banned_already",
            Self::Held => "held",
            Self::Ban => "ban",
            Self::Simulated => "simulated",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What a filter made of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// An offence or a login.
    Matched,
    /// To be ignored.
    Ignored,
    /// Nothing fits.
    Missed,
}

impl Read {
    pub(crate) const ALL: [Self; 3] = [Self::Matched, Self::Ignored, Self::Missed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Ignored => "ignored",
            Self::Missed => "missed",
        }
    }
}

/// Evidence that was not weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Lines that were too long.
    Overlong,
    /// Ends of files without a line end.
    Half,
    /// Bytes that were skipped because the reader was far behind.
    SkippedBytes,
    /// Security events that came faster than they were read.
    Events,
    /// Entries of the journal that sshd did not write, or that cannot be read.
    Strangers,
    /// Times that a source could not be read.
    Unreadable,
}

impl Lost {
    pub(crate) const ALL: [Self; 6] =
        [Self::Overlong, Self::Half, Self::SkippedBytes, Self::Events, Self::Strangers, Self::Unreadable];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Overlong => "overlong_lines",
            Self::Half => "half_lines",
            Self::SkippedBytes => "skipped_bytes",
            Self::Events => "events",
            Self::Strangers => "journal_entries",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counters of the hardening.
pub(crate) struct EvidenceMetrics {
    offences: IntCounterVec,
    nobody: IntCounterVec,
    outcomes: IntCounterVec,
    lines: IntCounterVec,
    lost: IntCounterVec,
    repeated: IntCounterVec,
    up: IntGaugeVec,
    foreign_calls: IntGaugeVec,
    hung_up: IntCounterVec,
}

impl EvidenceMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            offences: counters(
                "ringward_agent_offences_total",
                "Offences, by jail and kind; kind tampering: strangers' line breaks in security events.",
                &["jail", "kind"],
            )?,
            nobody: counters(
                "ringward_agent_nobody_total",
                "Evidence that counts against no address, by jail and reason.",
                &["jail", "reason"],
            )?,
            outcomes: counters(
                "ringward_agent_verdicts_total",
                "What became of offences, by jail; held: the breaker on bans per minute.",
                &["jail", "verdict"],
            )?,
            lines: counters(
                "ringward_agent_log_lines_total",
                "Lines that were read, by jail and what its filter made of them.",
                &["jail", "outcome"],
            )?,
            lost: counters(
                "ringward_agent_evidence_lost_total",
                "Evidence that was not weighed, by jail and reason.",
                &["jail", "reason"],
            )?,
            repeated: counters(
                "ringward_agent_evidence_repeated_total",
                "Security events that told of the same request again.",
                &["jail"],
            )?,
            up: gauges("ringward_agent_evidence_up", "Whether a source of evidence is read.", "source")?,
            foreign_calls: gauges(
                "ringward_agent_foreign_calls",
                "Calls that go out over a trunk and that Ringward did not place, at the last reading.",
                "endpoint",
            )?,
            hung_up: counters(
                "ringward_agent_foreign_calls_hung_up_total",
                "Calls over a trunk that Ringward did not place and that the agent hung up, since they may not be.",
                &["endpoint"],
            )?,
        })
    }

    /// Series of a jail exist from the start, at zero.
    pub(crate) fn begin(&self, jail: &JailName) {
        let jail = jail.as_str();
        let start = |counters: &IntCounterVec, word: &str| drop(counters.with_label_values(&[jail, word]));
        Kind::ALL.iter().for_each(|kind| start(&self.offences, kind.as_str()));
        Nobody::ALL.iter().for_each(|reason| start(&self.nobody, reason.as_str()));
        Outcome::ALL.iter().for_each(|outcome| start(&self.outcomes, outcome.as_str()));
        Read::ALL.iter().for_each(|read| start(&self.lines, read.as_str()));
        Lost::ALL.iter().for_each(|lost| start(&self.lost, lost.as_str()));
    }

    pub(crate) fn offence(&self, jail: &JailName, kind: Kind) {
        self.offences.with_label_values(&[jail.as_str(), kind.as_str()]).inc();
    }

    pub(crate) fn nobody(&self, jail: &JailName, reason: Nobody) {
        self.nobody.with_label_values(&[jail.as_str(), reason.as_str()]).inc();
    }

    pub(crate) fn outcome(&self, jail: &JailName, outcome: Outcome) {
        self.outcomes.with_label_values(&[jail.as_str(), outcome.as_str()]).inc();
    }

    pub(crate) fn lines(&self, jail: &JailName, read: Read, count: u64) {
        self.lines.with_label_values(&[jail.as_str(), read.as_str()]).inc_by(count);
    }

    pub(crate) fn lost(&self, jail: &JailName, lost: Lost, count: u64) {
        if count > 0 {
            self.lost.with_label_values(&[jail.as_str(), lost.as_str()]).inc_by(count);
        }
    }

    pub(crate) fn repeated(&self, jail: &JailName) {
        self.repeated.with_label_values(&[jail.as_str()]).inc();
    }

    pub(crate) fn up(&self, source: &str, is_up: bool) {
        self.up.with_label_values(&[source]).set(i64::from(is_up));
    }

    /// All trunks with such calls; the others have none.
    pub(crate) fn foreign_calls(&self, calls: &BTreeMap<String, u32>, hung_up: &BTreeMap<String, u64>) {
        self.foreign_calls.reset();
        for (endpoint, count) in calls {
            self.foreign_calls.with_label_values(&[endpoint.as_str()]).set(i64::from(*count));
        }
        for (endpoint, count) in hung_up {
            let counter = self.hung_up.with_label_values(&[endpoint.as_str()]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// A jail's counts, for `jail status`.
    pub(crate) fn seen(&self, jail: &JailName) -> serde_json::Value {
        let name = jail.as_str();
        let of = |counters: &IntCounterVec, words: &mut dyn Iterator<Item = &'static str>| {
            let count = |word: &'static str| (word, counters.with_label_values(&[name, word]).get());
            let counted = words.map(count).filter(|(_, count)| *count > 0);
            counted.map(|(word, count)| (word.to_owned(), count.into())).collect::<serde_json::Map<_, _>>()
        };
        serde_json::json!({
            "offences": of(&self.offences, &mut Kind::ALL.iter().map(|kind| kind.as_str())),
            "nobody": of(&self.nobody, &mut Nobody::ALL.iter().map(|reason| reason.as_str())),
            "verdicts": of(&self.outcomes, &mut Outcome::ALL.iter().map(|outcome| outcome.as_str())),
            "lines": of(&self.lines, &mut Read::ALL.iter().map(|read| read.as_str())),
            "lost": of(&self.lost, &mut Lost::ALL.iter().map(|lost| lost.as_str())),
        })
    }
}
