//! Signed heads outside of the database, so that a log that was cut or written anew shows.
//!
//! `audit-head.json` is the head of now; `audit-heads.ndjson` gets a line a minute where there is news, and the log the
//! same, for whoever collects logs on another machine. A file that has grown to `SIZE_MAX` becomes `….1`, in the place
//! of the one before it: more than a year of busy minutes.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::audit::{Head, Line, Signed};
use tokio::time::Instant;

use super::signing::write;

const NOW_FILE: &str = "audit-head.json";
const FILE: &str = "audit-heads.ndjson";
const EARLIER_FILE: &str = "audit-heads.ndjson.1";
/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Largest file, in bytes.
const SIZE_MAX: u64 = 32 * 1024 * 1024;

#[derive(Default)]
struct Told {
    line_at: Option<Instant>,
    /// Told by `audit-head.json` alone.
    pending: Option<Signed<Head>>,
}

/// See the module. Clones share it. Everything here blocks.
#[derive(Clone)]
pub(super) struct Heads {
    folder: PathBuf,
    told: Arc<Mutex<Told>>,
}

impl Heads {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned(), told: Arc::default() }
    }

    /// Tells a head.
    pub(super) fn tell(&self, head: &Signed<Head>) -> io::Result<()> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.folder.join(NOW_FILE), line(head)?.as_bytes(), 0o600)?;
        if told.line_at.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            self.append(head)?;
            *told = Told { line_at: Some(Instant::now()), pending: None };
        } else {
            told.pending = Some(head.clone());
        }
        Ok(())
    }

    /// Tells what was told by `audit-head.json` alone.
    pub(super) fn close(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = told.pending.take()
            && let Err(error) = self.append(&head)
        {
            tracing::error!(%error, "the audit log's last head could not be written");
        }
    }

    fn append(&self, head: &Signed<Head>) -> io::Result<()> {
        let path = self.folder.join(FILE);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() >= SIZE_MAX) {
            fs::rename(&path, self.folder.join(EARLIER_FILE))?;
        }
        let mut file = File::options().create(true).append(true).mode(0o600).open(&path)?;
        file.write_all(line(head)?.as_bytes())?;
        file.sync_data()?;
        let Signed { statement, key, signature } = head;
        tracing::info!(
            seq = statement.seq, hash = %statement.hash, at_us = statement.at_us, %key, %signature,
            "audit head"
        );
        Ok(())
    }

    /// Every head that is kept, oldest first.
    pub(super) fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        for file in [EARLIER_FILE, FILE, NOW_FILE] {
            match fs::read_to_string(self.folder.join(file)) {
                Ok(lines) => text.push_str(&lines),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(text)
    }

    /// The head of now, as it was told last.
    pub(super) fn last(&self) -> Option<Signed<Head>> {
        let text = fs::read_to_string(self.folder.join(NOW_FILE)).ok()?;
        match serde_json::from_str(text.trim()).ok()? {
            Line::AuditHead(head) => Some(head),
            Line::AuditExport { .. }
            | Line::AuditCheckpoint(_)
            | Line::AuditRow { .. }
            | Line::AuditEnd { .. } => None,
        }
    }
}

fn line(head: &Signed<Head>) -> io::Result<String> {
    let line = serde_json::to_string(&Line::AuditHead(head.clone())).map_err(io::Error::other)?;
    Ok(line + "\n")
}

#[cfg(test)]
mod tests {
    use controlplane_core::audit::{Hash, Hex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_a_minute_and_the_last_one_always() {
        let folder = tempfile::tempdir().unwrap();
        let heads = Heads::new(folder.path());
        let head = |seq| Signed {
            statement: Head { seq, hash: Hash::ZERO, at_us: 0 },
            key: Hex(vec![1]),
            signature: Hex(vec![2]),
        };
        for seq in 1..=5 {
            heads.tell(&head(seq)).unwrap();
            tokio::time::advance(Duration::from_secs(25)).await;
        }
        let lines = || fs::read_to_string(folder.path().join(FILE)).unwrap().lines().count();
        assert_eq!(lines(), 2);
        assert_eq!(heads.last(), Some(head(5)));
        assert_eq!(heads.read().unwrap().lines().count(), 3);
        heads.close();
        heads.close();
        assert_eq!(lines(), 3);
    }
}
