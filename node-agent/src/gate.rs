//! The node's one gate, as streams and links share it: the ledger behind a lock, its journal, what it refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_agent_ami::EndpointName;
use node_agent_core::{
    attempt_id::AttemptId,
    gate::{
        Bar, Ledger, Listed, NodeLimits, NumberRule, Passed, Policy as GatePolicy, RefusalKind, Report,
        Stream, TrunkLimits,
    },
};
use node_agent_protocol::{BarAnswer, GateCounts, Policy, fact_kind, sounds::InUse};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    journal::{Journal, Past, Whole},
    metrics::Metrics,
    settings::GateSettings,
    spool::Spool,
};

/// Between two facts of one kind of refusal: whoever floods the gate must not fill the spool.
const FACT_EVERY: Duration = Duration::from_secs(10);

struct Inner {
    ledger: Ledger,
    journal: Option<Journal>,
    revision: u64,
    has_policy: bool,
    counts: GateCounts,
    /// By kind: when the last fact was made, and how many refusals it did not tell of.
    told: HashMap<RefusalKind, (Instant, u64)>,
}

/// Clones share it.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Mutex<Inner>>,
    settings: GateSettings,
    spool: Spool,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({:?})", self.counts())
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Tells operators, to whom the node's log is far away.
pub(crate) fn tell_no_journal(spool: &Spool, error: &std::io::Error) {
    let body = json!({
        "finding": "state_not_written", "subject": error.to_string(),
        "fix": "Make room in the agent's state directory and restart the agent. Calls go on; but what became of \
                attempts of before its next restart can then not be proven",
    });
    spool.add(fact_kind::FINDING, body);
}

