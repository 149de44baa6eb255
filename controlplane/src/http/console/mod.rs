//! The operators' console: pages rendered here, on the operators' door.
//!
//! A page is a row in [`routes`](super::routes), a handler, and a template that its type names; reading works without
//! script. Handlers hold no rules: they ask the registry and the store, and act through the same functions as
//! `/admin/v1`. Who may see a page is looked at before its handler runs ([`session`]), and a problem on the way
//! becomes a page ([`page`]). With script, the Fleet page is changed as the fleet changes ([`live`]).
//!
//! Everything shown may have been written by a stranger: templates escape it, and nothing is marked as safe but what
//! another template has rendered.

pub(in crate::http) mod assets;
mod attempts;
pub(in crate::http) mod audit;
pub(in crate::http) mod bans;
pub(in crate::http) mod calls;
mod confirm;
pub(in crate::http) mod customers;
pub(in crate::http) mod deliveries;
pub(in crate::http) mod explain;
pub(in crate::http) mod firewall;
pub(in crate::http) mod fleet;
pub(in crate::http) mod holds;
pub(in crate::http) mod incidents;
pub(in crate::http) mod live;
pub(in crate::http) mod node;
pub(in crate::http) mod notices;
pub(in crate::http) mod page;
pub(in crate::http) mod session;
pub(in crate::http) mod trunk;

use std::sync::Arc;

use tokio::task::AbortHandle;

use self::{attempts::Attempts, live::Live};
use crate::{clock::Chance, metrics::pulse::Pulse, registry::Registry};

/// What the console keeps between requests; sessions are in the database.
pub struct Console {
    /// The one feed of changes for all open pages.
    live: Arc<Live>,
    /// Sign-ins that were refused lately.
    attempts: Attempts,
    registry: Arc<Registry>,
    /// How calls went in the last hour.
    pulse: Arc<Pulse>,
}

impl Console {
    /// A console that nobody looks at yet.
    pub(crate) fn new(registry: Arc<Registry>, pulse: Arc<Pulse>, chance: &Chance) -> Arc<Self> {
        let live = Live::new(Arc::clone(&registry), chance);
        Arc::new(Self { live, attempts: Attempts::default(), registry, pulse })
    }

    /// Looks at the fleet for as long as somebody looks at the console, and all the time at how many calls there are.
    pub(crate) fn keep(&self) -> AbortHandle {
        let (live, pulse) = (Arc::clone(&self.live), Arc::clone(&self.pulse));
        let (live, pulse) = (live.keep(), pulse.keep(Arc::clone(&self.registry)));
        tokio::spawn(async move { tokio::join!(live, pulse) }).abort_handle()
    }

    /// Ends every stream.
    pub(crate) fn stop(&self) {
        self.live.stop();
    }
}
