use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::audit::CHAIN;

const KEY: [u8; 2] = [7, 7];

/// Signed by nothing but the bytes' own length and sum: whether signatures are asked for is what counts here.
fn signature(bytes: &[u8]) -> Hex {
    let sum = bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
    Hex(sum.to_be_bytes().to_vec())
}

fn signed<T: Statement>(statement: T) -> Signed<T> {
    let signature = signature(&statement.signed_bytes());
    Signed { statement, key: Hex(KEY.to_vec()), signature }
}

fn record(n: i64) -> Record {
    Record {
        id: format!("aud_{n}"),
        org: (n % 3 == 0).then(|| "org_1".to_owned()),
        occurred_at_us: n * 1_000_000,
        actor_type: "operator".to_owned(),
        actor_id: Some("key_1".to_owned()),
        key_prefix: None,
        auth_method: Some("api_key".to_owned()),
        action: "call.create".to_owned(),
        target_type: "call".to_owned(),
        target_id: format!("call_{n}"),
        outcome: "success".to_owned(),
        reason: None,
        ip: Some("192.0.2.1".to_owned()),
        user_agent: None,
        request_id: None,
        changes: json!({"b": {"y": 1, "x": [1, 2]}, "a": "ü"}),
    }
}

fn log(rows: i64) -> Vec<(Link, Record)> {
    let mut last = (0, Hash::ZERO);
    let link = |n| {
        let record = record(n);
        let link = Link::after(last.0, last.1, &record);
        last = (link.seq, link.hash);
        (link, record)
    };
    (1..=rows).map(link).collect()
}

fn head(row: &(Link, Record)) -> Signed<Head> {
    signed(Head { seq: row.0.seq, hash: row.0.hash, at_us: 9 })
}

fn erased(rows: &[(Link, Record)]) -> Checkpoint {
    let (first, last) = (&rows[0].0, &rows[rows.len() - 1].0);
    let (from_seq, to_seq) = (first.seq, last.seq);
    Checkpoint { from_seq, to_seq, prev_hash: first.prev_hash, hash: last.hash, before_us: 5 }
}

fn verified(rows: &[(Link, Record)], heads: &[Signed<Head>], checkpoints: &[Signed<Checkpoint>]) -> Report {
    let mut verifier = Verifier::new(vec![Hex(KEY.to_vec())], |_: &Hex, bytes: &[u8], given: &Hex| {
        signature(bytes) == *given
    });
    heads.iter().for_each(|head| verifier.head(head));
    let line = |line: Line| serde_json::to_string(&line).unwrap();
    verifier.line(&line(Line::AuditExport { filtered: false, after_us: 0 }));
    for checkpoint in checkpoints {
        verifier.line(&line(Line::AuditCheckpoint(checkpoint.clone())));
    }
    for (link, record) in rows {
        verifier.line(&line(Line::AuditRow { link: *link, record: Box::new(record.clone()) }));
    }
    verifier.line(&line(Line::AuditEnd { rows: rows.len() as u64 }));
    verifier.finish()
}

fn place(seq: i64) -> Place {
    Place { seq, id: format!("aud_{seq}") }
}

#[test]
fn a_whole_log_is_whole_also_where_its_past_was_erased() {
    let rows = log(20);
    let heads = [head(&rows[4]), head(&rows[19])];
    let report = verified(&rows, &heads, &[]);
    assert_eq!((report.findings, report.rows, report.heads), (vec![], 20, 2));
    let report = verified(&rows[10..], &heads, &[signed(erased(&rows[..10]))]);
    assert_eq!((report.findings, report.rows, report.erased, report.heads), (vec![], 10, 10, 1));
    // Everything was erased, in two steps.
    let steps = [signed(erased(&rows[..10])), signed(erased(&rows[10..]))];
    let report = verified(&[], &heads, &steps);
    assert_eq!((report.findings, report.rows, report.erased), (vec![], 0, 20));
    // A row whose clock was ahead stays among erased ones.
    let steps = [signed(erased(&rows[..4])), signed(erased(&rows[5..10]))];
    let left: Vec<_> = [&rows[4..5], &rows[10..]].concat();
    assert!(verified(&left, &heads, &steps).is_whole());
}

#[test]
fn an_erasure_in_the_middle_of_an_export_is_no_gap() {
    let rows = log(20);
    let (joined, replaced) = erased(&rows[8..12]).joined(&[erased(&rows[..8])]);
    assert_eq!((joined.from_seq, joined.to_seq, replaced), (1, 12, vec![1]));
    // Rows 9 and 10 were exported before they were erased; 11 and 12 were erased first.
    let left: Vec<_> = [&rows[8..10], &rows[12..]].concat();
    let report = verified(&left, &[], &[signed(erased(&rows[..8])), signed(joined)]);
    assert_eq!(report.findings, vec![]);
}

