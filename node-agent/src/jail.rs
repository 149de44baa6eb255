//! `ringward-agent jail test FILE`: what a filter and its jail would make of a log. Touches nothing.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use node_agent_core::{
    moment::UnixMs,
    patterns::{Filter, LINE_BYTES_MAX, trial::Trial},
    protected::Protected,
    rules::{JailName, RulesSettings},
};
use rand::RngCore;

use crate::{
    clock::{Chance, Clock},
    settings::Settings,
};

/// Lines by which the filter is chosen when none is named.
const LINES_TRIED: usize = 2000;

/// Jails.
#[derive(Debug, Subcommand)]
pub enum JailCommand {
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
    /// Says what there is to say. 0: something matched; 1: nothing did.
    pub(crate) fn run(&self, settings: &Settings, say: fn(&str)) -> anyhow::Result<ExitCode> {
        let Self::Test(test) = self;
        let trial = test.trial(&settings.rules)?;
        say(&trial.to_string());
        Ok(if trial.matched > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
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

/// Reads so many lines. A line that is too long to match is read to its end and kept to the bound.
fn read(file: &Path, trial: &mut Trial, lines_max: usize) -> anyhow::Result<()> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut reader = BufReader::with_capacity(256 * 1024, opened);
    let mut line = Vec::new();
    for _ in 0..lines_max {
        line.clear();
        let bound = LINE_BYTES_MAX as u64 + 2;
        if reader.by_ref().take(bound).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        } else if line.len() as u64 == bound {
            skip_line(&mut reader)?;
        }
        trial.line(&line);
    }
    Ok(())
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let length = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
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
