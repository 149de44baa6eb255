//! What the rules must do to attackers, and what they must never do to anybody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use proptest::prelude::*;

use super::*;
use crate::{
    offence::Transport,
    protected::{Group, Protection},
};

const SEED: [u64; 2] = [0x5eed, 0xf00d];

fn jail() -> JailName {
    "asterisk".parse().unwrap()
}

fn protected() -> Protected {
    let given = [
        ("198.51.100.0/24", Group::Carrier),
        ("203.0.113.1/32", Group::ControlPlane),
        ("10.9.0.0/16", Group::Management),
        ("192.0.2.200/32", Group::Own),
        ("2001:db8:a::/48", Group::Allow),
    ];
    Protected::new(given.map(|(net, group)| Protection { net: net.parse().unwrap(), group }))
}

fn rules_of(change: impl FnOnce(&mut RulesSettings)) -> Rules {
    let mut settings = RulesSettings::default();
    change(&mut settings);
    Rules::new(&settings, protected(), SEED).unwrap()
}

fn rules() -> Rules {
    rules_of(|_| {})
}

fn source(text: &str) -> Source {
    Source::of(text.parse().unwrap()).unwrap()
}

fn numbered(number: u32) -> Source {
    Source::of(IpAddr::V4(Ipv4Addr::from_bits(0x2000_0000 + number))).unwrap()
}

fn offence(source: Source, kind: Kind, account: &str, transport: Transport) -> Finding {
    Finding::Offence(Offence { kind, source, transport, account: Account::of(account.as_bytes()) })
}

fn login(source: Source, account: &str) -> Finding {
    Finding::Success(Success { source, transport: Transport::Udp, account: Account::of(account.as_bytes()) })
}

fn at_s(seconds: u64) -> UnixMs {
    UnixMs(1_790_000_000_000).plus_s(seconds)
}

/// The first ban among these, with how many findings came before it.
fn first_ban(
    rules: &mut Rules,
    findings: impl IntoIterator<Item = (Finding, UnixMs)>,
) -> Option<(usize, Verdict)> {
    findings.into_iter().enumerate().find_map(|(before, (finding, now))| {
        match rules.weigh(&jail(), &finding, now) {
            Decision::Ban(verdict) => Some((before, verdict)),
            Decision::Count { .. }
            | Decision::Nothing
            | Decision::Warn { .. }
            | Decision::Protected { .. }
            | Decision::Banned { .. }
            | Decision::Held { .. } => None,
        }
    })
}

#[test]
fn a_scan_for_accounts_is_banned_at_its_fifth_name() {
    let from = source("192.0.2.66");
    let scan = (0..100)
        .map(|n| (offence(from, Kind::InvalidAccount, &format!("{n}"), Transport::Udp), at_s(n / 50)));
    let (before, verdict) = first_ban(&mut rules(), scan).unwrap();
    assert_eq!((before, verdict.accounts, verdict.offences, verdict.seconds), (4, 5, 5, 600));
    assert_eq!((verdict.proof, verdict.net.to_string().as_str()), (Proof::Forgeable, "192.0.2.66/32"));
    assert_eq!(
        verdict.to_string(),
        "asterisk: 5 offences (invalid_account last), 5 accounts, forgeable, step 1"
    );
}

#[test]
fn a_guesser_of_one_account_s_password_is_banned_since_he_does_not_wait() {
    let from = source("192.0.2.66");
    let guess = |n: u64| {
        let now = UnixMs(at_s(0).0 + n * 20);
        (offence(from, Kind::ChallengeResponseFailed, "6001", Transport::Tcp), now)
    };
    let (before, verdict) = first_ban(&mut rules(), (0..200).map(guess)).unwrap();
    assert!((20..=30).contains(&before), "{before}");
    assert_eq!((verdict.accounts, verdict.seconds, verdict.proof), (1, 3600, Proof::Proven));
}

#[test]
fn an_old_password_is_warned_of_and_never_bans() {
    let (office, mut rules) = (source("192.0.2.10"), rules());
    let mut warned = Vec::new();
    for minute in 0..7 * 24 * 60 {
        let finding = offence(office, Kind::ChallengeResponseFailed, "6001", Transport::Udp);
        match rules.weigh(&jail(), &finding, at_s(minute * 60)) {
            Decision::Warn { account, .. } => warned.push((minute, account)),
            Decision::Count { .. } => {}
            other @ (Decision::Nothing
            | Decision::Protected { .. }
            | Decision::Banned { .. }
            | Decision::Held { .. }
            | Decision::Ban(_)) => panic!("minute {minute}: {other:?}"),
        }
    }
    assert_eq!(warned[0], (5, Account::of(b"6001").unwrap()));
    assert!((160..=168).contains(&warned.len()), "about one an hour: {}", warned.len());
}

