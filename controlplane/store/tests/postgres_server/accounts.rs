//! Accounts of carriers that replicas share.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    call::{AttemptStatus, Rang},
    ending::{EndingClass, Talk},
    ids::{AttemptId, CallId, EventId, ReplicaId},
};
use controlplane_store::{
    CallStore as _, ReplicaStore as _, StoreError,
    calls::{Account, Begun, Created, EndAttempt, Follows, Written},
    postgres::PostgresStore,
    replicas::{Held, Renewal},
};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::OffsetDateTime;

use crate::{
    SOON, begin, database,
    sets::{advance, end},
    write,
};

/// Of the attempts that queue for an account when their replicas stand still, the first alone keeps it, for a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_stands_still_keeps_an_account_for_a_second() {
    const QUEUE: usize = 4;
    const STILL: Duration = Duration::from_secs(8);
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(8);
    let account = Account { cps_max: Some(100), channels_max: Some(100) };
    let live = PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap();
    let mut begins = Vec::new();
    for _ in 0..=QUEUE {
        let Created::New(call) = write(&live, rng).await.unwrap() else { panic!("it is new") };
        begins.push((ReplicaId::new(rng), begin(call.id, Some(account), rng)));
    }
    let (_, own) = begins.pop().unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut raw).await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(5, hashtext('acme'))").execute(&mut raw).await.unwrap();
    let (stand_still, told) = std::sync::mpsc::channel::<()>();
    let its_url = url.clone();
    let frozen = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // What one replica tells is in one queue: these are several that stand still together.
            for (id, begin) in begins {
                let store = PostgresStore::open_shared(&its_url, id).await.unwrap();
                // Whatever comes of it: it stands still meanwhile.
                tokio::spawn(async move { store.begin_attempt(begin).await.ok() });
            }
            while told.try_recv().is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            std::thread::sleep(STILL);
        });
    });
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 5 AND NOT granted";
    let mut watch = PgConnection::connect(&url).await.unwrap();
    let late = tokio::time::Instant::now() + SOON;
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watch).await.unwrap() < QUEUE as i64 {
        assert!(tokio::time::Instant::now() < late, "they do not queue");
    }
    stand_still.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    sqlx::query("COMMIT").execute(&mut raw).await.unwrap();
    let freed = tokio::time::Instant::now();
    loop {
        match live.begin_attempt(own.clone()).await {
            Ok(Begun::Yes { .. }) => break,
            Err(StoreError::Unavailable { .. }) => {
                assert!(freed.elapsed() < STILL, "the account is never free");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(freed.elapsed() < Duration::from_millis(2_500), "after {:?}", freed.elapsed());
    frozen.join().unwrap();
}

/// Twenty attempts of three replicas at once over one account: never more than it may have, and each is let through in its turn.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_replicas_share_has_no_more_than_it_may() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(6);
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap()));
    }
    let account = Account { cps_max: Some(5), channels_max: Some(8) };
    let begin = |call: CallId, rng: &mut StdRng| begin(call, Some(account), rng);
    let mut tasks = Vec::new();
    for n in 0..20 {
        let store = Arc::clone(&stores[n % 3]);
        let Created::New(call) = write(&store, rng).await.unwrap() else { panic!("it is new") };
        let begin = begin(call.id, rng);
        tasks.push(tokio::spawn(async move { (begin.clone(), store.begin_attempt(begin).await.unwrap()) }));
    }
    let (mut begun, mut waiting) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (begin, Begun::Yes { .. }) => begun.push(begin),
            (begin, Begun::Full { wait: Some(wait), ago }) => {
                assert!(wait <= Duration::from_secs(1), "{wait:?}");
                // None is known to have left.
                assert_eq!((ago, wait), (vec![Duration::ZERO; 5], Duration::from_secs(1)));
                waiting.push(begin);
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(begun.len(), 5);
    let mut ask = async |store: usize| {
        let begin = waiting.pop().unwrap();
        let answer = stores[store].begin_attempt(begin.clone()).await.unwrap();
        (begin, answer)
    };
    // While they have not left, nobody knows when the carrier sees them.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(matches!(ask(1).await, (_, Begun::Full { wait: Some(_), .. })));
    for (n, begun) in begun.iter().enumerate() {
        let news = advance(begun, AttemptStatus::Initiated, Rang::Maybe, rng);
        assert!(matches!(stores[n % 3].advance(news).await.unwrap(), Written::Yes { .. }));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let Begun::Full { wait: Some(wait), ago } = ask(2).await.1 else { panic!("they have just left") };
    // The first of the five that left is what is waited for.
    assert!(ago.len() == 5 && ago.is_sorted() && !ago[0].is_zero(), "{ago:?}");
    assert_eq!(ago[4] + wait, Duration::from_secs(1));
    // A second after they left three more have a channel, and the next one waits for an end.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for n in 0..3 {
        assert!(matches!(ask(n).await, (_, Begun::Yes { .. })));
    }
    assert!(matches!(ask(0).await.1, Begun::Full { wait: None, .. }));
    let over = begun.pop().unwrap();
    let end = EndAttempt {
        call: over.call,
        epoch: 0,
        attempt: over.attempt,
        ending: EndingClass::Congestion,
        sip_code: None,
        q850: None,
        rang: Rang::No,
        talk: Talk::NONE,
        at: OffsetDateTime::UNIX_EPOCH,
        follows: Follows::Attempt,
        event_id: EventId::new(OffsetDateTime::UNIX_EPOCH, rng),
    };
    let _ = stores[1].end_attempt(end).await.unwrap();
    assert!(matches!(ask(2).await, (_, Begun::Yes { .. })));
    assert!(matches!(ask(1).await.1, Begun::Full { wait: None, .. }));
}

