//! Replicas: who lives, who leads, and whose writes of a call stand.

use std::{collections::BTreeMap, time::Duration};

use controlplane_core::{
    call::{AttemptStatus, Rang},
    ids::{AttemptId, CallId, ReplicaId},
    request::KeyAction,
};
use controlplane_store::{
    StoreError,
    calls::{Account, Advance, BeginAttempt, Begun, Claim, EndAttempt, EndCall, Hear, RedialCall, Written},
    health::{HoldTarget, SetHold},
    replicas::{Held, Owned, Renewal},
};

use crate::fixture::{Fixture, NOON, at_once, failed, system};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn replica(f: &mut Fixture) -> ReplicaId {
    ReplicaId::new(&mut f.rng)
}

fn renewal(replica: &ReplicaId, lease: Duration) -> Renewal {
    let secrets = BTreeMap::from([("agents-ca.pem".to_owned(), "00ff".to_owned())]);
    Renewal { replica: replica.clone(), name: "cp-1".to_owned(), secrets, lease }
}

async fn lives(f: &Fixture, replica: &ReplicaId, lease: Duration) -> Option<i64> {
    f.store.renew_replica(renewal(replica, lease)).await.unwrap().leads
}

async fn claims(f: &Fixture, replica: &ReplicaId) -> Vec<CallId> {
    let claimed = f.store.claim_calls(replica, 100).await.unwrap();
    assert!(claimed.iter().all(|call| call.claim.owner.as_ref() == Some(replica)), "{claimed:?}");
    claimed.into_iter().map(|call| call.id).collect()
}

fn is_fenced<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::Fenced { .. })), "{result:?}");
}

pub(crate) async fn a_replica_lives_as_long_as_its_lease(mut f: Fixture) {
    let (first, second) = (replica(&mut f), replica(&mut f));
    assert!(f.store.replicas().await.unwrap().is_empty());
    lives(&f, &first, LONG).await;
    lives(&f, &second, Duration::ZERO).await;
    let replicas = f.store.replicas().await.unwrap();
    let seen: Vec<_> = replicas.iter().map(|r| (&r.id, r.is_living, r.leads)).collect();
    assert_eq!(seen, [(&first, true, true), (&second, false, false)]);
    assert_eq!((&replicas[0].name[..], &replicas[0].secrets["agents-ca.pem"][..]), ("cp-1", "00ff"));
    let left = replicas[0].lease_left_ms;
    assert!((500_000..=600_000).contains(&left) && replicas[1].lease_left_ms <= 0, "{replicas:?}");
    assert_eq!((replicas[0].calls, replicas[1].calls), (0, 0));
    f.accepted(NOON).await;
    assert_eq!(claims(&f, &first).await.len(), 1);
    assert_eq!(f.store.replicas().await.unwrap()[0].calls, 1);
    // A sign of life brings the database's clock back: each is later than the one before.
    let at = f.store.renew_replica(renewal(&first, LONG)).await.unwrap().at;
    assert!(at >= replicas[1].started_at, "{at}");
    // It lives again with its next sign, and is the same as before.
    lives(&f, &second, LONG).await;
    let again = f.store.replicas().await.unwrap();
    assert_eq!((again[1].started_at, again[1].is_living), (replicas[1].started_at, true));
    f.store.give_up_replica(&first).await.unwrap();
    let given_up = f.store.replicas().await.unwrap();
    assert_eq!((given_up[0].is_living, given_up[0].leads), (false, false));
}

pub(crate) async fn one_leads_until_its_lease_is_over(mut f: Fixture) {
    let (first, second) = (replica(&mut f), replica(&mut f));
    assert_eq!(lives(&f, &first, LONG).await, Some(1));
    assert_eq!(lives(&f, &second, LONG).await, None);
    assert_eq!(lives(&f, &first, Duration::ZERO).await, Some(1), "it leads on, until now");
    assert_eq!(lives(&f, &second, LONG).await, Some(2));
    assert_eq!(lives(&f, &first, LONG).await, None, "it was away");
    f.store.give_up_replica(&first).await.unwrap();
    assert_eq!(lives(&f, &second, LONG).await, Some(2), "who does not lead gives up no leading");
    f.store.give_up_replica(&second).await.unwrap();
    assert_eq!(lives(&f, &first, LONG).await, Some(3));
}

pub(crate) async fn twenty_that_start_at_once_have_one_leader(mut f: Fixture) {
    let work = (0..20).map(|_| {
        let (store, renewal) = (f.store.clone(), renewal(&replica(&mut f), LONG));
        async move { store.renew_replica(renewal).await.unwrap().leads }
    });
    let led: Vec<_> = at_once(work.collect()).await.into_iter().flatten().collect();
    assert_eq!(led, [1]);
}