/// A phone whose account was deleted sends two requests each time, and both name an account that does not exist.
#[test]
fn a_phone_without_its_account_is_not_banned() {
    let (office, mut rules) = (source("192.0.2.10"), rules());
    for n in 0..2 * 24 * 60_u64 {
        for ms in [0, 40] {
            let finding = offence(office, Kind::InvalidAccount, "6001", Transport::Udp);
            let decision = rules.weigh(&jail(), &finding, UnixMs(at_s(n * 60).0 + ms));
            let is_mild = matches!(decision, Decision::Count { .. } | Decision::Warn { .. });
            assert!(is_mild, "minute {n}: {decision:?}");
        }
    }
}

#[test]
fn a_whole_office_with_old_passwords_is_not_banned_either() {
    for phones in [1, 2, 7, 8, 9, 20, 50] {
        let (office, mut rules) = (source("192.0.2.10"), rules());
        for minute in 0..2 * 24 * 60_u64 {
            let account = format!("60{:02}", minute % phones);
            let finding = offence(office, Kind::ChallengeResponseFailed, &account, Transport::Tcp);
            let decision = rules.weigh(&jail(), &finding, at_s(minute * 60));
            assert!(
                matches!(decision, Decision::Count { .. } | Decision::Warn { .. }),
                "{phones} phones, minute {minute}: {decision:?}"
            );
        }
    }
}

#[test]
fn a_login_of_late_raises_the_bar() {
    let office = source("192.0.2.10");
    let scan = |n: u64| (offence(office, Kind::InvalidAccount, &format!("{n}"), Transport::Tcp), at_s(1));
    let mut rules = rules();
    rules.weigh(&jail(), &login(office, "6001"), at_s(0));
    assert_eq!(first_ban(&mut rules, (0..100).map(scan)).unwrap().0, 13);
    // A day later it speaks for nobody.
    let scan =
        |n: u64| (offence(office, Kind::InvalidAccount, &format!("{n}"), Transport::Tcp), at_s(90_000));
    assert_eq!(first_ban(&mut rules, (0..100).map(scan)).unwrap().0, 4);
}

#[test]
fn repeaters_climb_and_time_brings_them_down() {
    let from = source("2001:db8:66::1");
    let scan = |at: u64, transport| {
        move |n: u64| (offence(from, Kind::InvalidAccount, &format!("{n}"), transport), at_s(at))
    };
    let mut rules = rules();
    let mut banned = |at: u64, transport| {
        let verdict = first_ban(&mut rules, (0..10).map(scan(at, transport))).unwrap().1;
        assert_eq!(verdict.net.to_string(), "2001:db8:66::/64");
        (verdict.step, verdict.seconds)
    };
    let day = 86_400;
    assert_eq!(banned(0, Transport::Tls), (1, 3600));
    assert_eq!(banned(4000, Transport::Tls), (2, 21_600));
    assert_eq!(banned(30_000, Transport::Tls), (3, 86_400));
    assert_eq!(banned(2 * day, Transport::Tls), (4, 604_800));
    assert_eq!(banned(10 * day, Transport::Tls), (5, 604_800));
    // What may be forged is never long, whatever came before.
    assert_eq!(banned(18 * day, Transport::Udp), (5, 3600));
    // Four quiet days after the last ban's end take two of four steps away.
    assert_eq!(banned(18 * day + 3600 + 4 * day, Transport::Tls), (3, 86_400));
}

/// What was under way, and what comes before the kernel has the ban, must not make the next step of it.
#[test]
fn nothing_climbs_while_a_ban_lasts() {
    let (from, mut rules) = (source("192.0.2.66"), rules());
    let mut bans = Vec::new();
    for n in 0..100_000_u64 {
        let finding = offence(from, Kind::InvalidAccount, &n.to_string(), Transport::Tcp);
        let now = UnixMs(at_s(0).0 + n * 50);
        match rules.weigh(&jail(), &finding, now) {
            Decision::Ban(verdict) => bans.push((n / 20, verdict.step)),
            Decision::Count { .. } | Decision::Banned { .. } => {}
            other @ (Decision::Nothing
            | Decision::Warn { .. }
            | Decision::Protected { .. }
            | Decision::Held { .. }) => panic!("{other:?}"),
        }
    }
    assert_eq!(bans, [(0, 1), (3600, 2)]);
    // Over a restart the steps are known.
    let disk = serde_json::to_string(&rules.remembered()).unwrap();
    let mut after = super::Rules::new(&RulesSettings::default(), protected(), SEED).unwrap();
    after.recall(serde_json::from_str::<Vec<Remembered>>(&disk).unwrap());
    let scan =
        (0..5).map(|n| (offence(from, Kind::InvalidAccount, &n.to_string(), Transport::Tcp), at_s(90_000)));
    assert_eq!(first_ban(&mut after, scan).unwrap().1.step, 3);
    rules.forget(from);
    let scan =
        (0..5).map(|n| (offence(from, Kind::InvalidAccount, &n.to_string(), Transport::Tcp), at_s(5001)));
    assert_eq!(first_ban(&mut rules, scan).unwrap().1.step, 1, "an operator lifted it");
}

