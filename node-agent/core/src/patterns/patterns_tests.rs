//! Shipped and own patterns, on what honest phones and hostile texts make loggers write.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
};

use proptest::prelude::*;

use super::{trial::Trial, *};
use crate::{
    moment::UnixMs,
    offence::{Finding, Kind, Nobody, Offence, Transport},
    protected::Protected,
    rules::RulesSettings,
};

/// Compiled once: that takes longer than the reading.
static SHIPPED: LazyLock<Mutex<BTreeMap<String, Matcher>>> = LazyLock::new(|| {
    let compiled = |filter: Filter| (filter.name.to_string(), Matcher::new(&filter).unwrap());
    Mutex::new(Filter::shipped().unwrap().into_iter().map(compiled).collect())
});

const NOW: UnixMs = UnixMs(1_795_522_800_000);
const TRUE: &str = "192.0.2.66";
const VICTIM: &str = "203.0.113.9";

fn filter(name: &str) -> Filter {
    Filter::shipped().unwrap().into_iter().find(|filter| filter.name.as_str() == name).unwrap()
}

fn read(name: &str, line: &str) -> Line {
    SHIPPED.lock().unwrap().get_mut(name).unwrap().read(line.as_bytes(), NOW)
}

fn offence(line: Line) -> Offence {
    match line {
        Line::Matched { finding: Finding::Offence(offence), at: Some(_), .. } => offence,
        Line::Matched { .. } | Line::Missed | Line::Ignored(_) => panic!("{line:?}"),
    }
}

/// What Asterisk 22 writes, with a stranger's account and Call-ID.
fn asterisk(event: &str, account: &str, call_id: &str, more: &str) -> String {
    format!(
        "[2026-11-24 12:18:42] SECURITY[4242] res_security_log.c: SecurityEvent=\"{event}\",\
         EventTV=\"2026-11-24T12:18:42.523+0000\",Severity=\"Error\",Service=\"PJSIP\",EventVersion=\"1\",\
         AccountID=\"{account}\",SessionID=\"{call_id}\",LocalAddress=\"IPV4/UDP/198.51.100.1/5060\",\
         RemoteAddress=\"IPV4/UDP/{TRUE}/5099\"{more}"
    )
}

fn sshd(message: &str) -> String {
    format!("Nov 24 12:18:42 pbx1 sshd[812]: {message}")
}

const FAILED: &str = ",Challenge=\"1/a\",Response=\"r\",ExpectedResponse=\"e\"";

