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

/// Between two looks.
const EVERY: Duration = Duration::from_millis(25);
/// What a replica says of itself when it starts.
const STARTED: &str = "one of several control planes on this database";
const PREFIX: &str = "rep_";
/// As ids are written.
const ID: usize = 30;

/// The owners of all open calls, by call, at a moment.
struct Look {
    at: Moment,
    owners: HashMap<String, String>,
}

/// Looks until it is asked for what it has seen.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    looking: JoinHandle<anyhow::Result<Vec<Look>>>,
}

impl Watch {
    pub(crate) fn start(database_url: String) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let looking = std::thread::spawn(move || runtime.block_on(look(&database_url, &over)));
        Ok(Self { is_over, looking })
    }

    /// How long it took until each call that a broken one had owned had another owner.
    pub(crate) fn takeovers(self, broken: &[Broken]) -> anyhow::Result<Vec<Takeover>> {
        self.is_over.store(true, Ordering::Relaxed);
        let looks = self.looking.join().map_err(|_| anyhow::anyhow!("the looking panicked"))??;
        Ok(broken.iter().flat_map(|broken| of(&looks, broken)).collect())
    }
}

/// The id of a control plane's present run, as its log tells it.
pub(crate) fn id(log: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(log)?;
    let line = text.lines().rfind(|line| line.contains(STARTED)).context("it says no id")?;
    let at = line.find(PREFIX).context("no id in its line")?;
    Ok(line.get(at..at + ID).context("half an id")?.to_owned())
}

async fn look(database_url: &str, over: &AtomicBool) -> anyhow::Result<Vec<Look>> {
    let mut connection = PgConnection::connect(database_url).await?;
    let mut looks = Vec::new();
    let sql = "SELECT id, lease_owner FROM call WHERE ended_at IS NULL AND lease_owner IS NOT NULL";
    while !over.load(Ordering::Relaxed) {
        let at = since_1970();
        let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut connection).await?;
        looks.push(Look { at, owners: rows.into_iter().collect() });
        tokio::time::sleep(EVERY).await;
    }
    connection.close().await?;
    Ok(looks)
}

fn of(looks: &[Look], broken: &Broken) -> Vec<Takeover> {
    let Some(victim) = &broken.replica else { return Vec::new() };
    let after = looks.partition_point(|look| look.at <= broken.from);
    let Some((before, after)) = looks.split_at_checked(after) else { return Vec::new() };
    let Some(before) = before.last() else { return Vec::new() };
    let owned = before.owners.iter().filter(|(_, owner)| *owner == victim);
    owned
        .filter_map(|(call, _)| {
            // Until it has ended, or has another owner.
            let mut open = after.iter().map_while(|look| Some((look.at, look.owners.get(call)?)));
            let (at, _) = open.find(|(_, owner)| *owner != victim)?;
            Some(Takeover { what: broken.what, took: at.saturating_sub(broken.from) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Subject, What};

    #[test]
    fn a_call_is_taken_over_when_another_owns_it_and_not_when_it_ends() {
        let look = |ms, owners: &[(&str, &str)]| Look {
            at: Duration::from_millis(ms),
            owners: owners.iter().map(|(call, owner)| ((*call).to_owned(), (*owner).to_owned())).collect(),
        };
        let looks = [
            look(0, &[("a", "x"), ("b", "x"), ("c", "y"), ("d", "x")]),
            look(1_000, &[("a", "x"), ("b", "x"), ("c", "y")]),
            look(2_100, &[("a", "y"), ("b", "x"), ("c", "y")]),
            look(2_300, &[("b", "y")]),
        ];
        let broken = Broken {
            subject: Subject::Plane(0),
            what: What::PlaneKilled,
            replica: Some("x".to_owned()),
            from: Duration::from_millis(100),
            until: None,
        };
        let mut took: Vec<_> = of(&looks, &broken).iter().map(|one| one.took.as_millis()).collect();
        took.sort_unstable();
        assert_eq!(took, [2_000, 2_200]);
    }
}
