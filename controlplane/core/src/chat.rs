//! What operators' chat is told of the fleet: what changed, why, and the next command to type; gathered, so that a carrier
//! that takes a thousand trunks with it is one message, and what goes on within a minute after it the next.
//!
//! ```text
//!   a change ──▶ waits GATHER ──▶ message ──▶ further changes wait until APART after it ──▶ message ──▶ …
//! ```
//!
//! Of one subject the latest change counts. No message names a number, a customer or an address.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    health::{Changed, Evidence, NodeState, TrunkState, panic::PanicChange},
    ids::IncidentId,
    names::{NodeName, TrunkName},
    oncall::IncidentStatus,
};

/// After the first change: what fails together is told together.
pub const GATHER: Duration = Duration::from_secs(5);
/// Between two messages.
pub const APART: Duration = Duration::from_secs(60);
/// Subjects that wait for a message; beyond it changes are counted only.
const SUBJECTS_MAX: usize = 10_000;
/// Lines of a message's text, and groups in its JSON.
const LINES_MAX: usize = 12;
/// Subjects that one line names.
const NAMED_MAX: usize = 5;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A route, by its prefix.
    Route(String),
    /// A node.
    Node(NodeName),
    /// A trunk.
    Trunk(TrunkName),
    /// An incident of on-call.
    Incident(IncidentId),
    /// What proves who somebody is, by whose it is.
    Certificate(String),
    /// The fleet's bans.
    Bans,
}

impl Subject {
    const fn noun(&self) -> &'static str {
        match self {
            Self::Route(_) => "route",
            Self::Node(_) => "node",
            Self::Trunk(_) => "trunk",
            Self::Incident(_) => "incident",
            Self::Certificate(_) => "certificate",
            Self::Bans => "bans",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(prefix) => f.write_str(prefix),
            Self::Node(name) => f.write_str(name.as_str()),
            Self::Trunk(name) => f.write_str(name.as_str()),
            Self::Incident(id) => f.write_str(id.as_str()),
            Self::Certificate(whose) => f.write_str(whose),
            Self::Bans => f.write_str("of the fleet"),
        }
    }
}

/// How it is with a subject now; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Something does not work.
    Bad,
    /// Somebody should know.
    Note,
    /// It works again.
    Well,
}

impl Weight {
    const fn sign(self) -> char {
        match self {
            Self::Bad => '✕',
            Self::Note => '–',
            Self::Well => '●',
        }
    }
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of what.
    pub subject: Subject,
    /// How it is now.
    pub weight: Weight,
    /// In a word, as `tripped`.
    pub state: String,
    /// Why.
    pub because: String,
    /// The next command to type.
    pub next: String,
    /// That it works again is news by itself; else it is to whom its fall was told.
    pub returns: bool,
}

impl Change {
    /// What is told of a change of health; `None`: it is between works and works less well.
    #[must_use]
    pub fn of_health(changed: &Changed) -> Option<Self> {
        match changed {
            Changed::Trunk(name, change) => {
                let was_bad =
                    matches!(change.from, TrunkState::Tripped | TrunkState::Probation | TrunkState::Disabled);
                let weight = match change.to {
                    TrunkState::Tripped => Weight::Bad,
                    TrunkState::Disabled => Weight::Note,
                    TrunkState::Healthy | TrunkState::Degraded => Weight::Well,
                    // Enabled by an operator, and not heard of yet.
                    TrunkState::Unknown if change.from == TrunkState::Disabled => Weight::Well,
                    TrunkState::Unknown | TrunkState::Probation => return None,
                };
                if change.from == change.to {
                    return None;
                }
                Some(Self {
                    subject: Subject::Trunk(name.clone()),
                    weight,
                    state: change.to.to_string(),
                    because: discreet(&change.evidence),
                    next: format!("ringward trunk why {name}"),
                    returns: was_bad,
                })
            }
            Changed::Node(name, change) => {
                let weight = match (change.from, change.to) {
                    (_, NodeState::Lost) => Weight::Bad,
                    (_, NodeState::Alive) => Weight::Well,
                    (_, NodeState::Suspect) => return None,
                };
                if change.from == change.to {
                    return None;
                }
                Some(Self {
                    subject: Subject::Node(name.clone()),
                    weight,
                    state: change.to.to_string(),
                    // Without for how long: that parts what belongs together.
                    because: change.evidence.lack.sentence().to_owned(),
                    next: format!("ringward node why {name}"),
                    // What is not heard of yet becomes alive at every start.
                    returns: change.from == NodeState::Lost,
                })
            }
        }
    }

