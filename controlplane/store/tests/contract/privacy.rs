//! What is kept of people for no longer than it must be.

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
    number::E164,
};
use controlplane_store::{
    calls::Created,
    privacy::{ERASED_NUMBER, ERASED_TEXT, ForgetNumber, Part},
};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON};

const TEXT: &str = "the roof of hall 7 is on fire";

/// A call to a number that said something, and has ended at a moment.
async fn ended(f: &mut Fixture, number: &str, at: OffsetDateTime) -> CallId {
    let id = said(f, number, at).await;
    let sql = format!(
        "UPDATE call SET status = 'failed', reason = 'trunk_unavailable', outcome = 'not_reached', ended_at = {}
         WHERE id = '{id}'",
        f.moment(at)
    );
    f.execute(&sql).await.unwrap();
    id
}

async fn said(f: &mut Fixture, number: &str, at: OffsetDateTime) -> CallId {
    let mut new = f.new_call(at);
    let json = serde_json::json!({
        "to": number, "message": {"text": TEXT, "language": "en"}, "metadata": {"who": "A. Person"},
    });
    new.request = serde_json::from_value(json).unwrap();
    let id = new.id.clone();
    assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
    id
}

async fn told(f: &Fixture, id: &CallId) -> (String, String) {
    let call = f.store.call(&OrgId::first(), id).await.unwrap().unwrap();
    (call.request.to.as_str().to_owned(), serde_json::to_string(&call.request).unwrap())
}

pub(crate) async fn old_calls_are_erased_with_all_that_is_kept_of_them(mut f: Fixture) {
    let mut old = Vec::new();
    for s in 0..5 {
        old.push(ended(&mut f, "+48221234567", NOON + Duration::seconds(s)).await);
    }
    let (attempted, _) = f.sending().await;
    let sql = format!(
        "UPDATE call SET status = 'failed', reason = 'trunk_unavailable', outcome = 'not_reached', ended_at = {}
         WHERE id = '{attempted}'",
        f.moment(NOON)
    );
    f.execute(&sql).await.unwrap();
    let (running, _) = f.sending().await;
    let by = NOON + Duration::seconds(3);
    assert_eq!(f.store.erase_calls(&OrgId::first(), by, 3).await.unwrap(), 3);
    assert_eq!(f.store.erase_calls(&OrgId::first(), by, 3).await.unwrap(), 2);
    assert_eq!(f.store.erase_calls(&OrgId::first(), by, 3).await.unwrap(), 0);
    assert!(f.store.call(&OrgId::first(), &old[3]).await.unwrap().is_none());
    assert!(f.store.call(&OrgId::first(), &old[4]).await.unwrap().is_some());
    let open = f.store.call(&OrgId::first(), &running).await.unwrap().unwrap();
    assert_ne!(open.status, CallStatus::Failed, "what has not ended stays");
    assert_eq!(f.count("SELECT count(*) FROM attempt").await, 1);
    for table in ["call", "call_transition", "outbox"] {
        let column = if table == "call" { "id" } else { "call_id" };
        let left = f.count(&format!("SELECT count(DISTINCT {column}) FROM {table}")).await;
        assert_eq!(left, 2, "{table}");
    }
    assert_eq!(
        f.count("SELECT count(*) FROM audit_log WHERE action = 'call.create'").await,
        7,
        "who did it stays"
    );
}

