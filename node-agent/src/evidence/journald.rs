//! Sshd's entries of the journal, by `journalctl` as a child.
//!
//! Whose an entry is tell the fields that journald itself wrote (`patterns::journal`). The child is started again when it
//! ends, behind the last entry that was weighed, which is kept on disk. A child that writes more than is weighed waits at
//! its full pipe, and the journal waits on the disk.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use node_agent_core::{
    moment::UnixMs,
    patterns::{
        Line, Matcher,
        journal::{self, IDENTIFIERS, Told},
    },
    rules::JailName,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{
    Intake,
    metrics::{Lost, Read},
};

const SOURCE: &str = "journal";
const FILE: &str = "journal.cursor";
/// Bytes of one entry; longer ones are passed over.
const ENTRY_BYTES_MAX: usize = 64 * 1024;
/// Between two savings of the cursor.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Waits before the next child.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);
/// A child that lived so long was none that cannot be started.
const LIVED: Duration = Duration::from_secs(30);
/// As in `files`: what was left longer ago is not weighed as if it were of now.
const LEFT_MAX_MS: u64 = 600_000;
/// Of what a child complains.
const COMPLAINT_BYTES_MAX: u64 = 1024;
const FIX: &str = "without a journal name sshd's log in [jails.sshd] files, such as /var/log/auth.log, and set journal = false";

/// Where the journal was read up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    cursor: String,
    at: UnixMs,
}

/// The journal as `program` tells it.
pub(crate) struct Journald {
    pub(crate) jail: JailName,
    pub(crate) program: PathBuf,
    pub(crate) matcher: Matcher,
    pub(crate) intake: Intake,
}

impl Journald {
    /// Reads for as long as the program runs.
    pub(crate) async fn read(mut self) {
        let mut cursor = self.restore();
        let mut wait = AGAIN_MIN;
        loop {
            let (since, before) = (Instant::now(), cursor.clone());
            let why = match self.start(cursor.as_ref()) {
                Ok(child) => self.follow(child, &mut cursor).await,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    format!("{} is not there: this host has no journal", self.program.display())
                }
                Err(error) => format!("{}: {error}", self.program.display()),
            };
            self.intake.is_down(SOURCE, &why, FIX);
            if since.elapsed() >= LIVED || cursor != before {
                wait = AGAIN_MIN;
            } else {
                // It may be the cursor that the child cannot take.
                cursor = None;
            }
            sleep(wait).await;
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }

    fn restore(&self) -> Option<Cursor> {
        let text = std::fs::read(self.intake.state.path(FILE)).ok()?;
        let cursor: Cursor = serde_json::from_slice(&text).ok()?;
        (self.intake.now().since_ms(cursor.at) <= LEFT_MAX_MS).then_some(cursor)
    }

    fn start(&self, cursor: Option<&Cursor>) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["--follow", "--output=json", "--no-pager", "--quiet"]);
        match cursor {
            Some(cursor) => command.arg("--no-tail").arg(format!("--after-cursor={}", cursor.cursor)),
            None => command.arg("--lines=0"),
        };
        command.arg("_UID=0").args(IDENTIFIERS.map(|name| format!("SYSLOG_IDENTIFIER={name}")));
        command.env_clear().env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()
    }

    /// Until the child ends; says how.
    async fn follow(&mut self, mut child: Child, cursor: &mut Option<Cursor>) -> String {
        let (Some(mut out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return "the child has no output".to_owned();
        };
        self.intake.is_up(SOURCE, "reads the journal");
        let complaints = async {
            let mut text = Vec::new();
            let mut err = err.take(COMPLAINT_BYTES_MAX);
            let _ = err.read_to_end(&mut text).await;
            // The rest is read away, so that the child never waits for it.
            let _ = tokio::io::copy(&mut err.into_inner(), &mut tokio::io::sink()).await;
            text
        };
        let (read, complaints) = tokio::join!(self.entries(&mut out, cursor), complaints);
        self.save(cursor.as_ref());
        let ended = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said: String = String::from_utf8_lossy(&complaints)
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect();
        match read {
            Ok(()) => format!("journalctl ended ({ended}) {said}"),
            Err(error) => format!("journalctl cannot be read: {error}"),
        }
    }

    async fn entries(
        &mut self,
        out: &mut (impl AsyncRead + Unpin),
        cursor: &mut Option<Cursor>,
    ) -> io::Result<()> {
        let (mut held, mut is_rest, mut saved) = (Vec::new(), false, Instant::now());
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let wake = saved + SAVE_EVERY;
            let read = tokio::select! {
                read = out.read(&mut chunk) => read?,
                () = tokio::time::sleep_until(wake) => {
                    self.save(cursor.as_ref());
                    saved = Instant::now();
                    continue;
                }
            };
            let Some(mut bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            while let Some(end) = memchr::memchr(b'\n', bytes) {
                let (line, rest) = bytes.split_at(end);
                bytes = rest.get(1..).unwrap_or_default();
                let is_whole = !std::mem::take(&mut is_rest) && held.len() + line.len() <= ENTRY_BYTES_MAX;
                if is_whole {
                    held.extend_from_slice(line);
                    self.entry(&held, cursor).await;
                } else {
                    self.intake.metrics.evidence.lost(&self.jail, Lost::Overlong, 1);
                }
                held.clear();
            }
            if held.len() + bytes.len() <= ENTRY_BYTES_MAX {
                held.extend_from_slice(bytes);
            } else {
                (held, is_rest) = (Vec::new(), true);
            }
        }
    }

    async fn entry(&mut self, json: &[u8], cursor: &mut Option<Cursor>) {
        let (metrics, now) = (&self.intake.metrics.evidence, self.intake.now());
        let entry = match journal::read(json) {
            Told::Entry(entry) => entry,
            Told::Stranger { cursor: at } => {
                metrics.lost(&self.jail, Lost::Strangers, 1);
                *cursor = Some(Cursor { cursor: at, at: now });
                return;
            }
            Told::Unreadable => return metrics.lost(&self.jail, Lost::Strangers, 1),
        };
        let (read, finding) = match self.matcher.read(&entry.line, entry.at) {
            Line::Matched { finding, .. } => (Read::Matched, Some(finding)),
            Line::Ignored(_) => (Read::Ignored, None),
            Line::Missed => (Read::Missed, None),
        };
        metrics.lines(&self.jail, read, 1);
        if let Some(finding) = finding {
            self.intake.bring(&self.jail, finding).await;
        }
        *cursor = Some(Cursor { cursor: entry.cursor, at: now });
    }

    /// A cursor that is not kept costs what comes while the agent is not there.
    fn save(&self, cursor: Option<&Cursor>) {
        let Some(text) = cursor.and_then(|cursor| serde_json::to_vec(cursor).ok()) else { return };
        if let Err(error) = self.intake.state.write(FILE, &text) {
            tracing::warn!(%error, "where the journal was read up to is not kept");
        }
    }
}
