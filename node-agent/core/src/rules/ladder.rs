//! How long the next ban is: repeaters climb, and time brings them down again.

use std::collections::HashMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{moment::UnixMs, offence::Source};

/// Who was banned before, for the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remembered {
    /// /32 or /64.
    pub net: IpNet,
    /// How high on the ladder.
    pub steps: u8,
    /// The end of the last ban.
    pub since: UnixMs,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    /// Bans so far, less what was forgotten.
    steps: u8,
    /// The end of the last ban.
    since: UnixMs,
}

/// Who was banned before. Only bans make entries, and bans are bounded per minute.
#[derive(Debug)]
pub(super) struct History {
    past: HashMap<Source, Past>,
    max: usize,
}

impl History {
    pub(super) fn new(sources_max: u32) -> Self {
        Self { past: HashMap::new(), max: sources_max as usize }
    }

    /// At most; a hash map takes up to twice what is in it.
    pub(super) fn bytes_max(&self) -> usize {
        self.max * 2 * (size_of::<(Source, Past)>() + 1)
    }

    pub(super) fn forget(&mut self, source: Source) {
        self.past.remove(&source);
    }

    pub(super) fn all(&self) -> Vec<Remembered> {
        let remembered = |(source, past): (&Source, &Past)| Remembered {
            net: source.net(),
            steps: past.steps,
            since: past.since,
        };
        let mut all: Vec<_> = self.past.iter().map(remembered).collect();
        all.sort_by_key(|of| of.net);
        all
    }

    pub(super) fn recall(&mut self, remembered: impl IntoIterator<Item = Remembered>) {
        for Remembered { net, steps, since } in remembered {
            if let Some(source) = Source::of(net.addr()) {
                self.make_room(source);
                self.past.insert(source, Past { steps, since });
            }
        }
    }

    /// Whether its last ban still lasts.
    pub(super) fn is_banned(&self, source: Source, now: UnixMs) -> bool {
        self.past.get(&source).is_some_and(|past| now < past.since)
    }

    /// The step (from 1) and the seconds of a ban that begins now. Each `forget_s` without a ban takes one step
    /// back.
    pub(super) fn next(&mut self, source: Source, ladder: &[u32], forget_s: u32, now: UnixMs) -> (u8, u32) {
        let forgotten = |past: &Past| now.since_ms(past.since) / (u64::from(forget_s).max(1) * 1000);
        let steps = self
            .past
            .get(&source)
            .map_or(0, |past| past.steps.saturating_sub(u8::try_from(forgotten(past)).unwrap_or(u8::MAX)));
        let last = ladder.len().saturating_sub(1);
        let seconds = ladder.get(usize::from(steps).min(last)).copied().unwrap_or_default();
        let step = steps.saturating_add(1);
        self.make_room(source);
        // A ban climbs no higher than its ladder, or forgetting would take for ever.
        let steps = steps.max(step.min(u8::try_from(ladder.len()).unwrap_or(u8::MAX)));
        self.past.insert(source, Past { steps, since: now.plus_s(u64::from(seconds)) });
        (step, seconds)
    }

    fn make_room(&mut self, source: Source) {
        if self.past.len() < self.max || self.past.contains_key(&source) {
            return;
        }
        let least = self.past.iter().min_by_key(|(source, past)| (past.steps, past.since, **source));
        if let Some(least) = least.map(|(source, _)| *source) {
            self.past.remove(&least);
        }
    }
}
