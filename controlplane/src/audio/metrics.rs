//! What Prometheus learns of speech and of sounds on their way to nodes.

use std::time::Duration;

use node_agent_protocol::sounds::Wanted;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// What came of asking for a sound on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceResult {
    Placed,
    Late,
    Failed,
}

/// What came of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpeechResult {
    /// It had been spoken before.
    Kept,
    Spoken,
    /// The engine failed, or was silent.
    Failed,
    /// There was no room to keep it.
    Full,
}

impl PlaceResult {
    const ALL: [Self; 3] = [Self::Placed, Self::Late, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }
}

impl SpeechResult {
    const ALL: [Self; 4] = [Self::Kept, Self::Spoken, Self::Failed, Self::Full];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Spoken => "spoken",
            Self::Failed => "failed",
            Self::Full => "full",
        }
    }
}

const fn word(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Now => "now",
        Wanted::Ahead => "ahead",
    }
}

/// Clones count together.
#[derive(Clone)]
pub(crate) struct AudioMetrics {
    placed: IntCounterVec,
    place_seconds: HistogramVec,
    speech: IntCounterVec,
    speech_seconds: HistogramVec,
    speech_waiting: IntGauge,
}

impl AudioMetrics {
    /// Registers them; all series exist from the start.
    ///
    /// # Errors
    /// A name that is there twice: a mistake in this file.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let seconds = |name: &str, help: &str, label: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, &[label])?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let speech_waiting = IntGauge::new(
            "ringward_speech_waiting",
            "Texts that wait for their turn to be spoken, of all organisations.",
        )?;
        registry.register(Box::new(speech_waiting.clone()))?;
        let metrics = Self {
            placed: counters(
                "ringward_sounds_placed_total",
                "Sounds that nodes were asked to have: now, for a call about to leave, or ahead of it; by result. Late: \
                 the node did not answer in time.",
                &["wanted", "result"],
            )?,
            place_seconds: seconds(
                "ringward_sound_place_seconds",
                "How long a node took to have a sound, whatever the result.",
                "wanted",
                &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            )?,
            speech: counters(
                "ringward_speech_total",
                "Texts that calls asked for, by result. Kept: spoken before. Full: no room to keep it.",
                &["result"],
            )?,
            speech_seconds: seconds(
                "ringward_speech_seconds",
                "Speaking a text that was not kept: the wait for its turn, and the engine with its conversion.",
                "stage",
                &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
            )?,
            speech_waiting,
        };
        for wanted in [Wanted::Now, Wanted::Ahead].map(word) {
            metrics.place_seconds.with_label_values(&[wanted]);
            for result in PlaceResult::ALL {
                metrics.placed.with_label_values(&[wanted, result.as_str()]);
            }
        }
        SpeechResult::ALL
            .iter()
            .for_each(|result| drop(metrics.speech.with_label_values(&[result.as_str()])));
        ["wait", "engine"].iter().for_each(|stage| drop(metrics.speech_seconds.with_label_values(&[stage])));
        Ok(metrics)
    }

    pub(super) fn placed(&self, wanted: Wanted, result: PlaceResult, took: Duration) {
        self.placed.with_label_values(&[word(wanted), result.as_str()]).inc();
        self.place_seconds.with_label_values(&[word(wanted)]).observe(took.as_secs_f64());
    }

    pub(super) fn speech(&self, result: SpeechResult) {
        self.speech.with_label_values(&[result.as_str()]).inc();
    }

    pub(super) fn speech_waited(&self, took: Duration) {
        self.speech_seconds.with_label_values(&["wait"]).observe(took.as_secs_f64());
    }

    pub(super) fn speech_engine(&self, took: Duration) {
        self.speech_seconds.with_label_values(&["engine"]).observe(took.as_secs_f64());
    }

    pub(super) fn speech_waiting(&self, texts: usize) {
        self.speech_waiting.set(i64::try_from(texts).unwrap_or(i64::MAX));
    }
}