impl Gate {
    /// A gate that admits no Originate until a policy comes. Without a journal every attempt from before this
    /// process is unknown to it.
    #[must_use]
    pub fn new(
        settings: GateSettings,
        journal: Option<(Journal, Past)>,
        spool: Spool,
        metrics: Arc<Metrics>,
    ) -> Self {
        let limits = NodeLimits { channels_max: settings.channels_max, cps_max: settings.cps_max };
        let whole_since = match journal.as_ref().map(|(_, past)| past.whole) {
            Some(Whole::Ever) => None,
            // Of before the machine's own start nothing is said either way.
            Some(Whole::For(span)) => Some(now().checked_sub(span).unwrap_or_else(now)),
            None => Some(now()),
        };
        let mut ledger = Ledger::new(limits, whole_since);
        let journal = journal.map(|(journal, past)| {
            past.admitted.into_iter().for_each(|attempt| ledger.restore(attempt, now()));
            journal
        });
        let (counts, told) = Default::default();
        let inner = Inner { ledger, journal, revision: 0, has_policy: false, counts, told };
        Self { inner: Arc::new(Mutex::new(inner)), settings, spool, metrics }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a policy over unless it is older than the one in force.
    pub fn take(&self, policy: &Policy) {
        let mut inner = self.lock();
        if inner.has_policy && policy.revision <= inner.revision {
            return;
        }
        let allowed = |endpoint: &str| {
            self.settings.endpoints.as_ref().is_none_or(|only| only.iter().any(|name| name == endpoint))
        };
        let trunks = policy.trunks.iter().filter(|trunk| allowed(trunk.endpoint.as_str()));
        let trunk = |trunk: &node_agent_protocol::TrunkPolicy| {
            let number = NumberRule {
                begins: trunk.number.begins.to_string(),
                digits_min: trunk.number.digits_min,
                digits_max: trunk.number.digits_max,
            };
            let limits = TrunkLimits { channels_max: trunk.channels_max, cps_max: trunk.cps_max, number };
            EndpointName::parse(trunk.endpoint.as_str()).ok().map(|endpoint| (endpoint, limits))
        };
        let trunks = trunks.filter_map(trunk).collect();
        let limits = NodeLimits {
            channels_max: self.settings.channels_max.min(policy.channels_max),
            cps_max: self.settings.cps_max.min(policy.cps_max),
        };
        inner.ledger.set_policy(GatePolicy { trunks }, limits);
        (inner.revision, inner.has_policy) = (policy.revision, true);
        tracing::info!(revision = policy.revision, trunks = policy.trunks.len(), "policy in force");
    }

    /// The policy in force; 0 before the first.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Declared endpoints; `None` before a policy came.
    #[must_use]
    pub fn declared(&self) -> Option<Vec<EndpointName>> {
        let inner = self.lock();
        inner.has_policy.then(|| inner.ledger.declared().cloned().collect())
    }

    /// See `node_agent_core::gate::Ledger::bar`.
    #[must_use]
    pub fn bar(&self, attempt: &controlplane_core::ids::AttemptId, age_max: Option<Duration>) -> BarAnswer {
        let Ok(attempt) = AttemptId::parse(attempt.as_str().as_bytes()) else { return BarAnswer::Unknown };
        match self.lock().ledger.bar(attempt, age_max, now()) {
            Bar::Admitted => BarAnswer::Admitted,
            Bar::Barred => BarAnswer::Barred,
            Bar::Unknown => BarAnswer::Unknown,
        }
    }

    /// Bytes of a control plane, through its stream's machine. Attempts are in the journal when this returns.
    pub fn control_plane_wrote(&self, stream: &mut Stream, bytes: &[u8]) -> Passed {
        let mut inner = self.lock();
        let passed = stream.control_plane_wrote(bytes, &mut inner.ledger, now());
        let noted = match &mut inner.journal {
            Some(journal) => passed.admitted.iter().try_for_each(|attempt| journal.note(*attempt)),
            None => Ok(()),
        };
        if let Err(error) = noted {
            self.give_up(&mut inner, &error);
        }
        inner.counts.originates_admitted += passed.admitted.len() as u64;
        self.metrics.admitted(passed.admitted.len() as u64);
        self.report(&mut inner, &passed.reports);
        passed
    }

    /// Calls go on without a journal; a successor will know that it is not whole.
    fn give_up(&self, inner: &mut Inner, error: &std::io::Error) {
        let emptied = inner.journal.take().map_or(Ok(()), Journal::give_up);
        tracing::error!(%error, ?emptied, "the gate goes on without its journal: after a restart bars will be unknown");
        tell_no_journal(&self.spool, error);
    }

    /// Bytes of Asterisk, through the stream's machine.
    pub fn asterisk_wrote(&self, stream: &mut Stream, bytes: &[u8]) -> Passed {
        let mut inner = self.lock();
        let passed = stream.asterisk_wrote(bytes, &mut inner.ledger, now());
        self.report(&mut inner, &passed.reports);
        passed
    }

    fn report(&self, inner: &mut Inner, reports: &[Report]) {
        for report in reports {
            match report {
                Report::Refused { kind, action } => self.refused(inner, *kind, action),
                Report::Tampered(kind) => self.metrics.tampered(*kind),
                Report::Hidden => self.metrics.hidden(),
            }
        }
    }

    fn refused(&self, inner: &mut Inner, kind: RefusalKind, action: &str) {
        self.metrics.refused(kind);
        match kind {
            RefusalKind::TrunkChannels
            | RefusalKind::TrunkPace
            | RefusalKind::NodeChannels
            | RefusalKind::NodePace => inner.counts.originates_over_limit += 1,
            RefusalKind::Malformed
            | RefusalKind::Oversized
            | RefusalKind::NotLoggedIn
            | RefusalKind::UnknownAction
            | RefusalKind::UnknownHeader
            | RefusalKind::RepeatedHeader
            | RefusalKind::MissingHeader
            | RefusalKind::BadValue
            | RefusalKind::Application
            | RefusalKind::NotOurs
            | RefusalKind::NotDeclared
            | RefusalKind::NotOurContext
            | RefusalKind::NotOurVariable
            | RefusalKind::RepeatedActionId
            | RefusalKind::RepeatedAttempt
            | RefusalKind::Barred
            | RefusalKind::MemoryFull
            | RefusalKind::Busy => inner.counts.actions_refused += 1,
        }
        let now = Instant::now();
        if let Some((at, untold)) = inner.told.get_mut(&kind)
            && now.saturating_duration_since(*at) < FACT_EVERY
        {
            *untold += 1;
            return;
        }
        let untold = inner.told.insert(kind, (now, 0)).map_or(0, |(_, untold)| untold);
        tracing::warn!(action, %kind, untold, "the gate refused an action of a control plane");
        let body = json!({
            "action": action, "reason": kind.as_str(), "innocent": kind.is_innocent(), "before_untold": untold,
        });
        self.spool.add(fact_kind::GATE_REFUSED, body);
    }

    /// The observing session met strangers' text.
    pub(crate) fn tampered(&self, kind: node_agent_ami::TamperKind) {
        self.metrics.tampered(kind);
    }

    /// Asterisk's own list of our channels, asked for at `asked_at`.
    pub fn reconcile(&self, listed: &[Listed], asked_at: Instant) -> Vec<Listed> {
        self.lock().ledger.reconcile(listed, asked_at.into_std(), now())
    }

    /// Whether this attempt holds a channel, as far as is known.
    #[must_use]
    pub fn is_live(&self, attempt: AttemptId) -> bool {
        self.lock().ledger.is_live(attempt)
    }

    /// Sounds that live calls play, as far as that is known.
    pub(crate) fn sounds_in_use(&self) -> InUse {
        let inner = self.lock();
        let playing = inner.ledger.playing();
        playing.map_or(InUse::Unknown, |names| {
            InUse::These(names.into_iter().filter_map(|name| name.parse().ok()).collect())
        })
    }

    /// Attempts that have held a channel for longer than `at_least`.
    #[must_use]
    pub fn living_for(&self, at_least: Duration) -> Vec<AttemptId> {
        self.lock().ledger.living_for(at_least, now())
    }

    /// The journal's files take turns when it is time.
    pub fn turn_journal(&self) {
        let mut inner = self.lock();
        let turned = inner.journal.as_mut().map_or(Ok(()), Journal::turn);
        if let Err(error) = turned {
            self.give_up(&mut inner, &error);
        }
    }

    /// A stream began (`1`) or ended (`-1`).
    pub fn stream(&self, change: i32) {
        let mut inner = self.lock();
        inner.counts.streams = inner.counts.streams.saturating_add_signed(change);
    }

    /// For observations and metrics.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        let inner = self.lock();
        let channels = u32::try_from(inner.ledger.channels()).unwrap_or(u32::MAX);
        GateCounts { channels, ..inner.counts }
    }
}