pub(crate) async fn calls_of_the_dead_are_claimed_once_and_those_of_the_living_never(mut f: Fixture) {
    let (first, second) = (replica(&mut f), replica(&mut f));
    lives(&f, &first, LONG).await;
    lives(&f, &second, LONG).await;
    let (older, newer) = (f.accepted(NOON).await, f.accepted(NOON + time::Duration::SECOND).await);
    assert_eq!(claims(&f, &first).await, [older.clone(), newer.clone()], "nobody owned them");
    assert!(claims(&f, &second).await.is_empty(), "their owner lives");
    assert!(claims(&f, &first).await.is_empty(), "they are its own already");
    let claim = Claim { owner: Some(first.clone()), epoch: 1 };
    assert_eq!(f.call(&older).await.claim, claim);
    let owned = f.store.owned_calls(&first).await.unwrap();
    let org = f.call(&older).await.org;
    let owns = |call: &CallId| Owned { call: call.clone(), org: org.clone(), epoch: 1 };
    assert_eq!(owned, [owns(&older), owns(&newer)]);

    // Dead, by its lease or by its own word.
    lives(&f, &first, Duration::ZERO).await;
    assert_eq!(f.store.claim_calls(&second, 1).await.unwrap()[0].claim.epoch, 2);
    assert_eq!(claims(&f, &second).await, std::slice::from_ref(&newer));
    f.store.give_up_replica(&second).await.unwrap();
    lives(&f, &first, LONG).await;
    assert_eq!(claims(&f, &first).await.len(), 2);
    // What has ended is nobody's.
    let mut end = f.end_call(&older, NOON);
    end.epoch = 3;
    assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 2 });
    f.store.give_up_replica(&first).await.unwrap();
    assert_eq!(claims(&f, &second).await, [newer]);
}

pub(crate) async fn ten_that_claim_at_once_share_and_take_nothing_twice(mut f: Fixture) {
    for _ in 0..60 {
        f.accepted(NOON).await;
    }
    let work = (0..10).map(|_| {
        let (store, replica) = (f.store.clone(), replica(&mut f));
        async move {
            let mut claimed = Vec::new();
            loop {
                let page = store.claim_calls(&replica, 5).await.unwrap();
                if page.is_empty() {
                    return claimed;
                }
                claimed.extend(page.into_iter().map(|call| call.id));
            }
        }
    });
    let shares = at_once(work.collect()).await;
    let mut all: Vec<_> = shares.concat();
    let claimed = all.len();
    all.sort();
    all.dedup();
    assert_eq!((claimed, all.len()), (60, 60), "{:?}", shares.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(f.count("SELECT count(*) FROM call WHERE lease_epoch = 1").await, 60);
}

/// Whoever lost a call writes nothing of it, whatever it writes; who owns it does.
pub(crate) async fn a_late_owners_write_is_refused(mut f: Fixture) {
    let (first, second) = (replica(&mut f), replica(&mut f));
    let queued = f.accepted(NOON).await;
    let of = f.sending().await;
    assert_eq!(f.store.claim_calls(&first, 10).await.unwrap().len(), 2);
    f.store.renew_replica(renewal(&first, Duration::ZERO)).await.unwrap();
    assert_eq!(f.store.claim_calls(&second, 10).await.unwrap().len(), 2);
    let before = (f.call(&queued).await, f.call(&of.0).await);
    for epoch in [0, 1, 3] {
        let begin = BeginAttempt { epoch, ..f.begin(&queued) };
        is_fenced(f.store.begin_attempt(begin).await);
        let end = EndCall { epoch, ..f.end_call(&queued, NOON) };
        is_fenced(f.store.end_call(end).await);
        let redial = RedialCall { epoch, ..f.redial(&queued, NOON + time::Duration::MINUTE) };
        is_fenced(f.store.redial_call(redial).await);
        let news = f.advance(&of, AttemptStatus::Ringing, Rang::Yes, 1);
        is_fenced(f.store.advance(Advance { epoch, ..news }).await);
        let key = f.hear(&of, '1', KeyAction::Acknowledge);
        is_fenced(f.store.hear(Hear { epoch, ..key }).await);
        let end = f.end_attempt(&of, Some(failed()));
        is_fenced(f.store.end_attempt(EndAttempt { epoch, ..end }).await);
    }
    assert_eq!((f.call(&queued).await, f.call(&of.0).await), before, "nothing was written");
    let begin = BeginAttempt { epoch: 2, ..f.begin(&queued) };
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::Yes { sequence: 2 });
    let key = Hear { epoch: 2, ..f.hear(&of, '1', KeyAction::Acknowledge) };
    assert_eq!(f.store.hear(key).await.unwrap(), Written::Yes { sequence: 3 });
    let end = EndAttempt { epoch: 2, ..f.end_attempt(&of, Some(failed())) };
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 4 });
}

