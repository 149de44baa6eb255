//! What operators allow customers, what was refused, and what was used.

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, Rang},
    guard::Rule,
    ids::{KeyId, OrgId},
};
use controlplane_store::{
    calls::{Actor, Created, DayMax, Full, NewCall},
    guard::{DayUsage, DeniedCall, RuleKind, SetRules, Subject, day_of},
    keys::{Made, Rotation, Whose},
};
use serde_json::{Value, json};
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, failed, system};

async fn set(f: &mut Fixture, subject: Subject, kind: RuleKind, document: Value) -> bool {
    let audit_id = f.audit_id();
    let set = SetRules { subject, kind, document, at: NOON, actor: system(), audit_id };
    f.store.set_rules(set).await.unwrap()
}

pub(crate) async fn rules_are_set_replaced_and_audited(mut f: Fixture) {
    assert_eq!(f.store.rules().await.unwrap(), []);
    let org = || Subject::Org(OrgId::first());
    assert!(set(&mut f, org(), RuleKind::Policy, json!({"countries": {"PL": ["fixed"]}})).await);
    assert!(set(&mut f, org(), RuleKind::Limits, json!({"cps_max": 3})).await);
    assert!(set(&mut f, org(), RuleKind::Policy, json!({})).await);
    assert!(set(&mut f, org(), RuleKind::Retention, json!({"calls_days": 30})).await);
    let nobody = Subject::Org(OrgId::new(NOON, &mut f.rng));
    assert!(!set(&mut f, nobody, RuleKind::Policy, json!({})).await);
    let nobody = Subject::Key(KeyId::new(NOON, &mut f.rng));
    assert!(!set(&mut f, nobody, RuleKind::Limits, json!({})).await);
    let key = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    assert!(set(&mut f, Subject::Key(key.id.clone()), RuleKind::Limits, json!({"calls_per_day": 1})).await);
    let rules = f.store.rules().await.unwrap();
    let found: Vec<_> = rules.iter().map(|rule| (rule.kind.as_str(), &rule.document)).collect();
    let (limits, key_limits, closed) = (json!({"cps_max": 3}), json!({"calls_per_day": 1}), json!({}));
    let kept = json!({"calls_days": 30});
    let all = [("limits", &key_limits), ("limits", &limits), ("policy", &closed), ("retention", &kept)];
    assert_eq!(found, all);
    let sets = "SELECT count(*) FROM audit_log WHERE action IN ('policy.set', 'limits.set', 'retention.set')";
    assert_eq!(f.count(sets).await, 5);
    // The key that takes its place has them too.
    let mut new = f.key(Some(OrgId::first()), NOON);
    new.rotated_from = Some(key.id.clone());
    let rotation = Rotation { id: key.id, whose: Whose::All, until: NOON, new: new.clone() };
    let audit_id = f.audit_id();
    assert_eq!(f.store.rotate_key(rotation, system(), audit_id).await.unwrap(), Made::Yes);
    let rules = f.store.rules().await.unwrap();
    let of_new = rules.iter().find(|rule| rule.subject == new.id.as_str()).unwrap();
    assert_eq!((of_new.kind.as_str(), &of_new.document), ("limits", &key_limits));
}

pub(crate) async fn a_refusal_is_a_row_of_its_own(mut f: Fixture) {
    let denied = DeniedCall {
        org: OrgId::first(),
        to: "+48701234567".parse().unwrap(),
        rule: Rule::NumberType,
        destination: "PL premium".to_owned(),
        at: NOON,
        actor: system(),
        audit_id: f.audit_id(),
    };
    f.store.deny_call(denied).await.unwrap();
    let rows = f.store.audit(10).await.unwrap();
    assert_eq!((rows.len(), rows[0].outcome.as_str(), rows[0].action.as_str()), (1, "denied", "call.create"));
    assert_eq!(rows[0].changes, json!({"rule": "number_type", "destination": "PL premium"}));
    assert!(!format!("{:?}", rows[0]).contains("48701234567"), "the number is shortened");
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE reason = 'number_type'").await, 1);
    assert_eq!(f.count("SELECT count(*) FROM call").await, 0);
}

pub(crate) async fn usage_is_by_day_and_organisation(mut f: Fixture) {
    let (call, attempt) = f.sending().await;
    let of = (call, attempt);
    let answered = f.advance(&of, AttemptStatus::InProgress, Rang::Yes, 4);
    let _ = f.store.advance(answered).await.unwrap();
    let end = f.end_attempt(&of, Some(failed()));
    let _ = f.store.end_attempt(end.clone()).await.unwrap();
    // The same write again is no other talk.
    let _ = f.store.end_attempt(end).await.unwrap();
    f.accepted(NOON + Duration::days(2)).await;
    let other = f.other_org().await;
    let foreign = NewCall { org: other.clone(), ..f.new_call(NOON) };
    f.store.create_call(foreign).await.unwrap();
    // A rehearsal uses nothing.
    let key = Some(KeyId::new(NOON, &mut f.rng));
    let rehearsal =
        NewCall { mode: Mode::Test, actor: Actor { key: key.clone(), ..system() }, ..f.new_call(NOON) };
    let call = rehearsal.id.clone();
    f.store.create_call(rehearsal).await.unwrap();
    let begin = f.begin(&call);
    let of = (call, begin.attempt.clone());
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let answered = f.advance(&of, AttemptStatus::InProgress, Rang::Yes, 4);
    let _ = f.store.advance(answered).await.unwrap();
    let end = f.end_attempt(&of, Some(failed()));
    let _ = f.store.end_attempt(end).await.unwrap();
    let day = day_of(NOON);
    let of_first = f.store.usage(&OrgId::first(), day - 10, day + 10).await.unwrap();
    let first = DayUsage { day, calls: 1, attempts: 1, talk_us: 5_000_000 };
    let later = DayUsage { day: day + 2, calls: 1, attempts: 0, talk_us: 0 };
    assert_eq!(of_first, [first.clone(), later]);
    assert_eq!(f.store.usage(&OrgId::first(), day, day).await.unwrap(), [first]);
    assert_eq!(f.store.usage(&other, day, day).await.unwrap()[0].calls, 1);
    let used = f.store.in_use(&OrgId::first(), key.as_ref(), day).await.unwrap();
    assert_eq!((used.open, used.org_today, used.key_today), (1, 1, 0));
}

/// Fifty at once, of which so many may be: by the organisation, then by the key, each on a day of its own.
pub(crate) async fn fifty_at_a_day_s_bound_never_exceed_it(mut f: Fixture) {
    let key = Some(KeyId::new(NOON, &mut f.rng));
    for (n, day_max, full) in [
        (0, DayMax { org: Some(30), key: None }, Full::OrgDay),
        (1, DayMax { org: Some(40), key: Some(30) }, Full::KeyDay),
    ] {
        let at = NOON + Duration::days(n);
        let work = (0..50).map(|_| {
            let actor = Actor { key: key.clone(), ..system() };
            let new = NewCall { day_max, actor, ..f.new_call(at) };
            let store = f.store.clone();
            async move { store.create_call(new).await.unwrap() }
        });
        let created = at_once(work.collect()).await;
        assert_eq!(created.iter().filter(|created| matches!(created, Created::New(_))).count(), 30);
        assert!(created.iter().all(|created| matches!(created, Created::New(_))
            || matches!(created, Created::Full(why) if *why == full)));
        let used = f.store.in_use(&OrgId::first(), key.as_ref(), day_of(at)).await.unwrap();
        assert_eq!((used.org_today, used.key_today), (30, 30));
    }
}
