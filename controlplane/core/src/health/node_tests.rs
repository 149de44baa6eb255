//! The node machine: its stories, and properties over random events.

use proptest::prelude::*;

use super::*;

struct Played {
    now: Instant,
    node: NodeHealth,
}

impl Played {
    fn new(kind: NodeKind) -> Self {
        #[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning")]
        let now = Instant::now();
        Self { now, node: NodeHealth::new(now, kind, NodePolicy::default()) }
    }

    fn feed(&mut self, event: NodeEvent) -> NodeState {
        self.node.handle(self.now, event);
        self.node.state()
    }

    fn wait_s(&mut self, s: u64) -> NodeState {
        let end = self.now + Duration::from_secs(s);
        while let Some(due) = self.node.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.node.on_deadline(self.now);
            assert!(self.node.next_deadline().is_none_or(|next| next > due), "{:?}", self.node);
        }
        self.now = end;
        self.node.state()
    }

    /// Time passes with heartbeats every 2 s.
    fn beats_s(&mut self, s: u64) -> NodeState {
        for _ in 0..s / 2 {
            self.wait_s(2);
            self.feed(NodeEvent::Heartbeat);
        }
        self.node.state()
    }

    fn alive() -> Self {
        let mut p = Self::new(NodeKind::Agent);
        p.feed(NodeEvent::LinkUp);
        p.feed(NodeEvent::AmiUp);
        assert_eq!(p.beats_s(4), NodeState::Alive);
        p
    }

    fn lack(&self) -> Lack {
        self.node.why(self.now).lack
    }
}

#[test]
fn it_begins_suspect_and_is_lost_when_nothing_comes() {
    let mut p = Played::new(NodeKind::Agent);
    assert_eq!((p.node.state(), p.lack()), (NodeState::Suspect, Lack::NeverHeard));
    assert_eq!(p.wait_s(9), NodeState::Suspect);
    assert_eq!(p.wait_s(2), NodeState::Lost);
}

#[test]
fn a_dead_agent_with_a_living_asterisk_is_suspect_for_good() {
    let mut p = Played::alive();
    assert_eq!(p.wait_s(5), NodeState::Alive);
    assert_eq!((p.wait_s(2), p.lack()), (NodeState::Suspect, Lack::HeartbeatLate));
    assert_eq!((p.feed(NodeEvent::LinkDown), p.lack()), (NodeState::Suspect, Lack::LinkDown));
    assert_eq!(p.wait_s(3_600), NodeState::Suspect);
    p.feed(NodeEvent::LinkUp);
    assert_eq!(p.beats_s(4), NodeState::Alive);
}

#[test]
fn a_restarting_asterisk_is_suspect_and_a_dead_one_lost() {
    let mut p = Played::alive();
    assert_eq!((p.feed(NodeEvent::AmiDown), p.lack()), (NodeState::Suspect, Lack::AmiDown));
    assert_eq!(p.beats_s(8), NodeState::Suspect);
    let mut dead = Played { now: p.now, node: p.node.clone() };
    assert_eq!((p.feed(NodeEvent::AmiUp), p.lack()), (NodeState::Suspect, Lack::Settling));
    assert_eq!(p.beats_s(4), NodeState::Alive);
    assert_eq!(dead.beats_s(4), NodeState::Lost);
    assert_eq!(dead.beats_s(600), NodeState::Lost, "heartbeats carry no calls");
    assert_eq!(dead.feed(NodeEvent::AmiUp), NodeState::Suspect);
    assert_eq!(dead.beats_s(4), NodeState::Alive);
}

#[test]
fn when_both_witnesses_fall_silent_it_is_lost_at_once() {
    let mut p = Played::alive();
    p.feed(NodeEvent::LinkDown);
    assert_eq!(p.feed(NodeEvent::AmiDown), NodeState::Lost);
    let why = p.node.why(p.now);
    assert_eq!(why.sentence, "lost for 0 s: its AMI session is down");
    assert_eq!((why.history[0].from, why.history[0].to), (NodeState::Suspect, NodeState::Lost));
}

#[test]
fn an_agentless_node_is_known_by_its_ami() {
    let mut p = Played::new(NodeKind::Agentless);
    p.feed(NodeEvent::AmiUp);
    assert_eq!(p.wait_s(4), NodeState::Alive);
    assert_eq!(p.wait_s(3_600), NodeState::Alive);
    assert_eq!(p.feed(NodeEvent::AmiDown), NodeState::Suspect);
    assert_eq!(p.wait_s(11), NodeState::Lost);
}

