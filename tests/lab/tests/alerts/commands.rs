//! Every command that a document or an alert tells somebody to type is one that there is, with its flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::rules::{alerts, documents, root};

const PROGRAMS: [&str; 2] = ["ringward", "ringward-agent"];

/// Commands of a text, as words: between backticks, where a line break is a space, and lines of blocks.
fn commands(text: &str) -> BTreeSet<Vec<String>> {
    let parts: Vec<&str> = text.split("```").collect();
    let inline = parts.iter().step_by(2).flat_map(|part| part.split('`').skip(1).step_by(2));
    let lines = parts.iter().skip(1).step_by(2).flat_map(|block| block.lines());
    // A prompt before it, who it is run as, a comment behind it.
    let bare = lines.map(|line| {
        let line = line.split(" # ").next().unwrap_or_default().trim();
        let line = line.split_once("# ").map_or(line, |(_, line)| line);
        line.trim_start_matches("$ ").trim_start_matches("runuser -u ringward -- ")
    });
    // The same with the key of the control plane's host.
    let own = |word: &str| if word == "ringward-operator" { "ringward".to_owned() } else { word.to_owned() };
    let words = inline.chain(bare).map(|text| text.split_whitespace().map(own).collect::<Vec<_>>());
    words.filter(|words| words.len() > 1).flat_map(alternatives).collect()
}

/// `ban list|add` are two commands.
fn alternatives(words: Vec<String>) -> Vec<Vec<String>> {
    let is_choice =
        |word: &String| word.contains('|') && word.chars().all(|c| c == '|' || c.is_ascii_lowercase());
    let Some(at) = words.iter().position(is_choice) else { return vec![words] };
    let with = |one: &str| [&words[..at], &[one.to_owned()], &words[at + 1..]].concat();
    words[at].split('|').map(with).collect()
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
    for file in documents() {
        all.extend(commands(&fs::read_to_string(file).unwrap()));
    }
    all.extend(alerts().iter().flat_map(|alert| commands(&alert.text)));
    // In drawings, programs stand beside each other.
    let is_command =
        |words: &Vec<String>| PROGRAMS.contains(&words[0].as_str()) && !PROGRAMS.contains(&words[1].as_str());
    let all: Vec<_> = all.into_iter().filter(is_command).collect();
    assert!(all.len() > 100, "{} commands were read", all.len());
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

/// `cargo lab …` and playbooks.
#[test]
fn every_command_of_a_developer_and_every_playbook_exists() {
    let help = Command::new(lab::program("lab").unwrap()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (mut labs, mut playbooks) = (0, 0);
    for file in documents() {
        let name = file.display().to_string();
        for words in commands(&fs::read_to_string(file).unwrap()) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["cargo", "lab", what, ..] => {
                    // Several at once, as in up|down.
                    for what in what.split('|').filter(|what| *what != "…") {
                        assert!(
                            help.contains(&format!("\n  {what} ")),
                            "{name}: there is no `cargo lab {what}`"
                        );
                    }
                    labs += 1;
                }
                ["ansible-playbook", rest @ ..] => {
                    let books = rest.iter().filter(|word| word.ends_with(".yml"));
                    for book in books {
                        assert!(root().join("ansible").join(book).exists(), "{name}: there is no {book}");
                        playbooks += 1;
                    }
                }
                _ => {}
            }
        }
    }
    assert!(labs > 10 && playbooks > 5, "{labs} and {playbooks} were read");
}
