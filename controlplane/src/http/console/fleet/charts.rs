//! The last hour in four small charts: a path for the eye, and the same in words for whoever does not see it.

use std::fmt::Write as _;

use crate::metrics::pulse::{MINUTES, Minute};

/// A chart's size in its own units, less the line below it.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 46.0;

/// One chart.
pub(super) struct Chart {
    pub(super) name: &'static str,
    /// The latest value.
    pub(super) now: String,
    /// All of it in one sentence.
    pub(super) words: String,
    /// From where to where the values go.
    pub(super) span: String,
    /// As in SVG.
    pub(super) path: String,
}

/// One number of a minute, if it has one.
type Pick = fn(&Minute) -> Option<f64>;

/// How a value is written.
type Say = fn(f64) -> String;

/// The charts; none before the first minute is over.
pub(super) fn charts(hour: &[Minute]) -> Vec<Chart> {
    if hour.is_empty() {
        return Vec::new();
    }
    let kinds: [(&str, Pick, Option<f64>, Say); 4] = [
        ("Calls in flight", |minute| Some(minute.channels), None, |v| format!("{v:.0}")),
        ("Calls begun per second", |minute| Some(minute.cps), None, |v| format!("{v:.1}")),
        ("Answered (ASR)", |minute| minute.asr, Some(1.0), |v| format!("{:.0} %", v * 100.0)),
        ("Until it rings (PDD)", |minute| minute.pdd_s, None, |v| format!("{v:.1} s")),
    ];
    kinds.map(|(name, pick, top, say)| chart(name, hour, pick, top, say)).into()
}

fn chart(name: &'static str, hour: &[Minute], pick: Pick, top: Option<f64>, say: Say) -> Chart {
    let values: Vec<Option<f64>> = hour.iter().map(pick).collect();
    let known = || values.iter().flatten().copied();
    let (least, most) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let now = values.last().copied().flatten().map_or_else(|| "–".to_owned(), say);
    let minutes = hour.len();
    let (words, span) = if known().next().is_none() {
        (format!("{name} in the last {minutes} minutes: nothing to tell of"), "no calls".to_owned())
    } else {
        let (least, most) = (say(least), say(most));
        (
            format!("{name} in the last {minutes} minutes: {now} now, from {least} to {most}"),
            format!("{least} to {most}, {minutes} min"),
        )
    };
    Chart { name, now, words, span, path: path(&values, top.unwrap_or(most)) }
}

/// A line through the values that are known, the latest at the right edge.
#[allow(clippy::cast_precision_loss, reason = "at most sixty")]
fn path(values: &[Option<f64>], top: f64) -> String {
    let step = WIDTH / (MINUTES - 1) as f64;
    let first = MINUTES.saturating_sub(values.len());
    let mut path = String::new();
    let mut pen_is_down = false;
    for (n, value) in values.iter().enumerate() {
        let Some(value) = value else {
            pen_is_down = false;
            continue;
        };
        let x = (first + n) as f64 * step;
        let y = 2.0 + HEIGHT * (1.0 - if top > 0.0 { value / top } else { 0.0 });
        // A point by itself is drawn by the round ends of a line without length.
        let pen = if pen_is_down { "L" } else { "M" };
        let _ = write!(path, "{pen}{x:.1} {y:.1}");
        if !pen_is_down {
            let _ = write!(path, "h0");
        }
        pen_is_down = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(channels: f64, asr: Option<f64>) -> Minute {
        Minute { channels, cps: 0.0, asr, pdd_s: None }
    }

    #[test]
    fn a_chart_is_told_in_words_and_breaks_where_nothing_is_known() {
        assert!(charts(&[]).is_empty());
        let hour = [minute(0.0, Some(1.0)), minute(40.0, None), minute(20.0, Some(0.5))];
        let drawn = charts(&hour);
        let [flight, _, asr, pdd] = drawn.as_slice() else { panic!("four charts") };
        assert_eq!(flight.words, "Calls in flight in the last 3 minutes: 20 now, from 0 to 40");
        assert_eq!(flight.path, "M231.9 48.0h0L235.9 2.0L240.0 25.0");
        assert_eq!((asr.now.as_str(), asr.path.matches('M').count()), ("50 %", 2));
        assert_eq!((pdd.span.as_str(), pdd.path.as_str()), ("no calls", ""));
        let whole: Vec<Minute> = (0..60).map(|n| minute(f64::from(n), Some(0.99))).collect();
        let bytes: usize = charts(&whole).iter().map(|chart| chart.path.len()).sum();
        assert!(bytes < 4_000, "{bytes}");
    }
}