    /// What is told of a route that fails open, or no longer.
    #[must_use]
    pub fn of_panic(route: &str, change: &PanicChange) -> Self {
        let (weight, state, because) = match change {
            PanicChange::Began(count) => (
                Weight::Bad,
                "in panic",
                format!(
                    "{} of its trunks are held to work, {} are not: all are tried",
                    count.usable, count.withheld
                ),
            ),
            PanicChange::Ended { .. } => {
                (Weight::Well, "out of panic", "enough trunks work again".to_owned())
            }
        };
        let next = "ringward status".to_owned();
        let subject = Subject::Route(route.to_owned());
        Self { subject, weight, state: state.to_owned(), because, next, returns: true }
    }

    /// What is told of an incident. Not its hook's name: a customer chose it, and a chat system may read it as markup.
    #[must_use]
    pub fn of_incident(id: &IncidentId, status: IncidentStatus) -> Self {
        let (weight, because, next) = match status {
            IncidentStatus::Escalating => (Weight::Bad, "somebody is being phoned", "show"),
            IncidentStatus::Unanswered => (Weight::Bad, "everybody was phoned, and nobody took note", "ack"),
            IncidentStatus::Acknowledged => (Weight::Note, "somebody has taken note", "show"),
            IncidentStatus::Resolved => (Weight::Well, "it is over", "show"),
        };
        Self {
            subject: Subject::Incident(id.clone()),
            weight,
            state: status.to_string(),
            because: because.to_owned(),
            next: format!("ringward incident {next} {id}"),
            returns: true,
        }
    }
}

/// Evidence without what it says of callees.
fn discreet(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Call { ending, sip_code, canary, .. } => {
            let what = if *canary { "a canary" } else { "a call" };
            let sip = sip_code.map_or_else(String::new, |code| format!(" (SIP {code})"));
            format!("{what} ended as {ending}{sip}")
        }
        Evidence::Rang { .. } => "a phone rang".to_owned(),
        Evidence::ContactReachable { .. } => "its contact answers OPTIONS".to_owned(),
        Evidence::ContactUnreachable
        | Evidence::Registered
        | Evidence::RegistrationLost
        | Evidence::RegistrationRejected
        | Evidence::Calls(_)
        | Evidence::Canaries { .. }
        | Evidence::Strains { .. }
        | Evidence::BackOffOver { .. }
        | Evidence::FellAgain { .. }
        | Evidence::TrialsGotThrough { .. }
        | Evidence::HeldThroughProbation
        | Evidence::NotWatched
        | Evidence::Rested
        | Evidence::Operator => evidence.to_string(),
    }
}

/// Subjects that changed alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `trunk`, `node`, `route`, `incident`, `certificate` or `bans`.
    pub kind: &'static str,
    /// How it is now.
    pub weight: Weight,
    /// In a word.
    pub state: String,
    /// Why.
    pub because: String,
    /// How many subjects.
    pub count: usize,
    /// The first of them.
    pub subjects: Vec<String>,
    /// The next command to type.
    pub next: String,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `fleet.changed`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// All of it in words, as chat systems show it.
    pub text: String,
    /// The same for programs, the worst first; at most twelve.
    pub changes: Vec<Group>,
    /// Changes that `changes` does not tell.
    pub more: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gathering {
    waiting: HashMap<Subject, Change>,
    /// Whose fall was told, or waits to be.
    fallen: HashSet<Subject>,
    uncounted: usize,
    first: Option<Instant>,
    sent: Option<Instant>,
}

