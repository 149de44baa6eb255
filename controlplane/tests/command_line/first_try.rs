//! The command line as somebody meets it who has never seen it: what he types, and what he is told, in docs/COMMANDS.md. The
//! document is what the programs say, word for word; `RINGWARD_WRITE_DOCS=1` writes it anew.

use std::{fmt::Write as _, path::Path};

use tempfile::TempDir;

use super::{Server, ringward, told};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/COMMANDS.md");

const FLEET: &str = r#"[[carrier]]
name = "acme"

[[node]]
name = "waw-1"
region = "eu-east"

[[trunk]]
name = "acme-waw-1"
node = "waw-1"
carrier = "acme"
endpoint = "acme"
canary = { number = "+48221234567", expects = "rings" }

[[route]]
prefix = "+"
tiers = [["acme-waw-1"]]
"#;

/// What somebody types, and what he is told.
struct Try {
    text: String,
    server: Server,
    key: String,
    folder: TempDir,
}

impl Try {
    fn says(&mut self, what: &str) {
        let _ = writeln!(self.text, "{what}\n");
    }

    /// Types a line; what stands where is not the same twice is told by its kind.
    fn types(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = ringward();
        command
            .env("RINGWARD_OPERATOR_URL", &self.server.operator)
            .env("RINGWARD_DATA_DIR", self.server.data.path());
        if !self.key.is_empty() {
            command.env("RINGWARD_OPERATOR_KEY", &self.key);
        }
        command.current_dir(self.folder.path());
        self.tells(line, command.args(&words[1..]).output().unwrap())
    }

    fn tells(&mut self, line: &str, output: std::process::Output) -> String {
        let (code, stdout, stderr) = told(output);
        let said = format!("{stdout}{stderr}");
        let (shown, code) = (self.steady(&said), code.unwrap());
        let _ = writeln!(self.text, "```console\n$ {line}\n{}```", shown.trim_start_matches('\n'));
        let _ =
            writeln!(self.text, "{}", if code == 0 { String::new() } else { format!("Exit code {code}.\n") });
        said
    }

    /// Without what is of this run alone.
    fn steady(&self, said: &str) -> String {
        let said = said.replace(&self.server.operator, "http://127.0.0.1:8081");
        let mut shown = String::with_capacity(said.len());
        for (n, line) in said.lines().enumerate() {
            if n > 0 || said.starts_with('\n') {
                shown.push('\n');
            }
            // Aligned by what stands here in another run: the spaces between say nothing.
            let mut parts =
                line.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "_-:.".contains(c)));
            shown.extend(parts.by_ref().map(|part| {
                let word =
                    part.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "_-:.".contains(c)));
                let rest = &part[word.len()..];
                kind(word).map_or_else(|| part.to_owned(), |kind| format!("{kind}{rest}"))
            }));
        }
        shown + "\n"
    }
}

/// What a word is, where it is another one in each run.
fn kind(word: &str) -> Option<&'static str> {
    let is_moment = word.len() >= 20 && word.starts_with("20") && word.contains('T') && word.ends_with('Z');
    if word.starts_with("rw_op_") {
        return Some("rw_op_…");
    }
    if word.starts_with("req_") && word.len() > 10 {
        return Some("req_…");
    }
    is_moment.then_some("2026-11-29T03:00:00Z")
}

/// Help of these commands, one after the other.
fn help(text: &mut String, program: &str, commands: &[&str]) {
    for command in commands {
        let words = command.split(' ').filter(|word| !word.is_empty());
        let (code, stdout, stderr) = told(ringward().args(words).arg("--help").output().unwrap());
        assert_eq!(code, Some(0), "{command}: {stderr}");
        let line = format!("{program} {command}").trim_end().to_owned();
        let _ = writeln!(text, "```console\n$ {line} --help\n{}\n```\n", stdout.trim_end());
    }
}

