//! What promtool says of rules, configuration and tests; and that the tests notice when a rule is wrong.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use tempfile::TempDir;

use crate::rules::{Case, Rule, alerts, alerts_folder, cases, files};

/// Installs it, once.
pub(crate) fn installed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| lab::install_prometheus().unwrap());
}

/// Runs promtool in a folder; whether it is content, and what it said.
fn promtool(folder: &Path, arguments: &[&str]) -> (bool, String) {
    installed();
    let said = Command::new("promtool").args(arguments).current_dir(folder).output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    (said.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn names(files: Vec<std::path::PathBuf>) -> Vec<String> {
    files.iter().map(|file| file.to_string_lossy().into_owned()).collect()
}

#[test]
fn rules_and_configuration_are_right() {
    let folder = alerts_folder();
    let rules = names(files(&folder, ".rules.yml"));
    let arguments: Vec<&str> = ["check", "rules", "--lint=all", "--lint-fatal"]
        .into_iter()
        .chain(rules.iter().map(String::as_str))
        .collect();
    let (is_content, said) = promtool(&folder, &arguments);
    assert!(is_content, "{said}");
    let count = said.matches("rules found").count();
    assert_eq!(count, rules.len(), "{said}");
    let (is_content, said) = promtool(&folder, &["check", "config", "prometheus.yml"]);
    assert!(is_content, "{said}");
}

#[test]
fn every_rule_fires_and_keeps_quiet_as_its_tests_say() {
    let tests = names(files(&alerts_folder().join("tests"), ".test.yml"));
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    let (is_content, said) = promtool(&alerts_folder(), &arguments);
    assert!(is_content, "{said}");
}

/// A folder with one file of rules, changed, and the cases of one alert.
fn tried(alert: &Rule, changed: &str, cases: &[Case]) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(&alert.file).unwrap();
    assert_eq!(text.matches(&alert.text).count(), 1, "{}", alert.name);
    fs::write(folder.path().join("rules.yml"), text.replace(&alert.text, changed)).unwrap();
    // Weeks are evaluated in steps of a quarter of an hour.
    let own: Vec<&Case> = cases.iter().filter(|case| case.alert == alert.name).collect();
    let text = fs::read_to_string(&own.first().unwrap().file).unwrap();
    let interval = text.lines().find(|line| line.starts_with("evaluation_interval: ")).unwrap();
    let cases: String = own.iter().map(|case| case.text.as_str()).collect();
    let tests = format!("rule_files: [rules.yml]\n{interval}\ntests:\n{cases}");
    fs::write(folder.path().join("tests.yml"), tests).unwrap();
    promtool(folder.path(), &["test", "rules", "tests.yml"])
}

/// The alert with another expression.
fn with_expr(alert: &Rule, expr: &str) -> String {
    let lines: Vec<String> = alert.expr.lines().map(|line| format!("          {line}\n")).collect();
    let old = lines.concat();
    assert!(alert.text.contains(&old), "{}: {old}", alert.name);
    alert.text.replace(&old, &format!("          {expr}\n"))
}

#[test]
fn a_rule_that_is_wrong_is_noticed() {
    let cases = cases();
    for alert in alerts() {
        let (is_content, said) = tried(&alert, &alert.text, &cases);
        assert!(is_content, "{} as it is: {said}", alert.name);
        let mut wrong = vec![("never fires", with_expr(&alert, "vector(1) < 0"))];
        if alert.severity != "none" {
            wrong.push(("fires always", with_expr(&alert, "vector(1)")));
        }
        if let Some(waits) = &alert.waits {
            wrong.push(("does not wait", alert.text.replace(&format!("for: {waits}"), "for: 0s")));
        }
        for (how, changed) in wrong {
            let (is_content, _) = tried(&alert, &changed, &cases);
            assert!(!is_content, "{} {how}, and its tests pass", alert.name);
        }
    }
}
