//! Runs one Originate: feeds the machine with what the session's watch says, and does what it answers.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use controlplane_core::{
    attempt::{Attempt, Do, Event, Limits, Listening, Record, Settlement},
    call::{AttemptStatus, Rang},
    ending::{Ending, EndingClass, Reading},
    ids::CallId,
    request::{Acknowledgement, CallRequest, DetectionMode, Key, Keys},
};
use controlplane_store::calls::{Advance, Hear, Written};
use node_agent_ami::{ADMITTED_BEFORE, ChannelId, Originate, OriginateOutcome, Session, Watch, WatchItem};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Calls, Patience, news::translate, originate::originate, place::Place, reconcile};
use crate::{audio::Playable, registry::Assignment};

/// The dialplan ends an answered call at `time_limit_s`; this process does, if it has not, so much later.
const TALK_SLACK: Duration = Duration::from_secs(5);
/// Q.850 16, normal clearing.
const NORMAL_CLEARING: u16 = 16;

/// One attempt, as the shell carries it.
pub(super) struct Run<'a> {
    pub(super) calls: &'a Calls,
    /// The call, and under which claim it is driven; `None`: a canary, of which nothing is written.
    pub(super) call: Option<(&'a CallId, i64)>,
    pub(super) place: &'a Place<'a>,
    pub(super) request: &'a CallRequest,
    /// When its Originate left.
    pub(super) began: std::time::Instant,
    /// When it was written.
    pub(super) started_at: OffsetDateTime,
    /// Incarnation of Asterisk that it was or will be sent to.
    pub(super) sent_to: Option<&'a str>,
    /// Switched on when it rings: a canary that is for no more than that.
    pub(super) when_rung: Option<&'a watch::Sender<bool>>,
    pub(super) canceled: &'a mut watch::Receiver<bool>,
}

/// How long an attempt of this call may take.
pub(super) fn limits(request: &CallRequest, reconcile: Duration) -> Limits {
    Limits {
        progress: Duration::from_secs(request.progress_timeout_s.into()),
        ring: Duration::from_secs(request.ring_timeout_s.into()),
        talk: Duration::from_secs(request.time_limit_s.into()) + TALK_SLACK,
        reconcile,
    }
}

/// What an answered call of this kind is listened for.
pub(super) fn listening(request: &CallRequest) -> Listening {
    Listening {
        keys: request.acknowledgement.as_ref().map_or(Keys::NONE, Acknowledgement::deciding),
        machine: request.machine_detection.mode == DetectionMode::Detect,
    }
}

/// The session that tells of the attempt, and its watch there.
type Link = (Session, Arc<Watch>);

type Pending<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;

