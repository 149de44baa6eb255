//! What the gate remembers: which attempts were let through, which are barred, which channels live.
//!
//! **An attempt's fate.**
//! ```text
//!            admit                       bar
//! (new) ──────────────▶ Admitted ─────────────────▶ Admitted: it went through, ask Asterisk
//!   │  bar, memory whole ──▶ Barred        ─ bar ─▶ Barred
//!   └─ bar, memory holed ──▶ Barred        ─ bar ─▶ Unknown (refused from now on all the same)
//! ```
//! `Barred` is a proof, so it is answered only where the memory is *whole* over the attempt's possible life:
//! the asker says for how long the attempt may have existed (no age: [`REMEMBERED_AT_LEAST`]), and the memory
//! reaches back at least as far, to the agent's start or, where a journal survived it, further. A fate is kept
//! for [`REMEMBERED_AT_LEAST`] or longer. Where memory is full of younger ones, new Originates are refused
//! rather than old fates forgotten.
//!
//! **Channels** are counted by the ids that hold one, never by adding and subtracting, so that no event, lost
//! or doubled, makes a count drift. Answers and events of the streams take ids out; [`Ledger::reconcile`] with
//! Asterisk's own list, every few seconds, puts right what they missed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use node_agent_ami::EndpointName;

use super::{
    originate::Originate,
    pace::Pace,
    policy::{NodeLimits, Policy},
    refusal::RefusalKind,
};
use crate::attempt_id::AttemptId;

/// For how long a fate is remembered at least.
pub const REMEMBERED_AT_LEAST: Duration = Duration::from_secs(3600);
/// Most fates: an hour at 100 a second, and some 25 MB.
pub const REMEMBERED_MAX: usize = 400_000;
/// "Queued" comes before the channel does: a list that was asked for sooner proves nothing.
const CHANNEL_APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// The answer to `bar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// Its Originate went through the gate.
    Admitted,
    /// It did not, and will not.
    Barred,
    /// It will not, but whether it did is not known.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted { ended_at: Option<Instant> },
    Barred { proven: bool },
}

#[derive(Debug, Clone)]
struct Live {
    endpoint: EndpointName,
    admitted_at: Instant,
    has_channel: bool,
    /// What it plays; `None`: this process did not admit it, and does not know.
    plays: Option<String>,
}

/// A channel of ours in Asterisk's own list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub attempt: AttemptId,
    /// Its endpoint.
    pub endpoint: EndpointName,
}

/// The memory of one node's gate.
#[derive(Debug)]
pub struct Ledger {
    /// Everything admitted from this instant on is remembered. `None`: from ever.
    whole_since: Option<Instant>,
    remembered_max: usize,
    fates: HashMap<AttemptId, Fate>,
    order: VecDeque<(Instant, AttemptId)>,
    live: HashMap<AttemptId, Live>,
    per_endpoint: HashMap<EndpointName, HashSet<AttemptId>>,
    paces: HashMap<EndpointName, Pace>,
    node_pace: Pace,
    node: NodeLimits,
    policy: Policy,
    admitted: u64,
    /// Whether Asterisk's own list of channels was seen.
    is_reconciled: bool,
}

impl Ledger {
    /// An empty one. `whole_since`: the agent's start; `None` only where it is certain that no Originate ever
    /// went through this node's gate that is not [`Ledger::restore`]d.
    #[must_use]
    pub fn new(node: NodeLimits, whole_since: Option<Instant>) -> Self {
        Self::with_room(node, whole_since, REMEMBERED_MAX)
    }

    pub(super) fn with_room(node: NodeLimits, whole_since: Option<Instant>, remembered_max: usize) -> Self {
        Self {
            whole_since,
            remembered_max,
            fates: HashMap::new(),
            order: VecDeque::new(),
            live: HashMap::new(),
            per_endpoint: HashMap::new(),
            paces: HashMap::new(),
            node_pace: Pace::default(),
            node,
            policy: Policy::default(),
            admitted: 0,
            is_reconciled: false,
        }
    }

    /// An attempt that an earlier process of this agent let through. Its channel, if it lives, is taken up by
    /// [`Ledger::reconcile`].
    pub fn restore(&mut self, attempt: AttemptId, now: Instant) {
        self.remember(attempt, Fate::Admitted { ended_at: None }, now);
    }