#[test]
fn shipped_filters_read_what_their_loggers_write() {
    let of = offence(read("asterisk_log", &asterisk("InvalidAccountID", "1000", "a@b", "")));
    assert_eq!(
        (of.kind, of.source.to_string().as_str(), of.transport),
        (Kind::InvalidAccount, TRUE, Transport::Udp)
    );
    assert_eq!(of.account.unwrap().as_str(), "1000");
    let of = offence(read("asterisk_log", &asterisk("ChallengeResponseFailed", "6001", "a@b", FAILED)));
    assert_eq!(of.kind, Kind::ChallengeResponseFailed);
    let login = read("asterisk_log", &asterisk("SuccessfulAuth", "6001", "a@b", ",UsingPassword=\"1\""));
    assert!(matches!(login, Line::Matched { finding: Finding::Success(_), .. }), "{login:?}");
    let sent = read("asterisk_log", &asterisk("ChallengeSent", "x", "a@b", ",Challenge=\"\""));
    assert!(matches!(sent, Line::Ignored(_)), "{sent:?}");

    for (message, kind, account) in [
        ("Invalid user admin from 192.0.2.66 port 40000", Kind::InvalidAccount, Some("admin")),
        ("Invalid user  from 192.0.2.66 port 40000", Kind::InvalidAccount, None),
        ("Failed password for root from 192.0.2.66 port 40000 ssh2", Kind::InvalidPassword, Some("root")),
        (
            "error: maximum authentication attempts exceeded for root from 192.0.2.66 port 4 ssh2 [preauth]",
            Kind::LoginFailed,
            Some("root"),
        ),
        (
            "Unable to negotiate with 192.0.2.66 port 4: no matching key exchange method found.",
            Kind::RequestBadFormat,
            None,
        ),
    ] {
        let of = offence(read("sshd", &sshd(message)));
        assert_eq!((of.kind, of.source.to_string().as_str()), (kind, TRUE), "{message}");
        assert_eq!(of.account.as_ref().map(|account| account.as_str()), account, "{message}");
        assert_eq!(of.transport, Transport::Tcp);
    }
    let journal = "2026-11-24T12:18:42+0000 pbx1 sshd-session[9]: Invalid user x from 2001:db8::66 port 1";
    assert_eq!(offence(read("sshd", journal)).source.to_string(), "2001:db8::/64");
    let twice = read("sshd", &sshd("Failed password for invalid user admin from 192.0.2.66 port 40000 ssh2"));
    assert!(matches!(twice, Line::Ignored(_)));
    let login =
        read("sshd", &sshd("Accepted publickey for anna from 192.0.2.66 port 4 ssh2: ED25519 SHA256:abc+/d"));
    assert!(matches!(login, Line::Matched { finding: Finding::Success(_), .. }), "{login:?}");
    assert_eq!(read("sshd", &sshd("Server listening on 0.0.0.0 port 22.")), Line::Missed);

    let get = |user: &str, path: &str, status: u16| {
        format!(
            "192.0.2.66 - {user} [24/Nov/2026:12:18:42 +0000] \"GET {path} HTTP/1.1\" {status} 153 \"-\" \"ua\""
        )
    };
    assert_eq!(offence(read("nginx", &get("-", "/wp-login.php", 404))).kind, Kind::Probe);
    assert_eq!(offence(read("nginx", &get("-", "/a/../../etc/passwd", 400))).kind, Kind::Probe);
    assert_eq!(offence(read("nginx", &get("anna b", "/api", 401))).kind, Kind::LoginFailed);
    assert_eq!(read("nginx", &get("-", "/v1/calls", 200)), Line::Missed);
    assert_eq!(read("nginx", &get("-", "/v1/calls", 404)), Line::Missed);
}

/// Which pattern one automaton of all patterns takes a line for, as a reference.
fn reference(filter: &Filter) -> impl Fn(&str) -> Option<usize> + use<> {
    let patterns = filter.patterns.iter().map(|pattern| super::matcher::written(&filter.prefix, pattern));
    let syntax = regex_automata::util::syntax::Config::new().unicode(false).utf8(false);
    let patterns: Vec<_> = patterns.collect();
    let which = regex_automata::meta::Regex::builder().syntax(syntax).build_many(&patterns).unwrap();
    move |line| {
        let fits = || Some(which.search_half(&regex_automata::Input::new(line))?.pattern().as_usize());
        if line.len() > super::LINE_BYTES_MAX { None } else { fits() }
    }
}

fn pattern_of(line: &Line) -> Option<usize> {
    match line {
        Line::Missed => None,
        Line::Ignored(pattern) | Line::Matched { pattern, .. } => Some(*pattern),
    }
}

