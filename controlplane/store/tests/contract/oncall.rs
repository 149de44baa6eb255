//! Hooks and incidents: one open incident of a group, and nobody writes over what he has not read.

use std::sync::Arc;

use controlplane_core::{
    access::Mode,
    ids::{CallId, HookId, IncidentId, OrgId},
    oncall::{
        Alert, IncidentStatus, StepResult,
        escalation::{Action, Escalation, Event, Phase},
        hook::HookSettings,
    },
};
use controlplane_store::{
    oncall::{HOOKS_MAX, Hook, INCIDENTS_OPEN_MAX, Incident, IncidentPage, Opened, SaveIncident, Told},
    privacy::ForgetNumber,
    restoring::{HoldOpen, Release},
    webhooks::Change,
};
use serde_json::json;
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, system};

fn settings() -> HookSettings {
    serde_json::from_value(json!({
        "name": "Nächte", "kind": "alertmanager", "to": ["+48221234567", "+48221234568"], "only": {"severity": ["page"]},
        "speech": {"alert": "{{/labels/trunk|/labels/alertname}}"}
    }))
    .unwrap()
}

fn change(f: &mut Fixture) -> Change {
    Change { org: OrgId::first(), at: NOON, actor: system(), audit_id: f.audit_id() }
}

async fn hook(f: &mut Fixture) -> Hook {
    let hook = Hook { id: f.hook_id(), org: OrgId::first(), settings: settings(), created_at: NOON };
    let change = change(f);
    assert!(f.store.create_hook(hook.clone(), change).await.unwrap());
    hook
}

fn incident(f: &mut Fixture, hook: &Hook, key: &str) -> Incident {
    let alert = Alert {
        id: "f1".to_owned(),
        text: "Trunk a is out of service".to_owned(),
        labels: [("trunk".to_owned(), "a".to_owned())].into(),
        firing: true,
    };
    Incident {
        id: f.incident_id(),
        org: hook.org.clone(),
        hook: hook.id.clone(),
        mode: Mode::Live,
        key: key.to_owned(),
        plan: hook.settings.clone(),
        escalation: Escalation::new(NOON),
        alerts: vec![alert],
        alerts_seen: 1,
        opened_by: None,
        opened_at: NOON,
        acknowledged_at: None,
        acknowledged_by: None,
        unanswered_at: None,
        resolved_at: None,
        resolved_by: None,
        version: 1,
    }
}

fn told(f: &mut Fixture, action: &'static str) -> Told {
    Told { id: f.audit_id(), actor: system(), action, changes: json!({}) }
}

async fn open(f: &mut Fixture, incident: &Incident) -> Opened {
    let told = told(f, "incident.open");
    f.store.open_incident(incident.clone(), told).await.unwrap()
}

async fn read(f: &Fixture, id: &IncidentId) -> Incident {
    f.store.incident(None, id).await.unwrap().unwrap()
}

async fn save(f: &Fixture, incident: &Incident, cancel: Option<CallId>) -> bool {
    let save = SaveIncident { incident: incident.clone(), cancel, told: None, at: NOON };
    f.store.save_incident(save).await.unwrap()
}

pub(crate) async fn a_hook_is_made_read_changed_and_removed_with_its_audit_rows(mut f: Fixture) {
    let hook = hook(&mut f).await;
    assert_eq!(f.store.hook(&hook.org, &hook.id).await.unwrap(), Some(hook.clone()));
    let other = f.other_org().await;
    assert_eq!(f.store.hook(&other, &hook.id).await.unwrap(), None);
    let mut settings = settings();
    settings.rounds = 5;
    let mut foreign = change(&mut f);
    foreign.org = other.clone();
    assert_eq!(f.store.change_hook(hook.id.clone(), settings.clone(), foreign.clone()).await.unwrap(), None);
    assert_eq!(f.store.delete_hook(hook.id.clone(), foreign).await.unwrap(), None);
    let by = change(&mut f);
    let changed = f.store.change_hook(hook.id.clone(), settings, by).await.unwrap().unwrap();
    assert_eq!((changed.settings.rounds, changed.created_at), (5, NOON));
    let by = change(&mut f);
    assert_eq!(f.store.delete_hook(hook.id.clone(), by).await.unwrap(), Some(Vec::new()));
    assert_eq!(f.store.hooks(&hook.org).await.unwrap(), []);
    let rows = f.store.audit(10).await.unwrap();
    let row = |action: &str| rows.iter().find(|row| row.action == action).expect("its row");
    for action in ["hook.create", "hook.update", "hook.delete"] {
        assert_eq!(row(action).record.target_id, hook.id.as_str());
    }
    assert_eq!(row("hook.create").record.changes["to"], json!(["+4822…67", "+4822…68"]), "no number whole");
    for _ in 0..HOOKS_MAX {
        self::hook(&mut f).await;
    }
    let one_more = Hook { id: f.hook_id(), ..hook };
    let by = change(&mut f);
    assert!(!f.store.create_hook(one_more, by).await.unwrap());
}

