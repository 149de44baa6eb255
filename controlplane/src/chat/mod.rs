//! Tells operators' chat what changed: gathered by `controlplane_core::chat`, posted as webhooks are, with their guard against
//! inner addresses and, where a secret is set, their signature.
//!
//! In memory only: what was not delivered within a quarter of an hour, or before a restart, is told by the next look at the
//! fleet (`ringward status`) and not by chat. Without a destination nothing is kept at all.

mod looks;

use std::{
    fmt::Display,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::chat::{Change, Gathering, Message};
use controlplane_store::{Store, StoreError};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    agents::Links,
    calls::chain,
    clock::{Chance, Clock},
    doors::DoorMetrics,
    settings::{ChatSettings, Destination},
    webhooks::{SecretError, Webhooks, secret_of},
};

/// Before each try of one message but the first.
const WAITS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600)];
/// Messages that wait for one destination; there is one a minute at most.
const QUEUE_MAX: usize = 30;

/// A destination's secret cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("chat: secret_file {}: {source}", path.display())]
pub struct ChatError {
    path: PathBuf,
    source: SecretError,
}

/// Where messages go.
struct To {
    url: String,
    secret: Option<crate::webhooks::OpenedSecrets>,
}

impl Display for To {
    /// Without its path, which is a secret with many chat systems.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = reqwest::Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned));
        f.write_str(host.as_deref().unwrap_or("an address that cannot be read"))
    }
}

/// See the module.
pub struct Chat {
    to: Vec<Arc<To>>,
    bans_max: u16,
    bans_every: Duration,
    store: Arc<dyn Store>,
    gathering: Mutex<Gathering>,
    work: Notify,
    webhooks: Arc<Webhooks>,
    clock: Clock,
    chance: Chance,
}

impl Chat {
    /// Reads the secrets. Nothing is sent yet; `keep` does that.
    ///
    /// # Errors
    /// A secret that cannot be read.
    pub fn new(
        settings: &ChatSettings,
        store: Arc<dyn Store>,
        webhooks: Arc<Webhooks>,
        clock: Clock,
        chance: Chance,
    ) -> Result<Arc<Self>, ChatError> {
        let to = |Destination { url, secret_file }: &Destination| {
            let secret =
                |path: &PathBuf| secret_of(path).map_err(|source| ChatError { path: path.clone(), source });
            Ok(Arc::new(To { url: url.clone(), secret: secret_file.as_ref().map(secret).transpose()? }))
        };
        let to = settings.destinations.iter().map(to).collect::<Result<_, _>>()?;
        let (gathering, work) = (Mutex::default(), Notify::new());
        let (bans_max, bans_every) = (settings.bans_max, Duration::from_secs(settings.bans_every_s.into()));
        Ok(Arc::new(Self { to, bans_max, bans_every, store, gathering, work, webhooks, clock, chance }))
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is told to anybody.
    pub(crate) fn has_anybody(&self) -> bool {
        !self.to.is_empty()
    }

    /// Something changed that operators may want to hear of.
    pub(crate) fn note(&self, change: impl FnOnce() -> Option<Change>) {
        if self.to.is_empty() {
            return;
        }
        let Some(change) = change() else { return };
        self.gathering().note(Instant::now().into_std(), change);
        self.work.notify_one();
    }

    /// Gathers and sends for as long as the program runs; nothing where there is no destination.
    #[must_use]
    pub(crate) fn keep(self: &Arc<Self>, links: &Arc<Links>, doors: DoorMetrics) -> Vec<AbortHandle> {
        if self.to.is_empty() {
            return Vec::new();
        }
        let (queues, mut tasks): (Vec<_>, Vec<_>) = self
            .to
            .iter()
            .map(|to| {
                let (queue, waiting) = mpsc::channel(QUEUE_MAX);
                (queue, tokio::spawn(Arc::clone(self).send(Arc::clone(to), waiting)).abort_handle())
            })
            .unzip();
        tasks.push(tokio::spawn(Arc::clone(self).gather(queues)).abort_handle());
        tasks.push(looks::keep(Arc::clone(self), Arc::clone(links), doors));
        tasks
    }

    async fn gather(self: Arc<Self>, queues: Vec<mpsc::Sender<Arc<Message>>>) {
        loop {
            let due = self.gathering().due();
            match due {
                None => self.work.notified().await,
                Some(due) => sleep_until(Instant::from_std(due)).await,
            }
            let message = self.gathering().take(Instant::now().into_std());
            let Some(message) = message.map(Arc::new) else { continue };
            for queue in &queues {
                if queue.try_send(Arc::clone(&message)).is_err() {
                    tracing::warn!("chat: a message is dropped, since too many wait for their destination");
                }
            }
        }
    }

    async fn send(self: Arc<Self>, to: Arc<To>, mut waiting: mpsc::Receiver<Arc<Message>>) {
        while let Some(message) = waiting.recv().await {
            let now = self.clock.now();
            let id = self.chance.event_id(now).to_string();
            let mut body: Value = json!(&*message);
            body["id"] = id.as_str().into();
            body["created_at"] = now.format(&Rfc3339).unwrap_or_default().into();
            let body = body.to_string();
            let mut waits = WAITS.iter();
            loop {
                let tried = self.webhooks.post(&to.url, &id, to.secret.as_ref(), body.clone()).await;
                let Some(error) = tried.error else { break };
                let Some(wait) = waits.next() else {
                    tracing::error!(to = %to, error, "chat: a message was not delivered");
                    break;
                };
                tracing::warn!(to = %to, error, again_in_s = wait.as_secs(), "chat: not delivered");
                sleep(*wait).await;
            }
        }
    }

    fn failed(&self, what: &str, error: &StoreError) {
        tracing::warn!(error = %chain(error), what, "chat: could not be looked at, trying again");
    }
}
