//! Sends spans: those of calls by what the database says has ended and was not sent, the others out of their queue.
//!
//! One post at a time. One that fails in a way that may pass is made again, later and later; meanwhile the queue fills and drops, and calls
//! wait in the database, for [`KEPT`] at most. Nothing here is waited for by a call.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use controlplane_core::ids::CallId;
use opentelemetry_sdk::trace::SpanData;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    On,
    posting::{Collector, Posted},
    spans::of_call,
};
use crate::{calls::chain, replicas::Membership};

/// What comes within this time is sent together.
const GATHER: Duration = Duration::from_millis(500);
/// Spans of requests and deliveries in one post.
const SPANS_AT_ONCE: usize = 512;
/// Calls in one post.
const CALLS_AT_ONCE: usize = 64;
/// Between two looks for calls of which nobody told: those of an earlier process, or of another replica.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A call that ended so long ago was told of, if it will be.
const TOLD_WITHIN: time::Duration = time::Duration::seconds(30);
/// Calls that one look finds.
const LOOK_MAX: u16 = 512;
/// How long spans wait for a collector.
const KEPT: time::Duration = time::Duration::hours(1);
/// Before a post is made again; doubled up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two lines of the log about the same trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// For what waits at an orderly stop.
pub(super) const FLUSH_MAX: Duration = Duration::from_secs(3);

/// What waits, and the way to the collector.
pub(super) struct Sending {
    collector: Collector,
    spans: mpsc::Receiver<SpanData>,
    ended: mpsc::Receiver<CallId>,
    /// Found by a look.
    overdue: VecDeque<CallId>,
    /// In the next post.
    batch: Vec<SpanData>,
    /// Theirs too.
    calls: Vec<CallId>,
    /// Failures since the last line of the log about them.
    untold: u64,
    told_at: Option<Instant>,
    /// Spans that were dropped when the log last told of it.
    dropped_told: u64,
}

/// What came of one post.
enum Sent {
    /// Nothing is left of it.
    Done,
    /// It is to be made again.
    Again,
}

impl Sending {
    pub(super) fn new(
        collector: Collector,
        spans: mpsc::Receiver<SpanData>,
        ended: mpsc::Receiver<CallId>,
    ) -> Self {
        Self {
            collector,
            spans,
            ended,
            overdue: VecDeque::new(),
            batch: Vec::new(),
            calls: Vec::new(),
            untold: 0,
            told_at: None,
            dropped_told: 0,
        }
    }