#[test]
fn what_was_done_to_a_log_is_found_and_named() {
    let rows = log(20);
    let heads = [head(&rows[9]), head(&rows[19])];
    let of = |rows: &[(Link, Record)]| verified(rows, &heads, &[]).findings;
    // A removed row.
    let left: Vec<_> = [&rows[..6], &rows[7..]].concat();
    let missing = |from_seq, to_seq, after, before| Finding::Missing { from_seq, to_seq, after, before };
    assert_eq!(of(&left), [missing(7, 7, Some(place(6)), Some(place(8)))]);
    // Removed rows at the beginning, which no checkpoint tells of.
    assert_eq!(of(&rows[3..]), [missing(1, 3, None, Some(place(4)))]);
    // A cut end, whole and all.
    let cut = |from_seq, after| Finding::Cut { from_seq, to_seq: 20, signed_at_us: 9, after };
    assert_eq!(of(&rows[..15]), [cut(16, Some(place(15)))]);
    assert_eq!(of(&[]), [cut(1, None)]);
    // A row that was written anew, with its hash, and with all that follow.
    let mut anew = rows.clone();
    anew[6].1.action = "nothing".to_owned();
    anew[6].0 = Link::after(6, anew[5].0.hash, &anew[6].1);
    assert_eq!(of(&anew), [Finding::Replaced { row: place(7), next: place(8) }]);
    for i in 7..20 {
        anew[i].0 = Link::after(i as i64, anew[i - 1].0.hash, &anew[i].1);
    }
    let rewritten = |seq| Finding::Rewritten { row: place(seq), signed_at_us: 9 };
    assert_eq!(of(&anew), [rewritten(10), rewritten(20)]);
    // A checkpoint that nobody signed, and one that fits nothing.
    let mut forged = signed(erased(&rows[..3]));
    forged.statement.to_seq = 4;
    let report = verified(&rows[4..], &heads, &[forged]).findings;
    let forged = Finding::Untrusted { what: "checkpoint", seq: 4 };
    assert_eq!(report, [forged, missing(1, 4, None, Some(place(5)))]);
    let report = verified(&rows[4..], &heads, &[signed(erased(&rows[..3]))]).findings;
    assert_eq!(report, [missing(1, 4, None, Some(place(5)))]);
    // Twice the same row; a torn export.
    let twice: Vec<_> = [&rows[..5], &rows[4..]].concat();
    assert_eq!(of(&twice), [Finding::Disordered(place(5))]);
    assert!(!Verifier::new(vec![], |_: &Hex, _: &[u8], _: &Hex| true).finish().is_whole());
}

#[test]
fn a_key_that_is_not_trusted_signs_nothing() {
    let rows = log(3);
    let mut other = head(&rows[2]);
    other.key = Hex(vec![8]);
    assert_eq!(verified(&rows, &[other], &[]).findings, [Finding::Untrusted { what: "head", seq: 3 }]);
}

/// Known once and for all: logs of today must be proved by later releases.
#[test]
fn the_form_of_a_row_does_not_change() {
    assert_eq!(CHAIN, "main");
    let hash = Link::after(0, Hash::ZERO, &record(1)).hash.to_string();
    assert_eq!(hash, "5fcc025d660b84d513f1f576ea39bd8f23cee1890634978a6a48cb19f5242de8");
}

proptest! {
    /// Whatever byte of whatever field changes, it is found and the row is named.
    #[test]
    fn one_changed_field_is_found(row in 0usize..12, field in 0usize..15) {
        let mut rows = log(12);
        let r = &mut rows[row].1;
        match field {
            0 => r.id.push('x'),
            1 => r.org = Some("org_2".to_owned()),
            2 => r.occurred_at_us += 1,
            3 => r.actor_type = "customer".to_owned(),
            4 => r.actor_id = None,
            5 => r.key_prefix = Some(String::new()),
            6 => r.auth_method = None,
            7 => r.action.push('x'),
            8 => r.target_type.push('x'),
            9 => r.target_id.push('x'),
            10 => r.outcome = "denied".to_owned(),
            11 => r.reason = Some("x".to_owned()),
            12 => r.ip = Some("192.0.2.2".to_owned()),
            13 => r.user_agent = Some("x".to_owned()),
            _ => r.changes = json!({"b": {"y": 1, "x": [2, 1]}, "a": "ü"}),
        }
        let id = rows[row].1.id.clone();
        let report = verified(&rows, &[], &[]);
        prop_assert_eq!(report.findings, [Finding::Changed(Place { seq: row as i64 + 1, id })]);
    }
}
