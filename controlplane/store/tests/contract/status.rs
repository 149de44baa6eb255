//! Public status: days that two processes do not tell twice, calls by their ends, and notices.

use controlplane_core::{
    ids::{NoticeId, OrgId},
    status::{
        CallsDay, RegionDay, Unwritten,
        notice::{Notice, UPDATES_MAX, Update},
    },
};
use controlplane_store::{
    calls::Created,
    status::{ChangeNotice, NOTICES_MAX, NoticeChange, NoticeChanged, ToldUntil},
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

const DAY: i64 = NOON.unix_timestamp() / 86_400;

fn seen(from: Option<OffsetDateTime>, until: OffsetDateTime, day: i64, up_ms: i64) -> Unwritten {
    let days = vec![RegionDay { region: "eu-east".parse().unwrap(), day, up_ms, down_ms: 1 }];
    Unwritten { from, until, days }
}

pub(crate) async fn regions_are_added_up_by_who_has_read_up_to_when(f: Fixture) {
    assert_eq!(f.store.told_until().await.unwrap(), ToldUntil::default());
    let later = NOON + Duration::seconds(30);
    assert!(f.store.tell_regions(seen(None, NOON, DAY, 100), DAY - 89).await.unwrap());
    assert!(!f.store.tell_regions(seen(None, later, DAY, 1_000), DAY - 89).await.unwrap());
    assert!(f.store.tell_regions(seen(Some(NOON), later, DAY, 10), DAY - 89).await.unwrap());
    assert_eq!(f.store.told_until().await.unwrap().regions, Some(later));
    let past = f.store.past(DAY).await.unwrap();
    let day = RegionDay { region: "eu-east".parse().unwrap(), day: DAY, up_ms: 110, down_ms: 2 };
    assert_eq!(past.regions, [day]);
    // Of twenty at once one tells.
    let work = (0..20).map(|_| {
        let store = f.store.clone();
        async move {
            let more = seen(Some(later), later + Duration::SECOND, DAY + 1, 1_000);
            store.tell_regions(more, DAY - 89).await.unwrap()
        }
    });
    assert_eq!(at_once(work.collect()).await.into_iter().filter(|told| *told).count(), 1);
    let past = f.store.past(DAY + 1).await.unwrap();
    assert_eq!(past.regions.iter().map(|day| day.up_ms).collect::<Vec<_>>(), [1_000]);
    // The past goes.
    let until = later + Duration::seconds(9);
    let last = seen(Some(later + Duration::SECOND), until, DAY + 2, 5);
    assert!(f.store.tell_regions(last, DAY + 1).await.unwrap());
    assert_eq!(f.store.past(0).await.unwrap().regions.len(), 2);
}

pub(crate) async fn calls_are_counted_once_by_the_day_and_reason_of_their_end(mut f: Fixture) {
    let other = f.other_org().await;
    let mut ended = async |reason: &str, org: &OrgId, at: OffsetDateTime, mode: &str| {
        let new = f.new_call(NOON - Duration::days(3));
        let id = new.id.clone();
        assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
        let sql = format!(
            "UPDATE call SET status = 'failed', reason = '{reason}', outcome = 'unknown', ended_at = {}, mode = '{mode}',
                 org_id = '{org}' WHERE id = '{id}'",
            f.moment(at)
        );
        f.execute(&sql).await.unwrap();
    };
    let first = OrgId::first();
    let midnight = OffsetDateTime::from_unix_timestamp(DAY * 86_400).unwrap();
    ended("played", &first, midnight - Duration::MICROSECOND, "live").await;
    ended("user_busy", &other, midnight, "live").await;
    ended("trunk_unavailable", &other, midnight + Duration::HOUR, "live").await;
    // Neither what the caller decided, nor what was only rehearsed.
    ended("api", &first, midnight + Duration::HOUR, "live").await;
    ended("no_healthy_route", &first, midnight + Duration::HOUR, "test").await;
    ended("played", &first, midnight + Duration::hours(2), "live").await;
    let until = midnight + Duration::HOUR;
    assert!(f.store.tell_calls(None, until).await.unwrap());
    assert!(!f.store.tell_calls(None, until).await.unwrap(), "told already");
    let day = |day, served, missed| CallsDay { day, served, missed };
    assert_eq!(f.store.past(0).await.unwrap().calls, [day(DAY - 1, 1, 0), day(DAY, 1, 1)]);
    assert!(f.store.tell_calls(Some(until), midnight + Duration::hours(3)).await.unwrap());
    assert_eq!(f.store.past(DAY).await.unwrap().calls, [day(DAY, 2, 1)]);
    assert_eq!(f.store.told_until().await.unwrap().calls, Some(midnight + Duration::hours(3)));
}

fn said(text: &str) -> Update {
    Update { at: NOON, text: text.to_owned() }
}

fn notice(f: &mut Fixture) -> Notice {
    let id = NoticeId::new(NOON, &mut f.rng);
    Notice { id, title: "Ü".to_owned(), updates: vec![said("first")], started_at: NOON, ended_at: None }
}

async fn change(f: &mut Fixture, change: NoticeChange) -> NoticeChanged {
    let audit_id = f.audit_id();
    f.store.change_notice(ChangeNotice { change, at: NOON, actor: system(), audit_id }).await.unwrap()
}

pub(crate) async fn a_notice_is_made_told_more_of_ended_and_removed_each_with_its_audit_row(mut f: Fixture) {
    let notice = notice(&mut f);
    let id = notice.id.clone();
    let tell = |text: &str, ends| NoticeChange::Tell { id: id.clone(), update: said(text), ends };
    assert_eq!(change(&mut f, tell("x", false)).await, NoticeChanged::Missing);
    assert_eq!(change(&mut f, NoticeChange::Make(notice.clone())).await, NoticeChanged::Yes);
    assert_eq!(f.store.past(0).await.unwrap().notices, std::slice::from_ref(&notice));
    assert_eq!(change(&mut f, tell("second", false)).await, NoticeChanged::Yes);
    assert_eq!(change(&mut f, tell("over", true)).await, NoticeChanged::Yes);
    assert_eq!(change(&mut f, tell("late", false)).await, NoticeChanged::Full);
    let told = f.store.past(i64::MAX).await.unwrap().notices.remove(0);
    assert_eq!(told.updates, [said("first"), said("second"), said("over")]);
    assert_eq!(told.ended_at, Some(NOON));
    assert_eq!(change(&mut f, NoticeChange::Remove(id.clone())).await, NoticeChanged::Yes);
    assert_eq!(change(&mut f, NoticeChange::Remove(id.clone())).await, NoticeChanged::Missing);
    assert!(f.store.past(0).await.unwrap().notices.is_empty());
    let rows = f.store.audit(10).await.unwrap();
    // All of one moment: in no order.
    let mut actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    actions.sort_unstable();
    assert_eq!(actions, ["notice.create", "notice.delete", "notice.update", "notice.update"]);
    let told = rows.iter().filter(|row| row.changes == json!({"text": "over", "ends": true}));
    assert_eq!(told.count(), 1);
    assert!(rows.iter().all(|row| row.record.target_id == id.as_str()));
}

pub(crate) async fn notices_are_bounded_and_what_is_over_goes_first(mut f: Fixture) {
    let first = notice(&mut f);
    let id = first.id.clone();
    assert_eq!(change(&mut f, NoticeChange::Make(first)).await, NoticeChanged::Yes);
    for n in 1..UPDATES_MAX {
        let tell = NoticeChange::Tell { id: id.clone(), update: said(&n.to_string()), ends: false };
        assert_eq!(change(&mut f, tell).await, NoticeChanged::Yes);
    }
    let tell = NoticeChange::Tell { id, update: said("x"), ends: true };
    assert_eq!(change(&mut f, tell).await, NoticeChanged::Full);
    let mut over = notice(&mut f);
    over.ended_at = Some(NOON);
    assert_eq!(change(&mut f, NoticeChange::Make(over.clone())).await, NoticeChanged::Yes);
    for _ in 1..NOTICES_MAX {
        let next = notice(&mut f);
        assert_eq!(change(&mut f, NoticeChange::Make(next)).await, NoticeChanged::Yes);
    }
    let kept = f.store.past(0).await.unwrap().notices;
    assert!(kept.len() == usize::from(NOTICES_MAX) && !kept.contains(&over), "{}", kept.len());
    let next = notice(&mut f);
    assert_eq!(change(&mut f, NoticeChange::Make(next)).await, NoticeChanged::Full);
}