#[test]
fn the_first_pattern_that_fits_is_the_one_that_an_automaton_of_all_would_take() {
    let events = [
        "ChallengeSent",
        "SuccessfulAuth",
        "InvalidAccountID",
        "FailedACL",
        "ChallengeResponseFailed",
        "InvalidPassword",
        "RequestNotAllowed",
    ];
    let mores = [
        "",
        FAILED,
        ",UsingPassword=\"1\"",
        ",ACLName=\"a\"",
        ",Challenge=\"a\"\nb\"",
        ",RequestType=\"x\"",
        " \n",
    ];
    let messages =
        ["Invalid user", "Failed password for", "Failed password for invalid user", "Accepted password for"];
    let (log, ssh) = (reference(&filter("asterisk_log")), reference(&filter("sshd")));
    let mut fitted = std::collections::BTreeSet::new();
    for text in hostile().iter().map(String::as_str).chain(["1000", "\"FailedACL\",EventTV=\"", ""]) {
        for (event, more) in events.iter().flat_map(|event| mores.map(|more| (event, more))) {
            for line in [
                asterisk(event, text, "a@b", more),
                asterisk(event, "1", text, more),
                format!("{text}{more}"),
            ] {
                let found = pattern_of(&read("asterisk_log", &line));
                assert_eq!(found, log(&line), "{line}");
                fitted.insert(("asterisk_log", found));
            }
        }
        for message in messages {
            for tail in ["", " ssh2", "\n"] {
                let line = sshd(&format!("{message} {text} from {TRUE} port 22{tail}"));
                let found = pattern_of(&read("sshd", &line));
                assert_eq!(found, ssh(&line), "{line}");
                fitted.insert(("sshd", found));
            }
        }
    }
    assert!(fitted.len() > 10, "too few patterns were met: {fitted:?}");
    // Flags of a prefix hold for what follows: words that are looked for as they are written would be missed.
    let own = "name = \"x\"\nprefix = '^(?i)'\n[[pattern]]\nkind = \"probe\"\naddress = \"last\"\nregex = 'probe from <HOST>$'\n";
    let mut matcher = Matcher::new(&Filter::parse(own).unwrap()).unwrap();
    assert_eq!(pattern_of(&matcher.read(b"PROBE from 192.0.2.66", NOW)), Some(0));
}

#[test]
fn patterns_of_asterisk_and_sshd_are_told_by_their_words() {
    for (name, is_told) in [("asterisk_log", true), ("sshd", true), ("nginx", false)] {
        assert_eq!(Matcher::new(&filter(name)).unwrap().is_told_by_words(), is_told, "{name}");
    }
}

/// Texts that strangers put into accounts, Call-IDs, digests and user names, to have somebody else banned.
fn hostile() -> Vec<String> {
    let v = VICTIM;
    let forged_line = asterisk("InvalidAccountID", "x", "y", "").replace(TRUE, v);
    let mut texts: Vec<String> = [
        format!("x from {v} port 22 ssh2"),
        format!("x from {v} port 22"),
        format!("x from {v}"),
        format!("root from {v} port 22 ssh2: RSA SHA256:abc"),
        format!("x from {v} port 22 ssh2 from {v} port 22 ssh2"),
        format!("invalid user x from {v} port 22 ssh2"),
        v.to_owned(),
        format!("x {v} port 22 [preauth]"),
        format!("x\",RemoteAddress=\"IPV4/UDP/{v}/5060"),
        format!("x\",RemoteAddress=\"IPV4/TLS/{v}/5060\",Challenge=\""),
        format!("x\",SessionID=\"y\",LocalAddress=\"z\",RemoteAddress=\"IPV4/UDP/{v}/5060"),
        format!("x\",SessionID=\"y\",LocalAddress=\"z\",RemoteAddress=\"IPV4/UDP/{v}/5060\""),
        format!("x\",LocalAddress=\"z\",RemoteAddress=\"IPV4/UDP/{v}/5060\",X=\"{FAILED}"),
        format!("x\",LocalAddress=\"z\",RemoteAddress=\"IPV4/UDP/{v}/5060\"{FAILED}"),
        format!("IPV4/UDP/{v}/5060"),
        format!("x' from '{v}' - Wrong password"),
        format!("{v} - - [24/Nov/2026:12:18:42 +0000] \"GET /wp-login.php HTTP/1.1\" 404 1 \"-\" \"-\""),
        format!("x] client: {v}, server: _"),
        format!("x\\\",RemoteAddress=\\\"IPV4/UDP/{v}/1"),
        format!("x\u{0}{v}"),
        format!("x\r{v}"),
        format!("x\tfrom\t{v}"),
        format!("SecurityEvent=\"InvalidAccountID\",RemoteAddress=\"IPV4/UDP/{v}/5060\""),
        forged_line.clone(),
        format!("x\n{forged_line}"),
        format!("x from ::ffff:{v} port 1 ssh2"),
        format!("x from {v} port 1 ssh2\\nInvalid user y from {v} port 1"),
        format!("Accepted password for root from {v} port 22 ssh2"),
        format!("x: maximum authentication attempts exceeded for y from {v} port 4 ssh2 [preauth]"),
        format!("x: Unable to negotiate with {v} port 4: no matching key"),
        format!("{}{v}", "x".repeat(20_000)),
        format!("é from {v} port 22 ssh2"),
    ]
    .into();
    texts.extend(texts.clone().iter().map(|text| text.replace(v, "2001:db8:f::1")));
    texts
}