#[test]
fn three_faults_of_its_own_make_it_suspect_until_a_minute_passes_without() {
    let mut p = Played::new(NodeKind::Agentless);
    p.feed(NodeEvent::AmiUp);
    p.wait_s(4);
    p.feed(NodeEvent::Fault);
    p.wait_s(61);
    p.feed(NodeEvent::Fault);
    assert_eq!(p.feed(NodeEvent::Fault), NodeState::Alive);
    assert_eq!((p.feed(NodeEvent::Fault), p.lack()), (NodeState::Suspect, Lack::Faults));
    assert_eq!(p.wait_s(59), NodeState::Suspect);
    assert_eq!(p.wait_s(5), NodeState::Alive);
}

#[test]
fn draining_is_beside_the_state() {
    let mut p = Played::alive();
    assert_eq!(p.feed(NodeEvent::Drain), NodeState::Alive);
    assert!(p.node.is_draining() && p.node.why(p.now).sentence.ends_with("an operator drains it"));
    p.feed(NodeEvent::Undrain);
    assert!(!p.node.is_draining());
}

fn any_event() -> impl Strategy<Value = NodeEvent> {
    prop::sample::select(vec![
        NodeEvent::LinkUp,
        NodeEvent::LinkDown,
        NodeEvent::Heartbeat,
        NodeEvent::Heartbeat,
        NodeEvent::AmiUp,
        NodeEvent::AmiDown,
        NodeEvent::Fault,
        NodeEvent::Drain,
        NodeEvent::Undrain,
    ])
}

proptest! {
    /// The reference: what the witnesses last said, and how long ago.
    #[test]
    fn against_what_the_witnesses_said(agent: bool, events in prop::collection::vec((any_event(), 0u64..15), 0..60)) {
        let kind = if agent { NodeKind::Agent } else { NodeKind::Agentless };
        let mut p = Played::new(kind);
        let (mut ami, mut link, mut beat) = (None, None, 0);
        let mut now = 0;
        for (event, wait) in events {
            match event {
                NodeEvent::AmiUp => ami = Some(now),
                NodeEvent::AmiDown => ami = None,
                NodeEvent::LinkUp => { link = Some(now); beat = now; }
                NodeEvent::LinkDown => link = None,
                NodeEvent::Heartbeat => { link = link.or(Some(now)); beat = now; }
                NodeEvent::Fault | NodeEvent::Drain | NodeEvent::Undrain => {}
            }
            p.feed(event);
            p.wait_s(wait);
            now += wait;
            match p.node.state() {
                NodeState::Alive => {
                    prop_assert!(ami.is_some());
                    prop_assert!(!agent || (link.is_some() && now - beat < 6));
                }
                NodeState::Suspect => {}
                NodeState::Lost => prop_assert!(ami.is_none()),
            }
            // Nothing is stuck: with both witnesses well it is alive within a moment.
            let mut well = Played { now: p.now, node: p.node.clone() };
            well.feed(NodeEvent::LinkUp);
            well.feed(NodeEvent::AmiUp);
            prop_assert_eq!(well.beats_s(66), NodeState::Alive);
            // And with neither it is lost.
            let mut dead = Played { now: p.now, node: p.node.clone() };
            dead.feed(NodeEvent::LinkDown);
            dead.feed(NodeEvent::AmiDown);
            prop_assert_eq!(dead.wait_s(11), NodeState::Lost);
        }
    }

    #[test]
    fn a_restart_keeps_the_past_and_trusts_nothing(events in prop::collection::vec((any_event(), 0u64..15), 0..40)) {
        let mut p = Played::new(NodeKind::Agent);
        for (event, wait) in events {
            p.feed(event);
            p.wait_s(wait);
            let json = serde_json::to_string(&p.node.snapshot(p.now)).unwrap();
            let again = NodeHealth::restore(p.now, serde_json::from_str(&json).unwrap(), NodePolicy::default());
            let (before, after) = (p.node.why(p.now), again.why(p.now));
            prop_assert_eq!(after.history, before.history);
            prop_assert_eq!(after.draining, before.draining);
            prop_assert_eq!((after.state, after.lack), (NodeState::Suspect, Lack::NeverHeard));
            prop_assert!(again.next_deadline().is_some());
        }
    }
}
