//! Times, and what share of them is below what.

/// In ms, shortest first.
pub(super) struct Spread(Vec<f64>);

impl Spread {
    pub(super) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Spread(all)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that so large a share of them does not exceed.
    pub(super) fn at(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12.2}{:>9.2}{:>9.2}", self.at(0.5), self.at(0.99), self.at(1.0))
    }
}