/// Lines in which each text stands wherever a stranger can put it, with the name of who reads them.
fn lines(text: &str) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for event in ["InvalidAccountID", "FailedACL"] {
        // Asterisk cuts an account after 36 bytes, and only there may be line breaks.
        let account: String = text.chars().take(36).collect();
        out.push(("asterisk_log", asterisk(event, &account, "a@b", "")));
        out.push(("asterisk_log", asterisk(event, "1000", &text.replace(['\n', '\r'], ""), "")));
    }
    let text = text.replace(['\n', '\r'], "");
    for more in [FAILED, &FAILED.replace("1/a", &text), &FAILED.replace("\"r\"", &format!("\"{text}\""))] {
        out.push(("asterisk_log", asterisk("ChallengeResponseFailed", "6001", "a@b", more)));
        out.push(("asterisk_log", asterisk("ChallengeResponseFailed", "6001", &text, more)));
        out.push(("asterisk_log", asterisk("InvalidPassword", "6001", &text, more)));
    }
    let params = format!(",RequestType=\"{text}\",RequestParams=\"{text}\"");
    out.push(("asterisk_log", asterisk("RequestNotAllowed", "6001", &text, &params)));
    out.push(("asterisk_log", asterisk("RequestBadFormat", "6001", &text, &params)));
    out.push(("asterisk_log", asterisk("SuccessfulAuth", "6001", &text, ",UsingPassword=\"1\"")));
    for message in [
        format!("Invalid user {text} from {TRUE} port 40000"),
        format!("Failed password for invalid user {text} from {TRUE} port 40000 ssh2"),
        format!("Failed password for {text} from {TRUE} port 40000 ssh2"),
        format!("Failed publickey for {text} from {TRUE} port 40000 ssh2: RSA SHA256:abc"),
        format!(
            "error: maximum authentication attempts exceeded for {text} from {TRUE} port 4 ssh2 [preauth]"
        ),
        format!("Unable to negotiate with {TRUE} port 4: no matching {text}"),
        format!("Connection closed by authenticating user {text} {TRUE} port 4 [preauth]"),
        format!("Disconnected from invalid user {text} {TRUE} port 4 [preauth]"),
    ] {
        out.push(("sshd", sshd(&message)));
    }
    let escaped = text.replace('"', "\\x22");
    out.push((
        "nginx",
        format!(
            "{TRUE} - {escaped} [24/Nov/2026:12:18:42 +0000] \"GET /wp-login.php HTTP/1.1\" 404 1 \"{escaped}\" \"{escaped}\""
        ),
    ));
    out
}

/// The addresses that are named by a line as it lies in the file: a line break makes two of it.
fn named(matcher: &mut Matcher, line: &str) -> Vec<String> {
    let physical = line.split('\n').map(|part| matcher.read(part.as_bytes(), NOW));
    let source = |line| match line {
        Line::Matched { finding: Finding::Offence(offence), .. } => Some(offence.source.to_string()),
        Line::Matched { finding: Finding::Success(success), .. } => Some(success.source.to_string()),
        Line::Matched { .. } | Line::Missed | Line::Ignored(_) => None,
    };
    physical.filter_map(source).collect()
}

