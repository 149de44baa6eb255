//! Sets of news: of several replicas, and beside what waits.

use std::{future::Future, sync::Arc, time::Duration};

use controlplane_core::{
    call::{AttemptStatus, Outcome, Rang, Reason},
    ending::{EndingClass, Talk},
    ids::{EventId, OrgId, ReplicaId},
};
use controlplane_store::{
    CallStore as _, EventStore as _, StoreError,
    calls::{Account, Advance, BeginAttempt, Begun, CallEnd, Created, EndAttempt, Follows, Written},
    postgres::PostgresStore,
};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::Instant};

use crate::{begin, database, write};

/// That so many attempts began, each of a call of its own.
async fn begun(store: &PostgresStore, count: usize, rng: &mut StdRng) -> Vec<BeginAttempt> {
    let mut begins = Vec::new();
    for _ in 0..count {
        let Created::New(call) = write(store, rng).await.unwrap() else { panic!("it is new") };
        let begin = begin(call.id, None, rng);
        assert_eq!(store.begin_attempt(begin.clone()).await.unwrap(), Begun::Yes { sequence: 2 });
        begins.push(begin);
    }
    begins
}

pub(crate) fn advance(of: &BeginAttempt, status: AttemptStatus, rang: Rang, rng: &mut StdRng) -> Advance {
    let (call, attempt) = (of.call.clone(), of.attempt.clone());
    Advance { call, epoch: 0, attempt, status, rang, at: of.at, event_id: EventId::new(of.at, rng) }
}

pub(crate) fn end(of: &BeginAttempt, at: OffsetDateTime, rng: &mut StdRng) -> EndAttempt {
    EndAttempt {
        call: of.call.clone(),
        epoch: 0,
        attempt: of.attempt.clone(),
        ending: EndingClass::Answered,
        sip_code: None,
        q850: None,
        rang: Rang::Yes,
        talk: Talk::NONE,
        at,
        follows: Follows::End(CallEnd { reason: Reason::Played, outcome: Outcome::Answered }),
        event_id: EventId::new(at, rng),
    }
}

/// Tells all of these at once.
fn tells<N, T, F>(
    store: &Arc<PostgresStore>,
    news: Vec<N>,
    tell: fn(Arc<PostgresStore>, N) -> F,
) -> Vec<JoinHandle<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    news.into_iter().map(|news| tokio::spawn(tell(Arc::clone(store), news))).collect()
}

/// Of two replicas, one of which was late: they tell of the same calls, the one forwards and the other backwards, and all count in the
/// same rows. None waits for one that waits for it, and each call ends once.
#[tokio::test(flavor = "multi_thread")]
async fn sets_of_the_same_calls_in_another_order_wait_in_no_circle() {
    const CALLS: usize = 64;
    const ROUNDS: usize = 12;
    let url = database().await;
    let mut raw = PgConnection::connect(&url).await.unwrap();
    // Sooner than a lock is given up.
    let (_, name) = url.rsplit_once('/').unwrap();
    let soon = format!("ALTER DATABASE {name} SET deadlock_timeout = '20ms'");
    sqlx::query(AssertSqlSafe(soon)).execute(&mut raw).await.unwrap();
    let rng = &mut StdRng::seed_from_u64(21);
    let one = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let other = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let shard = "CREATE FUNCTION one_shard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.shard := 0; RETURN NEW; END $$;
        CREATE TRIGGER one_shard BEFORE INSERT ON open_calls FOR EACH ROW EXECUTE FUNCTION one_shard();
        CREATE TRIGGER one_shard BEFORE INSERT ON org_usage FOR EACH ROW EXECUTE FUNCTION one_shard()";
    sqlx::raw_sql(shard).execute(&mut raw).await.unwrap();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let of = begun(&one, CALLS, rng).await;
        for (status, rang) in [
            (AttemptStatus::Initiated, Rang::Maybe),
            (AttemptStatus::Initiated, Rang::Yes),
            (AttemptStatus::InProgress, Rang::Yes),
        ] {
            let news: Vec<_> = of.iter().map(|of| advance(of, status, rang, rng)).collect();
            let backwards = of.iter().rev().map(|of| advance(of, status, rang, rng)).collect();
            let tell = |store: Arc<PostgresStore>, news| async move { store.advance(news).await.unwrap() };
            let told: Vec<_> =
                tells(&one, news, tell).into_iter().chain(tells(&other, backwards, tell)).collect();
            for told in told {
                assert!(matches!(told.await.unwrap(), Written::Yes { .. }));
            }
        }
        // Talks of two days.
        let at = |n: usize, of: &BeginAttempt| {
            of.at + time::Duration::new(9 + 86_400 * i64::from(n.is_multiple_of(2)), 0)
        };
        let ends: Vec<_> = of.iter().enumerate().map(|(n, of)| end(of, at(n, of), rng)).collect();
        let backwards: Vec<_> = of.iter().enumerate().rev().map(|(n, of)| end(of, at(n, of), rng)).collect();
        let tell = |store: Arc<PostgresStore>, end| async move { store.end_attempt(end).await.unwrap() };
        let (ends, backwards) = (tells(&one, ends, tell), tells(&other, backwards, tell));
        for (first, second) in ends.into_iter().zip(backwards.into_iter().rev()) {
            let (first, second) = (first.await.unwrap(), second.await.unwrap());
            let once = [(true, false), (false, true)]
                .contains(&(first == Written::Yes { sequence: 4 }, second == Written::Yes { sequence: 4 }));
            assert!(once, "{first:?}, {second:?}");
        }
    }
    println!("{:?}", began.elapsed());
    drop((one, other));
    // A session tells of it for certain when it ends.
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'ringward'";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut raw).await.unwrap() > 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "a session is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sqlx::query_scalar::<_, i64>(deadlocks).fetch_one(&mut raw).await.unwrap(), 0);
    for (count, expected) in [
        ("SELECT sum(calls)::bigint FROM open_calls", 0),
        ("SELECT sum(attempts)::bigint FROM org_usage", (ROUNDS * CALLS) as i64),
        ("SELECT count(*) FROM call_transition WHERE reason IS NOT NULL", (ROUNDS * CALLS) as i64),
        ("SELECT count(*) FROM outbox", (4 * ROUNDS * CALLS) as i64),
    ] {
        assert_eq!(
            sqlx::query_scalar::<_, i64>(count).fetch_one(&mut raw).await.unwrap(),
            expected,
            "{count}"
        );
    }
}

