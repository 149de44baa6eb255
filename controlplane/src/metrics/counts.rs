//! Counters of many subjects, each by the words of one label: `attempts ended` of every trunk by their class.
//!
//! All of a subject's series exist from its declaration, at zero, since a first one must be seen as a rise. Held as series of
//! the library's own they would take a kilobyte each, 120 MB for 4,000 trunks; here they are a number each, and become series
//! while they are scraped.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, LabelPair, Metric, MetricFamily, MetricType},
};

/// Names of a subject, one for each of its labels.
type Subject<const N: usize> = [Arc<str>; N];

/// See the module. Clones share it.
#[derive(Clone)]
pub(super) struct Counts<const N: usize> {
    desc: Desc,
    labels: [&'static str; N],
    by: &'static str,
    words: Arc<[&'static str]>,
    counts: Arc<Mutex<BTreeMap<Subject<N>, Box<[u64]>>>>,
}

impl<const N: usize> Counts<N> {
    /// With a subject's labels, and the label whose `words` are counted apart.
    ///
    /// # Errors
    /// A name that is none: a mistake of the program.
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: [&'static str; N],
        by: &'static str,
        words: impl IntoIterator<Item = &'static str>,
    ) -> Result<Self, prometheus::Error> {
        let variable = labels.into_iter().chain([by]).map(str::to_owned).collect();
        let desc = Desc::new(name.to_owned(), help.to_owned(), variable, HashMap::new())?;
        Ok(Self { desc, labels, by, words: words.into_iter().collect(), counts: Arc::default() })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Subject<N>, Box<[u64]>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its series are there from now on.
    pub(super) fn declare(&self, subject: [&str; N]) {
        self.counts().entry(subject.map(Arc::from)).or_insert_with(|| vec![0; self.words.len()].into());
    }

    /// One more.
    pub(super) fn inc(&self, subject: [&str; N], word: &str) {
        let Some(at) = self.words.iter().position(|known| *known == word) else { return };
        let mut counts = self.counts();
        let of = counts.entry(subject.map(Arc::from)).or_insert_with(|| vec![0; self.words.len()].into());
        if let Some(count) = of.get_mut(at) {
            *count += 1;
        }
    }

    /// How many there were.
    pub(super) fn count(&self, subject: [&str; N], word: &str) -> u64 {
        let at = self.words.iter().position(|known| *known == word);
        let counts = self.counts();
        at.and_then(|at| counts.get(&subject.map(Arc::from))?.get(at).copied()).unwrap_or_default()
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus' numbers are such")]
    fn series(&self, subject: &Subject<N>, word: &str, count: u64) -> Metric {
        let pair = |name: &str, value: &str| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        let mut pairs: Vec<_> =
            self.labels.iter().zip(subject).map(|(name, value)| pair(name, value)).collect();
        pairs.push(pair(self.by, word));
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        let mut counter = Counter::default();
        counter.set_value(count as f64);
        let mut metric = Metric::from_label(pairs);
        metric.set_counter(counter);
        metric
    }
}

impl<const N: usize> Collector for Counts<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.counts();
        let of_one = |subject: &Subject<N>, counts: &[u64]| -> Vec<Metric> {
            let words = self.words.iter().zip(counts);
            words.map(|(word, count)| self.series(subject, word, *count)).collect()
        };
        let all = counts.iter().flat_map(|(subject, counts)| of_one(subject, counts)).collect();
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(all);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, Registry, TextEncoder};

    use super::*;

    #[test]
    fn series_are_there_from_the_declaration_at_zero_and_rise() {
        let registry = Registry::new();
        let counts =
            Counts::new("ended_total", "Ended.", ["trunk", "node"], "class", ["busy", "answered"]).unwrap();
        registry.register(Box::new(counts.clone())).unwrap();
        counts.declare(["acme", "waw-1"]);
        counts.inc(["acme", "waw-1"], "answered");
        counts.inc(["beta", "fra-1"], "answered");
        counts.declare(["acme", "waw-1"]);
        counts.inc(["acme", "waw-1"], "answered");
        counts.inc(["acme", "waw-1"], "no such word");
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let expected = "# HELP ended_total Ended.\n# TYPE ended_total counter\n\
            ended_total{class=\"answered\",node=\"waw-1\",trunk=\"acme\"} 2\n\
            ended_total{class=\"busy\",node=\"waw-1\",trunk=\"acme\"} 0\n\
            ended_total{class=\"answered\",node=\"fra-1\",trunk=\"beta\"} 1\n\
            ended_total{class=\"busy\",node=\"fra-1\",trunk=\"beta\"} 0\n";
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(lines(&String::from_utf8(text).unwrap()), lines(expected));
    }
}
