//! The report as bytes: a page and its JSON, with what tells a browser that it has them already.

use std::sync::LazyLock;

use askama::Template;
use axum::{body::Bytes, http::HeaderValue};
use controlplane_core::status::{Day, Line, Report, percent};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, macros::format_description};

/// No script, and nothing from anywhere else.
pub(crate) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
);
/// Bytes of a hash that go into an address or a tag.
const HASH_LEN: usize = 8;
/// A day's width and a bar's height in the chart, in its own units.
const STEP: usize = 10;
const HEIGHT: usize = 30;

/// How it looks: its address, which names its content, and the content.
pub(crate) fn style() -> (&'static str, &'static str) {
    static PATH: LazyLock<String> =
        LazyLock::new(|| format!("/assets/status-{}.css", hash(STYLE.as_bytes())));
    (PATH.as_str(), STYLE)
}

const STYLE: &str = include_str!("status.css");

fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes)[..HASH_LEN])
}

/// Something that lies ready.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) body: Bytes,
    pub(crate) tag: String,
}

impl Written {
    fn of(body: String) -> Self {
        let tag = format!("\"{}\"", hash(body.as_bytes()));
        Self { body: body.into(), tag }
    }
}

/// What everybody is shown.
pub(crate) struct Shown {
    pub(crate) page: Written,
    pub(crate) json: Written,
}

impl Shown {
    pub(crate) fn of(report: &Report) -> Self {
        let page = StatusPage { report }.render().unwrap_or_else(|error| {
            tracing::error!(%error, "the public status could not be rendered");
            String::new()
        });
        Self { page: Written::of(page), json: Written::of(serde_json::json!(report).to_string()) }
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage<'r> {
    report: &'r Report,
}

impl StatusPage<'_> {
    fn style(&self) -> &'static str {
        style().0
    }

    fn sentence(&self) -> &'static str {
        use controlplane_core::status::Standing::{Available, Partly, Unavailable, Unknown};
        match self.report.state {
            Available => "Calls are delivered",
            Partly => "Calls are delivered, not from every region",
            Unavailable => "Calls are not delivered now",
            Unknown => "Nothing is known yet",
        }
    }

    fn has_past(&self) -> bool {
        self.report.notices.iter().any(|notice| notice.ended_at.is_some())
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &Line)> {
        std::iter::once(&self.report.delivery).chain(&self.report.regions).enumerate()
    }
}

/// A day's bar: where it begins, how high it is, and how good the day was.
struct Bar<'d> {
    x: usize,
    y: usize,
    height: usize,
    class: &'static str,
    day: &'d str,
    percent: String,
}

/// A day as a word: whole, a little less, less, or nothing known.
fn class(ratio: Option<f64>) -> &'static str {
    match ratio {
        None => "none",
        Some(ratio) if ratio >= 1.0 => "whole",
        Some(ratio) if ratio >= 0.99 => "less",
        Some(_) => "bad",
    }
}

/// A bar for each day; its height tells what its colour does.
fn bars(line: &Line) -> Vec<Bar<'_>> {
    line.days.iter().enumerate().map(|(n, day)| bar(n, day)).collect()
}

fn bar(n: usize, Day { day, ratio }: &Day) -> Bar<'_> {
    let class = class(*ratio);
    let height = match class {
        "whole" => HEIGHT,
        "less" => HEIGHT * 4 / 5,
        "bad" => HEIGHT / 2,
        _ => HEIGHT / 10,
    };
    Bar { x: n * STEP, y: HEIGHT - height, height, class, day, percent: percent(*ratio) }
}

/// Days that are known and were not whole, the latest first.
fn lesser(line: &Line) -> Vec<(&str, String)> {
    let days = line.days.iter().rev().filter(|day| day.ratio.is_some_and(|ratio| ratio < 1.0));
    days.map(|day| (day.day.as_str(), percent(day.ratio))).collect()
}

/// A share in words.
#[allow(clippy::ref_option, reason = "so the template gives it")]
fn share(ratio: &Option<f64>) -> String {
    percent(*ratio)
}

/// A moment to the minute, UTC.
fn at(moment: &OffsetDateTime) -> String {
    let shape = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    moment.to_offset(time::UtcOffset::UTC).format(&shape).unwrap_or_default()
}

/// As machines read it, to the second.
fn iso(moment: &OffsetDateTime) -> String {
    let moment = moment.replace_nanosecond(0).unwrap_or(*moment);
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// A text's lines, for paragraphs.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use controlplane_core::status::{
        Past, RegionDay,
        notice::{Notice, Update},
        report,
    };
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    #[test]
    fn what_operators_say_is_text_and_days_are_told_in_words_too() {
        let region = "eu-east".parse().unwrap();
        let today = NOON.unix_timestamp() / 86_400;
        let notice = Notice {
            id: "ntc_01kb2j5n8fg3v6q9x4c7t0w2yr".parse().unwrap(),
            title: "<script>alert(1)</script>".to_owned(),
            updates: vec![Update { at: NOON, text: "We know.\n<b>More</b> soon.".to_owned() }],
            started_at: NOON,
            ended_at: None,
        };
        let past = Past {
            regions: vec![RegionDay { region, day: today, up_ms: 9_995, down_ms: 5 }],
            notices: vec![notice],
            ..Past::default()
        };
        let shown = Shown::of(&report("Calls & more", NOON, &[("eu-east".parse().unwrap(), true)], &past));
        let page = std::str::from_utf8(&shown.page.body).unwrap();
        assert!(!page.contains("<script") && !page.contains("<b>More"), "{page}");
        assert!(page.contains("Calls &#38; more") || page.contains("Calls &amp; more"), "{page}");
        assert!(page.contains("99.95 %") && page.contains("2026-11-29"), "{page}");
        assert_eq!(page.matches("<rect").count(), 180);
        assert!(page.len() < 60_000, "{}", page.len());
        assert_ne!(shown.page.tag, shown.json.tag);
    }
}
