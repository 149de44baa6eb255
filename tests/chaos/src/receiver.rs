//! The customers' receiver of webhooks: a real HTTP server that checks each signature as a customer's library does,
//! writes down what comes, and now and then refuses an event or lets it hang, by its seed.
//!
//! It does so only to an event that it has not met before: the second try comes after 5 s, the third after 5 minutes,
//! and a run waits for the third only where something else went wrong with the second.
use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use controlplane_core::call::CallStatus;
use lab::{ControlPlane, since_1970};
use rand::{Rng as _, rngs::StdRng};
use serde::Deserialize;
use serde_json::json;
use standardwebhooks::Webhook;
use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

use crate::history::Posted;

/// Share of events that are refused at first.
const REFUSED: f64 = 0.03;
/// Share of events that hang at first, where calls are [`FEW`] in a second, and less where they are more: a receiver that hangs
/// takes events slowly, and one that always hangs takes none.
const HUNG: f64 = 0.005;
const FEW: f64 = 8.0;
/// Longer than the control plane waits for an answer (15 s).
const HANGS_FOR: Duration = Duration::from_secs(20);
/// Where it takes events.
const PATH: &str = "/hook";

/// A running receiver; it ends when this is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    /// Its id at the control plane.
    endpoint: String,
    memory: Arc<Mutex<Memory>>,
    _runtime: Runtime,
}

struct Memory {
    chance: StdRng,
    hung: f64,
    /// Checks signatures, once the endpoint's secret is known.
    library: Option<Webhook>,
    met: HashSet<String>,
    posted: Vec<Posted>,
}

/// What it does with an event.
enum Answer {
    Take,
    Refuse,
    Hang,
}

#[derive(Deserialize)]
struct Body {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    sequence: i64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    id: String,
    status: CallStatus,
}

