//! Open event streams: how many each organisation has, and who is woken when it has news.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use controlplane_core::ids::OrgId;
use prometheus::IntGauge;
use tokio::sync::watch;

/// Open streams of one organisation.
pub(crate) const STREAMS_PER_ORG: usize = 20;
/// Open streams of all.
const STREAMS_MAX: usize = 1_000;

struct Watched {
    news: watch::Sender<u64>,
    open: usize,
}

/// Every open stream.
pub(crate) struct Streams {
    orgs: Mutex<HashMap<OrgId, Watched>>,
    stop: watch::Sender<bool>,
    keys: watch::Sender<u64>,
    open: IntGauge,
}

/// A place among the streams, given back when it is dropped.
pub(crate) struct Place {
    streams: Arc<Streams>,
    org: OrgId,
    /// Changes when the organisation may have news.
    pub(crate) news: watch::Receiver<u64>,
    /// Changes when a key may open nothing any more.
    pub(crate) keys: watch::Receiver<u64>,
    /// True when the program stops.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Streams {
    pub(super) fn new(open: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            orgs: Mutex::default(),
            stop: watch::Sender::new(false),
            keys: watch::Sender::new(0),
            open,
        })
    }

    /// A place for one more stream. `None`: there are too many.
    pub(crate) fn open(self: &Arc<Self>, org: &OrgId) -> Option<Place> {
        let mut orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        if orgs.values().map(|watched| watched.open).sum::<usize>() >= STREAMS_MAX {
            return None;
        }
        let watched =
            orgs.entry(org.clone()).or_insert_with(|| Watched { news: watch::Sender::new(0), open: 0 });
        if watched.open >= STREAMS_PER_ORG {
            return None;
        }
        watched.open += 1;
        self.open.inc();
        let (news, stop) = (watched.news.subscribe(), self.stop.subscribe());
        let keys = self.keys.subscribe();
        Some(Place { streams: Arc::clone(self), org: org.clone(), news, keys, stop })
    }

    /// These organisations may have news.
    pub(super) fn wake(&self, news: &[OrgId]) {
        let orgs = self.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        for watched in news.iter().filter_map(|org| orgs.get(org)) {
            watched.news.send_modify(|count| *count += 1);
        }
    }

    /// Keys were revoked, or an organisation was suspended: every stream looks at its own.
    pub(crate) fn keys_changed(&self) {
        self.keys.send_modify(|count| *count += 1);
    }

    /// Changes when a key may open nothing any more.
    pub(crate) fn key_news(&self) -> watch::Receiver<u64> {
        self.keys.subscribe()
    }

    /// Ends every stream: its reader resumes where it was.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.open.dec();
        let mut orgs = self.streams.orgs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = orgs.get_mut(&self.org) {
            watched.open -= 1;
            if watched.open == 0 {
                orgs.remove(&self.org);
            }
        }
    }
}
