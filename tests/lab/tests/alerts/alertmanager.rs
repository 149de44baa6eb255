//! Alertmanager's configuration, as it is documented.

use std::{fs, process::Command};

use crate::rules::{alerts_folder, root};

/// Installs it, once.
pub(crate) fn installed() {
    lab::install_alertmanager().unwrap();
}

/// The one that is documented, and the snippet in the text: Alertmanager's own tool has nothing against them.
#[test]
fn the_documented_configuration_is_right() {
    installed();
    let folder = tempfile::tempdir().unwrap();
    let document = fs::read_to_string(root().join("docs/ONCALL.md")).unwrap();
    let snippet = document.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    // Indented as in a list.
    let snippet: String =
        snippet.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    let file = folder.path().join("snippet.yml");
    fs::write(&file, snippet).unwrap();
    for file in [alerts_folder().join("alertmanager.yml"), file] {
        let said = Command::new("amtool").arg("check-config").arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success(), "{}: {text}", file.display());
        assert!(text.contains("receivers"), "{text}");
    }
}
