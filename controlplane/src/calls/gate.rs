//! Which waiting call asks for a trunk next, and what its organisation may have at a time.
//!
//! `controlplane_core::fair` decides; here calls wait for their turn. A call that was not tried yet joins the line of its
//! route, asks when it is first, and leaves with its trunk; where trunks are free that takes microseconds. Who was tried
//! already (failover) does not line up: its callee waits. In memory: after a restart calls line up anew, and the attempts that
//! are taken up count against the channels.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use controlplane_core::{
    fair::{Line, Place},
    ids::{AttemptId, OrgId},
    limits::OrgLimits,
    pacing::{Channels, Window},
};
use tokio::sync::Notify;

/// One line per route, by its prefix, while somebody waits. An open call has one place at most: [`super::OPEN_CALLS_MAX`].
#[derive(Default)]
pub(crate) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    lines: HashMap<String, Waiting>,
    orgs: HashMap<OrgId, Org>,
}

#[derive(Default)]
struct Waiting {
    line: Line,
    wakes: HashMap<Place, Arc<Notify>>,
    /// The latest change of the fleet after which all were asked again.
    seen: u64,
}

/// What an organisation has under way; kept while it has anything, or a pace to keep.
struct Org {
    window: Option<Window>,
    channels: Channels,
}

impl Gate {
    /// A place in the line of a route.
    pub(super) fn join(self: &Arc<Self>, route: String, org: &OrgId, weight: u32, place: Place) -> InLine {
        let wake = Arc::new(Notify::new());
        let mut state = self.state();
        let waiting = state.lines.entry(route.clone()).or_default();
        waiting.line.join(org, weight, place.clone());
        waiting.wakes.insert(place.clone(), Arc::clone(&wake));
        drop(state);
        InLine { gate: Arc::clone(self), route, org: org.clone(), place, wake }
    }

    /// Takes what an attempt needs of its organisation's limits. `Err`: when to ask again; `None`: when one ends.
    pub(super) fn start(
        self: &Arc<Self>,
        org: &OrgId,
        limits: &OrgLimits,
        attempt: &AttemptId,
        now: Instant,
    ) -> Result<Started, Option<Instant>> {
        let mut state = self.state();
        let of = state
            .orgs
            .entry(org.clone())
            .or_insert_with(|| Org { window: None, channels: Channels::default() });
        of.channels.set_max(limits.channels_max);
        match (limits.cps_max, &mut of.window) {
            (None, window) => *window = None,
            (Some(max), Some(window)) => window.set_max(max),
            (Some(max), window @ None) => *window = Some(Window::new(max)),
        }
        of.channels.check().map_err(|_| None)?;
        if let Some(window) = &of.window {
            window.check(now).map_err(Some)?;
        }
        // Checked above, under the same lock.
        let _ = of.channels.acquire(attempt);
        let at = of.window.as_mut().map(|window| window.take(now));
        drop(state);
        Ok(Started { gate: Arc::clone(self), org: org.clone(), attempt: attempt.clone(), at })
    }

    /// Counts an attempt that an earlier process left open.
    pub(super) fn adopt(self: &Arc<Self>, org: &OrgId, attempt: &AttemptId) -> Started {
        let mut state = self.state();
        let of = state
            .orgs
            .entry(org.clone())
            .or_insert_with(|| Org { window: None, channels: Channels::default() });
        of.channels.adopt(attempt);
        drop(state);
        Started { gate: Arc::clone(self), org: org.clone(), attempt: attempt.clone(), at: None }
    }

    /// How many attempts of an organisation are under way.
    pub(crate) fn channels(&self, org: &OrgId) -> usize {
        self.state().orgs.get(org).map_or(0, |of| of.channels.held())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn wake_first(&self) {
        if let Some(wake) = self.line.first().and_then(|place| self.wakes.get(place)) {
            // One that knows it already only looks once more.
            wake.notify_one();
        }
    }
}

/// What an attempt holds of its organisation's limits; given back when dropped.
pub(super) struct Started {
    gate: Arc<Gate>,
    org: OrgId,
    attempt: AttemptId,
    /// By what the window knows it.
    at: Option<Instant>,
}

impl Started {
    /// It has not left after all: its start counts against no pace.
    pub(super) fn not_sent(&self) {
        let mut state = self.gate.state();
        let window = state.orgs.get_mut(&self.org).and_then(|of| of.window.as_mut());
        if let (Some(window), Some(at)) = (window, self.at) {
            window.give_back(at);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        let Some(of) = state.orgs.get_mut(&self.org) else { return };
        of.channels.release(&self.attempt);
        if of.channels.held() == 0 && of.window.is_none() {
            state.orgs.remove(&self.org);
        }
    }
}

/// A place in a line; left when dropped.
pub(super) struct InLine {
    gate: Arc<Gate>,
    route: String,
    org: OrgId,
    place: Place,
    wake: Arc<Notify>,
}

impl InLine {
    /// Whether it may ask now.
    pub(super) fn is_first(&self) -> bool {
        self.gate
            .state()
            .lines
            .get(&self.route)
            .is_none_or(|waiting| waiting.line.first() == Some(&self.place))
    }

    /// Returns when it may be first.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// It got its trunk.
    pub(super) fn served(self) {
        self.with(|waiting, org, place| waiting.line.served(org, place));
    }

    /// No trunk takes it now; the next one is asked.
    pub(super) fn refused(&self) {
        self.with(|waiting, _, place| waiting.line.refused(place.clone()));
    }

    /// It met a limit of its organisation, and waits for that on behalf of all its calls.
    pub(super) fn held(&self) {
        self.with(|waiting, org, place| waiting.line.held(org, place));
    }

