//! A security log as a PBX on the Internet writes it: logins of its phones, and guessers between them. The same lines for
//! the same seed.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Of 100 lines so many are a challenge, a login, a name that does not exist, a wrong password; the rest are refused by
/// an access list.
const CHALLENGES: u64 = 45;
const LOGINS: u64 = CHALLENGES + 25;
const NAMES: u64 = LOGINS + 20;
const PASSWORDS: u64 = NAMES + 8;
/// The address of the last five lines, by which it is seen that all were read.
pub(super) const LAST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 250);
/// Lines in one second of the log.
const PER_S: u64 = 500;

/// xorshift64*: enough to look like chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    fn byte(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).unwrap_or(u8::MAX)
    }
}

/// A log, and what is in it.
pub(super) struct Log {
    pub(super) text: String,
    pub(super) lines: u64,
    /// Lines of [`Log::offenders`]; the others are of phones that log in.
    pub(super) offences: u64,
    /// Each earns a ban by far.
    pub(super) offenders: BTreeSet<Ipv4Addr>,
}

/// So many lines, the last five of them of [`LAST`], stamped as of the minutes before now.
pub(super) fn log(seed: u64, count: u64) -> Log {
    let mut chance = Chance(seed | 1);
    let (mut text, mut offences, mut offenders) = (String::new(), 0, BTreeSet::new());
    let begin = lab::since_1970().as_secs().saturating_sub(count / PER_S + 1);
    for n in 0..count {
        let which = if n + 5 >= count { LOGINS } else { chance.below(100) };
        let source = match which {
            _ if n + 5 >= count => LAST,
            0..LOGINS => Ipv4Addr::new(10, 0, chance.byte(8), chance.byte(250)),
            _ => Ipv4Addr::new(203, 0, 113, chance.byte(200)),
        };
        if which >= LOGINS {
            offences += 1;
            offenders.insert(source);
        }
        let (phone, guess) = (chance.below(2000), chance.below(100_000));
        let (event, severity, account, more) = match which {
            0..CHALLENGES => ("ChallengeSent", "Informational", phone, format!(",Challenge=\"{n}/5f1c\"")),
            CHALLENGES..LOGINS => {
                ("SuccessfulAuth", "Informational", phone, ",UsingPassword=\"1\"".to_owned())
            }
            LOGINS..NAMES => ("InvalidAccountID", "Error", guess, String::new()),
            NAMES..PASSWORDS => {
                let more = format!(",Challenge=\"{n}/5f1c\",Response=\"{guess:032x}\",ExpectedResponse=\"\"");
                ("ChallengeResponseFailed", "Error", phone, more)
            }
            _ => ("FailedACL", "Error", phone, ",ACLName=\"phones\"".to_owned()),
        };
        let at = stamp(begin + n / PER_S);
        let _ = writeln!(
            text,
            "[{} {}] SECURITY[4242] res_security_log.c: SecurityEvent=\"{event}\",EventTV=\"{}T{}.{:03}+0000\",\
             Severity=\"{severity}\",Service=\"PJSIP\",EventVersion=\"1\",AccountID=\"{account}\",\
             SessionID=\"{:012x}\",LocalAddress=\"IPV4/UDP/198.51.100.1/5060\",\
             RemoteAddress=\"IPV4/UDP/{source}/{}\"{more}",
            at.0,
            at.1,
            at.0,
            at.1,
            n % 1000,
            chance.below(1 << 48),
            1024 + chance.below(60_000),
        );
    }
    Log { text, lines: count, offences, offenders }
}

/// Date and time of day, UTC (civil-from-days).
fn stamp(unix_s: u64) -> (String, String) {
    let (days, second) = (unix_s / 86_400 + 719_468, unix_s % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let (fifth, year) = ((5 * of_year + 2) / 153, year + era * 400);
    let (month, day) = (if fifth < 10 { fifth + 3 } else { fifth - 9 }, of_year - (153 * fifth + 2) / 5 + 1);
    let year = if month <= 2 { year + 1 } else { year };
    let date = format!("{year:04}-{month:02}-{day:02}");
    (date, format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_log_with_every_kind_of_line() {
        assert_eq!(stamp(1_795_522_722), ("2026-11-24".to_owned(), "12:18:42".to_owned()));
        let Log { text, offences, offenders, .. } = log(7, 8_000);
        assert_eq!((text.lines().count(), offenders.len()), (8_000, 201));
        let innocent = ["\"ChallengeSent\"", "\"SuccessfulAuth\""];
        let guilty = text.lines().filter(|line| !innocent.iter().any(|event| line.contains(event)));
        assert_eq!(guilty.count() as u64, offences);
        for event in
            ["ChallengeSent", "SuccessfulAuth", "InvalidAccountID", "ChallengeResponseFailed", "FailedACL"]
        {
            assert!(text.contains(&format!("SecurityEvent=\"{event}\"")), "{event}");
        }
        assert_eq!(text.lines().filter(|line| line.contains(&format!("/{LAST}/"))).count(), 5);
    }
}
