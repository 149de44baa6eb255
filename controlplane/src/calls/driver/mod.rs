//! What a call does next, trunk by trunk, until its one end.
//!
//! A trunk is tried once. Two kinds of endings leave it worth another try when no other trunk is left: what
//! certainly sent nothing (a PBX that was just restarting), and, where the customer asked for at least one
//! ring, what may not have arrived. Such tries go on for as long as [`super::Patience::trunk`] and the
//! customer's `attempts_max` allow.
//!
//! All of this is one round. What the customer's `redial` names begins another one later, with all trunks and attempts
//! anew. That a round is over, and what follows it, is one write: a process that dies before it finds the attempt open,
//! one that dies after it finds the call waiting, or ended.

mod asking;
mod begin;
mod choosing;
mod rehearsal;
mod resuming;
mod rounds;

use std::time::Duration;

use controlplane_core::{
    access::Mode,
    call::Reason,
    ending::{Ending, EndingClass, Reading},
    failover::{self, Next, Policy},
    fleet::{OnRefusal, Trunk},
    health::{self, Destination, Load, Party},
    ids::AttemptId,
    selection::Tried,
};
use controlplane_store::calls::{Call, EndAttempt, Follows};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

pub(super) use self::begin::ACCOUNT_AGAIN;
use self::{asking::Asked, choosing::Wait, rounds::Window};
use super::{
    Calls,
    attempt::{Ended, Run},
    gate::{InLine, Started},
    place::{Place, Slots},
    turns::Turn,
};
use crate::{
    audio::{PLACE_MAX, Playable, TextInUse},
    registry::Assignment,
    replicas,
};

/// First wait before trunks are tried again that sent nothing; doubled up to [`choosing::AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_millis(250);

/// Follows a call to its end. Returns when the end is durable, or when the database refuses a write for good:
/// then the scan for calls without a task comes back to it.
pub(super) async fn drive(calls: &Calls, call: Call, canceled: watch::Receiver<bool>) {
    #[cfg(feature = "planted-bugs")]
    let call = if super::planted::is(super::planted::Bug::RoundsForgotten) {
        super::planted::without_rounds(call)
    } else {
        call
    };
    let mut driver = Driver {
        calls,
        call,
        canceled,
        tried: Tried::default(),
        spent: Tried::default(),
        endings: Vec::new(),
        earlier: Vec::new(),
        again: AGAIN_MIN,
        nothing_left_since: None,
        unusable_since: None,
        window: Window::Unasked,
        turn: None,
        was_held: false,
        in_line: None,
        plays: None,
        _in_use: None,
        is_unplaced: false,
        late: Reason::DeadlineExceeded,
    };
    if driver.take_up().await == Step::Ended {
        return;
    }
    while let Some(reason) = driver.next_end().await {
        if driver.close(reason).await == Step::Ended {
            return;
        }
    }
}

struct Driver<'a> {
    calls: &'a Calls,
    call: Call,
    canceled: watch::Receiver<bool>,
    /// Passed over now.
    tried: Tried,
    /// Passed over for good.
    spent: Tried,
    /// How this round's attempts ended, in order.
    endings: Vec<EndingClass>,
    /// How those of the rounds before ended.
    earlier: Vec<EndingClass>,
    /// Next wait before `tried` becomes `spent` again.
    again: Duration,
    nothing_left_since: Option<Instant>,
    unusable_since: Option<Instant>,
    /// What is known of its number's windows.
    window: Window,
    /// Its place among the calls that are to dial its number.
    turn: Option<Turn>,
    /// Whether a window of its number has held it back before that.
    was_held: bool,
    /// Its place among the calls that wait for a trunk of its route.
    in_line: Option<InLine>,
    /// What it plays, once that is there.
    plays: Option<Playable>,
    /// Keeps it.
    _in_use: Option<TextInUse>,
    /// Whether the last node that could have been tried could not get what it plays.
    is_unplaced: bool,
    /// Why it ends if its deadline comes now.
    late: Reason,
}

/// How an attempt was sent.
#[derive(Clone, Copy)]
struct Sent {
    /// When its Originate left.
    began: std::time::Instant,
    /// How busy trunk and carrier were.
    load: Load,
}

/// What follows an attempt.
#[derive(PartialEq, Eq)]
enum Step {
    /// Another trunk, or another round.
    Next,
    /// The call is over, and that is written; or it is for the scan to come back to it.
    Ended,
}