/// A slot's future, or none for ever.
async fn ready<T>(pending: &mut Pending<'_, T>) -> T {
    match pending {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// How an attempt ended.
pub(super) struct Ended {
    pub(super) ending: Ending,
    /// Nobody saw its channel go: it is hung up if it lives, or turns up on its node later.
    pub(super) may_live_on: bool,
}

/// What the shell has found out on the machine's behalf.
enum Found {
    Record(Event),
    Fate(reconcile::Found),
}

impl Run<'_> {
    /// Sends a new attempt and follows it to its end.
    pub(super) async fn send(mut self, plays: &Playable, to: &Assignment, reading: Reading) -> Ended {
        let request = self.request;
        let limits = limits(request, self.calls.patience.reconcile);
        let machine = Attempt::new(now(), limits, reading).listening(listening(request), None);
        let Ok(id) = ChannelId::parse(self.place.id.as_str()) else {
            return self.refused_here("the attempt's id is no channel id");
        };
        let originate = match originate(&id, request, plays, to) {
            Ok(originate) => originate,
            // Everything was parsed when it came in; what is left is a fleet file of a stricter version.
            Err(error) => return self.refused_here(&error.to_string()),
        };
        let Ok(watch) = to.session.watch(id.clone()) else {
            return self.refused_here("its channel id is watched already");
        };
        let session = to.session.clone();
        self.follow(machine, id, Some((session, Arc::new(watch))), Some(originate)).await
    }

    /// Takes up an attempt that an earlier process began.
    pub(super) async fn resume(mut self, machine: Attempt) -> Option<Ended> {
        #[cfg(feature = "planted-bugs")]
        if super::planted::is(super::planted::Bug::ReconcileOff) {
            return Some(super::planted::never_sent());
        }
        let id = ChannelId::parse(self.place.id.as_str()).ok()?;
        Some(self.follow(machine, id, None, None).await)
    }

    fn refused_here(&self, why: &str) -> Ended {
        tracing::error!(attempt = %self.place.id, why, "an attempt could not be put into an Originate");
        Ended { ending: Ending::without_answer(EndingClass::NotSent, Rang::No), may_live_on: false }
    }

    async fn follow(
        &mut self,
        mut machine: Attempt,
        id: ChannelId,
        mut link: Option<Link>,
        originate: Option<Originate>,
    ) -> Ended {
        let mut sending: Pending<'_, OriginateOutcome> = None;
        let mut looking: Pending<'_, Found> = None;
        let mut cancel_told = false;
        let mut rang_told = false;
        let mut answered_at = None;
        let mut reports = Reports::default();
        // One taken up may have rung and been answered long before.
        let is_new = originate.is_some();
        match (originate, &link) {
            (Some(originate), Some((session, watch))) => {
                let (session, watch) = (session.clone(), Arc::clone(watch));
                sending = Some(Box::pin(async move { session.originate(&originate, &watch).await }));
            }
            _ => looking = Some(self.look_for_fate(&id)),
        }
        loop {
            let todo = tokio::select! {
                biased;
                outcome = ready(&mut sending) => {
                    sending = None;
                    machine.handle(now(), self.sent(outcome))
                }
                item = next(&link) => match translate(&item) {
                    Some(event) => {
                        if event == Event::Cut {
                            link = None;
                        }
                        machine.handle(now(), event)
                    }
                    None => continue,
                },
                found = ready(&mut looking) => {
                    looking = None;
                    match found {
                        Found::Record(event) => {
                            if let Event::Recorded(Some(record)) = event {
                                self.learn_dialplan(&record);
                            }
                            machine.handle(now(), event)
                        }
                        Found::Fate(fate) => {
                            if let Settlement::Recorded(record) = fate.settlement {
                                self.learn_dialplan(&record);
                            }
                            link = fate.watch.map(|(session, watch)| (session, Arc::new(watch)));
                            machine.handle(now(), Event::Settled(fate.settlement))
                        }
                    }
                }
                () = until(self.due(&machine)) => {
                    // While this waited, its node came back or the process slept: both give more time.
                    if self.due(&machine).is_some_and(|due| due > now()) {
                        continue;
                    }
                    machine.on_deadline(now())
                }
                // Beside the machine: its time-outs run on while the database is away.
                () = ready(&mut reports.writing), if reports.writing.is_some() => {
                    reports.writing = reports.waiting.pop_front();
                    continue;
                }
                () = wanted(self.canceled), if !cancel_told => {
                    // Told once, as the switch stays on; the machine remembers.
                    cancel_told = true;
                    machine.handle(now(), Event::Cancel)
                }
            };
            if !rang_told && machine.rang() == Rang::Yes {
                rang_told = true;
                self.calls.registry.rang(now(), self.place.trunk, &self.request.to, self.began);
                if let Some(hang_up) = self.when_rung {
                    hang_up.send_replace(true);
                }
                if is_new && self.call.is_some() {
                    self.calls
                        .metrics
                        .fleet
                        .pdd(self.place.labels(), now().saturating_duration_since(self.began));
                }
            }
            for todo in todo {
                match todo {
                    Do::Report(status) => {
                        if status == AttemptStatus::InProgress && is_new && self.call.is_some() {
                            answered_at = Some(now());
                        }
                        reports.add(self.report(status, machine.rang()));
                    }
                    Do::Heard(key) => reports.add(self.heard(key)),
                    Do::HangUp => self.hang_up(&id, link.as_ref()),
                    Do::AskRecord => looking = Some(self.look_for_record(&id, link.as_ref())),
                    Do::Reconcile => {
                        sending = None;
                        link = None;
                        looking = Some(self.look_for_fate(&id));
                    }
                    Do::End(ending) => {
                        if let Some(answered_at) = answered_at {
                            self.calls
                                .metrics
                                .fleet
                                .talked(self.place.labels(), now().saturating_duration_since(answered_at));
                        }
                        reports.flush().await;
                        return Ended { ending, may_live_on: machine.may_live_on(&ending) };
                    }
                }
            }
        }
    }

    /// When the machine's deadline may be acted on.
    fn due(&self, machine: &Attempt) -> Option<std::time::Instant> {
        let (deadline, awake, now) = (machine.next_deadline()?, &self.calls.awake, now());
        if !machine.is_reconciling() {
            return Some(awake.due(deadline, now));
        }
        let Patience { reconcile, node_return, .. } = self.calls.patience;
        let session = self.calls.registry.session_since(self.place.node);
        Some(awake.reconcile_due(deadline, now, session, reconcile, node_return))
    }

    fn sent(&self, outcome: OriginateOutcome) -> Event {
        match outcome {
            OriginateOutcome::Accepted => Event::Accepted,
            OriginateOutcome::NotSent(why) => {
                tracing::warn!(attempt = %self.place.id, node = %self.place.node, %why, "not sent");
                Event::NotSent
            }
            OriginateOutcome::Rejected { message } if message.ends_with(ADMITTED_BEFORE) => {
                tracing::error!(attempt = %self.place.id, node = %self.place.node, "its Originate had gone through the gate before");
                Event::Unresolved
            }
            OriginateOutcome::Rejected { message } => {
                tracing::warn!(attempt = %self.place.id, node = %self.place.node, message, "Asterisk refused an Originate");
                Event::Rejected
            }
            OriginateOutcome::Unresolved(why) => {
                tracing::warn!(attempt = %self.place.id, node = %self.place.node, %why, "an Originate may or may not have arrived");
                Event::Unresolved
            }
        }
    }

    /// A record says of its dialplan whether that hears keys.
    fn learn_dialplan(&self, record: &Record) {
        self.calls.registry.hears_keys(self.place.node, record.tells_keys);
    }

    /// Does not wait: the machine waits for the channel's Hangup, not for this answer.
    fn hang_up(&self, id: &ChannelId, link: Option<&Link>) {
        let Some((session, _)) = link else { return };
        let (session, id, node) = (session.clone(), id.clone(), self.place.node.clone());
        tokio::spawn(async move {
            if let Err(error) = session.hangup(&id, NORMAL_CLEARING).await {
                tracing::warn!(%node, channel = %id, %error, "a hangup was not taken");
            }
        });
    }

    fn look_for_record<'a>(
        &self,
        id: &ChannelId,
        link: Option<&Link>,
    ) -> Pin<Box<dyn Future<Output = Found> + Send + 'a>> {
        let session = link.map(|(session, _)| session.clone());
        let id = id.clone();
        Box::pin(async move {
            let record = match session {
                Some(session) => reconcile::record(&session, &id).await,
                None => Ok(None),
            };
            match record {
                Ok(record) => Found::Record(Event::Recorded(record)),
                Err(error) => {
                    tracing::warn!(channel = %id, %error, "the flight recorder does not answer");
                    Found::Record(Event::Cut)
                }
            }
        })
    }
}