/// A start of which nobody tells any more does not count for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_news_counts_for_three_seconds() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(9);
    let store = PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap();
    let account = Account { cps_max: Some(1), channels_max: None };
    let mut answers = Vec::new();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    for passed in ["0 s", "2 s", "2 s"] {
        let Created::New(call) = write(&store, rng).await.unwrap() else { panic!("it is new") };
        let passes = format!("UPDATE carrier_start SET at = at - interval '{passed}'");
        sqlx::query(AssertSqlSafe(passes)).execute(&mut raw).await.unwrap();
        let begun = store.begin_attempt(begin(call.id, Some(account), rng)).await.unwrap();
        answers.push(matches!(begun, Begun::Yes { .. }));
    }
    assert_eq!(answers, [true, false, true]);
}

/// A canary has a place as an attempt has, once, and one whose replica is dead for a minute has none.
#[tokio::test(flavor = "multi_thread")]
async fn canaries_hold_places_on_an_account_that_replicas_share() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(7);
    let (first, second) = (ReplicaId::new(rng), ReplicaId::new(rng));
    let (one, other) = (
        PostgresStore::open_shared(&url, first.clone()).await.unwrap(),
        PostgresStore::open_shared(&url, second.clone()).await.unwrap(),
    );
    for (store, replica) in [(&one, &first), (&other, &second)] {
        let (name, secrets, lease) =
            ("cp".to_owned(), std::collections::BTreeMap::new(), Duration::from_secs(2));
        store.renew_replica(Renewal { replica: replica.clone(), name, secrets, lease }).await.unwrap();
    }
    let account = Account { cps_max: None, channels_max: Some(2) };
    let carrier = "acme".parse().unwrap();
    let canaries: Vec<AttemptId> = (0..4).map(|_| AttemptId::new(rng)).collect();
    assert_eq!(one.hold_account(&canaries[0], &carrier, account).await.unwrap(), Held::Yes);
    assert_eq!(other.hold_account(&canaries[1], &carrier, account).await.unwrap(), Held::Yes);
    let is_full = |held: Held| matches!(held, Held::Full { wait: None, .. });
    assert!(is_full(other.hold_account(&canaries[2], &carrier, account).await.unwrap()));
    // Who did not hold it frees nothing.
    other.free_account(&canaries[0]).await.unwrap();
    assert!(is_full(other.hold_account(&canaries[2], &carrier, account).await.unwrap()));
    one.free_account(&canaries[0]).await.unwrap();
    one.free_account(&canaries[0]).await.unwrap();
    assert_eq!(one.hold_account(&canaries[2], &carrier, account).await.unwrap(), Held::Yes);
    // The second one is dead, and its canary may ring on for a while.
    let mut raw = PgConnection::connect(&url).await.unwrap();
    for (ago, is_held) in [("50 seconds", false), ("70 seconds", true)] {
        let dead = format!("UPDATE replica SET expires_at = now() - interval '{ago}' WHERE id = '{second}'");
        sqlx::query(AssertSqlSafe(dead)).execute(&mut raw).await.unwrap();
        let held = one.hold_account(&canaries[3], &carrier, account).await.unwrap();
        assert_eq!(is_full(held), !is_held, "{ago}");
    }
    let paced = Account { cps_max: Some(1), channels_max: None };
    let Held::Full { wait: Some(wait), .. } =
        one.hold_account(&AttemptId::new(rng), &carrier, paced).await.unwrap()
    else {
        panic!("a canary is a start");
    };
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
}

/// What was not sent gives its start back, and what is known too late to have ended does not count again.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_not_sent_or_is_long_over_is_free_at_its_end() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(10);
    let store = PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap();
    let account = Account { cps_max: Some(1), channels_max: None };
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let mut answers = Vec::new();
    for (ending, passed) in
        [(EndingClass::NotSent, "0 s"), (EndingClass::Unknown, "4 s"), (EndingClass::Unknown, "0 s")]
    {
        let Created::New(call) = write(&store, rng).await.unwrap() else { panic!("it is new") };
        let of = begin(call.id, Some(account), rng);
        let begun = store.begin_attempt(of.clone()).await.unwrap();
        answers.push(matches!(begun, Begun::Yes { .. }));
        let passes = format!("UPDATE carrier_start SET at = at - interval '{passed}'");
        sqlx::query(AssertSqlSafe(passes)).execute(&mut raw).await.unwrap();
        let end = EndAttempt { ending, follows: Follows::Attempt, ..end(&of, of.at, rng) };
        assert!(matches!(store.end_attempt(end).await.unwrap(), Written::Yes { .. }));
    }
    let Created::New(call) = write(&store, rng).await.unwrap() else { panic!("it is new") };
    let last = store.begin_attempt(begin(call.id, Some(account), rng)).await.unwrap();
    assert!(matches!(last, Begun::Full { wait: Some(_), .. }), "{last:?}");
    assert_eq!(answers, [true; 3]);
}