#[test]
fn a_dry_run_says_the_same_and_takes_nothing_from_the_breaker() {
    let mut rules = rules_of(|settings| {
        settings.jails.get_mut(&jail()).unwrap().simulate = true;
        settings.bans_per_minute_max = 1;
    });
    for n in 0..5 {
        let scan = (0..10)
            .map(|a| (offence(numbered(n), Kind::InvalidAccount, &format!("{a}"), Transport::Tcp), at_s(0)));
        let verdict = first_ban(&mut rules, scan).unwrap().1;
        assert!(verdict.simulate);
        assert_eq!(verdict.step, 1);
    }
}

#[test]
fn the_breaker_holds_bans_back_and_lets_them_through_later() {
    let mut rules = rules_of(|settings| settings.bans_per_minute_max = 3);
    let mut decide = |n: u32, now| {
        (0..5).any(|account| {
            let finding = offence(numbered(n), Kind::InvalidAccount, &format!("{account}"), Transport::Tcp);
            matches!(rules.weigh(&jail(), &finding, now), Decision::Ban(_))
        })
    };
    assert_eq!((0..5).map(|n| decide(n, at_s(0))).collect::<Vec<_>>(), [true, true, true, false, false]);
    assert!(decide(4, at_s(60)), "the next minute bans who still offends");
}

/// 100,000 forged sources, those of everybody who matters among them, while a real attacker goes on.
#[test]
fn a_forged_flood_bans_nobody_who_matters_flushes_nobody_and_takes_no_memory() {
    let mut rules = rules();
    let bytes = rules.bytes();
    let office = source("192.0.2.10");
    rules.weigh(&jail(), &login(office, "6001"), at_s(0));
    let matters = ["198.51.100.7", "203.0.113.1", "10.9.1.1", "192.0.2.200", "2001:db8:a::5"].map(source);
    let attacker = source("192.0.2.66");
    let slow_attacker = source("192.0.2.67");
    let mut forged_bans = 0;
    let mut caught = BTreeMap::new();
    for n in 0..100_000_u32 {
        // 10,000 packets a second.
        let now = UnixMs(at_s(1).0 + u64::from(n) / 10);
        let mut send = |from, account: &str, transport| {
            rules.weigh(&jail(), &offence(from, Kind::InvalidAccount, account, transport), now)
        };
        let forged = send(numbered(n), "1000", Transport::Udp);
        forged_bans += usize::from(matches!(forged, Decision::Ban(_)));
        let who = matters[n as usize % matters.len()];
        let decision = send(who, &format!("{n}"), Transport::Udp);
        assert!(matches!(decision, Decision::Protected { .. }), "{decision:?}");
        // One tries 20 accounts a second by UDP, another one every two seconds by TCP.
        if n % 500 == 0
            && let Decision::Ban(_) = send(attacker, &format!("{n}"), Transport::Udp)
        {
            caught.entry(attacker).or_insert(n);
        }
        if n % 20_000 == 0
            && let Decision::Ban(_) = send(slow_attacker, &format!("{n}"), Transport::Tcp)
        {
            caught.entry(slow_attacker).or_insert(n);
        }
    }
    assert_eq!(forged_bans, 0, "one packet each is no attack");
    assert!(caught[&attacker] <= 4000, "the crowd hid him until packet {}", caught[&attacker]);
    assert_eq!(caught[&slow_attacker], 80_000);
    // The office's login is still known: its bar is the high one.
    let scan =
        (0..20).map(|n| (offence(office, Kind::InvalidAccount, &format!("{n}"), Transport::Udp), at_s(20)));
    assert_eq!(first_ban(&mut rules, scan).unwrap().0, 13);
    assert_eq!(rules.bytes(), bytes);
    println!("{bytes} bytes in all, {} each slot", size_of::<Slot>());
    assert!(bytes < 8 << 20, "{bytes}");
}