#[test]
fn no_hostile_text_chooses_the_address() {
    let mut shipped = SHIPPED.lock().unwrap();
    let (mut tried, mut caught) = (0, 0);
    for text in hostile() {
        for (name, line) in lines(&text) {
            let named = named(shipped.get_mut(name).unwrap(), &line);
            assert!(named.iter().all(|source| source == TRUE), "{name}: {named:?} in {line}");
            tried += 1;
            caught += usize::from(!named.is_empty());
        }
    }
    println!("{tried} lines, {caught} of them count against who sent them, the others against nobody");
    assert!(tried > 1000 && caught * 2 > tried, "{caught} of {tried}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_of_words_that_mean_something_chooses_the_address(
        words in proptest::collection::vec(prop::sample::select(vec![
            " from ", "203.0.113.9", " port 22", " ssh2", "\"", ",", "RemoteAddress=", "IPV4/UDP/203.0.113.9/1", "x",
            "LocalAddress=", "SessionID=", "Challenge=", "Response=", "ExpectedResponse=", " [preauth]", ": ", "invalid user ",
            "RSA SHA256:a", "[24/Nov/2026:12:18:42 +0000]", "GET /wp-login.php HTTP/1.1", " 404 ", "\\", "2001:db8::1", "AccountID=",
        ]), 0..16),
    ) {
        let text = words.concat();
        for (name, line) in lines(&text) {
            let named = named(SHIPPED.lock().unwrap().get_mut(name).unwrap(), &line);
            prop_assert!(named.iter().all(|source| source == TRUE), "{}: {:?} in {}", name, named, line);
        }
    }
}

#[test]
fn an_own_pattern_that_does_not_know_better_counts_only_what_can_be_read_in_one_way() {
    let own = "name = \"asterisk\"\nprefix = '^'\n[[pattern]]\nkind = \"login_failed\"\nregex = 'login of <ACCOUNT> from <HOST> failed.*$'\n";
    let mut matcher = Matcher::new(&Filter::parse(own).unwrap()).unwrap();
    let mut read = |line: &str| match matcher.read(line.as_bytes(), NOW) {
        Line::Matched { finding, .. } => finding,
        other @ (Line::Missed | Line::Ignored(_)) => panic!("{other:?}"),
    };
    assert!(matches!(read("login of anna from 192.0.2.66 failed"), Finding::Offence(_)));
    for hostile in [
        "login of x from 203.0.113.9 failed from 192.0.2.66 failed",
        "login of x from 192.0.2.66 failed; login of y from 203.0.113.9 failed",
    ] {
        assert_eq!(read(hostile), Finding::Nobody(Nobody::Ambiguous), "{hostile}");
    }
    assert_eq!(read("login of anna from 1.2.3 failed"), Finding::Nobody(Nobody::NoAddress));
    assert_eq!(read("login of anna from 127.0.0.1 failed"), Finding::Nobody(Nobody::NotBannable));
}

