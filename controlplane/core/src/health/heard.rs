//! When the carrier was last heard in calls: the witness against silence.

use serde::{Deserialize, Serialize};

use super::{Destination, moment::Moment};

/// When the carrier was last heard in calls: of any destination, and of another one than that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Heard {
    last: Option<(Destination, Moment)>,
    other: Option<(Destination, Moment)>,
}

impl Heard {
    pub(super) fn note(&mut self, destination: &Destination, at: Moment) {
        if self.last.as_ref().is_some_and(|(d, _)| d != destination) {
            self.other = self.last.take();
        }
        self.last = Some((destination.clone(), at));
    }

    pub(super) fn since(&self, moment: Moment) -> bool {
        self.last.as_ref().is_some_and(|(_, at)| *at > moment)
    }

    /// When another destination was heard last.
    pub(super) fn elsewhere(&self, destination: &Destination) -> Option<Moment> {
        let both = [&self.last, &self.other].into_iter().flatten();
        both.filter(|(d, _)| d != destination).map(|(_, at)| *at).max()
    }
}