    /// It was woken for whatever reason, and looks once more.
    pub(super) fn woke(&self) {
        self.with(|waiting, org, place| waiting.line.freed(org, place));
    }

    /// It has waited: for a moment, or until the `change` of the fleet that this is.
    pub(super) fn waited(&self, change: Option<u64>) {
        self.with(|waiting, org, place| {
            waiting.line.freed(org, place);
            if change.is_none_or(|change| change > waiting.seen) {
                waiting.line.renew();
                waiting.seen = change.unwrap_or(waiting.seen);
            }
        });
    }

    fn with(&self, change: impl FnOnce(&mut Waiting, &OrgId, &Place)) {
        let mut state = self.gate.state();
        let Some(waiting) = state.lines.get_mut(&self.route) else { return };
        change(waiting, &self.org, &self.place);
        // Who changes something looks next anyway. A wake kept for it would be one to ask again at once, for ever.
        if waiting.line.first() != Some(&self.place) {
            waiting.wake_first();
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        let Some(waiting) = state.lines.get_mut(&self.route) else { return };
        waiting.line.leave(&self.org, &self.place);
        waiting.wakes.remove(&self.place);
        waiting.wake_first();
        if waiting.line.is_empty() {
            state.lines.remove(&self.route);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use controlplane_core::{ids::CallId, request::Priority};
    use rand::{SeedableRng, rngs::StdRng};
    use time::macros::datetime;
    use tokio::time::timeout;

    use super::*;

    fn place(age: u64) -> Place {
        let at = datetime!(2026-11-24 12:00 UTC) + Duration::from_millis(age);
        (Priority::Normal, CallId::new(at, &mut StdRng::seed_from_u64(age)))
    }

    fn join(gate: &Arc<Gate>, org: &OrgId, age: u64) -> InLine {
        gate.join("+".to_owned(), org, 1, place(age))
    }

    async fn is_woken(line: &InLine) -> bool {
        timeout(Duration::from_millis(1), line.woken()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_wakes_the_next_and_a_line_without_anybody_is_gone() {
        let (gate, org) = (Arc::new(Gate::default()), OrgId::first());
        let (first, second, third) = (join(&gate, &org, 0), join(&gate, &org, 1), join(&gate, &org, 2));
        assert_eq!((first.is_first(), second.is_first(), third.is_first()), (true, false, false));
        first.served();
        assert!(second.is_first() && is_woken(&second).await && !is_woken(&third).await);
        second.refused();
        assert!(third.is_first() && is_woken(&third).await);
        third.refused();
        assert!(!second.is_first() && !third.is_first());
        // A change of the fleet: all are asked again, the oldest first. The same change twice is one.
        third.waited(Some(7));
        assert!(second.is_first() && is_woken(&second).await);
        second.refused();
        second.waited(Some(7));
        assert!(second.is_first(), "it has waited");
        drop((second, third));
        assert!(gate.state().lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_organisation_at_its_limit_keeps_nobody_else_back() {
        let gate = Arc::new(Gate::default());
        let (first, other) = (OrgId::first(), "org_00000000000000000000000004".parse().unwrap());
        let (held, behind, free) = (join(&gate, &first, 0), join(&gate, &first, 1), join(&gate, &other, 2));
        held.held();
        assert!(!behind.is_first() && free.is_first() && is_woken(&free).await);
        free.served();
        assert!(!behind.is_first(), "one waits for the limit on behalf of all");
        held.woke();
        assert!(held.is_first());
        held.held();
        drop(held);
        assert!(behind.is_first() && is_woken(&behind).await);
    }

    /// Otherwise it would ask again and again, and nobody else would run.
    #[tokio::test(start_paused = true)]
    async fn nobody_wakes_themselves() {
        let (gate, org) = (Arc::new(Gate::default()), OrgId::first());
        let line = join(&gate, &org, 0);
        let ways: [fn(&InLine); 4] =
            [InLine::refused, InLine::held, InLine::woke, |line: &InLine| line.waited(Some(7))];
        for way in ways {
            way(&line);
            assert!(!is_woken(&line).await);
        }
        assert!(line.is_first());
    }

    #[test]
    fn channels_and_pace_are_taken_together_and_given_back() {
        let (gate, org) = (Arc::new(Gate::default()), OrgId::first());
        let mut rng = StdRng::seed_from_u64(1);
        let mut id = || AttemptId::new(&mut rng);
        let limits = OrgLimits { channels_max: Some(2), cps_max: Some(2), ..OrgLimits::default() };
        let now = tokio::time::Instant::now().into_std();
        let first = gate.start(&org, &limits, &id(), now).ok().unwrap();
        let second = gate.start(&org, &limits, &id(), now).ok().unwrap();
        assert_eq!(gate.start(&org, &limits, &id(), now).err(), Some(None), "a channel must end first");
        drop(first);
        let at = now + Duration::from_secs(1);
        assert_eq!(gate.start(&org, &limits, &id(), now).err(), Some(Some(at)));
        second.not_sent();
        drop(second);
        assert!(gate.start(&org, &limits, &id(), now).is_ok(), "what was not sent counts against no pace");
        assert_eq!(gate.channels(&org), 0);
        let adopted = gate.adopt(&org, &id());
        assert_eq!(gate.channels(&org), 1);
        drop(adopted);
        assert!(gate.start(&org, &OrgLimits::default(), &id(), at).is_ok());
        assert!(gate.state().orgs.is_empty(), "nothing is kept of an organisation without limits");
    }
}
