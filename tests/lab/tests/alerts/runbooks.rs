//! Every alert leads to a section of a runbook that says what it means and what to do; every link in them leads somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::rules::{alerts, documents, files, root};

/// What a section must say.
const PARTS: [&str; 4] = ["- **Means**: ", "- **Look**: ", "- **Do**: ", "- **Over**: "];

/// How Git hosts call a heading: in small letters, spaces as hyphens, without other marks.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Whether a link from a file leads to a file, and to a heading in it.
fn leads(from: &Path, link: &str) -> bool {
    let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() { from.to_owned() } else { from.parent().unwrap().join(file) };
    if wanted.is_empty() {
        return path.exists();
    }
    let Ok(text) = fs::read_to_string(path) else { return false };
    anchors(&text).contains(wanted)
}

#[test]
fn every_alert_has_a_section() {
    for alert in alerts() {
        // Relative to the repository.
        assert!(leads(&root().join("x"), &alert.runbook), "{}: {} is not there", alert.name, alert.runbook);
        let (file, _) = alert.runbook.split_once('#').unwrap();
        assert!(alert.runbook.ends_with(&format!("#{}", alert.name.to_lowercase())), "{}", alert.runbook);
        let text = fs::read_to_string(root().join(file)).unwrap();
        let section = text.split(&format!("### {}\n", alert.name)).nth(1).unwrap();
        let section = section.split("\n#").next().unwrap();
        for part in PARTS {
            assert!(section.contains(part), "{}: {file} lacks {part}", alert.name);
        }
    }
}

#[test]
fn every_section_of_an_alert_is_that_of_a_rule() {
    let alerts = alerts();
    for file in files(&root().join("docs/runbooks"), ".md") {
        for line in fs::read_to_string(&file).unwrap().lines() {
            let Some(name) = line.strip_prefix("### Ringward") else { continue };
            let name = format!("Ringward{name}");
            assert!(alerts.iter().any(|alert| alert.name == name), "{}: no alert {name}", file.display());
        }
    }
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut count = 0;
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(link.contains("://") || leads(&file, link), "{}: {link} is not there", file.display());
            count += 1;
        }
    }
    assert!(count > 60, "{count} links were looked at");
    assert!(!leads(&root().join("docs/runbooks/trunks.md"), "#no-such-heading"));
}
