//! Each text is spoken once: by one run of the engine however many calls ask at a time, and then from the database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use controlplane_core::{
    request::{Language, MessageText},
    sound::SoundHash,
};
use controlplane_store::Store;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{OnceCell, Semaphore},
    task::spawn_blocking,
    time::sleep,
};

use super::{
    AGAIN, LENGTH_MAX_S, Refusal,
    convert::convert,
    engine::{Engine, EngineError},
};
use crate::{clock::Clock, settings::SpeechSettings};

/// Texts that are being spoken or wait for it; a call with a further one is not taken at the door.
const WAITING_MAX: usize = 1_000;
/// Runs of the engine for one text before its calls fail.
const RUNS_MAX: u32 = 2;
/// The loudest sample of a text that was truly spoken, of 32,767. Less: an engine that knows none of its letters.
const PEAK_MIN: u16 = 300;
/// Noting a use more often than that is worth no write.
const USE_NOTED: time::Duration = time::Duration::hours(1);

type Key = [u8; 32];
type Spoken = Result<SoundHash, Arc<str>>;
type Speaking = Shared<BoxFuture<'static, Spoken>>;

/// Texts that become sounds.
pub(super) struct Speeches(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    settings: SpeechSettings,
    engine: OnceCell<Engine>,
    turns: Semaphore,
    speaking: Mutex<HashMap<Key, Speaking>>,
}

impl Speeches {
    pub(super) fn new(store: Arc<dyn Store>, clock: Clock, settings: SpeechSettings) -> Self {
        let turns = Semaphore::new(settings.parallel.into());
        let (engine, speaking) = (OnceCell::new(), Mutex::default());
        Self(Arc::new(Inner { store, clock, settings, engine, turns, speaking }))
    }

    /// Whether a text in this language can be spoken.
    pub(super) async fn check(&self, language: &Language) -> Result<(), Refusal> {
        let engine = self.0.engine().await.map_err(|error| {
            tracing::error!(%error, "texts cannot be spoken");
            let text = "This installation cannot speak texts: its speech engine is not there.";
            Refusal::Field("message.text", text.to_owned())
        })?;
        if engine.voice(language).is_none() {
            let known: Vec<_> = engine.languages().map(Language::as_str).collect();
            let text = format!("{language} is not spoken here. Known: {}.", known.join(", "));
            return Err(Refusal::Field("message.language", text));
        }
        if self.0.waiting() >= WAITING_MAX { Err(Refusal::Busy) } else { Ok(()) }
    }

    /// The sound of a text, which is spoken now if it never was.
    pub(super) async fn spoken(&self, text: &MessageText, language: &Language) -> Spoken {
        let inner = &self.0;
        let engine = inner.engine().await.map_err(|error| Arc::from(error.to_string()))?;
        let unknown = || Arc::from(format!("the speech engine does not speak {language}"));
        let voice = engine.voice(language).ok_or_else(unknown)?.to_owned();
        let key = engine.key(&voice, text);
        inner.speak_once(key, voice, text.clone()).await
    }
}

impl Inner {
    /// Looked for again as long as it is not there: it may be installed meanwhile.
    async fn engine(&self) -> Result<&Engine, EngineError> {
        self.engine.get_or_try_init(|| Engine::find(&self.settings)).await
    }

    fn waiting(&self) -> usize {
        self.speaking.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn speak_once(self: &Arc<Self>, key: Key, voice: String, text: MessageText) -> Speaking {
        let mut speaking = self.speaking.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let inner = Arc::clone(self);
            // A task of its own: whoever asked first may give up, and others wait too.
            let task = tokio::spawn(async move {
                let _done = Done { inner: &inner, key };
                inner.speak(key, &voice, &text).await
            });
            let broke = |error: tokio::task::JoinError| Arc::from(format!("speaking broke: {error}"));
            task.map(move |joined| joined.unwrap_or_else(|error| Err(broke(error)))).boxed().shared()
        };
        speaking.entry(key).or_insert_with(begin).clone()
    }

    async fn speak(&self, key: Key, voice: &str, text: &MessageText) -> Spoken {
        if let Some(hash) = self.known(key).await {
            return Ok(hash);
        }
        let mut runs = 1;
        let converted = loop {
            match self.once(voice, text).await {
                Ok(converted) => break converted,
                Err(error) if runs < RUNS_MAX => tracing::warn!(error, runs, "a text was not spoken"),
                Err(error) => return Err(error.into()),
            }
            runs += 1;
            sleep(AGAIN).await;
        };
        loop {
            match self.store.keep_speech(key, converted.sound.clone(), self.clock.now()).await {
                Ok(hash) => return Ok(hash),
                Err(error) => tracing::warn!(%error, "a spoken text could not be kept"),
            }
            sleep(AGAIN).await;
        }
    }

    /// What was spoken before.
    async fn known(&self, key: Key) -> Option<SoundHash> {
        loop {
            match self.store.speech(&key).await {
                Ok(None) => return None,
                Ok(Some(speech)) => {
                    let now = self.clock.now();
                    if now - speech.last_used_at > USE_NOTED
                        && let Err(error) = self.store.use_speech(key, now).await
                    {
                        tracing::warn!(%error, "the use of a spoken text was not noted");
                    }
                    return Some(speech.sha256);
                }
                Err(error) => tracing::warn!(%error, "spoken texts could not be looked up"),
            }
            sleep(AGAIN).await;
        }
    }

    /// One run of the engine, and what came of it.
    async fn once(&self, voice: &str, text: &MessageText) -> Result<super::Converted, String> {
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        let engine = self.engine().await.map_err(|error| error.to_string())?;
        let file = engine.speak(voice, text).await.map_err(|error| error.to_string())?;
        let converting = spawn_blocking(move || convert(&file, LENGTH_MAX_S)).await;
        let converted = converting.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if converted.peak < PEAK_MIN {
            return Err(format!("the speech engine was silent (peak {} of 32767)", converted.peak));
        }
        Ok(converted)
    }
}

/// Takes a text from those that are being spoken, also when its task breaks.
struct Done<'a> {
    inner: &'a Inner,
    key: Key,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.inner.speaking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