/// A call whose row is locked for long keeps its own news from being written, and those that it shares a set with for as long as a lock
/// is waited for; all other news are written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_waits_for_a_row_holds_up_no_other() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(22);
    let store = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let of = begun(&store, 60, rng).await;
    let (locked, free) = of.split_at(4);
    let mut raw = PgConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut raw).await.unwrap();
    for locked in locked {
        let lock = "SELECT 1 FROM call WHERE id = $1 FOR UPDATE";
        sqlx::query(lock).bind(locked.call.as_str()).execute(&mut raw).await.unwrap();
    }
    let tell = |store: Arc<PostgresStore>, news| async move { store.advance(news).await };
    let mut waiting = Vec::new();
    for of in locked {
        // Apart from each other, so that each waits in a set of its own.
        waiting.extend(tells(&store, vec![advance(of, AttemptStatus::Initiated, Rang::Maybe, rng)], tell));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let began = Instant::now();
    let news: Vec<_> = free.iter().map(|of| advance(of, AttemptStatus::Ringing, Rang::Yes, rng)).collect();
    for told in tells(&store, news, tell) {
        assert_eq!(told.await.unwrap().unwrap(), Written::Yes { sequence: 3 });
    }
    println!("the others were written after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_millis(700),
        "{:?}: as long as a lock is waited for",
        began.elapsed()
    );
    for told in waiting {
        // Worth another try.
        assert!(matches!(told.await.unwrap(), Err(StoreError::Unavailable { .. })));
    }
    sqlx::query("ROLLBACK").execute(&mut raw).await.unwrap();
    for of in locked {
        let news = advance(of, AttemptStatus::Ringing, Rang::Yes, rng);
        assert_eq!(store.advance(news).await.unwrap(), Written::Yes { sequence: 3 });
    }
}

/// Attempts over an account that another replica counts wait together, with one connection, and not each with one that others lack.
/// Those over another account begin meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_over_one_account_wait_for_it_together() {
    const CALLS: usize = 40;
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(24);
    let store = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let account = Account { cps_max: Some(100), channels_max: Some(100) };
    let mut begins = Vec::new();
    for n in 0..CALLS + 1 {
        let Created::New(call) = write(&store, rng).await.unwrap() else { panic!("it is new") };
        let carrier = if n < CALLS { "acme" } else { "other" }.parse().unwrap();
        begins.push(BeginAttempt { carrier, ..begin(call.id, Some(account), rng) });
    }
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let mut watch = PgConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut raw).await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(5, hashtext('acme'))").execute(&mut raw).await.unwrap();
    let tell = |store: Arc<PostgresStore>, begin| async move { store.begin_attempt(begin).await };
    let free = begins.split_off(CALLS);
    let mut told = Vec::new();
    for begin in begins {
        // Slower than sets are gathered: most find the first ones waiting.
        tokio::time::sleep(Duration::from_millis(5)).await;
        told.extend(tells(&store, vec![begin], tell));
    }
    for other in tells(&store, free, tell) {
        assert_eq!(other.await.unwrap().unwrap(), Begun::Yes { sequence: 2 });
    }
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 5 AND NOT granted";
    assert_eq!(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watch).await.unwrap(), 1);
    let before = *store.written().borrow();
    sqlx::query("COMMIT").execute(&mut raw).await.unwrap();
    for told in told {
        assert_eq!(told.await.unwrap().unwrap(), Begun::Yes { sequence: 2 });
    }
    let transactions = *store.written().borrow() - before;
    println!("{CALLS} began in {transactions} transactions");
    assert!(transactions <= 6, "{transactions}");
}

/// What the server refuses of a set is refused alone, and the rest is written: one by one, since the set is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_the_server_refuses_is_tried_one_by_one() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(23);
    let store = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let of = begun(&store, 32, rng).await;
    let mut ends: Vec<_> = of.iter().map(|of| end(of, of.at, rng)).collect();
    ends[17].sip_code = Some(1_000);
    let before = *store.written().borrow();
    let told = tells(&store, ends, |store, end| async move { store.end_attempt(end).await });
    for (n, told) in told.into_iter().enumerate() {
        let told = told.await.unwrap();
        let as_told = if n == 17 {
            matches!(told, Err(StoreError::Corrupt { .. }))
        } else {
            matches!(told, Ok(Written::Yes { sequence: 3 }))
        };
        assert!(as_told, "{n}: {told:?}");
    }
    let transactions = *store.written().borrow() - before;
    println!("31 of 32 in {transactions} transactions");
    // They rest for company, so that nearly all of them were in one set with the bad one.
    assert!(transactions > 16, "{transactions}");
    let open = store.call(&OrgId::first(), &of[17].call).await.unwrap().unwrap();
    assert_eq!((open.ended_at, open.sequence), (None, 2));
}
