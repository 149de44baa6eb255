//! Every metric that a rule or a dashboard names is one that the programs have, and every value of a label is a word of
//! theirs: a rule on what does not exist never fires, and nobody notices.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lab::{dashboards, drifted_dashboards};

use crate::query::named;
use crate::rules::{all, root};

/// What Prometheus itself makes of every scrape and of every rule.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];
/// What a histogram is scraped as.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Where the programs' sources are.
const SOURCES: [&str; 5] = [
    "controlplane/src",
    "controlplane/core/src",
    "node-agent/src",
    "node-agent/core/src",
    "node-agent/ami/src",
];
/// Labels whose values are not words of the programs: jobs of the scrape configuration, labels that Prometheus sets.
const OF_CONFIGURATION: [&str; 4] = ["job", "severity", "alertstate", "alertname"];

/// Texts in the programs' sources; of the metrics' files alone, or of all.
fn literals(only_metrics: bool) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for folder in SOURCES {
        visit(&root().join(folder), &mut |path, text| {
            if !only_metrics || path.to_string_lossy().contains("metrics") {
                texts.extend(text.split('"').map(str::to_owned));
            }
        });
    }
    texts
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            see(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// Every expression, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = all().into_iter().map(|rule| (rule.name, rule.expr)).collect();
    for dashboard in dashboards().unwrap() {
        let value: serde_json::Value = serde_json::from_str(&dashboard.text).unwrap();
        for panel in value["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let place = format!("{}, {}", dashboard.file, panel["title"]);
                found.push((place, target["expr"].as_str().unwrap().to_owned()));
            }
        }
        for variable in value["templating"]["list"].as_array().unwrap() {
            if let Some(query) = variable["query"]["query"].as_str() {
                let metric = query.trim_start_matches("label_values(").split(',').next().unwrap();
                found.push((dashboard.file.clone(), metric.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_metric_exists() {
    let (exposed, rules) = (literals(true), all());
    let is_there = |metric: &str| {
        let base = OF_HISTOGRAMS.iter().find_map(|ending| metric.strip_suffix(ending));
        OF_PROMETHEUS.contains(&metric)
            || rules.iter().any(|rule| !rule.is_alert && rule.name == metric)
            || exposed.contains(metric)
            || base.is_some_and(|base| exposed.contains(base))
    };
    assert!(is_there("ringward_node_up") && is_there("ringward_trunk_pdd_seconds_bucket"));
    assert!(!is_there("ringward_node_upp") && !is_there("node_cpu_seconds_total"));
    let mut count = 0;
    for (place, expr) in expressions() {
        for metric in named(&expr).metrics {
            assert!(is_there(&metric), "{place}: nothing tells of {metric}");
            count += 1;
        }
    }
    assert!(count > 100, "{count} metrics were looked at");
}

#[test]
fn every_wanted_value_of_a_label_is_a_word_of_the_programs() {
    let words = literals(false);
    let configuration = fs::read_to_string(root().join("docs/alerts/prometheus.yml")).unwrap();
    for (place, expr) in expressions() {
        for (label, value) in named(&expr).values {
            if label == "job" {
                assert!(configuration.contains(&format!("job_name: {value}\n")), "{place}: no job {value}");
            }
            let is_known = OF_CONFIGURATION.contains(&label.as_str()) || words.contains(&value);
            assert!(is_known, "{place}: {label} is never {value}");
        }
    }
}

#[test]
fn dashboards_are_as_defined() {
    let drifted = drifted_dashboards(&root().join("docs/dashboards")).unwrap();
    assert!(drifted.is_empty(), "{drifted:?}: run `cargo lab dashboards`");
    let folder = tempfile::TempDir::new().unwrap();
    lab::write_dashboards(folder.path()).unwrap();
    fs::write(folder.path().join("ringward-calls.json"), "{}").unwrap();
    fs::write(folder.path().join("another.json"), "{}").unwrap();
    let mut drifted = drifted_dashboards(folder.path()).unwrap();
    drifted.sort();
    assert_eq!(drifted, ["another.json", "ringward-calls.json"], "a change by hand is seen");
}

#[test]
fn panels_fill_the_grid_without_lying_upon_each_other() {
    for dashboard in dashboards().unwrap() {
        let value: serde_json::Value = serde_json::from_str(&dashboard.text).unwrap();
        let mut taken = BTreeSet::new();
        for panel in value["panels"].as_array().unwrap() {
            let at = |member: &str| panel["gridPos"][member].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}: {}", dashboard.file, panel["title"]);
            for cell in
                (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
            {
                assert!(taken.insert(cell), "{}: {} lies on another", dashboard.file, panel["title"]);
            }
        }
    }
}
