//! Reads the files of `docs/alerts` as they are written: two spaces an indent, `expr: |` in lines of its own. What promtool
//! makes of them is another matter.

use std::fs;
use std::path::{Path, PathBuf};

/// A rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    /// Of an alert, or of a record.
    pub(crate) name: String,
    pub(crate) is_alert: bool,
    pub(crate) expr: String,
    pub(crate) severity: String,
    pub(crate) waits: Option<String>,
    pub(crate) runbook: String,
    #[cfg_attr(not(feature = "promtool"), allow(dead_code, reason = "what promtool is given"))]
    pub(crate) file: PathBuf,
    /// All of its lines.
    pub(crate) text: String,
}

/// One `- name:` of a file of tests.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) alert: String,
    pub(crate) text: String,
    #[cfg_attr(not(feature = "promtool"), allow(dead_code, reason = "what promtool is given"))]
    pub(crate) file: PathBuf,
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn alerts_folder() -> PathBuf {
    root().join("docs/alerts")
}

/// Files of a folder whose names end so, in order.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no {ending} in {}", folder.display());
    files
}

pub(crate) fn all() -> Vec<Rule> {
    files(&alerts_folder(), ".rules.yml").iter().flat_map(|file| of_file(file)).collect()
}

pub(crate) fn alerts() -> Vec<Rule> {
    all().into_iter().filter(|rule| rule.is_alert).collect()
}

pub(crate) fn cases() -> Vec<Case> {
    let of_file = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let cases = text.split("\n  - name: ").skip(1).map(|text| Case {
            alert: text.trim_start_matches('"').split(':').next().unwrap().to_owned(),
            text: format!("  - name: {}\n", text.trim_end()),
            file: file.clone(),
        });
        cases.collect::<Vec<_>>()
    };
    files(&alerts_folder().join("tests"), ".test.yml").into_iter().flat_map(of_file).collect()
}

fn of_file(file: &Path) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expr = false;
    for line in fs::read_to_string(file).unwrap().lines() {
        let begun = ["      - alert: ", "      - record: "].iter().find_map(|head| line.strip_prefix(head));
        if let Some(name) = begun {
            rules.push(Rule {
                name: name.to_owned(),
                is_alert: line.contains("- alert: "),
                file: file.to_owned(),
                ..Rule::default()
            });
            in_expr = false;
        }
        // A comment or a gap is between two rules.
        let is_between =
            line.trim().is_empty() || line.trim_start().starts_with('#') || !line.starts_with("      ");
        let Some(rule) = rules.last_mut().filter(|_| !is_between) else {
            in_expr = false;
            continue;
        };
        rule.text.push_str(line);
        rule.text.push('\n');
        let after = |head: &str| line.trim_start().strip_prefix(head).map(str::to_owned);
        if line == "        expr: |" {
            in_expr = true;
        } else if let Some(line) = line.strip_prefix("          ").filter(|_| in_expr) {
            rule.expr.push_str(line);
            rule.expr.push('\n');
        } else {
            in_expr = false;
            rule.waits = rule.waits.take().or_else(|| after("for: "));
            rule.severity.push_str(&after("labels: {severity: ").unwrap_or_default().replace('}', ""));
            rule.runbook.push_str(&after("runbook_url: ").unwrap_or_default());
        }
    }
    rules
}

#[test]
fn every_alert_says_what_an_operator_needs() {
    let alerts = alerts();
    assert!(alerts.len() > 40, "{} alerts were read", alerts.len());
    for alert in alerts {
        let name = &alert.name;
        assert!(!alert.expr.is_empty(), "{name} has no expr that this reads");
        assert!(["page", "ticket", "none"].contains(&alert.severity.as_str()), "{name}: {}", alert.severity);
        let text = &alert.text;
        assert!(text.contains("          summary: "), "{name} has no summary");
        assert!(text.contains("          description: "), "{name} has no description");
        let has_value = text.contains("$value") || text.contains("first | value");
        assert!(has_value && text.contains("First:"), "{name} says neither value nor what to do first");
    }
}

#[test]
fn every_alert_has_a_series_that_fires_it_and_one_that_does_not() {
    let cases = cases();
    for alert in alerts() {
        let own: Vec<_> = cases.iter().filter(|case| case.alert == alert.name).collect();
        let wanted = format!("ALERTS{{alertname=\"{}\", alertstate=\"firing\"}}", alert.name);
        assert!(own.iter().all(|case| case.text.contains(&wanted)), "{}: asks for another alert", alert.name);
        let fires = own.iter().any(|case| case.text.contains("exp_samples:\n"));
        // Exactly the listed ones fire: beside other nodes, trunks or replicas in the same case, one is quiet.
        let quiet = own.iter().any(|case| case.text.contains("exp_samples: []") || case.text.contains("n2"));
        assert!(fires, "{} is never seen to fire", alert.name);
        assert!(quiet || alert.severity == "none", "{} is never seen to be quiet", alert.name);
    }
    for case in &cases {
        assert!(alerts().iter().any(|alert| alert.name == case.alert), "no alert {}", case.alert);
    }
}

/// Documents for people; decisions tell what was so when they were made, and COMMANDS.md is written by the programs.
pub(crate) fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["docs", "docs/runbooks", "ansible", "dialplans"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), ".md"))
        .filter(|file| !file.ends_with("COMMANDS.md"))
        .collect();
    all.extend(["README.md", "CONTRIBUTING.md"].map(|file| root().join(file)));
    all
}
