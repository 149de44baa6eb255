//! Who owns each open call, looked at in the database all along: how soon others claim the calls of one that is broken.
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use lab::since_1970;
use sqlx::{Connection as _, PgConnection};

use crate::history::{Broken, Moment, Takeover};

/// What a replica says of itself when it starts.
const STARTED: &str = "one of several control planes on this database";
const PREFIX: &str = "rep_";
/// As ids are written.
const ID: usize = 30;

/// A call had an owner for as long, and then another one.
struct Owned {
    by: String,
    since: Moment,
    until: Moment,
}

/// Who owns which open call, and what of that has changed.
#[derive(Default)]
struct Owners {
    /// By call: its owner, and since when.
    now: HashMap<String, (String, Moment)>,
    changed: Vec<Owned>,
}

impl Owners {
    /// The owners of all open calls at a moment. A call without one, or that is over, is forgotten.
    fn are(&mut self, at: Moment, rows: impl IntoIterator<Item = (String, String)>) {
        let mut before = std::mem::take(&mut self.now);
        for (call, owner) in rows {
            let now = match before.remove(&call) {
                Some((same, since)) if same == owner => (same, since),
                Some((by, since)) => {
                    self.changed.push(Owned { by, since, until: at });
                    (owner, at)
                }
                None => (owner, at),
            };
            self.now.insert(call, now);
        }
    }
}

/// Looks until it is asked for what it has seen.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<anyhow::Result<Vec<Owned>>>,
}

impl Watch {
    /// Looks so often.
    pub(crate) fn start(database_url: String, every: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let looking = std::thread::spawn(move || runtime.block_on(look(&database_url, every, &over)));
        Ok(Self { is_over, looking })
    }

    /// How long it took until each call that a broken one had owned had another owner.
    pub(crate) fn takeovers(self, broken: &[Broken]) -> anyhow::Result<Vec<Takeover>> {
        self.is_over.store(true, Ordering::Relaxed);
        let changed = self.looking.join().map_err(|_| anyhow::anyhow!("the looking panicked"))??;
        Ok(broken.iter().flat_map(|broken| of(&changed, broken)).collect())
    }
}

/// The id of a control plane's present run, as its log tells it.
pub(crate) fn id(log: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(log)?;
    let line = text.lines().rfind(|line| line.contains(STARTED)).context("it says no id")?;
    let at = line.find(PREFIX).context("no id in its line")?;
    Ok(line.get(at..at + ID).context("half an id")?.to_owned())
}

async fn look(database_url: &str, every: Duration, over: &AtomicBool) -> anyhow::Result<Vec<Owned>> {
    let mut connection = PgConnection::connect(database_url).await?;
    let mut owners = Owners::default();
    let sql = "SELECT id, lease_owner FROM call WHERE ended_at IS NULL AND lease_owner IS NOT NULL";
    while !over.load(Ordering::Relaxed) {
        let at = since_1970();
        let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        owners.are(at, rows);
        tokio::time::sleep(every).await;
    }
    connection.close().await?;
    Ok(owners.changed)
}

/// Of calls that the broken one owned when it broke.
fn of(changed: &[Owned], broken: &Broken) -> Vec<Takeover> {
    let Some(victim) = &broken.replica else { return Vec::new() };
    let from = broken.from;
    let taken = changed.iter().filter(|own| own.by == *victim && own.since <= from && own.until > from);
    taken.map(|own| Takeover { what: broken.what, took: own.until.saturating_sub(broken.from) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Subject, What};

    #[test]
    fn a_call_is_taken_over_when_another_owns_it_and_not_when_it_ends() {
        let mut owners = Owners::default();
        let mut look = |ms, all: &[(&str, &str)]| {
            let rows = all.iter().map(|(call, owner)| ((*call).to_owned(), (*owner).to_owned()));
            owners.are(Duration::from_millis(ms), rows);
        };
        look(0, &[("a", "x"), ("b", "x"), ("c", "y"), ("d", "x")]);
        look(1_000, &[("a", "x"), ("b", "x"), ("c", "y"), ("e", "x")]);
        look(2_100, &[("a", "y"), ("b", "x"), ("c", "y"), ("e", "y")]);
        look(2_300, &[("b", "y")]);
        let broken = Broken {
            subject: Subject::Plane(0),
            what: What::PlaneKilled,
            replica: Some("x".to_owned()),
            from: Duration::from_millis(100),
            until: None,
        };
        let mut took: Vec<_> = of(&owners.changed, &broken).iter().map(|one| one.took.as_millis()).collect();
        took.sort_unstable();
        assert_eq!(took, [2_000, 2_200]);
    }
}
