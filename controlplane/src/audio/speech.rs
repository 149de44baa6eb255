//! Each text is spoken once: by one run of the engine however many calls ask at a time, and then from the database.
//!
//! Organisations take turns at the engine (`turns`). A text that is kept already waits for nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{
    ids::OrgId,
    request::{Language, MessageText},
    sound::SoundHash,
};
use controlplane_store::{
    Store, StoreError,
    audio::{KeptSpeech, NewSpeech},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::OnceCell,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    AGAIN, LENGTH_MAX_S, Refusal,
    convert::convert,
    engine::{Engine, EngineError},
    metrics::{AudioMetrics, SpeechResult},
    turns::{NoPlace, Turns},
};
use crate::{clock::Clock, settings::SpeechSettings};

/// Runs of the engine for one text before its calls fail.
const RUNS_MAX: u32 = 2;
/// The loudest sample of a text that was truly spoken, of 32,767. Less: an engine that knows none of its letters.
const PEAK_MIN: u16 = 300;
/// Noting a use more often than that is worth no write.
pub(super) const USE_NOTED: Duration = Duration::from_secs(300);
/// Texts stay for so long after their last use, however many there are. Those of open calls are noted as used every
/// [`USE_NOTED`], by the replica that follows the call.
pub(super) const STAYS: Duration = Duration::from_secs(1_800);
/// How long new texts are refused at the door after one found no room.
const FULL_FOR: Duration = Duration::from_secs(60);

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
    turns: Arc<Turns>,
    speaking: Mutex<HashMap<Key, Speaking>>,
    /// Texts of open calls, and of how many.
    in_use: Mutex<HashMap<Key, usize>>,
    full: Mutex<Full>,
    metrics: AudioMetrics,
}

/// Who had no room for a text, until when.
#[derive(Default)]
struct Full {
    orgs: HashMap<OrgId, Instant>,
    all: Option<Instant>,
}

/// An open call plays this text: it is kept until this is dropped, and for [`STAYS`] after.
pub(crate) struct TextInUse {
    inner: Arc<Inner>,
    key: Key,
}

impl Drop for TextInUse {
    fn drop(&mut self) {
        let mut in_use = self.inner.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = in_use.get_mut(&self.key) {
            *calls -= 1;
            if *calls == 0 {
                in_use.remove(&self.key);
            }
        }
    }
}

impl Speeches {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        settings: SpeechSettings,
        metrics: AudioMetrics,
    ) -> Self {
        let turns = Arc::new(Turns::new(settings.parallel.into(), metrics.clone()));
        let (speaking, in_use, full) = Default::default();
        let engine = OnceCell::new();
        Self(Arc::new(Inner { store, clock, settings, engine, turns, speaking, in_use, full, metrics }))
    }

    /// Whether this text can be spoken for this organisation.
    ///
    /// # Errors
    /// The database could not be read.
    pub(super) async fn check(
        &self,
        org: &OrgId,
        text: &MessageText,
        language: &Language,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let engine = match self.0.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                tracing::error!(%error, "texts cannot be spoken");
                let text = "This installation cannot speak texts: its speech engine is not there.";
                return Ok(Err(Refusal::Field("message.text", text.to_owned())));
            }
        };
        let Some(voice) = engine.voice(language) else {
            let known: Vec<_> = engine.languages().map(Language::as_str).collect();
            let text = format!("{language} is not spoken here. Known: {}.", known.join(", "));
            return Ok(Err(Refusal::Field("message.language", text)));
        };
        let refusal = match (self.0.turns.check(org), self.0.room(org)) {
            (Ok(()), Ok(())) => return Ok(Ok(())),
            (Err(NoPlace::Org), _) => Refusal::OrgBusy,
            (Err(NoPlace::All), _) => Refusal::Busy,
            (Ok(()), Err(NoPlace::Org)) => Refusal::OrgFull,
            (Ok(()), Err(NoPlace::All)) => Refusal::Full,
        };
        // What is kept needs neither a turn nor room.
        let kept = self.0.store.speech(&engine.key(voice, text)).await?;
        Ok(if kept.is_some() { Ok(()) } else { Err(refusal) })
    }

    /// The sound of a text, which is spoken now if it never was.
    pub(super) async fn spoken(
        &self,
        org: &OrgId,
        text: &MessageText,
        language: &Language,
    ) -> Result<(SoundHash, TextInUse), Arc<str>> {
        let inner = &self.0;
        let engine = inner.engine().await.map_err(|error| Arc::from(error.to_string()))?;
        let unknown = || Arc::from(format!("the speech engine does not speak {language}"));
        let voice = engine.voice(language).ok_or_else(unknown)?.to_owned();
        let key = engine.key(&voice, text);
        let in_use = inner.use_text(key);
        let sound = inner.speak_once(org, key, voice, text.clone()).await?;
        Ok((sound, in_use))
    }

    /// Notes that the texts of open calls are in use.
    pub(super) async fn note_use(&self) {
        let inner = &self.0;
        let keys: Vec<Key> =
            inner.in_use.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for key in keys {
            if let Err(error) = inner.store.use_speech(key, inner.clock.now()).await {
                tracing::warn!(%error, "the use of spoken texts was not noted");
                return;
            }
        }
    }
}

