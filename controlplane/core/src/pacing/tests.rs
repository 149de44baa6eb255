use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

#[allow(clippy::disallowed_methods, reason = "an Instant has no other beginning; the tests only add to it")]
fn origin() -> Instant {
    Instant::now()
}

const MS: Duration = Duration::from_millis(1);
const NS: Duration = Duration::from_nanos(1);

fn ids(count: u64) -> Vec<AttemptId> {
    (0..count).map(|n| AttemptId::new(&mut StdRng::seed_from_u64(n))).collect()
}

/// Starts of the span that ends now.
fn within_a_span(starts: &[Instant], now: Instant, span: Duration) -> usize {
    starts.iter().filter(|s| **s + span > now).count()
}

#[test]
fn the_start_after_the_limit_waits_for_the_first_to_be_a_second_old() {
    let t = origin();
    let mut window = Window::new(2);
    assert_eq!(window.try_take(t), Ok(()));
    assert_eq!(window.try_take(t + 400 * MS), Ok(()));
    assert_eq!(window.try_take(t + 500 * MS), Err(t + 1000 * MS));
    assert_eq!(window.check(t + 1000 * MS - NS), Err(t + 1000 * MS));
    assert_eq!(window.try_take(t + 1000 * MS), Ok(()));
    assert_eq!(window.check(t + 1000 * MS), Err(t + 1400 * MS));
}

#[test]
fn what_left_unasked_counts_too() {
    let t = origin();
    let mut window = Window::new(2);
    for _ in 0..5 {
        window.take(t);
    }
    window.take(t + 300 * MS);
    assert_eq!(window.check(t + 999 * MS), Err(t + 1000 * MS));
    assert_eq!(window.try_take(t + 1000 * MS), Ok(()));
    assert_eq!(window.check(t + 1000 * MS), Err(t + 1300 * MS));
}

#[test]
fn another_limit_counts_what_started_before_it() {
    let t = origin();
    let mut window = Window::new(3);
    for at in [0, 100, 200] {
        window.take(t + at * MS);
    }
    window.set_max(1);
    assert_eq!(window.check(t + 300 * MS), Err(t + 1200 * MS));
    window.set_max(4);
    assert_eq!(window.try_take(t + 300 * MS), Ok(()));
    assert_eq!(window.try_take(t + 300 * MS), Err(t + 1000 * MS));
}

#[test]
fn a_limit_of_nothing_is_one() {
    let t = origin();
    let mut window = Window::new(0);
    assert_eq!(window.try_take(t), Ok(()));
    assert_eq!(window.check(t), Err(t + SECOND));
}

#[test]
fn slowed_down_it_admits_half_and_recovers() {
    let t = origin();
    let mut window = Window::new(4);
    window.slow_down(t, 10 * SECOND);
    assert_eq!(window.slow_until(t), Some(t + 10 * SECOND));
    assert_eq!((window.try_take(t), window.try_take(t)), (Ok(()), Ok(())));
    assert_eq!(window.try_take(t), Err(t + SECOND));
    let after = t + 10 * SECOND;
    assert_eq!(window.slow_until(after), None);
    assert!((0..4).all(|_| window.try_take(after).is_ok()));
    assert_eq!(window.check(after), Err(after + SECOND));
}

#[test]
fn a_recovery_before_the_second_is_over_ends_the_wait() {
    let t = origin();
    let mut window = Window::new(2);
    window.slow_down(t, 300 * MS);
    assert_eq!(window.try_take(t + 100 * MS), Ok(()));
    assert_eq!(window.check(t + 100 * MS), Err(t + 300 * MS));
    assert_eq!(window.try_take(t + 300 * MS), Ok(()));
}

#[test]
fn half_of_one_per_second_is_one_in_two() {
    let t = origin();
    let mut window = Window::new(1);
    window.slow_down(t, 60 * SECOND);
    assert_eq!(window.try_take(t), Ok(()));
    assert_eq!(window.check(t + SECOND), Err(t + 2 * SECOND));
    assert_eq!(window.try_take(t + 2 * SECOND), Ok(()));
}

#[test]
fn slowing_down_again_extends_and_never_shortens_or_quarters() {
    let t = origin();
    let mut window = Window::new(4);
    window.slow_down(t, 10 * SECOND);
    window.slow_down(t + SECOND, SECOND);
    assert_eq!(window.slow_until(t + SECOND), Some(t + 10 * SECOND));
    window.slow_down(t + 5 * SECOND, 10 * SECOND);
    assert_eq!(window.slow_until(t + 5 * SECOND), Some(t + 15 * SECOND));
    let at = t + 6 * SECOND;
    assert_eq!((window.try_take(at), window.try_take(at)), (Ok(()), Ok(())));
}

#[test]
fn memory_is_bounded_by_the_pace_and_not_by_time() {
    let t = origin();
    let mut window = Window::new(1_000);
    for n in 0..100_000 {
        let _ = window.try_take(t + n * 100 * Duration::from_micros(1));
    }
    assert!(window.starts.len() <= 2_000, "{}", window.starts.len());
    for _ in 0..20_000 {
        window.take(t + 20 * SECOND);
    }
    assert_eq!(window.starts.len(), STARTS_MAX as usize);
}