/// A claim and a write of the former owner at the same moment: either the write was first, or it is refused.
pub(crate) async fn a_claim_and_a_late_write_exclude_each_other(mut f: Fixture) {
    for _ in 0..20 {
        let (first, second) = (replica(&mut f), replica(&mut f));
        let call = f.accepted(NOON).await;
        assert_eq!(f.store.claim_calls(&first, 10).await.unwrap().len(), 1);
        lives(&f, &first, Duration::ZERO).await;
        let (claiming, writing) = (f.store.clone(), f.store.clone());
        let begin = BeginAttempt { epoch: 1, ..f.begin(&call) };
        let claim = async move { claiming.claim_calls(&second, 10).await.unwrap() };
        let (claimed, begun) = tokio::join!(claim, writing.begin_attempt(begin));
        let now = f.call(&call).await;
        match begun {
            Ok(begun) => assert_eq!((begun, now.attempts.len()), (Begun::Yes { sequence: 2 }, 1)),
            Err(StoreError::Fenced { .. }) => assert_eq!(now.attempts.len(), 0),
            Err(other) => panic!("{other}"),
        }
        // A row that was just being written is for the next look.
        if let Some(claimed) = claimed.first() {
            assert_eq!(claimed.attempts.len(), now.attempts.len(), "who claims sees all that was written");
            assert_eq!(now.claim.epoch, 2);
        }
        let end = EndCall { epoch: now.claim.epoch, ..f.end_call(&call, NOON) };
        if now.attempts.is_empty() {
            assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 2 });
        } else {
            let of = (call, now.attempts[0].id.clone());
            let end = EndAttempt { epoch: now.claim.epoch, ..f.end_attempt(&of, Some(failed())) };
            assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
        }
    }
}

pub(crate) async fn an_owner_finds_which_of_its_calls_shall_end(mut f: Fixture) {
    let (first, second) = (replica(&mut f), replica(&mut f));
    let (wished, other) = (f.accepted(NOON).await, f.accepted(NOON).await);
    f.cancel(&wished).await;
    assert_eq!(f.store.claim_calls(&first, 10).await.unwrap().len(), 2);
    assert_eq!(f.store.wished_ends(&first).await.unwrap(), std::slice::from_ref(&wished));
    assert!(f.store.wished_ends(&second).await.unwrap().is_empty());
    f.cancel(&other).await;
    let end = EndCall { epoch: 1, ..f.end_call(&wished, NOON) };
    assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 2 });
    assert_eq!(f.store.wished_ends(&first).await.unwrap(), [other]);
}

pub(crate) async fn what_others_change_is_seen_by_its_mark(mut f: Fixture) {
    let before = f.store.setting_marks().await.unwrap();
    assert_eq!(before, f.store.setting_marks().await.unwrap());
    let target = HoldTarget::Trunk("acme-waw-1".parse().unwrap());
    let mut hold = async |held| {
        let audit_id = f.audit_id();
        let set = SetHold { target: target.clone(), held, reason: None, at: NOON, actor: system(), audit_id };
        assert!(f.store.set_hold(set).await.unwrap());
        f.store.setting_marks().await.unwrap()
    };
    let held = hold(true).await;
    let lifted = hold(false).await;
    assert!(before.holds < held.holds && held.holds < lifted.holds);
    assert_eq!((before.rules, before.fleet), (lifted.rules, lifted.fleet));
    // A call changes none.
    let new = f.new_call(NOON);
    let _ = f.store.create_call(new).await.unwrap();
    assert_eq!(f.store.setting_marks().await.unwrap(), lifted);
}

/// Who has the database to itself tells at once, and its canaries need no place but its own.
pub(crate) async fn what_is_told_is_written_with_its_row(mut f: Fixture) {
    let row = crate::audit::row(&mut f, NOON, "trunk.trip");
    assert!(f.store.tell_once("trunk.trip acme-waw-1", LONG, Some(row)).await.unwrap());
    assert!(f.store.tell_once("trunk.trip beta-waw-1", LONG, None).await.unwrap());
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE action = 'trunk.trip'").await, 1);
    let (canary, carrier) = (AttemptId::new(&mut f.rng), "acme".parse().unwrap());
    let account = Account { cps_max: Some(1), channels_max: Some(1) };
    for _ in 0..2 {
        assert_eq!(f.store.hold_account(&canary, &carrier, account).await.unwrap(), Held::Yes);
    }
    f.store.free_account(&canary).await.unwrap();
}