impl Inner {
    /// Looked for again as long as it is not there: it may be installed meanwhile.
    async fn engine(&self) -> Result<&Engine, EngineError> {
        self.engine.get_or_try_init(|| Engine::find(&self.settings)).await
    }

    fn use_text(self: &Arc<Self>, key: Key) -> TextInUse {
        *self.in_use.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        TextInUse { inner: Arc::clone(self), key }
    }

    /// Whether a new text of this organisation had room lately.
    fn room(&self, org: &OrgId) -> Result<(), NoPlace> {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        full.orgs.retain(|_, until| *until > now);
        if full.all.is_some_and(|until| until > now) {
            return Err(NoPlace::All);
        }
        if full.orgs.contains_key(org) { Err(NoPlace::Org) } else { Ok(()) }
    }

    fn found_full(&self, org: &OrgId, who: NoPlace) {
        let until = Instant::now() + FULL_FOR;
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        match who {
            NoPlace::Org => drop(full.orgs.insert(org.clone(), until)),
            NoPlace::All => full.all = Some(until),
        }
    }

    fn speak_once(self: &Arc<Self>, org: &OrgId, key: Key, voice: String, text: MessageText) -> Speaking {
        let mut speaking = self.speaking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = speaking.get(&key) {
            self.turns.stand(org, key);
            return under_way.clone();
        }
        let (inner, org) = (Arc::clone(self), org.clone());
        // A task of its own: whoever asked first may give up, and others wait too.
        let task = tokio::spawn(async move {
            let _done = Done { inner: &inner, key };
            inner.speak(&org, key, &voice, &text).await
        });
        let broke = |error: tokio::task::JoinError| Arc::from(format!("speaking broke: {error}"));
        let under_way =
            task.map(move |joined| joined.unwrap_or_else(|error| Err(broke(error)))).boxed().shared();
        speaking.insert(key, under_way.clone());
        under_way
    }

    async fn speak(&self, org: &OrgId, key: Key, voice: &str, text: &MessageText) -> Spoken {
        if let Some(hash) = self.known(key).await {
            self.metrics.speech(SpeechResult::Kept);
            return Ok(hash);
        }
        let asked = Instant::now();
        let turn = self.turns.turn(org, key).await.ok_or("the program stops")?;
        self.metrics.speech_waited(asked.elapsed());
        let began = Instant::now();
        let mut runs = 1;
        let converted = loop {
            match self.once(voice, text).await {
                Ok(converted) => break converted,
                Err(error) if runs < RUNS_MAX => tracing::warn!(error, runs, "a text was not spoken"),
                Err(error) => {
                    self.metrics.speech(SpeechResult::Failed);
                    return Err(error.into());
                }
            }
            runs += 1;
            sleep(AGAIN).await;
        };
        drop(turn);
        self.metrics.speech_engine(began.elapsed());
        loop {
            let at = self.clock.now();
            let new = NewSpeech {
                key,
                org: org.clone(),
                sound: converted.sound.clone(),
                at,
                stays_since: at - STAYS,
                org_bytes_max: self.settings.org_bytes_max,
                bytes_max: self.settings.bytes_max,
            };
            let full = match self.store.keep_speech(new).await {
                Ok(KeptSpeech::Sound(hash)) => {
                    self.metrics.speech(SpeechResult::Spoken);
                    return Ok(hash);
                }
                Ok(KeptSpeech::Full) => Some((NoPlace::Org, "its organisation's open calls")),
                Ok(KeptSpeech::AllFull) => Some((NoPlace::All, "open calls")),
                Err(error) => {
                    tracing::warn!(%error, "a spoken text could not be kept");
                    None
                }
            };
            if let Some((who, needed_by)) = full {
                self.found_full(org, who);
                self.metrics.speech(SpeechResult::Full);
                return Err(
                    format!("there is no room for another spoken text: {needed_by} need all of it").into()
                );
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