    /// Replaces the policy. Channels that live stay counted.
    pub fn set_policy(&mut self, policy: Policy, node: NodeLimits) {
        self.paces.retain(|endpoint, _| policy.trunks.contains_key(endpoint));
        self.policy = policy;
        self.node = node;
    }

    /// Whether the fleet declares this endpoint.
    #[must_use]
    pub fn is_declared(&self, endpoint: &EndpointName) -> bool {
        self.policy.trunks.contains_key(endpoint)
    }

    /// Every declared endpoint.
    pub fn declared(&self) -> impl Iterator<Item = &EndpointName> {
        self.policy.trunks.keys()
    }

    /// Lets an Originate through, or says why not. From here on it counts.
    pub(super) fn admit(&mut self, originate: &Originate, now: Instant) -> Result<(), RefusalKind> {
        self.forget(now);
        match self.fates.get(&originate.attempt) {
            Some(Fate::Barred { .. }) => return Err(RefusalKind::Barred),
            Some(Fate::Admitted { .. }) => return Err(RefusalKind::RepeatedAttempt),
            None => {}
        }
        let endpoint = &originate.endpoint;
        let trunk = self.policy.trunks.get(endpoint).ok_or(RefusalKind::NotDeclared)?;
        if !trunk.number.admits(&originate.number) {
            return Err(RefusalKind::BadValue);
        }
        let on_trunk = self.per_endpoint.get(endpoint).map_or(0, HashSet::len);
        if on_trunk >= trunk.channels_max as usize {
            return Err(RefusalKind::TrunkChannels);
        }
        if self.live.len() >= self.node.channels_max as usize {
            return Err(RefusalKind::NodeChannels);
        }
        if !self.paces.entry(endpoint.clone()).or_default().is_free(trunk.cps_max, now) {
            return Err(RefusalKind::TrunkPace);
        }
        if !self.node_pace.is_free(self.node.cps_max, now) {
            return Err(RefusalKind::NodePace);
        }
        if self.fates.len() >= self.remembered_max {
            return Err(RefusalKind::MemoryFull);
        }
        self.paces.entry(endpoint.clone()).or_default().take(now);
        self.node_pace.take(now);
        self.remember(originate.attempt, Fate::Admitted { ended_at: None }, now);
        self.hold(originate.attempt, endpoint.clone(), Some(originate.plays().to_owned()), now);
        self.admitted += 1;
        Ok(())
    }

    /// Refuses the attempt from now on, on every stream. `age_max`: how long ago it may have been sent at the
    /// earliest; `None`: [`REMEMBERED_AT_LEAST`].
    pub fn bar(&mut self, attempt: AttemptId, age_max: Option<Duration>, now: Instant) -> Bar {
        self.forget(now);
        match self.fates.get(&attempt) {
            Some(Fate::Admitted { .. }) => return Bar::Admitted,
            Some(Fate::Barred { proven: true }) => return Bar::Barred,
            Some(Fate::Barred { proven: false }) => return Bar::Unknown,
            None => {}
        }
        if self.fates.len() >= self.remembered_max {
            // Without room to remember the bar, nothing is promised.
            return Bar::Unknown;
        }
        let age = age_max.unwrap_or(REMEMBERED_AT_LEAST);
        let proven = self.whole_since.is_none_or(|since| now.saturating_duration_since(since) > age);
        self.remember(attempt, Fate::Barred { proven }, now);
        if proven { Bar::Barred } else { Bar::Unknown }
    }

    fn remember(&mut self, attempt: AttemptId, fate: Fate, now: Instant) {
        if self.fates.insert(attempt, fate).is_none() {
            self.order.push_back((now, attempt));
        }
    }

    /// Drops what is older than [`REMEMBERED_AT_LEAST`]; the memory is whole from the youngest of it on.
    fn forget(&mut self, now: Instant) {
        while let Some((at, attempt)) = self.order.front().copied() {
            if now.saturating_duration_since(at) <= REMEMBERED_AT_LEAST {
                return;
            }
            self.order.pop_front();
            if self.live.contains_key(&attempt) {
                // Its call still goes on.
                self.order.push_back((now, attempt));
                continue;
            }
            self.fates.remove(&attempt);
            self.whole_since = Some(self.whole_since.map_or(at, |since| since.max(at)));
        }
    }

    fn hold(&mut self, attempt: AttemptId, endpoint: EndpointName, plays: Option<String>, now: Instant) {
        self.per_endpoint.entry(endpoint.clone()).or_default().insert(attempt);
        self.live.insert(attempt, Live { endpoint, admitted_at: now, has_channel: false, plays });
    }

