//! Random work on a few calls, answered by the store and by a model of some lines: equal answers, equal
//! state. The seed is printed; `RINGWARD_TEST_SEED=N` runs one again.

use std::collections::HashMap;

use controlplane_core::{
    call::{AttemptStatus as At, CallStatus, Rang},
    ids::{AttemptId, CallId, OrgId},
    request::KeyAction,
};
use controlplane_store::{
    StoreError,
    calls::{Begun, Created, EndAttempt, Follows, NewCall, Written},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use time::Duration;

use crate::fixture::{Fixture, NOON, failed, promise};

const STEPS: u32 = 400;

#[derive(Default)]
struct Model {
    calls: Vec<Known>,
    /// By key: body and call.
    promised: HashMap<u8, (u8, CallId)>,
}

struct Known {
    id: CallId,
    dedup: Option<u8>,
    status: CallStatus,
    sequence: i64,
    attempts: Vec<(AttemptId, At, Rang)>,
    round: u16,
    heard: Vec<AttemptId>,
}

/// An answer, comparable between the two.
#[derive(Debug, PartialEq)]
enum Answer {
    New,
    Replayed(CallId),
    KeyReused,
    Deduplicated(CallId),
    Yes(i64),
    AlreadyEnded,
    AttemptOpen,
    TooLate,
}

fn rank(status: At) -> usize {
    At::ALL.iter().position(|s| *s == status).unwrap()
}

fn rang_rank(rang: Rang) -> usize {
    [Rang::No, Rang::Maybe, Rang::Yes].iter().position(|r| *r == rang).unwrap()
}

impl Known {
    fn open(&mut self) -> Option<&mut (AttemptId, At, Rang)> {
        self.attempts.iter_mut().find(|(_, status, _)| *status != At::Ended)
    }

    fn next_round(&mut self) -> Answer {
        self.round += 1;
        self.step(CallStatus::Queued)
    }

    fn step(&mut self, status: CallStatus) -> Answer {
        (self.status, self.sequence) = (status, self.sequence + 1);
        Answer::Yes(self.sequence)
    }
}

impl Model {
    fn create(&mut self, id: &CallId, key: Option<(u8, u8)>, dedup: Option<u8>) -> Answer {
        match key.and_then(|(key, body)| self.promised.get(&key).map(|known| (body, known))) {
            Some((body, (known, _))) if body != *known => return Answer::KeyReused,
            Some((_, (_, call))) => return Answer::Replayed(call.clone()),
            None => {}
        }
        let open =
            self.calls.iter().find(|c| c.dedup.is_some() && c.dedup == dedup && !c.status.is_terminal());
        let (call, answer) = match open {
            Some(open) => (open.id.clone(), Answer::Deduplicated(open.id.clone())),
            None => (id.clone(), Answer::New),
        };
        if answer == Answer::New {
            let (status, attempts) = (CallStatus::Queued, Vec::new());
            let (round, heard) = (1, Vec::new());
            self.calls.push(Known { id: id.clone(), dedup, status, sequence: 1, attempts, round, heard });
        }
        if let Some((key, body)) = key {
            self.promised.insert(key, (body, call));
        }
        answer
    }

    fn begin(&mut self, call: usize, attempt: &AttemptId) -> Answer {
        let call = &mut self.calls[call];
        if call.status.is_terminal() || call.open().is_some() {
            return Answer::AlreadyEnded;
        }
        call.attempts.push((attempt.clone(), At::Sending, Rang::No));
        call.step(CallStatus::Initiated)
    }

    fn advance(&mut self, call: usize, attempt: usize, word: At, rang: Rang) -> Answer {
        let call = &mut self.calls[call];
        let (_, status, known) = &mut call.attempts[attempt];
        if *status == At::Ended {
            return Answer::AlreadyEnded;
        }
        if rang_rank(rang) > rang_rank(*known) {
            *known = rang;
        }
        if rank(word) <= rank(*status) {
            return Answer::Yes(call.sequence);
        }
        *status = word;
        match word {
            At::Ringing => call.step(CallStatus::Ringing),
            At::InProgress => call.step(CallStatus::InProgress),
            At::Sending | At::Initiated | At::Ended => Answer::Yes(call.sequence),
        }
    }

    fn end_attempt(&mut self, call: usize, attempt: usize, follows: Follows) -> Answer {
        let call = &mut self.calls[call];
        let (_, status, known) = &mut call.attempts[attempt];
        if *status == At::Ended {
            return Answer::AlreadyEnded;
        }
        *status = At::Ended;
        if *known == Rang::Maybe {
            *known = Rang::No;
        }
        match follows {
            Follows::End(_) => call.step(CallStatus::Failed),
            Follows::Attempt => call.step(call.status),
            Follows::Round { .. } => call.next_round(),
        }
    }

    fn redial(&mut self, call: usize) -> Answer {
        let call = &mut self.calls[call];
        match (call.status.is_terminal(), call.open().is_some()) {
            (true, _) => Answer::AlreadyEnded,
            (false, true) => Answer::AttemptOpen,
            (false, false) => call.next_round(),
        }
    }

    fn hear(&mut self, call: usize, attempt: usize) -> Answer {
        let call = &mut self.calls[call];
        let (id, status, _) = &call.attempts[attempt];
        if *status == At::Ended {
            return Answer::AlreadyEnded;
        }
        if call.heard.contains(id) {
            return Answer::Yes(call.sequence);
        }
        call.heard.push(id.clone());
        call.step(call.status)
    }

    fn end_call(&mut self, call: usize) -> Answer {
        let call = &mut self.calls[call];
        match (call.status.is_terminal(), call.open().is_some()) {
            (true, _) => Answer::AlreadyEnded,
            (false, true) => Answer::AttemptOpen,
            (false, false) => call.step(CallStatus::Failed),
        }
    }
}

/// The answer to a write that is repeated at once, as by a caller that did not hear the first answer: the
/// same both times.
macro_rules! twice {
    ($store:ident.store.$method:ident, $write:expr) => {
        twice!($store.store.$method, $write, written)
    };
    ($store:ident.store.$method:ident, $write:expr, $answer:ident) => {{
        let first = $answer($store.store.$method($write.clone()).await);
        assert_eq!($answer($store.store.$method($write).await), first, "repeated");
        first
    }};
}

fn created(result: Result<Created, StoreError>) -> Answer {
    match result.unwrap() {
        Created::New(_) => Answer::New,
        Created::Replayed(call) => Answer::Replayed(call.id),
        Created::KeyReused => Answer::KeyReused,
        Created::Deduplicated(call) => Answer::Deduplicated(call.id),
        Created::Full(full) => panic!("{full:?} is full of fewer calls"),
    }
}

fn begun(result: Result<Begun, StoreError>) -> Answer {
    match result.unwrap() {
        Begun::Yes { sequence } => Answer::Yes(sequence),
        Begun::AlreadyEnded => Answer::AlreadyEnded,
        Begun::TooLate { .. } => Answer::TooLate,
        Begun::Held { until } => panic!("held until {until} without a throttle"),
        Begun::Full { .. } => panic!("full without an account"),
    }
}

fn written(result: Result<Written, StoreError>) -> Answer {
    match result {
        Ok(Written::Yes { sequence }) => Answer::Yes(sequence),
        Ok(Written::AlreadyEnded) => Answer::AlreadyEnded,
        Err(StoreError::AttemptOpen { .. }) => Answer::AttemptOpen,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) async fn random_work_is_answered_as_the_model_does(mut f: Fixture) {
    let seed = std::env::var("RINGWARD_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("RINGWARD_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    for step in 0..STEPS {
        let (of_store, of_model) = one_step(&mut f, &mut model, &mut rng, step).await;
        assert_eq!(of_store, of_model, "seed {seed}, step {step}");
    }
    for known in &model.calls {
        let call = f.call(&known.id).await;
        assert_eq!((call.status, call.sequence), (known.status, known.sequence), "seed {seed}");
        assert_eq!(call.round, known.round, "seed {seed}");
        let heard = call.attempts.iter().filter(|a| a.key.is_some()).count();
        assert_eq!((heard, call.acknowledgement.is_some()), (known.heard.len(), heard > 0), "seed {seed}");
        let attempts: Vec<_> = call.attempts.into_iter().map(|a| (a.id, a.status, a.rang)).collect();
        assert_eq!(attempts, known.attempts, "seed {seed}");
        assert_eq!(f.log(&known.id).await.len(), usize::try_from(known.sequence).unwrap());
    }
    let open = f.store.open_calls(None, 1_000).await.unwrap();
    let counted = f.count("SELECT CAST(coalesce(sum(calls), 0) AS bigint) FROM open_calls").await;
    assert_eq!(counted, open.len() as i64, "seed {seed}");
    let expected = model.calls.iter().filter(|c| !c.status.is_terminal()).map(|c| &c.id);
    assert!(open.iter().map(|c| &c.id).eq(expected), "seed {seed}");
}

async fn one_step(f: &mut Fixture, model: &mut Model, rng: &mut StdRng, step: u32) -> (Answer, Answer) {
    // The younger half, so that most work finds an open call.
    let call = rng.random_range(model.calls.len() / 2..model.calls.len().max(1));
    let attempts = model.calls.get(call).map_or(0, |c| c.attempts.len());
    let what = if model.calls.is_empty() { 0 } else { rng.random_range(0..12) };
    let id = model.calls.get(call).map(|c| c.id.clone());
    match (what, id) {
        (0 | 1, _) | (_, None) => {
            let at = NOON + Duration::seconds(step.into());
            let mut new: NewCall = f.new_call(at);
            assert_eq!(new.org, OrgId::first());
            let key = rng.random_bool(0.5).then(|| (rng.random_range(0..20), rng.random_range(0..2)));
            let dedup = rng.random_bool(0.5).then(|| rng.random_range(0..3));
            new.idempotency = key.and_then(|(key, body)| promise(&key.to_string(), body));
            new.request.dedup_key = dedup.map(|d: u8| d.to_string());
            let expected = model.create(&new.id, key, dedup);
            (created(f.store.create_call(new).await), expected)
        }
        (2 | 3, Some(id)) => {
            let begin = f.begin(&id);
            let expected = model.begin(call, &begin.attempt);
            (twice!(f.store.begin_attempt, begin, begun), expected)
        }
        (9, Some(id)) => {
            let end = f.end_call(&id, NOON);
            (twice!(f.store.end_call, end), model.end_call(call))
        }
        (10, Some(id)) => {
            let redial = f.redial(&id, NOON);
            (twice!(f.store.redial_call, redial), model.redial(call))
        }
        (_, Some(id)) if attempts == 0 => {
            let begin = f.begin(&id);
            let expected = model.begin(call, &begin.attempt);
            (twice!(f.store.begin_attempt, begin, begun), expected)
        }
        (what, Some(id)) => {
            let attempt = rng.random_range(0..attempts);
            let of = (id, model.calls[call].attempts[attempt].0.clone());
            if what == 11 {
                let hear = f.hear(&of, '1', KeyAction::Acknowledge);
                (twice!(f.store.hear, hear), model.hear(call, attempt))
            } else if what < 8 {
                let (word, rang) = (At::ALL[rng.random_range(0..4)], Rang::ALL[rng.random_range(0..3)]);
                let news = f.advance(&of, word, rang, step.into());
                (twice!(f.store.advance, news), model.advance(call, attempt, word, rang))
            } else {
                let all = [Follows::End(failed()), Follows::Attempt, Follows::Round { at: NOON }];
                let follows = all[rng.random_range(0..all.len())];
                let end = EndAttempt { follows, ..f.end_attempt(&of, None) };
                (twice!(f.store.end_attempt, end), model.end_attempt(call, attempt, follows))
            }
        }
    }
}