#[test]
fn a_pattern_that_lets_strangers_choose_is_refused_with_its_number() {
    let wrong = |regex: &str, more: &str| {
        let text = format!("name = \"own\"\nprefix = '^'\n[[pattern]]\n{more}\nregex = '{regex}'\n");
        Filter::parse(&text).and_then(|filter| Matcher::new(&filter).map(drop)).unwrap_err().to_string()
    };
    let kind = "kind = \"probe\"";
    for (regex, more, says) in [
        ("<HOST> x", kind, "must end with $"),
        ("<HOST> x\\$", kind, "must end with $"),
        ("x$", kind, "must have <HOST> once"),
        ("<HOST> <HOST>$", kind, "must have <HOST> once"),
        ("<HOST>$", "", "must have a kind"),
        ("<HOST>$", "does = \"success\"\nkind = \"probe\"", "has no kind"),
        ("<HOST>$", "does = \"ignore\"", "neither kind nor <HOST>"),
        ("x .* <HOST>$", "kind = \"probe\"\naddress = \"first\"", "what stands before it may be anything"),
        (
            "<ACCOUNT> <HOST>$",
            "kind = \"probe\"\naddress = \"first\"",
            "what stands before it may be anything",
        ),
        ("<HOST> [^,]*$", "kind = \"probe\"\naddress = \"last\"", "what stands behind it may be anything"),
        ("a <HOST>|b$", kind, "outside of a group"),
        ("(<HOST>$", kind, "unclosed group"),
        ("<HOST>(?:a{1000}){1000}$", kind, "takes more than"),
    ] {
        let error = wrong(regex, more);
        assert!(error.starts_with("filter own") && error.contains(says), "{regex}: {error}");
    }
    assert!(wrong("<HOST>$", "kinds = 1").contains("kinds"));
    let unanchored = "name = \"own\"\nprefix = 'x'\n[[pattern]]\nkind = \"probe\"\nregex = '<HOST>$'\n";
    assert!(Filter::parse(unanchored).unwrap_err().to_string().contains("prefix must begin with ^"));
}

#[test]
fn a_trial_says_what_would_match_and_who_would_be_banned_when() {
    let settings = RulesSettings::default();
    let mut trial = Trial::new(filter("sshd"), &settings, Protected::default(), [1, 2], NOW).unwrap();
    for second in 10..20 {
        let line = format!(
            "Nov 24 12:18:{second} pbx1 sshd[812]: Invalid user a{second} from 192.0.2.66 port 40000"
        );
        trial.line(line.as_bytes());
    }
    trial.line(sshd("Server listening on 0.0.0.0 port 22.").as_bytes());
    trial.line(sshd("Failed password for invalid user a from 192.0.2.66 port 40000 ssh2").as_bytes());
    trial.line(sshd("Failed password for x\u{1b}[31m from 127.0.0.1 port 40000 ssh2").as_bytes());
    assert_eq!((trial.lines, trial.matched, trial.ignored, trial.missed(), trial.nobody), (13, 11, 1, 1, 1));
    insta::assert_snapshot!(trial.to_string());
}

/// How fast: run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, of a release build: cargo test --release -p node-agent-core -- --ignored speed"]
#[allow(clippy::disallowed_methods, reason = "real time is what is measured")]
fn speed_of_two_hundred_thousand_lines() {
    let settings = RulesSettings::default();
    let line = |n: u32| match n % 4 {
        0 => asterisk("ChallengeSent", "6001", &format!("{n}@x"), ",Challenge=\"\""),
        1 => asterisk("SuccessfulAuth", "6001", &format!("{n}@x"), ",UsingPassword=\"1\""),
        2 => asterisk("InvalidAccountID", &n.to_string(), &format!("{n}@x"), "")
            .replace(TRUE, &format!("192.0.{}.{}", n >> 8 & 255, n & 255)),
        _ => asterisk("ChallengeResponseFailed", "6001", &format!("{n}@x"), FAILED),
    };
    let lines: Vec<_> = (0..200_000).map(line).collect();
    let mut trial = Trial::new(filter("asterisk_log"), &settings, Protected::default(), [1, 2], NOW).unwrap();
    let began = std::time::Instant::now();
    lines.iter().for_each(|line| trial.line(line.as_bytes()));
    let took = began.elapsed();
    let rate = 200_000.0 / took.as_secs_f64();
    println!("{took:?}, {rate:.0} lines a second, {} matched", trial.matched);
    assert_eq!((trial.matched, trial.ignored), (150_000, 50_000));
    assert!(rate > 100_000.0, "{rate}");
}
