//! How long news of calls take on PostgreSQL, and how many trips to the server: 2,000 calls, 64 at a time, each of which begins, rings, is
//! answered and ends.
//!
//! `cargo run -p controlplane-store --example news_rate -- postgres://USER@HOST:PORT/AN_EMPTY_DATABASE`
//!
//! Each call is to a number of its own that may be dialled once a minute. Times are of a run straight to the server; trips are counted
//! in a second run, through a relay that reads what the driver sends.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, Outcome, Rang, Reason},
    ending::{EndingClass, Talk},
    ids::{AttemptId, AuditId, CallId, EventId, OrgId},
    throttle::{Throttle, Window},
};
use controlplane_store::{
    Store, StoreError,
    calls::{
        Actor, Advance, BeginAttempt, Begun, CallEnd, DayMax, EndAttempt, Follows, NewCall, OpenMax, Written,
    },
};
use rand::{Rng as _, SeedableRng, rngs::StdRng};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

const CALLERS: usize = 64;
const CALLS: usize = 2_000;
/// Accepted in one write.
const ACCEPTED_AT_ONCE: usize = 50;

type Fault = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "its output is its purpose")]
async fn main() -> Result<(), Fault> {
    let url = std::env::args().nth(1).ok_or("name an empty database")?;
    let (took, mut begins) =
        live(&url, 1, &AtomicU64::new(0)).await.map(|(took, begins, _)| (took, begins))?;
    begins.sort_unstable();
    let at = |part: usize| begins.get(begins.len() * part / 100).copied().unwrap_or_default();
    println!(
        "{CALLS} calls, {CALLERS} at a time: {:.0} calls a second, {} µs each; a begin p50 {:?}, p99 {:?}",
        CALLS as f64 / took.as_secs_f64(),
        took.as_micros() / CALLS as u128,
        at(50),
        at(99)
    );
    let trips = Arc::new(AtomicU64::new(0));
    let relayed = relay(&url, Arc::clone(&trips)).await?;
    let (_, _, made) = live(&relayed, 2, &trips).await?;
    println!("{:.2} trips to the server for each call", made as f64 / CALLS as f64);
    Ok(())
}

/// How long it took, how long each begin waited, and what was added to the trips meanwhile.
async fn live(url: &str, seed: u64, trips: &AtomicU64) -> Result<(Duration, Vec<Duration>, u64), Fault> {
    let store = controlplane_store::open(url).await?;
    let mut rng = StdRng::seed_from_u64(seed);
    let begins = accept(&*store, &mut rng).await?;
    let before = trips.load(Ordering::Relaxed);
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let own: Vec<_> = begins.iter().skip(caller).step_by(CALLERS).cloned().collect();
        callers.spawn(lives(Arc::clone(&store), own, StdRng::seed_from_u64(seed * 1_000 + caller as u64)));
    }
    let mut waits = Vec::with_capacity(CALLS);
    while let Some(done) = callers.join_next().await {
        waits.extend(done??);
    }
    Ok((start.elapsed(), waits, trips.load(Ordering::Relaxed) - before))
}

async fn accept(store: &dyn Store, rng: &mut StdRng) -> Result<Vec<BeginAttempt>, Fault> {
    let at = OffsetDateTime::UNIX_EPOCH;
    let throttle: Throttle = vec![Window { calls: 1, per_s: 60 }].try_into()?;
    let mut begins = Vec::with_capacity(CALLS);
    let (first, mut new) = (rng.random_range(100..900_u32), Vec::new());
    for n in 0..CALLS {
        let to = format!("+48{first}{n:06}");
        let request = serde_json::json!({"to": to, "message": {"audio_id": "builtin:beep"}});
        let call = CallId::new(at, rng);
        new.push(NewCall {
            id: call.clone(),
            org: OrgId::first(),
            mode: Mode::Live,
            request: serde_json::from_value(request)?,
            at,
            deadline_at: at + time::Duration::hours(1),
            open_max: OpenMax { org: 50_000, number: 50_000 },
            day_max: DayMax::default(),
            idempotency: None,
            actor: Actor::default(),
            audit_id: AuditId::new(at, rng),
            event_id: EventId::new(at, rng),
            trace: None,
        });
        begins.push(BeginAttempt {
            call,
            epoch: 0,
            attempt: AttemptId::new(rng),
            node: "waw-1".parse()?,
            trunk: "acme-waw-1".parse()?,
            carrier: "acme".parse()?,
            incarnation: Some("1764000000".to_owned()),
            to: to.parse()?,
            throttle: throttle.clone(),
            account: None,
            at,
            event_id: EventId::new(at, rng),
        });
        if new.len() == ACCEPTED_AT_ONCE {
            store.create_calls(std::mem::take(&mut new).into()).await?;
        }
    }
    Ok(begins)
}

