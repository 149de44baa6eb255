//! Accepting calls: once, whole, and remembered.

use std::collections::BTreeSet;

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, Rang},
    ids::{CallId, KeyId, OrgId},
};
use controlplane_store::calls::{
    Actor, Advance, BeginAttempt, Begun, Created, DayMax, EndAttempt, Full, IDEMPOTENCY_KEPT, Idempotency,
    NewCall, OpenMax, Written,
};
use controlplane_store::keys::Made;
use rand::Rng as _;
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, failed, promise, system};

pub(crate) async fn a_call_is_read_back_as_it_was_answered(mut f: Fixture) {
    // Nanoseconds are more than the databases keep: the answer must not promise them.
    let mut new = f.new_call(NOON + Duration::nanoseconds(1_234_567));
    new.request.deadline_at = Some(NOON + Duration::hours(1));
    let Created::New(call) = f.store.create_call(new.clone()).await.unwrap() else { panic!() };
    assert_eq!(call.created_at, NOON + Duration::microseconds(1_234));
    assert_eq!((&call.id, &call.org, &call.request, call.sequence), (&new.id, &new.org, &new.request, 1));
    assert_eq!(f.call(&new.id).await, call);
}

pub(crate) async fn a_call_is_accepted_with_its_log_outbox_and_audit(mut f: Fixture) {
    let id = f.accepted(NOON).await;
    let log = f.log(&id).await;
    assert_eq!((log.len(), log[0].status.as_str(), log[0].at), (1, "queued", NOON));
    let audit = f.store.audit(10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!((audit[0].action.as_str(), audit[0].record.target_id.as_str()), ("call.create", id.as_str()));
    assert!(!audit[0].changes.to_string().contains("48221234567"), "the number is shortened");
}

pub(crate) async fn fifty_equal_posts_make_one_call(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.idempotency = promise("alert-1", 1);
    let posts: Vec<_> = (0..50).map(|_| f.again(&first, NOON)).collect();
    let work = posts.into_iter().map(|new| {
        let store = f.store.clone();
        async move { store.create_call(new).await.unwrap() }
    });
    let mut made = Vec::new();
    let mut replayed = Vec::new();
    for created in at_once(work.collect()).await {
        match created {
            Created::New(call) => made.push(call),
            Created::Replayed(call) => replayed.push(call),
            Created::KeyReused | Created::Deduplicated(_) | Created::Full(_) => panic!("{created:?}"),
        }
    }
    assert_eq!((made.len(), replayed.len()), (1, 49));
    assert!(replayed.iter().all(|call| *call == made[0]));
    assert_eq!(f.count("SELECT count(*) FROM call").await, 1);
    assert_eq!(f.count("SELECT count(*) FROM audit_log").await, 1);
}

pub(crate) async fn the_same_key_with_another_body_is_refused(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.idempotency = promise("alert-1", 1);
    assert!(matches!(f.store.create_call(first.clone()).await.unwrap(), Created::New(_)));
    let mut second = f.again(&first, NOON);
    second.idempotency = promise("alert-1", 2);
    assert!(matches!(f.store.create_call(second.clone()).await.unwrap(), Created::KeyReused));
    assert_eq!(f.count("SELECT count(*) FROM call").await, 1);
    // The same without wanting a call.
    let before = async |asked: &Option<Idempotency>, org: &OrgId, mode| {
        f.store.asked_before(org, mode, asked.as_ref().unwrap(), NOON).await.unwrap()
    };
    let found = before(&first.idempotency, &first.org, Mode::Live).await;
    assert!(matches!(found, Some(Created::Replayed(call)) if call.id == first.id));
    assert!(matches!(before(&second.idempotency, &first.org, Mode::Live).await, Some(Created::KeyReused)));
    let other: OrgId = "org_00000000000000000000000004".parse().unwrap();
    assert!(before(&first.idempotency, &other, Mode::Live).await.is_none(), "of another organisation");
    assert!(
        before(&first.idempotency, &first.org, Mode::Test).await.is_none(),
        "a rehearsal is another request"
    );
    assert!(before(&promise("alert-2", 1), &first.org, Mode::Live).await.is_none());
}

pub(crate) async fn a_key_belongs_to_one_organisation(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.idempotency = promise("alert-1", 1);
    first.request.dedup_key = Some("disk full".to_owned());
    let mut other = f.again(&first, NOON);
    other.org = f.other_org().await;
    assert!(matches!(f.store.create_call(first).await.unwrap(), Created::New(_)));
    assert!(matches!(f.store.create_call(other).await.unwrap(), Created::New(_)));
}

pub(crate) async fn a_key_is_free_again_a_day_after_the_end(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.idempotency = promise("alert-1", 1);
    f.store.create_call(first.clone()).await.unwrap();
    let week_later = f.again(&first, NOON + Duration::days(7));
    let open = f.store.create_call(week_later).await.unwrap();
    assert!(matches!(open, Created::Replayed(_)), "kept for as long as the call is open");

    let ended_at = NOON + Duration::days(7);
    let end = f.end_call(&first.id, ended_at);
    let _ = f.store.end_call(end).await.unwrap();
    let before = f.again(&first, ended_at + IDEMPOTENCY_KEPT - Duration::microseconds(1));
    let Created::Replayed(call) = f.store.create_call(before).await.unwrap() else { panic!() };
    assert_eq!((call.id, call.ended_at), (first.id.clone(), Some(ended_at)));

    let mut after = f.again(&first, ended_at + IDEMPOTENCY_KEPT);
    after.idempotency = promise("alert-1", 2);
    assert!(matches!(f.store.create_call(after.clone()).await.unwrap(), Created::New(_)));
    let replay = f.again(&after, after.at);
    assert!(matches!(f.store.create_call(replay).await.unwrap(), Created::Replayed(c) if c.id == after.id));
}

pub(crate) async fn a_dedup_key_finds_the_open_call_and_no_ended_one(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.request.dedup_key = Some("disk full".to_owned());
    f.store.create_call(first.clone()).await.unwrap();
    let mut second = f.again(&first, NOON);
    second.idempotency = promise("alert-2", 1);
    let found = f.store.create_call(second.clone()).await.unwrap();
    assert!(matches!(found, Created::Deduplicated(call) if call.id == first.id));
    assert_eq!(f.count("SELECT count(*) FROM call").await, 1);

    let end = f.end_call(&first.id, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let repeat = f.again(&second, NOON);
    let replay = f.store.create_call(repeat).await.unwrap();
    assert!(
        matches!(replay, Created::Replayed(call) if call.id == first.id),
        "the key was promised that call"
    );
    let third = f.again(&first, NOON);
    assert!(matches!(f.store.create_call(third).await.unwrap(), Created::New(_)));
    assert_eq!(f.count("SELECT count(*) FROM idempotency WHERE expires_at IS NULL").await, 0);
}

pub(crate) async fn fifty_calls_with_one_dedup_key_make_one(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.request.dedup_key = Some("disk full".to_owned());
    let work = (0..50).map(|i| {
        let mut new = f.again(&first, NOON);
        new.idempotency = promise(&i.to_string(), 1);
        let store = f.store.clone();
        async move { matches!(store.create_call(new).await.unwrap(), Created::New(_)) }
    });
    let made = at_once(work.collect()).await;
    assert_eq!(made.into_iter().filter(|new| *new).count(), 1);
    assert_eq!(f.count("SELECT count(*) FROM idempotency").await, 50);
}

/// Of two organisations one accepts batches, the other the same calls one by one.
pub(crate) async fn calls_at_once_are_as_one_after_the_other(mut f: Fixture) {
    let orgs = [OrgId::first(), f.other_org().await];
    let keys: [[KeyId; 2]; 2] = [(); 2].map(|()| [(); 2].map(|()| KeyId::new(NOON, &mut f.rng)));
    let mut known: [Vec<CallId>; 2] = Default::default();
    let mut kinds = BTreeSet::new();
    for _ in 0..40 {
        let mut pairs = Vec::new();
        for _ in 0..f.rng.random_range(1..40) {
            pairs.push(some_call(&mut f, &orgs, &keys));
        }
        // Once in a while the same write comes twice.
        if f.rng.random_ratio(1, 4) {
            pairs.push(pairs[0].clone());
        }
        let (batch, alone): (Vec<_>, Vec<_>) = pairs.into_iter().map(<(NewCall, NewCall)>::from).unzip();
        known[0].extend(batch.iter().map(|new| new.id.clone()));
        known[1].extend(alone.iter().map(|new| new.id.clone()));
        let at_once = f.store.create_calls(batch.into()).await.unwrap();
        for (n, new) in alone.into_iter().enumerate() {
            let one = told(&f.store.create_call(new).await.unwrap(), &known[1]);
            assert_eq!(told(&at_once[n], &known[0]), one, "call {n} of its batch");
            kinds.insert(one.split(' ').next().unwrap().to_owned());
        }
        // Some end, so that there is room again.
        for (call, twin) in at_once.iter().filter_map(|created| opened(created, &known)) {
            if f.rng.random_ratio(1, 2) {
                for id in [&call, &twin] {
                    let end = f.end_call(id, NOON);
                    // One that was asked for twice has ended already.
                    let _: Written = f.store.end_call(end).await.unwrap();
                }
            }
        }
    }
    let all = [
        "Deduplicated",
        "Full(KeyDay)",
        "Full(Number)",
        "Full(Org)",
        "Full(OrgDay)",
        "KeyReused",
        "New",
        "Replayed",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all, "nothing was left untried");
    for what in [
        "count(*) FROM call",
        "count(*) FROM call_transition",
        "count(*) FROM outbox",
        "count(*) FROM idempotency",
        "CAST(sum(calls) AS bigint) FROM open_calls",
        "CAST(sum(calls) AS bigint) FROM org_usage",
    ] {
        let of = |org: &OrgId| format!("SELECT {what} WHERE org_id = '{org}'");
        assert_eq!(f.count(&of(&orgs[0])).await, f.count(&of(&orgs[1])).await, "{what}");
    }
    for (mine, theirs) in keys[0].iter().zip(&keys[1]) {
        let of =
            |key: &KeyId| format!("SELECT CAST(sum(calls) AS bigint) FROM key_usage WHERE key_id = '{key}'");
        assert_eq!(f.count(&of(mine)).await, f.count(&of(theirs)).await);
    }
}

/// A call of each organisation that differ in nothing else.
fn some_call(f: &mut Fixture, orgs: &[OrgId; 2], keys: &[[KeyId; 2]; 2]) -> [NewCall; 2] {
    let day = Duration::days(f.rng.random_range(0..2));
    let mut new = f.new_call(NOON + day);
    new.mode = if f.rng.random_ratio(1, 5) { Mode::Test } else { Mode::Live };
    new.request.to = format!("+4822123456{}", f.rng.random_range(0..5)).parse().unwrap();
    new.request.dedup_key = f.rng.random_ratio(1, 4).then(|| format!("down {}", f.rng.random_range(0..20)));
    if f.rng.random_ratio(1, 2) {
        let (key, body) = (f.rng.random_range(0..300), u8::from(f.rng.random_ratio(1, 5)));
        new.idempotency = promise(&format!("alert-{key}"), body);
    }
    new.open_max = OpenMax { org: f.rng.random_range(20..200), number: f.rng.random_range(10..60) };
    new.day_max = DayMax {
        org: f.rng.random_ratio(1, 3).then(|| f.rng.random_range(60..300)),
        key: f.rng.random_ratio(1, 2).then(|| f.rng.random_range(20..150)),
    };
    let asks = f.rng.random_range(0..3);
    let mut twin = f.again(&new, new.at);
    new.org = orgs[0].clone();
    twin.org = orgs[1].clone();
    for (new, keys) in [(&mut new, &keys[0]), (&mut twin, &keys[1])] {
        new.actor.key = keys.get(asks).cloned();
    }
    [new, twin]
}

/// What came of it, with its call's place among those that were asked for.
fn told(created: &Created, known: &[CallId]) -> String {
    let place = |call: &CallId| known.iter().position(|id| id == call);
    match created {
        Created::New(call) => format!("New {:?}", place(&call.id)),
        Created::Replayed(call) => format!("Replayed {:?} {}", place(&call.id), call.status.as_str()),
        Created::Deduplicated(call) => format!("Deduplicated {:?}", place(&call.id)),
        Created::KeyReused | Created::Full(_) => format!("{created:?}"),
    }
}

/// A call that was accepted, and the other organisation's.
fn opened(created: &Created, known: &[Vec<CallId>; 2]) -> Option<(CallId, CallId)> {
    let Created::New(call) = created else { return None };
    let place = known[0].iter().position(|id| *id == call.id)?;
    Some((call.id.clone(), known[1].get(place)?.clone()))
}

pub(crate) async fn the_idempotency_key_is_looked_at_before_the_dedup_key(mut f: Fixture) {
    let mut first = f.new_call(NOON);
    first.idempotency = promise("alert-1", 1);
    f.store.create_call(first.clone()).await.unwrap();
    let mut open = f.new_call(NOON);
    open.request.dedup_key = Some("disk full".to_owned());
    f.store.create_call(open.clone()).await.unwrap();
    // Its key was promised to the first call, its dedup_key names the second.
    let mut both = f.again(&open, NOON);
    both.idempotency = promise("alert-1", 1);
    let answer = f.store.create_call(both.clone()).await.unwrap();
    assert!(matches!(answer, Created::Replayed(call) if call.id == first.id));
    both.idempotency = promise("alert-1", 2);
    assert!(matches!(f.store.create_call(both).await.unwrap(), Created::KeyReused));
}

pub(crate) async fn the_same_write_twice_is_one_call(mut f: Fixture) {
    let new = f.new_call(NOON);
    for _ in 0..2 {
        let created = f.store.create_call(new.clone()).await.unwrap();
        assert!(matches!(created, Created::New(call) if call.id == new.id));
    }
    assert_eq!(f.log(&new.id).await.len(), 1);
}

pub(crate) async fn a_call_leaves_one_row_of_each(mut f: Fixture) {
    let actor = Actor { key: Some(KeyId::new(NOON, &mut f.rng)), ..system() };
    let mut new = NewCall { actor: actor.clone(), idempotency: promise("alert-1", 1), ..f.new_call(NOON) };
    new.request.dedup_key = Some("disk full".to_owned());
    let rows = [
        format!(
            "call WHERE id = '{}' AND mode = 'live' AND dedup_key = 'disk full' AND sequence = 1",
            new.id
        ),
        format!("idempotency WHERE call_id = '{}' AND key = 'alert-1' AND expires_at IS NULL", new.id),
        format!(
            "call_transition WHERE id = '{}' AND call_id = '{}' AND status = 'queued'",
            new.event_id, new.id
        ),
        format!("outbox WHERE id = '{}' AND call_id = '{}' AND kind = 'call.queued'", new.event_id, new.id),
        format!(
            "audit_log WHERE id = '{}' AND target_id = '{}' AND outcome = 'success'",
            new.audit_id, new.id
        ),
        "audit_log WHERE auth_method = 'api_key' AND target_type = 'call' AND hash IS NULL".to_owned(),
        "key_usage WHERE calls = 1".to_owned(),
        "org_usage WHERE calls = 1".to_owned(),
        "open_calls WHERE calls = 1".to_owned(),
    ];
    assert!(matches!(f.store.create_call(new.clone()).await.unwrap(), Created::New(_)));
    // The same write again, with a key and without, adds nothing.
    assert!(matches!(f.store.create_call(new.clone()).await.unwrap(), Created::Replayed(_)));
    let again = NewCall { idempotency: None, ..new };
    assert!(matches!(f.store.create_call(again).await.unwrap(), Created::Deduplicated(_)));
    for of in rows {
        assert_eq!(f.count(&format!("SELECT count(*) FROM {of}")).await, 1, "{of}");
    }
    // A rehearsal counts among nobody's calls of the day, and what nobody promised is not remembered.
    let test = NewCall { actor, mode: Mode::Test, ..f.new_call(NOON) };
    for _ in 0..2 {
        assert!(matches!(f.store.create_call(test.clone()).await.unwrap(), Created::New(_)));
    }
    assert_eq!(f.count("SELECT CAST(sum(calls) AS bigint) FROM key_usage").await, 1);
    assert_eq!(f.count("SELECT count(*) FROM idempotency").await, 1);
    assert_eq!(f.count("SELECT count(*) FROM outbox").await, 2);
}

pub(crate) async fn a_refused_write_leaves_nothing(mut f: Fixture) {
    let mut stranger = f.new_call(NOON);
    stranger.org = OrgId::new(NOON, &mut f.rng);
    stranger.idempotency = promise("alert-1", 1);
    assert!(f.store.create_call(stranger).await.is_err(), "there is no such organisation");
    // The event's id is taken: the last statements fail, the first must go with them.
    let taken = f.new_call(NOON);
    f.store.create_call(taken.clone()).await.unwrap();
    let mut half = f.new_call(NOON);
    half.idempotency = promise("alert-2", 1);
    half.event_id = taken.event_id;
    assert!(f.store.create_call(half).await.is_err());
    for table in ["call", "call_transition", "outbox", "audit_log"] {
        assert_eq!(f.count(&format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
    assert_eq!(f.count("SELECT count(*) FROM idempotency").await, 0);
}

/// What came of a call that may be one of so many.
async fn bounded(f: &Fixture, new: NewCall, org: u32, number: u32) -> Result<Created, Full> {
    let new = NewCall { open_max: OpenMax { org, number }, ..new };
    match f.store.create_call(new).await.unwrap() {
        Created::Full(full) => Err(full),
        created
        @ (Created::New(_) | Created::Replayed(_) | Created::KeyReused | Created::Deduplicated(_)) => {
            Ok(created)
        }
    }
}

fn to(mut new: NewCall, number: &str) -> NewCall {
    new.request.to = number.parse().unwrap();
    new
}

pub(crate) async fn an_organisation_has_so_many_open_calls(mut f: Fixture) {
    let (first, second, third) = (f.new_call(NOON), f.new_call(NOON), f.new_call(NOON));
    let other = f.other_org().await;
    assert!(bounded(&f, first.clone(), 2, 9).await.is_ok());
    assert!(bounded(&f, second, 2, 9).await.is_ok());
    assert_eq!(bounded(&f, third.clone(), 2, 9).await.unwrap_err(), Full::Org);
    assert_eq!(f.count("SELECT count(*) FROM audit_log").await, 2, "nothing was written of it");
    let foreign = NewCall { org: other, ..f.new_call(NOON) };
    assert!(bounded(&f, foreign, 2, 9).await.is_ok(), "each has its own");
    // The same write again is no other call.
    assert!(matches!(bounded(&f, first.clone(), 2, 9).await, Ok(Created::New(call)) if call.id == first.id));
    let end = f.end_call(&first.id, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    assert!(matches!(bounded(&f, third.clone(), 2, 9).await, Ok(Created::New(call)) if call.id == third.id));
}

pub(crate) async fn a_number_has_so_many_open_calls(mut f: Fixture) {
    let first = NewCall { idempotency: promise("alert-1", 1), ..f.new_call(NOON) };
    let mut second = f.new_call(NOON);
    second.request.dedup_key = Some("disk full".to_owned());
    assert!(bounded(&f, first.clone(), 9, 2).await.is_ok());
    assert!(bounded(&f, second.clone(), 9, 2).await.is_ok());
    let third = f.new_call(NOON);
    assert_eq!(bounded(&f, third.clone(), 9, 2).await.unwrap_err(), Full::Number);
    assert!(bounded(&f, to(third, "+48221234568"), 9, 2).await.is_ok(), "another number");
    // What is no new call is answered as ever.
    let (again, same) = (f.again(&first, NOON), f.again(&second, NOON));
    assert!(matches!(bounded(&f, again, 9, 2).await, Ok(Created::Replayed(_))));
    assert!(matches!(bounded(&f, same, 9, 2).await, Ok(Created::Deduplicated(_))));
}

pub(crate) async fn fifty_at_the_bound_never_exceed_it(mut f: Fixture) {
    for (org, number, open) in [(30, 99, 30), (99, 60, 60)] {
        let work = (0..50).map(|_| {
            let new = NewCall { open_max: OpenMax { org, number }, ..f.new_call(NOON) };
            let store = f.store.clone();
            async move { matches!(store.create_call(new).await.unwrap(), Created::New(_)) }
        });
        let made = at_once(work.collect()).await;
        assert_eq!(made.into_iter().filter(|made| *made).count(), 30);
        assert_eq!(f.count("SELECT count(*) FROM call WHERE ended_at IS NULL").await, open);
    }
}

/// Of one organisation and one key: accepted, with keys that are equal to others', while others are dialled, talk and end. What they
/// count and remember is locked in one order.
pub(crate) async fn calls_that_are_accepted_wait_in_no_circle_with_calls_that_end(mut f: Fixture) {
    f.one_shard().await;
    let key = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let actor = Actor { key: Some(key.id), ..system() };
    let mut lives: [Vec<_>; 24] = Default::default();
    for n in 0..600_i64 {
        // Two days on, a key of an ended call is free again, and its row is taken by another.
        let at = NOON + Duration::days(2 * (n / 150));
        let mut new = NewCall { actor: actor.clone(), ..f.new_call(at) };
        new.idempotency = (n % 3 == 0).then(|| promise(&format!("alert-{}", n % 7), 1)).flatten();
        new.request.dedup_key = (n % 5 == 0).then(|| format!("disk {}", n % 4));
        let begin = BeginAttempt { at, ..f.begin(&new.id) };
        let of = (new.id.clone(), begin.attempt.clone());
        let talks = Advance { at, ..f.advance(&of, AttemptStatus::InProgress, Rang::Yes, 0) };
        let ends = EndAttempt { at: at + Duration::seconds(9), ..f.end_attempt(&of, Some(failed())) };
        let end = f.end_call(&new.id, at);
        let store = f.store.clone();
        lives[n as usize % 24].push(async move {
            let Created::New(_) = store.create_call(new).await.unwrap() else { return };
            if n % 2 == 0 {
                let _ = store.end_call(end).await.unwrap();
                return;
            }
            assert!(matches!(store.begin_attempt(begin).await.unwrap(), Begun::Yes { .. }));
            let _ = store.advance(talks).await.unwrap();
            let _ = store.end_attempt(ends).await.unwrap();
        });
    }
    // One life after the other: some begin while others end.
    let work = lives.into_iter().map(|lives| async {
        for life in lives {
            life.await;
        }
    });
    at_once(work.collect()).await;
    assert_eq!(f.count("SELECT count(*) FROM call WHERE ended_at IS NULL").await, 0);
    assert_eq!(f.count("SELECT CAST(sum(calls) AS bigint) FROM open_calls").await, 0);
    for of in ["org_usage", "key_usage"] {
        let counted = format!("SELECT CAST(sum(calls) AS bigint) - (SELECT count(*) FROM call) FROM {of}");
        assert_eq!(f.count(&counted).await, 0, "{of}");
    }
    assert_eq!(f.deadlocks().await, 0);
}