/// News on its way to the database, one after the other.
#[derive(Default)]
struct Reports<'r> {
    writing: Pending<'r, ()>,
    /// Bounded by the machine: each status once, each growth of what is known of ringing, one key.
    waiting: VecDeque<Pin<Box<dyn Future<Output = ()> + Send + 'r>>>,
}

impl<'r> Reports<'r> {
    fn add(&mut self, report: Pin<Box<dyn Future<Output = ()> + Send + 'r>>) {
        match self.writing {
            None => self.writing = Some(report),
            Some(_) => self.waiting.push_back(report),
        }
    }

    async fn flush(self) {
        for report in self.writing.into_iter().chain(self.waiting) {
            report.await;
        }
    }
}

impl<'r> Run<'r> {
    fn report(&self, status: AttemptStatus, rang: Rang) -> Pin<Box<dyn Future<Output = ()> + Send + 'r>> {
        let (calls, attempt) = (self.calls, self.place.id);
        let Some((call, epoch)) = self.call else { return Box::pin(std::future::ready(())) };
        let at = calls.clock.now();
        let event_id = calls.chance.event_id(at);
        let (call_id, attempt_id) = (call.clone(), attempt.clone());
        let advance = Advance { call: call_id, epoch, attempt: attempt_id, status, rang, at, event_id };
        Box::pin(async move {
            let written = calls.durably("advance an attempt", || calls.store.advance(advance.clone())).await;
            if written == Some(Written::AlreadyEnded) {
                tracing::error!(%call, %attempt, %status, "news of an attempt that had ended");
            }
        })
    }

    /// Written before anything else is decided by it: what a callee has pressed must outlive this process.
    fn heard(&self, key: Key) -> Pin<Box<dyn Future<Output = ()> + Send + 'r>> {
        let (calls, attempt) = (self.calls, self.place.id);
        let action = self.request.acknowledgement.as_ref().and_then(|wanted| wanted.meaning(key));
        let (Some((call, epoch)), Some(action)) = (self.call, action) else {
            return Box::pin(std::future::ready(()));
        };
        let at = calls.clock.now();
        let event_id = calls.chance.event_id(at);
        let hear = Hear { call: call.clone(), epoch, attempt: attempt.clone(), key, action, at, event_id };
        tracing::info!(%call, %attempt, %key, %action, "a key was pressed");
        Box::pin(async move {
            let written = calls.durably("hear a key", || calls.store.hear(hear.clone())).await;
            if written == Some(Written::AlreadyEnded) {
                tracing::error!(%call, %attempt, %key, "a key of an attempt that had ended");
            }
        })
    }

    fn look_for_fate(&self, id: &ChannelId) -> Pin<Box<dyn Future<Output = Found> + Send + 'r>> {
        let (calls, id) = (self.calls, id.clone());
        let lost = reconcile::Lost {
            node: self.place.node,
            attempt: self.place.id,
            started_at: self.started_at,
            began: self.began,
            sent_to: self.sent_to,
        };
        Box::pin(async move { Found::Fate(reconcile::settle(calls, lost, &id).await) })
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(Instant::from_std(deadline)).await,
        None => std::future::pending().await,
    }
}

async fn next(link: &Option<Link>) -> WatchItem {
    match link {
        Some((_, watch)) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Ends once, when the customer wants the call ended.
async fn wanted(canceled: &mut watch::Receiver<bool>) {
    if canceled.wait_for(|canceled| *canceled).await.is_err() {
        std::future::pending::<()>().await;
    }
}