/// The worst flood: every forged source offends often enough for a ban.
#[test]
fn a_flood_of_forged_attackers_bans_a_minute_s_share_and_leaves_proven_bans_alone() {
    let mut rules = rules();
    let (mut bans, mut held) = (0, 0);
    for n in 0..10_000_u32 {
        for account in 0..6 {
            let finding = offence(numbered(n), Kind::InvalidAccount, &format!("{account}"), Transport::Udp);
            match rules.weigh(&jail(), &finding, UnixMs(at_s(0).0 + u64::from(n))) {
                Decision::Ban(verdict) => {
                    assert!(verdict.seconds <= 3600);
                    bans += 1;
                }
                Decision::Held { proof, .. } => {
                    assert_eq!(proof, Proof::Forgeable);
                    held += 1;
                }
                Decision::Count { .. } | Decision::Banned { .. } => {}
                other @ (Decision::Nothing | Decision::Warn { .. } | Decision::Protected { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
    }
    assert_eq!(bans, 60);
    assert!(held > 9000, "{held}");
    let scan = (0..5).map(|n| {
        (offence(source("192.0.2.66"), Kind::InvalidAccount, &format!("{n}"), Transport::Tls), at_s(10))
    });
    assert!(first_ban(&mut rules, scan).is_some(), "a proven attacker is banned all the same");
}

#[test]
fn settings_are_checked_and_unknown_ones_named() {
    assert_eq!(RulesSettings::default().check(), Ok(()));
    let refused = |change: fn(&mut Jail)| {
        let mut settings = RulesSettings::default();
        change(settings.jails.get_mut(&jail()).unwrap());
        settings.check().unwrap_err().to_string()
    };
    assert_eq!(refused(|jail| jail.threshold = 0), "jail asterisk: threshold must be 1 to 10000");
    for (change, setting) in [
        ((|jail| jail.ladder_s.clear()) as fn(&mut Jail), "ladder_s"),
        (|jail| jail.ladder_s = vec![600, 60], "ladder_s"),
        (|jail| jail.ladder_s = vec![u32::MAX], "ladder_s"),
        (|jail| jail.success_bar_percent = 50, "success_bar_percent"),
        (|jail| jail.findtime_s = 0, "findtime_s"),
    ] {
        assert!(refused(change).contains(setting));
    }
    let parsed = serde_json::from_str::<RulesSettings>(r#"{"jails": {"asterisk": {"treshold": 5}}}"#);
    assert!(parsed.unwrap_err().to_string().contains("treshold"));
    let parsed = serde_json::from_str::<RulesSettings>(r#"{"jails": {"a b": {}}}"#);
    assert!(parsed.is_err());
    let json = serde_json::to_string(&RulesSettings::default()).unwrap();
    assert_eq!(serde_json::from_str::<RulesSettings>(&json).unwrap(), RulesSettings::default());
}

fn any_source() -> impl Strategy<Value = Source> {
    let v4 = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        (0_u8..=255).prop_map(|last| IpAddr::from([198, 51, 100, last])),
        (0_u8..=255).prop_map(|last| IpAddr::from([192, 0, 2, last])),
        any::<u16>().prop_map(|low| IpAddr::from([10, 9, (low >> 8) as u8, low as u8])),
    ];
    let v6 = (any::<u16>(), any::<u64>()).prop_map(|(net, low)| {
        IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(net) << 64 | u128::from(low)).to_be_bytes())
    });
    prop_oneof![3 => v4, 1 => v6].prop_filter_map("names nobody", Source::of)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// In whatever order things come, clocks that step back included.
    #[test]
    fn nobody_protected_is_ever_banned_and_memory_stays(
        what in proptest::collection::vec(
            (any_source(), prop::sample::select(Kind::ALL), 0_u8..4, any::<bool>(), any::<bool>(), 0_u64..4_000_000),
            1..400,
        ),
    ) {
        let mut rules = rules_of(|settings| {
            settings.sources_max = 64;
            for jail in settings.jails.values_mut() {
                jail.threshold = 20;
            }
        });
        let bytes = rules.bytes();
        let mut ladder = BTreeSet::from([600, 1800, 3600]);
        ladder.extend([21_600, 86_400, 604_800]);
        for (from, kind, account, is_tcp, is_login, ms) in what {
            let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
            let finding = if is_login && account == 0 {
                login(from, "0")
            } else {
                offence(from, kind, &account.to_string(), transport)
            };
            if let Decision::Ban(verdict) = rules.weigh(&jail(), &finding, UnixMs(at_s(0).0 + ms)) {
                prop_assert!(protected().touched_by(&verdict.net).is_none(), "{verdict}");
                prop_assert!(ladder.contains(&verdict.seconds));
                prop_assert!(is_tcp || verdict.seconds <= 3600);
            }
            prop_assert!(rules.bytes() == bytes);
        }
    }
}