pub(crate) async fn parts_are_taken_out_of_calls_that_stay(mut f: Fixture) {
    let old = ended(&mut f, "+48221234567", NOON).await;
    let young = ended(&mut f, "+48221234567", NOON + Duration::seconds(2)).await;
    let by = NOON + Duration::SECOND;
    assert_eq!(f.store.strip_calls(&OrgId::first(), Part::Number, by, by, 10).await.unwrap(), 1);
    let (number, rest) = told(&f, &old).await;
    assert_eq!(number, ERASED_NUMBER);
    assert!(rest.contains(TEXT));
    assert_eq!(f.store.strip_calls(&OrgId::first(), Part::Text, by, by, 10).await.unwrap(), 1);
    assert_eq!(f.store.strip_calls(&OrgId::first(), Part::Text, by, by, 10).await.unwrap(), 0);
    let (_, rest) = told(&f, &old).await;
    assert!(rest.contains(ERASED_TEXT) && !rest.contains("Person") && !rest.contains(TEXT), "{rest}");
    assert!(told(&f, &young).await.1.contains(TEXT));
    // A recording stays the call's.
    let recording = f.accepted(NOON).await;
    let sql = format!(
        "UPDATE call SET status = 'failed', reason = 'trunk_unavailable', outcome = 'not_reached', ended_at = {}
         WHERE id = '{recording}'",
        f.moment(NOON)
    );
    f.execute(&sql).await.unwrap();
    assert_eq!(f.store.strip_calls(&OrgId::first(), Part::Text, by, by, 10).await.unwrap(), 1);
    assert!(told(&f, &recording).await.1.contains("audio_id"));
}

pub(crate) async fn each_organisation_s_is_erased_alone(mut f: Fixture) {
    let other = f.other_org().await;
    let old = ended(&mut f, "+48221234567", NOON).await;
    let by = NOON + Duration::SECOND;
    assert_eq!(f.store.erase_calls(&other, by, 9).await.unwrap(), 0);
    for part in [Part::Number, Part::Text] {
        assert_eq!(f.store.strip_calls(&other, part, by, by, 9).await.unwrap(), 0);
    }
    f.store.seal_events(NOON, 100).await.unwrap();
    let later = NOON + Duration::days(1);
    assert_eq!(f.store.erase_events(&other, later, 9).await.unwrap(), 0);
    assert!(told(&f, &old).await.1.contains(TEXT));
    assert_eq!(f.count("SELECT count(*) FROM outbox").await, 1);
    assert_eq!(f.store.erase_events(&OrgId::first(), NOON - Duration::SECOND, 9).await.unwrap(), 0);
    assert_eq!(f.store.erase_events(&OrgId::first(), later, 9).await.unwrap(), 1);
    assert_eq!(f.count("SELECT count(*) FROM call").await, 1, "the call stays");
    assert_eq!(f.store.erase_calls(&OrgId::first(), by, 9).await.unwrap(), 1);
}

pub(crate) async fn an_event_that_is_not_numbered_stays(mut f: Fixture) {
    f.accepted(NOON).await;
    let later = NOON + Duration::days(1);
    assert_eq!(f.store.erase_events(&OrgId::first(), later, 9).await.unwrap(), 0);
    f.store.seal_events(NOON, 100).await.unwrap();
    assert_eq!(f.store.erase_events(&OrgId::first(), later, 9).await.unwrap(), 1);
}

pub(crate) async fn a_number_is_forgotten_in_every_ended_call(mut f: Fixture) {
    let number: E164 = "+48221234567".parse().unwrap();
    let mut of_number = Vec::new();
    for s in 0..5 {
        of_number.push(ended(&mut f, number.as_str(), NOON + Duration::seconds(s)).await);
        ended(&mut f, "+48227654321", NOON + Duration::seconds(s)).await;
    }
    let open = said(&mut f, number.as_str(), NOON).await;
    let mut forget = ForgetNumber { org: None, number: number.clone(), after: None, limit: 3, at: NOON };
    let (mut calls, mut left, mut parts) = (0, 0, 0);
    loop {
        let part = f.store.forget_number(forget.clone()).await.unwrap();
        (calls, left, parts) = (calls + part.calls, left + part.open, parts + 1);
        let Some(next) = part.next else { break };
        forget.after = Some(next);
    }
    assert_eq!((calls, left), (5, 1));
    assert!(parts > 3, "in parts");
    for id in &of_number {
        let (_, all) = told(&f, id).await;
        assert!(!all.contains("48221234567") && !all.contains(TEXT), "{all}");
    }
    assert_eq!(told(&f, &open).await.0, number.as_str());
    let other = f.other_org().await;
    forget =
        ForgetNumber { org: Some(other), number: "+48227654321".parse().unwrap(), after: None, ..forget };
    forget.limit = 100;
    assert_eq!(f.store.forget_number(forget).await.unwrap().calls, 0, "another organisation's stay");
}