pub(crate) async fn an_incident_is_read_back_as_it_was_written(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut incident = incident(&mut f, &hook, "{}:{a=\"b\"}");
    assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    assert_eq!(read(&f, &incident.id).await, incident);
    let other = f.other_org().await;
    assert_eq!(f.store.incident(Some(&other), &incident.id).await.unwrap(), None);
    let plan = incident.plan.clone();
    let call = f.accepted(NOON).await;
    for event in [Event::Tick { answered: false }, Event::Placed(call.clone())] {
        incident.escalation.handle(&plan, event, NOON + Duration::SECOND);
        assert!(save(&f, &incident, None).await);
        incident.version += 1;
        assert_eq!(read(&f, &incident.id).await, incident);
    }
    assert_eq!(
        incident.escalation.phase,
        Phase::Calling { call: call.clone(), until: Some(NOON + Duration::seconds(91)) }
    );
    // Acknowledged: the call's cancel is one write with it.
    let action = incident.escalation.handle(&plan, Event::Acknowledge, NOON + Duration::seconds(9));
    assert_eq!(action, Some(Action::Cancel(call.clone())));
    incident.acknowledged_at = Some(NOON + Duration::seconds(9));
    incident.acknowledged_by = Some("key_x".to_owned());
    assert!(save(&f, &incident, Some(call.clone())).await);
    incident.version += 1;
    assert_eq!(read(&f, &incident.id).await, incident);
    assert_eq!(f.call(&call).await.cancel_requested_at, Some(NOON));
}

pub(crate) async fn of_a_group_one_incident_is_open(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut first = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &first).await, Opened::Yes);
    let again = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &again).await, Opened::Exists);
    let other_key = incident(&mut f, &hook, "h");
    assert_eq!(open(&mut f, &other_key).await, Opened::Yes);
    let rehearsed = Incident { mode: Mode::Test, ..incident(&mut f, &hook, "g") };
    assert_eq!(open(&mut f, &rehearsed).await, Opened::Yes);
    let found = f.store.open_of_group(&hook.id, Mode::Live, "g").await.unwrap();
    assert_eq!(found.map(|incident| incident.id), Some(first.id.clone()));
    let plan = first.plan.clone();
    first.escalation.handle(&plan, Event::Resolve, NOON);
    first.resolved_at = Some(NOON);
    assert!(save(&f, &first, None).await);
    assert_eq!(f.store.open_of_group(&hook.id, Mode::Live, "g").await.unwrap(), None);
    assert_eq!(open(&mut f, &again).await, Opened::Yes);
    // Fifty at once are one.
    let work: Vec<_> = (0..50)
        .map(|_| {
            let (incident, told) = (incident(&mut f, &hook, "x"), told(&mut f, "incident.open"));
            let store = Arc::clone(&f.store);
            async move { store.open_incident(incident, told).await.unwrap() }
        })
        .collect();
    let opened = at_once(work).await;
    assert_eq!(opened.iter().filter(|opened| **opened == Opened::Yes).count(), 1);
    assert!(opened.iter().all(|opened| *opened != Opened::Full));
}

pub(crate) async fn who_has_not_read_it_does_not_write_over_it(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let incident = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    let work: Vec<_> = (0..20)
        .map(|n| {
            let (mut incident, store) = (incident.clone(), Arc::clone(&f.store));
            incident.alerts_seen = n;
            let save = SaveIncident { incident, cancel: None, told: None, at: NOON };
            async move { store.save_incident(save).await.unwrap() }
        })
        .collect();
    assert_eq!(at_once(work).await.into_iter().filter(|saved| *saved).count(), 1);
    assert_eq!(read(&f, &incident.id).await.version, 2);
}

