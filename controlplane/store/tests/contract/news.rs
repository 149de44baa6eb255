//! News of many calls that come at once are as if they had come one after the other, and none of them harms another.

use controlplane_core::{
    call::{AttemptStatus as At, Detection, Rang},
    ending::{EndingClass, Talk},
    ids::{AttemptId, CallId, ReplicaId},
    request::KeyAction,
    throttle::{Throttle, Window},
};
use controlplane_store::{
    StoreError,
    calls::{Advance, BeginAttempt, Begun, EndAttempt, Follows, Hear, Written},
    replicas::Renewal,
};
use rand::Rng as _;
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, failed, promise};

/// What happens to one call.
#[derive(Clone)]
struct Story {
    begin: BeginAttempt,
    news: Vec<Advance>,
    key: Option<Hear>,
    end: Option<EndAttempt>,
}

/// The same of two calls, each with ids of its own.
async fn twins(f: &mut Fixture) -> [Story; 2] {
    let mut new = f.new_call(NOON);
    new.idempotency = promise(&new.id.to_string(), 1);
    let mut twin = f.again(&new, NOON);
    twin.idempotency = promise(&twin.id.to_string(), 1);
    let calls = [new.id.clone(), twin.id.clone()];
    for new in [new, twin] {
        f.store.create_call(new).await.unwrap();
    }
    let mut of = f.rng.clone();
    let (heard, told, kind, code) =
        (of.random_range(0..4), of.random_range(0..6), of.random_range(0..5), of.random_range(400..699));
    let rounds_later = NOON + Duration::seconds(of.random_range(20..40));
    let mut stories = Vec::new();
    for call in &calls {
        let begin = f.begin(call);
        let of = (call.clone(), begin.attempt.clone());
        let words = [
            (At::Initiated, Rang::No),
            (At::Initiated, Rang::Maybe),
            (At::Ringing, Rang::Yes),
            (At::Ringing, Rang::Maybe),
            (At::InProgress, Rang::Yes),
        ];
        let news =
            (0..).zip(&words[..told.min(5)]).map(|(s, (status, rang))| f.advance(&of, *status, *rang, s));
        let news: Vec<_> = news.collect();
        let key = match heard {
            0 => Some(f.hear(&of, '1', KeyAction::Acknowledge)),
            1 => Some(f.hear(&of, '2', KeyAction::Escalate)),
            _ => None,
        };
        let end = EndAttempt {
            sip_code: Some(code),
            ending: if kind == 0 { EndingClass::Answered } else { EndingClass::Congestion },
            talk: Talk { machine: (kind == 1).then_some(Detection::Machine), ..Talk::NONE },
            follows: match kind {
                0 | 1 => Follows::End(failed()),
                2 => Follows::Round { at: rounds_later },
                _ => Follows::Attempt,
            },
            ..f.end_attempt(&of, None)
        };
        stories.push(Story { begin, news, key, end: (kind != 4).then_some(end) });
    }
    stories.try_into().unwrap_or_else(|_| panic!("two"))
}

/// What was answered, in order.
type Answers = (Begun, Vec<Written>);

async fn happens(store: std::sync::Arc<dyn controlplane_store::Store>, story: Story) -> Answers {
    let begun = store.begin_attempt(story.begin).await.unwrap();
    let mut written = Vec::new();
    for news in story.news {
        written.push(store.advance(news).await.unwrap());
    }
    if let Some(key) = story.key {
        written.push(store.hear(key).await.unwrap());
    }
    if let Some(end) = story.end {
        // Its caller did not hear the first answer.
        for end in [end.clone(), end] {
            written.push(store.end_attempt(end).await.unwrap());
        }
    }
    (begun, written)
}

/// What is to be read of a call, without its ids.
async fn outcome(f: &Fixture, id: &CallId) -> String {
    let (call, log) = (f.call(id).await, f.log(id).await);
    let kept = format!("SELECT count(*) FROM idempotency WHERE call_id = '{id}' AND expires_at IS NULL");
    let kept = f.count(&kept).await;
    let mut text = format!("{call:?} {log:?} {kept}").replace(id.as_str(), "call");
    let ids = call.attempts.iter().map(|attempt| attempt.id.to_string());
    for own in ids.chain(log.iter().map(|step| step.id.to_string())) {
        text = text.replace(&own, "own");
    }
    text
}