proptest! {
    #[test]
    fn no_second_holds_more_than_the_limit_and_nobody_waits_for_nothing(
        max in 1_u32..8,
        gaps_us in prop::collection::vec(prop_oneof![0_u64..2_000, 0_u64..400_000, 900_000_u64..1_100_000], 1..200),
    ) {
        let mut now = origin();
        let mut window = Window::new(max);
        let mut starts = Vec::new();
        for gap in gaps_us {
            now += Duration::from_micros(gap);
            let in_this_second = within_a_span(&starts, now, SECOND);
            match window.try_take(now) {
                Ok(()) => {
                    prop_assert!(in_this_second < max as usize);
                    starts.push(now);
                }
                Err(earliest) => {
                    prop_assert!(in_this_second >= max as usize);
                    prop_assert!(window.check(earliest).is_ok());
                    prop_assert_eq!(window.check(earliest - NS), Err(earliest));
                }
            }
        }
    }

    #[test]
    fn with_changes_of_pace_the_promised_instant_holds(
        steps in prop::collection::vec((0_u64..700, 0_u8..10, 1_u32..8), 1..200),
    ) {
        let mut now = origin();
        let mut window = Window::new(3);
        let mut starts = Vec::new();
        for (gap_ms, what, value) in steps {
            now += Duration::from_millis(gap_ms);
            match what {
                0 => window.set_max(value),
                1 => window.slow_down(now, Duration::from_millis(u64::from(value) * 500)),
                _ => match window.try_take(now) {
                    Ok(()) => {
                        let max = window.max() as usize;
                        prop_assert!(within_a_span(&starts, now, SECOND) < max);
                        if window.slow_until(now).is_some() {
                            prop_assert!(within_a_span(&starts, now, SECOND) < (max / 2).max(1));
                        }
                        starts.push(now);
                    }
                    Err(earliest) => {
                        prop_assert!(earliest > now);
                        prop_assert!(window.check(earliest).is_ok());
                        prop_assert!(window.check(earliest - NS).is_err());
                    }
                },
            }
        }
    }

    #[test]
    fn channels_are_a_set(max in prop::option::of(0_u32..5), steps in prop::collection::vec((0_u8..3, 0_usize..8), 0..100)) {
        let ids = ids(8);
        let mut channels = Channels::new(max);
        let mut model = HashSet::new();
        for (what, n) in steps {
            match what {
                0 => {
                    let room = max.is_none_or(|m| model.len() < m as usize) || model.contains(&n);
                    prop_assert_eq!(channels.acquire(&ids[n]).is_ok(), room);
                    if room {
                        model.insert(n);
                    }
                }
                1 => {
                    channels.release(&ids[n]);
                    model.remove(&n);
                }
                _ => {
                    channels.adopt(&ids[n]);
                    model.insert(n);
                }
            }
            prop_assert_eq!(channels.held(), model.len());
        }
    }
}

#[test]
fn channels_released_twice_are_free_once() {
    let ids = ids(3);
    let mut channels = Channels::new(Some(2));
    assert_eq!(channels.acquire(&ids[0]), Ok(()));
    assert_eq!(channels.acquire(&ids[0]), Ok(()));
    assert_eq!(channels.acquire(&ids[1]), Ok(()));
    assert_eq!(channels.acquire(&ids[2]), Err(ChannelsFull { max: 2 }));
    channels.release(&ids[0]);
    channels.release(&ids[0]);
    channels.release(&ids[2]);
    assert_eq!(channels.held(), 1);
    assert_eq!(channels.acquire(&ids[2]), Ok(()));
    assert_eq!(channels.check(), Err(ChannelsFull { max: 2 }));
    channels.set_max(Some(1));
    assert_eq!(channels.holders().count(), 2);
}

#[test]
fn near_a_limit_is_four_fifths_of_it_and_never_one_or_two_calls() {
    let of = |max: u32, held: u64| {
        let (mut channels, mut window, now) = (Channels::new(Some(max)), Window::new(max), origin());
        for id in ids(held) {
            channels.adopt(&id);
            window.take(now);
        }
        assert_eq!(channels.is_near_full(), window.is_near_full(now));
        assert!(!window.is_near_full(now + 1000 * MS));
        channels.is_near_full()
    };
    assert!(!of(1, 1) && !of(2, 2) && of(3, 3) && !of(10, 7) && of(10, 8) && of(10, 12));
    assert!(!Channels::new(None).is_near_full());
}

#[test]
fn a_start_that_never_left_is_given_back_and_no_other() {
    let t = origin();
    let mut window = Window::new(2);
    let first = window.take(t);
    window.take(t + 400 * MS);
    assert_eq!(window.check(t + 500 * MS), Err(t + SECOND));
    window.give_back(first);
    assert_eq!(window.check(t + 500 * MS), Ok(()));
    window.take(t + 500 * MS);
    // The one that left counts from when it left.
    assert_eq!(window.check(t + 600 * MS), Err(t + 1_400 * MS));
    // Long forgotten: nothing happens.
    window.give_back(first);
    assert_eq!(window.check(t + 600 * MS), Err(t + 1_400 * MS));
}

#[test]
fn what_others_have_started_is_known_and_given_out_as_it_is_free_again() {
    let t = origin();
    let mut window = Window::new(3);
    window.take(t);
    let own = window.take(t + 900 * MS);
    // Others had two of the three, and do not know of the latest one yet.
    window.is_counted([t + 200 * MS, t + 600 * MS]);
    assert_eq!(window.check(t + 950 * MS), Err(t + 1_200 * MS));
    // One at a time, each when it is free.
    assert_eq!(window.try_take(t + 1_200 * MS), Ok(()));
    assert_eq!(window.check(t + 1_200 * MS), Err(t + 1_600 * MS));
    assert_eq!(window.try_take(t + 1_600 * MS), Ok(()));
    assert_eq!(window.check(t + 1_600 * MS), Err(t + 1_900 * MS));
    window.give_back(own);
    assert_eq!(window.check(t + 1_600 * MS), Ok(()));
    window.is_counted([]);
    assert_eq!(window.left(t + 1_600 * MS), 1);
}