impl Driver<'_> {
    /// As [`Driver::run`], or only rehearsed: what a test key asks for never comes near a trunk.
    async fn next_end(&mut self) -> Option<Reason> {
        match self.call.mode {
            Mode::Live => self.run().await,
            Mode::Test => self.rehearse().await,
        }
    }

    /// `Some`: the call ends so, without an attempt under way. `None`: nothing is left to write.
    async fn run(&mut self) -> Option<Reason> {
        let mut changes = self.calls.registry.changes();
        loop {
            if self.is_canceled() {
                return Some(Reason::Api);
            }
            let now = Instant::now();
            let deadline = self.at(self.call.deadline_at, now);
            if now >= deadline {
                return Some(self.late);
            }
            if self.calls.held.is_held(&self.call.id) {
                self.wait_until_released(deadline).await;
                continue;
            }
            let Some(plays) = self.plays.clone() else {
                if let Err(reason) = self.find_what_plays(deadline).await {
                    return Some(reason);
                }
                continue;
            };
            if !self.may_begin(now, deadline).await {
                continue;
            }
            if !self.may_ask(deadline).await {
                continue;
            }
            let (id, now) = (self.calls.chance.attempt_id(), Instant::now());
            changes.borrow_and_update();
            let wait = match self.ask(&plays, &id, now) {
                Asked::Trunk(to, started) => {
                    self.unusable_since = None;
                    if self.attempt(&id, &plays, &to, started).await == Step::Ended {
                        return None;
                    }
                    continue;
                }
                Asked::Wait(wait) => wait,
            };
            match wait {
                Wait::End(reason) => return Some(reason),
                Wait::Until(until) => self.wait(until.min(deadline), &mut changes).await,
                Wait::Pause(until) => self.pause(until.min(deadline)).await,
            }
        }
    }

    /// Waits until then, or until the call is canceled.
    async fn pause(&mut self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            _ = self.canceled.changed() => {}
        }
    }

    /// Waits until an operator lets it go on, or until it is canceled or late.
    async fn wait_until_released(&mut self, deadline: Instant) {
        tokio::select! {
            () = self.calls.held.released(&self.call.id) => {}
            () = sleep_until(deadline) => {}
            _ = self.canceled.changed() => {}
        }
    }

    fn is_canceled(&self) -> bool {
        self.call.cancel_requested_at.is_some() || *self.canceled.borrow()
    }

    /// What the call plays: a text is spoken now. `Err`: the call ends so.
    async fn find_what_plays(&mut self, deadline: Instant) -> Result<(), Reason> {
        let audio = &self.calls.audio;
        let found = tokio::select! {
            biased;
            _ = self.canceled.wait_for(|canceled| *canceled) => return Err(Reason::Api),
            found = audio.ready(&self.call.org, &self.call.request.message.content) => found,
            () = sleep_until(deadline) => return Err(Reason::MediaError),
        };
        let (plays, in_use) = found.map_err(|error| {
            tracing::warn!(call = %self.call.id, %error, "there is nothing to play");
            Reason::MediaError
        })?;
        audio.placing().ahead(&self.call.request.to, &plays);
        (self.plays, self._in_use) = (Some(plays), in_use);
        Ok(())
    }

    /// A moment by the clock that waits; one that has passed is now.
    fn at(&self, moment: OffsetDateTime, now: Instant) -> Instant {
        now + Duration::try_from(moment - self.calls.clock.now()).unwrap_or_default()
    }

    async fn attempt(&mut self, id: &AttemptId, plays: &Playable, to: &Assignment, started: Started) -> Step {
        let trunk = &to.trunk;
        let place = Place::on(trunk, id);
        let _slots = Slots { registry: &self.calls.registry, place: &place };
        // Given back before the slots are, which tells those that wait.
        let started = started;
        let _playing = self.calls.audio.placing().playing(plays);
        let placed = tokio::select! {
            biased;
            placed = self.calls.audio.placing().place(&trunk.node, plays, PLACE_MAX) => placed,
            _ = self.canceled.wait_for(|canceled| *canceled) => {
                self.calls.registry.not_sent(to);
                started.not_sent();
                return Step::Next;
            }
        };
        self.is_unplaced = placed.is_err();
        if let Err(error) = placed {
            // Nothing was sent, and nothing is written: another node may have it.
            tracing::warn!(call = %self.call.id, node = %trunk.node, %error, "a node cannot play the call's sound");
            self.calls.registry.not_sent(to);
            started.not_sent();
            self.tried.pass_over_node(&trunk.node, &self.calls.registry.fleet().0);
            self.leave_turn();
            return Step::Next;
        }
        let at = match self.begin(&place, Some(to)).await {
            Ok(at) => at,
            Err(step) => {
                self.calls.registry.not_sent(to);
                started.not_sent();
                return step;
            }
        };
        if self.endings.is_empty() && self.earlier.is_empty() {
            self.calls.metrics.setup((at - self.call.created_at).as_seconds_f64());
        }
        tracing::info!(call = %self.call.id, attempt = %id, node = %trunk.node, trunk = %trunk.name,
            to = ?self.call.request.to, "dialling");
        let sent = Sent { began: Instant::now().into_std(), load: to.load };
        let run = Run {
            calls: self.calls,
            call: Some((&self.call.id, self.call.claim.epoch)),
            place: &place,
            request: &self.call.request,
            began: sent.began,
            started_at: at,
            sent_to: Some(to.incarnation.as_str()),
            when_rung: None,
            canceled: &mut self.canceled,
        };
        let reading = Reading { early_media: trunk.early_media, timer_b: to.timer_b };
        let ended = run.send(plays, to, reading).await;
        self.ended(&place, sent, ended).await
    }

    /// Decides what follows an ending, and makes both durable together.
    async fn ended(&mut self, place: &Place<'_>, sent: Sent, Ended { ending, may_live_on }: Ended) -> Step {
        // Before anything else is chosen, here or for another call.
        let evidence = self.evidence(place, sent, ending);
        self.calls.membership.saw(|| replicas::Ended {
            trunk: place.trunk.clone(),
            node: place.node.clone(),
            call: evidence.clone(),
        });
        let charge =
            self.calls.registry.call_ended(Instant::now().into_std(), place.trunk, place.node, evidence);
        let believe = |say: fn(&Trunk) -> OnRefusal| place.declared.map_or(OnRefusal::Stop, say);
        let policy = Policy {
            request: &self.call.request,
            canceled: self.is_canceled(),
            on_480: believe(|trunk| trunk.on_480),
            on_603: believe(|trunk| trunk.on_603),
        };
        let next = failover::next(&ending, &self.endings, policy);
        let next = self.decided().map_or(next, Next::Stop);
        let at = self.calls.clock.now();
        // Where others share the database, another one may drive its channel by now: only the write below tells. Who has the
        // database alone does not wait for it.
        let is_shared = self.calls.membership.me().is_some();
        if may_live_on && !is_shared {
            self.calls.registry.abandon(place.node, place.id.clone(), at);
        }
        self.calls.metrics.fleet.attempt_ended(place.node, place.trunk, place.carrier, ending.class);
        self.endings.push(ending.class);
        self.pass_over(place, ending.class);
        let follows = match next {
            Next::Other => Follows::Attempt,
            Next::Stop(reason) => self.after_round(reason, at),
        };
        tracing::info!(call = %self.call.id, attempt = %place.id, node = %place.node, trunk = %place.trunk,
            ending = %ending.class, rang = %ending.rang, sip = ending.sip_code, q850 = ending.q850, %charge, follows = ?follows,
            "attempt ended");
        let end = EndAttempt {
            call: self.call.id.clone(),
            epoch: self.call.claim.epoch,
            attempt: place.id.clone(),
            ending: ending.class,
            sip_code: ending.sip_code,
            q850: ending.q850,
            rang: ending.rang,
            talk: ending.talk,
            at,
            follows,
            event_id: self.calls.chance.event_id(at),
        };
        let written = self.write_end(&end).await;
        if may_live_on && is_shared && written.is_some() {
            // Nobody else goes on with it: what turns up of it is hung up from here.
            self.calls.registry.abandon(place.node, place.id.clone(), at);
        }
        self.after_end(written, end.follows)
    }

    /// What an ending tells of its trunk's health.
    fn evidence(&self, place: &Place<'_>, sent: Sent, ending: Ending) -> health::Call {
        let request = &self.call.request;
        health::Call {
            ending,
            began: sent.began,
            waited: Duration::from_secs(request.progress_timeout_s.into()),
            party: Party::Org(self.call.org.clone()),
            destination: Destination::of(&request.to),
            caller: request.from.clone().or_else(|| place.declared?.caller_ids.first().cloned()),
            load: sent.load,
        }
    }
}
