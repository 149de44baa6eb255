//! What changes without anybody saying so: bans that come fast, certificates that end.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    chat::{Change, Subject, Weight},
    names::NodeName,
};
use controlplane_store::{StoreError, bans::ListKind};
use time::OffsetDateTime;
use tokio::{
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::Chat;
use crate::{agents::Links, doors::DoorMetrics};

/// Until certificates are looked at first: agents have come by then.
const SETTLES: Duration = Duration::from_secs(600);
/// Between two tellings of the same certificate.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(86_400);
/// A certificate that ends within this is told of. Agents renew theirs with ten days left.
const ENDS_SOON: time::Duration = time::Duration::days(7);

/// Whose certificate ends when, in seconds since 1970.
type Ends<T> = Vec<(T, i64)>;

pub(super) fn keep(chat: Arc<Chat>, links: Arc<Links>, doors: DoorMetrics) -> AbortHandle {
    tokio::spawn(async move {
        let mut every = interval(chat.bans_every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revision: Option<i64> = None;
        let mut certificates_at = Instant::now() + SETTLES;
        loop {
            every.tick().await;
            match bans(&chat, revision).await {
                Ok((head, new)) => {
                    revision = Some(head);
                    chat.note(|| fast(new, chat.bans_max, chat.bans_every));
                }
                Err(error) => chat.failed("bans", &error),
            }
            if Instant::now() >= certificates_at {
                certificates_at = Instant::now() + CERTIFICATES_EVERY;
                let (of_doors, of_nodes) = (doors.certificate_ends_of(), links.certificate_ends());
                for change in ending(of_doors, of_nodes, chat.clock.now()) {
                    chat.note(|| Some(change));
                }
            }
        }
    })
    .abort_handle()
}

/// Up to which revision the list goes, and how many bans there are beyond a former one, as far as it matters.
async fn bans(chat: &Chat, after: Option<i64>) -> Result<(i64, usize), StoreError> {
    let head = chat.store.ban_revision().await?;
    let Some(after) = after.filter(|after| *after < head) else { return Ok((head, 0)) };
    let limit = chat.bans_max.saturating_add(1);
    let new = chat.store.ban_changes(after, limit).await?.entries;
    let bans = new.iter().filter(|entry| entry.kind == ListKind::Ban && entry.lifted_at.is_none());
    Ok((head, bans.count()))
}

fn fast(new: usize, most: u16, every: Duration) -> Option<Change> {
    (new > usize::from(most)).then(|| Change {
        subject: Subject::Bans,
        weight: Weight::Note,
        state: "come fast".to_owned(),
        because: format!("more than {most} in {} s", every.as_secs()),
        next: "ringward ban list".to_owned(),
        returns: false,
    })
}

/// What is told of certificates that end soon.
fn ending(of_doors: Ends<String>, of_nodes: Ends<NodeName>, now: OffsetDateTime) -> Vec<Change> {
    let of_doors = of_doors.into_iter().map(|(door, at)| {
        let next = "put a new one where tls.certificate_file and tls.key_file say".to_owned();
        (format!("of the {door}' door"), at, next)
    });
    let of_nodes = of_nodes
        .into_iter()
        .map(|(node, at)| (format!("of node {node}"), at, format!("ringward node show {node}")));
    let soon = |(whose, at, next): (String, i64, String)| {
        let left = OffsetDateTime::from_unix_timestamp(at).ok()? - now;
        let hours = left.whole_hours();
        (left <= ENDS_SOON).then(|| Change {
            subject: Subject::Certificate(whose),
            weight: Weight::Bad,
            state: if left.is_positive() { "ends soon" } else { "has ended" }.to_owned(),
            because: format!("{} hours are left, and it was not renewed", hours.max(0)),
            next,
            returns: false,
        })
    };
    of_doors.chain(of_nodes).filter_map(soon).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-29 12:00 UTC);

    #[test]
    fn certificates_are_told_of_a_week_ahead() {
        let at = |days: i64| NOW.unix_timestamp() + days * 86_400;
        let nodes = vec![("waw-1".parse().unwrap(), at(8)), ("fra-1".parse().unwrap(), at(2))];
        let told = ending(vec![("customers".to_owned(), at(-1))], nodes, NOW);
        let words: Vec<_> = told.iter().map(|c| (c.subject.to_string(), c.state.as_str())).collect();
        assert_eq!(
            words,
            [("of the customers' door".into(), "has ended"), ("of node fra-1".into(), "ends soon")]
        );
        assert_eq!(told[1].because, "48 hours are left, and it was not renewed");
        assert_eq!(told[1].next, "ringward node show fra-1");
    }

    #[test]
    fn so_many_bans_are_usual() {
        assert_eq!(fast(5, 5, Duration::from_secs(300)), None);
        assert_eq!(fast(6, 5, Duration::from_secs(300)).unwrap().because, "more than 5 in 300 s");
    }
}