pub(crate) async fn news_at_once_are_as_one_after_the_other(mut f: Fixture) {
    let mut stories = Vec::new();
    for _ in 0..90 {
        stories.push(twins(&mut f).await);
    }
    let work = stories.iter().map(|[one, _]| happens(f.store.clone(), one.clone()));
    let told = at_once(work.collect()).await;
    for ([one, twin], told) in stories.iter().zip(told) {
        assert_eq!(told, happens(f.store.clone(), twin.clone()).await);
        let (at_once, alone) = (outcome(&f, &one.begin.call).await, outcome(&f, &twin.begin.call).await);
        assert_eq!(at_once, alone);
    }
    // The stories differ.
    let mut kinds: Vec<_> = stories.iter().map(|[one, _]| one.end.as_ref().map(|end| end.follows)).collect();
    kinds.dedup();
    assert!(kinds.len() > 20, "{}", kinds.len());
}

pub(crate) async fn one_that_cannot_be_written_takes_no_other_with_it(mut f: Fixture) {
    let mut ends = Vec::new();
    for _ in 0..80 {
        let of = f.sending().await;
        ends.push(f.end_attempt(&of, Some(failed())));
    }
    for (n, end) in ends.iter_mut().enumerate() {
        match n % 8 {
            // No database takes it.
            1 => end.sip_code = Some(1_000),
            2 => end.epoch = 7,
            3 => end.attempt = AttemptId::new(&mut f.rng),
            4 => end.call = f.new_call(NOON).id,
            _ => {}
        }
    }
    let work = ends.iter().cloned().map(|end| {
        let store = f.store.clone();
        async move { store.end_attempt(end).await }
    });
    let answers = at_once(work.collect()).await;
    for (n, (end, answer)) in ends.iter().zip(answers).enumerate() {
        let as_told = match n % 8 {
            1 => matches!(answer, Err(StoreError::Corrupt { .. })),
            2 => matches!(answer, Err(StoreError::Fenced { .. })),
            3 | 4 => matches!(answer, Err(StoreError::Missing { .. })),
            _ => matches!(answer, Ok(Written::Yes { sequence: 3 })),
        };
        assert!(as_told, "{n}: {answer:?}");
        if n % 8 != 4 {
            let ended = f.call(&end.call).await.ended_at.is_some();
            assert_eq!(ended, n % 8 == 0 || n % 8 > 4, "{n}");
            assert_eq!(f.log(&end.call).await.len(), if ended { 3 } else { 2 });
        }
    }
}

