//! `ringward-agent jail status`: what the running agent's jails have seen. `ringward-agent jail test FILE`: what a filter
//! and its jail would make of a log, which touches nothing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use node_agent_core::{
    moment::UnixMs,
    patterns::{Filter, trial::Trial},
    protected::Protected,
    rules::{JailName, RulesSettings},
};
use rand::RngCore;

use crate::{
    cli,
    clock::{Chance, Clock},
    evidence::lines::Lines,
    settings::Settings,
};

/// Lines by which the filter is chosen when none is named.
const LINES_TRIED: usize = 2000;

/// What is shown of a line that is too long to be held.
const OVERLONG: &[u8] = b"(longer than 16 KiB)";

/// Jails.
#[derive(Debug, Subcommand)]
pub enum JailCommand {
    /// Where evidence comes from, what jails have seen and what became of it.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// What a filter would match in a log, and who would be banned when.
    Test(JailTest),
}

/// Arguments of `jail test`.
#[derive(Debug, Args)]
pub struct JailTest {
    /// The log.
    file: PathBuf,
    /// The jail whose filter and numbers are tried; without, the shipped one that fits most lines.
    #[arg(long, value_name = "NAME")]
    jail: Option<JailName>,
    /// A TOML file with a filter of your own.
    #[arg(long, value_name = "FILE")]
    patterns: Option<PathBuf>,
}

impl JailCommand {
    /// Says what there is to say. 0: done, and something matched; 1: nothing did.
    pub(crate) async fn run(&self, settings: &Settings, say: fn(&str)) -> anyhow::Result<ExitCode> {
        match self {
            Self::Status { json } => {
                let seen = cli::running(settings).await?["evidence"].take();
                say(&if *json { seen.to_string() } else { shown(&seen) });
                Ok(ExitCode::SUCCESS)
            }
            Self::Test(test) => {
                let trial = test.trial(&settings.rules)?;
                say(&trial.to_string());
                Ok(if trial.matched > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

/// Counts that are not zero.
fn shown(seen: &serde_json::Value) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (source, state) in seen["sources"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "source {source:24} {}", state.as_str().unwrap_or_default());
    }
    for (jail, of) in seen["jails"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "jail   {jail:24} {}", of["mode"].as_str().unwrap_or_default());
        for what in ["lines", "offences", "nobody", "verdicts", "lost"] {
            let counts = of[what].as_object().into_iter().flatten();
            let counts: Vec<_> = counts.map(|(word, count)| format!("{word} {count}")).collect();
            if !counts.is_empty() {
                let _ = writeln!(text, "       {what:24} {}", counts.join(", "));
            }
        }
    }
    text.trim_end().to_owned()
}

impl JailTest {
    fn trial(&self, rules: &RulesSettings) -> anyhow::Result<Trial> {
        let filters = match &self.patterns {
            Some(file) => {
                let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                vec![Filter::parse(&text).with_context(|| format!("patterns {}", file.display()))?]
            }
            None => Filter::shipped()?,
        };
        let known: Vec<_> = filters.iter().map(|filter| filter.name.to_string()).collect();
        let named = |filter: &Filter| self.jail.as_ref().is_none_or(|name| filter.name == *name);
        let filters: Vec<_> = filters.into_iter().filter(named).collect();
        let mut best: Option<Trial> = None;
        if filters.len() == 1 {
            best = filters.into_iter().next().map(|filter| begin(filter, rules)).transpose()?;
        } else {
            let mut most = None;
            for filter in filters {
                let mut trial = begin(filter.clone(), rules)?;
                read(&self.file, &mut trial, LINES_TRIED)?;
                let fits = trial.matched + trial.ignored;
                if fits > 0 && most.as_ref().is_none_or(|(best, _)| fits > *best) {
                    most = Some((fits, filter));
                }
            }
            if let Some((_, filter)) = most {
                best = Some(begin(filter, rules)?);
            }
        }
        let known = known.join(", ");
        let Some(mut trial) = best else {
            match &self.jail {
                Some(name) => bail!("there is no filter {name}; there are: {known}"),
                None => bail!("no filter fits any of the first {LINES_TRIED} lines; there are: {known}"),
            }
        };
        read(&self.file, &mut trial, usize::MAX)?;
        Ok(trial)
    }
}

fn begin(filter: Filter, rules: &RulesSettings) -> anyhow::Result<Trial> {
    let mut chance = Chance::from_os()?.fork();
    let now = UnixMs(u64::try_from(Clock::system().unix_ms()).unwrap_or_default());
    Ok(Trial::new(filter, rules, Protected::default(), [chance.next_u64(), chance.next_u64()], now)?)
}

/// Reads so many lines, as logs are read that are followed. One that is too long counts as one that nothing fits.
fn read(file: &Path, trial: &mut Trial, lines_max: usize) -> anyhow::Result<()> {
    let mut opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let (mut lines, mut read) = (Lines::new(false), 0);
    while lines.fill(&mut opened)? > 0 {
        while read < lines_max
            && let Some(line) = lines.next()
        {
            trial.line(line);
            read += 1;
        }
        (0..lines.take_overlong()).for_each(|_| trial.line(OVERLONG));
        if read >= lines_max {
            return Ok(());
        }
    }
    if let Some(line) = lines.last() {
        trial.line(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use node_agent_core::patterns::LINE_BYTES_MAX;

    use super::*;

    fn test(file: &Path, jail: Option<&str>, patterns: Option<&Path>) -> anyhow::Result<Trial> {
        let jail = jail.map(|name| name.parse().unwrap());
        let test = JailTest { file: file.to_owned(), jail, patterns: patterns.map(Path::to_owned) };
        test.trial(&RulesSettings::default())
    }

    #[test]
    fn the_filter_is_named_or_found_and_long_lines_cost_one_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("auth.log");
        let mut text = String::new();
        for n in 0..6 {
            text.push_str(&format!(
                "Nov 24 12:18:4{n} pbx1 sshd[1]: Invalid user {n} from 192.0.2.66 port 1\r\n"
            ));
            text.push_str(&format!("{}\n", "x".repeat(LINE_BYTES_MAX * 3)));
        }
        text.push_str("the last line has no end");
        fs::write(&log, &text).unwrap();
        for jail in [None, Some("sshd")] {
            let trial = test(&log, jail, None).unwrap();
            assert_eq!((trial.lines, trial.matched, trial.bans.len()), (13, 6, 1));
            assert_eq!(trial.bans[0].verdict.net.to_string(), "192.0.2.66/32");
        }
        assert_eq!(test(&log, Some("nginx"), None).unwrap().matched, 0);
        let error = test(&log, Some("exim"), None).unwrap_err().to_string();
        assert_eq!(error, "there is no filter exim; there are: asterisk_log, sshd, nginx");
        let own = folder.path().join("own.toml");
        fs::write(&own, "name = \"sshd\"\nprefix = '^<TIME> '\n[[pattern]]\nkind = \"probe\"\naddress = \"last\"\nregex = '.* from <HOST> port \\d+$'\n").unwrap();
        assert_eq!(test(&log, None, Some(&own)).unwrap().matched, 6);
        fs::write(&own, "name = \"sshd\"\nprefix = ''\npattern = []\n").unwrap();
        assert!(test(&log, None, Some(&own)).is_err());
        fs::write(&log, "nothing\n").unwrap();
        assert!(test(&log, None, None).unwrap_err().to_string().starts_with("no filter fits"));
    }
}
