//! Tells one linked node what changed of the fleet's bans: a page, its answer, the next page.

use std::{sync::Arc, time::Duration};

use controlplane_core::names::NodeName;
use controlplane_store::{
    StoreError,
    bans::{Changes, Entry, ListKind},
};
use node_agent_protocol::{
    BANS_PER_MESSAGE, BanBy, BanChanges, BanPage, BansHeld, Down, FleetAllow, FleetBan, List, Text,
};
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::Bans;

/// Between two tries to read the list while the database is away.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Between two whole lists to one node: who forgets what it holds at every answer takes no more of the database.
const WHOLE_APART: Duration = Duration::from_secs(10);
/// Between two pages.
const PAGE_PACE: Duration = Duration::from_millis(5);

/// Feeds a link until it ends. Nothing is sent before the node says what it holds.
pub(in crate::agents) async fn feed(
    bans: Arc<Bans>,
    node: NodeName,
    mut answers: mpsc::Receiver<BansHeld>,
    out: mpsc::Sender<Down>,
) {
    let mut revision = bans.revision.subscribe();
    let Some(mut held) = answers.recv().await else { return };
    let mut is_whole = false;
    let mut whole_from = Instant::now();
    loop {
        revision.borrow_and_update();
        let next = match bans.next(&held, is_whole).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%node, error = %crate::calls::chain(&error), "a node cannot be told of bans yet");
                sleep(STORE_RETRY).await;
                continue;
            }
        };
        let Some(Next { page, oldest }) = next else {
            tokio::select! {
                // The sender lives as long as `bans` does.
                _ = revision.changed() => {}
                answer = answers.recv() => match answer {
                    Some(answer) => held = answer,
                    None => return,
                },
            }
            continue;
        };
        if page.page != BanPage::Changes && page.after == 0 {
            sleep_until(whole_from).await;
            whole_from = Instant::now() + WHOLE_APART;
        }
        is_whole = page.page == BanPage::Whole;
        let is_change = page.page == BanPage::Changes;
        if out.send(Down::Bans(Box::new(page))).await.is_err() {
            return;
        }
        let Some(answer) = answers.recv().await else { return };
        held = answer;
        if is_change && let Some(oldest) = oldest {
            let lag = (bans.clock.now() - oldest).as_seconds_f64();
            bans.metrics.shared(lag.max(0.0));
        }
        sleep(PAGE_PACE).await;
    }
}

/// A page to be sent.
struct Next {
    page: BanChanges,
    /// When the first change in it was made.
    oldest: Option<OffsetDateTime>,
}

impl Bans {
    /// The page for a node that holds this; `None`: it holds everything.
    async fn next(&self, held: &BansHeld, is_whole: bool) -> Result<Option<Next>, StoreError> {
        let limit = u16::try_from(BANS_PER_MESSAGE).unwrap_or(u16::MAX);
        let after = i64::try_from(held.revision).unwrap_or(i64::MAX);
        let changes = self.store.ban_changes(after, limit).await?;
        let is_known = held.list.as_str() == changes.list && after <= changes.head;
        let now = self.clock.now();
        if is_known && (is_whole || after >= changes.lifts_known_from) {
            if changes.entries.is_empty() && !is_whole {
                return Ok(None);
            }
            return Ok(Some(page(changes, after, is_whole, now)));
        }
        let changes = self.store.ban_changes(0, limit).await?;
        Ok(Some(page(changes, 0, true, now)))
    }
}

fn page(changes: Changes, after: i64, is_whole: bool, now: OffsetDateTime) -> Next {
    let Changes { list, head, entries, .. } = changes;
    let is_last = entries.len() < BANS_PER_MESSAGE;
    let revision = match entries.last() {
        Some(last) if !is_last => last.revision,
        Some(_) | None => head,
    };
    let oldest = entries.iter().map(|entry| entry.changed_at).min();
    let (mut lifts, mut bans, mut disallows, mut allows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let was_lifted = entry.lift_revision.is_some_and(|lift| lift > after);
        let net = entry.entry.net;
        match entry.kind {
            ListKind::Ban if was_lifted => lifts.push(net),
            ListKind::Allow if was_lifted => disallows.push(net),
            ListKind::Ban | ListKind::Allow => {}
        }
        if !entry.holds(now) {
            continue;
        }
        let (by, seconds_left) = (by(&entry), seconds_left(&entry, now));
        match entry.kind {
            ListKind::Ban => bans.push(FleetBan {
                net,
                by,
                jail: entry.entry.jail.as_deref().map(Text::cut),
                evidence: entry.entry.evidence.as_deref().map(Text::cut),
                seconds_left,
            }),
            ListKind::Allow => allows.push(FleetAllow { net, by, seconds_left }),
        }
    }
    let page = BanChanges {
        list: Text::cut(&list),
        page: match (is_whole, is_last) {
            (false, _) => BanPage::Changes,
            (true, false) => BanPage::Whole,
            (true, true) => BanPage::WholeEnd,
        },
        after: u64::try_from(after).unwrap_or(0),
        revision: u64::try_from(revision).unwrap_or(0),
        lifts: List::first(lifts),
        bans: List::first(bans),
        disallows: List::first(disallows),
        allows: List::first(allows),
    };
    Next { page, oldest }
}

fn by(entry: &Entry) -> BanBy {
    BanBy {
        origin: Text::cut(&entry.entry.origin),
        author: Text::cut(&entry.entry.author),
        reason: Text::cut(&entry.entry.reason),
    }
}

/// Rounded up: a ban that holds here holds there.
fn seconds_left(entry: &Entry, now: OffsetDateTime) -> Option<u32> {
    let left = entry.entry.expires_at? - now;
    let seconds = left.whole_seconds() + i64::from(left.subsec_nanoseconds() > 0);
    Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
}