/// One after the other; how long each begin waited.
async fn lives(
    store: Arc<dyn Store>,
    begins: Vec<BeginAttempt>,
    mut rng: StdRng,
) -> Result<Vec<Duration>, StoreError> {
    let mut waits = Vec::with_capacity(begins.len());
    for begin in begins {
        let at = begin.at;
        let advance = |status, rng: &mut StdRng| Advance {
            call: begin.call.clone(),
            epoch: 0,
            attempt: begin.attempt.clone(),
            status,
            rang: Rang::Yes,
            at,
            event_id: EventId::new(at, rng),
        };
        let news = [advance(AttemptStatus::Ringing, &mut rng), advance(AttemptStatus::InProgress, &mut rng)];
        let end = EndAttempt {
            call: begin.call.clone(),
            epoch: 0,
            attempt: begin.attempt.clone(),
            ending: EndingClass::Answered,
            sip_code: Some(200),
            q850: Some(16),
            rang: Rang::Yes,
            talk: Talk::NONE,
            at: at + time::Duration::seconds(9),
            follows: Follows::End(CallEnd { reason: Reason::Played, outcome: Outcome::Answered }),
            event_id: EventId::new(at, &mut rng),
        };
        let asked = Instant::now();
        let begun = store.begin_attempt(begin).await?;
        waits.push(asked.elapsed());
        assert_eq!(begun, Begun::Yes { sequence: 2 });
        for (news, sequence) in news.into_iter().zip(3..) {
            assert_eq!(store.advance(news).await?, Written::Yes { sequence });
        }
        assert_eq!(store.end_attempt(end).await?, Written::Yes { sequence: 5 });
    }
    Ok(waits)
}

/// The same database by a way on which trips are counted.
async fn relay(url: &str, trips: Arc<AtomicU64>) -> Result<String, Fault> {
    let (before, rest) = url.rsplit_once('@').ok_or("a URL with a user")?;
    let (server, database) = rest.split_once('/').ok_or("a URL with a database")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let relayed = format!("{before}@{}/{database}", listener.local_addr()?);
    let server = server.to_owned();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (server, trips) = (server.clone(), Arc::clone(&trips));
            tokio::spawn(async move { pass_on(near, &server, &trips).await });
        }
    });
    Ok(relayed)
}

async fn pass_on(near: TcpStream, server: &str, trips: &AtomicU64) -> Result<(), Fault> {
    let far = TcpStream::connect(server).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_far, &mut to_near).await });
    let (mut messages, mut chunk) = (Messages::default(), vec![0; 65_536]);
    loop {
        let read = from_near.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        trips.fetch_add(messages.trips_in(bytes), Ordering::Relaxed);
        to_far.write_all(bytes).await?;
    }
    answers.abort();
    Ok(())
}

/// What a client sends: a start-up without a type (twice, where it asks for encryption first), then messages of a type and a length.
#[derive(Default)]
struct Messages {
    buffered: Vec<u8>,
    has_started: bool,
}

impl Messages {
    /// How many messages the server answers with `ReadyForQuery`: queries and syncs.
    fn trips_in(&mut self, bytes: &[u8]) -> u64 {
        const ENCRYPTION_ASKED: [u8; 4] = 80_877_103_u32.to_be_bytes();
        self.buffered.extend_from_slice(bytes);
        let mut trips = 0;
        loop {
            let head = usize::from(self.has_started);
            let Some(length) = self.buffered.get(head..head + 4) else { return trips };
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) + head;
            if self.buffered.len() < length {
                return trips;
            }
            let message: Vec<u8> = self.buffered.drain(..length).collect();
            if self.has_started {
                trips += u64::from(matches!(message.first(), Some(b'Q' | b'S')));
            } else {
                self.has_started = message.get(4..8) != Some(&ENCRYPTION_ASKED);
            }
        }
    }
}
