//! Every command that a runbook or an alert tells an operator to type is one that the programs have, with its flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::rules::{alerts, files, root};

const PROGRAMS: [&str; 2] = ["ringward", "ringward-agent"];

/// Commands between backticks, as words; a line break within one is a space.
fn commands(text: &str) -> BTreeSet<Vec<String>> {
    let texts = text.split('`').skip(1).step_by(2);
    let words = texts.map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.filter(|words| words.len() > 1 && PROGRAMS.contains(&words[0].as_str())).collect()
}

/// Program and subcommands: plain words before the first argument.
fn subcommand(words: &[String]) -> Vec<String> {
    let is_plain =
        |word: &&String| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let mut plain: Vec<String> = words.iter().take_while(is_plain).cloned().collect();
    // No command has more than a noun and a verb; what follows is an example's argument.
    plain.truncate(3);
    plain
}

#[test]
fn every_command_exists() {
    let mut all = BTreeSet::new();
    for file in files(&root().join("docs/runbooks"), ".md") {
        // Blocks are set off by three backticks.
        all.extend(commands(&fs::read_to_string(file).unwrap().replace("```", "\n")));
    }
    all.extend(alerts().iter().flat_map(|alert| commands(&alert.text)));
    assert!(all.len() > 40, "{} commands were read", all.len());
    let mut helps: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    for words in all {
        let command = subcommand(&words);
        let help = helps.entry(command.clone()).or_insert_with(|| {
            let program = lab::program(&command[0]).unwrap();
            let said = Command::new(program).args(&command[1..]).arg("--help").output().unwrap();
            said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
        });
        let help = help.as_ref().unwrap_or_else(|| panic!("there is no `{}`", words.join(" ")));
        // A noun alone is no command.
        let is_whole = command.len() > 2 || !help.contains("\nCommands:\n");
        assert!(is_whole, "`{}` lacks its verb", words.join(" "));
        for flag in
            words.iter().map(|word| word.trim_start_matches('[')).filter(|word| word.starts_with("--"))
        {
            assert!(help.contains(flag), "`{}` has no {flag}", words.join(" "));
        }
    }
}