pub(crate) async fn begins_at_once_count_each_number_s_starts(mut f: Fixture) {
    let throttle: Throttle = vec![Window { calls: 3, per_s: 600 }].try_into().unwrap();
    let mut begins = Vec::new();
    for n in 0..60 {
        let call = f.accepted(NOON).await;
        let to = format!("+4822100000{}", n % 4).parse().unwrap();
        begins.push(BeginAttempt { to, throttle: throttle.clone(), ..f.begin(&call) });
    }
    let work = begins.iter().cloned().map(|begin| {
        let store = f.store.clone();
        async move { store.begin_attempt(begin).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    for number in 0..4 {
        let of = answers.iter().skip(number).step_by(4);
        let begun = of.filter(|begun| matches!(begun, Begun::Yes { sequence: 2 })).count();
        assert_eq!(begun, 3, "+4822100000{number}");
    }
    let held = answers.iter().filter(|begun| matches!(begun, Begun::Held { .. })).count();
    assert_eq!((held, f.count("SELECT count(*) FROM dialled").await), (48, 12));
    assert_eq!(f.count("SELECT count(*) FROM attempt").await, 12);
}

pub(crate) async fn what_may_rest_is_written_with_others(mut f: Fixture) {
    let mut of = Vec::new();
    for _ in 0..25 {
        of.push(f.sending().await);
    }
    let before = *f.store.written().borrow();
    let ringing: Vec<_> = of.iter().map(|of| f.advance(of, At::Ringing, Rang::Yes, 1)).collect();
    let work = ringing.into_iter().map(|ringing| {
        let store = f.store.clone();
        async move { store.advance(ringing).await.unwrap() }
    });
    let written = at_once(work.collect()).await;
    assert!(written.iter().all(|written| *written == Written::Yes { sequence: 3 }), "{written:?}");
    let commits = *f.store.written().borrow() - before;
    println!("25 pieces of news in {commits} commits");
    assert!(commits <= 5, "{commits}");
}

/// Of what is written together, what is of a call that another replica has claimed is refused for itself alone.
pub(crate) async fn of_a_set_a_lost_claim_is_refused_alone(mut f: Fixture) {
    let (first, second) = (ReplicaId::new(&mut f.rng), ReplicaId::new(&mut f.rng));
    let mut calls = Vec::new();
    for _ in 0..60 {
        calls.push(f.accepted(NOON).await);
    }
    assert_eq!(f.store.claim_calls(&first, 60).await.unwrap().len(), 60);
    let dead = Renewal {
        replica: first,
        name: "first".to_owned(),
        secrets: std::collections::BTreeMap::new(),
        lease: std::time::Duration::ZERO,
    };
    f.store.renew_replica(dead).await.unwrap();
    // The older half is the second one's by now.
    assert_eq!(f.store.claim_calls(&second, 30).await.unwrap().len(), 30);
    calls.sort();
    let mut begins: Vec<_> = calls.iter().map(|call| BeginAttempt { epoch: 1, ..f.begin(call) }).collect();
    // Each beside one that is still the first one's.
    let late = begins.split_off(30);
    let begins: Vec<_> = begins.into_iter().zip(late).flat_map(|(lost, own)| [lost, own]).collect();
    let before = *f.store.written().borrow();
    let work = begins.iter().cloned().map(|begin| {
        let store = f.store.clone();
        async move { store.begin_attempt(begin).await }
    });
    for (n, begun) in at_once(work.collect()).await.into_iter().enumerate() {
        let as_told = if n % 2 == 0 {
            matches!(begun, Err(StoreError::Fenced { .. }))
        } else {
            matches!(begun, Ok(Begun::Yes { sequence: 2 }))
        };
        assert!(as_told, "{n}: {begun:?}");
    }
    let commits = *f.store.written().borrow() - before;
    assert!(commits <= 30, "they were not written together: {commits} commits");
    let attempts: Vec<_> = begins.iter().map(|begin| (begin.call.clone(), begin.attempt.clone())).collect();
    let rings: Vec<_> =
        attempts.iter().map(|of| Advance { epoch: 1, ..f.advance(of, At::Ringing, Rang::Yes, 1) }).collect();
    let work = rings.into_iter().map(|ring| {
        let store = f.store.clone();
        async move { store.advance(ring).await }
    });
    for (n, told) in at_once(work.collect()).await.into_iter().enumerate() {
        let as_told = if n % 2 == 0 {
            matches!(told, Err(StoreError::Fenced { .. }))
        } else {
            matches!(told, Ok(Written::Yes { sequence: 3 }))
        };
        assert!(as_told, "{n}: {told:?}");
        let call = f.call(&begins[n].call).await;
        assert_eq!((call.sequence, call.attempts.len()), if n % 2 == 0 { (1, 0) } else { (3, 1) });
    }
}

/// However many attempts begin: that another one rings is written, too.
pub(crate) async fn what_rests_has_its_turn(mut f: Fixture) {
    let of = f.sending().await;
    let ended = f.accepted(NOON).await;
    let end = f.end_call(&ended, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flood: Vec<_> = (0..1_000)
        .map(|_| {
            let (store, begin, stop) = (f.store.clone(), f.begin(&ended), stop.clone());
            tokio::spawn(async move {
                let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && tokio::time::Instant::now() < until
                {
                    assert_eq!(store.begin_attempt(begin.clone()).await.unwrap(), Begun::AlreadyEnded);
                }
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let began = tokio::time::Instant::now();
    let ringing = f.advance(&of, At::Ringing, Rang::Yes, 1);
    assert_eq!(f.store.advance(ringing).await.unwrap(), Written::Yes { sequence: 3 });
    let took = began.elapsed();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    println!("written after {} ms", took.as_millis());
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}
