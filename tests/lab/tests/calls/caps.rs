//! What an operator allows an organisation, against 200 posts at once: no phone more is rung than may be, by what the
//! carriers' wires had.

use std::time::Duration;

use lab::{Dialog, numbers};
use serde_json::{Value, json};

use crate::fixture::{Fleet, full};

/// Posts at a time.
const POSTS: u16 = 200;
/// Around each of them.
const CAP: usize = 25;
/// How long a phone rings.
const RINGS: Duration = Duration::from_secs(2);

fn limit(fleet: &Fleet, limits: &Value) {
    fleet.plane.admin("PUT", "/admin/v1/orgs/default/limits", Some(limits)).unwrap();
}

/// All at once; the calls that were accepted. What was not says why.
fn posts(fleet: &Fleet, behaviour: u16, why_not: &str) -> Vec<String> {
    let post = |n| {
        let to = numbers::number(behaviour, n);
        let body =
            json!({"to": to, "ring_timeout_s": RINGS.as_secs(), "message": {"audio_id": "builtin:beep"}});
        fleet.plane.place(&body)
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let posting: Vec<_> = (0..POSTS).map(|n| scope.spawn(move || post(n))).collect();
        posting.into_iter().map(|posting| posting.join().unwrap()).collect()
    });
    let accepted = answers.into_iter().filter_map(|answer| match answer {
        Ok(id) => Some(id),
        Err(error) => {
            assert!(error.to_string().contains(why_not), "{error}");
            None
        }
    });
    accepted.collect()
}

/// Every call that reached a carrier, in the order of their INVITEs.
fn dialogs(fleet: &Fleet) -> Vec<Dialog> {
    // Quiet first: the last packets are on their way to the captures.
    fleet.truth();
    let mut all: Vec<_> =
        fleet.lab.carriers().iter().flat_map(|carrier| carrier.dialogs().unwrap()).collect();
    all.sort_by_key(|dialog| dialog.at);
    all
}

/// Most calls that were at carriers at one moment.
fn peak(dialogs: &[Dialog]) -> usize {
    let at = |moment| {
        let is_there =
            |dialog: &&Dialog| dialog.at <= moment && dialog.ended.is_none_or(|(_, end)| end > moment);
        dialogs.iter().filter(is_there).count()
    };
    dialogs.iter().map(|dialog| at(dialog.at)).max().unwrap_or(0)
}

#[test]
fn of_200_posts_at_once_no_phone_more_rings_than_may() {
    let fleet = Fleet::up(full());
    let all_end = |ids: &[String]| ids.iter().for_each(|id| drop(fleet.ended(id)));

    limit(&fleet, &json!({"calls_per_day": CAP}));
    let of_day = posts(&fleet, numbers::ANSWER_AND_HANG_UP, "daily_limit");
    assert_eq!(of_day.len(), CAP);
    all_end(&of_day);
    assert_eq!(dialogs(&fleet).len(), CAP);

    limit(&fleet, &json!({"open_calls_max": CAP}));
    let open = posts(&fleet, numbers::RING, "too_many_open_calls");
    assert_eq!(open.len(), CAP);
    all_end(&open);
    assert_eq!(dialogs(&fleet).len(), 2 * CAP);

    limit(&fleet, &json!({"channels_max": CAP}));
    let placed = posts(&fleet, numbers::RING, "nothing is refused");
    assert_eq!(placed.len(), usize::from(POSTS), "they wait");
    all_end(&placed);
    let rang = dialogs(&fleet).split_off(2 * CAP);
    let most = peak(&rang);
    println!("{} calls at the carriers, {most} at a time", rang.len());
    assert_eq!(rang.len(), placed.len(), "each phone once");
    assert!((CAP - 5..=CAP).contains(&most), "{most}");
}