pub(crate) async fn an_incident_that_is_held_is_not_due(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let incident = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    let hold = HoldOpen { at: NOON, actor: system(), audit_id: f.audit_id() };
    assert_eq!(f.store.hold_open(hold).await.unwrap(), 1);
    assert_eq!(f.store.due_incidents(NOON, 10).await.unwrap().len(), 0);
    assert_eq!(f.store.held().await.unwrap()[0].id, incident.id.as_str());
    let release = Release { ids: None, at: NOON, actor: system(), audit_id: f.audit_id() };
    assert_eq!(f.store.release(release).await.unwrap(), 1);
    assert_eq!(f.store.due_incidents(NOON, 10).await.unwrap().len(), 1);
}

pub(crate) async fn incidents_are_due_by_their_time_or_their_call_s_end(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut incident = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    let due = async |f: &Fixture, s: i64| {
        f.store.due_incidents(NOON + Duration::seconds(s), 10).await.unwrap().len()
    };
    assert_eq!((due(&f, -1).await, due(&f, 0).await), (0, 1));
    let plan = incident.plan.clone();
    incident.escalation.handle(&plan, Event::Tick { answered: false }, NOON);
    let call = f.accepted(NOON).await;
    incident.escalation.handle(&plan, Event::Placed(call.clone()), NOON);
    assert!(save(&f, &incident, None).await);
    incident.version += 1;
    assert_eq!((due(&f, 89).await, due(&f, 90).await), (0, 1), "its step has its time");
    incident.escalation.handle(&plan, Event::Tick { answered: true }, NOON + Duration::seconds(90));
    assert!(save(&f, &incident, None).await);
    incident.version += 1;
    assert_eq!(due(&f, 9_999).await, 0, "whoever has answered is listened to");
    let end = f.end_call(&call, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    assert_eq!(due(&f, 0).await, 1, "its call has ended");
    incident.escalation.handle(&plan, Event::Resolve, NOON);
    incident.resolved_at = Some(NOON);
    assert!(save(&f, &incident, None).await);
    assert_eq!(due(&f, 9_999).await, 0);
}

pub(crate) async fn a_removed_hook_resolves_what_came_in_by_it(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut ringing = incident(&mut f, &hook, "g");
    assert_eq!(open(&mut f, &ringing).await, Opened::Yes);
    let plan = ringing.plan.clone();
    let call = f.accepted(NOON).await;
    ringing.escalation.handle(&plan, Event::Tick { answered: false }, NOON);
    ringing.escalation.handle(&plan, Event::Placed(call.clone()), NOON);
    assert!(save(&f, &ringing, None).await);
    let waiting = incident(&mut f, &hook, "h");
    assert_eq!(open(&mut f, &waiting).await, Opened::Yes);
    let by = change(&mut f);
    assert_eq!(f.store.delete_hook(hook.id.clone(), by).await.unwrap(), Some(vec![call.clone()]));
    for id in [&ringing.id, &waiting.id] {
        let incident = read(&f, id).await;
        assert_eq!((incident.status(), incident.escalation.due()), (IncidentStatus::Resolved, None));
        assert_eq!(incident.resolved_by.as_deref(), Some(hook.id.as_str()));
    }
    assert!(f.call(&call).await.cancel_requested_at.is_some());
}

pub(crate) async fn incidents_are_listed_in_pages_and_erased_by_age(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut ids: Vec<IncidentId> = Vec::new();
    for key in ["a", "b", "c"] {
        let incident = incident(&mut f, &hook, key);
        assert_eq!(open(&mut f, &incident).await, Opened::Yes);
        ids.push(incident.id);
    }
    ids.sort();
    ids.reverse();
    let page = |change: fn(&mut IncidentPage)| {
        let mut page = IncidentPage { org: Some(OrgId::first()), limit: 2, ..IncidentPage::default() };
        change(&mut page);
        page
    };
    let list = async |f: &Fixture, page: IncidentPage| {
        let (incidents, has_more) = f.store.incidents(page).await.unwrap();
        (incidents.into_iter().map(|incident| incident.id).collect::<Vec<_>>(), has_more)
    };
    assert_eq!(list(&f, page(|_| {})).await, (ids[..2].to_vec(), true));
    let rest = IncidentPage { starting_after: Some(ids[1].clone()), ..page(|_| {}) };
    assert_eq!(list(&f, rest).await, (ids[2..].to_vec(), false));
    let other = f.other_org().await;
    assert_eq!(
        list(&f, IncidentPage { org: Some(other.clone()), ..page(|_| {}) }).await,
        (Vec::new(), false)
    );
    let nowhere = IncidentPage { hook: Some(f.hook_id()), ..page(|_| {}) };
    assert_eq!(list(&f, nowhere).await, (Vec::new(), false));
    let mut over = read(&f, &ids[0]).await;
    let plan = over.plan.clone();
    over.escalation.handle(&plan, Event::Tick { answered: false }, NOON);
    over.escalation.handle(
        &plan,
        Event::Refused { problem: "not_permitted".to_owned(), for_now: false },
        NOON,
    );
    over.escalation.handle(&plan, Event::Resolve, NOON);
    over.resolved_at = Some(NOON);
    assert!(save(&f, &over, None).await);
    assert_eq!(list(&f, page(|page| page.open = Some(false))).await, (vec![ids[0].clone()], false));
    assert_eq!(list(&f, page(|page| page.open = Some(true))).await, (ids[1..].to_vec(), false));
    assert_eq!(list(&f, page(|page| page.status = Some(IncidentStatus::Resolved))).await.0.len(), 1);
    for (org, by, count) in
        [(&other, NOON, 0), (&OrgId::first(), NOON - Duration::SECOND, 0), (&OrgId::first(), NOON, 1)]
    {
        assert_eq!(f.store.erase_incidents(org, by, 10).await.unwrap(), count);
    }
    assert_eq!(f.store.incident(None, &ids[0]).await.unwrap(), None);
}

pub(crate) async fn a_number_is_forgotten_with_the_incidents_that_phoned_it(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut ids = Vec::new();
    for (key, is_over) in [("over", true), ("open", false)] {
        let mut incident = incident(&mut f, &hook, key);
        assert_eq!(open(&mut f, &incident).await, Opened::Yes);
        let plan = incident.plan.clone();
        incident.escalation.handle(&plan, Event::Tick { answered: false }, NOON);
        let refused = Event::Refused { problem: "not_permitted".to_owned(), for_now: false };
        incident.escalation.handle(&plan, refused, NOON);
        if is_over {
            incident.escalation.handle(&plan, Event::Resolve, NOON);
            incident.resolved_at = Some(NOON);
        }
        assert!(save(&f, &incident, None).await);
        ids.push(incident.id);
    }
    let forget = async |f: &Fixture, number: &str| {
        let number = number.parse().unwrap();
        let forget = ForgetNumber { org: None, number, after: None, limit: 10, at: NOON };
        f.store.forget_number(forget).await.unwrap();
        let mut left = Vec::new();
        for id in &ids {
            left.push(f.store.incident(None, id).await.unwrap().is_some());
        }
        left
    };
    assert_eq!(forget(&f, "+482212345679").await, [true, true], "another number that begins so");
    assert_eq!(forget(&f, "+48221234567").await, [false, true], "what is open goes on");
}

pub(crate) async fn an_organisation_has_so_many_open_incidents(mut f: Fixture) {
    let hook = hook(&mut f).await;
    for n in 0..INCIDENTS_OPEN_MAX {
        let incident = incident(&mut f, &hook, &n.to_string());
        assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    }
    let one_more = incident(&mut f, &hook, "more");
    assert_eq!(open(&mut f, &one_more).await, Opened::Full);
}

impl Fixture {
    fn hook_id(&mut self) -> HookId {
        HookId::new(NOON, &mut self.rng)
    }

    fn incident_id(&mut self) -> IncidentId {
        IncidentId::new(NOON, &mut self.rng)
    }
}

pub(crate) async fn incidents_are_found_whose_call_had_a_key_after_its_end(mut f: Fixture) {
    let hook = hook(&mut f).await;
    let mut incident = incident(&mut f, &hook, "a");
    assert_eq!(open(&mut f, &incident).await, Opened::Yes);
    let (plan, (call, attempt)) = (incident.plan.clone(), f.sending().await);
    for event in [Event::Tick { answered: false }, Event::Placed(call), Event::Ended(StepResult::NotReached)]
    {
        incident.escalation.handle(&plan, event, NOON + Duration::SECOND);
        assert!(save(&f, &incident, None).await);
        incident.version += 1;
    }
    assert_eq!(f.store.heard_incidents(10).await.unwrap(), []);
    f.execute(&format!("UPDATE attempt SET heard_key = '1' WHERE id = '{attempt}'")).await.unwrap();
    assert_eq!(f.store.heard_incidents(10).await.unwrap(), [incident.clone()]);
    // Somebody has taken note since.
    incident.escalation.handle(&plan, Event::Acknowledge, NOON);
    incident.acknowledged_at = Some(NOON);
    assert!(save(&f, &incident, None).await);
    assert_eq!(f.store.heard_incidents(10).await.unwrap(), []);
}