    fn release(&mut self, attempt: AttemptId, now: Instant) {
        let Some(live) = self.live.remove(&attempt) else { return };
        if let Some(Fate::Admitted { ended_at }) = self.fates.get_mut(&attempt) {
            *ended_at = Some(now);
        }
        if let Some(ids) = self.per_endpoint.get_mut(&live.endpoint) {
            ids.remove(&attempt);
            if ids.is_empty() {
                self.per_endpoint.remove(&live.endpoint);
            }
        }
    }

    /// An event told of the channel.
    pub(super) fn channel_seen(&mut self, attempt: AttemptId) {
        if let Some(live) = self.live.get_mut(&attempt) {
            live.has_channel = true;
        }
    }

    /// The channel is gone.
    pub(super) fn hung_up(&mut self, attempt: AttemptId, now: Instant) {
        self.release(attempt, now);
    }

    /// Asterisk refused the Originate: no channel was made.
    pub(super) fn rejected(&mut self, attempt: AttemptId, now: Instant) {
        self.release(attempt, now);
    }

    /// OriginateResponse said `Failure`. With a channel, its Hangup is still to come; without, it is over.
    pub(super) fn originate_failed(&mut self, attempt: AttemptId, now: Instant) {
        if self.live.get(&attempt).is_some_and(|live| !live.has_channel) {
            self.release(attempt, now);
        }
    }

    /// Compares with Asterisk's list of channels, asked for at `asked_at`. Gives those of ours that no one here
    /// had let through: of a control plane with a session of its own, or of before this agent's start. They
    /// count from now on.
    pub fn reconcile(&mut self, listed: &[Listed], asked_at: Instant, now: Instant) -> Vec<Listed> {
        self.is_reconciled = true;
        let there: HashSet<AttemptId> = listed.iter().map(|listed| listed.attempt).collect();
        let gone = |(attempt, live): (&AttemptId, &Live)| {
            let is_gone = !there.contains(attempt) && live.admitted_at + CHANNEL_APPEARS_WITHIN <= asked_at;
            is_gone.then_some(*attempt)
        };
        let gone: Vec<_> = self.live.iter().filter_map(gone).collect();
        gone.into_iter().for_each(|attempt| self.release(attempt, now));
        let mut unclaimed = Vec::new();
        for listed in listed {
            if self.live.contains_key(&listed.attempt) {
                self.channel_seen(listed.attempt);
                continue;
            }
            let known = self.fates.get(&listed.attempt).copied();
            if let Some(Fate::Admitted { ended_at: Some(ended_at) }) = known
                && ended_at >= asked_at
            {
                // It ended while the list was on its way.
                continue;
            }
            if !matches!(known, Some(Fate::Admitted { .. })) {
                unclaimed.push(listed.clone());
            }
            self.remember(listed.attempt, Fate::Admitted { ended_at: None }, now);
            self.hold(listed.attempt, listed.endpoint.clone(), None, now);
            self.channel_seen(listed.attempt);
        }
        unclaimed
    }

    /// Whether this attempt holds a channel, as far as is known.
    #[must_use]
    pub fn is_live(&self, attempt: AttemptId) -> bool {
        self.live.contains_key(&attempt)
    }

    /// Attempts that have held a channel for longer than `at_least`.
    #[must_use]
    pub fn living_for(&self, at_least: Duration, now: Instant) -> Vec<AttemptId> {
        let is_old = |live: &Live| now.saturating_duration_since(live.admitted_at) > at_least;
        self.live.iter().filter(|(_, live)| is_old(live)).map(|(attempt, _)| *attempt).collect()
    }

    /// Names of what channels of ours play. `None`: there may be one of before this process, and what it plays is
    /// not known.
    #[must_use]
    pub fn playing(&self) -> Option<HashSet<&str>> {
        if !self.is_reconciled {
            return None;
        }
        self.live.values().map(|live| live.plays.as_deref()).collect()
    }

    /// Channels of ours on this endpoint.
    #[must_use]
    pub fn channels_of(&self, endpoint: &EndpointName) -> usize {
        self.per_endpoint.get(endpoint).map_or(0, HashSet::len)
    }

    /// Channels of ours on all endpoints.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.live.len()
    }

    /// Originates let through since the start.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        self.admitted
    }
}