fn document() -> String {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("fleet.toml"), FLEET).unwrap();
    std::fs::write(folder.path().join("wrong.toml"), FLEET.replace("node = \"waw-1\"", "node = \"wav-1\""))
        .unwrap();
    let mut first = Try { text: String::new(), server: Server::start(), key: String::new(), folder };
    first.text.push_str(
        "# The command line\n\n<!-- Written by controlplane/tests/command_line/first_try.rs from what the program says; \
         do not change it here. -->\n\n",
    );
    first.says(
        "A first try, word for word, and the help of every command. Completions: `ringward completions bash|zsh|fish`, \
         `ringward-agent completions …`; manual pages: `ringward man FOLDER`, `ringward-agent man FOLDER`. Tables fit the terminal; \
         where the output is none, they are as wide as they are. `--json` gives the API's answer. `--watch` looks again every 2 s: on a terminal it is \
         drawn anew in place, elsewhere each change follows the one before, and with `--json` each change is one line. Exit codes: 0 done, 1 no or \
         differs, 2 usage, 3 unreachable, 4 denied, 5 not found, 6 refused for safety ([ADR 3](adr/0003-exit-codes.md)).",
    );
    first.says("## A first try");
    first.says("A word that is misspelt:");
    assert!(first.types("ringward stauts").contains("status"));
    first.says("Nobody there:");
    assert!(
        first
            .types("ringward status --operator-url http://127.0.0.1:1")
            .contains("Is `ringward serve` running?")
    );
    first.says("Without a key, and where one comes from:");
    first.types("ringward status");
    let said = first.types("ringward bootstrap");
    let key = said.split("RINGWARD_OPERATOR_KEY=").nth(1).unwrap();
    first.key = key.split_whitespace().next().unwrap().to_owned();
    first.says("With the key, before there is anything:");
    first.types("ringward status");
    first.types("ringward trunk list");
    first.types("ringward call list");
    first.says("A fleet file with a mistake, and without:");
    assert!(first.types("ringward apply -f wrong.toml").contains("did you mean"));
    first.types("ringward apply -f fleet.toml --dry-run");
    first.types("ringward apply -f fleet.toml");
    first.says("Names that are not there:");
    assert!(first.types("ringward trunk why acme-wav-1").contains("Did you mean acme-waw-1?"));
    assert!(first.types("ringward trunk disable Acme-waw-1").contains("Did you mean acme-waw-1?"));
    assert!(first.types("ringward node drain waw1").contains("Did you mean waw-1?"));
    assert!(first.types("ringward org show defualt").contains("Did you mean default?"));
    first.says("What is refused, and why:");
    assert!(first.types("ringward call place +48221234567").contains("No destination is open yet"));
    first.types("ringward call place 0048221234567");
    first.types("ringward trunk canary acme-waw-1");
    first.types("ringward ban add 0.0.0.0/0");
    first.types("ringward call show call_nonsense");
    first.says("What everybody reads, where the public status page is open:");
    first.types("ringward notice list");
    first.says("A hold, and its end:");
    first.types("ringward trunk disable acme-waw-1 --reason maintenance");
    first.types("ringward trunk enable acme-waw-1");
    let mut text = first.text;
    text.push_str("## Help\n\n");
    help(
        &mut text,
        "ringward",
        &[
            "",
            "status",
            "replicas",
            "apply",
            "diff",
            "node",
            "node drain",
            "trunk",
            "trunk why",
            "trunk canary",
            "route explain",
            "call",
            "call place",
            "call list",
            "call show",
            "ban",
            "ban add",
            "allow",
            "policy",
            "limits",
            "retention",
            "audit",
            "audit verify",
            "key",
            "key create",
            "org",
            "webhook",
            "incident",
            "notice",
            "notice add",
            "completions",
            "man",
        ],
    );
    text.trim_end().to_owned() + "\n"
}

#[test]
fn what_somebody_is_told_at_his_first_try_is_what_the_document_says() {
    let text = document();
    let path = Path::new(DOCUMENT);
    if std::env::var_os("RINGWARD_WRITE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    assert!(
        kept == text,
        "docs/COMMANDS.md is not what the program says (line {}): write it anew with RINGWARD_WRITE_DOCS=1",
        differs.map_or_else(|| "at its end".to_owned(), |line| (line + 1).to_string())
    );
}

#[test]
fn completions_and_manual_pages_are_of_every_command() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef ringward"), ("fish", "complete -c ringward")]
    {
        let (code, stdout, stderr) = told(ringward().args(["completions", shell]).output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.contains(sign) && stdout.contains("undrain") && stdout.contains("canary"), "{shell}");
    }
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = told(ringward().arg("man").arg(folder.path().join("man1")).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
    assert!(page("ringward.1").contains(".TH ringward 1"));
    assert!(page("ringward-trunk-canary.1").contains("waits for its end"));
    let (code, _, stderr) = told(ringward().args(["man", "/proc/none"]).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/proc/none"), "{stderr}");
}