    pub(super) async fn run(mut self, on: Arc<On>, membership: Arc<Membership>) {
        let mut stop = on.stop.subscribe();
        // What an earlier process left, at once.
        let (mut look, mut ended_by) = (Instant::now(), time::Duration::ZERO);
        while !*stop.borrow() {
            if Instant::now() >= look {
                tokio::select! {
                    _ = stop.changed() => break,
                    () = self.look(&on, &membership, ended_by) => {}
                }
                (look, ended_by) = (Instant::now() + LOOK_EVERY, TOLD_WITHIN);
                continue;
            }
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                () = std::future::ready(()), if !self.overdue.is_empty() => {}
                Some(span) = self.spans.recv() => self.batch.push(span),
                Some(call) = self.ended.recv() => self.calls.push(call),
                () = sleep_until(look) => continue,
            }
            // What is cut off here is still in the batch.
            tokio::select! {
                _ = stop.changed() => break,
                () = self.send(&on) => {}
            }
            if self.overdue.is_empty() && on.missed.swap(false, Ordering::Relaxed) {
                (look, ended_by) = (Instant::now(), time::Duration::ZERO);
            }
        }
        let flushed = timeout(FLUSH_MAX, self.flush(&on)).await.is_ok_and(|flushed| flushed);
        self.spans.close();
        while let Ok(span) = self.spans.try_recv() {
            self.batch.push(span);
        }
        on.metrics.spans_dropped.inc_by(u64::try_from(self.batch.len()).unwrap_or(u64::MAX));
        if !flushed {
            tracing::warn!(
                spans = self.batch.len(),
                "the collector of traces did not take what was left: spans of requests and webhooks are lost, those of calls are \
                 sent by the next start"
            );
        }
    }

    /// Takes what waits, within the bounds of a post.
    fn fill(&mut self) {
        while self.batch.len() < SPANS_AT_ONCE
            && let Ok(span) = self.spans.try_recv()
        {
            self.batch.push(span);
        }
        while self.calls.len() < CALLS_AT_ONCE
            && let Some(call) = self.ended.try_recv().ok().or_else(|| self.overdue.pop_front())
        {
            self.calls.push(call);
        }
    }

    /// Everything, as far as the collector takes it. `false`: it does not.
    async fn flush(&mut self, on: &On) -> bool {
        loop {
            self.fill();
            if self.batch.is_empty() && self.calls.is_empty() {
                return true;
            }
            if matches!(self.once(on).await, Sent::Again) {
                return false;
            }
        }
    }

    /// Waits for company, and posts until it is taken or refused, or is too old.
    async fn send(&mut self, on: &On) {
        sleep(GATHER).await;
        self.fill();
        let mut wait = WAIT_MIN;
        while matches!(self.once(on).await, Sent::Again) {
            sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
            self.forget_old(on);
        }
    }

    async fn once(&mut self, on: &On) -> Sent {
        let traced = match on.store.unsent_traces(&self.calls).await {
            Ok(traced) => traced,
            Err(error) => {
                self.tell(&format!("the database: {}", chain(&error)));
                return Sent::Again;
            }
        };
        let now = on.clock.now();
        let (old, traced): (Vec<_>, Vec<_>) = traced
            .into_iter()
            .partition(|traced| traced.call.ended_at.is_some_and(|ended| ended < now - KEPT));
        let calls: Vec<CallId> = traced.iter().map(|traced| traced.call.id.clone()).collect();
        let spans: Vec<_> = self.batch.iter().cloned().chain(traced.iter().flat_map(of_call)).collect();
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let count_of = |calls: &[CallId]| u64::try_from(calls.len()).unwrap_or(u64::MAX);
        let posted = if spans.is_empty() { Posted::Taken } else { self.collector.post(spans).await };
        match posted {
            Posted::Taken => {
                on.metrics.sent.inc_by(count);
                self.untold = 0;
            }
            Posted::Refused(why) => {
                on.metrics.failed.inc();
                on.metrics.calls_dropped.inc_by(count_of(&calls));
                on.metrics.spans_dropped.inc_by(u64::try_from(self.batch.len()).unwrap_or(u64::MAX));
                self.tell(&format!("{why}, for good: {count} spans are dropped"));
            }
            Posted::Later(why) => {
                on.metrics.failed.inc();
                self.tell(&why);
                return Sent::Again;
            }
        }
        // Those of `old` too: they are given up.
        let old: Vec<CallId> = old.into_iter().map(|traced| traced.call.id).collect();
        on.metrics.calls_dropped.inc_by(count_of(&old));
        let done: Vec<CallId> = calls.into_iter().chain(old).collect();
        if !done.is_empty()
            && let Err(error) = on.store.traces_sent(done, now).await
        {
            // They are sent again, and are the same.
            tracing::warn!(error = %chain(&error), "that traces were sent could not be written");
        }
        self.batch.clear();
        self.calls.clear();
        Sent::Done
    }

    /// Spans of requests and deliveries that no collector wanted for so long.
    fn forget_old(&mut self, on: &On) {
        let oldest = SystemTime::from(on.clock.now() - KEPT);
        let before = self.batch.len();
        self.batch.retain(|span| span.end_time >= oldest);
        let gone = before - self.batch.len();
        on.metrics.spans_dropped.inc_by(u64::try_from(gone).unwrap_or(u64::MAX));
    }

    /// Looks for calls of which nobody told, and gives up those that have waited too long.
    async fn look(&mut self, on: &On, membership: &Membership, ended_for: time::Duration) {
        let dropped = on.metrics.spans_dropped.get();
        if dropped > self.dropped_told {
            tracing::warn!(
                spans = dropped - self.dropped_told,
                "spans of requests and webhooks were dropped"
            );
            self.dropped_told = dropped;
        }
        // One of several does it; that two do while the lead changes does no harm.
        if !membership.leads() {
            return;
        }
        let now = on.clock.now();
        match on.store.give_up_traces(now - KEPT, now).await {
            Ok(0) => {}
            Ok(calls) => {
                on.metrics.calls_dropped.inc_by(calls);
                tracing::warn!(calls, "the spans of calls are given up: the collector took none for an hour");
            }
            Err(error) => tracing::warn!(error = %chain(&error), "old traces could not be given up"),
        }
        match on.store.overdue_traces(now - ended_for, LOOK_MAX).await {
            Ok(calls) => {
                if calls.len() == usize::from(LOOK_MAX) {
                    on.missed.store(true, Ordering::Relaxed);
                }
                self.overdue.extend(calls);
            }
            Err(error) => tracing::warn!(error = %chain(&error), "traces could not be looked for"),
        }
    }

    /// Logs that a post failed, but not each time.
    fn tell(&mut self, why: &str) {
        self.untold += 1;
        let now = Instant::now();
        if self.told_at.is_some_and(|told| now < told + TELL_EVERY) {
            return;
        }
        tracing::warn!(why, posts = self.untold, "traces were not taken; calls are not concerned");
        (self.untold, self.told_at) = (0, Some(now));
    }
}