impl Gathering {
    /// Something changed.
    pub fn note(&mut self, now: Instant, change: Change) {
        let was_told = match change.weight {
            Weight::Bad if self.fallen.len() < SUBJECTS_MAX => {
                self.fallen.insert(change.subject.clone());
                true
            }
            Weight::Bad | Weight::Note => true,
            Weight::Well => self.fallen.remove(&change.subject) || change.returns,
        };
        if !was_told {
            return;
        }
        self.first.get_or_insert(now);
        if self.waiting.len() >= SUBJECTS_MAX && !self.waiting.contains_key(&change.subject) {
            self.uncounted += 1;
            return;
        }
        self.waiting.insert(change.subject.clone(), change);
    }

    /// When the next message is to be taken.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let first = self.first? + GATHER;
        Some(self.sent.map_or(first, |sent| first.max(sent + APART)))
    }

    /// The message whose time has come.
    pub fn take(&mut self, now: Instant) -> Option<Message> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        (self.first, self.sent) = (None, Some(now));
        let uncounted = std::mem::take(&mut self.uncounted);
        Some(message(std::mem::take(&mut self.waiting).into_values(), uncounted))
    }
}

/// What subjects have in common that are told together: how it is with them, what they are, in a word, and why.
type Alike = (Weight, &'static str, String, String);

fn message(changes: impl Iterator<Item = Change>, uncounted: usize) -> Message {
    let mut groups: BTreeMap<Alike, Vec<(Subject, String)>> = BTreeMap::new();
    for Change { subject, weight, state, because, next, .. } in changes {
        groups.entry((weight, subject.noun(), state, because)).or_default().push((subject, next));
    }
    let group = |((weight, kind, state, because), mut subjects): (_, Vec<(Subject, String)>)| {
        subjects.sort();
        let next = match subjects.as_slice() {
            [(_, next)] => next.clone(),
            _ => "ringward status".to_owned(),
        };
        let named = subjects.iter().take(NAMED_MAX).map(|(subject, _)| subject.to_string()).collect();
        Group { kind, weight, state, because, count: subjects.len(), subjects: named, next }
    };
    let mut groups: Vec<Group> = groups.into_iter().map(group).collect();
    groups.sort_by_key(|group| (group.weight, std::cmp::Reverse(group.count)));
    let told: usize = groups.iter().take(LINES_MAX).map(|group| group.count).sum();
    let all: usize = groups.iter().map(|group| group.count).sum::<usize>() + uncounted;
    groups.truncate(LINES_MAX);
    let mut text: Vec<String> = groups.iter().map(line).collect();
    let more = all - told;
    if more > 0 {
        text.push(format!("And {more} more changes. Next: ringward status"));
    }
    Message { kind: "fleet.changed", text: text.join("\n"), changes: groups, more }
}

fn line(group: &Group) -> String {
    let Group { kind, weight, state, because, count, subjects, next } = group;
    let sign = weight.sign();
    let what = if *count == 1 {
        format!("{kind} {} {state}", subjects.join(""))
    } else {
        let rest = if *count > subjects.len() { ", …" } else { "" };
        format!("{count} {kind}s {state} ({}{rest})", subjects.join(", "))
    };
    format!("{sign} {what}: {because}. Next: {next}")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any moment is a beginning")]
mod tests {
    use super::*;
    use crate::health::{Lack, NodeEvidence, Transition};

    fn trunk(n: usize, to: TrunkState, evidence: Evidence, at: Instant) -> Change {
        let from = if to == TrunkState::Tripped { TrunkState::Healthy } else { TrunkState::Probation };
        let name = format!("acme-{n:04}").parse().unwrap();
        Change::of_health(&Changed::Trunk(name, Transition { from, to, at, evidence })).unwrap()
    }

    #[test]
    fn a_storm_of_a_thousand_trunks_is_a_few_messages() {
        let start = Instant::now();
        let (mut gathering, mut messages) = (Gathering::default(), Vec::new());
        // A carrier dies; its trunks are found over half a minute, and come back over the next one.
        for n in 0..1_000_usize {
            let at = start + Duration::from_millis(30) * u32::try_from(n).unwrap();
            gathering.note(at, trunk(n, TrunkState::Tripped, Evidence::ContactUnreachable, at));
            messages.extend(gathering.take(at));
        }
        for n in 0..1_000_usize {
            let at = start + Duration::from_secs(60) + Duration::from_millis(30) * u32::try_from(n).unwrap();
            let well = Evidence::ContactReachable { rtt_us: Some(n as u64) };
            gathering.note(at, trunk(n, TrunkState::Healthy, well, at));
            messages.extend(gathering.take(at));
        }
        messages.extend(gathering.take(start + Duration::from_secs(600)));
        assert_eq!(messages.len(), 3, "{messages:#?}");
        // Those of the first 5 s, and the one that comes with their end.
        assert_eq!(messages[0].changes[0].count, 168);
        let text = &messages[0].text;
        assert!(text.starts_with(
            "✕ 168 trunks tripped (acme-0000, acme-0001, acme-0002, acme-0003, acme-0004, …): "
        ));
        assert!(text.contains("does not answer OPTIONS. Next: ringward status"), "{text}");
        assert_eq!(gathering.due(), None);
        assert!(messages.iter().all(|message| message.text.len() < 2_000));
    }

    #[test]
    fn the_latest_of_a_subject_counts_and_the_worst_is_first() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        gathering.note(start, trunk(1, TrunkState::Tripped, Evidence::RegistrationLost, start));
        gathering.note(start, trunk(1, TrunkState::Healthy, Evidence::Registered, start));
        let call = Evidence::Call {
            ending: crate::ending::EndingClass::Congestion,
            sip_code: Some(503),
            destination: "+48221234567".to_owned(),
            canary: false,
        };
        gathering.note(start, trunk(2, TrunkState::Tripped, call, start));
        assert_eq!(gathering.take(start + Duration::from_secs(4)), None);
        let message = gathering.take(start + GATHER).unwrap();
        assert_eq!(
            message.text,
            "✕ trunk acme-0002 tripped: a call ended as congestion (SIP 503). Next: ringward trunk why acme-0002\n\
             ● trunk acme-0001 healthy: its registration was accepted. Next: ringward trunk why acme-0001"
        );
        // The next one is a minute later.
        gathering.note(start + GATHER, trunk(3, TrunkState::Tripped, Evidence::RegistrationLost, start));
        assert_eq!(gathering.due(), Some(start + GATHER + APART));
    }

    #[test]
    fn a_start_tells_of_no_node_that_comes() {
        let at = Instant::now();
        let node = |from, to| {
            let evidence = NodeEvidence { lack: Lack::NeverHeard, for_ms: 5 };
            Change::of_health(&Changed::Node("waw-1".parse().unwrap(), Transition { from, to, at, evidence }))
        };
        let mut gathering = Gathering::default();
        gathering.note(at, node(NodeState::Suspect, NodeState::Alive).unwrap());
        assert_eq!(gathering.due(), None);
        assert_eq!(node(NodeState::Lost, NodeState::Suspect), None);
        // One that was told to be lost comes back by way of suspicion.
        gathering.note(at, node(NodeState::Suspect, NodeState::Lost).unwrap());
        assert!(gathering.take(at + GATHER).unwrap().text.starts_with("✕ node waw-1 lost"));
        gathering.note(at + GATHER, node(NodeState::Suspect, NodeState::Alive).unwrap());
        assert!(gathering.take(at + GATHER + APART).unwrap().text.starts_with("● node waw-1 alive"));
    }

    #[test]
    fn what_differs_a_thousandfold_is_bounded() {
        let start = Instant::now();
        let mut gathering = Gathering::default();
        for n in 0..12_000 {
            let fell = Evidence::Canaries { failed: n };
            gathering.note(start, trunk(usize::try_from(n).unwrap(), TrunkState::Tripped, fell, start));
        }
        let message = gathering.take(start + GATHER).unwrap();
        assert_eq!((message.changes.len(), message.more), (LINES_MAX, 12_000 - LINES_MAX));
        assert!(message.text.len() < 3_000 && message.text.ends_with("ringward status"), "{}", message.text);
    }
}
