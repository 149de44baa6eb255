//! Places for uploads: each holds a file in memory, and nobody may hold all of them.
//!
//! An organisation's first upload finds a place as long as there is any; its second only while most are free. How fast
//! a body has to come is in [`PACE`]: who sends slower is let go.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::ids::OrgId;

use super::{
    body::Pace,
    problem::{Code, Problem},
};

/// Uploads at a time, of all organisations: some 160 MB at the most.
const UPLOADS_MAX: usize = 16;
/// Uploads at a time up to which an organisation gets another one.
const SHARED_MAX: usize = 8;
/// Uploads of one organisation at a time.
const ORG_UPLOADS_MAX: usize = 2;
/// How a body has to come: the largest within the time, and never slower than a slow telephone network.
pub(super) const PACE: Pace =
    Pace { within: Duration::from_secs(120), grace: Duration::from_secs(5), bytes_per_s_min: 16 * 1024 };

/// See the module. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Uploads(Arc<Mutex<HashMap<OrgId, usize>>>);

/// A place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    uploads: Uploads,
    org: OrgId,
}

impl Uploads {
    fn held(&self) -> MutexGuard<'_, HashMap<OrgId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// Whose fault it is that there is none.
    pub(super) fn begin(&self, org: &OrgId) -> Result<Place, Problem> {
        let mut held = self.held();
        let (all, own) = (held.values().sum::<usize>(), held.get(org).copied().unwrap_or_default());
        if own >= ORG_UPLOADS_MAX || (own > 0 && all >= SHARED_MAX) {
            let text = "Other uploads of yours are under way. Nothing was kept; ask again when one is done.";
            return Err(Problem::new(Code::TooManyUploads, text));
        }
        if all >= UPLOADS_MAX {
            let text = "Too many uploads are under way. Nothing was kept; ask again.";
            return Err(Problem::new(Code::Unavailable, text));
        }
        *held.entry(org.clone()).or_default() += 1;
        Ok(Place { uploads: self.clone(), org: org.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.uploads.held();
        if let Some(own) = held.get_mut(&self.org) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.org);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn nobody_takes_all_places_and_the_first_upload_of_others_finds_one() {
        let mut rng = StdRng::seed_from_u64(1);
        let orgs: Vec<_> = (0..40).map(|_| OrgId::new(OffsetDateTime::UNIX_EPOCH, &mut rng)).collect();
        let uploads = Uploads::default();
        let flooder: Vec<_> = (0..8).filter_map(|_| uploads.begin(&orgs[0]).ok()).collect();
        assert_eq!(flooder.len(), ORG_UPLOADS_MAX);
        let first: Vec<_> = orgs[1..].iter().filter_map(|org| uploads.begin(org).ok()).collect();
        assert_eq!(flooder.len() + first.len(), UPLOADS_MAX);
        // Beyond half of them nobody gets a second one.
        assert!(uploads.begin(&orgs[1]).is_err());
        drop(first);
        assert!(uploads.begin(&orgs[0]).is_err());
        drop(flooder);
        let _two = [uploads.begin(&orgs[0]).unwrap(), uploads.begin(&orgs[0]).unwrap()];
        assert!(uploads.begin(&orgs[0]).is_err());
    }
}
