//! A store of its own for each test, raw access beside the ports, and the things that tests write.

use std::sync::Arc;

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, Outcome, Rang, Reason},
    ending::{EndingClass, Talk},
    ids::{AttemptId, AuditId, CallId, EventId, KeyId, OrgId},
    request::{CallRequest, KeyAction},
    throttle::Throttle,
};
use controlplane_store::{
    Store,
    calls::{
        Actor, Advance, BeginAttempt, Begun, Call, CallEnd, CancelRequested, Created, DayMax, EndAttempt,
        EndCall, Follows, Hear, Idempotency, NewCall, OpenMax, RedialCall, RequestCancel, Transition,
    },
    keys::Key,
};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use time::{Duration, OffsetDateTime, macros::datetime};

pub(crate) const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

enum Raw {
    Sqlite(SqlitePool),
    #[cfg_attr(not(feature = "postgres-tests"), allow(dead_code, reason = "only PostgreSQL makes it"))]
    Postgres(PgPool),
}

pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rng: StdRng,
    raw: Raw,
    _folder: tempfile::TempDir,
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let store = controlplane_store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let raw = SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        Self { store, rng: StdRng::seed_from_u64(7), raw: Raw::Sqlite(raw), _folder: folder }
    }

    /// A database of its own, made by the test.
    #[cfg(feature = "postgres-tests")]
    pub(crate) async fn postgres() -> Self {
        use rand::TryRngCore;
        let server = std::env::var("RINGWARD_TEST_POSTGRES_URL")
            .expect("RINGWARD_TEST_POSTGRES_URL, as in postgres://postgres@127.0.0.1:54329/postgres");
        let (address, _) = server.rsplit_once('/').unwrap();
        let name = format!("ringward_test_{:016x}", rand::rngs::OsRng.try_next_u64().unwrap());
        let admin = PgPool::connect(&server).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
        admin.close().await;
        let url = format!("{address}/{name}");
        let store = controlplane_store::open(&url).await.unwrap();
        let raw = Raw::Postgres(PgPool::connect(&url).await.unwrap());
        Self { store, rng: StdRng::seed_from_u64(7), raw, _folder: tempfile::tempdir().unwrap() }
    }

    /// One number from the database itself.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::Sqlite(pool) => sqlx::query_scalar(sql).fetch_one(pool).await,
            Raw::Postgres(pool) => sqlx::query_scalar(sql).fetch_one(pool).await,
        }
        .unwrap()
    }

    /// Something that no port does.
    pub(crate) async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.raw {
            Raw::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
            Raw::Postgres(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        }
    }

    /// All sessions count in the same rows, as two do whose processes have numbers 64 apart. SQLite has one writer.
    pub(crate) async fn one_shard(&self) {
        let Raw::Postgres(pool) = &self.raw else { return };
        let function = "CREATE FUNCTION one_shard() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.shard := 0; RETURN NEW; END $$";
        sqlx::query(function).execute(pool).await.unwrap();
        for table in ["open_calls", "org_usage", "key_usage"] {
            let trigger = format!(
                "CREATE TRIGGER one_shard BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION one_shard()"
            );
            sqlx::query(AssertSqlSafe(trigger)).execute(pool).await.unwrap();
        }
    }

    /// How often the server has ended a circle of transactions that waited for each other. A session tells of it for
    /// certain when it ends: the store is closed.
    pub(crate) async fn deadlocks(self) -> i64 {
        let Raw::Postgres(pool) = self.raw else { return 0 };
        drop(self.store);
        let sessions = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'ringward'";
        while sqlx::query_scalar::<_, i64>(sessions).fetch_one(&pool).await.unwrap() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        sqlx::query_scalar(deadlocks).fetch_one(&pool).await.unwrap()
    }

    /// Whose SQL it speaks.
    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.raw, Raw::Postgres(_))
    }

    /// A moment as the database writes it.
    pub(crate) fn moment(&self, at: OffsetDateTime) -> String {
        let micros = at.unix_timestamp_nanos() / 1_000;
        match &self.raw {
            Raw::Sqlite(_) => micros.to_string(),
            Raw::Postgres(_) => format!("('epoch'::timestamptz + interval '{micros} microseconds')"),
        }
    }

    /// A second organisation.
    pub(crate) async fn other_org(&mut self) -> OrgId {
        let org = OrgId::new(NOON, &mut self.rng);
        let at = self.moment(NOON);
        let values = format!("('{org}', 'other', 'Other', {at})");
        self.execute(&format!("INSERT INTO org (org_id, slug, name, created_at) VALUES {values}"))
            .await
            .unwrap();
        org
    }

    pub(crate) fn new_call(&mut self, at: OffsetDateTime) -> NewCall {
        NewCall {
            id: CallId::new(at, &mut self.rng),
            org: OrgId::first(),
            mode: Mode::Live,
            request: request(),
            at,
            deadline_at: at + Duration::minutes(5),
            open_max: OpenMax { org: 50_000, number: 50_000 },
            day_max: DayMax::default(),
            idempotency: None,
            actor: system(),
            audit_id: AuditId::new(at, &mut self.rng),
            event_id: self.event(),
            trace: None,
        }
    }

    /// The same request once more, as another HTTP request: other ids.
    pub(crate) fn again(&mut self, new: &NewCall, at: OffsetDateTime) -> NewCall {
        let fresh = self.new_call(at);
        NewCall { id: fresh.id, audit_id: fresh.audit_id, event_id: fresh.event_id, at, ..new.clone() }
    }

    pub(crate) async fn accepted(&mut self, at: OffsetDateTime) -> CallId {
        let new = self.new_call(at);
        let id = new.id.clone();
        assert!(matches!(self.store.create_call(new).await.unwrap(), Created::New(_)));
        id
    }

    /// A call that waits for long.
    pub(crate) async fn long(&mut self, deadline_at: OffsetDateTime) -> CallId {
        let new = NewCall { deadline_at, ..self.new_call(NOON) };
        let id = new.id.clone();
        assert!(matches!(self.store.create_call(new).await.unwrap(), Created::New(_)));
        id
    }

    /// A call with its first attempt under way.
    pub(crate) async fn sending(&mut self) -> (CallId, AttemptId) {
        let call = self.accepted(NOON).await;
        let begin = self.begin(&call);
        let attempt = begin.attempt.clone();
        assert_eq!(self.store.begin_attempt(begin).await.unwrap(), Begun::Yes { sequence: 2 });
        (call, attempt)
    }

    /// Asks that a call ends.
    pub(crate) async fn cancel(&mut self, call: &CallId) {
        let (org, audit_id) = (OrgId::first(), self.audit_id());
        let wish = RequestCancel { org, call: call.clone(), at: NOON, actor: system(), audit_id };
        let answer = self.store.request_cancel(wish).await.unwrap();
        assert!(matches!(answer, CancelRequested::Recorded(_)), "{answer:?}");
    }

    pub(crate) fn event(&mut self) -> EventId {
        EventId::new(NOON, &mut self.rng)
    }

    pub(crate) fn begin(&mut self, call: &CallId) -> BeginAttempt {
        BeginAttempt {
            call: call.clone(),
            epoch: 0,
            attempt: AttemptId::new(&mut self.rng),
            node: "waw-1".parse().unwrap(),
            trunk: "acme-waw-1".parse().unwrap(),
            carrier: "acme".parse().unwrap(),
            incarnation: Some("1764000000".to_owned()),
            to: "+48221234567".parse().unwrap(),
            throttle: Throttle::off(),
            account: None,
            at: NOON,
            event_id: self.event(),
        }
    }

    pub(crate) fn advance(
        &mut self,
        of: &(CallId, AttemptId),
        status: AttemptStatus,
        rang: Rang,
        s: i64,
    ) -> Advance {
        let (call, attempt) = of.clone();
        let at = NOON + Duration::seconds(s);
        Advance { call, epoch: 0, attempt, status, rang, at, event_id: self.event() }
    }

    pub(crate) fn end_attempt(&mut self, of: &(CallId, AttemptId), call_end: Option<CallEnd>) -> EndAttempt {
        EndAttempt {
            call: of.0.clone(),
            epoch: 0,
            attempt: of.1.clone(),
            ending: EndingClass::Congestion,
            sip_code: Some(503),
            q850: Some(34),
            rang: Rang::No,
            at: NOON + Duration::seconds(9),
            talk: Talk::NONE,
            follows: call_end.map_or(Follows::Attempt, Follows::End),
            event_id: self.event(),
        }
    }

    pub(crate) fn hear(&mut self, of: &(CallId, AttemptId), key: char, action: KeyAction) -> Hear {
        let (call, attempt) = of.clone();
        let (key, at) = (key.try_into().unwrap(), NOON + Duration::seconds(7));
        Hear { call, epoch: 0, attempt, key, action, at, event_id: self.event() }
    }

    pub(crate) fn redial(&mut self, call: &CallId, redial_at: OffsetDateTime) -> RedialCall {
        RedialCall { call: call.clone(), epoch: 0, redial_at, at: NOON, event_id: self.event() }
    }

    pub(crate) fn end_call(&mut self, call: &CallId, at: OffsetDateTime) -> EndCall {
        EndCall { call: call.clone(), epoch: 0, end: failed(), at, event_id: self.event() }
    }

    pub(crate) async fn call(&self, id: &CallId) -> Call {
        self.store.call(&OrgId::first(), id).await.unwrap().expect("the call")
    }

    /// The call's log, of which the sequence has no gap and the outbox a row for each.
    pub(crate) async fn log(&self, id: &CallId) -> Vec<Transition> {
        let log = self.store.transitions(&OrgId::first(), id).await.unwrap();
        assert!(log.iter().map(|t| t.sequence).eq(1..=log.len() as i64), "{log:?}");
        let pairs = format!(
            "SELECT count(*) FROM call_transition t JOIN outbox o ON o.id = t.id AND o.sequence = t.sequence
             WHERE t.call_id = '{id}'"
        );
        assert_eq!(self.count(&pairs).await, log.len() as i64);
        assert_eq!(self.call(id).await.sequence, log.len() as i64);
        log
    }

    pub(crate) fn key(&mut self, org: Option<OrgId>, at: OffsetDateTime) -> Key {
        let mut secret_sha256 = [0; 32];
        self.rng.fill_bytes(&mut secret_sha256);
        Key {
            id: KeyId::new(at, &mut self.rng),
            org,
            name: "on-call".to_owned(),
            prefix: "rw_live_abcd".to_owned(),
            secret_sha256,
            scopes: vec!["calls:write".to_owned(), "calls:read".to_owned()],
            created_at: at,
            expires_at: Some(at + Duration::days(30)),
            revoked_at: None,
            mode: Mode::Live,
            last_used_at: None,
            rotated_from: None,
            suspended_at: None,
        }
    }

    pub(crate) fn org_id(&mut self, at: OffsetDateTime) -> OrgId {
        OrgId::new(at, &mut self.rng)
    }

    pub(crate) fn audit_id(&mut self) -> AuditId {
        AuditId::new(NOON, &mut self.rng)
    }
}

pub(crate) fn request() -> CallRequest {
    let json = serde_json::json!({
        "to": "+48221234567", "message": {"audio_id": "builtin:beep"}, "metadata": {"ticket": "Ü 1"}
    });
    serde_json::from_value(json).unwrap()
}

pub(crate) fn system() -> Actor {
    Actor::default()
}

pub(crate) fn promise(key: &str, body: u8) -> Option<Idempotency> {
    Some(Idempotency { key: key.to_owned(), body_sha256: [body; 32] })
}

pub(crate) fn failed() -> CallEnd {
    CallEnd { reason: Reason::TrunkUnavailable, outcome: Outcome::NotReached }
}

/// What all of `work`, run at the same time, returned.
pub(crate) async fn at_once<T: Send + 'static>(
    work: Vec<impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let start = Arc::new(tokio::sync::Barrier::new(work.len()));
    let tasks: Vec<_> = work
        .into_iter()
        .map(|work| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                work.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