impl Receiver {
    /// On any free port of 127.0.0.1, not known to anybody yet, for so many calls in a second.
    pub(crate) fn start(chance: StdRng, per_second: f64) -> anyhow::Result<Self> {
        let hung = HUNG * (FEW / per_second).min(1.0);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let address = listener.local_addr()?;
        let memory = Memory { chance, hung, library: None, met: HashSet::new(), posted: Vec::new() };
        let memory = Arc::new(Mutex::new(memory));
        let router = Router::new().route(PATH, post(take)).with_state(Arc::clone(&memory));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, endpoint: String::new(), memory, _runtime: runtime })
    }

    /// Makes it an endpoint of the customer, for all that happens to calls.
    pub(crate) fn register(&mut self, plane: &ControlPlane) -> anyhow::Result<()> {
        let wish = json!({"url": format!("http://{}{PATH}", self.address), "events": ["call.*"]});
        let made = plane.customer("POST", "/v1/webhook_endpoints", Some(&wish))?;
        self.endpoint = made["id"].as_str().context("an endpoint without id")?.to_owned();
        let secret = made["secret"].as_str().context("an endpoint without secret")?;
        lock(&self.memory).library = Some(Webhook::new(secret)?);
        Ok(())
    }

    /// Whether the control plane has nothing more for it. While it cannot be asked it may have.
    pub(crate) fn has_all(&self, plane: &ControlPlane) -> bool {
        let path = format!("/v1/webhook_endpoints/{}/deliveries?state=pending&limit=1", self.endpoint);
        let pending = plane.customer("GET", &path, None);
        pending.is_ok_and(|list| list["data"].as_array().is_some_and(Vec::is_empty))
    }

    /// What came, in order.
    pub(crate) fn posted(&self) -> Vec<Posted> {
        lock(&self.memory).posted.clone()
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn take(State(memory): State<Arc<Mutex<Memory>>>, headers: HeaderMap, bytes: Bytes) -> StatusCode {
    let answer = lock(&memory).note(&headers, &bytes);
    match answer {
        Answer::Take => StatusCode::NO_CONTENT,
        Answer::Refuse => StatusCode::INTERNAL_SERVER_ERROR,
        Answer::Hang => {
            sleep(HANGS_FOR).await;
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl Memory {
    /// Writes down what came. What is no event is one of no call, and not taken.
    fn note(&mut self, headers: &HeaderMap, bytes: &Bytes) -> Answer {
        let at = since_1970();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let id = header("webhook-id").to_owned();
        let signed = self.library.as_ref().is_some_and(|library| library.verify(bytes, headers).is_ok());
        let body = serde_json::from_slice::<Body>(bytes).ok().filter(|body| body.id == id);
        let answer = match (&body, self.chance.random::<f64>()) {
            (None, _) => Answer::Refuse,
            _ if !self.met.insert(id.clone()) => Answer::Take,
            (Some(_), chance) if chance < self.hung => Answer::Hang,
            (Some(_), chance) if chance < self.hung + REFUSED => Answer::Refuse,
            (Some(_), _) => Answer::Take,
        };
        let mut fingerprint = DefaultHasher::new();
        bytes.hash(&mut fingerprint);
        self.posted.push(Posted {
            id,
            call: body.as_ref().map(|body| body.data.id.clone()).unwrap_or_default(),
            sequence: body.as_ref().map_or(0, |body| body.sequence),
            status: body.as_ref().map(|body| body.data.status),
            kind: body.map(|body| body.kind).unwrap_or_default(),
            body: fingerprint.finish(),
            at,
            taken_at: matches!(answer, Answer::Take).then_some(at),
            signed,
        });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn memory() -> Memory {
        let library = Some(Webhook::new(SECRET).unwrap());
        Memory {
            chance: StdRng::seed_from_u64(4),
            hung: HUNG,
            library,
            met: HashSet::new(),
            posted: Vec::new(),
        }
    }

    fn event(n: usize) -> (String, Bytes) {
        let id = format!("evt_{n}");
        let data = json!({"id": "call_1", "status": "ringing"});
        let body = json!({"id": id, "type": "call.ringing", "sequence": 3, "data": data});
        (id, body.to_string().into())
    }

    fn signed(id: &str, bytes: &[u8], secret: &str) -> HeaderMap {
        let at = i64::try_from(since_1970().as_secs()).unwrap();
        let signature = Webhook::new(secret).unwrap().sign(id, at, bytes).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", at.to_string().parse().unwrap());
        headers.insert("webhook-signature", signature.parse().unwrap());
        headers
    }

    #[test]
    fn an_event_is_refused_or_hung_at_its_first_try_alone() {
        let mut memory = memory();
        let mut answers = [0; 3];
        for n in 0..2_000 {
            let (id, bytes) = event(n);
            let headers = signed(&id, &bytes, SECRET);
            match memory.note(&headers, &bytes) {
                Answer::Take => answers[0] += 1,
                Answer::Refuse => answers[1] += 1,
                Answer::Hang => answers[2] += 1,
            }
            assert!(matches!(memory.note(&headers, &bytes), Answer::Take));
        }
        assert!((30..100).contains(&answers[1]) && (2..30).contains(&answers[2]), "{answers:?}");
        assert!(memory.posted.iter().all(|posted| posted.signed && posted.call == "call_1"));
        assert_eq!(memory.posted[0].body, memory.posted[1].body);
        assert_ne!(memory.posted[0].body, memory.posted[2].body);
    }

    #[test]
    fn another_s_signature_and_what_is_no_event_are_written_down_as_such() {
        let mut memory = memory();
        let (id, bytes) = event(1);
        memory.note(&signed(&id, &bytes, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), &bytes);
        memory.note(&signed("evt_2", &bytes, SECRET), &bytes);
        let said: Vec<_> = memory.posted.iter().map(|one| (one.signed, one.taken_at.is_some())).collect();
        assert_eq!((said[0].0, said[1]), (false, (true, false)), "another id than its body's");
    }
}
